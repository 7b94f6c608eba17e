"""Pictures are written, show the right slices, and refuse what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from autoseg.report.overlay_figure import overlay
from autoseg.report.views import best_slice, grey_window
from autoseg.runtime.plotting import organ_colours
from autoseg.trainers.plots import plot_history


def ball_and_box() -> np.ndarray:
    labels = np.zeros((10, 20, 24), np.int16)
    labels[2:8, 4:9, 3:9] = 1
    labels[6:9, 12:18, 14:20] = 2
    return labels


def picture(labels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).normal(40, 10, labels.shape).astype(np.float32) + 60 * (labels > 0)


def test_best_slice_shows_every_organ() -> None:
    labels = ball_and_box()
    assert best_slice(labels, 0) in (6, 7)
    assert best_slice(np.zeros((9, 5, 5), int), 0) == 4
    assert best_slice(-labels, 1) == 10


def test_grey_window_follows_the_organs_and_survives_odd_images() -> None:
    image = np.full((4, 40, 40), -1000.0)
    foreground = np.zeros(image.shape, bool)
    foreground[:, 10:20, 10:20] = True
    image[foreground] = np.linspace(0, 100, foreground.sum())
    image[0][foreground[0]] = -900  # air inside an organ
    low, high = grey_window(image, foreground)
    assert -300 < low < 0 and 90 < high <= 100
    assert grey_window(np.full((3, 3), np.nan), np.zeros((3, 3), bool)) == (0.0, 1.0)
    low, high = grey_window(np.zeros((3, 3)), np.zeros((3, 3), bool))
    assert low <= 0 < high


def test_colours_differ() -> None:
    assert organ_colours(0) == []
    colours = organ_colours(40)
    assert len({tuple(np.round(colour, 3)) for colour in colours}) == 40


def test_overlay_has_true_proportions_and_the_organs_colours(tmp_path: Path) -> None:
    labels = ball_and_box()
    overlay(picture(labels), labels, np.roll(labels, 1, 2), (4.0, 2.0, 1.0), tmp_path / "new/case.png", ("ball", "box"))
    drawn = imread(tmp_path / "new/case.png")[..., :3] / 255.0
    assert 300 < drawn.shape[0] < 1000 and drawn.shape[1] > drawn.shape[0] / 2
    for colour in organ_colours(2):
        assert (np.abs(drawn - colour).max(-1) < 0.05).sum() > 50


def test_the_axial_plane_is_as_wide_as_its_millimetres(tmp_path: Path) -> None:
    labels = np.zeros((2, 20, 20), np.uint8)
    overlay(np.ones(labels.shape), None, labels, (1.0, 1.0, 2.0), tmp_path / "wide.png", ("organ",))
    image = np.full((20, 20), -1.0)
    image[0, 0] = 1
    overlay(image, None, labels[0], (1.0, 2.0), tmp_path / "plane.png", ("organ",))
    dark = np.argwhere(imread(tmp_path / "plane.png")[..., 0] < 20)
    height, width = dark.max(0) - dark.min(0)
    assert width / height == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("which", ["reference", "prediction", "neither", "plane"])
def test_overlay_with_fewer_maps(which: str, tmp_path: Path) -> None:
    labels = ball_and_box()
    image, spacing = picture(labels), (3.0, 1.0, 1.0)
    reference = labels if which == "reference" else None
    prediction = labels if which in ("prediction", "plane") else None
    if which == "plane":
        image, prediction, spacing = image[7], labels[7], (1.0, 1.0)
    overlay(image, reference, prediction, spacing, tmp_path / "case.png", ("ball", "box"))
    assert imread(tmp_path / "case.png").std() > 10


def test_overlay_names_what_does_not_fit(tmp_path: Path) -> None:
    labels = ball_and_box()
    with pytest.raises(ValueError, match=r"case.png: expected a prediction of shape \(10, 20, 24\), got \(9, 20, 24\)"):
        overlay(picture(labels), labels, labels[1:], (1, 1, 1), tmp_path / "case.png", ("ball", "box"))


def test_history(tmp_path: Path) -> None:
    names = ("validation_interval", "learning_rate", "train_loss", "validation_loss", "mean_dice", "dice_box")
    values = [(i, 0.01 / i, 1 / i, 1.2 / i, 1 - 1 / i, float("nan") if i < 3 else 0.5) for i in range(1, 6)]
    rows = [dict(zip(names, row, strict=True)) for row in values]
    for name, part in (("full", rows), ("one", rows[:1]), ("no_validation", [{"train_loss": 1.0}])):
        plot_history(part, tmp_path / f"{name}.png")
        assert imread(tmp_path / f"{name}.png").shape == (800, 800, 4)
    red, green, blue = (imread(tmp_path / "full.png")[..., i] / 255.0 for i in range(3))
    assert ((red > 0.9) & (green < 0.75) & (blue < 0.6)).sum() > 20  # the organ's orange
    with pytest.raises(ValueError, match="at least one validation interval"):
        plot_history([], tmp_path / "none.png")
