"""From a dataset folder to preprocessed cases: check, fingerprint, plan, folds, preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..data.descriptions import raw_dataset, write_planned_dataset
from ..planners.configurations import selected_configurations
from ..planners.measured_dataset import keep_fingerprint, measured_dataset
from ..planners.plan import make_plan
from ..planners.splits import make_splits
from ..preprocessing.planned_cases import preprocess
from ..runtime.locks import exclusive_lock, remove_partial_files
from ..runtime.registry import allows_code
from ..runtime.runs import started_runs
from ..runtime.serialization import read_json, write_json
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Fingerprint, Plan, Split
from ..schema.settings import PlanSettings

log = logging.getLogger(__name__)


@allows_code()
def plan_and_preprocess(which: str | int, settings: PlanSettings | None = None, *, home: str | Path | None = None) -> Plan:
    """Measures a dataset, plans how to train on it, and preprocesses it.

    Args:
        which: Dataset id, name or folder.
        home: Home folder; see `autoseg.runtime.workspace.find_workspace`.

    Returns:
        The plan, which also lies in ``preprocessed/<dataset>/plan.json``.

    Raises:
        ValueError: The dataset cannot be used; the message names case and file.
    """
    settings = settings or PlanSettings()
    workspace = find_workspace(home, dataset=str(which))
    dataset = raw_dataset(workspace, which, groups=settings.groups)
    folder = workspace.preprocessed(dataset.name)
    with exclusive_lock(folder, "planning or preprocessing"):
        remove_partial_files(folder)
        measured = measured_dataset(workspace, dataset, workers=settings.workers, trust_files=settings.trust_files)
        dataset, fingerprint = measured.dataset, measured.fingerprint
        groups = {case.name: case.group or case.name for case in dataset.cases}
        splits = _kept_splits(folder / "splits.json", fingerprint, groups) or make_splits(fingerprint, groups)
        _keep_if_trained_on(workspace, dataset.name, splits)  # before anything is overwritten that those models still need
        keep_fingerprint(folder, measured)
        plan = make_plan(
            dataset,
            fingerprint,
            preset=settings.preset,
            memory_gb=settings.memory_gb,
            spacing=settings.spacing,
            force_lowres=settings.force_lowres,
        )
        plan = replace(plan, settings=replace(settings, workers=None, trust_files=False))  # on neither of which a plan depends
        wanted = selected_configurations(settings.configurations, plan)
        write_planned_dataset(workspace, dataset)  # with the plan and not before: what is refused must leave the former two together
        write_json(folder / "splits.json", splits)
        write_json(folder / "plan.json", plan)
        for data in dict.fromkeys(plan.configurations[name].data for name in wanted):
            preprocess(workspace, dataset, plan, plan.configurations[data], workers=settings.workers)
    return plan


def _kept_splits(path: Path, fingerprint: Fingerprint, groups: Mapping[str, str]) -> list[Split]:
    """The folds that are there already, made before or by the user; none where they do not fit the cases and groups.

    Planning anew, with other organs say, then leaves the folds as they are, and models of before and after can be compared.
    """
    if not path.is_file():
        return []
    splits, usable = read_json(path, list[Split]), {case.name for case in fingerprint.cases}
    for number, split in enumerate(splits):
        both = {groups[name] for name in split.train if name in groups} & {groups[name] for name in split.val if name in groups}
        unfit = {*split.train, *split.val} ^ usable
        if both or unfit or not split.train or not split.val:
            reason = f"{min(both)} is on both sides" if both else f"{min(unfit)} is new or gone" if unfit else "one side is empty"
            log.warning("%s: fold %d does not fit the dataset (%s); the cases are divided into folds again", path, number, reason)
            return []
    return splits


def _keep_if_trained_on(workspace: Workspace, dataset: str, splits: list[Split]) -> None:
    """Folds that models were trained on, or are being trained on, must not change under them."""
    path = workspace.preprocessed(dataset) / "splits.json"
    if path.is_file() and started_runs(workspace.results(dataset)) and read_json(path, list[Split]) != splits:
        raise ValueError(
            f"{path}: the cases or groups have changed since a training of {dataset} was started; the folds would mix training and "
            f"validation cases. Move {workspace.results(dataset)} away first"
        )
