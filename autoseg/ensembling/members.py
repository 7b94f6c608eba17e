"""Which models an ensemble is made of, and on which cases they can be believed: those that their networks were not trained on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..evaluation.overlap import mean_of_known
from ..inference.quantised_logits import has_logits
from ..report.commands import training_command
from ..runtime.registry import ENSEMBLE, unknown
from ..runtime.serialization import from_plain, read_json
from ..runtime.workspace import Workspace
from ..schema import Configuration, Labels, Score
from ..schema.run_record import RunRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A trained model that an ensemble may use.

    Attributes:
        name: Of its folder.
        folder: That folder.
        jobs: Fold to its run, of the numbered folds that are trained and validated.
    """

    name: str
    folder: Path
    jobs: Mapping[str, RunRecord]

    @property
    def job(self) -> RunRecord:
        """Of its first fold; the others have the same plan and network."""
        return next(iter(self.jobs.values()))

    @property
    def labels(self) -> Labels:
        """The organs that it segments."""
        return self.job.plan.labels

    @property
    def configuration(self) -> Configuration:
        """As trained."""
        return self.job.configuration

    def validation(self, fold: str) -> Path:
        """Where the predictions of a fold's held-out cases lie."""
        return self.folder / f"fold_{fold}" / "validation"

    def dice(self, organ: str, folds: Sequence[str]) -> float:
        """Mean over the held-out cases of some folds; -1 where it does not segment the organ, or no case has it."""
        scores = [from_plain(read_json(self.validation(fold) / "scores.json", list), list[Score]) for fold in folds]
        mean = mean_of_known(score.dice for some in scores for score in some if score.organ == organ)
        return -1.0 if math.isnan(mean) else mean

    def command(self, fold: str) -> str:
        """What trains another fold of it."""
        return training_command(replace(self.job, fold=fold), self.job.plan.dataset, self.name)


def base_models(workspace: Workspace, dataset: str) -> dict[str, Member]:
    """Every model with a numbered fold that is trained and validated, ensembles left out, by name."""
    found = {}
    root = workspace.results(dataset)
    for name, folds in workspace.trained_models(dataset).items():
        done = [fold for fold in folds if fold != "all" and (root / name / f"fold_{fold}" / "validation" / "scores.json").is_file()]
        if done and name.partition("__")[0] != ENSEMBLE:
            jobs = {fold: read_json(root / name / f"fold_{fold}" / "run.json", RunRecord) for fold in sorted(done, key=int)}
            found[name] = Member(name, root / name, jobs)
    return found


def named(models: Mapping[str, Member], names: Sequence[str]) -> list[Member]:
    """The members that a user names, each once.

    Raises:
        ValueError: One is not among the trained models, or is an ensemble itself.
    """
    for name in names:
        if name.partition("__")[0] == ENSEMBLE:
            raise ValueError(f"--members {name}: an ensemble's members are models with networks of their own, not ensembles")
        if name not in models:
            raise unknown("member", name, models)
    return [models[name] for name in dict.fromkeys(names)]


def comparable(models: Mapping[str, Member], folds: Sequence[str] = (), *, least: int = 1) -> list[Member]:
    """Models that share folds; those of the fewest folds are left out, with a warning, until the others share enough.

    Args:
        models: By name.
        folds: That they must have; empty means any.
        least: Folds that are enough. Where no models share so many, all are given back.

    Raises:
        ValueError: There are none.
    """
    able = [one for one in models.values() if set(folds) <= set(one.jobs)]
    if not able:
        asked = f" with fold {', '.join(folds)}" if folds else ""
        raise ValueError(
            f"ensemble: expected a trained and validated model{asked}, found none. Run: autoseg_train DATASET CONFIGURATION FOLD"
        )
    left = sorted(able, key=lambda one: (-len(one.jobs), one.name))
    while left and len(set.intersection(*(set(one.jobs) for one in left))) < least:
        left = left[:-1]
    for one in able if left else ():
        if one not in left:
            log.warning("%s is no member: its folds (%s) are too few.", one.name, ", ".join(one.jobs))
    return sorted(left or able, key=lambda one: one.name)


def best_of(models: Sequence[Member], organs: Sequence[str], folds: Sequence[str]) -> dict[str, str]:
    """For each organ the model with the best mean Dice over the held-out cases of some folds; among equals that of most organs.

    Raises:
        ValueError: No model segments an organ.
    """
    chosen = {}
    ranked = sorted(models, key=lambda one: -len(one.labels.names))
    for organ in organs:
        able = [one for one in ranked if organ in one.labels.names]
        if not able:
            raise unknown("organ of the trained models", organ, {name for one in models for name in one.labels.names})
        chosen[organ] = max(able, key=lambda one: one.dice(organ, folds)).name
    return chosen


def shared_folds(members: Sequence[Member], *, least: int) -> list[str]:
    """The folds that every member has.

    Raises:
        ValueError: They are fewer than `least`; the message lists the commands that train what is missing.
    """
    everything = sorted({fold for one in members for fold in one.jobs}, key=int)
    shared = [fold for fold in everything if all(fold in one.jobs for one in members)]
    if len(shared) >= least:
        return shared
    wanted = everything if len(everything) >= least else [*everything, str(len(everything))]
    missing = [one.command(fold) for one in members for fold in wanted if fold not in one.jobs]
    listed = "\n".join(f"  {command}" for command in missing)
    raise ValueError(
        f"ensemble: expected {least} or more folds that every member was trained and validated on, "
        f"found {', '.join(shared) or 'none'}. Run:\n{listed}"
    )


def held_out(members: Sequence[Member], fold: str) -> list[str]:
    """Cases of a fold that every member predicted without having been trained on them, and whose probabilities are still there.

    Raises:
        ValueError: There is none, or a member's networks of this fold were trained on a case that another one's were validated on.
    """
    splits = [member.jobs[fold].split for member in members]
    common = set.intersection(*(set(split.val) for split in splits))
    for member, split in zip(members, splits, strict=True):
        seen = set().union(*(other.val for other in splits)) & set(split.train)
        if seen:
            raise ValueError(
                f"{member.name}, fold {fold}: was trained on {', '.join(sorted(seen))}, which another member's fold {fold} holds out; "
                "an ensemble of them would learn from what it should not know. Train them with the same folds"
            )
    there = [name for name in sorted(common) if all(has_logits(member.validation(fold), name) for member in members)]
    if not there:
        raise ValueError(
            f"fold {fold}: no case of which every member's probabilities (.b2nd) are there. To make them again, remove "
            f"{', '.join(str(member.validation(fold)) for member in members)} and run the same autoseg_train"
        )
    if len(there) < len(common):
        log.warning("Fold %s: left out, as not every member's probabilities are there: %s", fold, ", ".join(sorted(common - set(there))))
    return there
