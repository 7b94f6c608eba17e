"""Which models an ensemble is made of, and on which cases they can be believed: those that their networks were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

from ..inference.log_odds import StoredLogOdds
from ..inference.quantised_logits import has_logits, load_logits
from ..preprocessing.preprocess import recipe_of
from ..runtime.commands import train_command
from ..runtime.provenance import value_id
from ..runtime.registry import unknown_name_error
from ..runtime.runs import ALL, ModelFolder, model_folders
from ..runtime.workspace import Workspace
from ..schema import Configuration, Labels, Plan
from ..schema.run_record import EIGHT_BITS, LOG_ODDS, RunRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A trained model that an ensemble may use.

    Attributes:
        model: Its folder.
        records: Fold to its run's record, of the numbered folds that are trained and validated.
    """

    model: ModelFolder
    records: Mapping[str, RunRecord]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.model.name

    @property
    def record(self) -> RunRecord:
        """Of its first fold; the others have the same plan and network."""
        return next(iter(self.records.values()))

    @property
    def labels(self) -> Labels:
        """The organs that it segments."""
        return self.record.plan.labels

    @property
    def configuration(self) -> Configuration:
        """As trained."""
        return self.record.configuration

    def command(self, fold: str) -> str:
        """What trains another fold of it."""
        return train_command(self.record, fold=fold)


def base_models(workspace: Workspace, dataset: str) -> dict[str, Member]:
    """Every model with a numbered fold that is trained and validated, ensembles left out, by name."""
    models = {}
    for model in model_folders(workspace.results(dataset)):
        folds = sorted((fold for fold in model.validated_folds() if fold != ALL), key=int)
        if folds and not model.is_ensemble:
            models[model.name] = Member(model, {fold: model.run(fold).record() for fold in folds})
    return models


def named(models: Mapping[str, Member], names: Sequence[str]) -> list[Member]:
    """The members that a user names, each once; raises ValueError for one that is not trained, or an ensemble itself."""
    for name in names:
        if ModelFolder(Path(name)).is_ensemble:
            raise ValueError(f"--members {name}: an ensemble's members are models with networks of their own, not ensembles")
        if name not in models:
            raise unknown_name_error("member", name, models)
    return [models[name] for name in dict.fromkeys(names)]


def comparable(models: Mapping[str, Member], folds: Sequence[str] = (), *, organs: Sequence[str] = (), least: int = 1) -> list[Member]:
    """Models that share folds: as many organs, then models, then folds as there are; the others are left out, with a warning.

    All must have the given folds; `least` shared ones are enough, and where no models share so many, all are given back.

    Args:
        organs: That count; none means all.

    Raises:
        ValueError: There are none.
    """
    able = [one for one in models.values() if set(folds) <= set(one.records)]
    if not able:
        wanted = f"model with fold {', '.join(folds)}" if folds else "model"
        raise ValueError(f"ensemble: expected a trained and validated {wanted}, found none. Run: autoseg_train DATASET CONFIGURATION FOLD")

    def worth(members: Sequence[Member]) -> tuple[int, int, int]:
        known = {organ for one in members for organ in one.labels.names}
        return len(known & set(organs or known)), len(members), len(_folds_of_all(members))

    everything = sorted({fold for one in able for fold in one.records}, key=int)
    groups = [[one for one in able if set(shared) <= set(one.records)] for shared in combinations(everything, least)]
    kept = max(filter(None, groups), key=worth, default=able)
    shared = _folds_of_all(kept)
    for one in models.values() if shared else ():
        if one not in kept:
            commands = "\n".join(f"  {one.command(fold)}" for fold in shared if fold not in one.records)
            words = one.name, ", ".join(one.records), ", ".join(shared), commands
            log.warning("%s is no member: it was trained on fold %s, the members share fold %s. To have it, run:\n%s", *words)
    return sorted(kept, key=lambda one: one.name)


def _folds_of_all(members: Sequence[Member]) -> list[str]:
    """Folds that every member has."""
    return sorted(set.intersection(*(set(one.records) for one in members)), key=int)


def shared_folds(members: Sequence[Member], *, least: int) -> list[str]:
    """The folds that every member has; where they are fewer than `least`, ValueError lists the commands that train what is missing."""
    everything, shared = sorted({fold for one in members for fold in one.records}, key=int), _folds_of_all(members)
    if len(shared) >= least:
        return shared
    others = (fold for number in range(least + len(everything)) if (fold := str(number)) not in everything)
    wanted = [*everything, *islice(others, max(0, least - len(everything)))]
    missing = [one.command(fold) for one in members for fold in wanted if fold not in one.records]
    listed = "\n".join(f"  {command}" for command in missing)
    raise ValueError(
        f"ensemble: expected {least} or more folds that every member was trained and validated on, "
        f"found {'fold ' * bool(shared)}{', '.join(shared) or 'none'}. Run:\n{listed}"
    )


def check_planned_as_trained(members: Sequence[Member], plan: Plan) -> None:
    """Refuses (ValueError) members that were trained with another plan: their cases would be preprocessed again in the former way."""
    for member in members:
        then, configuration = member.record.plan, member.record.configuration
        for what, before, now in (
            ("labels", then.stored_labels, plan.stored_labels),
            ("intensities", recipe_of(then, configuration).intensities, recipe_of(plan, configuration).intensities),
            ("axes", (then.orientation, then.transpose), (plan.orientation, plan.transpose)),
        ):
            if value_id(before) != value_id(now):
                raise ValueError(
                    f"{member.name}: was trained with other {what} than {plan.dataset} is planned with now. Plan as before, or train it "
                    f"again with --restart: {member.command(next(iter(member.records)))}"
                )


def stored_form(members: Sequence[Member], folds: Sequence[str]) -> str:
    """In which form an ensemble reads its members' predictions: that of validation now, unless earlier versions stored some of them."""
    for member in members:
        for fold in folds:
            folder = member.model.run(fold).validation
            case = next((name for name in member.records[fold].split.val if has_logits(folder, name)), None)
            if case is not None and not isinstance(load_logits(folder, case).array, StoredLogOdds):
                log.warning(
                    "%s: fold %s was validated by an earlier version, which stored probabilities in eight bits, so that two models that "
                    "are both sure of a voxel tie. To have them apart, remove %s, run the same autoseg_train, and this with --restart.",
                    *(member.name, fold, folder),
                )
                return EIGHT_BITS
    return LOG_ODDS


def held_out(members: Sequence[Member], fold: str) -> list[str]:
    """Cases of a fold that every member predicted without having been trained on them, and whose probabilities are still there.

    Raises:
        ValueError: There is none, or a member's networks of this fold were trained on a case that another one's were validated on.
    """
    splits = [member.records[fold].split for member in members]
    common = set.intersection(*(set(split.val) for split in splits))
    for member, split in zip(members, splits, strict=True):
        seen = set().union(*(other.val for other in splits)) & set(split.train)
        if seen:
            raise ValueError(
                f"{member.name}, fold {fold}: was trained on {', '.join(sorted(seen))}, which another member's fold {fold} holds out; "
                "an ensemble of them would learn from what it should not know. Train them with the same folds"
            )
    there = [name for name in sorted(common) if all(has_logits(member.model.run(fold).validation, name) for member in members)]
    if not there:
        raise ValueError(
            f"fold {fold}: no case of which every member's probabilities (.b2nd) are there. To make them again, remove "
            f"{', '.join(str(member.model.run(fold).validation) for member in members)} and run the same autoseg_train"
        )
    if len(there) < len(common):
        log.warning("Fold %s: left out, as not every member's probabilities are there: %s", fold, ", ".join(sorted(common - set(there))))
    return there
