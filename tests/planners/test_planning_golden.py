"""The planner reaches the reference's plans: ten Medical Segmentation Decathlon tasks with published medians."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import pytest

from autoseg.planners.patch import PRESETS
from autoseg.planners.plan import PlanningInput, plan_configurations
from autoseg.planners.spacing import target_spacing, transpose_order

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One task: what the planner is given, and the plan of the reference at 8 GB."""

    n_cases: int
    label_keys: int
    channels: tuple[str, ...]
    median: Triple
    tenth: Triple
    cropped: Triple
    relative_size: float = 1.0
    spacing: Triple
    shape: Triple
    patch: tuple[int, ...]
    batch: int
    plane: tuple[int, ...]
    plane_batch: int
    low_spacing: Triple | None = None
    low_patch: tuple[int, ...] | None = None
    masked: bool = False


MR4, MR1, CT = ("FLAIR", "T1w", "t1gd", "T2w"), ("MRI",), ("CT",)
ONE = (1.0, 1.0, 1.0)
GOLDEN = {
    "BrainTumour": Golden(
        n_cases=484, label_keys=4, channels=MR4, median=ONE, tenth=ONE, cropped=(138, 169, 138), relative_size=0.362, masked=True,
        spacing=ONE, shape=(138, 169, 138), patch=(128, 128, 128), batch=2, plane=(192, 160), plane_batch=105,
    ),
    "Heart": Golden(
        n_cases=20, label_keys=2, channels=MR1, median=(1.37, 1.25, 1.25), tenth=(1.37, 1.25, 1.25), cropped=(115, 320, 232),
        spacing=(1.37, 1.25, 1.25), shape=(115, 320, 232), patch=(80, 192, 160), batch=2, plane=(320, 256), plane_batch=40,
        relative_size=0.725, masked=True,
    ),
    "Liver": Golden(
        n_cases=131, label_keys=3, channels=CT, median=(1, 0.7676, 0.7676), tenth=(0.7, 0.666, 0.666), cropped=(432, 512, 512),
        spacing=(1, 0.7676, 0.7676), shape=(482, 512, 512), patch=(128, 128, 128), batch=2, plane=(512, 512), plane_batch=12,
        low_spacing=(2.5, 1.919, 1.919), low_patch=(128, 128, 128),
    ),
    "Hippocampus": Golden(
        n_cases=260, label_keys=3, channels=MR1, median=ONE, tenth=ONE, cropped=(36, 50, 35),
        spacing=ONE, shape=(36, 50, 35), patch=(40, 56, 40), batch=9, plane=(56, 40), plane_batch=366,
    ),
    "Prostate": Golden(
        n_cases=32, label_keys=3, channels=("T2", "ADC"), median=(3.6, 0.625, 0.625), tenth=(3.6, 0.6, 0.6), cropped=(20, 320, 319.5),
        spacing=(3.6, 0.625, 0.625), shape=(20, 320, 319), patch=(20, 320, 256), batch=2, plane=(320, 320), plane_batch=32,
        relative_size=0.997,
    ),
    "Lung": Golden(
        n_cases=63, label_keys=2, channels=CT, median=(1.245, 0.7852, 0.7852), tenth=(0.9979, 0.6953, 0.6953), cropped=(252, 512, 512),
        spacing=(1.245, 0.7852, 0.7852), shape=(252, 512, 512), patch=(80, 192, 160), batch=2, plane=(512, 512), plane_batch=12,
        low_spacing=(2.386, 1.504, 1.504), low_patch=(80, 192, 160),
    ),
    "Pancreas": Golden(
        n_cases=281, label_keys=3, channels=CT, median=(2.5, 0.8027, 0.8027), tenth=(2.5, 0.6953, 0.6953), cropped=(93, 512, 512),
        spacing=(2.5, 0.8027, 0.8027), shape=(96, 512, 512), patch=(40, 224, 224), batch=2, plane=(512, 512), plane_batch=12,
        low_spacing=(2.652, 1.327, 1.327), low_patch=(64, 192, 192),
    ),
    "HepaticVessel": Golden(
        n_cases=303, label_keys=3, channels=CT, median=(5, 0.7988, 0.7988), tenth=(1.5, 0.6836, 0.6836), cropped=(49, 512, 512),
        spacing=(1.5, 0.7988, 0.7988), shape=(150, 512, 512), patch=(64, 192, 192), batch=2, plane=(512, 512), plane_batch=12,
        low_spacing=(2.479, 1.32, 1.32), low_patch=(64, 192, 192),
    ),
    "Spleen": Golden(
        n_cases=41, label_keys=2, channels=CT, median=(5, 0.793, 0.793), tenth=(1.6, 0.6992, 0.6992), cropped=(90, 512, 512),
        spacing=(1.6, 0.793, 0.793), shape=(187, 512, 512), patch=(64, 192, 160), batch=2, plane=(512, 512), plane_batch=12,
        low_spacing=(2.724, 1.39, 1.39), low_patch=(64, 192, 192),
    ),
    "Colon": Golden(
        n_cases=126, label_keys=2, channels=CT, median=(5, 0.7812, 0.7812), tenth=(3, 0.6669, 0.6669), cropped=(95, 512, 512),
        spacing=(3, 0.7812, 0.7812), shape=(150, 512, 512), patch=(56, 192, 192), batch=2, plane=(512, 512), plane_batch=12,
        low_spacing=(3.09, 1.588, 1.588), low_patch=(96, 160, 160),
    ),
}  # fmt: skip


def plan(name: str, preset: str = "default", **options: bool) -> dict:
    """Configurations of a golden task."""
    family, task = PRESETS[preset], GOLDEN[name]
    given = {field.name: getattr(task, field.name) for field in fields(PlanningInput)}
    return plan_configurations(PlanningInput(**given), family, family.gigabytes, **options)[0]


@pytest.mark.parametrize("name", GOLDEN)
def test_target_spacing(name: str) -> None:
    task = GOLDEN[name]
    spacing, why = target_spacing(task.median, task.tenth, task.cropped)
    assert spacing == pytest.approx(task.spacing)
    assert transpose_order(spacing) == (0, 1, 2)
    assert ("10th percentile" in why) == (task.median[0] > 3 * max(task.median[1:]))


@pytest.mark.parametrize("name", GOLDEN)
def test_full_resolution_and_2d(name: str) -> None:
    task, planned = GOLDEN[name], plan(name)
    full, plane = planned["3d_fullres"], planned["2d"]
    assert (full.patch_size, full.batch_size) == (task.patch, task.batch)
    assert (plane.patch_size, plane.batch_size) == (task.plane, task.plane_batch)
    assert plane.spacing == task.spacing[1:]
    assert plane.batch_dice
    assert full.batch_dice == (task.low_patch is not None)


@pytest.mark.parametrize("name", GOLDEN)
def test_low_resolution_and_cascade(name: str) -> None:
    task, planned = GOLDEN[name], plan(name)
    assert ("3d_lowres" in planned) == ("3d_cascade" in planned) == (task.low_patch is not None)
    if task.low_patch is None:
        return
    low, cascade, full = planned["3d_lowres"], planned["3d_cascade"], planned["3d_fullres"]
    assert low.spacing == pytest.approx(task.low_spacing, abs=6e-4)
    assert (low.patch_size, low.batch_size, low.batch_dice) == (task.low_patch, 2, False)
    assert (cascade.previous_stage, cascade.data, cascade.patch_size) == ("3d_lowres", "3d_fullres", full.patch_size)


@pytest.mark.parametrize("name", GOLDEN)
def test_normalisation(name: str) -> None:
    task = GOLDEN[name]
    for configuration in plan(name).values():
        assert configuration.normalization == ("ct" if task.channels == CT else "zscore",) * len(task.channels)
        assert configuration.mask_normalization == (task.masked,) * len(task.channels)


def test_hippocampus_network() -> None:
    assert plan("Hippocampus")["3d_fullres"].network_options == {
        "features": [32, 64, 128, 256],
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        "kernel_sizes": [[3, 3, 3]] * 4,
        "convs_per_stage": [2] * 4,
        "decoder_convs": [2] * 3,
    }


def test_anisotropic_network() -> None:
    options = plan("Prostate")["3d_fullres"].network_options
    assert options["kernel_sizes"][0] == options["kernel_sizes"][1] == [1, 3, 3]
    assert options["strides"][1] == options["strides"][2] == [1, 2, 2]
    assert max(options["features"]) == 320


@pytest.mark.parametrize(("preset", "batch"), [("resenc_m", 58), ("resenc_l", 178)])
def test_residual_presets(preset: str, batch: int) -> None:
    configuration = plan("Hippocampus", preset)["3d_fullres"]
    assert (configuration.patch_size, configuration.batch_size) == ((40, 56, 40), batch)
    assert configuration.network == "residual_unet"
    assert configuration.network_options["blocks_per_stage"] == [1, 3, 4, 6]
    assert configuration.network_options["decoder_convs"] == [1, 1, 1]


def test_larger_presets_have_larger_patches() -> None:
    voxels = [math.prod(plan("Liver", preset)["3d_fullres"].patch_size) for preset in ("resenc_m", "resenc_l", "resenc_xl")]
    assert voxels[0] < voxels[1] < voxels[2]


def test_forced_low_resolution() -> None:
    planned = plan("Hippocampus", force_lowres=True)
    assert 1.9 < math.prod(planned["3d_fullres"].median_shape) / math.prod(planned["3d_lowres"].median_shape) < 2.5
    assert planned["3d_cascade"].previous_stage == "3d_lowres"
    assert plan("Liver", force_lowres=True) == plan("Liver")
