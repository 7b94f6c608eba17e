"""Preprocessing and export lead every voxel back to where it came from, whatever the geometry: of random ones, drawn by hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from factories import labels as organs
from factories import make_configuration, make_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.inference.export import export_labels, to_file_order
from autoseg.inference.logits import Logits
from autoseg.inference.logits_grid import Grid
from autoseg.preprocessing.orientation import SIDES
from autoseg.preprocessing.preprocess import preprocess_case
from autoseg.preprocessing.resampling import separate_z_axis
from autoseg.schema import Configuration, Geometry, Image, Plan, Trace

TWO_ORGANS = organs(a=3, b=8)
MARGIN = 7.0
"""Added to voxel indices, so that no voxel of the ramps is 0 and cropped away."""

exhaustive = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

directions = st.builds(
    lambda order, signs, angle: (np.eye(3)[list(order)] * signs) @ Rotation.from_rotvec(angle).as_matrix(),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    st.tuples(*[st.sampled_from([0.0, 0.0, 0.1, -0.4])] * 3),
)
orientations = st.builds(
    lambda order, ends: "".join(SIDES[side][end] for side, end in zip(order, ends, strict=True)),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([0, 1])] * 3),
)
spacings = st.sampled_from([0.4, 0.7, 1.0, 1.37, 2.5, 6.0])


@dataclass(frozen=True)
class Setting:
    """A case's geometry with the plan and configuration that it is preprocessed for."""

    geometry: Geometry
    plan: Plan
    configuration: Configuration


@st.composite
def cases(draw: st.DrawFn, *, dim: int = 3, same_spacing: bool = False) -> Setting:
    """Volumes (or 2D images) of any direction, and plans of any orientation, order of axes and spacing."""
    shape = tuple(draw(st.integers(3, 14)) for _ in range(dim))
    spacing = tuple(draw(spacings) for _ in range(dim))
    direction = draw(directions) if dim == 3 else np.eye(2)
    origin = tuple(draw(st.floats(-300, 300)) for _ in range(dim))
    geometry = Geometry(shape, spacing, origin, tuple(direction.ravel().tolist()), oriented=dim == 3)
    transpose = tuple(draw(st.permutations(range(dim))))
    target = spacing if same_spacing else tuple(draw(spacings) for _ in range(dim))
    one = make_configuration(dim, spacing=target, normalization=("nonorm",) * 3, mask_normalization=(False,) * 3)
    plan = make_plan(one, labels=TWO_ORGANS, channels=("x", "y", "z"))
    plan = replace(plan, transpose=transpose, orientation=draw(st.one_of(st.just(""), orientations)) if dim == 3 else "")
    return Setting(geometry, plan, one)


def in_file_order(values: np.ndarray, trace: Trace) -> np.ndarray:
    return np.stack([to_file_order(channel, trace) for channel in values])


@exhaustive
@given(case=st.one_of(cases(), cases(dim=2)))
def test_every_voxel_comes_back_to_where_it_was_within_half_a_voxel(case):
    """Of the coarser grid; where slices are not mixed, the nearest one is taken on both ways, which adds half a voxel of the finer grid."""
    shape = case.geometry.shape
    ramps = np.indices(shape).astype(np.float32) + MARGIN
    ramps = np.concatenate([ramps, ramps[:1]])[:3]
    preprocessed, _, trace = preprocess_case(Image(ramps, case.geometry), None, case.plan, case.configuration, case="a")
    back = Grid.of(Logits(torch.from_numpy(preprocessed), trace)).interpolated([(0, size) for size in trace.shape_before_crop])
    found = in_file_order(back.numpy(), trace)[: len(shape)]
    sizes = dict(zip(trace.transpose, trace.shape[-len(shape) :], strict=True))
    slices = separate_z_axis(trace.spacing, [case.geometry.spacing[axis] for axis in trace.transpose])
    for axis, spacing in enumerate(case.geometry.spacing):
        resampled = spacing * shape[axis] / sizes[axis]
        is_nearest = len(shape) == 3 and slices is not None and trace.transpose[slices] == axis
        tolerance = max(spacing, resampled) + (min(spacing, resampled) if is_nearest else 0)
        distance = np.abs(found[axis] - ramps[axis]) * spacing
        assert distance.max() <= tolerance / 2 + 1e-3 * spacing, f"axis {axis}"


@exhaustive
@given(case=st.one_of(cases(same_spacing=True), cases(dim=2, same_spacing=True)), seed=st.integers(0, 2**16))
def test_label_maps_come_back_exactly_where_the_spacing_is_unchanged(case, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, case.geometry.shape).astype(np.int16)
    image = np.repeat((labels > 0).astype(np.float32)[None], 3, axis=0)
    target = tuple(case.geometry.spacing[axis] for axis in plan_order(case))
    configuration = replace(case.configuration, spacing=target)
    _, stored, trace = preprocess_case(Image(image, case.geometry), labels, case.plan, configuration, case="a")
    logits = np.stack([np.where(np.maximum(stored, 0) == value, 5.0, -5.0) for value in range(3)]).astype(np.float32)
    np.testing.assert_array_equal(export_labels([Logits(torch.from_numpy(logits), trace)], TWO_ORGANS), labels)


def plan_order(case: Setting) -> tuple[int, ...]:
    """The file's axes in the order of the preprocessed array."""
    ones = np.ones((3, *case.geometry.shape), np.float32)
    return preprocess_case(Image(ones, case.geometry), None, case.plan, case.configuration, case="a")[2].transpose
