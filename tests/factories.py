"""Builders of the small values and files that tests work on, by topic. Fixtures of the same things: `conftest`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import SimpleITK as sitk
import story_data as data
import torch
from scipy.ndimage import gaussian_filter

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_label, write_image, write_label
from autoseg.data.label_subsets import subset_labels, translate_labels
from autoseg.data.nifti_header import copy_with_orientation, read_orientation
from autoseg.inference.ensemble import Ensemble
from autoseg.inference.logits import Logits
from autoseg.inference.prediction import predict_cases
from autoseg.inference.prediction_files import destination_of
from autoseg.inference.predictor import Predictor
from autoseg.inference.quantised_logits import save_logits
from autoseg.networks import build_network
from autoseg.planners.fingerprint import measure_dataset
from autoseg.preprocessing.preprocess import class_locations
from autoseg.preprocessing.storage import Store, write_array
from autoseg.runtime.checkpoints import save_checkpoint
from autoseg.runtime.outputs import Outputs
from autoseg.runtime.runs import FINAL_CHECKPOINT, ModelFolder, Run
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import (
    Budget,
    Candidate,
    Case,
    Choice,
    Configuration,
    Dataset,
    Fingerprint,
    Geometry,
    Image,
    Intensity,
    Labels,
    Mirroring,
    Plan,
    Score,
    Split,
    Trace,
    candidate_members,
)
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import PredictSettings, TrainSettings
from autoseg.schema.training_options import TrainingOptions
from autoseg.selection.cross_validation import CrossValidation
from autoseg.selection.evidence import Comparison

# ---------------------------------------------------------------- labels


def labels(*, ignore: int | None = None, **values: int) -> Labels:
    """Organs that exclude each other, each with its file value: ``labels(liver=1, spleen=2)``."""
    return Labels(tuple(values), tuple((value,) for value in values.values()), ignore)


def regions(*, ignore: int | None = None, order: tuple[int, ...] | None = None, **values: tuple[int, ...]) -> Labels:
    """Regions that may overlap, each with its file values; `order` is by default the first value of each."""
    order = tuple(members[0] for members in values.values()) if order is None else order
    return Labels(tuple(values), tuple(values.values()), ignore, regions=True, regions_class_order=order)


ORGANS = labels(ball=2, block=5)
REGIONS = regions(whole=(1, 2), core=(2,))
SHAPE = (10, 14, 16)
CASES = ("a", "b", "c", "d")

# ---------------------------------------------------------------- plans, runs


def make_configuration(dim: int = 3, **changes: Any) -> Configuration:
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
    more = len(channels)  # than the one of `make_configuration`
    known = {
        name: dataclasses.replace(one, normalization=one.normalization * more, mask_normalization=one.mask_normalization * more)
        if len(one.normalization) == 1 < more
        else one
        for name, one in known.items()
    }
    intensity = Intensity(mean=0.0, median=0.0, std=1.0, min=-3.0, max=3.0, percentile_00_5=-2.5, percentile_99_5=2.5)
    return Plan("Dataset001_Tiny", channels, labels, ".nii.gz", (0, 1, 2), (intensity,) * len(channels), known)


def make_job(
    plan: Plan, configuration: str = "3d_fullres", *, iterations: int = 8, validation_intervals: int = 4, **options: Any
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


# ---------------------------------------------------------------- cases and folders of them


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


# ---------------------------------------------------------------- datasets with faults

CHECKED_SHAPE = (6, 7, 8)


def write_volume(
    path: Path,
    array: np.ndarray,
    *,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    spacing: Sequence[float] = (1.0, 1.0, 2.0),
    direction: Any = (1, 0, 0, 0, 1, 0, 0, 0, 1),
) -> Path:
    """Writes an image file; geometry in ITK's order (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_case(
    folder: Path,
    name: str,
    *,
    seed: int,
    image: np.ndarray | None = None,
    label: np.ndarray | None = None,
    ending: str = ".nii.gz",
    label_at: dict[str, Any] | None = None,
    image_at: dict[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Writes image and label of a case of shape `CHECKED_SHAPE`: noise with one block; `..._at` are geometries for `write_volume`."""
    volume = np.random.default_rng(seed).normal(size=CHECKED_SHAPE).astype(np.float32) if image is None else image
    mask = np.zeros(CHECKED_SHAPE, np.uint8)
    mask[2:4, 2:5, 2:6] = 1
    paths = folder / f"imagesTr/{name}_0000{ending}", folder / f"labelsTr/{name}{ending}"
    write_volume(paths[0], volume, **(image_at or {}))
    write_volume(paths[1], mask if label is None else label, **(label_at or {}))
    return paths


def skew_sform(path: Path) -> None:
    """Makes the axes of a NIfTI file's sform oblique to each other."""
    source = path.rename(path.with_name(f"straight-{path.name}"))
    fields = list(read_orientation(source))
    fields[5], fields[14] = 0.0, fields[14] + 0.01
    copy_with_orientation(source, path, tuple(fields))
    source.unlink()


def write_faulty_dataset(folder: Path) -> Path:
    """Writes a dataset with one fault a case, each named by its case."""
    volume = np.random.default_rng(99).normal(size=CHECKED_SHAPE).astype(np.float32)
    mask = np.zeros(CHECKED_SHAPE, np.float32)
    mask[2:4, 2:5, 2:6] = 1
    holes = volume.copy()
    holes[0, 0, :3] = [np.nan, np.inf, -np.inf]
    undeclared = mask.astype(np.uint8)
    undeclared[0, 0, :5] = 7
    write_case(folder, "empty", seed=1, label=np.zeros(CHECKED_SHAPE, np.uint8))
    write_case(folder, "far", seed=2, label_at={"origin": (500.0, 0.0, 0.0)})
    write_case(folder, "fractional", seed=3, label=mask * 0.5)
    write_case(folder, "good", seed=4)
    write_case(folder, "moved", seed=5, label_at={"origin": (0.5, 0.0, 0.0)})
    write_case(folder, "nan", seed=6, image=holes)
    write_case(folder, "rounding", seed=7, label=mask * np.float32(1.0005))
    write_case(folder, "shape", seed=8, label=np.ones((6, 7, 4), np.uint8), label_at={"spacing": (2.0, 1.0, 2.0)})
    write_case(folder, "skewed", seed=9)
    skew_sform(folder / "imagesTr/skewed_0000.nii.gz")
    write_case(folder, "tilted", seed=10, ending=".mha", image_at={"direction": [[1, 0.02, 0], [0, 1, 0], [0, 0, 1]]})
    write_case(folder, "twin", seed=4)
    write_case(folder, "undeclared", seed=11, label=undeclared)
    write_case(folder, "unlabelled", seed=12)
    (folder / "labelsTr/unlabelled.nii.gz").unlink()
    write_case(folder, "unreadable", seed=13)
    (folder / "imagesTr/unreadable_0000.nii.gz").write_bytes(b"nothing")
    write_case(folder, "imageless", seed=14)
    (folder / "imagesTr/imageless_0000.nii.gz").unlink()
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "numTraining": 15, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def write_merged_twins(folder: Path, organs: dict[str, list[str]], **patients: str) -> Path:
    """Writes cases of one image, of patient p by default, each with some annotated organs."""
    for name in organs:
        write_case(folder, name, seed=4)
    files = {name: {"images": ["imagesTr/a_0000.nii.gz"], "label": f"labelsTr/{name}.nii.gz"} for name in organs}
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2, "both": 3}, "dataset": files}
    info |= {"annotated": organs, "groups": {name: patients.get(name, "p") for name in organs}}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


# ----------------------------------------------------------------------------------------------------------------- geometry


def make_geometry(shape: Sequence[int], spacing: Sequence[float] | None = None) -> Geometry:
    """Axes as in ITK's identity, voxels of 1 mm where nothing else is given."""
    dim = len(shape)
    return Geometry(tuple(shape), tuple(spacing or (1.0,) * dim), (0.0,) * dim, tuple(np.eye(dim).ravel()))


def whole_trace(shape: Sequence[int], *, case: str = "case", geometry: Geometry | None = None) -> Trace:
    """A volume that preprocessing left as it was."""
    geometry, shape = geometry or make_geometry(shape), tuple(shape)
    return Trace(case, geometry, tuple(range(geometry.dim)), shape, tuple((0, n) for n in shape), shape, geometry.spacing)


# ------------------------------------------------------------------------------------- logits of cases of every kind of grid

LIVER_SPLEEN_AORTA = Labels(("liver", "spleen", "aorta"), ((4,), (1,), (2,)))
NESTED_REGIONS = Labels(("whole", "core", "active"), ((1, 2, 3), (2, 3), (3,)), regions=True, regions_class_order=(1, 2, 3))


def grid_trace(grid, crop, before, *, spacing=(1.0, 1.0, 1.0), file_spacing=(1.0, 1.0, 1.0), transpose=(0, 1, 2), flips=()) -> Trace:
    """`grid`, `crop` and `before` transposed (and reversed along `flips`); `file_spacing` of the file."""
    shape = [0] * len(file_spacing)
    for axis, size in zip(transpose, before[-len(shape) :], strict=True):
        shape[axis] = size
    return Trace("case_1", make_geometry(shape, file_spacing), transpose, before, crop, grid, spacing, flips)


_CROP, _BEFORE, _TWO_MM = ((1, 19), (2, 25), (0, 22)), (21, 26, 22), (2.0, 2.0, 2.0)
_FLAT = {"crop": ((0, 1), (2, 27), (0, 20)), "before": (1, 30, 20), "spacing": (2.0, 2.0), "file_spacing": (1.0, 1.0)}

GRIDS = {
    "finer": grid_trace((9, 10, 11), _CROP, _BEFORE, spacing=_TWO_MM),
    "coarser": grid_trace((20, 24, 22), ((0, 11), (0, 13), (0, 10)), (11, 13, 10), file_spacing=(1.9, 1.8, 2.1)),
    "same": grid_trace((9, 10, 11), ((1, 10), (0, 10), (0, 11)), (10, 10, 11)),
    "slices": grid_trace((7, 12, 11), ((0, 13), (1, 26), (2, 24)), (13, 28, 25), spacing=(8.0, 2.0, 2.0)),
    "slices_of_the_file": grid_trace((12, 12, 11), ((0, 5), (0, 25), (0, 22)), (5, 25, 22), spacing=_TWO_MM, file_spacing=(7.0, 1.0, 1.0)),
    "transposed": grid_trace((9, 10, 11), _CROP, _BEFORE, spacing=_TWO_MM, transpose=(2, 0, 1)),
    "turned": grid_trace((9, 10, 11), ((1, 19), (2, 25), (0, 20)), _BEFORE, spacing=_TWO_MM, transpose=(2, 0, 1), flips=(0, 1)),
    "turned in the plane": grid_trace((9, 10, 11), ((1, 19), (2, 25), (0, 20)), _BEFORE, spacing=_TWO_MM, flips=(1, 2)),
    "thin": grid_trace((1, 8, 9), ((0, 3), (0, 17), (0, 18)), (3, 17, 18)),
    "flat": grid_trace((1, 13, 9), **_FLAT, transpose=(0, 1)),
    "flat_transposed": grid_trace((1, 13, 9), **_FLAT, transpose=(1, 0)),
}
"""Traces of one case of each kind: how the network's grid lies to the file."""


def blobs(shape: Sequence[int], classes: int, *, seed: int, scale: float = 6.0, smooth: float = 1.5) -> np.ndarray:
    """Smooth random logits ``(classes, *shape)`` float16."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smoothed = np.stack([gaussian_filter(channel, np.minimum(smooth, np.array(shape) / 3)) for channel in noise])
    return (smoothed / smoothed.std() * scale).astype(np.float16)


# --------------------------------------------------------------------------------- sliding windows over functions of a voxel

LIVER_KIDNEYS = Labels(("liver", "kidney_left", "kidney_right"), ((1,), (2,), (5,)))


def patch_configuration(
    patch: tuple[int, ...], *, mirroring: Mirroring | None = None, previous: str | None = None, **changes: object
) -> Configuration:
    """A configuration called "test" with this patch; without flips where none are given."""
    options = {"mirroring": mirroring or Mirroring(), "previous_stage": previous, "batch_size": 3, **changes}
    return make_configuration(len(patch), name="test", data="test", median_shape=patch, patch_size=patch, **options)


def make_predictor(network, patch: tuple[int, ...], *, labels: Labels = LIVER_KIDNEYS, **options: object) -> Predictor:
    """A sliding window over one function or several, on the CPU."""
    fields = {key: options.pop(key) for key in ("mirroring", "previous", "batch_size") if key in options}
    networks = [network] if callable(network) else network
    return Predictor(networks, patch_configuration(patch, **fields), labels, device=torch.device("cpu"), **options)


def voxelwise(x: torch.Tensor) -> torch.Tensor:
    """Four channels that depend on the voxel alone: tiling must give them back."""
    return torch.cat([x[:, :1] * factor for factor in (1, -2, 0.5, 3)], 1)


def random_image(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(1, *shape)).astype(np.float32)


def random_label_map(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, shape).astype(np.int16)


# --------------------------------------------------------------------- models and cases that are predicted, without networks

BALL_AND_BAR = Labels(("ball", "bar"), ((data.BALL,), (data.BAR,)))


def write_images(folder: Path, count: int) -> list[Case]:
    """New images with a ball and a bar: ``new_0``, ``new_1`` ..."""
    cases = []
    for number in range(count):
        image, _, geometry = data.draw_case(number)
        path = folder / f"new_{number}_0000.nii.gz"
        write_image(path, image[None], geometry)
        cases.append(Case(f"new_{number}", (path,)))
    return cases


def drawn_image(number: int = 0) -> Image:
    """An image with a ball and a bar as prediction reads it."""
    array, _, geometry = data.draw_case(number)
    return Image(array[None].astype(np.float32), geometry)


@dataclass(eq=False)
class ThresholdModel:
    """Stands for a trained model: sees organs by their brightness, notes the cases that it predicts, fails for some of them."""

    ball: float = 110.0
    bar: float = 240.0
    key: str = "weights of monday"
    failing: tuple[str, ...] = ()
    error: Exception = field(default_factory=lambda: RuntimeError("out of memory"))
    predicted: list[str] = field(default_factory=list)
    plan: Plan = field(default_factory=lambda: make_plan(labels=BALL_AND_BAR, channels=("CT",)))
    predictor: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(mirror=True, step=0.5))
    depends_on: tuple[()] = ()

    def logits(self, image: Image, *, case: str = "", progress: Callable[[float], None] | None = None, cache: object = None) -> Logits:
        self.predicted.append(case)
        if case in self.failing:
            raise self.error
        voxels = image.array[0]
        classes = np.stack([np.zeros_like(voxels), voxels - self.ball, 5 * (voxels - self.bar)])
        if progress is not None:
            progress(1.0)
        return Logits((classes / 10).astype(np.float16), whole_trace(voxels.shape, case=case, geometry=image.geometry))


class OrganModel(ThresholdModel):
    """Stands for a model of one organ: background and that one."""

    def __init__(self, organ: str, *, certainty: float = 1.0, **options: object) -> None:
        super().__init__(**options)
        self.organ, self.certainty = BALL_AND_BAR.names.index(organ), certainty
        self.plan = dataclasses.replace(self.plan, labels=subset_labels(BALL_AND_BAR, (organ,)), data_labels=BALL_AND_BAR)

    def logits(self, image: Image, **options: object) -> Logits:
        every = super().logits(image, **options)
        return dataclasses.replace(every, array=self.certainty * every.array[[0, self.organ + 1]])


def ensemble_for(organs: Mapping[str, tuple[str, ...]], **models: ThresholdModel) -> Ensemble:
    """An ensemble with this choice of members for each organ."""
    return Ensemble(Choice(dict(organs), ("0",), {}, 0), models, BALL_AND_BAR)


def ensemble_of(**models: ThresholdModel) -> Ensemble:
    """The first member segments the ball, the last the bar."""
    names = list(models)
    return ensemble_for({"ball": (names[0],), "bar": (names[-1],)}, **models)


def predict(cases: list[Case], out: Path, ensemble: Ensemble, **options: object) -> dict[str, str]:
    """Label maps only, with the endings of the inputs, where `options` do not want more."""
    overwrite = bool(options.pop("overwrite", False))
    dim = len(next(iter(ensemble.models.values())).plan.transpose)
    destination, cases = destination_of(out, cases, PredictSettings(**options), dim=dim)
    inputs = [image for case in cases for image in case.images]
    return predict_cases(cases, destination, ensemble, Outputs("autoseg_predict", inputs=inputs, overwrite=overwrite))


# ---------------------------------------------------------------- measurements


def fingerprint_of(dataset: Dataset, *, workers: int = 0) -> tuple[Fingerprint, dict[str, str]]:
    """The fingerprint of a dataset, and the reasons of the cases that could not be measured."""
    measured = measure_dataset(dataset, workers=workers)
    return measured.fingerprint, measured.failures


# ---------------------------------------------------------------- scores and validated models that selection compares

DATASET = "Dataset001_Tiny"
TINY_SPACING = (2.0, 1.0, 1.0)


def scores(**organs: Sequence[float]) -> list[Score]:
    """``liver=[.9, .8]`` -> a score for each organ in the cases c0, c1 ..."""
    of_cases = ((organ, *one) for organ, values in organs.items() for one in enumerate(values))
    return [Score(f"c{i}", organ, dice, dice, 1 - math.isnan(dice), 1 - math.isnan(dice)) for organ, i, dice in of_cases]


def comparison(values: Mapping[str, Sequence[float]], **changes: Any) -> Comparison:
    """The candidates ``{"2d": [...], "3d": [...], "2d + 3d": [...]}``, the simplest first, on the cases c0, c1 ..."""
    candidates = tuple(Candidate(candidate_members(name)) for name in values)
    arrays = {name: np.array(one, float) for name, one in values.items()}
    return Comparison(candidates, arrays, tuple(f"c{i}" for i in range(len(next(iter(arrays.values()))))), **changes)


def truth(case: str, plan: Plan | None = None) -> np.ndarray:
    """The reference of a case in internal values, of all organs or of a plan's."""
    labels = make_case(CASES.index(case))[1]
    return labels if plan is None else translate_labels(labels, plan.stored_labels, plan.labels)


def plan_of(organ: str) -> Plan:
    """A plan of models that segment one organ only."""
    return dataclasses.replace(make_plan(), labels=subset_labels(ORGANS, (organ,)), data_labels=ORGANS)


def one_hot(label_map: np.ndarray, plan: Plan, confidence: float = 1.0) -> np.ndarray:
    """Logits of a label map in internal values."""
    return np.stack([(label_map == value) * confidence for value in range(plan.labels.n_outputs)])


def save_prediction(run: Run, case: str, logits: np.ndarray, plan: Plan, *, shape: Sequence[int] | None = None) -> None:
    """Stores logits of a case that was not cropped; `shape` is the file's where the logits have another grid."""
    grid = logits.shape[1:]
    geometry = make_geometry(shape or grid, TINY_SPACING)
    spacing = tuple(s * a / b for s, a, b in zip(TINY_SPACING, geometry.shape, grid, strict=True))
    trace = dataclasses.replace(whole_trace(geometry.shape, case=case, geometry=geometry), shape=grid, spacing=spacing)
    save_logits(run.validation, case, Logits(logits.astype(np.float32), trace), plan.labels)


def write_labels(path: Path, values: np.ndarray) -> None:
    """A label map in file values, of the geometry of `save_prediction`."""
    write_label(path, values.astype(np.uint8), make_geometry(values.shape, TINY_SPACING))


def record_run(run: Run, plan: Plan, scores: Sequence[Score] | None = None, **changes: Any) -> Run:
    """Writes what a run was started with; with scores it is trained and validated."""
    write_json(run.record_file, dataclasses.replace(make_job(plan), **changes))
    if scores is not None:
        write_json(run.scores_file, list(scores))
        run.checkpoint.touch()
    return run


def add_model(home: Path, model: str, plan: Plan | None = None, *, quality: int = 0, fold: str = "0", cases: str = "ab") -> Run:
    """A model that is right everywhere, whatever its scores say, and the surer the higher its quality."""
    plan, run = plan or make_plan(), ModelFolder(Workspace(home).results(DATASET) / model).run(fold)
    for case in cases:
        save_prediction(run, case, one_hot(truth(case, plan), plan, 1 + quality), plan)
    return record_run(run, plan, [Score(case, organ, 0.5 + 0.1 * quality, 0.4, 10, 10) for case in cases for organ in plan.labels.names])


def planned_home(home: Path) -> Path:
    """A home with the tiny dataset and its plan, but no preprocessed cases."""
    write_dataset(home / "raw" / DATASET)
    write_json(home / "preprocessed" / DATASET / "plan.json", make_plan())
    return home


def cross_validation_of(home: Path, folds: dict[str, str], **changes: Any) -> CrossValidation:
    """The cases of some folds, ``{"0": "ab"}``, of the planned dataset."""
    cases = {case.name: case for case in planned_dataset(Workspace(home), 1).cases}
    of_folds = {fold: tuple(cases[name] for name in names) for fold, names in folds.items()}
    return CrossValidation(Workspace(home).results(DATASET), make_plan(), of_folds, **changes)


# ---------------------------------------------------------------- trained models on disk


def write_random_network(fold: Path, record: RunRecord) -> None:
    """The record of a run and a final checkpoint of its network with random weights."""
    plan, one = record.plan, record.configuration
    channels, outputs = plan.in_channels(one), plan.labels.n_outputs
    network = build_network(one.network, dim=one.dim, in_channels=channels, out_channels=outputs, **one.network_options)
    write_json(fold / "run.json", record)
    save_checkpoint(fold / FINAL_CHECKPOINT, {"network": network.state_dict()}, {})


# ---------------------------------------------------------------- descriptions of datasets


def change_info(folder: Path, **entries: object) -> Path:
    """Replaces entries of the ``dataset.json`` in a folder."""
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    return folder


def write_info(folder: Path, **entries: object) -> Path:
    """Writes the ``dataset.json`` of a CT dataset with one organ, or with other `entries`; without those that are None."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, **entries}
    (folder / "dataset.json").write_text(json.dumps({key: value for key, value in info.items() if value is not None}))
    return folder


def relabel(path: Path, values: Mapping[int, int]) -> None:
    """Gives a label map other values; those that are not named become background."""
    label = read_label(path)
    array = sum((label.array == old) * new for old, new in values.items())
    write_label(path, array.astype(np.uint8), label.geometry)
