"""What mirrored copies, close tiles and the whole volume gain: held-out cases predicted in cheaper ways too, once a network.

Prediction follows it: mirrored copies are averaged where they gain something, and ``autoseg_predict --fast`` says what it loses.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn
from tqdm import tqdm

from ..inference.coarse_to_fine import CoarseToFinePredictor, is_suited
from ..inference.predictor import Predictor
from ..inference.volume_predictor import VolumePredictor
from ..preprocessing.storage import Store
from ..runtime.case_contents import checkpoint_id
from ..runtime.failures import failure_of
from ..runtime.hardware import StepCost
from ..runtime.runs import ALL, Run
from ..runtime.serialization import read_json, write_json
from ..schema import Case, Configuration, Dataset, Mirroring, Score
from ..schema.cheaper_prediction import COARSE_TO_FINE, LARGER_STEPS, NO_MIRRORING, CheaperCase, CheaperValidation
from .held_out_prediction import HeldOutPrediction, predict_held_out
from .trial import trial_cases
from .validation_plan import CaseSize, predicted_validation, validation_limit

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger(__name__)

FAST_STEP = 0.75
"""Distance of tiles in the cheaper ways, as a share of the patch."""
MOST_PATIENTS = 12
TIME_SHARE = 0.25
"""Of the seconds that validation took, which this may add to it where its time is limited."""

CHEAPER = "cheaper.json"


def read_cheaper(run: Run) -> list[CheaperCase]:
    """What was measured of a run's present network; empty where nothing was, as by earlier versions."""
    return _noted(run).cases


def is_cheaper_interrupted(run: Run) -> bool:
    """Whether measuring a run's present network was begun and not ended."""
    return bool(_noted(run).waiting)


def _noted(run: Run) -> CheaperValidation:
    """What ``validation/cheaper.json`` holds of the present network."""
    path, nothing = run.validation / CHEAPER, CheaperValidation("")
    if not path.is_file() or not run.is_trained:
        return nothing
    found = read_json(path, CheaperValidation)
    return found if found.network == checkpoint_id(run.checkpoint) else nothing


def validate_cheaper(trainer: Trainer, network: nn.Module, dataset: Dataset) -> list[CheaperCase]:
    """Predicts one case a held-out patient in cheaper ways, and writes ``validation/cheaper.json``; does nothing where that was done.

    Of 12 patients at the most; in a training of limited time as many as a quarter of the time suffices for that validation takes, or may
    take where that is more. A case that fails is left out. What was interrupted goes on with the cases that waited.

    Returns:
        What is known then; empty for fold ``all``, which has no held-out case.
    """
    job, run = trainer.job, Run(trainer.folders.run)
    if job.fold == ALL or not job.split.val or not run.checkpoint.is_file():
        return read_cheaper(run)
    noted = _noted(run)
    if noted.cases and not noted.waiting:
        return noted.cases
    full = {name: read_json(run.case_scores(name), list[Score]) for name in job.split.val if run.case_scores(name).is_file()}
    cases = [case for case in trial_cases(list(full), dataset) if Store(trainer.folders.data).has(case.name)][:MOST_PATIENTS]
    if noted.waiting:
        cases = [case for case in cases if case.name in noted.waiting]
    found = CheaperValidation(checkpoint_id(run.checkpoint), [*noted.cases], [case.name for case in cases])
    _predict_cheaper(trainer, network, cases, full, found)
    found.waiting.clear()
    if found.cases:
        write_json(run.validation / CHEAPER, found)
    else:
        (run.validation / CHEAPER).unlink(missing_ok=True)
    return found.cases


def _predict_cheaper(
    trainer: Trainer, network: nn.Module, cases: Sequence[Case], full: Mapping[str, list[Score]], found: CheaperValidation
) -> None:
    """Adds the cases to what was found, as far as the time suffices, and notes after each what waits: a kill loses one at the most."""
    run = Run(trainer.folders.run)
    limit, started, slowest = _limit(trainer, run), time.monotonic(), 0.0
    limit -= sum(one.seconds for one in found.cases)
    failures: dict[str, str] = {}
    for case in tqdm(cases, desc="Predicting in cheaper ways", unit="case", disable=not trainer.progress):
        if time.monotonic() - started + (slowest or _expected(trainer, run, case)) > limit:
            break
        write_json(run.validation / CHEAPER, found)
        begun = time.monotonic()
        with failure_of(case.name, failures, "could not be predicted in cheaper ways"):
            found.cases.extend(_in_cheaper_ways(trainer, network, case, full[case.name]))
        found.waiting.remove(case.name)
        slowest = max(slowest, time.monotonic() - begun)


def cheaper_ways(configuration: Configuration) -> dict[str, Configuration]:
    """Each way that is cheaper than the one before, in the order of `WAYS`, with the mirroring and tiling that it has."""
    ways, tiling = {}, configuration.tiling
    bare = replace(configuration, mirroring=Mirroring())
    if configuration.mirroring.axes:
        ways[NO_MIRRORING] = bare
    whole = configuration.locator is not None and configuration.locator.whole
    if tiling.mean == "gaussian" and tiling.step < FAST_STEP and not whole:
        ways[LARGER_STEPS] = bare = replace(bare, tiling=replace(tiling, step=FAST_STEP))
    if is_suited(configuration):
        ways[COARSE_TO_FINE] = bare
    return ways


def predicted_cheaper(configuration: Configuration, cases: Sequence[CaseSize], cost: StepCost, *, outputs: int) -> float:
    """Seconds of `validate_cheaper` after a full validation whose time is not limited; arguments as of `predicted_validation`."""
    few = cases[:MOST_PATIENTS]
    return sum(predicted_validation(one, few, cost, outputs=outputs) for one in cheaper_ways(configuration).values())


def _in_cheaper_ways(trainer: Trainer, network: nn.Module, case: Case, validated: list[Score]) -> Iterator[CheaperCase]:
    job = trainer.job
    timings = Run(trainer.folders.run).timings()
    full = HeldOutPrediction(validated, timings.get(case.name, 0.0))
    if job.validation is not None:  # which had fewer copies or tiles
        full = predict_held_out(case, _predictor(trainer, network, job.configuration), job, trainer.folders)
    for way, configuration in cheaper_ways(job.configuration).items():
        predictor = _predictor(trainer, network, configuration)
        if way == COARSE_TO_FINE:
            if not isinstance(predictor, Predictor):
                continue
            predictor = CoarseToFinePredictor(predictor)
        quick = predict_held_out(case, predictor, job, trainer.folders)
        dice, in_full = ({score.organ: score.dice for score in one.scores} for one in (quick, full))
        seconds, full_seconds = (round(one.seconds + one.export_seconds, 3) for one in (quick, full))
        yield CheaperCase(case.name, way, case.group or case.name, dice, in_full, seconds, full_seconds, quick.voxels)


def _predictor(trainer: Trainer, network: nn.Module, configuration: Configuration) -> VolumePredictor:
    return trainer.for_job(replace(trainer.job, configuration=configuration, validation=None)).predictor(network)


def _limit(trainer: Trainer, run: Run) -> float:
    """Seconds that this may take: a share of what validation took or, where that was little, of what it may take."""
    allowed = validation_limit(trainer.job.budget)
    return math.inf if allowed is None else TIME_SHARE * max(allowed, sum(run.timings().values()))


def _expected(trainer: Trainer, run: Run, case: Case) -> float:
    """Seconds of the first case, which is the first to be measured: what its validation took, times how much more that is in full."""
    validation, axes = trainer.job.validation, trainer.job.configuration.mirroring.axes
    copies = 1.0 if validation is None else 2.0 ** (len(axes) - len(validation.mirror_axes))
    share = 2.0 / 2 ** len(axes) if validation is None else copies
    return run.timings().get(case.name, 0.0) * share
