"""Which members, organs and folds an ensemble has: as asked for, as its other folds have, or the best there are."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..data.label_subsets import organs_tag, safe_file_name, subset_labels
from ..planners.budget import choose_budget
from ..preprocessing.preprocess import knows_spacing
from ..runtime.registry import unknown_name_error
from ..runtime.runs import ENSEMBLE, ModelFolder, Run
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace
from ..schema import Budget, Dataset, Plan, Trace
from ..schema.run_record import LOG_ODDS, EnsembleRecord
from ..schema.settings import EnsembleSettings
from .design import ITERATIONS, Design, check_fusable
from .members import Member, base_models, comparable, held_out, named, shared_folds, stored_form
from .prediction import FUSION, META, UNTRAINED, VOTE, fuse
from .ranking import rank

log = logging.getLogger(__name__)


def ensemble_folder(workspace: Workspace, dataset: Dataset, settings: EnsembleSettings) -> ModelFolder:
    """The model folder of an ensemble; its name says the kind, and the members and organs that were asked for."""
    names = sorted(set(settings.members))
    words = [f"{len(names)}models_{hashlib.sha256('|'.join(names).encode()).hexdigest()[:6]}"] if names else []
    words += [f"{settings.per_organ}each"] if settings.per_organ > 1 else []
    words += [safe_file_name(f"by_{settings.choose_by}")] if settings.choose_by else []
    words += [f"{settings.share:g}of_patients"] if settings.share != 1 else []
    organs = subset_labels(dataset.labels, settings.organs or dataset.labels.names)
    # The second is how earlier versions named it, which gave organs with like names one folder.
    tags = [organs_tag(organs, dataset.labels.names), organs_tag(organs)] if settings.organs else [""]
    results, kind = workspace.results(dataset.name), settings.kind.capitalize()
    model, former = (ModelFolder.named(results, ENSEMBLE, kind, [*words, *filter(None, [tag])]) for tag in (tags[0], tags[-1]))
    return former if former != model and former.runs() and set(former.labels(organs).names) == set(organs.names) else model


def ensemble_budget(settings: EnsembleSettings) -> Budget:
    """How long a fold is trained: what the user said, or what the kind needs."""
    if settings.kind in UNTRAINED:
        return Budget("iterations", 1, 1, "nothing is learnt")
    if settings.iterations is not None or settings.seconds is not None:
        return choose_budget("cpu", iterations=settings.iterations, seconds=settings.seconds)
    steps = ITERATIONS[settings.kind]
    return replace(choose_budget("cpu", iterations=steps), why=f"{steps} iterations, the default of {settings.kind}")


def least_folds(kind: str) -> int:
    """How many folds of its members an ensemble needs: those that learn from stored predictions are validated on another fold's."""
    return 2 if kind in ("logits", META) else 1


def plan_ensemble(
    workspace: Workspace, dataset: Dataset, model: ModelFolder, settings: EnsembleSettings, *, replaced: Sequence[Run] = ()
) -> tuple[Design, list[str]]:
    """The ensemble that is asked for, or that its other folds are already, and the folds to train.

    Its runs that are `replaced` start anew.

    Raises:
        ValueError: Members, organs or folds that are not there or do not fit together.
    """
    models = base_models(workspace, dataset.name)
    former = next((run.record() for run in model.runs() if run not in replaced), None)
    made_of = None if former is None else former.ensemble
    least = least_folds(settings.kind)
    if made_of is not None:
        candidates = named(models, made_of.members)
        log.info("%s: the members are those of its folds that were started before (others with --restart or --members).", model.name)
    elif settings.members:
        candidates = named(models, settings.members)
    else:
        candidates = comparable(models, settings.folds, organs=settings.organs, least=least)
    shared = shared_folds(candidates, least=least)
    folds = _wanted_folds(settings.folds, candidates, shared)
    organs = _organs(settings.organs, candidates) if former is None else former.plan.labels.names
    best: dict[str, dict[str, str]] = {}
    if settings.kind == "multi":
        ranking = rank(workspace, dataset, candidates, shared, choose_by(settings, workspace.plan(dataset.name)))
        found = {fold: ranking.best(candidates, organs, _others(shared, fold)) for fold in shared}
        best = {fold: {organ: one for organ, (one,) in of_fold.items()} for fold, of_fold in found.items()}
        used = {name for chosen in best.values() for name in chosen.values()}
    elif settings.kind == VOTE:
        used = {member.name for member in _of_same_organs(candidates, organs, named=bool(settings.members))}
    elif settings.members or former is not None:
        used = {member.name for member in candidates if set(organs) & set(member.labels.names)}
    else:
        ranking = rank(workspace, dataset, candidates, shared, choose_by(settings, workspace.plan(dataset.name)))
        used = {name for some in ranking.best(candidates, organs, shared, number=settings.per_organ).values() for name in some}
    if former is None:
        candidates = [member for member in candidates if member.name in used]
    if settings.kind == FUSION and former is None:
        check_fusable(candidates)
        fuse([one.model.folder for one in candidates], folds[0], subset_labels(dataset.labels, organs), torch.device("cpu"))
    stored = {one.record.plan.stored_labels for one in candidates}
    if len(stored) > 1:
        names = ", ".join(one.name for one in candidates)
        raise ValueError(f"{names}: were trained for different labels of {dataset.name}; train them again")
    reads = settings.kind != FUSION
    form = made_of.stored if made_of is not None else stored_form(candidates, shared) if reads else LOG_ODDS
    return Design(
        settings.kind, tuple(candidates), tuple(organs), _reference(candidates, made_of, shared, settings.kind), best, form
    ), folds


def _of_same_organs(candidates: Sequence[Member], organs: Sequence[str], *, named: bool) -> list[Member]:
    """Members that may vote with each other; of those that a user named all must, and there are two at least."""
    able = [one for one in candidates if set(one.labels.names) == set(organs)]
    order = {one.labels.names for one in able}
    if len(able) < 2 or len(order) > 1 or (named and len(able) < len(candidates)):
        found = "; ".join(f"{one.name}: {', '.join(one.labels.names)}" for one in candidates)
        raise ValueError(
            f"vote: expected two or more members of the same organs ({', '.join(organs)}), found {found}; name them with --members"
        )
    return able


def choose_by(settings: EnsembleSettings, plan: Plan) -> str:
    """By what the best models of an organ are chosen: as asked for, MOvpUNet's by the CHAOS score, others by Dice."""
    if settings.choose_by is not None:
        return settings.choose_by
    return "chaos" if settings.kind == "multi" and knows_spacing(plan) else "dice"


def _others(folds: Sequence[str], fold: str) -> list[str]:
    """The folds by which the members for a fold are chosen: the others, so that its own cases can judge the choice."""
    others = [other for other in folds if other != fold]
    if not others:
        log.warning("Only fold %s is there: the members are chosen by the cases that judge them, which flatters the ensemble.", fold)
    return others or [fold]


def _wanted_folds(requested: Sequence[str], members: Sequence[Member], shared: Sequence[str]) -> list[str]:
    wanted = list(requested or shared)
    missing = [member.command(fold) for member in members for fold in wanted if fold not in member.records]
    if missing:
        listed = "\n".join(f"  {command}" for command in missing)
        raise ValueError(f"ensemble: fold {', '.join(wanted)} needs members that were trained and validated on it. Run:\n{listed}")
    return wanted


def _organs(requested: Sequence[str], members: Sequence[Member]) -> tuple[str, ...]:
    """In the order of the dataset."""
    known = {name for member in members for name in member.labels.names}
    for organ in requested:
        if organ not in known:
            raise unknown_name_error("organ of the members", organ, known)
    return tuple(name for name in members[0].record.plan.stored_labels.names if name in (requested or known))


def _reference(members: Sequence[Member], made_of: EnsembleRecord | None, folds: Sequence[str], kind: str) -> Member:
    """The member with the finest grid: most voxels of a case that all have; among equals the first."""
    if made_of is not None:
        return next(member for member in members if member.name == made_of.reference)
    case = held_out(members, folds[0])[0]
    usual = [member for member in members if member.configuration.slice_axis == 0]
    if not usual and kind != FUSION:
        names = ", ".join(member.name for member in members)
        raise ValueError(
            f"ensemble: expected a member whose cases are stored in the planned order of axes, as 2d or 3d_fullres; got {names}"
        )
    return max(usual or members, key=lambda member: np.prod(read_json(member.model.run(folds[0]).trace(case), Trace).shape))
