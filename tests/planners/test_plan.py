"""Single rules of the planner: spacing, order of axes, topology, memory, and whole plans of small invented datasets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import factories
import pytest

from autoseg.planners.memory import conv_elements, label_keys
from autoseg.planners.patch import PRESETS, Setting, network_options, plan_size
from autoseg.planners.plan import describe, make_plan
from autoseg.planners.spacing import median_resampled_shape, spacing_statistics, target_spacing, transpose_order
from autoseg.planners.topology import plan_topology
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import CaseFingerprint, Dataset, Fingerprint, Intensity, Labels, Plan

INTENSITY = Intensity(mean=50.0, median=49.0, std=20.0, min=-100.0, max=300.0, percentile_00_5=-80.0, percentile_99_5=250.0)
KIDNEYS = factories.labels(kidney_left=1, kidney_right=2)


def case(name: str, shape: tuple[int, ...], spacing: tuple[float, ...], lateral: int = 2, relative: float = 1.0) -> CaseFingerprint:
    return CaseFingerprint(name, shape, spacing, relative, lateral, (10, 10))


def dataset(labels: Labels = KIDNEYS, channels: tuple[str, ...] = ("CT",)) -> Dataset:
    return Dataset("Dataset001_Test", Path("nowhere"), channels, labels, ())


def measured(*cases: CaseFingerprint, channels: int = 1) -> Fingerprint:
    return Fingerprint(cases, (INTENSITY,) * channels)


def volumes(lateral: int = 2) -> Fingerprint:
    """Ten CT-like volumes."""
    return measured(*(case(f"c{i}", (60 + i, 200, 180), (3.0, 1.0, 1.0), lateral) for i in range(10)))


def test_percentile_is_never_finer_than_the_other_axes() -> None:
    spacing, _ = target_spacing((5.0, 0.8, 0.9), (0.5, 0.8, 0.9), (40, 512, 512))
    assert spacing == pytest.approx((0.90001, 0.8, 0.9))
    assert transpose_order(spacing) == (0, 1, 2)


def test_thick_slices_with_many_voxels_keep_the_median() -> None:
    assert target_spacing((5.0, 1.0, 1.0), (2.0, 1.0, 1.0), (200, 300, 300))[0] == (5.0, 1.0, 1.0)


def test_coarsest_axis_comes_first() -> None:
    assert transpose_order((1.0, 1.0, 4.0)) == (2, 0, 1)
    assert transpose_order((1.0, 3.0)) == (0, 1)


def test_medians_over_the_cases() -> None:
    cases = [case("a", (10, 20, 20), (2.0, 1.0, 1.0)), case("b", (11, 31, 20), (4.0, 1.0, 2.0))]
    median, tenth, shape = spacing_statistics(cases)
    assert median == (3.0, 1.0, 1.5)
    assert shape == (10.5, 25.5, 20.0)
    assert tenth == pytest.approx((2.2, 1.0, 1.1))
    assert median_resampled_shape(cases, (2.0, 1.0, 1.0)) == (16.0, 25.5, 30.0)


def test_topology_halves_similar_axes_and_pads() -> None:
    topology = plan_topology((3.0, 1.0, 1.0), (20, 100, 90))
    assert topology.strides[:4] == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernel_sizes[0] == (1, 3, 3)
    assert topology.kernel_sizes[-1] == (3, 3, 3)
    assert len(topology.strides) == len(topology.kernel_sizes)
    assert topology.divisor == tuple(math.prod(stride[axis] for stride in topology.strides) for axis in range(3))
    assert all(size % unit == 0 and size >= wanted for size, unit, wanted in zip(topology.patch_size, topology.divisor, (20, 100, 90)))


def test_one_short_axis_alone_is_not_halved() -> None:
    assert plan_topology((1.0, 1.0), (11, 4)).strides == ((1, 1),)
    assert plan_topology((1.0, 1.0), (12, 4)).strides == ((1, 1), (2, 1))


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A network of two stages on an 8 x 8 patch."""

    network_options: dict
    patch_size: tuple[int, ...] = (8, 8)


def test_only_networks_without_a_topology_are_planned() -> None:
    topology = plan_topology((1, 1), (32, 32))
    assert network_options(topology, "autoseg.networks.residual_unet:ResidualUNet") == network_options(topology, "residual_unet")
    assert network_options(topology, "autoseg.networks.vgg_unet:conze_unet") == network_options(topology, "plain_unet")
    with pytest.raises(ValueError, match=r"plain_unet, residual_unet.*got 'vnet'"):
        network_options(topology, "vnet")


def test_convolution_elements_counted_by_hand() -> None:
    common = {"features": [2, 4], "strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    plain = Tiny(common | {"convs_per_stage": [2, 2], "decoder_convs": [2]})
    assert conv_elements(plain, 3) == 2 * 2 * 64 + 2 * 4 * 16 + 3 * 2 * 64 + 3 * 64
    residual = Tiny(common | {"blocks_per_stage": [1, 3], "decoder_convs": [1]})
    assert conv_elements(residual, 3) == 2 * 64 + 2 * 2 * 64 + (2 * 3 + 1) * 4 * 16 + 2 * 2 * 64 + 3 * 64


def test_label_keys_count_background_and_ignore() -> None:
    assert label_keys(KIDNEYS) == 3
    assert label_keys(dataclasses.replace(KIDNEYS, ignore=3)) == 4


def test_less_memory_gives_smaller_patches_and_too_little_is_refused() -> None:
    voxels = []
    for memory in (2.0, 8.0, 24.0):
        sizing = plan_size((3.0, 1.0, 1.0), (60, 400, 400), 1e9, Setting(PRESETS["default"], memory, 3))
        assert sizing.elements <= sizing.limit
        voxels.append(math.prod(sizing.patch_size))
    assert voxels == sorted(set(voxels))
    with pytest.raises(ValueError, match="memory target: 1e-08 GB is too little"):
        plan_size((3.0, 1.0, 1.0), (60, 400, 400), 1e9, Setting(PRESETS["default"], 1e-8, 3))


def test_plan_of_a_ct_dataset(tmp_path: Path) -> None:
    plan = make_plan(dataset(), volumes())
    full, plane = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert full.spacing == (3.0, 1.0, 1.0)
    assert plane.spacing == (1.0, 1.0)
    assert full.median_shape[1:] == plane.median_shape == (200, 180)
    assert full.normalization == ("ct",)
    assert full.mask_normalization == (False,)
    assert full.mirroring.lateral_axis == 2
    assert full.mirroring.pairs == ((0, 1),)
    assert full.mirroring.axes == (0, 1, 2)
    assert plane.mirroring.lateral_axis == 1
    assert plane.mirroring.axes == (0, 1)
    assert plan.memory_gb == 8
    assert plan.preset == "default"
    assert full.data == "3d_fullres"
    assert plan.lateral_axis == 2
    write_json(tmp_path / "plan.json", plan)
    assert read_json(tmp_path / "plan.json", Plan) == plan


def test_slices_seen_from_the_side_flip_freely() -> None:
    plan = make_plan(dataset(), volumes(lateral=0))
    plane = plan.configurations["2d"].mirroring
    assert plane.axes == (0, 1)
    assert plane.lateral_axis is None
    assert plane.pairs == ()
    assert plan.configurations["3d_fullres"].mirroring.lateral_axis == 0


def test_cases_that_disagree_about_left_and_right_are_not_flipped() -> None:
    cases = [*volumes().cases[:5], *(dataclasses.replace(one, lateral_axis=1) for one in volumes().cases[5:])]
    plan = make_plan(dataset(), measured(*cases))
    assert all(configuration.mirroring.axes == () for configuration in plan.configurations.values())
    assert plan.lateral_axis is None


def test_lateral_axis_is_transposed() -> None:
    cases = [case(f"c{i}", (200, 180, 60), (1.0, 1.0, 3.0), lateral=1) for i in range(4)]
    plan = make_plan(dataset(), measured(*cases))
    assert plan.transpose == (2, 0, 1)
    full = plan.configurations["3d_fullres"]
    assert full.spacing == (3.0, 1.0, 1.0)
    assert full.median_shape == (60, 200, 180)
    assert full.mirroring.lateral_axis == 2


def test_cases_that_lie_otherwise_are_planned_as_if_turned() -> None:
    lying = [dataclasses.replace(one, orientation="SPL") for one in volumes().cases]
    plan = make_plan(dataset(), measured(*lying))
    assert (plan.orientation, plan.configurations, plan.transpose) == ("SPL", make_plan(dataset(), volumes()).configurations, (0, 1, 2))
    for index in (1, 4, 7):
        (z, y, x), spacing = lying[index].shape, lying[index].spacing
        changes = {"shape": (x, z, y), "spacing": (spacing[2], spacing[0], spacing[1]), "lateral_axis": 0, "orientation": "RSA"}
        lying[index] = dataclasses.replace(lying[index], **changes)
    lying[2] = dataclasses.replace(lying[2], orientation="")
    mixed = make_plan(dataset(), measured(*lying))
    assert (mixed.orientation, mixed.transpose, mixed.configurations) == (plan.orientation, plan.transpose, plan.configurations)
    why = {row.why for row in mixed.reasons if row.what == "orientation"}
    assert why == {"as 6 of 10 cases lie; 3 that lie otherwise are turned; 1 oblique or of unknown orientation are taken as they lie"}
    assert make_plan(dataset(), volumes()).orientation == ""


def test_flat_images_are_planned_in_two_dimensions() -> None:
    cases = [CaseFingerprint(f"p{i}", (300, 400), (0.5, 0.5), 0.5, 1, (9,)) for i in range(6)]
    labels = factories.labels(lesion=1)
    plan = make_plan(dataset(labels, ("R", "G", "B")), measured(*cases, channels=3), force_lowres=True)
    assert list(plan.configurations) == ["2d"]
    assert plan.transpose == (0, 1)
    plane = plan.configurations["2d"]
    assert plane.spacing == (0.5, 0.5)
    assert plane.median_shape == (300, 400)
    assert len(plane.patch_size) == 2
    assert plane.normalization == ("zscore",) * 3
    assert plane.mask_normalization == (True,) * 3


def test_volumes_of_one_slice_have_no_3d_plan() -> None:
    cases = [case(f"c{i}", (1, 128, 128), (8.0, 1.0, 1.0)) for i in range(3)]
    assert list(make_plan(dataset(), measured(*cases)).configurations) == ["2d"]


def test_options() -> None:
    plan = make_plan(dataset(), volumes(), preset="resenc_l", spacing=(2.0, 2.0, 2.0), force_lowres=True)
    assert plan.memory_gb == 24
    assert plan.configurations["3d_fullres"].spacing == (2.0, 2.0, 2.0)
    assert plan.configurations["3d_fullres"].network == "residual_unet"
    assert {"3d_lowres", "3d_cascade"} <= set(plan.configurations)
    small = make_plan(dataset(), volumes(), memory_gb=2)
    large = make_plan(dataset(), volumes())
    assert math.prod(small.configurations["3d_fullres"].patch_size) < math.prod(large.configurations["3d_fullres"].patch_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "resenc_x"}, "Did you mean 'resenc_"),
        ({"memory_gb": 0}, "expected a positive number of GB, got 0"),
        ({"memory_gb": float("nan")}, "expected a positive number of GB, got nan"),
        ({"spacing": (1.0, 1.0)}, "expected 3 positive numbers in mm"),
        ({"spacing": (1.0, 0.0, 1.0)}, "expected 3 positive numbers in mm"),
    ],
)
def test_impossible_wishes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(dataset(), volumes(), **options)


def test_mixed_dimensions_are_refused() -> None:
    flat = CaseFingerprint("flat", (10, 10), (1.0, 1.0), 1.0, 1, (1, 1))
    with pytest.raises(ValueError, match="found others in flat"):
        make_plan(dataset(), measured(*volumes().cases, flat))
    with pytest.raises(ValueError, match="at least one readable labelled case"):
        make_plan(dataset(), measured())


def test_every_choice_has_a_reason_in_the_table() -> None:
    plan = make_plan(dataset(), volumes())
    table = describe(plan, width=110)
    assert all(len(line) <= 110 for line in table.splitlines())
    for configuration in plan.configurations.values():
        chosen = {row.what for row in plan.reasons if row.configuration == configuration.name}
        assert ({"patch", "batch", "features"} if configuration.slices == 1 else {"network"}) <= chosen
        assert " x ".join(str(size) for size in configuration.patch_size) in table
    assert {"spacing", "axes", "preset", "normalisation", "flips"} <= {row.what for row in plan.reasons}
    assert all(row.why for row in plan.reasons)
