"""Tiny datasets for tests of the whole pipeline: two bright bodies in noise, so small that a training step takes milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.images import write_image, write_label
from autoseg.runtime.hardware import StepCost
from autoseg.schema import Geometry

BALL, BAR = 2, 7
"""Label values of the two bodies; not consecutive on purpose."""

SHAPE = (12, 24, 22)
SPACING = (2.5, 1.13, 1.07)


def oblique(degrees: float) -> tuple[float, ...]:
    """Direction cosines of a scan that is tilted about two axes."""
    a, b = np.deg2rad([degrees, degrees / 3])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return tuple((about_z @ about_x).ravel())


def draw_case(number: int, shape: Sequence[int] = SHAPE) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Image ``(Z, Y, X)`` int16, labels uint8 and geometry of case `number`; cases differ in size, place and tilt."""
    rng = np.random.default_rng([7, number])
    shape = tuple(int(n + rng.integers(0, 3)) for n in shape)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = rng.uniform(-0.15, 0.15, 3)
    labels = np.zeros(shape, np.uint8)
    labels[np.linalg.norm(grid - centre.reshape(3, 1, 1, 1), axis=0) < 0.55] = BALL
    labels[(np.abs(grid[1] - centre[1]) < 0.2) & (grid[2] > 0.5) & (np.abs(grid[0]) < 0.8)] = BAR
    image = rng.normal(0, 20, shape) + 40 + 120.0 * (labels == BALL) + 300.0 * (labels == BAR)
    origin = tuple(float(value) for value in rng.uniform(-80, 80, 3))
    return image.astype(np.int16), labels, Geometry(shape, SPACING, origin, oblique(11.0 + number))


def write_description(folder: Path, **changes: object) -> None:
    """``dataset.json`` of the tiny dataset; `changes` replace or add keys."""
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "ball": BALL, "bar": BAR},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({key: value for key, value in {**description, **changes}.items() if value is not None}))


def make_volumes(folder: Path, *, n_train: int = 4, n_test: int = 2, ending: str = ".nii.gz", **changes: object) -> Path:
    """A dataset in nnU-Net's layout with two patients, hence two folds. Returns `folder`."""
    for number in range(n_train + n_test):
        image, labels, geometry = draw_case(number)
        part, name = ("Tr" if number < n_train else "Ts"), f"case_{number}"
        write_image(folder / f"images{part}" / f"{name}_0000{ending}", image[None], geometry)
        write_label(folder / f"labels{part}" / f"{name}{ending}", labels, geometry)
    groups = {f"case_{number}": f"patient_{number % 2}" for number in range(n_train)}
    write_description(folder, **{"groups": groups, "file_ending": ending, **changes})
    return folder


def make_regions(folder: Path) -> Path:
    """Overlapping regions (the whole, and the bar inside it) and a strip of voxels that nobody annotated."""
    ignore = 9
    labels = {"background": 0, "whole": [BALL, BAR], "bar": [BAR], "ignore": ignore}
    make_volumes(folder, n_test=1, labels=labels, regions_class_order=[BALL, BAR])
    for number in range(4):
        _, values, geometry = draw_case(number)
        values[:, :3] = ignore
        write_label(folder / "labelsTr" / f"case_{number}.nii.gz", values, geometry)
    return folder


def make_pictures(folder: Path) -> Path:
    """Colour photographs (.png) with labels of the same format: a disc and a stripe."""
    for number in range(5):
        rng = np.random.default_rng([8, number])
        y, x = np.mgrid[:40, :48]
        labels = np.zeros((40, 48), np.uint8)
        labels[(y - 20) ** 2 + (x - 18 - number) ** 2 < 100] = 1
        labels[:, 38:43] = 2
        colours = np.array([[40, 40, 40], [200, 60, 60], [50, 70, 210]])
        picture = np.clip(colours[labels] + rng.normal(0, 10, (40, 48, 3)), 0, 255).astype(np.uint8)
        part, name = ("Tr" if number < 4 else "Ts"), f"photo_{number}"
        for kind, array in (("images", picture), ("labels", labels)):
            path = folder / f"{kind}{part}" / (f"{name}_0000.png" if kind == "images" else f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))
    write_description(
        folder,
        channel_names={"0": "red", "1": "green", "2": "blue"},
        labels={"background": 0, "disc": 1, "stripe": 2},
        file_ending=".png",
        groups={f"photo_{number}": f"patient_{number % 2}" for number in range(4)},
    )
    return folder


def make_decathlon(folder: Path) -> Path:
    """The Medical Segmentation Decathlon's own layout: 4D images of two channels and a list of files."""
    for number in range(5):
        image, labels, geometry = draw_case(number)
        part, name = ("Tr" if number < 4 else "Ts"), f"brain_{number}.nii.gz"
        volumes = []
        for channel in (image, 300 - image):
            volume = sitk.GetImageFromArray(channel)
            volume.SetSpacing(geometry.spacing[::-1])
            volumes.append(volume)
        (folder / f"images{part}").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.JoinSeries(volumes), str(folder / f"images{part}" / name))
        upright = Geometry(geometry.shape, geometry.spacing, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))
        write_label(folder / f"labels{part}" / name, labels, upright)
    description = {
        "name": "BRAIN",
        "tensorImageSize": "4D",
        "modality": {"0": "T1w", "1": "T2w"},
        "labels": {"0": "background", str(BALL): "ball", str(BAR): "bar"},
        "numTraining": 4,
        "training": [{"image": f"./imagesTr/brain_{n}.nii.gz", "label": f"./labelsTr/brain_{n}.nii.gz"} for n in range(4)],
        "test": ["./imagesTs/brain_4.nii.gz"],
        "groups": {f"brain_{number}": f"patient_{number % 2}" for number in range(4)},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick_trainings() -> Iterator[None]:
    """Trainings neither measure a step of their network first nor draw learning curves, which takes longer than four iterations."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        yield


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """As `quick_trainings`, for as long as `patch` lasts."""
    patch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    patch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below `folder`, by relative path; locks aside, which are opened but never changed."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def leftovers(folder: Path) -> list[str]:
    """Half-written files below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".partial-*"))
