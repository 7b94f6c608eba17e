"""How long the trainings of a command will take with all that goes with them, said before the first begins."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ..data.ct_windows import Window
from ..planners.budget import ITERATIONS_PER_EPOCH
from ..planners.measured_dataset import FINGERPRINT
from ..preprocessing.storage import Store
from ..runtime.hardware import StepCost
from ..runtime.runs import ALL
from ..runtime.serialization import read_json, to_jsonable
from ..runtime.shown_text import duration
from ..runtime.workspace import Workspace
from ..schema import CaseFingerprint, Fingerprint, Plan, Split
from ..schema.settings import TrainSettings
from ..trainers.cheaper_validation import TIME_SHARE, predicted_cheaper
from ..trainers.run_setup import budget_of, fitted_budget
from ..trainers.time_estimates import case_size, predicted_preprocessing, predicted_probing, predicted_step
from ..trainers.training_spec import TrainingSpec, of_stage, training_spec
from ..trainers.validation_plan import FULL, predicted_validation, validation_limit

Training = tuple[TrainSettings, TrainingSpec]

TRYING_SECONDS = 8.0
"""For so long steps of a network are tried at the most where only a total is to be told."""
LEAST_MEASURED = ITERATIONS_PER_EPOCH
"""Iterations of a training from which on the time of a step is measured for the total; shorter ones are not worth the measurement."""


@dataclass(frozen=True)
class PlannedCases:
    """A plan, the folds, and the measurements of its cases by name (without them nothing is said of validation and preprocessing)."""

    plan: Plan
    splits: Sequence[Split]
    cases: Mapping[str, CaseFingerprint]

    @classmethod
    def read(cls, workspace: Workspace, plan: Plan) -> PlannedCases:
        """As planning has written them."""
        file = workspace.preprocessed(plan.dataset) / FINGERPRINT
        cases = {case.name: case for case in read_json(file, Fingerprint).cases} if file.is_file() else {}
        return cls(plan, workspace.splits(plan.dataset), cases)


@dataclass
class Ahead:
    """Seconds of what is to come, summed over trainings.

    Attributes:
        training: Of those whose time is known.
        unknown: Iterations of the others, one number a training.
        probing, validation: Together of all.
        at_most: Whether these are bounds, shares of the training time.
        is_whole: Whether the validation of each training is in the sum.
        preprocessing: Of what is not preprocessed yet, by the folder that it goes to.
    """

    training: float = 0.0
    unknown: list[float] = field(default_factory=list)
    probing: float = 0.0
    validation: float = 0.0
    at_most: bool = False
    is_whole: bool = True
    preprocessing: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of everything that is known."""
        return self.training + self.probing + self.validation + sum(self.preprocessing.values())

    def in_words(self, now: datetime) -> str:
        """What takes how long, and when it is done."""
        parts = [f"{duration(self.training)} of training"] if self.training or not self.unknown else []
        if self.unknown:
            some = f" in {len(self.unknown)} of them" * bool(self.training)
            parts.append(f"the unknown time of {sum(self.unknown):g} iterations{some}")
        if self.unknown or not self.is_whole:
            return f"{' and '.join(parts)}, with preprocessing and validation on top"
        bound = "at most" if self.at_most else "about"
        validation = f" and {duration(self.validation)} of validation" if self.validation else ""
        parts.append(f"{bound} {duration(self.probing)} of trying steps{validation}")
        if before := sum(self.preprocessing.values()):
            parts.append(f"about {duration(before)} of preprocessing")
        return f"{', '.join(parts)}: done by about {clock(now, self.seconds)}"


def clock(now: datetime, seconds: float) -> str:
    """The time of day in so many seconds, with the day where that is not today."""
    end = now + timedelta(seconds=seconds)
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%a %d %b %H:%M}"


def describe_total(
    trainings: Sequence[Training],
    folds: Sequence[str],
    workspace: Workspace,
    planned: PlannedCases,
    *,
    windows: Mapping[str, Window] | None = None,
    limit: float | None = None,
) -> str:
    """One sentence: how many trainings there are, how many are finished, and how long the others take with all that goes with them.

    A budget in time is known, and bounds trying steps and validation. Of one in iterations a step and a tile are measured for each network
    and patch, as the training itself does, and the total is that of the plan's batch. First stages that cascades among the trainings need,
    on every fold, are counted; those that are among the trainings count once.

    Args:
        trainings: Each is run on each of the folds.
        limit: Seconds that measuring each network may take, also where its training is short; None: it is measured as trainings do, where
            that is worth it.
    """
    plan, every_fold = planned.plan, [str(fold) for fold in range(len(planned.splits))]
    results = workspace.results(plan.dataset)
    first = [(stage, fold) for stage in _first_stages(trainings, plan, windows) for fold in every_fold]
    left: dict[str, tuple[Training, str]] = {}
    for (settings, spec), fold in [*((one, fold) for one in trainings for fold in folds), *first]:
        run = spec.model(results, settings.trainer).run(fold)
        left.setdefault(str(run.folder), ((settings, spec), "" if run.is_finished and not settings.restart else fold))
    waiting = [(one, fold) for one, fold in left.values() if fold]
    ahead = _ahead(waiting, workspace, planned, limit=limit)
    count, finished = len(left), len(left) - len(waiting)
    done = f", of which {finished} {'is' if finished == 1 else 'are'} finished" if finished else ""
    return f"In all {count} training{'s' * (count > 1)}{done}: {ahead.in_words(datetime.now())}"


def _first_stages(trainings: Sequence[Training], plan: Plan, windows: Mapping[str, Window] | None) -> list[Training]:
    stages = []
    for settings, spec in trainings:
        if stage := spec.configuration.previous_stage:
            alone = replace(settings, restart=False, pretrained=None, pseudo_labels=False, longer=False, trial=None)
            first = training_spec(plan, stage, alone, windows=windows)
            stages.append((of_stage(alone, first), first))
    return stages


def _ahead(waiting: Sequence[tuple[Training, str]], workspace: Workspace, planned: PlannedCases, *, limit: float | None) -> Ahead:
    """The sum over trainings, each with its fold."""
    ahead, costs, splits, cases = Ahead(), _Costs(limit), planned.splits, planned.cases
    for (settings, spec), fold in waiting:
        names = (splits[int(fold)].val if fold.isdecimal() and int(fold) < len(splits) else ()) if fold != ALL else tuple(cases)
        _add(ahead, settings, spec, [cases[name] for name in names if name in cases], costs)
        data = spec.configuration.data
        if data not in ahead.preprocessing:
            there = set(Store(workspace.preprocessed(planned.plan.dataset) / data).names())
            missing = [case for name, case in cases.items() if name not in there]
            ahead.preprocessing[data] = predicted_preprocessing(spec.plan, spec.configuration, missing)
    return ahead


class _Costs:
    """Costs of a step, each measured once; see `describe_total` for the limit."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._known: dict[str, StepCost | None] = {}

    def of(self, settings: TrainSettings, spec: TrainingSpec, iterations: float) -> StepCost | None:
        """None where a step cannot be taken, or is not worth the measurement."""
        key = _same_cost(settings, spec)
        if key not in self._known:
            is_worth_it = self._limit is not None or iterations >= LEAST_MEASURED
            limit = TRYING_SECONDS if self._limit is None and math.isinf(iterations) else self._limit
            self._known[key] = predicted_step(settings, spec, limit=limit) if is_worth_it else None
        return self._known[key]


def _add(ahead: Ahead, settings: TrainSettings, spec: TrainingSpec, held_out: Sequence[CaseFingerprint], costs: _Costs) -> None:
    """Adds a training with its trial steps and its validation."""
    budget, limit = budget_of(settings), validation_limit(fitted_budget(settings))
    ahead.probing += predicted_probing(settings)
    sizes = [case_size(spec.plan, spec.configuration, case) for case in held_out]
    outputs = spec.plan.labels.n_outputs
    if budget.kind == "time":
        ahead.training += budget.amount
        ahead.at_most |= settings.validation != FULL
        share = (1 + TIME_SHARE) * (settings.trial is None)
        if settings.validation == FULL and share:  # no limit: what it is for the planned network; that of the training may be smaller
            tile = costs.of(settings, spec, math.inf)
            ahead.is_whole &= bool(held_out) and tile is not None
            limit = predicted_validation(spec.configuration, sizes, tile, outputs=outputs) if tile else None
        ahead.validation += (limit or 0.0) * share
        return
    cost = costs.of(settings, spec, budget.amount)
    if cost is None:
        ahead.unknown.append(budget.amount)
        return
    ahead.training += cost.seconds * budget.amount
    for predicted in (predicted_validation, predicted_cheaper):
        ahead.validation += predicted(spec.configuration, sizes, cost, outputs=outputs)
    ahead.is_whole &= bool(held_out) and math.isfinite(ahead.validation)


def _same_cost(settings: TrainSettings, spec: TrainingSpec) -> str:
    """Trainings of which a step takes as long: those of other organs, as many, too."""
    facts: Mapping[str, object] = {
        "configuration": spec.configuration,
        "outputs": spec.plan.labels.n_outputs,
        "trainer": settings.trainer,
        "trainer_options": settings.trainer_options,
        "batch": settings.batch,
        "device": settings.device,
    }
    return json.dumps(to_jsonable(facts), sort_keys=True)
