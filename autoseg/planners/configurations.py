"""Selection of a plan's configurations."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.registry import unknown_name_error
from ..schema import Plan
from ..schema.settings import PlanSettings

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
            if name.startswith("3d") and len(plan.transpose) == 2:
                hint = f" 3D configurations, also those of a preset, need volumes; the images of {plan.dataset} are 2D."
            raise ValueError(f"{error}{hint}")
    return list(configurations or default_configurations(plan))


def default_configurations(plan: Plan) -> list[str]:
    """Names of the configurations that are trained by default: all planned ones but ``2.5d`` and those of slices in other planes."""
    return [name for name, one in plan.configurations.items() if one.slices == 1 and one.slice_axis == 0]


def planning_command(plan: Plan) -> str:
    """The command that plans a dataset as it was planned; empty where nobody knows how that was (plans of earlier versions).

    Patients and the reading of headers are not in it, as planning again keeps them.
    """
    asked = plan.settings
    if asked is None:
        return ""
    spacing = asked.spacing if isinstance(asked.spacing, str) else " ".join(f"{size:g}" for size in asked.spacing or ())
    words = {
        "-c": " ".join(asked.configurations or ()),
        "--preset": asked.preset if asked.preset != PlanSettings().preset else "",
        "--memory": "" if asked.memory_gb is None else f"{asked.memory_gb:g}GB",
        "--spacing": spacing,
        "--plan-from": asked.plan_from or "",
    }
    flags = [flag for flag, given in (("--force-lowres", asked.force_lowres), ("--one-grid", asked.one_grid)) if given]
    return " ".join(
        [f"autoseg_plan_and_preprocess -d {plan.dataset}", *(f"{option} {value}" for option, value in words.items() if value), *flags]
    )
