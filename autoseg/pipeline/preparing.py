"""From a dataset folder to preprocessed cases: check, fingerprint, plan, folds, preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..data.dataset_json import read_info
from ..data.descriptions import complete_cases, planned_nifti_geometry, read_description, write_planned_dataset
from ..data.nifti_geometry import check_form
from ..planners.configurations import selected_configurations
from ..planners.measured_dataset import FINGERPRINT, keep_fingerprint, measured_dataset, with_unlabelled_ids
from ..planners.plan import make_plan, with_one_grid
from ..planners.plan_from import plan_like, source_plan
from ..planners.slice_planes import with_planes
from ..planners.splits import are_in_file, make_splits, planned_splits, write_splits
from ..preprocessing.planned_cases import preprocess
from ..preprocessing.preprocess import Recipe, is_of_other_recipe, recipe_of
from ..runtime.case_contents import changed_training_cases, in_words
from ..runtime.locks import LOCK, exclusive_lock, remove_partial_files
from ..runtime.registry import allows_code
from ..runtime.runs import Run, started_runs
from ..runtime.sealing import check_unedited
from ..runtime.serialization import read_json, write_json
from ..runtime.workspace import DESCRIPTION, LEFT_OUT, Workspace, find_workspace
from ..schema import Configuration, Dataset, Fingerprint, Plan, Split
from ..schema.settings import PlanSettings
from ..trainers.resume_checks import check_folds

log = logging.getLogger(__name__)


@allows_code()
def plan_and_preprocess(
    which: str | int,
    settings: PlanSettings | None = None,
    *,
    home: str | Path | None = None,
    check: Callable[[Plan, Dataset, Sequence[Split]], object] | None = None,
) -> Plan:
    """Measures a dataset, plans how to train on it, and preprocesses it.

    Args:
        which: Dataset id, name or folder.
        home: Home folder; see `autoseg.runtime.workspace.find_workspace`.
        check: Refuses (ValueError) a plan, with the dataset and its folds, before they are written and cases are preprocessed.

    Returns:
        The plan, which also lies in ``preprocessed/<dataset>/plan.json``. Cases that are incomplete, cannot be read or are unlike the
        others are left out; `Workspace.left_out` (``left_out.json`` beside the plan) names them with the reason.

    Raises:
        ValueError: Not one case can be used, the dataset's description is wrong, or the plan was edited; the message names case and file.
    """
    workspace, dataset, asked, left_out = _dataset_to_plan(which, settings or PlanSettings(), home)
    with exclusive_lock(folder := workspace.preprocessed(dataset.name), "planning or preprocessing"):
        remove_partial_files(folder)
        made = _made_plan(workspace, dataset, asked, left_out)
        dataset, plan, left_out = made.dataset, made.plan, made.left_out
        if check is not None:
            check(plan, dataset, made.splits)
        write_planned_dataset(workspace, dataset)  # with the plan and not before: what is refused must leave the former two together
        write_splits(folder / "splits.json", made.splits, left_out=left_out.keys())
        write_json(folder / "plan.json", plan)
        _keep_left_out(folder / LEFT_OUT, left_out)
        for configuration in made.configurations:
            left_out |= preprocess(workspace, dataset, plan, configuration, workers=asked.settings.workers)
        _keep_left_out(folder / LEFT_OUT, left_out)
    return plan


@allows_code()
def plan_only(
    which: str | int,
    settings: PlanSettings | None = None,
    *,
    home: str | Path | None = None,
    check: Callable[[Plan, Dataset, Sequence[Split]], object] | None = None,
) -> MadePlan:
    """The plan that `plan_and_preprocess` would make with the same arguments, after the same checks; nothing is written."""
    workspace, dataset, asked, left_out = _dataset_to_plan(which, settings or PlanSettings(), home, dry=True)
    made = _made_plan(workspace, dataset, asked, left_out, dry=True)
    if check is not None:
        check(made.plan, made.dataset, made.splits)
    return made


@dataclass(frozen=True)
class MadePlan:
    """A plan with what it was made for.

    Attributes:
        dataset: With the content ids of its files.
        fingerprint: Its measurements.
        left_out: Case -> reason for those that cannot be used.
        configurations: Whose data are to be preprocessed.
    """

    plan: Plan
    dataset: Dataset
    fingerprint: Fingerprint
    splits: list[Split]
    left_out: dict[str, str]
    configurations: list[Configuration]


@dataclass(frozen=True)
class _PlanRequest:
    """Settings of planning with what earlier ones add, and the plan of another dataset that is to be taken over."""

    settings: PlanSettings
    source: Plan | None


def _dataset_to_plan(
    which: str | int, settings: PlanSettings, home: str | Path | None, *, dry: bool = False
) -> tuple[Workspace, Dataset, _PlanRequest, dict[str, str]]:
    """The home, the dataset's complete cases, what is asked for, and why other cases are left out."""
    workspace = find_workspace(home, dataset=str(which))
    settings = with_former_groups(workspace, which, settings)
    if settings.nifti_geometry is None:
        former = planned_nifti_geometry(workspace, workspace.dataset_folder(which))
        settings = replace(settings, nifti_geometry=former)
    check_form(settings.nifti_geometry)
    if source := source_plan(workspace, settings, workspace.dataset_folder(which).name):
        settings = replace(settings, plan_from=source[1])
    complete = partial(complete_cases, workspace, which, groups=settings.groups, nifti_geometry=settings.nifti_geometry)
    dataset, left_out = complete(allow_external=settings.allow_external, dry=dry)
    for case, reason in left_out.items():
        log.error("%s is left out: %s", case, reason)
    return workspace, dataset, _PlanRequest(settings, None if source is None else source[0]), left_out


def _made_plan(
    workspace: Workspace,
    dataset: Dataset,
    asked: _PlanRequest,
    left_out: dict[str, str],
    *,
    dry: bool = False,
) -> MadePlan:
    """Measures a dataset, keeps the result unless `dry`, and plans; refuses what models that are there do not allow."""
    settings, folder = asked.settings, workspace.preprocessed(dataset.name)
    measured = measured_dataset(workspace, dataset, workers=settings.workers, trust_files=settings.trust_files)
    dataset, fingerprint = measured.dataset, measured.fingerprint
    groups = {case.name: case.group or case.name for case in dataset.cases}
    left_out = left_out | measured.failures
    made_before = splits_made_before(workspace, dataset.name)
    splits = planned_splits(folder / "splits.json", fingerprint, groups, made_before, left_out=left_out.keys(), dry=dry)
    _keep_if_trained_on(workspace, dataset.name, splits, left_out)  # before anything is overwritten that those models still need
    if not dry:
        keep_fingerprint(folder, measured)
    plan = plan_of(dataset, fingerprint, settings, asked.source)
    wanted = selected_configurations(settings.configurations, plan)
    of_data = {plan.configurations[name].data: plan.configurations[plan.configurations[name].data] for name in wanted}
    _keep_if_being_trained(workspace, dataset, {data: recipe_of(plan, one) for data, one in of_data.items()})
    return MadePlan(plan, with_unlabelled_ids(dataset), fingerprint, splits, left_out, list(of_data.values()))


def plan_of(dataset: Dataset, fingerprint: Fingerprint, settings: PlanSettings, source: Plan | None) -> Plan:
    """The plan by the rules, or that of another dataset, with those settings that it depends on."""
    if source is None:
        plan = make_plan(
            *(dataset, fingerprint),
            preset=settings.preset,
            memory_gb=settings.memory_gb,
            spacing=settings.spacing,
            force_lowres=settings.force_lowres,
        )
    else:
        plan = plan_like(source, dataset, fingerprint)
    plan = with_one_grid(plan) if settings.one_grid else plan
    plan = with_planes(plan, settings.configurations, cases=len(fingerprint.cases))
    return replace(plan, settings=replace(settings, workers=None, trust_files=False, allow_external=False, overwrite=False))


def _keep_left_out(path: Path, left_out: Mapping[str, str]) -> None:
    """Writes which cases were left out for which reason; no file where none were."""
    if left_out:
        write_json(path, left_out)
    else:
        path.unlink(missing_ok=True)


def with_former_groups(workspace: Workspace, which: str | int, settings: PlanSettings) -> PlanSettings:
    """The settings with the expression for patients that the former plan was made with, where neither they nor the dataset name any."""
    folder = workspace.dataset_folder(which)
    former = workspace.preprocessed(folder.name) / "plan.json"
    check_unedited(former, "autoseg_plan_and_preprocess", overwrite=settings.overwrite)
    known = _former_settings(former, settings) if former.is_file() and None in (settings.groups, settings.plan_from) else None
    if known is not None and known.plan_from is not None and settings.plan_from is None:
        log.warning("%s: the former plan was taken from %s; for such a plan again, give --plan-from", folder, known.plan_from)
    if known is None or known.groups is None or settings.groups is not None:
        return settings
    if read_info(folder).get("groups"):
        log.warning("%s: patients are those of dataset.json; the former plan's were found by --groups '%s'", folder, known.groups)
        return settings
    log.info(
        "%s: patients are found by --groups '%s' as in the former plan; for each case its own patient, give --groups '.+'",
        folder,
        known.groups,
    )
    return replace(settings, groups=known.groups)


def _former_settings(former: Path, settings: PlanSettings) -> PlanSettings | None:
    """Those of a former plan; of an edited one, too, where it may be replaced: a patient's cases must not come into several folds."""
    try:
        return read_json(former, Plan, verify=not settings.overwrite).settings
    except ValueError as error:
        if not settings.overwrite:
            raise
        raise ValueError(
            f"{error}; or say with --groups how patients are found ('.+': each case its own), which only this file knew"
        ) from error


def splits_made_before(workspace: Workspace, dataset: str) -> list[Split] | None:
    """The folds that planning made for the former description and fingerprint; None where there are none."""
    folder = workspace.preprocessed(dataset)
    if not ((folder / DESCRIPTION).is_file() and (folder / FINGERPRINT).is_file()):
        return None
    former = read_description(folder / DESCRIPTION, home=workspace.home, raw=workspace.raw)
    return make_splits(read_json(folder / FINGERPRINT, Fingerprint), {case.name: case.group or case.name for case in former.cases})


def _keep_if_trained_on(workspace: Workspace, dataset: str, splits: list[Split], left_out: Mapping[str, str]) -> None:
    """Folds that models were trained on, or are being trained on, must not change under them."""
    path = workspace.preprocessed(dataset) / "splits.json"
    if path.is_file() and started_runs(workspace.results(dataset)) and not are_in_file(path, splits, left_out.keys()):
        raise ValueError(
            f"{path}: the cases or groups have changed since a training of {dataset} was started; the folds would mix training and "
            f"validation cases. Move {workspace.results(dataset)} away first"
        )
    check_folds(started_runs(workspace.results(dataset)), splits, path)


def _keep_if_being_trained(workspace: Workspace, dataset: Dataset, configurations: Mapping[str, Recipe]) -> None:
    """Refuses (ValueError) to replace preprocessed cases that a training reads at this moment.

    Args:
        configurations: Folders of data below ``preprocessed/<dataset>`` to the recipe that they are to be made by.
    """
    folder = workspace.preprocessed(dataset.name)
    replaced = {data for data, recipe in configurations.items() if is_of_other_recipe(folder / data, recipe)}
    for lock in sorted(workspace.results(dataset.name).glob(f"*__*/fold_*/{LOCK}")):
        run = Run(lock.parent)
        data = run.record().configuration.data if run.is_started else ""
        corrected = changed_training_cases(run, dataset.cases) if run.is_started and data in configurations else {}
        if data in replaced or corrected or (replaced and not data):
            try:
                with exclusive_lock(run.folder, "planning"):
                    continue  # its process is dead
            except ValueError as error:
                what = f"contents of {in_words(corrected)}" if corrected else "settings of preprocessing"
                raise ValueError(
                    f"{error}. Planning with other {what} would replace the cases under that training; nothing was planned"
                ) from error
