"""Which of a plan's configurations are meant."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.registry import unknown_name_error
from ..schema import Plan


def selected_configurations(configurations: Sequence[str] | None, plan: Plan) -> list[str]:
    for name in configurations or ():
        if name not in plan.configurations:
            raise unknown_name_error(f"configuration of {plan.dataset}", name, plan.configurations)
    return list(configurations or default_configurations(plan))


def default_configurations(plan: Plan) -> list[str]:
    """What is trained unless the user says what: all that is planned, but 2.5D, which sees what 2D and 3D see."""
    return [name for name, one in plan.configurations.items() if one.slices == 1]
