"""Command lines that make results again, written from the settings that were recorded with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import Any

from ..schema import Choice, Plan, RunRecord
from ..schema.settings import ChoiceSettings, EnsembleSettings, PlanSettings, TrainSettings
from .migrate.artefacts import complete_plan_settings
from .serialization import to_jsonable

SWITCHES = {
    "configurations": "-c",
    "memory_gb": "--memory",
    "trainer": "--trainer",
    "trainer_options": "--trainer-option",
    "network_options": "--network-option",
    "options": "--training-option",
    "seconds": "--time",
    "fitted_seconds": "--fit-to",
}
"""Settings whose switch is not ``--`` and their name with dashes."""

UNITS = {"memory_gb": "GB", "seconds": "s", "fitted_seconds": "s"}

NOT_REPEATED = ("restart", "workers", "allow_external", "allow_code", "trust_files", "folds", "kind", "rate_of_preset")
"""Settings that change nothing in the result, stand elsewhere in the command, or give leave, which a file cannot give."""


def words_of(settings: PlanSettings | TrainSettings | EnsembleSettings | ChoiceSettings) -> list[str]:
    """The switches of everything that was asked for, as the command line takes them."""
    values = {item.name: (getattr(settings, item.name), item) for item in fields(settings) if item.name not in NOT_REPEATED}
    return [word for name, (value, item) in values.items() if value != _default(item) for word in _switch(name, value)]


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _switch(name: str, value: Any) -> list[str]:
    switch = SWITCHES.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool):
        return [switch if value else f"--no-{switch.removeprefix('--')}"]
    if isinstance(value, Mapping):
        return [word for key, one in value.items() for word in (switch, f"{key}={json.dumps(to_jsonable(one))}")]
    values = value if isinstance(value, (tuple, list)) else (value,)
    if isinstance(value, str) and value.startswith("-"):  # or it would be taken for a switch itself
        return [f"{switch}={value}"]
    texts = [str(int(one)) if isinstance(one, float) and one.is_integer() else str(one) for one in values]
    return [switch, *(text + UNITS.get(name, "") for text in texts)]


def plan_command(plan: Plan) -> str:
    """The command that plans a dataset so again."""
    words = ["autoseg_plan_and_preprocess", "-d", plan.dataset]
    return shlex.join(words + words_of(complete_plan_settings(plan)))


def train_command(record: RunRecord, *, fold: str | None = None, folds: Sequence[str] = (), device: str = "") -> str:
    """The command that trains a run so again, in the same folder.

    Args:
        folds: Of an ensemble, which are trained by one command; none means the run's own.
        device: ``cpu``, ``cuda`` or ``mps``, where it is known on which the run was trained and the user named none.
    """
    dataset, fold = record.plan.dataset, fold or record.fold
    if record.ensemble is not None:
        settings = record.ensemble.settings or EnsembleSettings(
            kind=record.ensemble.kind, members=record.ensemble.members, seed=record.seed
        )
        return shlex.join(["autoseg_train_ensemble", dataset, "--kind", settings.kind, *words_of(settings), "--folds", *(folds or (fold,))])
    training = record.settings or TrainSettings(seed=record.seed)
    if training.rate_of_preset:  # typed, it is taken as it is
        training = replace(training, options=training.options | {"learning_rate": training.changed_options["learning_rate"]})
    if device and training.device == "auto":
        training = replace(training, device=device)
    return shlex.join(["autoseg_train", dataset, record.configuration.name, fold, *words_of(training)])


def choice_command(choice: Choice, dataset: str) -> str:
    """The command that chooses among the models so again."""
    settings = ChoiceSettings(
        rule=choice.rule,
        max_members=choice.max_members,
        metric=choice.metric,
        max_seconds=choice.max_seconds,
        vote=choice.vote,
        postprocess=choice.postprocess,
    )
    return shlex.join(["autoseg_find_best_configuration", dataset, *words_of(settings)])
