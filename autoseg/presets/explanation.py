"""What a paper's preset is in trainings that will run: of each setting what the paper has, and the value that runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any

from ..data.ct_windows import Window
from ..networks.imagenet import FILES, encoder_of
from ..runtime.hardware import choose_device
from ..runtime.registry import lookup
from ..schema.settings import TrainSettings
from ..schema.training_options import TrainingOptions
from ..trainers import TRAINERS
from ..trainers.run_options import default_options
from ..trainers.run_setup import budget_of
from ..trainers.training_spec import TrainingSpec, is_of_cascade, of_stage, training_spec
from . import PAPER_PRESETS
from .experiment import Experiment, describe_not_run
from .paper_preset import PaperPreset, Row
from .settings import INTENSITIES, settings_for

log = logging.getLogger(__name__)

Training = tuple[TrainSettings, TrainingSpec]
"""What was asked for, and what it is resolved to with the plan."""

ONE_ORGAN = "one organ a model"

BUDGETS = ("epochs", "iterations", "seconds")

OTHERS = ("organs", "network", "seed", "device", "restart", "tag", "allow_code", "learning_rate", "rate_of_preset", "pretrained", *BUDGETS)
"""Settings without a line of their own where a preset says nothing of them."""


def explain(
    name: str | None,
    trainings: Sequence[Training],
    *,
    windows: Mapping[str, Window] | None = None,
    experiment: Experiment | None = None,
) -> None:
    """Logs what a paper has, what will run, and where that departs from the paper; nothing without a paper's preset.

    Args:
        name: Of the preset.
        trainings: That will run.
        windows: CT windows of the dataset's organs.
        experiment: That the trainings are, if they are one, which knows models of the paper that are not run.
    """
    preset = None if name is None else PAPER_PRESETS.get(name)
    if preset is None:
        return
    log.info("Preset %s, after %s:", name, preset.paper)
    for line in lines_of(preset, trainings, windows or {}):
        log.info("  %s", line)
    for reason in describe_not_run(experiment) if experiment is not None else ():
        log.info("Not run: %s", reason)
    if departures := departures_of(preset, trainings):
        log.info("Otherwise than in the paper: %s.", "; ".join(departures))


def lines_of(preset: PaperPreset, trainings: Sequence[Training], windows: Mapping[str, Window]) -> list[str]:
    """A line a setting: its name, what the paper has, and what runs; where that is not the preset's value, instead of what."""
    of_paper = [_as_in_paper(preset, training, windows) for training in trainings]
    told = (*preset.why, *OTHERS, *(INTENSITIES if set(INTENSITIES) & preset.why.keys() else ()))  # these have one line together
    changed = {
        item.name
        for (settings, _), paper in zip(trainings, of_paper, strict=True)
        for item in fields(TrainSettings)
        if item.name not in told and getattr(settings, item.name) != getattr(paper[0], item.name)
    }
    lines = []
    for setting, text in {**preset.why, **dict.fromkeys(sorted(changed), "as is usual here")}.items():
        found: dict[str, list[str]] = {}
        for training, paper in zip(trainings, of_paper, strict=True):
            found.setdefault(_in_words(preset, setting, training, paper), []).append(_model(*training))
        shown = [f"{one} ({', '.join(dict.fromkeys(models))})" if len(found) > 1 else one for one, models in found.items()]
        lines.append(f"{setting}: {text}; runs {'; '.join(shown)}")
    return lines


def departures_of(preset: PaperPreset, trainings: Sequence[Training]) -> list[str]:
    """What of these trainings is otherwise than in the paper, beside the settings."""
    known = [(one, None) if isinstance(one, str) else (one.text, one.holds) for one in preset.departures]
    return [text for text, holds in known if holds is None or any(holds(*training) for training in trainings)]


def _as_in_paper(preset: PaperPreset, training: Training, windows: Mapping[str, Window]) -> Training:
    """The training as the preset has it by itself, for the same organs, on the same plan and device."""
    settings, spec = training
    row = _row_of(preset, settings)
    paper = replace(settings_for(preset, row, {"organs": settings.organs}), device=settings.device)
    paper = of_stage(paper, spec)
    resolved = partial(training_spec, spec.plan, spec.configuration.name, windows=windows)
    with suppress(ValueError):
        return paper, resolved(replace(paper, organs=()))
    with suppress(ValueError):  # as of images without the Hounsfield units that the paper's grey values are in
        found = resolved(replace(paper, organs=(), **{name: getattr(settings, name) for name in INTENSITIES}))
        return paper, replace(found, configuration=replace(found.configuration, normalization=_named_intensities(paper)))
    # As of a configuration that the paper's trainer cannot work with.
    return paper, replace(spec, configuration=replace(spec.configuration, network=paper.network or "its network"))


def _named_intensities(settings: TrainSettings) -> tuple[str, ...]:
    """Normalisation or window of some settings, as they are where a plan has CT."""
    if settings.window is None:
        return settings.normalization
    numbers = settings.window if isinstance(settings.window, str) else ":".join(f"{number:g}" for number in settings.window)
    return (f"window{settings.window_bits or ''}:{numbers}",)


def _row_of(preset: PaperPreset, settings: TrainSettings) -> Row:
    """The paper's model that a training is: by its name, else by its network."""
    named = [row for row in preset.rows if settings.tag == row.tag or settings.tag.startswith(f"{row.tag}-")]
    named = sorted(named, key=lambda row: len(row.tag))  # one name may begin as another
    alike = [row for row in preset.all_rows if row.training.get("network") == settings.network]
    return (named or alike or list(preset.all_rows))[-1 if preset.rows else 0]


def _in_words(preset: PaperPreset, setting: str, training: Training, paper: Training) -> str:
    words = WORDS.get(setting, lambda settings, spec: shown(getattr(settings, setting)))
    value = words(*training)
    if setting == "configurations":
        expected = value if training[1].configuration.name in preset.configurations else " or ".join(preset.configurations)
    elif setting == "organ_by_organ":
        expected = value if _row_of(preset, training[0]).organ_by_organ is False else ONE_ORGAN
    elif setting in PLANNED:
        asked = training[1].plan.settings
        as_asked = asked is not None and getattr(asked, setting) == preset.plan[setting]
        expected = value if as_asked else PLANNED[setting](preset.plan[setting])
    else:
        expected = words(*paper)
    return value if value == expected else f"{value} instead of {expected}"


def _model(settings: TrainSettings, spec: TrainingSpec) -> str:
    """By what a training is told from the others of an experiment."""
    return settings.tag or " ".join([spec.configuration.name, spec.configuration.network])


def shown(value: Any) -> str:
    """A setting's value for reading."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        return " x ".join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "as planned" if value is None else str(value)


def _shares_grid(spec: TrainingSpec) -> bool:
    """Whether both stages of the plan's cascade have one grid."""
    stages = [one.spacing for name, one in spec.plan.configurations.items() if name in ("3d_lowres", "3d_cascade")]
    return len(stages) == 2 and stages[0] == stages[1]


def _organs(settings: TrainSettings, spec: TrainingSpec) -> str:
    names = spec.plan.labels.names
    return ONE_ORGAN if len(names) == 1 else f"{len(names)} organs together ({', '.join(names)})"


def _outputs(settings: TrainSettings, spec: TrainingSpec) -> str:
    if spec.configuration.sigmoid or spec.plan.labels.n_outputs == 1:
        return "one output with sigmoid"
    return f"{spec.plan.labels.n_outputs} outputs with {'sigmoid' if spec.plan.labels.regions else 'softmax'}"


def _configuration(settings: TrainSettings, spec: TrainingSpec) -> str:
    slices = spec.configuration.slices
    return spec.configuration.name + (f" with {slices} slices as channels" if slices > 1 else "")


def _network(settings: TrainSettings, spec: TrainingSpec) -> str:
    return spec.configuration.network


def _trainer(settings: TrainSettings, spec: TrainingSpec) -> str:
    return f"{settings.trainer} with {spec.configuration.network}"


def _network_options(settings: TrainSettings, spec: TrainingSpec) -> str:
    """Where the encoders' weights come from, and what else the user or the preset said of the network."""
    options, encoder = dict(settings.network_options), encoder_of(spec.configuration.network)
    source = options.pop("pretrained", None)
    start = "no pre-training" if not source else f"encoder from {FILES[encoder]}" if encoder else f"pretrained {source}"
    start += f", then what fits of {settings.pretrained}" if settings.pretrained is not None else ""
    return start + (f", {shown(options)}" if options else "")


def _intensities(settings: TrainSettings, spec: TrainingSpec) -> str:
    return ", ".join(dict.fromkeys(spec.configuration.normalization))


def _budget(settings: TrainSettings, spec: TrainingSpec) -> str:
    budget = budget_of(settings)
    return f"{budget.amount:g} {'iterations' if budget.kind == 'iterations' else 's'}"


def _first_iterations(settings: TrainSettings, spec: TrainingSpec) -> str:
    if not is_of_cascade(spec):
        return "no first stage"
    return "as the second" if settings.first_iterations is None else str(settings.first_iterations)


def resolved_options(settings: TrainSettings, spec: TrainingSpec) -> TrainingOptions:
    """The options of a training, as far as they do not depend on the batch that fits the device."""
    device = choose_device(settings.device).type
    return default_options(
        budget_of(settings),
        device,
        batch=settings.batch or spec.configuration.batch_size,
        fine_tunes=settings.pretrained is not None,
        changes=settings.changed_options,
        suited=lookup(TRAINERS, settings.trainer, "trainer").suited_options,
    )


def _options(settings: TrainSettings, spec: TrainingSpec) -> str:
    """The resolved values of the options that the preset or the user changes."""
    resolved = resolved_options(settings, spec)
    values = {}
    for name, value in settings.changed_options.items():
        now = getattr(resolved, name)
        # What is switched off is not listed.
        values[name] = {key: drawn for key in value if (drawn := getattr(now, key))} if isinstance(value, Mapping) else now
    return shown(values)


WORDS: dict[str, Callable[[TrainSettings, TrainingSpec], str]] = {
    "configurations": _configuration,
    "networks": _network,
    "rows": _network,
    "organ_by_organ": _organs,
    "sigmoid": _outputs,
    "trainer": _trainer,
    "network_options": _network_options,
    "normalization": _intensities,
    "window": _intensities,
    "options": _options,
    "sources": lambda settings, spec: ", ".join(settings.sources) or "all datasets",
    "spacing": lambda settings, spec: f"{shown(spec.configuration.spacing)} mm",
    "force_lowres": lambda settings, spec: shown("3d_lowres" in spec.plan.configurations),
    "one_grid": lambda settings, spec: shown(_shares_grid(spec)),
    "first_iterations": _first_iterations,
    **dict.fromkeys(BUDGETS, _budget),
}
"""Setting to its value in a training, in words; of others the value itself is shown."""

PLANNED: dict[str, Callable[[Any], str]] = {
    "spacing": lambda value: f"{value.removeprefix('x')} times the usual" if isinstance(value, str) else f"{shown(value)} mm",
    "force_lowres": shown,
    "one_grid": shown,
}
"""Settings of planning to the words for the preset's value."""
