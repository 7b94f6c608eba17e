"""Artefacts of version 0.1.0, which knew files by their sizes and times: what may be kept of them.

Times are never believed. What agrees by its sizes is kept and gets a stamp of contents; all else is made again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ...schema import Case, Choice, Dataset, EnsembleRecord, Plan, RunRecord
from ...schema.settings import PlanSettings, TrainSettings
from ...schema.training_options import AugmentationOptions
from ..provenance import annotated_setting, case_paths, size_in
from ..serialization import to_jsonable

OLD_FINGERPRINT_KEY = "fingerprint_of.json"
"""Beside a fingerprint: the files that it was measured from, with sizes and times."""


def fingerprint_of_0_1_0_fits(key: Mapping[str, Any], dataset: Dataset, measured: Sequence[str]) -> bool:
    """Whether a fingerprint of version 0.1.0 was measured from files of the same names and sizes, and with the same labels.

    Args:
        key: Content of `OLD_FINGERPRINT_KEY`.
        measured: What is measured of a case now.
    """
    partly = {case.name: list(case.annotated) for case in dataset.cases if case.annotated is not None}
    if key.get("labels") != to_jsonable(dataset.labels) or key.get("annotated", {}) != partly or key.get("measured") != list(measured):
        return False
    now = {case.name: [(path.name, path.stat().st_size) for path in case_paths(case)] for case in dataset.cases}
    then = {name: [(Path(str(path)).name, size) for path, size, _ in files] for name, files in key.get("files", {}).items()}
    folders = {path.name for case in dataset.cases for path in case_paths(case) if path.is_dir()}  # their size says nothing of their files
    return _without_sizes(now, folders) == _without_sizes(then, folders)


def _without_sizes(files: Mapping[str, list[tuple[str, int]]], names: set[str]) -> dict[str, list[tuple[str, int]]]:
    return {case: [(name, 0 if name in names else size) for name, size in some] for case, some in files.items()}


def stamp_of_0_1_0_fits(stamp: str, case: Case) -> bool:
    """Whether the stamp of a preprocessed case, ``N files, M bytes, TIME``, agrees with the case's files in number and size."""
    found = re.fullmatch(r"(\d+) files, (\d+) bytes, \d+(?:, annotated: (.*))?", stamp)
    if found is None:
        return False
    try:
        sizes = [file.stat().st_size for path in case_paths(case) for file in (path.iterdir() if path.is_dir() else [path])]
    except OSError:
        return False
    return (int(found[1]), int(found[2]), found[3] or "all") == (len(sizes), sum(sizes), annotated_setting(case))


def state_of_0_1_0_fits(old: str, state: str) -> bool:
    """Whether the state of files that an average was scored from, each ``SIZE:TIME``, agrees by its sizes with content ids.

    Args:
        old: As version 0.1.0 recorded it, words with such states among them.
        state: The same words with content ids in place of those.
    """
    words, wanted = old.split(" "), state.split(" ")
    return len(words) == len(wanted) and all(_same_size(one, other) for one, other in zip(words, wanted, strict=True))


def _same_size(old: str, word: str) -> bool:
    known = re.fullmatch(r"(\d+):\d{10,}", old)
    if known is None or not re.fullmatch(r"[0-9a-f]{64}(\+[0-9a-f]+)?:\d+", word):
        return old == word
    return int(known[1]) == size_in(word)


def models_unknown_to_0_1_0(choice: Choice, models: Mapping[str, Sequence[str]]) -> list[str]:
    """What a choice that does not say what it was made from cannot know; empty where it knows every model, and every fold that counts.

    A model is known that was compared or chosen. A fold counts that would vote in a chosen model, or that all models share, so that they
    would be compared by it.

    Args:
        choice: Without `Choice.made_from`.
        models: Model folder to its validated folds.

    Returns:
        As ``model/fold``.
    """
    chosen = {name for members in choice.organs.values() for name in members}
    known = {*choice.table, *choice.member_folds, *chosen}
    shared = set.intersection(*(set(folds) for folds in models.values())) if models else set()
    unknown = []
    for name, folds in models.items():
        expected = set(choice.member_folds.get(name, folds)) - (shared - set(choice.folds))
        unknown += [f"{name}/{fold}" for fold in folds if name not in known or (fold != "all" and fold not in expected)]
    return unknown


def complete_record(record: RunRecord) -> RunRecord:
    """The record of a run with what was asked for and, of an ensemble, what it is made of; version 0.1.0 recorded neither as such.

    What was asked for is then every value that was resolved: it gives the same run, if by a longer command. Earlier versions recorded the
    usual momentum of optimisers that did not use it, RMSprop among them, which has it now.
    """
    asked = record.settings is not None and "momentum" in record.settings.options
    optimizer = record.options.optimizer
    if not asked and (optimizer == "rmsprop" or (record.settings is None and optimizer != "sgd")):
        record = replace(record, options=replace(record.options, momentum=0.0))
    if record.settings is not None or record.ensemble is not None:
        return record
    options = record.trainer_options
    if {"kind", "members", "reference"} <= options.keys():
        ensemble = EnsembleRecord(str(options["kind"]), tuple(options["members"]), str(options["reference"]))
        return replace(record, ensemble=ensemble, trainer_options={})
    return replace(record, settings=_resolved_settings(record))


def _resolved_settings(record: RunRecord) -> TrainSettings:
    one, budget = record.configuration, record.budget
    planned = record.plan.configurations.get(one.name, one)
    is_trainers_own = record.trainer != "Trainer" and one.network != planned.network
    usual = AugmentationOptions()
    values = {item.name: getattr(record.options, item.name) for item in fields(record.options)}
    values["augmentation"] = {
        item.name: value
        for item in fields(usual)
        if (value := getattr(record.options.augmentation, item.name)) != getattr(usual, item.name)
    }
    learning_rate = values.pop("learning_rate")
    return TrainSettings(
        trainer=record.trainer,
        trainer_options=record.trainer_options,
        network=None if is_trainers_own or one.network == planned.network else one.network,
        network_options=one.network_options if one.network_options != planned.network_options and not is_trainers_own else {},
        organs=record.plan.labels.names if record.plan.data_labels is not None else (),
        normalization=one.normalization if one.normalization != planned.normalization else (),
        options={name: value for name, value in values.items() if value != {}},
        iterations=int(budget.amount) if budget.kind == "iterations" else None,
        seconds=budget.amount if budget.kind == "time" else None,
        seed=record.seed,
        batch=one.batch_size,
        learning_rate=learning_rate,
        pretrained=record.pretrained,
    )


def complete_plan_settings(plan: Plan) -> PlanSettings:
    """What a plan was asked for; of one of version 0.1.0, which did not record it, what its values and reasons say."""
    if plan.settings is not None:
        return plan.settings
    requested = {(reason.configuration, reason.what) for reason in plan.reasons if reason.why.startswith("as you asked")}
    exact = next((one.spacing for one in plan.configurations.values() if len(one.spacing) == len(plan.transpose)), None)
    spacing = None
    if ("all", "spacing") in requested and exact is not None:
        spacing = tuple(exact[plan.transpose.index(axis)] for axis in range(len(exact)))
    return PlanSettings(preset=plan.preset, memory_gb=plan.memory_gb, spacing=spacing, force_lowres=("3d_lowres", "spacing") in requested)
