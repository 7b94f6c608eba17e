"""Where commands write: never over scans, references, data or models, and over files of others only when asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import ThresholdModel, ensemble_of, predict, write_images
from oracle_home import DATASET, HomeFactory, oracle_case

from autoseg import cli
from autoseg.data.images import read_label, write_image, write_label
from autoseg.inference.manifest import MANIFEST, Manifest
from autoseg.pipeline import PredictSettings, draw_overlays, predict_folder, write_report
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
    assert set(contents(out.parent)) == {
        *("seg.nii.gz", "autoseg_uncertainty.csv", "uncertainty/seg_entropy.nii.gz", "uncertainty/seg_disagreement.nii.gz")
    }
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
    before = contents(out)
    assert predict_folder(scans, out, home=home) == {}
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
    compare = ("-r", references, "-p", references, "--home", tmp_path)
    for _ in range(2):
        assert run(cli.evaluate, *compare, "--csv", table, "--json", tmp_path / "scores.json") == 0
    before = contents(tmp_path)
    capsys.readouterr()
    for option in ("--csv", "--json"):
        assert run(cli.evaluate, *compare, option, references / "a.nii.gz", "--overwrite") == 2
        assert "an input is never replaced" in capsys.readouterr().err
    assert run(cli.evaluate, *compare, "--csv", table, "--json", table) == 2
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
        with pytest.raises(ValueError, match=r"an input is never replaced|names one picture for 2 cases"):
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


def test_a_report_replaces_reports_only(shared_oracle_home: HomeFactory, tmp_path: Path) -> None:
    home, page = shared_oracle_home(), tmp_path / "report.html"
    for _ in range(2):
        write_report(1, home=home, out=page, cases=0)
    page.write_text("my own page")
    with pytest.raises(ValueError, match="was changed after autoseg_report had written it"):
        write_report(1, home=home, out=page, cases=0)
    assert page.read_text() == "my own page"
    write_report(1, home=home, out=page, cases=0, overwrite=True)
