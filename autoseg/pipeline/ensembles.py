"""Ensembles of trained models, trained on their predictions of cases that they have not seen, as models of their own.

Crespi et al., *Ensemble methods for multi-organ segmentation in CT series*, 2023; Conze et al., Artificial Intelligence in Medicine 117
(2021) for ``multi``, their MOvpUNet. See docs/ensembles.md.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from ..data.descriptions import check_files, planned_dataset
from ..ensembling.design import KINDS, Design
from ..ensembling.fusion_trainer import check_halves
from ..ensembling.members import check_planned_as_trained, held_out, shared_folds
from ..ensembling.planning import ensemble_budget, ensemble_folder, plan_ensemble
from ..ensembling.prediction import FUSION, UNTRAINED
from ..ensembling.ranking import LOSS
from ..ensembling.training import EnsembleTraining, is_done, train_fold
from ..evaluation.folders import table
from ..evaluation.metrics import higher_is_better_score
from ..runtime.hardware import choose_device, prepare_device
from ..runtime.locks import exclusive_lock
from ..runtime.registry import allows_code, unknown_name_error
from ..runtime.runs import ModelFolder, Run
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Budget, Dataset, Score
from ..schema.settings import EnsembleSettings
from ..trainers.learning_checks import not_learnt

log = logging.getLogger(__name__)


@allows_code()
def train_ensemble(
    which: str | int,
    settings: EnsembleSettings,
    *,
    home: str | Path | None = None,
    failures: MutableMapping[str, str] | None = None,
) -> dict[str, list[Score]]:
    """Trains and validates an ensemble of trained models; goes on where an interrupted one stopped; does nothing where it is finished.

    The result lies beside its members, in ``results/<dataset>/ensemble__<Kind>``, and is chosen, asked for and predicted with like them.

    Args:
        failures: Gets case -> reason for the held-out cases that could not be validated; they are tried again the next time.

    Returns:
        Fold to the scores of its held-out cases.

    Raises:
        ValueError: An unknown kind, member, fold or organ; members that lack folds, or that this kind cannot combine.
    """
    asked = ensemble_to_train(which, settings, home=home)
    workspace, dataset, model, folds = asked.workspace, asked.dataset, asked.model, asked.folds
    log.info("%s: %s of %s; fold %s.", model.name, settings.kind, ", ".join(one.name for one in asked.design.members), ", ".join(folds))
    device = choose_device(settings.device)
    prepare_device(device)
    for run in asked.replaced:  # last, so that what is refused leaves them where they are
        with exclusive_lock(run.folder, "training"):
            run.put_aside()
    work = EnsembleTraining(workspace, dataset, asked.design, model, asked.cases, asked.budget, settings, device)
    scores = {fold: train_fold(work, fold) for fold in folds}
    if failures is not None:
        failures.update({case: reason for fold in folds for case, reason in model.run(fold).failures().items()})
    everything = [score for of_fold in scores.values() for score in of_fold]
    log.info("%s, whole volumes:\n%s", model.name, table(everything, tolerance_mm=dataset.tolerances))
    for line in not_learnt(everything):
        log.warning("%s", line)
    return scores


@dataclass(frozen=True)
class AskedEnsemble:
    """An ensemble as a user asked for it, with what is to be trained of it.

    Attributes:
        folds: That are wanted.
        waiting: Those of them that are not finished, or start anew.
        replaced: Runs that are put aside, so that they start anew.
        cases: Fold to the cases that the members predicted without having been trained on them.
        budget: Of a fold.
    """

    workspace: Workspace
    dataset: Dataset
    model: ModelFolder
    design: Design
    folds: list[str]
    waiting: list[str]
    replaced: list[Run]
    cases: dict[str, list[str]]
    budget: Budget


def ensemble_to_train(which: str | int, settings: EnsembleSettings, *, home: str | Path | None = None) -> AskedEnsemble:
    """Which members, organs and folds an ensemble has, and what is left to train of it; nothing is written.

    Raises:
        ValueError: As of `train_ensemble`.
    """
    if settings.kind not in KINDS:
        raise unknown_name_error("kind of ensemble", settings.kind, KINDS)
    if settings.per_organ < 1:
        raise ValueError(f"models an organ: expected at least 1, got {settings.per_organ}")
    if not 0 < settings.share <= 1:
        raise ValueError(f"share of the patients: expected a number above 0, up to 1, got {settings.share}")
    if settings.share != 1 and settings.kind in UNTRAINED:
        raise ValueError(f"share of the patients: {settings.kind} learns nothing; expected one of the kinds logits, meta and fusion")
    if settings.choose_by not in (None, LOSS):
        higher_is_better_score(0.0, settings.choose_by)
    budget = ensemble_budget(settings)
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    model = ensemble_folder(workspace, dataset, settings)
    replaced = [Run(path) for path in sorted(model.folder.glob("fold_*"))] if settings.restart else []
    replaced = [run for run in replaced if not settings.folds or run.fold in settings.folds]
    design, folds = plan_ensemble(workspace, dataset, model, settings, replaced=replaced)
    waiting = [fold for fold in folds if model.run(fold) in replaced or not is_done(model.run(fold), dataset)]
    needed = waiting if settings.kind in (*UNTRAINED, FUSION) else shared_folds(design.members, least=2)
    cases = {fold: held_out(design.members, fold) for fold in needed} if waiting else {}
    if waiting:
        if settings.kind == FUSION:  # a mistake in the last fold must not show after the others were trained
            check_halves(cases, {case.name: case.group or case.name for case in dataset.cases})
        check_files(dataset, workspace.home)
        check_planned_as_trained(design.members, workspace.plan(dataset.name))
    return AskedEnsemble(workspace, dataset, model, design, folds, waiting, replaced, cases, budget)
