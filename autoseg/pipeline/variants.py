"""What of a plan a user wants otherwise for one training: another network, and what the trainer makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..model import Configuration, Plan
from ..naming import lookup
from ..planners.budget import patch_multiple
from ..trainers import TRAINERS
from .preparing import wanted_configurations
from .settings import TrainSettings


@dataclass(frozen=True)
class Variant:
    """What a training follows.

    Attributes:
        plan: Of the dataset, or of some of its organs.
        configuration: As planned, or with another network.
        words: What the name of the model folder says beside configuration and trainer.
    """

    plan: Plan
    configuration: Configuration
    words: tuple[str, ...] = ()


def variant(plan: Plan, name: str, settings: TrainSettings) -> Variant:
    """The plan and the configuration that a training follows.

    Args:
        plan: Of the dataset.
        name: Of one of its configurations.
        settings: What the user asked for.

    Raises:
        ValueError: There is no such configuration, network or trainer, or the trainer cannot work with it.
    """
    wanted_configurations([name], plan)
    configuration = plan.configurations[name]
    words: tuple[str, ...] = ()
    if settings.network is not None:
        configuration, words = _with_network(configuration, settings), (*words, settings.network)
    trainer = lookup(TRAINERS, settings.trainer, "trainer")
    return Variant(plan, trainer.configure(configuration, plan, settings.trainer_options), words)


def _with_network(configuration: Configuration, settings: TrainSettings) -> Configuration:
    """The configuration with the network that was asked for; the planned one keeps its planned options."""
    planned = configuration.network_options if settings.network == configuration.network else {}
    multiple = tuple(patch_multiple(configuration))
    return replace(configuration, network=settings.network, network_options=planned | settings.network_options, patch_multiple=multiple)
