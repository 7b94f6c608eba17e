"""How held-out cases are predicted after a training of limited time: in full where that fits, else with fewer mirrored copies and tiles.

Decided before the training, from measured tiles, and kept in `RunRecord.validation`: what is interrupted and goes on, and the further folds
of a model, are validated alike. Mirrored copies go first: of what full validation costs they are most, and of the Dice they gain little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..inference.tiling import axis_starts
from ..runtime.hardware import StepCost
from ..runtime.shown_text import duration
from ..schema import Budget, Configuration
from ..schema.run_record import RunRecord, ValidationSettings

VALIDATION_SHARE = 0.5
"""Most of a training's time that its validation should take ..."""
LEAST_VALIDATION = 60.0
"""... but so many seconds it always may."""
LARGER_STEPS = (0.75, 1.0)
"""Distances of tiles, as a share of the patch, that are tried when no mirrored copy is left."""

FULL = "full"
"""What `TrainSettings.validation` says for all mirrored copies and tiles, however long that takes."""


EXPORT_SECONDS, SCORE_SECONDS = 1e-8, 2.5e-7
"""After prediction: for each logit; and for each voxel of the file, whose label map is written and compared with the reference."""


@dataclass(frozen=True)
class CaseSize:
    """Size of a case in a configuration.

    Attributes:
        shape: Voxels ``(Z, Y, X)`` on the configuration's grid.
        file_voxels: Voxels of the image, of one channel.
    """

    shape: tuple[int, ...]
    file_voxels: int


def validation_limit(budget: Budget) -> float | None:
    """Seconds that validation should take at the most; None where the budget is no time, as results must be repeatable then."""
    return max(LEAST_VALIDATION, VALIDATION_SHARE * budget.amount) if budget.kind == "time" else None


def as_validated(job: RunRecord) -> Configuration:
    """The configuration of a run with the mirroring and the tiles of its validation."""
    return job.configuration if job.validation is None else _reduced(job.configuration, job.validation)


def _reduced(configuration: Configuration, settings: ValidationSettings) -> Configuration:
    mirroring = replace(configuration.mirroring, axes=settings.mirror_axes)
    return replace(configuration, mirroring=mirroring, tiling=replace(configuration.tiling, step=settings.step))


def predicted_validation(configuration: Configuration, cases: Sequence[CaseSize], cost: StepCost, *, outputs: int) -> float:
    """Seconds of validating a fold: tiles x mirrored copies x seconds of a tile, export, and scores of each held-out case.

    Tiles outside of a candidate region or a located box are counted too, so of a cascade it is the most that it can take.

    Args:
        configuration: With the patch, the mirroring and the tiling that validation has.
        cases: The held-out ones (`case_size`).
        cost: Of this configuration, of `predicted_step`.
        outputs: Of the network.
    """
    copies, of_tile = 2 ** len(configuration.mirroring.axes), tile_seconds(configuration, cost)
    tiles = sum(tiles_of(configuration, case.shape) for case in cases)
    after = sum(outputs * math.prod(case.shape) * EXPORT_SECONDS + case.file_voxels * SCORE_SECONDS for case in cases)
    return tiles * copies * of_tile + after


def tile_seconds(configuration: Configuration, cost: StepCost) -> float:
    """Seconds of one tile without mirrored copies: as measured, else a third of a patch's share of a training step."""
    return cost.tile_seconds or cost.seconds / (3 * configuration.batch_size)


def tiles_of(configuration: Configuration, shape: Sequence[int]) -> int:
    """Tiles of a sliding window over a case of this shape."""
    if configuration.locator is not None and configuration.locator.whole:
        return 1
    patch, step = configuration.patch_size, configuration.tiling.step
    edges = zip(shape[-configuration.dim :], patch, strict=True)
    in_patch_axes = math.prod(len(axis_starts(max(size, edge), edge, step)) for size, edge in edges)
    return in_patch_axes * (shape[0] if configuration.dim == 2 else 1)


def plan_validation(
    configuration: Configuration, cases: Sequence[CaseSize], cost: StepCost, *, outputs: int, limit: float | None
) -> tuple[ValidationSettings | None, str]:
    """The first of ever cheaper validations that takes at most `limit` seconds, and a sentence for the user.

    The copies that are flipped along the first axis go first, which is mostly the one from slice to slice.

    Args:
        configuration: As it is trained.
        cases: Held-out ones.
        cost: Of this configuration's steps and tiles.
        outputs: Of the network.
        limit: None plans nothing.

    Returns:
        None in place of the settings means as in prediction, in full.
    """

    def seconds(one: Configuration) -> float:
        return predicted_validation(one, cases, cost, outputs=outputs)

    if not cases:
        return None, ""
    noun, full = "case" if len(cases) == 1 else "cases", seconds(configuration)
    if limit is None or full <= limit:
        return None, f"Validation of {len(cases)} {noun} will then take about {duration(full)}"
    tried = _cheaper(configuration)
    found = next((one for one in tried if seconds(_reduced(configuration, one)) <= limit), tried[-1] if tried else None)
    if found is None:
        return None, f"Validation of {len(cases)} {noun} will then take about {duration(full)}; nothing of it can be left out"
    took = duration(seconds(_reduced(configuration, found)))
    return found, (
        f"Validation of {len(cases)} {noun} would take about {duration(full)}, with {describe(configuration)}; it will have "
        f"{describe(_reduced(configuration, found))} and take about {took} (--validation full: all, whatever it takes)"
    )


def describe(configuration: Configuration) -> str:
    """The mirrored copies and the tiles of a configuration, in words."""
    copies = 2 ** len(configuration.mirroring.axes)
    mirrored = "no mirrored copies" if copies == 1 else f"{copies} mirrored copies"
    return f"{mirrored} and tiles {configuration.tiling.step:g} of the patch apart"


def _cheaper(configuration: Configuration) -> list[ValidationSettings]:
    """Settings that cost less than full validation, the best first."""
    axes, tiling = configuration.mirroring.axes, configuration.tiling
    fewer = [ValidationSettings(axes[left_out:], tiling.step) for left_out in range(1, len(axes) + 1)]
    whole = configuration.locator is not None and configuration.locator.whole
    steps = [step for step in LARGER_STEPS if step > tiling.step and tiling.mean == "gaussian" and not whole]
    return [*fewer, *(ValidationSettings((), step) for step in steps)]
