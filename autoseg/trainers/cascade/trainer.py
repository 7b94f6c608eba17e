"""The coarse-to-fine cascade: a first stage inside the body, a second one inside the first one's dilated organs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...preprocessing.pseudo_labelled_cases import UNLABELLED
from ...runtime.serialization import atomic_write, write_json
from ...schema import CandidateRegion, Configuration, Labels, Plan, Tiling
from ...schema.run_record import RunRecord
from ..plots import plot_recall
from ..run_options import RunFolders, checked_options, sibling_configuration
from ..trainer import Trainer
from .candidate_region import ROTHS_RADIUS, CandidateRegionChoice, choose_candidate_region
from .region_masks import class_shares, prepare_regions, with_ignore

log = logging.getLogger(__name__)

CANDIDATE_REGION = "candidate_region.json"
"""In a model folder: the radius of its candidate region and the table it was chosen from, plotted in the ``.png`` beside it."""


@dataclass(frozen=True, kw_only=True)
class CascadeOptions:
    """Options of the cascade.

    Attributes:
        region: Train and predict inside the candidate region only: the body in a first stage, the dilated organs of the first stage in a
            second.
        previous_input: The second stage sees the first one's organs as further channels.
        radius: Voxels by which the first stage's organs are dilated; None chooses it from its out-of-fold predictions.
        first_step, second_step: Distance of tiles of each stage as a share of the patch, in validation and prediction.
        tile_mean: How overlapping tiles are joined, see `autoseg.schema.Tiling`.
    """

    region: bool = True
    previous_input: bool = True
    radius: int | None = None
    first_step: float = 0.5
    second_step: float = 0.5
    tile_mean: str = "gaussian"

    def __post_init__(self) -> None:
        for name in ("region", "previous_input"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected true or false, got {getattr(self, name)!r}")
        if self.radius is not None and (isinstance(self.radius, bool) or not isinstance(self.radius, int) or self.radius < 0):
            raise ValueError(f"radius: expected a whole number of voxels, 0 or more, got {self.radius!r}")
        for step in (self.first_step, self.second_step):
            Tiling(step, self.tile_mean)


class CascadeTrainer(Trainer):
    """The coarse-to-fine cascade of Roth et al. (Comput. Med. Imaging Graph. 66, 2018) for any network, loss and number of organs.

    In a first stage patches are centred, and the loss is counted, inside the body; in a second (``3d_cascade``) inside the first one's
    dilated foreground, outside of which nothing is predicted either.
    """

    @classmethod
    def configure(cls, configuration: Configuration, plan: Plan, options: Mapping[str, Any]) -> Configuration:
        """The configuration with its tiles and candidate region; a second stage's gets its radius when the run begins (`fit_to_data`)."""
        checked = checked_options(CascadeOptions, options)
        step = checked.first_step if configuration.previous_stage is None else checked.second_step
        configuration = replace(configuration, tiling=Tiling(step, checked.tile_mean))
        if configuration.previous_stage is None:
            return replace(configuration, region=CandidateRegion("body") if checked.region else None)
        radius = ROTHS_RADIUS if checked.radius is None else checked.radius
        region = CandidateRegion("previous", radius) if checked.region else None
        return replace(configuration, region=region, previous_input=checked.previous_input)

    @classmethod
    def fit_to_data(cls, job: RunRecord, folders: RunFolders) -> RunRecord:
        """Sets the radius of the candidate region: that of the model's other folds, the user's, or the smallest with enough recall.

        Writes ``candidate_region.json`` and ``.png`` into the model folder. The weights of the classes in the loss ``weighted_ce`` are
        counted in the candidate regions, unless the user gave some.

        Raises:
            ValueError: Other folds of the model have another region than the options demand.
        """
        return _with_class_weights(cls._with_radius(job, folders), folders)

    @classmethod
    def _with_radius(cls, job: RunRecord, folders: RunFolders) -> RunRecord:
        configuration, radius = job.configuration, checked_options(CascadeOptions, job.trainer_options).radius
        sibling = sibling_configuration(folders.files)
        if sibling is not None:
            return replace(job, configuration=_like_sibling(sibling, configuration, radius is None, folders.run))
        if configuration.region is None or configuration.region.source != "previous":
            return job
        chosen = choose_candidate_region(job, folders) if radius is None else CandidateRegionChoice(radius, "as asked")
        _write_choice(folders.run.parent / CANDIDATE_REGION, chosen)
        log.info("Candidate region: radius %d, %s.", chosen.radius, chosen.why)
        return replace(job, configuration=replace(configuration, region=CandidateRegion("previous", chosen.radius)))

    @property
    def labels(self) -> Labels:
        """With an ignore value for voxels outside the region."""
        labels = self.job.plan.labels
        return labels if self.job.configuration.region is None else with_ignore(labels)

    def prepare(self) -> None:
        """Computes the candidate regions of the training cases, also of those with pseudo-labels, or those that are missing."""
        job, folders = self.job, self.folders
        if job.configuration.region is None:
            return
        self.folders = replace(folders, region=prepare_regions(job, folders, progress=self.progress))
        if job.pseudo_labels is not None:
            # Of this fold alone, as pseudo-labels and first stage are those of its own networks.
            out, names = folders.run / f"region_on_{UNLABELLED}", job.pseudo_labels.cases
            made = prepare_regions(job, folders.of_unlabelled(), out=out, names=names, progress=self.progress)
            self.folders = replace(self.folders, unlabelled_region=made)


def _like_sibling(sibling: Configuration, wanted: Configuration, any_radius: bool, run: Path) -> Configuration:
    """The wanted configuration with the sibling fold's radius: folds of one model vote on the same region, and see the same input."""
    region = wanted.region
    if any_radius and region is not None and sibling.region is not None and region.source == sibling.region.source:
        region = sibling.region
    if (region, wanted.previous_input) != (sibling.region, sibling.previous_input):
        raise ValueError(
            f"{run}: expected {sibling.region} and previous_input {sibling.previous_input} as in the model's other folds, got {region} and "
            f"{wanted.previous_input}; ask for the same, or move {run.parent} away"
        )
    return replace(wanted, region=region)


def _with_class_weights(job: RunRecord, folders: RunFolders) -> RunRecord:
    """The job with the weights ``(1 - N_k / N_C) / (K - 1)`` of background and the organs (Roth et al., equation 3), where they are used.

    Counted in every batch by itself, a patch of background alone would have the weight 0, and nothing would be learned from it. Overlapping
    organs are weighed in every batch.
    """
    options, labels = job.options, job.plan.labels
    if job.configuration.region is None or options.loss != "weighted_ce" or options.class_weights or labels.regions:
        return job
    shares = class_shares(job, replace(folders, region=prepare_regions(job, folders)))
    if shares is None:
        log.warning("weighted_ce: no training case has all organs annotated, so that its weights are those of every batch.")
        return job
    weights = tuple(float(value) for value in (1 - shares) / len(labels.names))
    told = ", ".join(f"{name} {value:.3f}" for name, value in zip(("background", *labels.names), weights, strict=True))
    log.info("weighted_ce: the classes weigh, by their shares of the candidate regions, %s.", told)
    return replace(job, options=replace(options, class_weights=weights))


def _write_choice(path: Path, chosen: CandidateRegionChoice) -> None:
    write_json(path, chosen)
    picture = path.with_suffix(".png")
    picture.unlink(missing_ok=True)
    if chosen.rows:
        with atomic_write(picture) as partial:
            plot_recall(chosen.rows, chosen.organs, chosen.radius, partial)
