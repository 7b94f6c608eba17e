"""Single rules of the planner: spacing, order of axes, topology, memory, and whole plans of small invented datasets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import factories
import pytest
import torch

from autoseg.networks import build_network
from autoseg.planners.configurations import selected_configurations
from autoseg.planners.memory import conv_elements, label_keys
from autoseg.planners.patch import PRESETS, Setting, Sizing, network_options, plan_size
from autoseg.planners.plan import describe, make_plan, with_one_grid
from autoseg.planners.spacing import median_resampled_shape, spacing_statistics, target_spacing, transpose_order
from autoseg.planners.topology import plan_topology
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import CaseFingerprint, Dataset, Fingerprint, Intensity, Labels, Mirroring, Plan

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


@pytest.mark.parametrize(
    ("median", "tenth", "shape", "expected"),
    [
        ((5.0, 0.8, 0.9), (0.5, 0.8, 0.9), (40, 512, 512), (0.90001, 0.8, 0.9)),
        ((5.0, 1.0, 1.0), (2.0, 1.0, 1.0), (200, 300, 300), (5.0, 1.0, 1.0)),
    ],
    ids=["the percentile is never finer than the other axes", "thick slices with many voxels keep the median"],
)
def test_target_spacing(median: tuple, tenth: tuple, shape: tuple, expected: tuple) -> None:
    assert target_spacing(median, tenth, shape)[0] == pytest.approx(expected)


def test_coarsest_axis_comes_first() -> None:
    orders = [transpose_order(spacing) for spacing in ((1.0, 1.0, 4.0), (0.90001, 0.8, 0.9), (1.0, 3.0))]
    assert orders == [(2, 0, 1), (0, 1, 2), (0, 1)]


def test_medians_over_the_cases() -> None:
    cases = [case("a", (10, 20, 20), (2.0, 1.0, 1.0)), case("b", (11, 31, 20), (4.0, 1.0, 2.0))]
    assert spacing_statistics(cases) == ((3.0, 1.0, 1.5), pytest.approx((2.2, 1.0, 1.1)), (10.5, 25.5, 20.0))
    assert median_resampled_shape(cases, (2.0, 1.0, 1.0)) == (16.0, 25.5, 30.0)


def test_topology_halves_similar_axes_and_pads() -> None:
    topology = plan_topology((3.0, 1.0, 1.0), (20, 100, 90))
    assert topology.strides[:4] == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert (topology.kernel_sizes[0], topology.kernel_sizes[-1]) == ((1, 3, 3), (3, 3, 3))
    assert len(topology.strides) == len(topology.kernel_sizes)
    assert topology.divisor == tuple(math.prod(stride[axis] for stride in topology.strides) for axis in range(3))
    assert all(size % unit == 0 and size >= wanted for size, unit, wanted in zip(topology.patch_size, topology.divisor, (20, 100, 90)))


def test_one_short_axis_alone_is_not_halved() -> None:
    assert plan_topology((1.0, 1.0, 1.0), (16, 11, 4)).strides == ((1, 1, 1), (2, 2, 1)), "11 alone, as 16 is 8 by then"
    assert plan_topology((1.0, 1.0), (12, 4)).strides == ((1, 1), (2, 1))


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (3, 11), (1, 1, 1), (7, 7, 7), (8, 8, 8), (3, 200, 200), (1, 1, 9)])
@pytest.mark.parametrize("preset", ["plain_unet", "residual_unet"])
def test_images_of_a_few_voxels_are_planned_with_two_stages(shape: tuple[int, ...], preset: str) -> None:
    for spacing in ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 1.0, 5.0)):
        topology = plan_topology(spacing[-len(shape) :], shape)
        assert len(topology.strides) >= 2
        options = network_options(topology, preset) | {"features": [4] * len(topology.strides)}
        network = build_network(preset, dim=len(shape), in_channels=1, out_channels=3, **options)
        assert network(torch.zeros(1, 1, *topology.patch_size))[0].shape[1:] == (3, *topology.patch_size)


def test_only_networks_without_a_topology_are_planned() -> None:
    topology = plan_topology((1, 1), (32, 32))
    assert network_options(topology, "autoseg.networks.residual_unet:ResidualUNet") == network_options(topology, "residual_unet")
    assert network_options(topology, "autoseg.networks.vgg_unet:conze_unet") == network_options(topology, "plain_unet")
    with pytest.raises(ValueError, match=r"plain_unet, residual_unet.*got 'vnet'"):
        network_options(topology, "vnet")


def test_convolution_elements_counted_by_hand() -> None:
    common = {"features": [2, 4], "strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    plain = common | {"convs_per_stage": [2, 2], "decoder_convs": [2]}
    assert conv_elements(factories.make_configuration(2, network_options=plain), 3) == 2 * 2 * 64 + 2 * 4 * 16 + 3 * 2 * 64 + 3 * 64
    residual = common | {"blocks_per_stage": [1, 3], "decoder_convs": [1]}
    assert (
        conv_elements(factories.make_configuration(2, network_options=residual), 3)
        == 2 * 64 + 2 * 2 * 64 + (2 * 3 + 1) * 4 * 16 + 2 * 2 * 64 + 3 * 64
    )


def test_label_keys_count_background_and_ignore() -> None:
    assert label_keys(KIDNEYS) == 3
    assert label_keys(dataclasses.replace(KIDNEYS, ignore=3)) == 4


def test_less_memory_gives_smaller_patches_and_too_little_is_refused() -> None:
    def plan(memory: float) -> Sizing:
        return plan_size((3.0, 1.0, 1.0), (60, 400, 400), 1e9, Setting(PRESETS["default"], memory, 3))

    sizes = [plan(memory) for memory in (2.0, 8.0, 24.0)]
    assert all(sizing.elements <= sizing.limit for sizing in sizes)
    voxels = [math.prod(sizing.patch_size) for sizing in sizes]
    assert voxels == sorted(set(voxels))
    with pytest.raises(ValueError, match="memory target: 1e-08 GB"):
        plan(1e-8)


def test_plan_of_a_ct_dataset(tmp_path: Path) -> None:
    plan = make_plan(dataset(), volumes())
    full, plane = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert (full.spacing, plane.spacing) == ((3.0, 1.0, 1.0), (1.0, 1.0))
    assert full.median_shape[1:] == plane.median_shape == (200, 180)
    assert (full.normalization, full.mask_normalization, full.data) == (("ct",), (False,), "3d_fullres")
    assert full.mirroring == Mirroring((0, 1, 2), 2, ((0, 1),))
    assert plane.mirroring == Mirroring((0, 1), 1, ((0, 1),))
    assert (plan.memory_gb, plan.preset, plan.lateral_axis) == (8, "default", 2)
    write_json(tmp_path / "plan.json", plan)
    assert read_json(tmp_path / "plan.json", Plan) == plan


def test_slices_seen_from_the_side_flip_freely() -> None:
    plan = make_plan(dataset(), volumes(lateral=0))
    assert plan.configurations["2d"].mirroring == Mirroring((0, 1))
    assert plan.configurations["3d_fullres"].mirroring.lateral_axis == 0


def test_cases_that_disagree_about_left_and_right_are_not_flipped() -> None:
    cases = [*volumes().cases[:5], *(dataclasses.replace(one, lateral_axis=1) for one in volumes().cases[5:])]
    plan = make_plan(dataset(), measured(*cases))
    assert all(configuration.mirroring.axes == () for configuration in plan.configurations.values())
    assert plan.lateral_axis is None


def test_lateral_axis_is_transposed() -> None:
    cases = [case(f"c{i}", (200, 180, 60), (1.0, 1.0, 3.0), lateral=1) for i in range(4)]
    plan = make_plan(dataset(), measured(*cases))
    full = plan.configurations["3d_fullres"]
    assert (plan.transpose, full.spacing, full.median_shape) == ((2, 0, 1), (3.0, 1.0, 1.0), (60, 200, 180))
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
    plane = plan.configurations["2d"]
    assert (plan.transpose, plane.spacing, plane.median_shape, len(plane.patch_size)) == ((0, 1), (0.5, 0.5), (300, 400), 2)
    assert (plane.normalization, plane.mask_normalization) == (("zscore",) * 3, (True,) * 3)


def test_volumes_of_one_slice_have_no_3d_plan() -> None:
    cases = [case(f"c{i}", (1, 128, 128), (8.0, 1.0, 1.0)) for i in range(3)]
    assert list(make_plan(dataset(), measured(*cases)).configurations) == ["2d"]


def test_options() -> None:
    plan = make_plan(dataset(), volumes(), preset="resenc_l", spacing=(2.0, 2.0, 2.0), force_lowres=True)
    full = plan.configurations["3d_fullres"]
    assert (plan.memory_gb, full.spacing, full.network) == (24, (2.0, 2.0, 2.0), "residual_unet")
    assert {"3d_lowres", "3d_cascade"} <= set(plan.configurations)
    small, large = (make_plan(dataset(), volumes(), memory_gb=memory).configurations["3d_fullres"] for memory in (2, None))
    assert math.prod(small.patch_size) < math.prod(large.patch_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "resenc_x"}, "Did you mean 'resenc_"),
        ({"memory_gb": 0}, "got 0"),
        ({"memory_gb": float("nan")}, "got nan"),
        ({"spacing": (1.0, 1.0)}, "3 positive numbers in mm"),
        ({"spacing": (1.0, 0.0, 1.0)}, "3 positive numbers in mm"),
    ],
)
def test_impossible_wishes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(dataset(), volumes(), **options)


def test_what_is_for_volumes_is_refused_of_2d_images_with_the_reason() -> None:
    """As a preset of volumes asks it: three numbers of spacing, and 3d_fullres."""
    flat = measured(*(CaseFingerprint(f"p{i}", (300, 400), (0.5, 0.5), 0.5, 1, (9,)) for i in range(6)), channels=3)
    pictures = dataset(factories.labels(lesion=1), ("R", "G", "B"))
    with pytest.raises(ValueError, match="the images are 2D, and a spacing of three numbers .* is for volumes"):
        make_plan(pictures, flat, spacing=(2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="3D configurations, also those of a preset, need volumes; the images of .* are 2D"):
        selected_configurations(["3d_fullres"], make_plan(pictures, flat))


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


def test_a_multiple_of_the_planned_spacing() -> None:
    planned, twice = (make_plan(dataset(), volumes(), spacing=spacing).configurations["3d_fullres"] for spacing in (None, "x2"))
    assert twice.spacing == tuple(2 * size for size in planned.spacing) == (6.0, 2.0, 2.0)
    assert twice.median_shape == tuple(round(size / 2) for size in planned.median_shape)
    plan = make_plan(dataset(), volumes(), spacing="x1.5")
    assert any(reason.what == "spacing" and "1.5 times the median over the cases, as you asked" in reason.why for reason in plan.reasons)
    for wrong in ("2", "xtwo", "x0", "x-1", "xinf"):
        with pytest.raises(ValueError, match="a multiple of the planned spacing like x2"):
            make_plan(dataset(), volumes(), spacing=wrong)


@pytest.mark.parametrize("forced", [False, True], ids=["without a coarse stage", "with one"])
def test_both_stages_of_a_cascade_on_one_grid(forced: bool) -> None:
    plan = with_one_grid(make_plan(dataset(), volumes(), force_lowres=forced))
    full, first, second = (plan.configurations[name] for name in ("3d_fullres", "3d_lowres", "3d_cascade"))
    assert dataclasses.replace(first, name="3d_fullres") == full
    assert dataclasses.replace(second, name="3d_fullres", previous_stage=None) == full
    assert (second.previous_stage, first.data, second.data) == ("3d_lowres", "3d_fullres", "3d_fullres")
    assert list(plan.configurations) == ["2d", "3d_fullres", "3d_lowres", "3d_cascade", "2.5d"]
    rows = [reason for reason in plan.reasons if reason.configuration in ("3d_lowres", "3d_cascade")]
    assert [row.why for row in rows] == ["as you asked: both stages of the cascade on one grid, that of 3d_fullres"]
    with pytest.raises(ValueError, match="expected volumes for a cascade"):
        with_one_grid(dataclasses.replace(plan, configurations={"2d": plan.configurations["2d"]}))
