"""How long the parts of a training will take, told before it begins: trying steps, a step, validation, and preprocessing before it.

A step and a tile are measured (`predicted_step`); everything else follows from sizes that the fingerprint knows. `pipeline.total_time` says
them to the user, and a study plans with them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..planners.budget import fit_batch, probing_limit
from ..preprocessing.orientation import orientation_transform
from ..preprocessing.resampling import resampled_shape
from ..preprocessing.storage import Store
from ..runtime.hardware import StepCost, choose_device, cpu_count
from ..schema import CaseFingerprint, Configuration, Plan, Split
from ..schema.run_record import RunRecord
from ..schema.settings import TrainSettings
from ..schema.training_options import TrainingOptions
from .run_setup import budget_of
from .step_cost import Probe, measure_step
from .training_spec import TrainingSpec
from .validation_plan import CaseSize

log = logging.getLogger(__name__)

USUAL_PROBING = 15.0
"""Seconds of trying steps before a training whose length is given in iterations: one process that starts, and three steps."""

CASE_SECONDS, VOXEL_SECONDS = 0.05, 2.5e-7
"""Of preprocessing, for each case, and for each voxel of a channel in the file or on the configuration's grid; seconds of one core."""
WORKER_SECONDS = 1.5
"""Until a worker process has started."""


def predicted_probing(settings: TrainSettings) -> float:
    """Seconds that trying steps takes before a training, at most."""
    return probing_limit(budget_of(settings)) or USUAL_PROBING


def predicted_step(settings: TrainSettings, spec: TrainingSpec, *, limit: float | None = None) -> StepCost | None:
    """Cost of a training step, and of a tile of prediction, measured in a process of its own; None where the step cannot be taken.

    It is that of the plan's batch and network on this device; a budget in time makes both smaller until it holds enough steps, and the
    training itself says why a step cannot be taken. It takes at most `limit` seconds, after which it is estimated.
    """
    device = choose_device(settings.device)
    configuration, _ = fit_batch(spec.configuration, device.type, batch=settings.batch, keep_patch=bool(settings.patch))
    job = RunRecord(
        plan=spec.plan,
        configuration=configuration,
        fold="0",
        split=Split(("random",), ()),
        budget=budget_of(settings),
        seed=settings.seed,
        options=TrainingOptions(),
        trainer=settings.trainer,
        trainer_options=settings.trainer_options,
        settings=replace(settings, restart=False),
    )
    try:
        return measure_step(job, Probe(str(device), limit=limit, progress=True))
    except (ValueError, RuntimeError) as error:
        log.debug("A step of %s was not measured: %s", configuration.name, error)
        return None


def predicted_preprocessing(
    plan: Plan, configuration: Configuration, cases: Sequence[CaseFingerprint], *, workers: int | None = None
) -> float:
    """Seconds of preprocessing cases for a configuration with that many processes (None: as many as cores).

    Memory that allows fewer processes at a time makes it longer.
    """
    if not cases:
        return 0.0
    count = max(1, min(cpu_count() if workers is None else workers, len(cases)))
    sizes = [case_size(plan, configuration, case) for case in cases]
    voxels = len(plan.channels) * sum(one.file_voxels + math.prod(one.shape) for one in sizes)
    return WORKER_SECONDS + (len(cases) * CASE_SECONDS + voxels * VOXEL_SECONDS) / count


def case_size(plan: Plan, configuration: Configuration, case: CaseFingerprint) -> CaseSize:
    """The size of a measured case on a configuration's grid, as preprocessing will make it."""
    order = plan.order_of(configuration)
    if len(case.shape) == 3:
        from_file, _ = orientation_transform(case.orientation, plan.orientation)
        order = tuple(from_file[axis] for axis in order)
    shape, spacing = tuple(case.shape[axis] for axis in order), tuple(case.spacing[axis] for axis in order)
    target = configuration.spacing if len(spacing) == len(configuration.spacing) else (spacing[0], *configuration.spacing)
    if configuration.center_crop:
        shape = (*shape[:-2], *map(min, shape[-2:], configuration.center_crop))
    new = resampled_shape(shape, spacing, target)
    new = (*new[:-2], *configuration.slice_shape) if configuration.slice_shape else new
    new = new if len(new) == 3 else (1, *new)
    return CaseSize(tuple(new), round(math.prod(case.shape) / max(case.relative_size, 1e-6)))


def stored_sizes(folder: Path, names: Sequence[str]) -> list[CaseSize]:
    """The sizes of those cases that are preprocessed in a folder."""
    store = Store(folder)
    traces = [store.load(name).trace for name in names if store.has(name)]
    return [CaseSize(tuple(trace.shape), math.prod(trace.geometry.shape)) for trace in traces]
