"""What several tests share: a dataset so small that a network learns it in a second."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autoseg.planners.fingerprint import measure_dataset
from autoseg.preprocessing.preprocess import class_locations
from autoseg.preprocessing.storage import Store, write_array
from autoseg.schema import Budget, Configuration, Dataset, Fingerprint, Geometry, Intensity, Labels, Mirroring, Plan, Split, Trace
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.schema.training_options import TrainingOptions
from autoseg.trainers.job import RunFolders

ORGANS = Labels(("ball", "block"), ((2,), (5,)))
SHAPE = (10, 14, 16)
CASES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from more, and the machine may be shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's shell says about data must not reach a test."""
    for name in ("AUTOSEG_HOME", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning curves are not drawn, which takes longer than the training of a tiny network; test_history draws one."""
    monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())


def make_configuration(dim: int = 3, **changes: object) -> Configuration:
    """Two stages of four and eight features; a patch of 8 voxels an axis."""
    grid = {"strides": [[1] * dim, [2] * dim], "kernel_sizes": [[3] * dim] * 2}
    name = "2d" if dim == 2 else "3d_fullres"
    tiny = Configuration(
        name=name,
        dim=dim,
        spacing=(1.0,) * dim,
        median_shape=SHAPE[-dim:],
        patch_size=(8,) * dim,
        batch_size=2,
        normalization=("zscore",),
        mask_normalization=(False,),
        network="plain_unet",
        network_options={"features": [4, 8], "convs_per_stage": [1, 1], "decoder_convs": [1], **grid},
        batch_dice=False,
        mirroring=Mirroring(axes=tuple(range(dim))),
        data=name,
    )
    return dataclasses.replace(tiny, **changes)


def make_plan(*configurations: Configuration, labels: Labels = ORGANS, channels: tuple[str, ...] = ("MR",)) -> Plan:
    """A plan without reasons for the given configurations (the 3D one if none is given)."""
    known = {one.name: one for one in configurations or (make_configuration(),)}
    intensity = Intensity(mean=0.0, median=0.0, std=1.0, min=-3.0, max=3.0, percentile_00_5=-2.5, percentile_99_5=2.5)
    return Plan("Dataset001_Tiny", channels, labels, ".nii.gz", (0, 1, 2), (intensity,) * len(channels), known)


def make_case(seed: int, shape: Sequence[int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An image ``(1, Z, Y, X)`` with a bright ball (1) and a dark block (2), and its internal labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int16)
    middle = [rng.uniform(0.3, 0.45) * n for n in shape]
    labels[sum((grid - at) ** 2 for grid, at in zip(np.ogrid[tuple(slice(n) for n in shape)], middle, strict=True)) < 9] = 1
    labels[-5:-2, -6:-2, -6:-2] = 2
    image = rng.normal(0, 0.2, shape) + np.choose(labels, [0.0, 2.0, -2.0])
    return image[None].astype(np.float32), labels


def write_store(folder: Path, plan: Plan, names: Sequence[str] = CASES, *, shape: Sequence[int] = SHAPE) -> Store:
    """Preprocessed cases as a training reads them."""
    store = Store(folder)
    geometry = Geometry(tuple(shape), (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel()))
    for seed, name in enumerate(names):
        image, labels = make_case(seed, shape)
        image = np.concatenate([image] * len(plan.channels))
        trace = Trace(name, geometry, (0, 1, 2), tuple(shape), tuple((0, n) for n in shape), tuple(shape), (1.0,) * 3)
        store.write(name, image, labels, trace, class_locations(labels, plan.labels, np.random.default_rng(0)))
    return store


def write_previous(folder: Path, data: Path) -> Path:
    """A first stage's segmentations that are right everywhere."""
    for name in Store(data).names():
        write_array(folder / f"{name}.b2nd", np.asarray(Store(data).load(name).segmentation[:])[None].astype(np.uint8))
    return folder


def make_job(
    plan: Plan, configuration: str = "3d_fullres", *, iterations: int = 8, validation_intervals: int = 4, **options: object
) -> RunRecord:
    """A run over the cases of `write_store`: c and d are held out."""
    quick = {"optimizer": "adamw", "learning_rate": 1e-2, "weight_decay": 1e-2, "schedule": "cosine", "validation_batches": 1}
    return RunRecord(
        plan=plan,
        configuration=plan.configurations[configuration],
        fold="0",
        split=Split(CASES[:2], CASES[2:]),
        budget=Budget("iterations", iterations, validation_intervals),
        seed=3,
        options=TrainingOptions(**(quick | options)),
        settings=TrainSettings(iterations=iterations, seed=3),
    )


def write_dataset(folder: Path, names: Sequence[str] = CASES, *, spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Path:
    """A dataset folder as users have it: images, labels and ``dataset.json``; `spacing` is ITK's (x, y, z)."""
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        image, labels = make_case(seed)
        values = np.array([0, 2, 5], np.uint8)[labels]
        for array, path in ((image[0], folder / "imagesTr" / f"{name}_0000.nii.gz"), (values, folder / "labelsTr" / f"{name}.nii.gz")):
            one = sitk.GetImageFromArray(array)
            one.SetSpacing(spacing)
            sitk.WriteImage(one, str(path))
    info = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "ball": 2, "block": 5},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def fingerprint_of(dataset: Dataset, *, workers: int = 0) -> tuple[Fingerprint, dict[str, str]]:
    """The fingerprint of a dataset, and the reasons of the cases that could not be measured."""
    measured = measure_dataset(dataset, workers=workers)
    return measured.fingerprint, measured.failures


@pytest.fixture
def tiny_configuration() -> Callable[..., Configuration]:
    """See `make_configuration`."""
    return make_configuration


@pytest.fixture
def tiny_plan() -> Callable[..., Plan]:
    """See `make_plan`."""
    return make_plan


@pytest.fixture
def tiny_job() -> Callable[..., RunRecord]:
    """See `make_job`."""
    return make_job


@pytest.fixture
def tiny_dataset() -> Callable[..., Path]:
    """See `write_dataset`."""
    return write_dataset


@pytest.fixture
def tiny_case() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """See `make_case`."""
    return make_case


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    """Where a run over four preprocessed cases reads and writes."""
    write_store(tmp_path / "data", make_plan())
    return RunFolders(tmp_path / "run", tmp_path / "data")


@pytest.fixture
def cascade_folders(folders: RunFolders, tmp_path: Path) -> RunFolders:
    """The same with a first stage's segmentations."""
    return dataclasses.replace(folders, previous=write_previous(tmp_path / "previous", folders.data))
