"""Selection of a plan's configurations."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.registry import unknown_name_error
from ..schema import Plan

PLANNED_ON_REQUEST = {
    "3d_lowres": "--force-lowres",
    "3d_cascade": "--force-lowres",
    "2d_coronal": "-c 2d 2d_coronal",
    "2d_sagittal": "-c 2d 2d_sagittal",
}
"""Configuration that a plan may lack to the option of planning that gives it."""


def selected_configurations(configurations: Sequence[str] | None, plan: Plan) -> list[str]:
    """Checks the names of configurations; None selects the default ones.

    Raises:
        ValueError: A configuration is not in the plan.
    """
    for name in configurations or ():
        if name not in plan.configurations:
            error = unknown_name_error(f"configuration of {plan.dataset}", name, plan.configurations)
            option = PLANNED_ON_REQUEST.get(name)
            hint = f" It is planned where you ask for it: autoseg_plan_and_preprocess -d {plan.dataset} {option}" if option else ""
            raise ValueError(f"{error}{hint}")
    return list(configurations or default_configurations(plan))


def default_configurations(plan: Plan) -> list[str]:
    """Names of the configurations that are trained by default: all planned ones but ``2.5d`` and those of slices in other planes."""
    return [name for name, one in plan.configurations.items() if one.slices == 1 and one.slice_axis == 0]
