"""The plan of a dataset that is taken from another one's, so that networks of the one can be trained on with the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..preprocessing.normalization import default_scheme
from ..runtime.dataset_folders import matching_names
from ..runtime.registry import unknown_name_error
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace, last_name
from ..schema import CaseFingerprint, Configuration, Dataset, Fingerprint, Plan, Reason
from ..schema.settings import PlanSettings
from .plan import check_dimensions, with_mirroring
from .spacing import in_orientation, median_resampled_shape

log = logging.getLogger(__name__)

PLAN = "plan.json"

OWN_RULES = {
    "memory_gb": "--memory",
    "spacing": "--spacing",
    "force_lowres": "--force-lowres",
    "one_grid": "--one-grid",
    "preset": "--preset",
}
"""Settings of the planning rules, which a plan that is taken over does not follow, and their switches."""


def source_plan(workspace: Workspace, settings: PlanSettings, dataset: str) -> tuple[Plan, str] | None:
    """The plan that the settings ask to take over, and by what name it is found again; None where they ask for none.

    It is that of a dataset, by id or name, in ``preprocessed/`` or, where only its models are there, in ``results/``; or lies in a folder
    that is named, wherever that is.

    Raises:
        ValueError: There is no such plan, it is the dataset's own, or the settings also ask for rules of planning.
    """
    if settings.plan_from is None:
        return None
    default = PlanSettings()
    if both := [switch for name, switch in OWN_RULES.items() if getattr(settings, name) != getattr(default, name)]:
        raise ValueError(f"--plan-from: the plan of {settings.plan_from} is taken as it is; expected no {', '.join(both)} beside it")
    folder = Path(settings.plan_from).expanduser()
    folder = folder.parent if folder.name == PLAN else folder
    if (folder / PLAN).is_file():
        return read_json(folder / PLAN, Plan), str(folder.resolve())
    planned = {path.parent.name for part in ("preprocessed", "results") for path in (workspace.home / part).glob(f"*/{PLAN}")}
    fitting = matching_names(sorted(planned), last_name(settings.plan_from))
    if not fitting:
        raise unknown_name_error("--plan-from: planned dataset", settings.plan_from, planned)
    if len(fitting) > 1 or fitting == [dataset]:
        found = f"which means {', '.join(fitting)}"
        raise ValueError(f"--plan-from: expected one other dataset than {dataset}, got {settings.plan_from!r}, {found}")
    return workspace.present_plan(fitting[0]), fitting[0]


def plan_like(source: Plan, dataset: Dataset, fingerprint: Fingerprint) -> Plan:
    """The plan of a dataset with the spacing, axes, orientation, patches, networks, normalisation and intensities of another plan.

    Its own are the organs, the flips that follow from them, the median shapes and the ending of written files.

    Args:
        source: The other plan.
        dataset: As loaded.
        fingerprint: Of it.

    Raises:
        ValueError: Channels, axes, or whether spacings are known, are not as in the other plan.
    """
    check_dimensions(dataset, fingerprint)
    _check_fits(source, dataset, fingerprint)
    cases = [in_orientation(case, source.orientation) for case in fingerprint.cases]
    axes = len(source.transpose)
    sides = {case.lateral_axis for case in cases}
    lateral = source.transpose.index(sides.pop()) if len(sides) == 1 else None
    # A region that a cascade noted in the other plan was chosen by the other's organs.
    planned = {name: replace(_fitted(one, cases, source.transpose), region=None) for name, one in source.configurations.items()}
    configurations, flips = with_mirroring(planned, dataset, lateral, axes)
    taken = "as you asked (--plan-from): spacing, axes, patches, networks, normalisation and intensities; the reasons are those found there"
    return replace(
        source,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels,
        file_ending=dataset.file_ending,
        configurations=configurations,
        reasons=(
            Reason("all", "plan", source.dataset, taken),
            *(row for row in source.reasons if row.what not in ("plan", "flips")),
            *flips,
        ),
        lateral_axis=lateral,
        has_spacing=fingerprint.has_spacing,
    )


def _fitted(configuration: Configuration, cases: Sequence[CaseFingerprint], order: Sequence[int]) -> Configuration:
    """The configuration with the median shape of the cases at its spacing."""
    # Of a volume's slices only the last two axes are resampled.
    spacing = (*[1.0] * (len(order) - len(configuration.spacing)), *configuration.spacing)
    target = [spacing[order.index(axis)] for axis in range(len(order))]
    shape = median_resampled_shape(cases, target)
    median = tuple(round(shape[axis]) for axis in order)
    return replace(configuration, median_shape=median[-configuration.dim :])


def _check_fits(source: Plan, dataset: Dataset, fingerprint: Fingerprint) -> None:
    there, here = source.channels, dataset.channels
    shown = f"{', '.join(there)} as in {source.dataset}"
    if len(there) != len(here):
        raise ValueError(f"{dataset.name}: --plan-from: expected the {len(there)} channels {shown}, found {len(here)} ({', '.join(here)})")
    odd = [(theirs, own) for theirs, own in zip(there, here, strict=True) if default_scheme(theirs) != default_scheme(own)]
    if odd:
        theirs, own = odd[0]
        raise ValueError(
            f"{dataset.name}: --plan-from: expected the channels {shown}, found {own!r} where {theirs!r} is, whose intensities are "
            "normalised in another way; if the images are of one kind, give the channels the same names in dataset.json"
        )
    if [name.lower() for name in there] != [name.lower() for name in here]:
        log.warning("%s: its channels %s are taken for %s, and normalised so", dataset.name, ", ".join(here), shown)
    if len(fingerprint.cases[0].shape) != len(source.transpose):
        found = f"images of {len(fingerprint.cases[0].shape)}"
        raise ValueError(
            f"{dataset.name}: --plan-from: expected images of {len(source.transpose)} axes as in {source.dataset}, found {found}"
        )
    if None not in (source.has_spacing, fingerprint.has_spacing) and source.has_spacing != fingerprint.has_spacing:
        known = ("an unknown", "a known")
        expected, found = known[bool(source.has_spacing)], known[bool(fingerprint.has_spacing)]
        raise ValueError(f"{dataset.name}: --plan-from: expected images of {expected} spacing as in {source.dataset}, found {found} one")
