"""Which case a training patch comes from: any, one of each source dataset in turn, or rather one with a rare organ.

A draw is a function of the seed and of the patch's number, like all of a batch, so that a run that is continued draws what it would have
drawn. Patches that are scored while training come from all cases alike, so that learning curves can be compared.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.annotations import annotated_indices
from ..runtime.registry import lookup
from ..runtime.serialization import read_json
from ..schema import Dataset, Fingerprint
from ..schema.run_record import RunRecord

log = logging.getLogger(__name__)

CaseDraw = Callable[[np.random.Generator, int, int], str]
"""Draws a case: from a generator, the number of the batch and the sample's place in it."""

UNIFORM = "cases"
"""The default: each case is as likely as any other."""

TURNS = 3
"""Stream of random numbers for the order of datasets, beside those of patches and of the locator."""


def draw_uniformly(names: Sequence[str], job: RunRecord) -> CaseDraw:
    """Each of the cases, sorted by name, is as likely as any other."""
    return lambda rng, number, index: names[int(rng.integers(len(names)))]


def draw_datasets(names: Sequence[str], job: RunRecord) -> CaseDraw:
    """Each source dataset is shown equally often, patch by patch, whatever the number of its cases; of one any case."""
    size, turn = job.configuration.batch_size, _turns(names, job)
    return lambda rng, number, index: _any_of(turn(number * size + index), rng)


def draw_alternating(names: Sequence[str], job: RunRecord) -> CaseDraw:
    """As `draw_datasets`, with batches of one dataset each (Fang and Yan, IEEE TMI 39, 2020)."""
    turn = _turns(names, job)
    return lambda rng, number, index: _any_of(turn(number), rng)


def draw_rare_organs(names: Sequence[str], job: RunRecord) -> CaseDraw:
    """A case is drawn in proportion to its `repeat_factors`."""
    weights = np.array([job.case_weights.get(name, 1.0) for name in names])
    steps = np.cumsum(weights / weights.sum())
    return lambda rng, number, index: names[min(int(np.searchsorted(steps, rng.random(), side="right")), len(names) - 1)]


CASE_SAMPLINGS: dict[str, Callable[[Sequence[str], RunRecord], CaseDraw]] = {
    UNIFORM: draw_uniformly,
    "datasets": draw_datasets,
    "alternating": draw_alternating,
    "rare_organs": draw_rare_organs,
}
"""Name to factory ``(names, job) -> draw``; names are sorted."""


def case_draw(names: Collection[str], job: RunRecord, *, training: bool) -> CaseDraw:
    """The draw that the options of a job ask for, among these cases; for patches that are scored any case."""
    factory: Callable[[Sequence[str], RunRecord], CaseDraw]
    factory = lookup(CASE_SAMPLINGS, job.options.case_sampling, "case_sampling") if training else draw_uniformly
    return factory(sorted(names), job)


def repeat_factors(organs: Mapping[str, Collection[str]]) -> dict[str, float]:
    """How often each case is shown: the square root of one over the share of the cases that have its rarest organ.

    Gupta et al., "LVIS: a dataset for large vocabulary instance segmentation", CVPR 2019, with threshold 1. The square root keeps a few
    cases with a rare organ from being all that is seen. Cases without an organ have 1.

    Args:
        organs: Case to the organs that are annotated and present in it.
    """
    counts = Counter(organ for of_case in organs.values() for organ in set(of_case))
    return {name: math.sqrt(max((len(organs) / counts[one] for one in of_case), default=1.0)) for name, of_case in organs.items()}


def with_case_facts(job: RunRecord, dataset: Dataset, fingerprint_file: Path) -> RunRecord:
    """The job with what its way of drawing cases needs to know of its training cases; says in the log what that means.

    Args:
        dataset: As planned.
        fingerprint_file: Its ``fingerprint.json``, which says which organs are in which case.
    """
    if job.settings is not None and (wanted_sources := job.settings.sources):
        val = set(job.split.val)
        job = replace(job, scored=tuple(one.name for one in dataset.cases if one.name in val and one.source in wanted_sources))
    if job.options.case_sampling == UNIFORM:
        return job
    fingerprint = read_json(fingerprint_file, Fingerprint)
    train = set(job.split.train)
    # Others are never drawn: their datasets get no share, and no organ is the rarer for them.
    usable = {one.name: one for one in dataset.cases if one.name in train and annotated_indices(one.annotated, job.plan.labels) != ()}
    sources = {name: case.source for name, case in usable.items()}
    present = {
        case.name: [name for name, voxels in zip(dataset.labels.names, case.voxels, strict=True) if voxels]
        for case in fingerprint.cases
        if case.name in usable
    }
    # Of a union nobody knows which of its organs is there.
    known = {name: set(job.plan.labels.names).intersection(case.annotated or job.plan.labels.names) for name, case in usable.items()}
    organs = {name: [organ for organ in found if organ in known[name]] for name, found in present.items()}
    job = replace(job, sources=sources, case_weights=repeat_factors(organs))
    if job.options.case_sampling == "rare_organs":
        _describe_weights(job, organs)
    else:
        _describe_sources(job)
    return job


def _turns(names: Sequence[str], job: RunRecord) -> Callable[[int], Sequence[str]]:
    """Number to the cases of the dataset whose turn it is: each once in a cycle, in an order that is drawn for each.

    A fixed order could meet the one of patches that must show an organ, of which then always the same dataset's would.
    """
    groups = [[name for name in names if job.sources.get(name, "") == source] for source in _sources(names, job)]

    def turn(number: int) -> Sequence[str]:
        cycle, place = divmod(number, len(groups))
        return groups[np.random.default_rng([job.seed, TURNS, cycle]).permutation(len(groups))[place]]

    return turn


def _any_of(group: Sequence[str], rng: np.random.Generator) -> str:
    return group[int(rng.integers(len(group)))]


def _sources(names: Collection[str], job: RunRecord) -> list[str]:
    return sorted({job.sources.get(name, "") for name in names})


def _describe_sources(job: RunRecord) -> None:
    counts = Counter(job.sources.values())
    if len(counts) < 2:
        log.warning(
            "case_sampling %s: the cases are of one dataset, as far as its description says, and drawn alike; of one that was merged by an "
            "earlier version, plan again.",
            job.options.case_sampling,
        )
        return
    each = ", ".join(f"{source or 'others'} ({count} cases)" for source, count in sorted(counts.items()))
    log.info("Each dataset gets %.0f %% of the %s: %s.", 100 / len(counts), _patches(job), each)


def _describe_weights(job: RunRecord, organs: Mapping[str, Collection[str]]) -> None:
    total = sum(job.case_weights.values())
    shares = {one: sum(job.case_weights[name] for name in organs if one in organs[name]) / total for one in job.plan.labels.names}
    cases = {one: sum(one in of_case for of_case in organs.values()) / len(organs) for one in shares}
    what = _patches(job).capitalize()
    log.info("%s come from cases with %s.", what, "; ".join(f"{one}: {shares[one]:.0%} (of the cases {cases[one]:.0%})" for one in shares))


def _patches(job: RunRecord) -> str:
    return "patches" if job.pseudo_labels is None else "patches with label maps"
