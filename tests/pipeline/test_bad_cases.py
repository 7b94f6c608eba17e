"""One bad case never stops the others: it is named with its reason and counted, and the command ends with exit status 1."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from oracle_home import DATASET, MODEL, HomeFactory, oracle_case, write_oracle_dataset

from autoseg import cli
from autoseg.data.images import read_image, read_label, write_image, write_label
from autoseg.evaluation.folders import evaluate_folders
from autoseg.pipeline import PlanSettings, plan_and_preprocess, predict_each
from autoseg.preprocessing.preprocess import preprocess_case
from autoseg.runtime.runs import Run
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Score

Capture = pytest.CaptureFixture[str]


def nowhere(folder: Path) -> None:
    (folder / "bad.nii.gz").symlink_to("/nowhere/bad.nii.gz")


def truncated(folder: Path) -> None:
    (folder / "bad.nii.gz").write_bytes((folder / "s0.nii.gz").read_bytes()[:90])


def twice(folder: Path) -> None:
    for ending in (".nii.gz", ".mha"):
        write_image(folder / f"bad{ending}", oracle_case(9)[0][None], oracle_case(9)[2])


def channels(folder: Path) -> None:
    image, _, geometry = oracle_case(9)
    write_image(folder / "bad.nii.gz", np.stack([image, image]), geometry)


def flat(folder: Path) -> None:
    image, _, geometry = oracle_case(9, 2)
    write_image(folder / "bad.nii.gz", image[None], geometry)


def planned(home: Path, capsys: Capture) -> tuple[int, str, dict[str, str]]:
    """Exit status, last line and what was left out of planning the dataset."""
    status = cli.main(["plan_and_preprocess", "-d", "1", "-c", "2d", "--workers", "0", "--home", str(home)])
    return status, capsys.readouterr().out.splitlines()[-1], Workspace(home).left_out(DATASET)


def test_plan_leaves_out_what_cannot_be_used(tmp_path: Path, capsys: Capture) -> None:
    folder = write_oracle_dataset(tmp_path / "raw" / DATASET, n=9)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    (images / "c0_0000.nii.gz").unlink()
    (images / "c0_0000.nii.gz").symlink_to("/nowhere/c0.nii.gz")
    (images / "c1_0000.nii.gz").write_bytes((images / "c2_0000.nii.gz").read_bytes()[:90])
    write_image(images / "c3.mha", oracle_case(3)[0][None], oracle_case(3)[2])
    write_image(images / "c4_0000.nii.gz", np.stack([oracle_case(4)[0]] * 2), oracle_case(4)[2])
    write_image(images / "c5_0000.nii.gz", oracle_case(5, 2)[0][None], oracle_case(5, 2)[2])
    write_label(labels / "c5.nii.gz", *oracle_case(5, 2)[1:])
    write_label(labels / "c6.nii.gz", *oracle_case(6, shape=(5, 6, 7))[1:])
    write_label(labels / "c2.mha", *oracle_case(2)[1:])
    status, last, left_out = planned(tmp_path, capsys)
    assert (status, set(left_out)) == (1, {"c0", "c1", "c2", "c3", "c4", "c5", "c6"})
    assert last.startswith("Planned with 2 cases; 7 of 9 cases left out: c")
    assert last.endswith("and 4 more")
    assert "one file a channel" in left_out["c3"]
    assert "one label map" in left_out["c2"]
    assert Workspace(tmp_path).usable_cases(DATASET) == ("c7", "c8")
    assert {one for split in Workspace(tmp_path).splits(DATASET) for one in split.train} == {"c7", "c8"}


def test_plan_leaves_out_a_grey_picture_among_rgb_and_one_without_spacing(tmp_path: Path, capsys: Capture) -> None:
    folder = write_oracle_dataset(tmp_path / "raw" / DATASET, dim=2)
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(info | {"channel_names": dict.fromkeys("012", "noNorm")}))
    for path in (folder / "imagesTr").iterdir():
        path.unlink()
    for number in range(4):
        grey = oracle_case(number, 2)[0].astype(np.uint8)
        picture = sitk.GetImageFromArray(grey) if number == 1 else sitk.GetImageFromArray(np.stack([grey] * 3, axis=-1), isVector=True)
        sitk.WriteImage(picture, str(folder / "imagesTr" / f"c{number}.png"))
        if number != 3:
            (folder / "imagesTr" / f"c{number}.json").write_text('{"spacing": [0.8, 0.7]}')
    status, _, left_out = planned(tmp_path, capsys)
    assert (status, set(left_out)) == (1, {"c1", "c3"})
    assert "missing channel" in left_out["c1"]
    assert "spacing" in left_out["c3"]


def pictures(home: Path, spacing_of: Sequence[int], n: int = 5, spacing: str = "[0.8, 0.7]") -> Path:
    """A dataset of pictures, some with a spacing beside them; its folder."""
    folder = write_oracle_dataset(home / "raw" / DATASET, dim=2, n=n)
    for path in (folder / "imagesTr").iterdir():
        path.unlink()
    for number in range(n):
        picture = sitk.GetImageFromArray(oracle_case(number, 2)[0].astype(np.uint8))
        sitk.WriteImage(picture, str(folder / "imagesTr" / f"c{number}_0000.png"))
        if number in spacing_of:
            (folder / "imagesTr" / f"c{number}.json").write_text(f'{{"spacing": {spacing}}}')
    return folder


@pytest.mark.parametrize(
    ("known", "gone", "said"),
    [
        ((0,), {"c0"}, "expected no spacing, as 4 of 5 cases have none; found 0.8 x 0.7 mm; give the others theirs"),
        ((0, 1, 2, 3), {"c4"}, r"expected a spacing in mm .*<image>\.json beside it\), as 4 of 5 cases have one; found none"),
    ],
)
def test_of_pictures_with_and_without_a_spacing_the_fewer_are_left_out(
    tmp_path: Path, capsys: Capture, known: tuple[int, ...], gone: set[str], said: str
) -> None:
    pictures(tmp_path, known)
    status, _, left_out = planned(tmp_path, capsys)
    assert (status, set(left_out)) == (1, gone)
    assert re.match(said, left_out[next(iter(gone))])
    assert Workspace(tmp_path).plan(DATASET).has_spacing == (len(known) > 1)


@pytest.mark.parametrize("settings", [{}, {"spacing": (0.5, 0.5)}], ids=["planned", "asked for"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_new_image_without_spacing_is_refused_where_those_planned_with_have_one(
    tmp_path: Path, settings: dict[str, Any], is_known: bool
) -> None:
    """Also where theirs is one millimetre."""
    pictures(tmp_path, range(5) if is_known else (), spacing="[1, 1]")
    plan = plan_and_preprocess(1, PlanSettings(workers=0, **settings), home=tmp_path)
    sitk.WriteImage(sitk.GetImageFromArray(oracle_case(7, 2)[0].astype(np.uint8)), str(tmp_path / "new.png"))
    expected = pytest.raises(ValueError, match=r"expected a known spacing .* found none of .*new\.png") if is_known else nullcontext()
    with expected:
        preprocess_case(read_image([tmp_path / "new.png"]), None, plan, plan.configurations["2d"])


def test_a_repaired_case_is_planned_again(tmp_path: Path, capsys: Capture) -> None:
    folder = write_oracle_dataset(tmp_path / "raw" / DATASET, dim=2)
    file = folder / "labelsTr" / "c0.tif"
    content = file.read_bytes()
    file.unlink()
    assert planned(tmp_path, capsys)[::2] == (1, {"c0": f"missing label, expected {file}, found nothing"})
    file.write_bytes(content)
    status, last, left_out = planned(tmp_path, capsys)
    assert (status, left_out) == (0, {})
    assert last.startswith("Next:")


def test_plan_refuses_where_no_case_is_left(tmp_path: Path) -> None:
    folder = write_oracle_dataset(tmp_path / "raw" / DATASET, dim=2)
    for path in (folder / "labelsTr").glob("*.tif"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no case is complete: case c0: missing label, expected .*c0\..*, found nothing; "):
        plan_and_preprocess(1, home=tmp_path)


def test_a_held_out_case_that_fails_is_counted_and_tried_again(
    oracle_home: HomeFactory, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
    home = oracle_home()
    run = Run(home / "results" / DATASET / MODEL[3] / "fold_0")
    held_out = run.record().split.val
    label = home / "raw" / DATASET / "labelsTr" / f"{held_out[0]}.nii.gz"
    content = label.read_bytes()
    label.write_bytes(content[:90])
    run.case_scores(held_out[0]).unlink()
    run.scores_file.unlink()
    command = ["train", "1", "3d_fullres", "0", "--network", "oracle_home:Oracle", "--device", "cpu", "--home", str(home)]
    assert cli.main(command) == (2 if len(held_out) == 1 else 1)
    capsys.readouterr()
    assert not run.is_finished
    assert set(run.failures()) == {held_out[0]}
    label.write_bytes(content)
    assert cli.main(command) == 0
    assert run.is_finished


@pytest.fixture
def scored(tmp_path: Path) -> list[str]:
    """The command that scores four cases, of which one cannot be read, one has another shape, and one is there in two formats."""
    for number in range(4):
        for side in ("r", "p"):
            write_label(tmp_path / side / f"c{number}.nii.gz", *oracle_case(number)[1:])
    write_label(tmp_path / "p" / "c1.nii.gz", *oracle_case(1, shape=(5, 6, 7))[1:])
    (tmp_path / "p" / "c2.nii.gz").write_bytes(b"no image")
    write_label(tmp_path / "r" / "c3.mha", *oracle_case(3)[1:])
    return ["-r", str(tmp_path / "r"), "-p", str(tmp_path / "p")]


def test_evaluate_scores_the_others(scored: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["evaluate", *scored, "--json", str(tmp_path / "scores.json")]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("Scores of 1 case; 3 of 4 cases failed: c")
    written = json.loads((tmp_path / "scores.json").read_text())["results"][0]
    assert set(written["failures"]) == {"c1", "c2", "c3"}
    assert {score["case"] for score in written["scores"]} == {"c0"}
    with pytest.raises(ValueError, match="3 of 4 cases cannot be compared"):
        evaluate_folders(tmp_path / "r", tmp_path / "p")


def test_overlay_draws_the_others(scored: list[str], tmp_path: Path, capsys: Capture) -> None:
    for number in range(5):
        write_image(tmp_path / "in" / f"c{number}.nii.gz", oracle_case(number)[0][None], oracle_case(number)[2])
    assert cli.main(["overlay", "-i", str(tmp_path / "in"), *scored, "-o", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Not drawn, no prediction of this name: c4"
    assert lines[-1].startswith(f"{tmp_path / 'out' / 'c0.png'}; 3 of 4 cases failed: c")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(2):
        image, _, geometry = oracle_case(number)
        write_image(tmp_path / "in" / f"s{number}.nii.gz", image[None], geometry)
    return tmp_path / "in"


def without_spacing(folder: Path) -> None:
    image, _, geometry = oracle_case(9)
    write_image(folder / "bad.tif", image[None], geometry)
    (folder / "bad.json").unlink()


@pytest.mark.parametrize("spoil", [nowhere, truncated, twice, channels, flat, without_spacing])
def test_predict_writes_the_others(shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, spoil, capsys: Capture) -> None:
    spoil(images)
    status = cli.main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), "--home", str(shared_oracle_home())])
    said = capsys.readouterr()
    assert status == 1
    assert said.out.splitlines()[-1].startswith(f"Segmentations of 2 cases are in {tmp_path / 'out'}; 1 of 3 cases failed: bad (")
    for number in range(2):
        assert (read_label(tmp_path / "out" / f"s{number}.nii.gz").array == oracle_case(number)[1]).all()


def test_predict_does_not_say_that_segmentations_are_where_none_is(
    shared_oracle_home: HomeFactory, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "in").mkdir()
    nowhere(tmp_path / "in")
    assert cli.main(["predict", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--home", str(shared_oracle_home())]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("No segmentation was written; 1 of 1 case failed: bad (")


def test_errors_that_no_reader_foresees_are_of_one_case(
    shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoseg.inference import prediction

    read = prediction.read_case_image

    def overflowing(case):
        if case.name.startswith("s0"):
            raise OverflowError("cannot convert float infinity to integer")
        return read(case)

    monkeypatch.setattr(prediction, "read_case_image", overflowing)
    done = predict_each(images, tmp_path / "out", home=shared_oracle_home())
    assert done.written == ("s1",)
    assert done.failures == {"s0": "OverflowError: cannot convert float infinity to integer"}


@pytest.mark.parametrize("value", [3e38, 1e6])
def test_voxels_that_overflow_are_named_with_their_file(
    shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, value: float
) -> None:
    image, _, geometry = oracle_case(9)
    image = image.astype(np.float32)
    image[2, 3, :4] = value, -value, value, -value
    write_image(images / "bad.nii.gz", image[None], geometry)
    done = predict_each(images, tmp_path / "out", home=shared_oracle_home())
    assert done.written == ("s0", "s1")
    assert f"({images / 'bad.nii.gz'}, voxels from {-value:.3g} to {value:.3g})" in done.failures["bad"]


def test_a_full_disk_is_no_bad_case(shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from autoseg.inference import prediction

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prediction, "write_label", full)
    with pytest.raises(OSError, match="No space left"):
        predict_each(images, tmp_path / "out", home=shared_oracle_home())


@pytest.mark.parametrize("name", ["con", " ", "a\nb"])
def test_a_name_that_no_file_should_have_stops_no_other_case(
    shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, name: str
) -> None:
    (images / "s0.nii.gz").rename(images / f"{name}.nii.gz")
    done = predict_each(images, tmp_path / "out", home=shared_oracle_home())
    assert done.written == ("s1",)
    assert list(done.failures) == [name]
    assert f"{name}.nii.gz: name of a case" in done.failures[name]


def test_a_prediction_in_two_formats_is_not_compared(tmp_path: Path) -> None:
    _, label, geometry = oracle_case(0)
    for case in ("a", "b"):
        for folder in ("true", "guess"):
            write_label(tmp_path / folder / f"{case}.nii.gz", label, geometry)
    write_label(tmp_path / "guess/a.mha", np.zeros_like(label), geometry)
    failures: dict[str, str] = {}
    scores = evaluate_folders(tmp_path / "true", tmp_path / "guess", failures=failures, workers=1)
    assert {score.case for score in scores} == {"b"}
    assert "expected one file, found" in failures["a"]


def test_train_and_run_end_with_1_and_count_what_failed(shared_oracle_home, monkeypatch, capsys):
    home = ["--home", str(shared_oracle_home())]

    def failing(*_, failures, **__):
        failures["c1"] = "is damaged"
        return [Score("c0", "organ1", 0.5, 0.5, 1, 1)]

    monkeypatch.setattr("autoseg.pipeline.train", failing)
    assert cli.train(["1", "3d_fullres", "0", *home]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "Trained, and validated on 1 case; 1 of 2 cases failed: c1 (is damaged)"
    monkeypatch.setattr("autoseg.pipeline.run", failing)
    monkeypatch.setattr("autoseg.pipeline.describe_choice", lambda choice: "the choice")
    assert cli.run(["1", *home]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "Done with 3 cases; 1 of 4 cases failed: c1 (is damaged)"
