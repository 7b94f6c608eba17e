"""Where commands write: never over scans, references, data or models, and over files of others only when asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_slice
from factories import ThresholdModel, ensemble_of, predict, write_images
from oracle_home import DATASET, HomeFactory, oracle_case, write_oracle_dataset

from autoseg import cli
from autoseg.data.images import read_label, write_image, write_label
from autoseg.data.merge import merge_datasets
from autoseg.inference.manifest import MANIFEST, Manifest, written_labels
from autoseg.pipeline import PredictSettings, draw_overlays, predict_folder, write_report
from autoseg.pipeline.predicting import predict_each
from autoseg.runtime.outputs import Outputs
from autoseg.runtime.serialization import read_json
from autoseg.schema import Case

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    """Every file below a folder that is not hidden."""
    visible = (path for path in folder.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.parts))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in visible}


@pytest.fixture
def home(shared_oracle_home: HomeFactory) -> Path:
    return shared_oracle_home()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans, each with a label that is not what the model says of it."""
    for number, name in enumerate("abc"):
        image, label, geometry = oracle_case(number)
        write_image(tmp_path / "scans" / f"{name}.nii.gz", image[None], geometry)
        write_label(tmp_path / "references" / f"{name}.nii.gz", (label > 0).astype(np.uint8), geometry)
    return tmp_path / "scans"


def run(command: Callable[[list[str]], int], *arguments: object) -> int:
    return command([str(argument) for argument in arguments])


def test_predictions_never_replace_scans_or_references(
    home: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "link").symlink_to(scans)
    (tmp_path / "dataset.json").write_text("{}")
    shutil.copytree(tmp_path / "references", tmp_path / "labelsTr")
    before = contents(tmp_path)
    monkeypatch.chdir(scans)
    for overwrite in ((), ("--overwrite",)):
        for source, out in ((scans, scans), (scans, tmp_path / "link"), (scans, "."), ("a.nii.gz", "."), ("a.nii.gz", "../link/a.nii.gz")):
            assert run(cli.predict, "-i", source, "-o", out, "--home", home, *overwrite) == 2
            assert "choose another output" in capsys.readouterr().err
        assert run(cli.predict, "-i", scans, "-o", tmp_path / "labelsTr", "--home", home, *overwrite) == 2
        assert "belongs to a dataset" in capsys.readouterr().err
    assert run(cli.predict, "-i", scans, "-o", tmp_path / "references", "--home", home) == 2
    assert "did not write it" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert run(cli.predict, "-i", scans, "-o", tmp_path / "references", "--home", home, "--overwrite") == 0
    for number, name in enumerate("abc"):
        assert np.array_equal(read_label(tmp_path / "references" / f"{name}.nii.gz").array, oracle_case(number)[1])


def test_data_and_models_of_the_home_are_never_replaced(oracle_home: HomeFactory, scans: Path) -> None:
    home = oracle_home()
    before = contents(home)
    (validation,) = home.glob("results/*/*/fold_0/validation")
    (held_out,) = validation.glob("*.nii.gz")
    (scans / "a.nii.gz").rename(scans / held_out.name)
    for out in (validation, home / "raw" / DATASET / "labelsTr"):
        with pytest.raises(ValueError, match="choose another output"):
            predict_folder(scans, out, home=home, overwrite=True)
    for name in ("plan.json", "choice.json"):
        with pytest.raises(ValueError, match="never replaced"):
            write_report(1, home=home, out=home / "results" / DATASET / name, cases=0, overwrite=True)
    assert contents(home) == before


def test_one_image_is_written_to_the_file_that_is_named(home: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new/seg.nii.gz"
    for _ in range(2):
        assert run(cli.predict, "-i", scans / "a.nii.gz", "-o", out, "--home", home, "--uncertainty") == 0
    maps = {"uncertainty/seg_entropy.nii.gz", "uncertainty/seg_disagreement.nii.gz"}
    assert set(contents(out.parent)) == {"seg.nii.gz", "seg_volumes.csv", "autoseg_uncertainty.csv", *maps}
    assert np.array_equal(read_label(out).array, oracle_case(0)[1])
    assert run(cli.predict, "-i", scans / "b.nii.gz", "-o", out, "--home", home) == 0
    assert np.array_equal(read_label(out).array, oracle_case(1)[1]), "what the same command wrote is replaced"
    capsys.readouterr()
    for wrong, reason in ((scans, "names one file for 3 cases"), (scans / "a.nii.gz", "label maps would be written as .nrrd")):
        ending = () if wrong == scans else ("--ending", "nrrd")
        assert run(cli.predict, "-i", wrong, "-o", out, "--home", home, *ending) == 2
        assert reason in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"would be written as \.mha, not as \.mhd"):
        predict_folder(scans / "a.nii.gz", tmp_path / "seg.mhd", home=home)
    (tmp_path / "seg.nrrd").mkdir()
    assert predict_folder(scans / "a.nii.gz", tmp_path / "seg.nrrd", home=home) == {}
    assert (tmp_path / "seg.nrrd/a.nii.gz").is_file(), "a folder of that name is a folder"
    (tmp_path / "mine").write_text("no folder")
    with pytest.raises(ValueError, match="expected a folder for the label maps, found a file"):
        predict_folder(scans, tmp_path / "mine", home=home)


def test_corrected_label_maps_stay(home: Path, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, corrected = tmp_path / "out", tmp_path / "out/b.nii.gz"
    predict_folder(scans, out, home=home)
    shutil.copyfile(tmp_path / "references/b.nii.gz", corrected)
    assert predict_folder(scans, out, home=home) == {}
    before = contents(out)
    assert before["b.nii.gz"] == (tmp_path / "references/b.nii.gz").read_bytes() and b"b,organ2,0,0," in before["volumes.csv"]
    assert "b.nii.gz was changed after it had been predicted, and is kept" in caplog.text
    with pytest.raises(ValueError, match=r"b\.nii\.gz: was changed after autoseg_predict had written it.*--overwrite"):
        predict_folder(scans, out, PredictSettings(mirror=False), home=home)  # another way to predict: all cases anew
    assert contents(out) == before
    predict_folder(scans, out, home=home, overwrite=True)
    assert np.array_equal(read_label(corrected).array, oracle_case(1)[1])
    predict_folder(scans, out, PredictSettings(mirror=False), home=home)


def test_cases_that_would_become_one_file_fail_and_the_others_are_written(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "in", 3)
    twins = [Case("new_0", cases[1].images), Case("x", cases[2].images), cases[0]]
    failures = predict(twins, tmp_path / "out", ensemble_of(a=ThresholdModel()))
    assert set(failures) == {"new_0"}
    assert "2 images have this name" in failures["new_0"]
    assert set(contents(tmp_path / "out")) == {"x.nii.gz", MANIFEST}


def test_commands_that_predict_into_one_folder_at_once_keep_each_others_entries(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "in", 3)
    files = {case.name: [tmp_path / "out" / f"{case.name}.nii.gz"] for case in cases}
    (tmp_path / "out").mkdir()
    both = [Manifest(tmp_path / "out" / MANIFEST, key) for key in ("models of one", "models of two", "models of one")]
    for case, manifest in zip(cases, both, strict=True):
        assert not manifest.done(case, files[case.name])
        files[case.name][0].touch()
        manifest.add(case, files[case.name])
    again = Manifest(tmp_path / "out" / MANIFEST, "models of one")
    assert [again.done(case, files[case.name]) for case in cases] == [True, False, True]
    assert set(again.cases) == {"new_0", "new_1", "new_2"}


def test_scores_go_into_no_label_map_and_over_no_file_of_others(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    references, table = tmp_path / "references", tmp_path / "scores.csv"
    predictions = shutil.copytree(references, tmp_path / "predictions")
    compare = ("-r", references, "-p", predictions, "--home", tmp_path)
    for _ in range(2):
        assert run(cli.evaluate, *compare, "--csv", table, "--json", tmp_path / "scores.json") == 0
    before = contents(tmp_path)
    capsys.readouterr()
    for option in ("--csv", "--json"):
        assert run(cli.evaluate, *compare, option, references / "a.nii.gz", "--overwrite") == 2
        assert "an input is never replaced" in capsys.readouterr().err
    assert run(cli.evaluate, *compare, "--csv", table, "--json", table) == 2
    capsys.readouterr()
    assert run(cli.evaluate, *compare, "--csv", predictions / "new.nii.gz", "--overwrite") == 2
    assert "expected the name of a table, found that of an image" in capsys.readouterr().err
    table.write_text("my own table")
    assert run(cli.evaluate, *compare, "--csv", table) == 2
    assert "scores.csv: was changed after" in capsys.readouterr().err
    assert contents(tmp_path) == {**before, "scores.csv": b"my own table"}
    assert run(cli.evaluate, *compare, "--csv", table, "--overwrite") == 0
    assert contents(tmp_path) == before


def test_pictures_go_over_no_image_and_over_no_file_of_others(tmp_path: Path) -> None:
    for name in "ab":
        image, label, geometry = oracle_case(1, 2)
        write_image(tmp_path / "photos" / f"{name}.png", image[None].astype(np.uint8), geometry)
        write_label(tmp_path / "labels" / f"{name}.png", label, geometry)
    before = contents(tmp_path)
    for out in ("photos", "labels", "photos/a.png"):
        with pytest.raises(ValueError, match=r"among which nothing is written|names one picture for 2 cases"):
            draw_overlays(tmp_path / "photos", tmp_path / out, prediction=tmp_path / "labels", overwrite=True)
    assert contents(tmp_path) == before
    for _ in range(2):
        drawn, problems = draw_overlays(tmp_path / "photos", tmp_path / "pictures", prediction=tmp_path / "labels")
        assert len(drawn) == 2 and not problems
    drawn[0].write_text("my own drawing")
    with pytest.raises(ValueError, match="was changed after autoseg_overlay had written it"):
        draw_overlays(tmp_path / "photos", tmp_path / "pictures", prediction=tmp_path / "labels")
    write_image(tmp_path / "photos/a.tif", image[None], geometry)
    drawn, problems = draw_overlays(tmp_path / "photos", tmp_path / "new", prediction=tmp_path / "labels")
    assert [path.name for path in drawn] == ["b.png"]
    assert problems["a"].startswith("expected one image, found")


def test_pictures_are_never_drawn_among_what_the_next_command_would_take_for_images(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "link").symlink_to(scans)
    shutil.copytree(tmp_path / "references", tmp_path / "predictions")
    before = contents(tmp_path)
    monkeypatch.chdir(scans)
    draw = ("-i", scans, "-p", tmp_path / "predictions", "-r", tmp_path / "references", "--overwrite", "--home", tmp_path)
    for out in (scans, ".", tmp_path / "link", tmp_path / "references"):
        assert run(cli.overlay, *draw, "-o", out) == 2
        assert "among which nothing is written" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert run(cli.overlay, *draw, "-o", tmp_path / "predictions") == 0  # beside volumes nothing takes them for label maps


def test_references_are_not_compared_with_themselves(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    references, linked = tmp_path / "references", tmp_path / "linked"
    (tmp_path / "link").symlink_to(references)
    linked.mkdir()
    for name in "abc":
        (linked / f"{name}.nii.gz").symlink_to(references / f"{name}.nii.gz")
    for true, guess in ((references, references), (references, tmp_path / "link"), (references / "a.nii.gz",) * 2, (references, linked)):
        assert run(cli.evaluate, "-r", true, "-p", guess, "--home", tmp_path) == 2
        assert "is the reference" in capsys.readouterr().err
    (linked / "a.nii.gz").unlink()
    shutil.copy(references / "a.nii.gz", linked)
    assert run(cli.evaluate, "-r", references, "-p", linked, "--home", tmp_path) == 1
    assert "2 of 3 cases failed: b (the prediction is the reference itself" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["file", "file/below", "file/below/deeper"])
def test_a_file_where_a_folder_is_needed_ends_in_one_line(
    oracle_home: HomeFactory, scans: Path, out: str, capsys: pytest.CaptureFixture
) -> None:
    home = oracle_home()
    (scans.parent / "file").write_text("mine")
    (home / "raw" / DATASET / "labelsTr" / "broken.nii.gz").write_text("no image")
    references, destination = scans.parent / "references", scans.parent / out
    image = ("-i", scans / "a.nii.gz", "-p", references / "a.nii.gz")
    for command, arguments in (
        (cli.predict, ("-i", scans)),
        (cli.overlay, image),
        (cli.overlay, ("-i", scans, "-p", references)),
        (cli.report, (1, "--cases", 0)),
        (cli.check, ("-d", 1, "--fix")),
        (cli.demo, ()),
    ):
        if command in (cli.report, cli.overlay) and out == "file":
            continue  # a file of others there is refused as such
        assert run(command, *arguments, "-o", destination, *(() if command is cli.demo else ("--home", home))) == 2, command
        (line,) = [one for one in capsys.readouterr().err.splitlines() if "error:" in one]
        assert str(scans.parent / "file") in line and "Errno" not in line, line
    assert (scans.parent / "file").read_text() == "mine"


def test_a_report_replaces_reports_only(shared_oracle_home: HomeFactory, tmp_path: Path) -> None:
    home, page = shared_oracle_home(), tmp_path / "report.html"
    for _ in range(2):
        write_report(1, home=home, out=page, cases=0)
    page.write_text("my own page")
    with pytest.raises(ValueError, match="was changed after autoseg_report had written it"):
        write_report(1, home=home, out=page, cases=0)
    assert page.read_text() == "my own page"
    write_report(1, home=home, out=page, cases=0, overwrite=True)


def test_a_repaired_or_merged_dataset_is_never_written_into_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, second = (write_oracle_dataset(tmp_path / f"Dataset00{number}_X", n=2) for number in (1, 2))
    (tmp_path / "pictures").mkdir()
    (first / "imagesTs").symlink_to(tmp_path / "pictures")
    (tmp_path / "link").symlink_to(first)
    (first / "labelsTr/c0.nii.gz").unlink()  # something to repair
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / "pictures")
    inside = (
        first,
        first / "new",
        tmp_path / "link/new",
        "../Dataset001_X/imagesTr/a/b",
        first / "imagesTs/new",
        tmp_path / "pictures/new",
    )
    for out in inside:
        assert run(cli.check, "-d", first, "--fix", "-o", out, "--workers", 0) == 2
        assert "outside of what this command reads, found one in" in capsys.readouterr().err
        for folders in ((first, second), (second, first)):
            with pytest.raises(ValueError, match=f"found one in {first}"):
                merge_datasets(folders, Path(out))
    assert sorted(tmp_path.rglob("*")) == before
    assert run(cli.check, "-d", first, "--fix", "-o", "../fixed", "--workers", 0) == 1  # beside it is right; a case is left out
    assert (tmp_path / "fixed/dataset.json").is_file()


def test_an_edited_plan_or_choice_is_replaced_only_when_asked(oracle_home: HomeFactory, capsys: pytest.CaptureFixture) -> None:
    home = oracle_home()
    plan = ("-d", 1, "-c", "3d_fullres", "--workers", 0, "--home", home)
    for path, command, arguments in (
        (home / "preprocessed" / DATASET / "plan.json", cli.plan_and_preprocess, plan),
        (home / "results" / DATASET / "choice.json", cli.find_best_configuration, (1, "--home", home)),
    ):
        own = json.loads(path.read_text())
        digest, plain = {"digest": own["digest"]}, {key: value for key, value in own.items() if key != "digest"}
        changed = "memory_gb" if "memory_gb" in plain else "cases"
        for edited in (digest | plain | {changed: 3}, plain | {changed: 3}, plain):
            path.write_text(json.dumps(edited, indent=1))
            before = path.read_bytes()
            assert run(command, *arguments) == 2
            error = capsys.readouterr().err
            assert f"{path}: was edited" in error and "--overwrite (overwrite=True)" in error
            assert path.read_bytes() == before
            assert run(command, *arguments, "--overwrite") == 0
            assert json.loads(path.read_text())["digest"] == own["digest"]
        if command is cli.plan_and_preprocess:  # how patients are found is known by the former plan alone
            path.write_text(json.dumps(digest | plain | {"settings": own["settings"] | {"groups": ".+"}}))
            assert run(command, *arguments, "--overwrite") == 0
            assert json.loads(path.read_text())["settings"]["groups"] == ".+"
            path.write_text("{")
            assert run(command, *arguments, "--overwrite") == 2 and "say with --groups" in capsys.readouterr().err
            path.write_text(json.dumps(own))
        path.write_text(json.dumps({key: value for key, value in plain.items() if key != "format"}))  # as version 0.1.0 wrote it
        assert run(command, *arguments) == 0
        assert json.loads(path.read_text())["digest"] == own["digest"]


def test_files_named_by_their_identity_are_segmented_into_files_of_their_own(home: Path, tmp_path: Path) -> None:
    expected = {}
    for number, last in enumerate(("573", "574")):
        expected[last] = oracle_case(number, 2, shape=(24, 28))[1]
        write_slice(tmp_path / f"scans/1.2.300.{last}", (100 * expected[last]).astype(np.int16), (0, 0, 0), SeriesInstanceUID=f"1.2.{last}")
    assert run(cli.predict, "-i", tmp_path / "scans", "-o", tmp_path / "out", "--home", home) == 0
    for last in expected:  # one after the other into one folder, too
        assert run(cli.predict, "-i", tmp_path / f"scans/1.2.300.{last}", "-o", tmp_path / "singly", "--home", home) == 0
    for out, before in (("out", "scans_"), ("singly", "1.2.300.")):
        assert {path.name for path in (tmp_path / out).glob("*.nii.gz")} == {f"{before}{last}.nii.gz" for last in expected}
        for last, label in expected.items():
            assert np.array_equal(read_label(tmp_path / out / f"{before}{last}.nii.gz").array.squeeze(), label)


def test_another_image_of_the_same_name_goes_into_one_folder_only_when_asked(shared_oracle_home, tmp_path):
    home, out = shared_oracle_home(), tmp_path / "out"
    labels = {}
    for number, folder in enumerate(("p1", "p2"), 20):
        image, labels[folder], geometry = oracle_case(number)
        write_image(tmp_path / folder / "scan.nii.gz", image[None], geometry)
    assert predict_folder(tmp_path / "p1", out, home=home) == {}
    failures = predict_folder(tmp_path / "p2", out, home=home)
    assert "p1/scan.nii.gz is predicted under the same name" in failures["scan"]
    np.testing.assert_array_equal(read_label(out / "scan.nii.gz").array, labels["p1"])
    assert predict_folder(tmp_path / "p2", out, home=home, overwrite=True) == {}
    np.testing.assert_array_equal(read_label(out / "scan.nii.gz").array, labels["p2"])
    (tmp_path / "p2").rename(tmp_path / "moved")
    assert predict_folder(tmp_path / "moved", out, home=home) == {}, "the same image elsewhere is the same image"


def test_files_of_any_home_are_never_replaced(oracle_home, tmp_path):
    files = [oracle_home() / "raw" / DATASET / "dataset.json", oracle_home(name="second") / "results" / DATASET / "choice.json"]
    outputs = Outputs("autoseg_evaluate", inputs=[], overwrite=True)
    for file in files:
        assert "data and models of the home are never replaced" in outputs.problem(file)


def test_what_is_noted_of_a_case_is_written_without_the_other_cases(tmp_path: Path) -> None:
    (case,) = write_images(tmp_path / "in", 1)
    manifest, out = Manifest(tmp_path / "out" / MANIFEST, "models"), tmp_path / "out"
    sizes = []
    for number in range(20):
        one = Case(f"case_{number:02d}", case.images)
        manifest.begin(one)
        manifest.add(one, [out / f"{one.name}.nii.gz"], findings=[])
        sizes.append(sum(path.stat().st_size for path in out.rglob(f"{one.name}.json")))
    assert max(sizes) - min(sizes) < 10
    assert not (out / MANIFEST).exists()
    manifest.publish()
    assert len(read_json(out / MANIFEST, dict)["cases"]) == 20


@pytest.mark.parametrize("kept", ["hidden", "visible"])
def test_an_output_folder_of_an_earlier_version_or_without_hidden_files_goes_on(tmp_path: Path, kept: str) -> None:
    cases = write_images(tmp_path / "in", 2)
    ensemble, out = ensemble_of(a=ThresholdModel()), tmp_path / "out"
    assert predict(cases, out, ensemble) == {}
    if kept == "visible":
        shutil.rmtree(out / ".autoseg_outputs" / "cases")
    else:
        (out / MANIFEST).unlink()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert written_labels(out).keys() == {path.name for path in before}
    assert predict(cases, out, ensemble) == {}
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")} == before
    assert set(read_json(out / MANIFEST, dict)["cases"]) == {"new_0", "new_1"}


def test_a_damaged_note_of_a_case_is_said_and_the_case_predicted_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = write_images(tmp_path / "in", 2)
    ensemble, out = ensemble_of(a=ThresholdModel()), tmp_path / "out"
    predict(cases, out, ensemble)
    (out / MANIFEST).unlink()
    (out / ".autoseg_outputs" / "cases" / "new_0.json").write_text("{")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert predict(cases, out, ensemble) == {}
    assert "new_0.json: what is noted of this case counts as nothing" in caplog.text
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert {name for name in after if after[name] != before[name]} == {"new_0.nii.gz"}


def test_the_table_lists_what_other_calls_predicted_into_the_folder(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in range(4):
        image, _, geometry = oracle_case(number)
        write_image(tmp_path / f"in{number // 2}" / f"new{number}.nii.gz", image[None], geometry)
    for part in ("in0", "in1"):
        assert predict_folder(tmp_path / part, out, PredictSettings(device="cpu", mirror=False), home=home) == {}
    rows = (out / "autoseg_uncertainty.csv").read_text().splitlines()[1:]
    assert sorted({row.split(",")[0] for row in rows}) == ["new0", "new1", "new2", "new3"]
    (out / "new1.nii.gz").unlink()
    predict_folder(tmp_path / "in1", out, PredictSettings(device="cpu", mirror=False), home=home)
    assert "new1" not in (out / "autoseg_uncertainty.csv").read_text()


def test_a_label_map_that_was_predicted_beside_the_images_is_no_image(home: Path, scans: Path, tmp_path: Path) -> None:
    settings = PredictSettings(device="cpu", mirror=False)
    beside = scans / "a_seg.nii.gz"
    predict_folder(scans / "a.nii.gz", beside, settings, home=home)
    found = predict_each(scans, tmp_path / "out", settings, home=home)
    assert set(found.written) == {"a", "b", "c"}
    assert found.skipped == {str(beside): "is a label map, written by autoseg_predict"}


@pytest.mark.parametrize("place", ["raw/new", "raw/{}/predicted", "preprocessed/x", "results", "results/{}", "results/new"])
@pytest.mark.parametrize("dry", [True, False])
def test_predictions_are_not_written_among_data_and_models(
    home: Path, scans: Path, capsys: pytest.CaptureFixture, place: str, dry: bool
) -> None:
    before, out = contents(home), home / place.format(DATASET)
    existed = out.exists()
    arguments = ["-i", scans, "-o", out, "--home", home, *(["--dry-run"] if dry else [])]
    assert run(cli.predict, *arguments) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "expected a folder for predictions outside of" in told and "beside raw/ and results/" in told
    assert contents(home) == before and out.exists() == existed


def test_predictions_are_not_written_into_a_copy_of_models(home: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copy = shutil.copytree(home / "results" / DATASET, tmp_path / "copied")
    assert run(cli.predict, "-i", scans, "-o", copy, "-m", copy) == 2
    assert "outside of the results of a dataset" in " ".join(capsys.readouterr().err.split())
    assert run(cli.predict, "-i", scans, "-o", home / "predictions", "-m", copy) == 0
