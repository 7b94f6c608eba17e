"""Training budget, and the batch, network width and patch size that suit the device and the budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ..runtime.hardware import StepCost
from ..runtime.registry import NetworkError
from ..schema import Budget, Configuration
from .memory import conv_elements
from .spacing import ANISOTROPY

ITERATIONS_PER_EPOCH = 250
REFERENCE_EPOCHS = 1000
CPU_SECONDS = 2 * 3600.0
MAX_VALIDATION_INTERVALS = 1000
CPU_ELEMENTS = 2.5e7
CPU_BATCH = 32
"""Largest step on a CPU: elements of 3D convolution outputs (a 2D kernel does a third of the work) of about half a second, and patches.
A larger batch would leave too few steps in any budget of minutes or hours (measured in benchmarks/README.md)."""

STEPS_TO_LEARN = 800
"""Smallest useful number of steps; a time budget with fewer gets smaller steps."""
STEPS_TO_LEARN_WELL = 2000
"""A time budget with fewer steps is better spent on more steps of a network with half the features."""
MIN_FEATURES = 16
"""Smallest number of features of the finest stage under a time budget."""
MIN_COVERAGE_WITHOUT_PADDING = 0.8
"""Smallest share of the median case, per axis, that a patch without padding must cover."""
MIN_BATCH_SIZE = 4
"""Smallest batch under a time budget."""
MIN_PATCH_SHARE = 0.5
"""Smallest share of the planned patch, per axis: below it context is worth more than steps."""
MIN_SLICES = 2
"""Fewest slices of a patch under a time budget where they are thick (`spacing.ANISOTROPY`)."""
MEMORY_SHARE = 0.85
"""Share of the device's free memory that a measured step may use; the rest is for fragmentation and other programs."""
PROBING_SHARE = 0.1
"""Most of a time budget that trying steps takes before the training, whatever they cost."""


def choose_budget(device_type: str, *, epochs: int | None = None, iterations: int | None = None, seconds: float | None = None) -> Budget:
    """Chooses the training budget: the one given, or the default of the device.

    Args:
        device_type: ``cuda``, ``mps`` or ``cpu``.
        epochs: Of 250 iterations.
        iterations: Optimisation steps.
        seconds: Wall time of training, without the validation of the fold.

    Raises:
        ValueError: More than one is given, or one is not positive.
    """
    options = {"--epochs": epochs, "--iterations": iterations, "--time": seconds}
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: expected only one of them")
    for name, value in given.items():
        if value <= 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    change = "change it with --time 2h, --epochs N or --iterations N"
    if seconds is not None:
        return Budget("time", float(seconds), _time_intervals(seconds), f"{_format_duration(seconds)} as asked (--time)")
    if iterations is not None:
        intervals = min(MAX_VALIDATION_INTERVALS, max(1, iterations // ITERATIONS_PER_EPOCH, min(20, iterations // 25)))
        return Budget("iterations", iterations, intervals, f"{iterations} iterations as asked (--iterations)")
    if epochs is not None:
        return Budget("iterations", epochs * ITERATIONS_PER_EPOCH, epochs, f"{epochs} epochs of {ITERATIONS_PER_EPOCH} iterations as asked")
    if device_type == "cpu":
        return Budget("time", CPU_SECONDS, _time_intervals(CPU_SECONDS), f"two hours, the default on a processor; {change}")
    why = f"{REFERENCE_EPOCHS} epochs of {ITERATIONS_PER_EPOCH} iterations, the default on a GPU; {change}"
    return Budget("iterations", REFERENCE_EPOCHS * ITERATIONS_PER_EPOCH, REFERENCE_EPOCHS, why)


def probing_limit(budget: Budget) -> float | None:
    """Seconds that trying steps may take before a training; None without a budget in time."""
    return PROBING_SHARE * budget.amount if budget.kind == "time" else None


def _time_intervals(seconds: float) -> int:
    return int(min(MAX_VALIDATION_INTERVALS, max(4, seconds // 60)))


def _format_duration(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.3g} s"


def fit_batch(
    configuration: Configuration, device_type: str, *, batch: int | None = None, keep_patch: bool = False
) -> tuple[Configuration, str]:
    """Fits batch and patch of a configuration to the device; returns it and one sentence why.

    On a GPU the plan is kept: it was made for its memory. On a processor memory is plentiful and time is not: few patches a step,
    and none that reach beyond the median case, since padding costs as much as image. `batch` is the one that the user asked
    for, and with `keep_patch` the patch is.

    Raises:
        ValueError: `batch` is less than one.
    """
    if device_type == "cpu" and not keep_patch:
        configuration = without_padding(configuration)
    if batch is not None:
        if batch < 1:
            raise ValueError(f"--batch: expected at least 1, got {batch}")
        return dataclasses.replace(configuration, batch_size=batch), f"batch {batch} as asked"
    planned = affordable = configuration.batch_size
    if device_type == "cpu":
        cost = conv_elements(configuration) / (3 if configuration.dim == 2 else 1)
        affordable = max(2, min(CPU_BATCH, int(CPU_ELEMENTS // max(cost, 1))))
    if affordable >= planned:
        return configuration, f"batch {planned} as planned"
    why = f"batch {affordable} instead of the planned {planned}: on a processor more steps learn more than larger ones (--batch to change)"
    return dataclasses.replace(configuration, batch_size=affordable), why


def without_padding(configuration: Configuration) -> Configuration:
    """Returns the configuration with the patch rounded down instead of up to the strides' multiples where it exceeds the median case."""
    sizes, strides = configuration.patch_size, patch_multiple(configuration)
    median = configuration.median_shape[-configuration.dim :]
    cut = [
        size - d if size > n and size - d >= MIN_COVERAGE_WITHOUT_PADDING * n else size
        for size, d, n in zip(sizes, strides, median, strict=True)
    ]
    return dataclasses.replace(configuration, patch_size=tuple(cut))


def patch_multiple(configuration: Configuration) -> list[int]:
    """Voxels of the patch, per axis, for one voxel of the coarsest stage."""
    if configuration.patch_multiple:
        return list(configuration.patch_multiple)
    try:
        return [math.prod(strides) for strides in zip(*configuration.network_options["strides"], strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        found = configuration.network_options.get("strides")
        raise NetworkError(f"{configuration.name}: network_options: strides: expected those of each stage, found {found!r}") from error


def fit_time_budget(
    configuration: Configuration,
    budget: Budget,
    cost: StepCost,
    measure: Callable[[Configuration], StepCost | None],
    *,
    may_narrow: bool = True,
    keep_patch: bool = False,
    min_batch: int = MIN_BATCH_SIZE,
) -> tuple[Configuration, StepCost, str]:
    """Reduces batch, network width and patch until a time budget has enough steps.

    First the batch, down to `min_batch`; then the network's features are halved; then the patch gets fewer slices, where they are thick
    (`thin_slab`); then it is cut, to half. Each only where a measured step becomes fast enough to be worth it: a part of a step's cost,
    that of large weights above all, does not go with the voxels.

    Args:
        configuration: Spacing and depth of the network stay as they are.
        budget: Budgets in iterations change nothing.
        cost: Of a step of `configuration`.
        measure: Cost of a step of another configuration, None where it does not fit into memory.
        may_narrow: Whether the network may be changed: not where it starts from trained weights, or its features were asked for.
        keep_patch: Whether the patch was asked for.
        min_batch: The batch is not halved below it.

    Returns:
        The configuration, the cost of its step, and a sentence for the user, empty where nothing was changed.
    """
    if budget.kind != "time":
        return configuration, cost, ""
    step_seconds = budget.amount / STEPS_TO_LEARN
    fitted, now = _with_fewer_voxels(configuration, cost, measure, step_seconds, lambda one: _with_half_batch(one, min_batch))
    narrow = with_half_features(fitted) if may_narrow else None
    if narrow is not None and budget.amount / now.seconds < STEPS_TO_LEARN_WELL:
        measured = measure(narrow)
        fitted, now = (narrow, measured) if measured is not None and measured.seconds < now.seconds else (fitted, now)
    if not keep_patch:
        fitted, now = _with_fewer_voxels(fitted, now, measure, step_seconds, thin_slab)
        min_patch = tuple(size * MIN_PATCH_SHARE for size in fitted.patch_size)
        fitted, now = _with_fewer_voxels(fitted, now, measure, step_seconds, lambda one: shrink_patch(one, min_patch))
    if fitted is configuration:
        return configuration, cost, ""
    words, planned = (_describe_step(one) for one in (fitted, configuration))
    before, after = (budget.amount / one.seconds for one in (cost, now))
    words += ", Dice over the batch" if fitted.batch_dice != configuration.batch_dice else ""
    return fitted, now, f"{words} instead of {planned}: so the time is enough for about {after:.0f} steps instead of {before:.0f}"


def with_half_features(configuration: Configuration) -> Configuration | None:
    """Halves the features of the network; None where they would be too few, or the network has no such option."""
    features = configuration.built_options.get("features")
    if not isinstance(features, (list, tuple)) or min(features) / 2 < MIN_FEATURES:
        return None
    return dataclasses.replace(configuration, width=configuration.width / 2)


def _describe_step(configuration: Configuration) -> str:
    patch = "x".join(map(str, configuration.patch_size))
    widths = configuration.built_options.get("features")
    features = f", features {widths[0]} and up" if isinstance(widths, (list, tuple)) else ""
    return f"batch {configuration.batch_size}, patch {patch}{features}"


def _with_half_batch(configuration: Configuration, min_batch: int) -> Configuration | None:
    half = configuration.batch_size // 2
    return dataclasses.replace(configuration, batch_size=half) if half >= min_batch else None


def _with_fewer_voxels(
    configuration: Configuration,
    cost: StepCost,
    measure: Callable[[Configuration], StepCost | None],
    step_seconds: float,
    smaller: Callable[[Configuration], Configuration | None],
) -> tuple[Configuration, StepCost]:
    """Applies `smaller` until a step takes `step_seconds` seconds, but no further than it is worthwhile.

    The last one is measured; those between it and the present one cost what a straight line through both says. A step with a fourth of the
    voxels must be twice as fast: four times the steps with as many voxels in all are worth more, half of the voxels for nothing are not.
    """
    sizes, voxels = [configuration], [_voxels_per_step(configuration)]
    while cost.seconds * voxels[-1] / voxels[0] > step_seconds and (next_one := smaller(sizes[-1])) is not None:
        sizes.append(next_one)
        voxels.append(_voxels_per_step(next_one))
    last_cost = measure(sizes[-1]) if len(sizes) > 1 else None
    if last_cost is None:
        return configuration, cost
    if not _is_worthwhile(last_cost, cost, voxels[-1] / voxels[0]):  # or another program took the processor for a moment: both once more
        again = [measure(configuration) or cost, measure(sizes[-1]) or last_cost]
        cost, last_cost = (min(pair, key=lambda one: one.seconds) for pair in zip((cost, last_cost), again, strict=True))
    per_voxel = max(0.0, cost.seconds - last_cost.seconds) / (voxels[0] - voxels[-1])
    for size, n in zip(sizes[:0:-1], voxels[:0:-1], strict=True):
        between = dataclasses.replace(cost, seconds=last_cost.seconds + per_voxel * (n - voxels[-1]), tile_seconds=0.0)
        if _is_worthwhile(between, cost, n / voxels[0]):
            return size, last_cost if n == voxels[-1] else between
    return configuration, cost


def _is_worthwhile(smaller: StepCost, cost: StepCost, share: float) -> bool:
    """Whether a step with `share` of the voxels takes at most the square root of that share of the time."""
    return smaller.seconds <= cost.seconds * math.sqrt(share)


def _voxels_per_step(configuration: Configuration) -> int:
    return configuration.batch_size * math.prod(configuration.input_size)


def thin_slab(configuration: Configuration) -> Configuration | None:
    """Takes slices from the patch of a volume of thick slices; None where slices are not thick, or `MIN_SLICES` are left.

    Neighbouring slices that are much thicker than their voxels are wide say little about a voxel, and all of a slice says where in the
    body it is. A network that never saw more than a part of it sees organs where none are. The Dice loss is then counted over the batch,
    as in 2D: counted a sample, patches without an organ have a soft Dice next to 0 whatever is predicted there, and no slope.
    """
    spacing, sizes, divisors = configuration.spacing, configuration.patch_size, patch_multiple(configuration)
    axis = max(range(configuration.dim), key=lambda one: spacing[one])
    size = sizes[axis] - divisors[axis]
    if configuration.dim == 2 or spacing[axis] <= ANISOTROPY * sorted(spacing)[-2] or size < MIN_SLICES:
        return None
    return dataclasses.replace(configuration, patch_size=(*sizes[:axis], size, *sizes[axis + 1 :]), batch_dice=True)


def shrink_patch(configuration: Configuration, min_sizes: tuple[float, ...]) -> Configuration | None:
    """Shrinks the patch by a voxel of the coarsest stage along its relatively largest axis; None where every axis is at its least."""
    divisors, sizes = patch_multiple(configuration), configuration.patch_size
    room = [size / d if size - d >= low else 0.0 for size, d, low in zip(sizes, divisors, min_sizes, strict=True)]
    # Two coarsest voxels an axis are the least that instance normalisation and the decoder can work with.
    if max(room) <= 2:
        return None
    axis = room.index(max(room))
    patch = tuple(size - divisors[i] if i == axis else size for i, size in enumerate(sizes))
    return dataclasses.replace(configuration, patch_size=patch)


def fit_memory(
    configuration: Configuration, measure: Callable[[Configuration], StepCost | None], *, limit_bytes: int, keep_patch: bool = False
) -> tuple[Configuration, StepCost, str]:
    """Reduces batch and patch until a measured step fits into memory.

    Args:
        configuration: With the batch that is wanted.
        measure: Cost of a training step, None where it does not fit at all.
        limit_bytes: Free memory of the device; `MEMORY_SHARE` of it is used.
        keep_patch: Reduce the batch only, as other folds of the model have this patch.

    Returns:
        As `fit_time_budget`.

    Raises:
        RuntimeError: Even the smallest step does not fit.
    """
    fitted = configuration
    while True:
        cost, patch = measure(fitted), "x".join(map(str, fitted.patch_size))
        if cost is not None and cost.peak_bytes <= MEMORY_SHARE * limit_bytes:
            why = f"a step of the plan did not fit into memory: patch {patch}, batch {fitted.batch_size} does"
            return fitted, cost, "" if fitted == configuration else why
        smaller = smaller_step(fitted, configuration, keep_patch=keep_patch)
        if smaller is None:
            free = f"{limit_bytes / 1e9:.1f} GB of free memory"
            raise RuntimeError(f"{fitted.name}: not even batch {fitted.batch_size} of patch {patch} fits into {free}; close other programs")
        fitted = smaller


def smaller_step(configuration: Configuration, initial: Configuration, *, keep_patch: bool = False) -> Configuration | None:
    """Returns the next smaller step: the batch halved down to two, the patch cut to half of `initial`, a single patch, the least patch.

    None where nothing is left to cut. A batch of two is worth some context: a single patch makes a noisy gradient.
    """
    batch = configuration.batch_size
    if batch > 2:
        return dataclasses.replace(configuration, batch_size=max(2, batch // 2))
    if keep_patch:
        return dataclasses.replace(configuration, batch_size=1) if batch == 2 else None
    if batch == 1:
        return shrink_patch(configuration, (0.0,) * configuration.dim)
    smaller = shrink_patch(configuration, tuple(size * MIN_PATCH_SHARE for size in initial.patch_size))
    return smaller or dataclasses.replace(configuration, batch_size=1)
