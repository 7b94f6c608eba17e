"""Fingerprint of a dataset: shapes, spacings, organs and foreground intensities of its cases."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.annotations import annotated_indices, check_annotated
from ..data.case_sizes import case_voxels
from ..data.geometry import geometry_difference
from ..data.hounsfield import is_ct, not_in_hounsfield_units, warn_of_other_units
from ..data.images import read_case_image
from ..data.label_placement import read_case_label
from ..data.labels import to_internal_values
from ..preprocessing.cropping import nonzero_box, slices_of
from ..preprocessing.orientation import orientation_of
from ..runtime.provenance import case_ids
from ..runtime.worker_pool import run_cases
from ..schema import Case, CaseFingerprint, Dataset, Fingerprint, Image, Intensity, Labels

log = logging.getLogger(__name__)

SKETCH_SIZE = 10_000
"""Quantiles kept of one channel of one case."""
BYTES_PER_VOXEL = 24
"""Peak of `measure_case` per voxel of one channel: the image, its mask while holes are filled, the label map, sorted foreground."""


@dataclass(frozen=True)
class Sketch:
    """The foreground intensities of one channel of one case: ascending quantiles, each of an equal share of the values, and moments."""

    quantiles: np.ndarray
    mean: float
    variance: float


@dataclass(frozen=True)
class MeasuredCase:
    """What was measured of one case.

    Attributes:
        fingerprint: Its shape, spacing and organs.
        sketches: One a channel; none where the case has no foreground.
        digests: The content ids of its files (`Case.digests`).
        other_units: The values of a channel called CT that cannot be Hounsfield units; mostly empty.
        has_spacing: As `Geometry.has_spacing` of the image.
    """

    fingerprint: CaseFingerprint
    sketches: tuple[Sketch, ...]
    digests: tuple[str, ...]
    other_units: str = ""
    has_spacing: bool = True


@dataclass(frozen=True)
class Measured:
    """The fingerprint of the cases that could be read with their content ids (`Case.digests`), and the reason of each failure, by case."""

    fingerprint: Fingerprint
    failures: dict[str, str]
    digests: dict[str, tuple[str, ...]]


def measure_dataset(dataset: Dataset, *, workers: int | None = None) -> Measured:
    """Measures all cases of a dataset, and takes the content ids of their files while they are read.

    Args:
        dataset: With labelled cases.
        workers: Processes; None takes what cores and memory allow, 0 works in this process.

    Raises:
        ValueError: No case could be measured, or no case has any foreground.
    """
    jobs = {case.name: (case, dataset.labels, dataset.channels) for case in dataset.cases}
    memory = {case.name: BYTES_PER_VOXEL * len(dataset.channels) * case_voxels(case) for case in dataset.cases}
    results, failures = run_cases(measure_case, jobs, workers=workers, title="Fingerprint", memory_per_job=memory)
    if not results:
        first = next((f"{name}: {reason}" for name, reason in failures.items()), "the dataset has no cases")
        raise ValueError(f"{dataset.name}: expected at least one readable labelled case, found none; {first}")
    odd = _unlike_the_others(results)
    results = {name: one for name, one in results.items() if name not in odd}
    failures |= odd
    warn_of_other_units({name: one.other_units for name, one in results.items() if one.other_units}, len(dataset.cases))
    sketches = [one.sketches for one in results.values() if one.sketches]
    if not sketches:
        raise ValueError(f"{dataset.name}: expected foreground in the label maps, found only background in all {len(results)} of them")
    intensities = tuple(combine([case[channel] for case in sketches]) for channel in range(len(dataset.channels)))
    has_spacing = all(one.has_spacing for one in results.values())
    fingerprint = Fingerprint(tuple(one.fingerprint for one in results.values()), intensities, has_spacing)
    return Measured(fingerprint, failures, {name: one.digests for name, one in results.items()})


def _unlike_the_others(measured: Mapping[str, MeasuredCase]) -> dict[str, str]:
    """Case -> reason for the fewer ones where 2D images and volumes are mixed, or images of unknown and of known spacing."""
    dims = Counter(len(one.fingerprint.spacing) for one in measured.values())
    dim = max(dims, key=lambda number: (dims[number], number))
    alike = [one.has_spacing for one in measured.values() if len(one.fingerprint.spacing) == dim]
    n_known, count = sum(alike), len(alike)
    known = 2 * n_known >= count
    reasons = {}
    for name, one in measured.items():
        if len(one.fingerprint.spacing) != dim:
            found = len(one.fingerprint.spacing)
            reasons[name] = f"expected an image of {dim} axes as of {dims[dim]} of {len(measured)} cases, found {found}"
        elif known and not one.has_spacing:
            where = "of a picture in a file <image>.json beside it"
            reasons[name] = f"expected a spacing in mm ({where}), as {n_known} of {count} cases have one; found none"
        elif not known and one.has_spacing:
            what = f"expected no spacing, as {count - n_known} of {count} cases have none; found {_in_words(one.fingerprint.spacing)} mm"
            reasons[name] = f"{what}; give the others theirs, of a picture in a file <image>.json beside it"
    return reasons


def _in_words(spacing: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in spacing)


def measure_case(case: Case, labels: Labels, channels: Sequence[str]) -> MeasuredCase:
    """Measures one case, and takes the content ids of its files.

    The foreground is what is labelled as an organ and lies inside the box of non-zero voxels; unannotated voxels do not count. An organ
    that was not annotated in the case has no voxels.

    Raises:
        ValueError: A file is missing or unreadable, image and label have different shapes, the number of channels is wrong, or the
            label map has undeclared values or organs that are declared as not annotated.
    """
    if case.label is None:
        raise ValueError(f"{case.name}: expected a label map, found none")
    digests = case_ids(replace(case, digests=()))  # first: a file that changes meanwhile is noticed later
    image = read_case_image(case)
    _check_image(case, image, len(channels))
    label = read_case_label(case, labels)
    _check_label(case, image, label)
    check_annotated(label.array, labels, case)
    internal = to_internal_values(label.array, labels, source=str(case.label))
    box, _ = nonzero_box(image.array)
    measured = CaseFingerprint(
        name=case.name,
        shape=tuple(stop - start for start, stop in box),
        spacing=image.geometry.spacing,
        relative_size=math.prod(stop - start for start, stop in box) / internal.size,
        lateral_axis=image.geometry.lateral_axis,
        voxels=_annotated_only(count_organs(internal, labels), case, labels),
        orientation=orientation_of(image.geometry),
    )
    cropped = internal[slices_of(box)]
    foreground = (cropped > 0) & (cropped <= len(labels.base_values))
    with_foreground = image.array if foreground.any() else ()
    sketches = tuple(sketch(channel[slices_of(box)][foreground]) for channel in with_foreground)
    units = [not_in_hounsfield_units(array) for array, channel in zip(image.array, channels, strict=True) if is_ct(channel)]
    return MeasuredCase(measured, sketches, digests, next(filter(None, units), ""), image.geometry.has_spacing)


def _check_image(case: Case, image: Image, n_channels: int) -> None:
    if len(image.array) != n_channels:
        raise ValueError(f"{case.name}: {image.source}: expected {n_channels} channel(s), found {len(image.array)}")


def _check_label(case: Case, image: Image, label: Image) -> None:
    if label.array.shape != image.array.shape[1:]:
        raise ValueError(f"{case.name}: {case.label}: expected the shape {image.array.shape[1:]} of the image, found {label.array.shape}")
    difference = geometry_difference(image.geometry, label.geometry)
    if difference:
        log.warning("%s: %s lies elsewhere than its image (%s); the image's place is used", case.name, case.label, difference)


def count_organs(internal: np.ndarray, labels: Labels) -> tuple[int, ...]:
    """Voxels of each organ or region, in the order of `Labels.names`, in a map of internal values."""
    counts = np.bincount(np.maximum(internal, 0).ravel(), minlength=len(labels.base_values) + 1)
    return tuple(int(sum(counts[value] for value in members)) for members in labels.internal_members)


def _annotated_only(voxels: tuple[int, ...], case: Case, labels: Labels) -> tuple[int, ...]:
    """The counts, 0 for organs that were not annotated: of regions others may lie inside them."""
    indices = annotated_indices(case.annotated, labels)
    return tuple(count if indices is None or index in indices else 0 for index, count in enumerate(voxels))


def sketch(values: np.ndarray) -> Sketch:
    """Summary of a non-empty set of intensities; exact quantiles where there are at most `SKETCH_SIZE` values."""
    ordered = np.sort(values.astype(np.float32, copy=False), axis=None)
    # Both ends are kept, so that minimum and maximum stay exact.
    quantiles = ordered[np.round(np.linspace(0, len(ordered) - 1, min(len(ordered), SKETCH_SIZE))).astype(np.int64)]
    return Sketch(quantiles, float(np.mean(ordered, dtype=np.float64)), float(np.var(ordered, dtype=np.float64)))


def combine(sketches: Sequence[Sketch]) -> Intensity:
    """Statistics of one channel over the dataset, every case with the same weight however large its organs are.

    nnU-Net estimates the same by drawing equally many voxels from each case, which needs gigabytes; here mean and standard deviation are
    exact and the percentiles come from the sorted sketches, one a case.
    """
    means = np.array([one.mean for one in sketches])
    mean = float(means.mean())
    variance = float(np.mean([one.variance for one in sketches]) + np.mean((means - mean) ** 2))
    values = np.concatenate([one.quantiles for one in sketches])
    weights = np.concatenate([np.full(len(one.quantiles), 1 / len(one.quantiles)) for one in sketches])
    low, median, high = weighted_percentiles(values, weights, (0.5, 50.0, 99.5))
    return Intensity(mean, median, math.sqrt(variance), float(values.min()), float(values.max()), low, high)


def weighted_percentiles(values: np.ndarray, weights: np.ndarray, percents: Sequence[float]) -> tuple[float, ...]:
    """Percentiles (0..100) of values ``(N,)`` that count in proportion to their weights; equal ones give `numpy.percentile`'s result."""
    order = np.argsort(values, kind="stable")
    ordered, share = values[order].astype(np.float64), weights[order].astype(np.float64)
    middle = np.cumsum(share) - share / 2
    position = (middle - middle[0]) / max(middle[-1] - middle[0], np.finfo(float).tiny)
    return tuple(float(value) for value in np.interp(np.asarray(percents) / 100, position, ordered))
