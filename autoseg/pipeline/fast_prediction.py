"""``autoseg_predict --fast``: the cheapest models in the cheapest way, and what that is expected to lose, said before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..data.images import read_case_geometry
from ..inference.coarse_to_fine import CoarseToFinePredictor
from ..inference.ensemble import Ensemble
from ..inference.memory_need import grid_shape, need
from ..inference.trained_model import InferenceOptions, TrainedModel
from ..runtime.runs import ALL, ModelFolder, model_folders
from ..runtime.shown_text import duration
from ..schema import Case, Choice, Geometry, candidate_name
from ..schema.cheaper_prediction import COARSE_TO_FINE, LARGER_STEPS, NO_MIRRORING, DiceLoss
from ..selection.cheaper_ways import known_losses
from ..selection.fast_choice import candidate_loss, fast_choice, fast_way
from ..trainers.cheaper_validation import cheaper_ways

SHOWN = 0.005
"""Dice by which an organ must lose more than the mean to be named."""


def fast_models(choice: Choice, results: Path) -> Choice:
    """`fast_choice` among the models of ``results/<dataset>``."""
    return fast_choice(choice, [one.name for one in model_folders(results)])


def fast_options(options: InferenceOptions, choice: Choice, results: Path, name: str) -> InferenceOptions:
    """The options of a model in the cheapest way that it may predict; a step that is in `options` was asked for and stays."""
    folder = ModelFolder(results / name)
    way = fast_way(known_losses(choice, results, name, folder.trained_folds()))
    if way is None:
        return options
    record = folder.run(folder.trained_folds()[0]).record()
    if record.ensemble is not None:
        return replace(options, mirror=False)
    if record.previous_model is not None and options.folds:
        there = ModelFolder(results / record.previous_model).trained_folds()
        options = replace(options, stage_folds=options.folds if set(options.folds) <= set(there) else options.stage_folds)
    ways = cheaper_ways(record.configuration)
    step = ways[LARGER_STEPS].tiling.step if way != NO_MIRRORING and LARGER_STEPS in ways else None
    coarse = way == COARSE_TO_FINE and COARSE_TO_FINE in ways
    return replace(options, mirror=False, step=step if options.step is None else options.step, coarse_to_fine=coarse)


def describe_fast(ensemble: Ensemble, results: Path, cases: Sequence[Case], *, folds_asked: bool = False) -> list[str]:
    """Sentences on what is left out, the loss that is expected of it, what cannot be known of that, and seconds and memory of the cases.

    `folds_asked`: the user said which folds.
    """
    choice = ensemble.choice
    lines = [*_candidates(choice), *(_model(one, choice, results, folds_asked=folds_asked) for one in ensemble.models.values())]
    geometries = []
    for case in cases:
        with suppress(ValueError, OSError):  # which is said when the case is predicted
            geometries.append(read_case_geometry(case))
    return [*lines, *_cost(ensemble, results, geometries)]


def _candidates(choice: Choice) -> list[str]:
    """Organs that others than the best candidates segment."""
    lines = []
    for organ, members in choice.organs.items():
        name, evidence = candidate_name(members), choice.evidence.get(organ)
        if evidence is not None and evidence.candidate != name:
            lost = candidate_loss(choice, organ, name)
            lines.append(f"--fast: {organ} by {name} instead of {evidence.candidate}: expected loss {lost:+.4f} Dice (cross-validation)")
    return lines


def _model(model: TrainedModel, choice: Choice, results: Path, *, folds_asked: bool) -> str:
    folder = ModelFolder(results / model.name)
    way, known = way_of(model), known_losses(choice, results, model.name, folder.trained_folds())
    if way is None:
        lost = f"in full: no cheaper way is known to lose at most 0.01 Dice on held-out cases{_least(known)}"
    elif way not in known:
        lost = f"{_in_words(way)}; what that loses was not measured for this model"
    else:
        lost = f"{_in_words(way)}: expected loss {_loss(known[way])}"
    if model.previous is not None and way is not None:
        lost += "; its first stage likewise, which that loss does not count"
    used, trained = choice.member_folds.get(model.name, ()), [fold for fold in folder.trained_folds() if fold != ALL]
    if folds_asked or not len(used) == 1 < len(trained):
        return f"--fast: {model.name} {lost}"
    averaging = f"the cross-validation scores single networks, so what averaging {len(trained)} folds would gain is not known"
    return f"--fast: {model.name} {lost}; fold {used[0]} alone: {averaging}"


def _least(known: Mapping[str, DiceLoss]) -> str:
    """What was measured of the way that loses least."""
    measured = [(loss.mean, way) for way, loss in known.items() if not math.isnan(loss.mean)]
    return f" ({_in_words(min(measured)[1])} it loses {_loss(known[min(measured)[1]])})" if measured else ""


def way_of(model: TrainedModel) -> str | None:
    """The cheaper way in which a loaded model predicts; None for the full one."""
    if isinstance(model.predictor, CoarseToFinePredictor):
        return COARSE_TO_FINE
    ways = cheaper_ways(model.configuration)
    if model.predictor.mirror and NO_MIRRORING in ways:
        return None
    if LARGER_STEPS in ways and (model.predictor.step or 0) >= ways[LARGER_STEPS].tiling.step:
        return LARGER_STEPS
    return NO_MIRRORING if NO_MIRRORING in ways else None


def _in_words(way: str) -> str:
    return {
        NO_MIRRORING: "without mirrored copies",
        LARGER_STEPS: "without mirrored copies, with larger steps",
        COARSE_TO_FINE: "coarse to fine, without mirrored copies, with larger steps",
    }[way]


def _loss(loss: DiceLoss) -> str:
    interval = "" if math.isnan(loss.low) else f", 95 % interval {loss.low:+.4f} to {loss.high:+.4f}"
    worst = max((value for value in loss.organs.values() if not math.isnan(value)), default=loss.mean)
    organ = next((name for name, value in loss.organs.items() if value == worst), "")
    most = f"; {worst:+.4f} of {organ}" if organ and worst - loss.mean >= SHOWN else ""
    return f"{loss.mean:+.4f} Dice ({loss.patients} held-out patient{'' if loss.patients == 1 else 's'}{interval}{most})"


def _cost(ensemble: Ensemble, results: Path, geometries: Sequence[Geometry]) -> list[str]:
    """Seconds by what held-out cases took, voxel by voxel, and the memory of the largest case."""
    if not geometries:
        return []
    seconds = [_seconds(model, ensemble.choice, results, geometries) for model in ensemble.models.values()]
    largest = max(need(ensemble.models.values(), one, len(ensemble.channels)).usual for one in geometries)
    time = f"about {duration(sum(seconds))} on a computer like the one that validated" if all(seconds) else "its time was not measured"
    noun = "case" if len(geometries) == 1 else "cases"
    return [f"--fast: {len(geometries)} {noun}: {time}; at most about {largest / 1e9:.1f} GB of memory for the largest"]


def _seconds(model: TrainedModel, choice: Choice, results: Path, geometries: Sequence[Geometry]) -> float:
    """Of all cases; 0 where nobody measured it, as of both stages of a cascade."""
    if model.depends_on:
        return 0.0
    way, known = way_of(model), known_losses(choice, results, model.name, ModelFolder(results / model.name).trained_folds())
    loss = next(iter(known.values()), None) if way is None else known.get(way)
    if loss is None or not loss.voxels:
        return 0.0
    return (loss.full_seconds if way is None else loss.seconds) / loss.voxels * sum(_voxels(model, one) for one in geometries)


def _voxels(model: TrainedModel, geometry: Geometry) -> float:
    """Of an image on a model's grid, without cropping."""
    return math.prod(grid_shape(model.plan, model.configuration, geometry))
