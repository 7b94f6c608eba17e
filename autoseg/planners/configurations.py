"""Selection of a plan's configurations."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.registry import unknown_name_error
from ..schema import Plan


def selected_configurations(configurations: Sequence[str] | None, plan: Plan) -> list[str]:
    """Checks the names of configurations; None selects the default ones.

    Raises:
        ValueError: A configuration is not in the plan.
    """
    for name in configurations or ():
        if name not in plan.configurations:
            raise unknown_name_error(f"configuration of {plan.dataset}", name, plan.configurations)
    return list(configurations or default_configurations(plan))


def default_configurations(plan: Plan) -> list[str]:
    """Names of the configurations that are trained by default: all planned ones but ``2.5d`` and those of slices in other planes."""
    return [name for name, one in plan.configurations.items() if one.slices == 1 and one.slice_axis == 0]
