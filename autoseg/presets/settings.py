"""Settings from a paper's preset and the options that the user gives, which take precedence.

``autoseg_run ID --preset NAME`` plans, trains and chooses as the paper did; ``autoseg_train ... --preset NAME`` takes the training's part.
What a preset does not set is as without it (patch, augmentation, flips, sampling, post-processing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..planners.patch import PRESETS
from ..runtime.registry import unknown_name_error
from ..schema.settings import PlanSettings, TrainSettings
from ..schema.training_options import nested
from . import PAPER_PRESETS
from .paper_preset import PaperPreset, Row

BUDGET = ("epochs", "iterations", "seconds", "first_iterations")
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
    given = without_empty(given)
    if name in PAPER_PRESETS:
        preset = PAPER_PRESETS[name]
        rules = {} if "plan_from" in given else preset.plan  # a plan that is taken over stays as it is
        return PlanSettings(**{"configurations": preset.configurations, **rules, **given})
    if name is not None and name not in PRESETS and ":" not in name:
        raise unknown_name_error("preset", name, [*PRESETS, *PAPER_PRESETS])
    return PlanSettings(**given) if name is None else PlanSettings(preset=name, **given)


def train_settings(name: str | None, **given: Any) -> TrainSettings:
    """The settings of one training: the preset's, and over them the user's.

    Of a paper with a table of models it is the last of those with the network and the trainer that the user names (pre-trained ones stand
    behind those that are not), with its name; a model of a single organ where one is named, else of all where the paper has such.

    Args:
        name: Of a paper's preset; those of the planner, and None, say nothing here.
        **given: As for `TrainSettings`; None and what is empty mean nothing.
    """
    given = without_empty(given)
    preset = None if name is None else PAPER_PRESETS.get(name)
    if preset is None:
        return TrainSettings(**given)
    matching = rows_for(preset, given)
    if len(given.get("organs", ())) != 1:  # models of all organs where the paper has some
        matching = [row for row in matching if row.organ_by_organ is False] or matching
    return settings_for(preset, matching[-1] if preset.rows else matching[0], given)


def rows_for(preset: PaperPreset, given: Mapping[str, Any]) -> list[Row]:
    """The rows with the network, the trainer and the pre-training that the user names; rows without the paper's name where it has none."""
    rows = list(preset.all_rows)
    if "network" in given and not (rows := [row for row in rows if row.training.get("network") == given["network"]]):
        rows = [_nameless(preset.all_rows[-1 if preset.rows else 0], network=given["network"])]
    former = rows
    if "trainer" in given:
        rows = [row for row in rows if preset.settings_of(row).get("trainer", "Trainer") == given["trainer"]]
    if rows and not given.get("network_options", {}).get("pretrained", True):
        rows = [row for row in rows if not row.pretrained]
    # Of rows without a name those of one network are the same.
    return rows or list({row.training.get("network"): _nameless(row) for row in former}.values())


def _nameless(row: Row, **changes: Any) -> Row:
    """A row that is none of the paper's; options of a network that is not the row's are not its."""
    training = dict(row.training) | changes
    if training.get("network") != row.training.get("network"):
        training["network_options"] = {}  # nor those of the preset
    return replace(row, name="", training=training)


def settings_for(preset: PaperPreset, row: Row, given: Mapping[str, Any]) -> TrainSettings:
    """The settings of a row's training, and over them the user's."""
    settings = preset.settings_of(row)
    if len(given.get("organs", ())) == 1:
        settings = _merged(settings, {key: value for key, value in preset.single.items() if settings.get(key)})
    of_paper = settings.get("options", {})
    if given.get("options", {}).get("loss", of_paper.get("loss")) != of_paper.get("loss"):  # weights are of the paper's loss
        settings["options"] = {key: value for key, value in of_paper.items() if key != "class_weights"}
    for options, owner in BELONGS.items():
        if given.get(owner, settings.get(owner)) != settings.get(owner):
            settings.pop(options, None)
    for group in TOGETHER:
        if any(key in given for key in group):
            settings = {key: value for key, value in settings.items() if key not in group}
    if "options" in given:
        given = dict(given) | {"options": nested(given["options"])}
    typed = {**given.get("options", {}), **given}
    of_preset = "learning_rate" in settings.get("options", {}) and "learning_rate" not in typed
    tag = "-".join(filter(None, (row.tag, given.get("tag", ""))))
    return TrainSettings(**_merged(settings, given) | {"tag": tag, "rate_of_preset": of_preset})


def check_paper(name: str | None) -> None:
    """Refuses what is no paper's preset.

    Raises:
        ValueError: There is no such preset; the message lists those there are.
    """
    if name in PRESETS:
        raise ValueError(
            f"preset of a training: {name} is one of planning (autoseg_plan_and_preprocess --preset {name}); leave it out here"
        )
    if name is not None and name not in PAPER_PRESETS:
        raise unknown_name_error("preset of a training", name, PAPER_PRESETS)


def _merged(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the given ones over them; named values in both are merged likewise."""
    both = {key: _merged(settings[key], given[key]) for key in settings.keys() & given.keys() if isinstance(given[key], Mapping)}
    return {**settings, **given, **both}


def without_empty(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user gave: None, no words and no options mean nothing."""
    return {key: value for key, value in given.items() if value is not None and value != () and value != {}}
