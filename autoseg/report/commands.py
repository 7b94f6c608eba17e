"""The commands that make results again, from what the runs recorded: with every option in which a run differs from the defaults."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..data.label_subsets import folder_word
from ..planners.budget import ITERATIONS_PER_EPOCH, choose_budget
from ..planners.patch import PRESETS
from ..preprocessing.windows import with_normalization
from ..runtime.registry import ENSEMBLE, UNTRAINED, lookup
from ..runtime.serialization import to_plain
from ..schema import Budget, Choice, Configuration, Plan, PlanSettings
from ..schema.run_record import RunRecord
from ..schema.settings import TrainSettings
from ..schema.training_options import TrainingOptions
from ..selection.choice import DEFAULT_RULE
from ..trainers import TRAINERS
from ..trainers.job import default_options
from ..trainers.training_spec import training_spec

SWITCHES = {"loss": "--loss", "learning_rate": "--learning-rate", "average_decay": "--ema"}
"""Training options that have one of their own; the others are given by ``--training-option``."""

MOST_MEMBERS = 3
"""Models that are averaged at most where nobody says otherwise."""


def training_command(job: RunRecord, dataset: str, model: str, *, device: str = "", folds: Sequence[str] = ()) -> str:
    """The command that trains this again: into the same folder, and a `RunRecord` with the same values where the device allows them.

    The batch is said as the device got it. Patch and width of the network have no option: a time budget that made them smaller does so
    again where a step takes as long.

    Args:
        job: As recorded.
        dataset: Name.
        model: Folder, whose name says what was asked for (network, organs, tag).
        device: ``cpu``, ``cuda`` or ``mps``, on which it was trained; empty where nobody knows: then the options say whether it was a
            processor.
        folds: Of an ensemble, which are trained by one command; none means the job's own.
    """
    if job.configuration.name == ENSEMBLE:
        return _ensemble_command(job, dataset, model, folds or (job.fold,))
    changes, device = _changes(job, device)
    words = ["autoseg_train", dataset, job.configuration.name, job.fold, *_budget(job.budget), *_seed(job)]
    words += ["--batch", str(job.configuration.batch_size)]
    words += [] if job.trainer == "Trainer" else ["--trainer", job.trainer]
    words += _variant(job, model)
    words += _assigned("trainer", job.trainer_options)
    words += [word for name, value in changes.items() if name in SWITCHES for word in (SWITCHES[name], str(value))]
    words += _assigned("training", {name: value for name, value in changes.items() if name not in SWITCHES})
    words += [] if job.pretrained is None else ["--pretrained", str(job.pretrained)]
    return shlex.join(words + (["--device", device] if device else []))


def _ensemble_command(job: RunRecord, dataset: str, model: str, folds: Sequence[str]) -> str:
    own, said = job.trainer_options, model.split("__")[2:]
    kind, members = own.get("kind", job.trainer.lower()), own.get("members", ())
    words = ["autoseg_train_ensemble", dataset, "--kind", kind]
    # Members and organs that nobody named are found again in the same way, and only so in a folder of the same name.
    words += ["--members", *members] if any(re.fullmatch(r"\d+models_[0-9a-f]+", word) for word in said) else []
    words += ["--organs", *job.plan.labels.names] if folder_word(job.plan.labels) in said else []
    words += ["--folds", *folds, *([] if kind in UNTRAINED else _budget(job.budget)), *_seed(job)]
    return shlex.join(words)


def _seed(job: RunRecord) -> list[str]:
    return ["--seed", str(job.seed)] if job.seed else []


def _budget(budget: Budget) -> list[str]:
    if budget.kind == "time":
        return ["--time", f"{budget.amount:.3f}".rstrip("0").rstrip(".") + "s"]
    amount = int(budget.amount)
    if (
        budget.validation_intervals * ITERATIONS_PER_EPOCH == amount
        and choose_budget("cpu", iterations=amount).validation_intervals != budget.validation_intervals
    ):
        return ["--epochs", str(budget.validation_intervals)]
    return ["--iterations", str(amount)]


def _variant(job: RunRecord, model: str) -> list[str]:
    """What was asked for in place of the plan: network, organs, intensities, and the word at the end of the folder's name."""
    said, one = model.split("__")[2:], job.configuration
    planned = job.plan.configurations.get(one.name, one)
    words, explained = [], 0
    named = said[0] == one.network.replace(":", ".") if said else False
    if named and one.patch_multiple:  # a trainer's own network is in no name, and a tag that is called like a network leaves this empty
        words, explained = ["--network", one.network], 1
    if job.plan.data_labels is not None:
        words, explained = [*words, "--organs", *job.plan.labels.names], explained + 1
    if planned.normalization != one.normalization:
        words, explained = [*words, "--normalization", *_schemes(planned, one)], explained + 1
    words += _assigned("network", _network_options(job, planned, asked=one.network if "--network" in words else None))
    return words + (["--tag", said[-1]] if len(said) > explained else [])


def _schemes(planned: Configuration, one: Configuration) -> tuple[str, ...]:
    """The normalisation as it was said: a single scheme where that leads to the same data, else one a channel."""
    for scheme in dict.fromkeys(one.normalization):
        try:
            found, _ = with_normalization(planned, (scheme,))
        except ValueError:  # not a scheme that can stand for all channels
            continue
        if (found.normalization, found.data) == (one.normalization, one.data):
            return (scheme,)
    return one.normalization


def _network_options(job: RunRecord, planned: Configuration, *, asked: str | None) -> dict[str, Any]:
    """Options of the network that neither the plan nor the trainer gave it."""
    settings = TrainSettings(trainer=job.trainer, trainer_options=job.trainer_options, network=asked)
    try:
        given = training_spec(job.plan, planned.name, settings).configuration.network_options
    except (ValueError, TypeError):  # a trainer or network of the user's own that is not found here, or needs these options
        given = planned.network_options if asked in (None, planned.network) else {}
    return _different(job.configuration.network_options, given)


def _changes(job: RunRecord, device: str) -> tuple[dict[str, Any], str]:
    """Training options that the length of the run, the trainer and the device do not explain, and that device as far as it is known."""
    tried = {kind: _different(_values(job.options), _values(_defaults(job, kind))) for kind in ([device] if device else ("cuda", "cpu"))}
    best = min(tried, key=lambda kind: len(tried[kind]))
    return tried[best], device or (best if best == "cpu" else "")


def _defaults(job: RunRecord, device: str) -> TrainingOptions:
    try:
        suited = lookup(TRAINERS, job.trainer, "trainer").suited_options
    except ValueError:  # the user's own, not found here
        suited = None
    batch, fine_tunes = job.configuration.batch_size, job.pretrained is not None
    return default_options(job.budget, device, batch=batch, fine_tunes=fine_tunes, suited=suited)


def _values(options: TrainingOptions) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(options)}


def _different(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `now` that are otherwise in `before`; of the augmentation only what differs in it."""
    found = {name: to_plain(value) for name, value in now.items() if name not in before or to_plain(value) != to_plain(before[name])}
    if "augmentation" in found:
        usual = to_plain(before["augmentation"])
        found["augmentation"] = {name: value for name, value in found["augmentation"].items() if value != usual[name]}
    return found


def _assigned(whose: str, options: Mapping[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{whose}-option", f"{name}={json.dumps(to_plain(value))}")]


def plan_command(plan: Plan, dataset: str) -> str:
    """The command that plans so again."""
    words = _recorded_words(plan.settings) if plan.settings is not None else _reconstructed_words(plan)
    return shlex.join(["autoseg_plan_and_preprocess", "-d", dataset, *words])


def _recorded_words(settings: PlanSettings) -> list[str]:
    """Options that say what a plan records."""
    words = [] if settings.configurations is None else ["-c", *settings.configurations]
    words += [] if settings.preset == "default" else ["--preset", settings.preset]
    words += [] if settings.memory_gb is None else ["--memory", f"{_exact(settings.memory_gb)}GB"]
    words += [] if settings.spacing is None else ["--spacing", *map(_exact, settings.spacing)]
    words += ["--force-lowres"] if settings.force_lowres else []
    if settings.groups is None:
        return words
    # argparse takes a word that begins with a dash for an option.
    return words + ([f"--groups={settings.groups}"] if settings.groups.startswith("-") else ["--groups", settings.groups])


def _exact(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _reconstructed_words(plan: Plan) -> list[str]:
    """Options that explain a plan of 0.1.0; which patients belong together is taken from the raw ``dataset.json`` then."""
    preset = PRESETS.get(plan.preset)
    words = [] if plan.preset == "default" else ["--preset", plan.preset]
    words += [] if preset is not None and preset.gigabytes == plan.memory_gb else ["--memory", f"{plan.memory_gb:.10g}GB"]
    asked = [(one.configuration, one.what, one.value) for one in plan.reasons if one.why.startswith("as you asked")]
    words += [word for where, what, value in asked if (where, what) == ("all", "spacing") for word in ("--spacing", *_spacing(plan, value))]
    return words + (["--force-lowres"] if ("3d_lowres", "spacing") in [one[:2] for one in asked] else [])


def _spacing(plan: Plan, rounded: str) -> list[str]:
    """The target spacing in the order of the files: exact where a configuration has it, else as the reason says it."""
    exact = next((one.spacing for one in plan.configurations.values() if len(one.spacing) == len(plan.transpose)), None)
    if exact is None:
        return rounded.split(" x ")
    return [f"{exact[plan.transpose.index(axis)]:.10g}" for axis in range(len(exact))]


def choice_command(choice: Choice, dataset: str) -> str:
    """The command that chooses so again."""
    words = ["autoseg_find_best_configuration", dataset]
    words += [] if choice.metric == "dice" else ["--metric", choice.metric]
    words += [] if choice.by == DEFAULT_RULE else ["--rule", choice.by]
    words += [] if choice.max_members == MOST_MEMBERS else ["--max-members", str(choice.max_members)]
    return shlex.join(words + ([] if choice.max_seconds is None else ["--max-seconds", f"{choice.max_seconds:.10g}"]))


def with_fold(command: str, fold: str) -> str:
    """The command of another fold of an ``autoseg_train``."""
    words = shlex.split(command)
    return shlex.join([*words[:3], fold, *words[4:]]) if words[:1] == ["autoseg_train"] else command
