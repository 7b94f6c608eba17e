"""Slices in other planes: cases with their axis first, predictions in the order of all other models, and their plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import ORGANS, make_geometry, make_plan

from autoseg.inference.export import export_labels
from autoseg.inference.volume_predictor import Volume, predict_preprocessed
from autoseg.planners.configurations import default_configurations
from autoseg.planners.slice_planes import with_planes
from autoseg.preprocessing.preprocess import preprocess_case, recipe_of
from autoseg.schema import Image, Plan

SPACING, SHAPE = (3.0, 1.0, 1.0), (9, 20, 16)


def plan_of_planes() -> Plan:
    """Axes are superior, posterior, left; the planned order puts the coarsest first, so they stay."""
    plan = make_plan()
    volume = replace(plan.configurations["3d_fullres"], spacing=SPACING, median_shape=SHAPE)
    plane = replace(
        volume,
        name="2d",
        dim=2,
        spacing=SPACING[1:],
        median_shape=SHAPE[1:],
        patch_size=(16, 16),
        data="2d",
        mirroring=replace(volume.mirroring, axes=(0, 1)),
    )
    plan = replace(plan, orientation="SPL", transpose=(0, 1, 2), lateral_axis=2, configurations={"2d": plane, "3d_fullres": volume})
    return with_planes(plan, ["2d", "2d_coronal", "2d_sagittal"], cases=10)


class Repeats:
    """Sees the organs in the image itself: its values are labels."""

    def logits(self, volume: Volume, *, progress: object = None) -> torch.Tensor:
        return torch.from_numpy(np.stack([(np.rint(volume.image[0]) == value) * 8.0 - 4 for value in range(3)]).astype(np.float16))


@pytest.mark.parametrize("name", ["2d", "2d_coronal", "2d_sagittal"])
@pytest.mark.parametrize("flipped", [False, True])
def test_cases_go_there_and_back(name: str, flipped: bool) -> None:
    plan = plan_of_planes()
    configuration = replace(plan.configurations[name], normalization=("nonorm",), mask_normalization=(False,))
    labels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.int16)
    labels[0] = labels[:, :2] = labels[:, :, -3:] = 0
    direction = tuple(np.diag([-1.0, -1.0, 1.0] if flipped else [1.0, 1.0, 1.0]).ravel())
    geometry = replace(make_geometry(SHAPE, SPACING), direction=direction)
    array, segmentation, trace = preprocess_case(Image(labels[None].astype(np.float32), geometry), labels, plan, configuration, case="a")
    axis = configuration.slice_axis
    assert array.shape[1] == labels.shape[axis] - (1, 2, 3)[axis], "slices follow each other along the first axis"
    assert np.array_equal(np.rint(array[0]), np.maximum(segmentation, 0))
    found = predict_preprocessed(Repeats(), configuration, Volume(array, case="a"), trace)
    assert np.array_equal(export_labels([found], ORGANS), labels)
    usual = replace(plan.configurations["2d"], normalization=("nonorm",), mask_normalization=(False,))
    expected = preprocess_case(Image(labels[None].astype(np.float32), geometry), labels, plan, usual, case="a")[2]
    for what in ("transpose", "flips", "crop", "shape_before_crop", "shape", "spacing"):
        assert getattr(found.trace, what) == getattr(expected, what), what


def test_planes_are_planned_on_request() -> None:
    plan = plan_of_planes()
    coronal, sagittal = plan.configurations["2d_coronal"], plan.configurations["2d_sagittal"]
    assert (coronal.slice_axis, coronal.spacing, coronal.median_shape) == (1, (3.0, 1.0), (9, 16))
    assert (sagittal.slice_axis, sagittal.spacing, sagittal.median_shape) == (2, (3.0, 1.0), (9, 20))
    assert [plan.lateral_in(plan.configurations[name]) for name in ("2d", "2d_coronal", "2d_sagittal", "3d_fullres")] == [1, 1, -1, 2]
    assert default_configurations(plan) == ["2d", "3d_fullres"]
    assert len({recipe_of(plan, plan.configurations[name]).transpose for name in ("2d", "2d_coronal", "2d_sagittal")}) == 3
    assert with_planes(plan, None, cases=10) is plan


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("2d_axial", {}, "expected 2d_coronal, 2d_sagittal beside 2d, whose slices are axial"),
        ("2d_corronal", {}, "expected 2d_coronal"),
        ("2d_coronal", {"orientation": ""}, "needs the orientation"),
        ("2d_coronal", {"configurations": {}}, "needs volumes"),
    ],
)
def test_planes_that_cannot_be_are_refused(name: str, changes: dict[str, object], message: str) -> None:
    plan = plan_of_planes()
    bare = {key: plan.configurations[key] for key in ("2d", "3d_fullres")}
    with pytest.raises(ValueError, match=message):
        with_planes(replace(plan, **{"configurations": bare, **changes}), [name], cases=3)
