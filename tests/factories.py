"""Builders that several test files share, by topic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import story_data as data
import torch
from conftest import make_configuration, make_plan
from scipy.ndimage import gaussian_filter

from autoseg.data.images import write_image
from autoseg.data.label_subsets import subset_labels
from autoseg.inference.ensemble import Ensemble
from autoseg.inference.logits import Logits
from autoseg.inference.prediction import predict_cases
from autoseg.inference.predictor import Predictor
from autoseg.schema import Case, Choice, Configuration, Geometry, Image, Labels, Mirroring, Plan, Trace

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
    return predict_cases(cases, out, ensemble, **{"ending": None, "save_probabilities": False, **options})
