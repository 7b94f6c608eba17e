"""The ensembles that end a paper's experiment, of the model of each organ that validates best (Crespi et al. 2023)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..data.descriptions import planned_dataset
from ..ensembling.design import ITERATIONS
from ..ensembling.members import base_models, shared_folds
from ..ensembling.planning import ensemble_folder
from ..ensembling.ranking import rank
from ..presets.experiment import Experiment
from ..presets.paper_preset import EnsembleRow
from ..runtime.runs import ModelFolder
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Dataset
from ..schema.settings import EnsembleSettings
from ..trainers.training_spec import training_spec
from .ensembles import train_ensemble

log = logging.getLogger(__name__)


def train_paper_ensembles(
    which: str | int, experiment: Experiment, configurations: Sequence[str], *, home: str | Path | None = None
) -> None:
    """Trains the ensembles of a paper's experiment on the folds that all members have; one that cannot be made stops no others.

    Args:
        configurations: That were trained; the members are models of the first.
    """
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    try:
        rows = paper_ensembles(workspace, dataset, experiment, configurations)
    except ValueError as error:
        log.error("No ensembles: %s", error)
        return
    if rows and experiment.paper is not None:
        log.info("Members of the ensembles, by %s: %s.", experiment.paper.members_by, ", ".join(rows[0][1].members))
    for row, settings in rows:
        try:
            train_ensemble(which, settings, home=workspace.home)
        except ValueError as error:
            log.error("%s is not trained: %s", row.name, error)


def paper_ensembles(
    workspace: Workspace, dataset: Dataset, experiment: Experiment, configurations: Sequence[str]
) -> list[tuple[EnsembleRow, EnsembleSettings]]:
    """The ensembles of an experiment, whose members are the best model of a single organ for each organ, as the paper chooses them.

    Raises:
        ValueError: Members share no fold, or an organ has no model.
    """
    paper = experiment.paper
    if paper is None or not paper.ensembles:
        return []
    models, plan = base_models(workspace, dataset.name), workspace.plan(dataset.name)
    results, trained = workspace.results(dataset.name), []
    for settings in experiment.trainings:
        spec = training_spec(plan, configurations[0], settings, windows=dataset.windows)
        name = spec.model(results, settings.trainer).name
        if len(spec.plan.labels.names) == 1 and name in models:
            trained.append(models[name])
    if not trained:
        return []
    organs = tuple(dict.fromkeys(name for one in trained for name in one.labels.names))
    folds = shared_folds(trained, least=1)
    best = rank(workspace, dataset, trained, folds, paper.members_by).best(trained, organs, folds)
    members = tuple(dict.fromkeys(name for names in best.values() for name in names))
    first = experiment.trainings[0]
    return [
        (
            row,
            EnsembleSettings(
                kind=row.kind,
                members=members,
                iterations=None if first.iterations is None else min(first.iterations, ITERATIONS.get(row.kind, 1)),
                seed=first.seed,
                device=first.device,
            ),
        )
        for row in paper.ensembles
    ]


def paper_ensemble_folders(
    workspace: Workspace, dataset: Dataset, experiment: Experiment, configurations: Sequence[str]
) -> dict[str, ModelFolder]:
    """The paper's name of each ensemble that was trained to its model folder."""
    try:
        rows = paper_ensembles(workspace, dataset, experiment, configurations)
    except ValueError:
        return {}
    return {row.name: ensemble_folder(workspace, dataset, settings) for row, settings in rows}
