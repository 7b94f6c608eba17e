"""What the preset of a paper's experiment holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..schema import Labels
from ..schema.settings import TrainSettings
from ..trainers.training_spec import TrainingSpec

BARE = {"weight_decay": 0.0, "warmup": 0.0, "average_decay": 0.0}
"""Training options that the papers do not use, and the defaults here do."""

Holds = Callable[[TrainSettings, TrainingSpec], bool]
"""Whether something is said of a training: of its settings, and of what they are resolved to with the plan."""


@dataclass(frozen=True)
class Departure:
    """What is otherwise than in the paper, where `holds` says so of a training that will run."""

    text: str
    holds: Holds


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of a paper's table.

    Attributes:
        name: As the paper calls it; empty for what the paper has no name for.
        training: Values of `TrainSettings`, over those of the preset.
        organ_by_organ: A model an organ; None means as the preset says.
        optional: ``autoseg_run`` trains it only where ``--models`` (or ``--network``) names it: what a paper compares with.
    """

    name: str
    training: Mapping[str, Any]
    organ_by_organ: bool | None = None
    optional: bool = False

    @property
    def tag(self) -> str:
        """Its name as the last part of a model folder's name."""
        return re.sub(r"[^A-Za-z0-9.-]", "", self.name.replace("+", "plus"))

    @property
    def pretrained(self) -> Any:
        """What its encoder starts from (`networks.imagenet`); None for weights that are drawn."""
        return self.training.get("network_options", {}).get("pretrained")


@dataclass(frozen=True, kw_only=True)
class EnsembleRow:
    """One ensemble of a paper's table, of the best model of a single organ for each organ.

    Attributes:
        name: As the paper calls it.
        kind: That of ``autoseg_train_ensemble``.
        redundant: The second best models of the difficult organs are members too.
        also: Names of models of all organs (`Row`) that are members too.
        share: As in `EnsembleSettings`.
        optional: As of a `Row`.
    """

    name: str
    kind: str
    redundant: bool = False
    also: tuple[str, ...] = ()
    share: float = 1.0
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """The table that the experiment ends with: a row a model and, below, one of the models chosen for each organ.

    Attributes:
        chosen: What the paper calls the models chosen for each organ together; empty where it has no such row.
        metrics: Columns of an organ: name in `evaluation.metrics.METRICS` to the paper's.
        score: Of them the one by which models are ranked, and averaged over organs.
        postprocess: Post-processing that the models are scored with, as ``autoseg_evaluate --postprocess``; their files stay so. Words
            about organs that a dataset lacks are left out (`words_about`).
        averages: Every metric's average over the organs, a row a model, and the score by organ, instead of a block an organ.
    """

    chosen: str
    metrics: Mapping[str, str]
    score: str
    postprocess: tuple[str, ...] = ()
    averages: bool = False


def words_about(labels: Labels, words: Sequence[str]) -> tuple[str, ...]:
    """A paper's words of post-processing (``largest``, ``kidney=2``) that are of use for these labels, which write organs as they like.

    Of organs that overlap nothing can be removed.
    """
    spelled = {name.casefold(): name for name in labels.names}
    split = [word.rpartition("=") for word in words]
    known = [(spelled.get(organ, ""), sign, what) for organ, sign, what in split if not sign or organ in spelled]
    return () if labels.regions else tuple("".join(parts) for parts in known)


@dataclass(frozen=True, kw_only=True)
class PaperPreset:
    """One paper's experiment.

    Attributes:
        paper: Authors, venue, year.
        configurations: To plan data for and, by ``autoseg_run``, to train.
        networks: By ``autoseg_run`` each is trained; `autoseg_train` takes the first. None means the trainer's own.
        rows: Models of the paper's table, in place of `networks`: ``autoseg_run`` trains each, `autoseg_train` the last that has
            the network and the trainer that are asked for.
        organ_by_organ: ``autoseg_run`` trains a model an organ.
        plan: Values of `PlanSettings`.
        training: Values of `TrainSettings`.
        single: Values over those, also of rows, of a model of one organ that the user names.
        ensembles: That ``autoseg_run`` trains after the models, of those of single organs.
        members_by: By what their members are chosen, as ``autoseg_train_ensemble --choose-by``.
        choice: Arguments of `pipeline.find_best_configuration` after the trainings.
        table: That ``autoseg_run`` prints at its end.
        why: What the paper has, by setting. The log puts beside it what will run (`explanation`).
        departures: What is otherwise than in the paper: always, or where a `Departure` says so.
    """

    paper: str
    configurations: tuple[str, ...]
    networks: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    organ_by_organ: bool = False
    plan: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    single: Mapping[str, Any] = field(default_factory=dict)
    ensembles: tuple[EnsembleRow, ...] = ()
    members_by: str = "loss"
    choice: Mapping[str, Any] = field(default_factory=dict)
    table: PaperTable | None = None
    why: Mapping[str, str]
    departures: tuple[str | Departure, ...]

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Its rows, or one without a name for each network."""
        networks = self.networks or (None,)
        return self.rows or tuple(Row(name="", training={} if network is None else {"network": network}) for network in networks)

    def settings_of(self, row: Row) -> dict[str, Any]:
        """Values of `TrainSettings` of a row."""
        return dict(self.training) | dict(row.training) | ({"tag": row.tag} if row.tag else {})
