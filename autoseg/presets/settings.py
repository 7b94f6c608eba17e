"""Settings from a paper's preset and the options that the user gives, which take precedence.

``autoseg_run ID --preset NAME`` plans, trains and chooses as the paper did; ``autoseg_train ... --preset NAME`` takes the training's part.
What a preset does not set is as without it (patch, augmentation, flips, sampling, post-processing).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.descriptions import raw_dataset
from ..planners.patch import PRESETS
from ..runtime.registry import unknown_name_error
from ..runtime.workspace import find_workspace
from ..schema.settings import PlanSettings, TrainSettings
from ..schema.training_options import nested
from . import PAPER_PRESETS

log = logging.getLogger(__name__)

BUDGET = ("epochs", "iterations", "seconds")
INTENSITIES = ("window", "window_bits", "normalization")
TOGETHER = (BUDGET, INTENSITIES)
"""Settings of which the user's replaces all of the preset's."""

BELONGS = {"trainer_options": "trainer", "network_options": "network"}
"""Options that mean something to the preset's trainer or network only."""


def plan_settings(name: str | None, **given: Any) -> PlanSettings:
    """The settings of the planner: the preset's, and over them the user's.

    Args:
        name: Of a paper's preset, or of the planner's (`planners.patch.PRESETS`); None means its default.
        **given: What the user given, as for `PlanSettings`; None means nothing.

    Raises:
        ValueError: There is no such preset.
    """
    given = _without_empty(given)
    if name in PAPER_PRESETS:
        preset = PAPER_PRESETS[name]
        rules = {} if "plan_from" in given else preset.plan  # a plan that is taken over stays as it is
        return PlanSettings(**{"configurations": preset.configurations, **rules, **given})
    if name is not None and name not in PRESETS and ":" not in name:
        raise unknown_name_error("preset", name, [*PRESETS, *PAPER_PRESETS])
    return PlanSettings(**given) if name is None else PlanSettings(preset=name, **given)


def train_settings(name: str | None, **given: Any) -> TrainSettings:
    """The settings of a training: the preset's, and over them the user's.

    Args:
        name: Of a paper's preset; those of the planner, and None, say nothing here.
        **given: What the user given, as for `TrainSettings`; None and what is empty mean nothing.
    """
    given = _without_empty(given)
    preset = None if name is None else PAPER_PRESETS.get(name)
    if preset is None:
        return TrainSettings(**given)
    if "options" in given:
        given["options"] = nested(given["options"])
    settings = dict(preset.training) | ({"network": preset.networks[0]} if preset.networks else {})
    for options, owner in BELONGS.items():
        if given.get(owner, settings.get(owner)) != settings.get(owner):
            settings.pop(options, None)
    for group in TOGETHER:
        if any(key in given for key in group):
            settings = {key: value for key, value in settings.items() if key not in group}
    typed = {**given.get("options", {}), **given}
    of_preset = "learning_rate" in settings.get("options", {}) and "learning_rate" not in typed
    return TrainSettings(**_merged(settings, given), rate_of_preset=of_preset)


def trainings(
    name: str | None, which: str | int, *, home: str | Path | None = None, allow_external: bool = False, **given: Any
) -> list[TrainSettings]:
    """The trainings of a paper's experiment: of each of its networks, and each organ, unless the user says which.

    Args:
        name: As for `train_settings`.
        which: Dataset id, name or folder.
        allow_external: As for `PlanSettings`.
        **given: As for `train_settings`.
    """
    given = _without_empty(given)
    preset = None if name is None else PAPER_PRESETS.get(name)
    if preset is None:
        return [train_settings(name, **given)]
    networks: Sequence[str | None] = preset.networks or (None,)
    if "network" in given:
        networks = (given["network"],)
    organs: Sequence[tuple[str, ...]] = [given.get("organs", ())]
    if preset.organ_by_organ and "organs" not in given:
        # `run` plans anew after this, so that the organs are those of the raw dataset, not of a former plan.
        organs = [
            (organ,) for organ in raw_dataset(find_workspace(home, dataset=str(which)), which, allow_external=allow_external).labels.names
        ]
    return [train_settings(name, **(given | {"network": network, "organs": some})) for some in organs for network in networks]


def check_paper(name: str | None) -> None:
    """Refuses what is no paper's preset.

    Raises:
        ValueError: There is no such preset; the message lists those there are.
    """
    if name is not None and name not in PAPER_PRESETS:
        raise unknown_name_error("preset of a training", name, PAPER_PRESETS)


def explain(name: str | None) -> None:
    """Logs what a paper's preset asks for, and where it departs from the paper; of other presets nothing."""
    preset = None if name is None else PAPER_PRESETS.get(name)
    if preset is None:
        return
    log.info("Preset %s, after %s:", name, preset.paper)
    for setting, reason in preset.why.items():
        log.info("  %s: %s", setting, reason)
    log.info("Otherwise than in the paper: %s.", "; ".join(preset.departures))


def _merged(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the given ones over them; named values in both are merged likewise."""
    both = {key: _merged(settings[key], given[key]) for key in settings.keys() & given.keys() if isinstance(given[key], Mapping)}
    return {**settings, **given, **both}


def _without_empty(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None and value != () and value != {}}
