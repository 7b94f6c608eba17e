"""2D configurations whose slices lie in other planes than those of ``2d``: ``2d_coronal``, ``2d_sagittal``; planned where they are named.

Three of them and a majority vote are the method of Zhou et al. (LABELS workshop at MICCAI 2016), with which Roth et al. (Computerized
Medical Imaging and Graphics 66, 2018) compare theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..data.labels import plan_mirroring
from ..runtime.registry import lookup
from ..schema import Configuration, Plan, Reason
from .memory import label_keys
from .patch import PRESETS, Setting, plan_size

PREFIX = "2d_"

ACROSS = {"S": "axial", "I": "axial", "P": "coronal", "A": "coronal", "L": "sagittal", "R": "sagittal"}
"""Side of the patient towards which slices follow each other -> the plane of the slices."""


def with_planes(plan: Plan, names: Sequence[str] | None, *, cases: int) -> Plan:
    """The plan with those configurations of slices in other planes that are among `names`.

    Args:
        names: Of configurations.
        cases: Number of them, which limits the batch.

    Raises:
        ValueError: The images are no volumes or lie nobody knows how, or there is no such plane beside that of ``2d``.
    """
    for name in names or ():
        if name.startswith(PREFIX) and name not in plan.configurations:
            one = _plane(plan, name, cases)
            why = f"slices across axis {one.slice_axis} of the others, with their target spacing; planned only if named: -c {name}"
            reason = Reason(name, "patch", " x ".join(map(str, one.patch_size)), why)
            plan = replace(plan, configurations={**plan.configurations, name: one}, reasons=(*plan.reasons, reason))
    return plan


def _plane(plan: Plan, name: str, cases: int) -> Configuration:
    volume = plan.configurations.get("3d_fullres")
    if volume is None or not plan.orientation:
        lacking = "volumes, found 2D images" if volume is None else "the orientation of most volumes, found none in their headers"
        raise ValueError(f"{name}: needs {lacking}; take 2d")
    planes = [ACROSS[plan.orientation[axis]] for axis in plan.transpose]
    wanted = name.removeprefix(PREFIX)
    if wanted not in planes[1:]:
        others = ", ".join(PREFIX + plane for plane in planes[1:])
        raise ValueError(f"{name}: expected {others} beside 2d, whose slices are {planes[0]}")
    axis = planes.index(wanted)
    spacing = tuple(size for place, size in enumerate(volume.spacing) if place != axis)
    shape = tuple(size for place, size in enumerate(volume.median_shape) if place != axis)
    setting = Setting(lookup(PRESETS, plan.preset, "preset"), plan.memory_gb, label_keys(plan.labels))
    sizing = plan_size(spacing, shape, math.prod(volume.median_shape) * cases, setting)
    one = replace(
        plan.configurations["2d"],
        name=name,
        spacing=spacing,
        median_shape=shape,
        patch_size=sizing.patch_size,
        batch_size=sizing.batch_size,
        network=sizing.network,
        network_options=sizing.network_options,
        data=name,
        slice_axis=axis,
    )
    return replace(one, mirroring=plan_mirroring(plan.labels, one.dim, plan.lateral_in(one))[0])
