"""The trainings of a paper's whole experiment: each model of its table, for each organ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.descriptions import raw_dataset
from ..networks.imagenet import encoder_of, find_weights
from ..runtime.registry import unknown_name_error
from ..runtime.workspace import find_workspace
from ..schema.settings import TrainSettings
from . import PAPER_PRESETS
from .paper_preset import EnsembleRow, PaperPreset, Row
from .settings import rows_for, settings_for, train_settings, without_empty


@dataclass(frozen=True)
class Experiment:
    """What ``autoseg_run`` trains.

    Attributes:
        preset: Name of a paper's; None where no paper's was asked for.
        trainings: In the order in which they are run.
        rows: Of each training the paper's name of the model; empty where it has none.
        not_run: Model of the paper's table to why it cannot be trained.
        ensembles: That are trained after them.
    """

    preset: str | None
    trainings: tuple[TrainSettings, ...]
    rows: tuple[str, ...] = ()
    not_run: Mapping[str, str] = field(default_factory=dict)
    ensembles: tuple[EnsembleRow, ...] = ()

    @property
    def paper(self) -> PaperPreset | None:
        """The paper's preset."""
        return None if self.preset is None else PAPER_PRESETS.get(self.preset)

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """Modules that its trainings may import."""
        return tuple(module for one in self.trainings for module in one.allowed_modules)


def experiment(
    name: str | None,
    which: str | int,
    *,
    home: str | Path | None = None,
    allow_external: bool = False,
    dry: bool = False,
    models: Sequence[str] = (),
    **given: Any,
) -> Experiment:
    """The trainings of a paper's experiment: of each of its models or networks, and each organ, unless the user says which.

    Models whose encoder the paper trained on ImageNet are left out where the file of weights is not there, or was switched off.

    Args:
        name: As for `settings.train_settings`.
        which: Dataset id, name or folder.
        allow_external: As for `PlanSettings`.
        dry: Do not keep in the home what `allow_external` allows.
        models: Names of the paper's table; none means all that are not optional, and so do names of ensembles alone for the models.
        **given: As for `settings.train_settings`.

    Raises:
        ValueError: A model is none of the paper's, or none can be trained.
    """
    given = without_empty(given)
    preset = None if name is None else PAPER_PRESETS.get(name)
    if models and (preset is None or not preset.rows):
        raise ValueError(f"--models {' '.join(models)}: expected with --preset the experiment of a paper that has a table of models")
    if preset is None:
        return Experiment(None, (train_settings(name, **given),), ("",))
    rows = _wanted(preset, models, given)
    looked_for: dict[tuple[str, str], str] = {}
    not_run = {row.name: reason for row in rows if row.name and (reason := _missing_weights(row, given, looked_for))}
    rows = [row for row in rows if row.name not in not_run]
    if not rows and not not_run:
        raise ValueError(f"--models {' '.join(models)}: none of them has the network, trainer and pre-training that were named, too")
    if not rows:
        raise ValueError(f"--preset {name}: none of its models can be trained: " + "; ".join(_listed(not_run)))
    organs: Sequence[tuple[str, ...]] = [given.get("organs", ())]
    if "organs" not in given and (preset.single or any(_by_organ(preset, row) for row in rows)):
        # `run` plans anew after this, so that the organs are those of the raw dataset, not of a former plan.
        dataset = raw_dataset(find_workspace(home, dataset=str(which)), which, allow_external=allow_external, dry=dry)
        organs = [(organ,) for organ in dataset.labels.names]
        if preset.single and len(organs) == 1:
            given["organs"] = organs[0]
    elif len(organs[0]) > 1 and preset.rows:
        organs = [(organ,) for organ in organs[0]]  # of the paper's table, a model each
    together = given.get("organs", ())
    found = [(row, some) for some in organs for row in rows if _by_organ(preset, row)]
    found += [(row, together) for row in rows if not _by_organ(preset, row)]
    return Experiment(
        name,
        tuple(settings_for(preset, row, _given_to(row, rows, given) | {"organs": some}) for row, some in found),
        tuple(row.name for row, _ in found),
        not_run,
        tuple(one for one in preset.ensembles if one.name in models or not one.optional),
    )


def _listed(not_run: Mapping[str, str]) -> list[str]:
    """The reasons, each with its models."""
    models: dict[str, list[str]] = {}
    for name, reason in not_run.items():
        models.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in models.items()]


def describe_not_run(experiment: Experiment) -> list[str]:
    """A line a reason why models of the paper's table are not trained."""
    return _listed(experiment.not_run)


def _wanted(preset: PaperPreset, models: Sequence[str], given: Mapping[str, Any]) -> list[Row]:
    known = [row.name for row in preset.rows]
    for name in models:
        if name not in (everything := [*known, *(one.name for one in preset.ensembles)]):
            raise unknown_name_error("model of the paper", name, everything)
    models = [name for name in models if name in known]
    options = dict(given.get("network_options", {}))
    options.pop("pretrained", None)  # says where weights are, or that there are none: those models are then listed as not run
    rows = rows_for(preset, dict(given) | {"network_options": options})
    if models:
        return [row for row in rows if row.name in models]
    return [row for row in rows if not row.optional or "network" in given]


def _by_organ(preset: PaperPreset, row: Row) -> bool:
    return preset.organ_by_organ if row.organ_by_organ is None else row.organ_by_organ


def _missing_weights(row: Row, given: Mapping[str, Any], looked_for: dict[tuple[str, str], str]) -> str:
    """Why a model with a pre-trained encoder cannot be trained; empty where it can, or needs no weights.

    Args:
        looked_for: Gets what came of looking for a file, as a download may take minutes to fail.
    """
    encoder = encoder_of(row.training.get("network", ""))
    source = given.get("network_options", {}).get("pretrained", row.pretrained)
    if not row.pretrained or encoder is None:
        return ""
    if not source:
        return f"trained without ImageNet's weights it would be another model (pretrained={source} was given)"
    key = encoder, str(source)
    if key not in looked_for:
        try:
            find_weights(*key)
            looked_for[key] = ""
        except ValueError as error:
            looked_for[key] = str(error)
    return looked_for[key]


def _given_to(row: Row, rows: Sequence[Row], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user gave, without the file of weights for a model that is not pre-trained, where others are."""
    if row.pretrained or "pretrained" not in given.get("network_options", {}) or not any(one.name for one in rows):
        return dict(given)
    options = {key: value for key, value in given["network_options"].items() if key != "pretrained"}
    return dict(given) | {"network_options": options}
