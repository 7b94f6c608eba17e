"""The ensembles that end a paper's experiment, of the model of each organ that validates best (Crespi et al. 2023)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.descriptions import planned_dataset
from ..ensembling.design import ITERATIONS
from ..ensembling.members import Member, base_models, shared_folds
from ..ensembling.planning import ensemble_folder, least_folds
from ..ensembling.prediction import check_members
from ..ensembling.ranking import rank
from ..presets.experiment import Experiment
from ..presets.paper_preset import EnsembleRow
from ..runtime.runs import ModelFolder
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Dataset
from ..schema.settings import EnsembleSettings
from ..trainers.training_spec import training_spec
from ..trainers.validation import NothingValidatedError
from .ensembles import train_ensemble

log = logging.getLogger(__name__)


def train_paper_ensembles(
    which: str | int,
    experiment: Experiment,
    configurations: Sequence[str],
    *,
    home: str | Path | None = None,
    failures: MutableMapping[str, str] | None = None,
) -> None:
    """Trains the ensembles of a paper's experiment on the folds that all members have; one that cannot be made stops no others.

    They start anew where the trainings did.

    Args:
        configurations: That were trained; the members are models of the first.
        failures: As for `train_ensemble`.
    """
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    rows, not_made = paper_ensembles(workspace, dataset, experiment, configurations)
    for name, reason in not_made.items():
        log.error("%s is not trained: %s", name, reason)
    said: set[tuple[str, ...]] = set()
    restart = any(one.restart for one in experiment.trainings)
    for row, settings in rows:
        if settings.members not in said and experiment.paper is not None:
            log.info("Members of %s, by %s: %s.", row.name, experiment.paper.members_by, ", ".join(settings.members))
        said.add(settings.members)
        try:
            train_ensemble(which, replace(settings, restart=restart), home=workspace.home, failures=failures)
        except (ValueError, NothingValidatedError) as error:
            log.error("%s is not trained: %s", row.name, error)


def describe_ensembles(rows: Sequence[EnsembleRow], folds: int) -> str:
    """What follows the trainings, said before them: which ensembles can be trained on so many folds with held-out cases, and which not."""
    fitting = [row.name for row in rows if folds >= least_folds(row.kind)]
    words = f" Then the ensembles {', '.join(fitting)}: some hundred steps each a fold, minutes beside the trainings." * bool(fitting)
    if without := [row.name for row in rows if row.name not in fitting]:
        words += f" Not the ensembles {', '.join(without)}, which learn from held-out cases and need more folds (--folds) than {folds}."
    return words


@dataclass(frozen=True)
class _Trained:
    """The models of an experiment that are trained.

    Attributes:
        binary: Models of a single organ.
        together: Name of the paper's table to model of all organs.
    """

    binary: list[Member]
    together: Mapping[str, Member]


def paper_ensembles(
    workspace: Workspace, dataset: Dataset, experiment: Experiment, configurations: Sequence[str]
) -> tuple[list[tuple[EnsembleRow, EnsembleSettings]], dict[str, str]]:
    """The ensembles of an experiment, of the best models of a single organ, as the paper chooses them; and by name why others cannot be."""
    if experiment.paper is None or not experiment.ensembles:
        return [], {}
    trained = _trained(workspace, dataset, experiment, configurations)
    first, found, failures = experiment.trainings[0], [], {}
    for row in experiment.ensembles:
        try:
            members = _members(workspace, dataset, trained, row, experiment.paper.members_by)
        except ValueError as error:
            failures[row.name] = str(error)
            continue
        iterations = None if first.iterations is None else min(first.iterations, ITERATIONS.get(row.kind, 1))
        settings = EnsembleSettings(kind=row.kind, members=members, share=row.share, iterations=iterations)
        found.append((row, replace(settings, seed=first.seed, device=first.device)))
    return found, failures


def _trained(workspace: Workspace, dataset: Dataset, experiment: Experiment, configurations: Sequence[str]) -> _Trained:
    models, plan = base_models(workspace, dataset.name), workspace.plan(dataset.name)
    results, binary, together = workspace.results(dataset.name), [], {}
    of_all = {row.name for row in experiment.paper.rows if row.organ_by_organ is False} if experiment.paper is not None else set()
    for row, settings in zip(experiment.rows, experiment.trainings, strict=True):
        spec = training_spec(plan, configurations[0], settings, windows=dataset.windows)
        name = spec.model(results, settings.trainer).name
        if name in models and row in of_all:
            together[row] = models[name]
        elif name in models and len(spec.plan.labels.names) == 1:
            binary.append(models[name])
    return _Trained(binary, together)


def _members(workspace: Workspace, dataset: Dataset, trained: _Trained, row: EnsembleRow, by: str) -> tuple[str, ...]:
    """The members of an ensemble of the paper, each once."""
    if not trained.binary:
        raise ValueError("no model of a single organ is trained and validated on a fold with held-out cases")
    organs = tuple(dict.fromkeys(name for one in trained.binary for name in one.labels.names))
    folds = shared_folds(trained.binary, least=1)
    two_best = rank(workspace, dataset, trained.binary, folds, by).best(trained.binary, organs, folds, number=2)
    names = [of_organ[0] for of_organ in two_best.values()]
    if row.redundant:
        dice = rank(workspace, dataset, trained.binary, folds, "dice")
        by_dice = sorted(organs, key=lambda organ: dice.value(two_best[organ][0], organ, folds))
        difficult = by_dice[: max(1, len(organs) // 3)]
        if alone := [organ for organ in difficult if len(two_best[organ]) < 2]:
            raise ValueError(f"there is only one model of {', '.join(alone)}, the most difficult of the organs")
        names += [two_best[organ][1] for organ in difficult]
    if missing := [name for name in row.also if name not in trained.together]:
        raise ValueError(f"{', '.join(missing)}, one of its members, is not trained and validated")
    return tuple(dict.fromkeys([*names, *(trained.together[name].name for name in row.also)]))


def paper_ensemble_folders(
    workspace: Workspace, dataset: Dataset, experiment: Experiment, configurations: Sequence[str]
) -> tuple[dict[str, ModelFolder], dict[str, str]]:
    """The paper's name of each ensemble to its model folder; and why others are not there, or are those of former networks."""
    rows, failures = paper_ensembles(workspace, dataset, experiment, configurations)
    folders: dict[str, ModelFolder] = {}
    for row, settings in rows:
        model = ensemble_folder(workspace, dataset, settings)
        try:
            for run in model.runs():
                check_members(run)
        except ValueError as error:
            failures[row.name] = str(error)
        else:
            folders[row.name] = model
            if not model.validated_folds():
                failures[row.name] = "no fold of it is trained and validated; the log says why"
    return folders, failures
