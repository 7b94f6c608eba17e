"""The cross-validation by which candidates are judged, and one way to work through its held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..evaluation.case_scores import score_case
from ..evaluation.metrics import DEFAULT_METRICS, METRICS
from ..inference.postprocessing import apply_postprocessing, forced
from ..runtime.runs import ALL, ModelFolder, Run
from ..runtime.serialization import read_json
from ..runtime.worker_pool import run_cases
from ..schema import Case, Labels, Plan, PostProcessing, Score

log = logging.getLogger(__name__)

T = TypeVar("T")

HeldOutCase = tuple[str, Case]
"""Name of a fold, and a case that was held out in it."""

MANY = 200_000_000
"""Voxels of models' predictions to go through, all cases and models together, from which starting further processes pays."""

BASE_BYTES, BYTES_A_VOXEL = 450 * 2**20, 20
"""Peak memory of a process, and for each voxel of a case's label map: as measured with ten models; more models hold little more."""


@dataclass(frozen=True)
class CrossValidation:
    """The validation cases on which candidates are compared, and the metric that compares them.

    Attributes:
        cases: Fold to the cases that every model predicted in it.
        tolerances: Organ to the tolerance in mm; others have `TOLERANCE_MM`.
        vote: Members of a candidate vote instead of being averaged.
        postprocess: Post-processing that everything is scored with (`inference.postprocessing.requested_steps`).
        failures: Gets case -> reason for the cases whose files are damaged, and the others are compared. None: they are an error.
        unstored: ``model/fold`` to its scores, where they are others than those stored, as this user may not write them.
    """

    results: Path
    plan: Plan
    cases: Mapping[str, tuple[Case, ...]]
    metric: str = "dice"
    tolerances: Mapping[str, float] = field(default_factory=dict)
    unstored: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    vote: bool = False
    postprocess: tuple[str, ...] = ()
    failures: MutableMapping[str, str] | None = None

    @property
    def all_cases(self) -> list[HeldOutCase]:
        """Every case with its fold, those of fold ``all`` included."""
        return [(fold, case) for fold, cases in self.cases.items() for case in cases]

    @property
    def held_out(self) -> list[HeldOutCase]:
        """The cases that no network of their fold was trained on: fold ``all`` has none."""
        return [(fold, case) for fold, case in self.all_cases if fold != ALL]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics to compute beside Dice and IoU, which every score has."""
        return () if self.metric in ("dice", "iou") else (self.metric,)

    @property
    def postprocessing(self) -> dict[str, PostProcessing]:
        """Post-processing by organ that everything is scored with."""
        return forced(self.postprocess, self.plan.labels, {})

    def run(self, model: str, fold: str) -> Run:
        """The run that validated a model in a fold."""
        return ModelFolder(self.results / model).run(fold)

    def scores(self, model: str, fold: str) -> Sequence[Score]:
        """The scores of a model's held-out cases in a fold."""
        unstored = self.unstored.get(f"{model}/{fold}")
        return self.run(model, fold).scores() if unstored is None else unstored

    def score(
        self,
        case: Case,
        prediction: np.ndarray,
        reference: np.ndarray,
        labels: Labels,
        spacing_mm: tuple[float, ...] | None,
        *,
        by_all: bool = False,
    ) -> list[Score]:
        """Scores a label map by the metric, one score for each organ that was annotated in the case; arguments as of `score_case`.

        With `by_all` also by the default metrics, as in validation.
        """
        steps = {organ: one for organ, one in self.postprocessing.items() if organ in labels.names}
        prediction = apply_postprocessing(prediction, labels, steps, spacing_mm or (1.0,) * prediction.ndim)
        known = [name for name in DEFAULT_METRICS if by_all and (spacing_mm is not None or METRICS[name].needs == "overlap")]
        scored = partial(score_case, metrics=(*known, *self.metrics), organs=case.annotated, tolerance_mm=self.tolerances)
        return scored(case.name, prediction, reference, labels, spacing_mm=spacing_mm)

    def voxels(self, fold: str, case: Case) -> int:
        """Voxels of a case's label map, from any trace that was stored of it; 0 where none was."""
        path = next(self.results.glob(f"*/fold_{fold}/validation/{case.name}.trace.json"), None)
        try:
            return int(np.prod(read_json(path, dict)["shape_before_crop"])) if path else 0
        except (ValueError, KeyError, TypeError):  # damaged, which whoever needs it will name
            return 0


def for_each_case(
    function: Callable[..., T],
    cross_validation: CrossValidation,
    *,
    what: str,
    models: int,
    arguments: Mapping[HeldOutCase, tuple[Any, ...]] | None = None,
) -> dict[HeldOutCase, T]:
    """Calls ``function(fold, case, *arguments)`` for held-out cases, in further processes where there is much to do; case to result.

    A case that fails is missing in what is returned, and named in `CrossValidation.failures`.

    Args:
        function: A function of a module, or a `functools.partial` of one.
        what: Title of the progress bar and of the error.
        models: Number of models whose predictions of a case are read.
        arguments: The cases to work through instead, with further arguments for each.

    Raises:
        ValueError: All cases failed, or one where `CrossValidation.failures` is None; the message names the first that did.
    """
    given = dict.fromkeys(cross_validation.held_out, ()) if arguments is None else arguments
    jobs = {f"fold {fold}, {case.name}": (fold, case, *further) for (fold, case), further in given.items()}
    voxels = [cross_validation.voxels(fold, case) for fold, case in given]
    workers = None if models * sum(voxels) > MANY else 0
    memory = BASE_BYTES + BYTES_A_VOXEL * max(voxels, default=0)
    results, failures = run_cases(function, jobs, workers=workers, title=what, memory_per_job=memory)
    known = cross_validation.failures
    if failures and (known is None or len(failures) == len(cross_validation.all_cases)):
        name, reason = next(iter(failures.items()))
        raise ValueError(f"{what}: {len(failures)} of {len(jobs)} cases failed; the first: {name}: {reason}")
    for (_, case), name in zip(given, jobs, strict=True):
        if known is not None and name in failures:
            if case.name not in known:
                log.error("%s: %s is left out: %s", what, name, failures[name])
            known.setdefault(case.name, failures[name])
    return {key: results[name] for key, name in zip(given, jobs, strict=True) if name in results}
