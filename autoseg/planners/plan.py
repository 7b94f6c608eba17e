"""Makes the plan of a dataset from its fingerprint: all configurations, with the reasons."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.labels import plan_mirroring
from ..preprocessing.normalization import default_scheme
from ..runtime.registry import lookup
from ..runtime.shown_text import in_one_line
from ..runtime.text_table import shown_width
from ..schema import Configuration, Dataset, Fingerprint, Mirroring, Plan, Reason
from .memory import label_keys
from .patch import PRESETS, Preset, Setting, Sizing, plan_size
from .spacing import common_orientation, in_orientation, median_resampled_shape, spacing_statistics, target_spacing, transpose_order

LOWRES_BELOW = 0.25
"""A patch smaller than this share of the median case sees too little context: a low-resolution stage is added."""
LOWRES_STEP = 1.03
LOWRES_WORTH = 2.0
"""A low-resolution stage must have at least this many times fewer voxels to be worth training."""
MASK_BELOW = 0.75
"""Median share of the image left after cropping to non-zero below which intensities are normalised inside the mask only."""

SLICES_SEEN = 3
SLICES = Reason(
    "2.5d", "network", "as 2d", f"sees {SLICES_SEEN} slices as channels, segments the middle one; trained only if named: -c 2.5d"
)
"""Reason of ``2.5d``."""


@dataclass(frozen=True, kw_only=True)
class PlanningInput:
    """Input of the planning rules; axes are in transposed order.

    Attributes:
        n_cases: Training cases.
        label_keys: See `memory.label_keys`.
        channels: They choose the normalisation.
        spacing: Target at full resolution, mm; two numbers for 2D images.
        shape: Median over the cases after resampling to `spacing`, voxels (halves are possible).
        relative_size: Median share of the voxels left after cropping to non-zero.
    """

    n_cases: int
    label_keys: int
    channels: tuple[str, ...]
    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    relative_size: float


@dataclass(frozen=True)
class _Resolution:
    """One candidate resolution and what was planned for it."""

    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    voxels: float
    sizing: Sizing


def make_plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    *,
    preset: str = "default",
    memory_gb: float | None = None,
    spacing: Sequence[float] | str | None = None,
    force_lowres: bool = False,
) -> Plan:
    """Plans all configurations of a dataset.

    The rules are nnU-Net's (Isensee et al., Nature Methods 2021; residual presets: Isensee et al., MICCAI 2024).

    Args:
        dataset: As loaded.
        fingerprint: Of it.
        preset: Name in `patch.PRESETS`.
        memory_gb: Memory target, GB; None for the preset's own.
        spacing: Target spacing in mm instead of the rule's, array order of the files; or a multiple of the rule's, ``x2``.
        force_lowres: Plan ``3d_lowres`` and the cascade even where they are not worth it.

    Raises:
        ValueError: No case, cases of two and three dimensions, an unknown preset, or an impossible memory target or spacing.
    """
    family = lookup(PRESETS, preset, "preset")
    memory = _memory_target(family.gigabytes if memory_gb is None else float(memory_gb))
    check_dimensions(dataset, fingerprint)
    orientation, turned = _choose_orientation(fingerprint)
    fingerprint = replace(fingerprint, cases=tuple(in_orientation(case, orientation) for case in fingerprint.cases))
    target, why = _choose_spacing(fingerprint, spacing)
    order = transpose_order(target)
    inputs = _planning_input(dataset, fingerprint, target)
    planned, reasons = plan_configurations(inputs, family, memory, force_lowres=force_lowres)
    sides = {case.lateral_axis for case in fingerprint.cases}
    lateral = order.index(sides.pop()) if len(sides) == 1 else None
    configurations, flips = with_mirroring(planned, dataset, lateral, len(order))
    general = (
        *turned,
        Reason("all", "spacing", _numbers(target), why),
        Reason("all", "axes", _numbers(order, ", "), "coarsest axis first" if len(order) > 2 else "2D images stay as they are"),
        Reason("all", "preset", preset, f"{family.network} in {memory:g} GB"),
        *_normalization_reasons(inputs),
        *flips,
    )
    return Plan(
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels,
        file_ending=dataset.file_ending,
        transpose=order,
        intensities=fingerprint.intensities,
        configurations=configurations,
        reasons=general + reasons,
        preset=preset,
        memory_gb=memory,
        orientation=orientation,
        lateral_axis=lateral,
        has_spacing=fingerprint.has_spacing,
    )


def _memory_target(gigabytes: float) -> float:
    if not gigabytes > 0:
        raise ValueError(f"memory target: expected a positive number of GB, got {gigabytes:g}")
    return gigabytes


def check_dimensions(dataset: Dataset, fingerprint: Fingerprint) -> None:
    """Raises a ValueError where there is no case, or where not all have equally many axes."""
    if not fingerprint.cases:
        raise ValueError(f"{dataset.name}: expected at least one readable labelled case to plan for, found none")
    first = fingerprint.cases[0]
    odd = [case.name for case in fingerprint.cases if len(case.shape) != len(first.shape)]
    if odd:
        found = ", ".join(odd[:5]) + (" ..." if len(odd) > 5 else "")
        expected = f"as many axes as {first.name} ({len(first.shape)})"
        raise ValueError(f"{dataset.name}: expected all images to have {expected}, found others in {found}")


def _choose_orientation(fingerprint: Fingerprint) -> tuple[str, tuple[Reason, ...]]:
    """The orientation to which volumes are turned (empty: none is), and why."""
    orientation = common_orientation(fingerprint.cases)
    if not orientation:
        return "", ()
    each = [case.orientation for case in fingerprint.cases]
    total, same, unknown = len(each), each.count(orientation), each.count("")
    why = "as all cases lie; new images that lie otherwise are turned" if same == total else f"as {same} of {total} cases lie"
    if same + unknown < total:
        why += f"; {total - same - unknown} that lie otherwise are turned"
    if unknown:
        why += f"; {unknown} oblique or of unknown orientation are taken as they lie"
    return orientation, (Reason("all", "orientation", orientation, why),)


def with_one_grid(plan: Plan) -> Plan:
    """The plan with both stages of the cascade on the grid of ``3d_fullres`` (Roth et al., Comput. Med. Imaging Graph. 66, 2018).

    Raises:
        ValueError: The images have one slice.
    """
    full = plan.configurations.get("3d_fullres")
    if full is None:
        raise ValueError(f"--one-grid: expected volumes for a cascade, found images of one slice in {plan.dataset}")
    last = {name: one for name, one in plan.configurations.items() if name == "2.5d"}
    first, second = replace(full, name="3d_lowres"), replace(full, name="3d_cascade", previous_stage="3d_lowres")
    configurations = {name: one for name, one in plan.configurations.items() if name not in last}
    configurations |= {"3d_lowres": first, "3d_cascade": second} | last
    reasons = [reason for reason in plan.reasons if reason.configuration not in ("3d_lowres", "3d_cascade")]
    asked = Reason(
        "3d_lowres", "spacing", _numbers(full.spacing), "as you asked: both stages of the cascade on one grid, that of 3d_fullres"
    )
    return replace(plan, configurations=configurations, reasons=(*reasons, asked))


def _choose_spacing(fingerprint: Fingerprint, requested: Sequence[float] | str | None) -> tuple[tuple[float, ...], str]:
    """Target spacing in file order, and why."""
    dim = len(fingerprint.cases[0].shape)
    if requested is None:
        return target_spacing(*spacing_statistics(fingerprint.cases))
    if isinstance(requested, str):
        spacing, why = target_spacing(*spacing_statistics(fingerprint.cases))
        factor = multiple_of(requested)
        return tuple(factor * size for size in spacing), f"{factor:g} times the {why}, as you asked"
    if len(requested) != dim or not all(np.isfinite(value) and value > 0 for value in requested):
        volumes = "; the images are 2D, and a spacing of three numbers (also a preset's) is for volumes" if len(requested) > dim else ""
        raise ValueError(f"spacing: expected {dim} positive numbers in mm, got {tuple(requested)}{volumes}")
    return tuple(float(value) for value in requested), "as you asked"


def multiple_of(text: str) -> float:
    """The factor in ``x2``; a ValueError where it is no positive number."""
    try:
        factor = float(text.removeprefix("x")) if text.startswith("x") else math.nan
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise ValueError(f"spacing: expected numbers in mm, or a multiple of the planned spacing like x2, got {text!r}")
    return factor


def _planning_input(dataset: Dataset, fingerprint: Fingerprint, target: Sequence[float]) -> PlanningInput:
    order = transpose_order(target)
    shape = median_resampled_shape(fingerprint.cases, target)
    return PlanningInput(
        n_cases=len(fingerprint.cases),
        label_keys=label_keys(dataset.labels),
        channels=dataset.channels,
        spacing=tuple(target[axis] for axis in order),
        shape=tuple(shape[axis] for axis in order),
        relative_size=float(np.median([case.relative_size for case in fingerprint.cases])),
    )


def plan_configurations(
    inputs: PlanningInput, preset: Preset, memory_gb: float, *, force_lowres: bool = False
) -> tuple[dict[str, Configuration], tuple[Reason, ...]]:
    """The configurations of a dataset, mirrored along every axis, and one reason a choice; options: see `make_plan`.

    Returns:
        Configurations by name in the order ``2d``, ``3d_fullres``, ``3d_lowres``, ``3d_cascade``, ``2.5d``, and the reasons.
    """
    setting, voxels = Setting(preset, memory_gb, inputs.label_keys), math.prod(inputs.shape)
    plane = _resolution(inputs.spacing[-2:], inputs.shape[-2:], voxels, inputs.n_cases, setting)
    configurations = {"2d": _configuration("2d", plane, inputs, setting, batch_dice=True)}
    reasons = _size_reasons("2d", plane.sizing, setting)
    if len(inputs.spacing) == 2 or inputs.shape[0] == 1:
        return configurations, (*reasons, Reason("3d", "left out", "", "the images have one slice"))
    full = _resolution(inputs.spacing, inputs.shape, voxels, inputs.n_cases, setting)
    low, why = _plan_lowres(full, inputs.n_cases, setting, force=force_lowres)
    sliced = {"2.5d": replace(configurations["2d"], name="2.5d", slices=SLICES_SEEN)}  # the last one
    configurations["3d_fullres"] = _configuration("3d_fullres", full, inputs, setting, batch_dice=low is not None)
    reasons += _size_reasons("3d_fullres", full.sizing, setting)
    if low is None:
        return configurations | sliced, (*reasons, Reason("3d_lowres", "left out", "", why), SLICES)
    configurations["3d_lowres"] = _configuration("3d_lowres", low, inputs, setting, batch_dice=False)
    configurations["3d_cascade"] = replace(configurations["3d_fullres"], name="3d_cascade", previous_stage="3d_lowres")
    reasons += (Reason("3d_lowres", "spacing", _numbers(low.spacing), why), *_size_reasons("3d_lowres", low.sizing, setting))
    cascade = Reason("3d_cascade", "network", "as 3d_fullres", "it refines the segmentation of 3d_lowres, an extra input")
    return configurations | sliced, (*reasons, cascade, SLICES)


def _resolution(spacing: Sequence[float], shape: Sequence[float], voxels: float, n_cases: int, setting: Setting) -> _Resolution:
    return _Resolution(tuple(spacing), tuple(shape), voxels, plan_size(spacing, shape, voxels * n_cases, setting))


def _plan_lowres(full: _Resolution, n_cases: int, setting: Setting, *, force: bool) -> tuple[_Resolution | None, str]:
    """The finest coarser resolution at which a patch sees enough of a case, or None, and why."""
    share = math.prod(full.sizing.patch_size) / full.voxels
    needed = share < LOWRES_BELOW
    if not (needed or force):
        return None, f"a patch of 3d_fullres already sees {min(share, 1):.0%} of the median case"
    low, sees = full, share
    while sees < LOWRES_BELOW or (force and full.voxels / low.voxels < LOWRES_WORTH):
        spacing = _coarser(low.spacing)
        exact = [old / new * size for old, new, size in zip(full.spacing, spacing, full.shape, strict=True)]
        low = _resolution(spacing, [round(size) for size in exact], math.prod(exact), n_cases, setting)
        sees = math.prod(low.sizing.patch_size) / low.voxels
    fewer = full.voxels / low.voxels
    if fewer < LOWRES_WORTH:
        return None, f"it would have only {fewer:.2f} times fewer voxels than 3d_fullres"
    if not needed:
        return low, f"as you asked: {fewer:.1f} times fewer voxels than 3d_fullres, whose patch already sees {min(share, 1):.0%} of a case"
    return low, f"a patch of 3d_fullres sees {share:.0%} of the median case, here {sees:.0%}"


def _coarser(spacing: Sequence[float]) -> tuple[float, ...]:
    """One step coarser: first only the axes that are more than twice as fine as the coarsest, then all."""
    fine = [max(spacing) / value > 2 for value in spacing]
    grows = fine if any(fine) else [True] * len(fine)
    return tuple(value * LOWRES_STEP if grow else value for value, grow in zip(spacing, grows, strict=True))


def _configuration(name: str, resolution: _Resolution, inputs: PlanningInput, setting: Setting, *, batch_dice: bool) -> Configuration:
    dim, sizing = len(resolution.spacing), resolution.sizing
    schemes = tuple(default_scheme(channel) for channel in inputs.channels)
    return Configuration(
        name=name,
        dim=dim,
        spacing=resolution.spacing,
        median_shape=tuple(round(size) for size in resolution.shape),
        patch_size=sizing.patch_size,
        batch_size=sizing.batch_size,
        normalization=schemes,
        mask_normalization=tuple(scheme == "zscore" and inputs.relative_size < MASK_BELOW for scheme in schemes),
        network=sizing.network,
        network_options=sizing.network_options,
        batch_dice=batch_dice,
        mirroring=Mirroring(axes=tuple(range(dim))),
        data=name,
    )


def with_mirroring(
    planned: dict[str, Configuration], dataset: Dataset, lateral: int | None, axes: int
) -> tuple[dict[str, Configuration], list[Reason]]:
    """The configurations with the flips that keep left and right apart, and the reasons (one per number of axes of the patch)."""
    flips: dict[int, tuple[Mirroring, str]] = {}
    for dim in sorted({configuration.dim for configuration in planned.values()}):
        skipped = axes - dim  # a 2D patch of a volume lacks the first axis; if that is the lateral one, this gives -1
        flips[dim] = plan_mirroring(dataset.labels, dim, None if lateral is None else lateral - skipped)
    configurations = {name: replace(one, mirroring=flips[one.dim][0]) for name, one in planned.items()}
    reasons = [Reason(f"all {dim}d", "flips", _numbers(mirroring.axes, ", ") or "none", why) for dim, (mirroring, why) in flips.items()]
    return configurations, reasons


def _normalization_reasons(inputs: PlanningInput) -> list[Reason]:
    reasons = []
    for channel in inputs.channels:
        scheme, why = default_scheme(channel), f"channel {channel!r}"
        if scheme == "zscore" and inputs.relative_size < MASK_BELOW:
            why += f"; inside the non-zero mask only, as cropping leaves {inputs.relative_size:.0%} of the median image"
        reasons.append(Reason("all", "normalisation", scheme, why))
    return reasons


def _size_reasons(name: str, sizing: Sizing, setting: Setting) -> tuple[Reason, ...]:
    share = sizing.elements / sizing.limit
    patch = f"largest with the aspect of the median case that fits {setting.memory_gb:g} GB; multiple of {_numbers(sizing.divisor)}"
    if sizing.capped:
        batch = f"a batch holds at most {setting.preset.coverage:.0%} of the dataset's voxels (but at least 2 patches)"
    else:
        batch = f"fills the memory target (one patch takes {share:.1%} of the reference batch's memory)"
    features = sizing.network_options["features"]
    return (
        Reason(name, "patch", _numbers(sizing.patch_size), patch),
        Reason(name, "batch", str(sizing.batch_size), batch),
        Reason(name, "features", _numbers(features, ", "), f"{len(features)} stages: halved until every axis is short or too coarse"),
    )


def _numbers(values: Sequence[float], separator: str = " x ") -> str:
    return separator.join(f"{value:.4g}" for value in values)


def describe(plan: Plan, *, width: int | None = None) -> str:
    """The plan's choices with their reasons for the terminal, configuration by configuration, at most `width` characters a line."""
    width, size = width or shown_width(), max((len(row.what) for row in plan.reasons), default=0)
    lines: list[str] = []
    for configuration in dict.fromkeys(row.configuration for row in plan.reasons):
        lines.append(in_one_line(f"{configuration} configurations" if configuration.startswith("all") else configuration))
        for row in (one for one in plan.reasons if one.configuration == configuration):
            text = in_one_line(f"{row.value}: {row.why}" if row.value else row.why)
            indent = " " * (size + 4)
            lines += textwrap.wrap(text, width, initial_indent=f"  {row.what:<{size}}  ", subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)
