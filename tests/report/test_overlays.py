"""Pictures of predictions: a picture for every case that matches, and the name of what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from factories import write_dataset, write_volume
from skimage.io import imread

from autoseg import cli
from autoseg.report.overlays import OverlaySettings, describe_problems, draw_overlays
from autoseg.runtime.plotting import organ_colours

SMALL = np.zeros((3, 4, 5), np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images of four cases, references of all, predictions of b and of one that has no image."""
    folder = write_dataset(tmp_path / "raw" / "Dataset001_Tiny")
    (tmp_path / "out").mkdir()
    shutil.copy(folder / "labelsTr" / "b.nii.gz", tmp_path / "out")
    shutil.copy(folder / "labelsTr" / "a.nii.gz", tmp_path / "out" / "other.nii.gz")
    return folder


def shows(path: Path, n: int) -> bool:
    """Whether all organs' colours are in a picture."""
    drawn = imread(path)[..., :3] / 255.0
    return all((np.abs(drawn - colour).max(-1) < 0.05).sum() > 20 for colour in organ_colours(n))


def test_cases_are_matched_by_name_and_the_others_are_named(data: Path, tmp_path: Path) -> None:
    drawn, problems = draw_overlays(data / "imagesTr", tmp_path / "pictures", prediction=tmp_path / "out", reference=data / "labelsTr")
    assert drawn == [tmp_path / "pictures" / "b.png"]
    assert shows(drawn[0], 2)
    assert problems == {**dict.fromkeys("acd", "no prediction of this name"), "other": "no image of this name"}
    assert describe_problems(problems, shown=2) == [
        "Not drawn, no prediction of this name: a, c and 1 more",
        "Not drawn, no image of this name: other",
    ]


def test_organs_have_the_datasets_names_and_may_be_zoomed_at(data: Path, tmp_path: Path) -> None:
    settings = OverlaySettings(dataset=str(data), zoom=True, format="jpg")
    drawn, problems = draw_overlays(data / "imagesTr", tmp_path / "p", reference=data / "labelsTr", settings=settings, home=tmp_path)
    assert [path.name for path in drawn] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] and not problems


def test_one_image_and_one_label_map_belong_together(data: Path, tmp_path: Path) -> None:
    image, label = data / "imagesTr" / "a_0000.nii.gz", tmp_path / "out" / "other.nii.gz"
    drawn, _ = draw_overlays(image, tmp_path / "one.png", prediction=label)
    assert drawn == [tmp_path / "one.png"] and shows(drawn[0], 2)


def test_what_does_not_fit_is_named_and_the_others_are_drawn(data: Path, tmp_path: Path) -> None:
    write_volume(tmp_path / "out" / "a.nii.gz", SMALL)
    drawn, problems = draw_overlays(data / "imagesTr", tmp_path / "p", prediction=tmp_path / "out")
    assert [path.stem for path in drawn] == ["b"]
    assert "the prediction lies elsewhere than the image" in problems["a"]


def test_a_channel_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    channel = sitk.ReadImage(str(data / "imagesTr" / "a_0000.nii.gz"))
    sitk.WriteImage(sitk.JoinSeries([channel, channel]), str(tmp_path / "both.nii.gz"))
    drawn, problems = draw_overlays(tmp_path / "both.nii.gz", tmp_path / "p", settings=OverlaySettings(channel=2))
    assert not drawn and "--channel: expected 0 to 1, got 2" in problems["both"]
    drawn, _ = draw_overlays(tmp_path / "both.nii.gz", tmp_path / "p", settings=OverlaySettings(channel=1))
    assert len(drawn) == 1


def test_headers_that_disagree_are_reported(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    label = sitk.ReadImage(str(data / "labelsTr" / "a.nii.gz"))
    label.SetOrigin((50.0, 0.0, 0.0))
    sitk.WriteImage(label, str(tmp_path / "moved.nii.gz"))
    drawn, _ = draw_overlays(data / "imagesTr" / "a_0000.nii.gz", tmp_path / "one.png", prediction=tmp_path / "moved.nii.gz")
    assert len(drawn) == 1 and "voxel by voxel" in caplog.text and "origin by 50 mm" in caplog.text


def test_mistakes_are_explained(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "out" / "b.nii.gz").rename(tmp_path / "out" / "second.nii.gz")
    for folder, expected in {
        "out": "no prediction has the name of an image",
        "nowhere": "expected a label map or a folder",
        "empty": "no label map found",
    }.items():
        with pytest.raises(ValueError, match=expected):
            draw_overlays(data / "imagesTr", tmp_path / "p", prediction=tmp_path / folder)
    with pytest.raises(ValueError, match="expected one of jpg, pdf, png, svg"):
        OverlaySettings(format="gif")


def test_the_command_counts_pictures(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    arguments = ["-i", str(data / "imagesTr"), "-r", str(data / "labelsTr"), "-o", str(out), "-d", "1", "--home", str(tmp_path)]
    assert cli.overlay(arguments) == 0
    assert f"4 pictures are in {out}" in capsys.readouterr().out
    label = write_volume(tmp_path / "small.nii.gz", SMALL)
    small = ["-i", str(data / "imagesTr" / "a_0000.nii.gz"), "-p", str(label), "-o", str(out)]
    assert cli.overlay(small) == 2, "nothing is drawn"
    assert "lies elsewhere" in capsys.readouterr().err
    assert cli.overlay([*arguments, "--channel", "3"]) == 2
    assert "--channel: expected 0 to 0 (MR), got 3" in capsys.readouterr().err
