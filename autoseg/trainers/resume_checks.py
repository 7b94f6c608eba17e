"""What may follow a run that was started before: the same data where it resumes, the same network where its folds vote together."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..inference.fold_agreement import data_of, differing, network_of
from ..planners.configurations import planning_command
from ..runtime.case_contents import changed_contents, changed_training_cases, in_words
from ..runtime.commands import train_command
from ..runtime.provenance import recorded_stamp
from ..runtime.runs import ALL, Run
from ..runtime.serialization import to_jsonable
from ..schema import Case, Configuration, Plan, Split
from ..schema.settings import TrainSettings

log = logging.getLogger(__name__)


def check_resumable(run: Run, plan: Plan, configuration: Configuration, *, cases: Iterable[Case] = (), restart: bool = False) -> None:
    """Refuses data and networks that do not fit what was started before, before any of its data is replaced.

    Args:
        cases: Of the dataset as it was planned last.
        restart: The run itself starts anew, and only its sibling folds count.

    Raises:
        ValueError: A run resumes only with the images and label maps that it started with, preprocessed in the same way, and a new fold
            joins only folds that were trained on such data with such a network; the message says what differs.
    """
    goes_on = run.is_started and not restart
    if goes_on:
        _check_contents(run, cases)
    check_same_data(run, plan, configuration, cases=cases, restart=restart)
    for sibling in [] if goes_on else run.siblings():
        warn_of_former_contents(sibling, cases)


def check_same_data(run: Run, plan: Plan, configuration: Configuration, *, cases: Iterable[Case] = (), restart: bool = False) -> None:
    """Of `check_resumable` what plan and network tell, so that it can be asked before the plan is written.

    Raises:
        ValueError: The run was started, or its siblings were, with data preprocessed otherwise, or the siblings with another network.
    """
    if run.is_started and not restart:
        record = run.record()
        _compare(run, data_of(plan, configuration), data_of(record.plan, record.configuration), cases, plan)
        return
    for sibling in run.siblings():
        record = sibling.record()
        now, then = (data_of(p, c) | network_of(c) for p, c in ((plan, configuration), (record.plan, record.configuration)))
        _compare(sibling, now, then, cases, plan, fold=run.fold)


def check_folds(runs: Iterable[Run], splits: Sequence[Split], path: Path) -> None:
    """Refuses (ValueError) folds, of `path`, that are others than some runs were started with: cases would be trained on and held out."""
    for run in runs:
        try:
            record = run.record() if run.fold != ALL else None
        except ValueError:  # damaged: said by who needs that run
            record = None
        if record is None or record.ensemble is not None:  # an ensemble's cases are those that its members held out
            continue
        now = splits[int(run.fold)] if run.fold.isdecimal() and int(run.fold) < len(splits) else Split((), ())
        train, now_train = {*record.split.train}, {*now.train}
        if record.settings is not None and record.settings.sources:  # which left the others out
            now_train &= train
        moved = {*record.split.val} ^ {*now.val} | train ^ now_train
        if moved:
            raise ValueError(
                f"{path}: fold {run.fold}: expected the cases that {run.folder} was started with, found {min(moved)} elsewhere; "
                f"the folds would mix training and validation cases. Put the former folds back, or move {run.model.folder} away first"
            )


def warn_of_former_contents(run: Run, cases: Iterable[Case]) -> None:
    """Says which cases a run was trained on before their images or label maps were corrected."""
    if changed := changed_training_cases(run, cases):
        log.warning(
            "%s was trained on former contents of %s; train it again with --restart, so that it learns from those of today.",
            run.folder,
            in_words(changed),
        )


def _check_contents(run: Run, cases: Iterable[Case]) -> None:
    if changed := changed_training_cases(run, cases):
        raise ValueError(
            f"{run.folder}: was started with other contents of {in_words(changed)}, and would go on with those of today. "
            "Start over with --restart, or put the former files back and plan again"
        )
    if recorded_stamp(run.record_file) is None:
        log.info("%s: an earlier version did not note the contents of its cases; taken to be those of today.", run.folder)


def check_same_model(run: Run, plan: Plan, configuration: Configuration, settings: TrainSettings) -> None:
    """Refuses a model folder of another model, whose organs, network, trainer, normalisation or tag only read like those asked for.

    Raises:
        ValueError: One of its runs (but one that starts anew) was started for something else; the message says for what.
    """
    for one in run.siblings() if settings.restart else run.model.runs():
        record = one.record()
        now, then = _named(plan, configuration, settings), _named(record.plan, record.configuration, record.settings)
        then |= {"trainer": record.trainer} if record.ensemble is None else {}
        different = [what for what in then if then[what] != now.get(what, then[what])]
        if different:
            wanted, found = (", ".join(f"{what} {side[what] or '(none)'}" for what in different) for side in (now, then))
            raise ValueError(
                f"{run.model.folder}: expected a model with {wanted}, found one with {found}; give this training a name of its own with"
                " --tag WORD, or move that folder away"
            )


def _named(plan: Plan, configuration: Configuration, settings: TrainSettings | None) -> dict[str, Any]:
    """What the name of a model folder stands for, as far as it is known."""
    named: dict[str, Any] = {"organs": sorted(plan.labels.names)}
    if settings is not None:
        named |= {"trainer": settings.trainer, "network": settings.network, "tag": settings.tag}
        named |= {"pseudo-labels": settings.pseudo_labels, "sources": " ".join(settings.sources)}
    if settings is not None and (settings.normalization or settings.window):
        named |= {"normalization": list(configuration.normalization)}
    return named


def warn_if_options_differ(run: Run, configuration: Configuration, settings: TrainSettings) -> None:
    """Says where a run was started with other options than are asked for now: it keeps those that it was started with."""
    record, changes = run.record(), dict(settings.changed_options)
    augmentation = dict(given) if isinstance(given := changes.pop("augmentation", None), Mapping) else {}
    now: dict[str, Any] = {"network options": configuration.network_options, "trainer options": dict(settings.trainer_options)}
    now |= changes | augmentation
    then: dict[str, Any] = {"network options": record.configuration.network_options, "trainer options": record.trainer_options}
    then |= {name: getattr(record.options, name, None) for name in changes}
    then |= {name: getattr(record.options.augmentation, name, None) for name in augmentation}
    plain = [(name, to_jsonable(now[name]), to_jsonable(then[name])) for name in now]
    parts = [(name, *only_different(old, new)) for name, new, old in plain if new != old]
    different = [f"{name} {old}, not {new}" for name, old, new in parts]
    if different:
        log.warning(
            "%s was started with %s; start over with --restart to change that, or train beside it with --tag WORD.",
            run.folder,
            "; ".join(different),
        )


def only_different(one: Any, other: Any) -> tuple[Any, Any]:
    """Of two mappings what differs between them; other values as they are."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return one, other
    keys = [key for key in {**one, **other} if json.dumps(one.get(key)) != json.dumps(other.get(key))]
    return tuple({key: some[key] for key in keys if key in some} for some in (one, other))  # type: ignore[return-value]


def _otherwise(what: str, then: Any, now: Any) -> str:
    then, now = only_different(then, now)
    return f"with {what} {then}, the plan now says {now}"


def _compare(run: Run, now: dict[str, Any], then: dict[str, Any], cases: Iterable[Case], plan: Plan, *, fold: str = "") -> None:
    """Raises a ValueError where a run differs, with the command that trains another `fold` like it, if only its network's options do."""
    if different := differing(now, then):
        found = "; ".join(_otherwise(what, then[what], now[what]) for what in different)
        corrected = changed_contents(run.record_file, cases) if "intensities" in different else {}
        why = f" (what changed since: {in_words(corrected)})" if corrected else ""
        command = planning_command(run.record().plan)
        how = f" ({command})" if command not in ("", planning_command(plan)) else ""
        record = run.record()
        if fold and set(different) <= {"network", "network_options"} and record.ensemble is None:
            again = train_command(record, fold=fold)
            raise ValueError(
                f"{run.record_file}: this run was started {found}, and the folds of a model have one network. Train fold {fold} like it:\n"
                f"  {again}\nor under a name of its own, with --tag WORD"
            )
        raise ValueError(
            f"{run.record_file}: this run was started {found}{why}. "
            f"Plan as before{how}, or start over: --restart for a single fold, or move {run.model.folder} away"
        )
