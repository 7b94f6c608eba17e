"""Preprocessing of the cases of a planned dataset, in its folder below ``preprocessed/``."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..runtime.locks import exclusive_lock
from ..runtime.workspace import Workspace
from ..schema import Configuration, Dataset, Plan
from .preprocess import preprocess_dataset
from .pseudo_labelled_cases import unlabelled_folder
from .storage import Store

log = logging.getLogger(__name__)


def preprocess(
    workspace: Workspace, dataset: Dataset, plan: Plan, configuration: Configuration, *, workers: int | None = None
) -> dict[str, str]:
    """Preprocesses what is missing of a configuration's data, of the cases that could be measured.

    Returns:
        Case -> reason for those that failed; they are left out.

    Raises:
        ValueError: Not one case could be preprocessed.
    """
    folder = workspace.preprocessed(dataset.name) / configuration.data
    usable = set(workspace.usable_cases(dataset.name))
    dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.name in usable))
    with exclusive_lock(folder, "preprocessing", wait=True):
        failures = preprocess_dataset(dataset, plan, configuration, folder, workers=workers)
    for case, reason in failures.items():
        log.error("%s is left out of %s: %s", case, configuration.data, reason)
    if not Store(folder).names():
        raise ValueError(f"{folder}: no case could be preprocessed; the first reason: {next(iter(failures.values()), 'no cases')}")
    return failures


def preprocess_unlabelled(
    workspace: Workspace, dataset: Dataset, plan: Plan, configuration: Configuration, *, workers: int | None = None
) -> dict[str, str]:
    """As `preprocess`, of the images without label maps; it may be that none could be."""
    folder = unlabelled_folder(workspace, dataset.name, configuration)
    with exclusive_lock(folder, "preprocessing", wait=True):
        failures = preprocess_dataset(
            replace(dataset, cases=dataset.unlabelled, unlabelled=()), plan, configuration, folder, workers=workers
        )
    for case, reason in failures.items():
        log.error("%s, without a label map, is left out of %s: %s", case, configuration.data, reason)
    return failures
