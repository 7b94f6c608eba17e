"""Training of the head that fuses several networks' features (`networks.fusion`), on cases that none of the networks was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..inference.volume_predictor import Progress, Volume, VolumePredictor
from ..trainers.history import History
from ..trainers.trainer import Trainer
from .prediction import HALVES, fuse


class FusionTrainer(Trainer):
    """As the plain trainer, for the head and, unless they are frozen, the last layers of the members' networks of the same fold.

    Its run lies two folders below the ensemble's model folder, as each fold is fitted in halves (`halves`).
    """

    def build_network(self) -> nn.Module:
        """The members' networks of this fold under a head that begins as their average."""
        results = self.folders.run.parents[2]
        made_of = self.job.ensemble
        members, trains_last = ((), False) if made_of is None else (made_of.members, made_of.trains_last)
        folders = [results / name for name in members]
        return fuse(folders, self.job.fold, self.job.plan.labels, self.device, trains_last=trains_last)


@dataclass(frozen=True)
class CrossFitted:
    """A `VolumePredictor` that predicts each case by the head that was fitted without it."""

    predictors: Mapping[str, VolumePredictor]

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """As `Predictor.logits`."""
        return self.predictors[volume.case].logits(volume, progress=progress)


def halves(groups: Mapping[str, str], rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits cases (`groups`: case to patient) into random halves, all cases of a patient in the same one; of two patients or more."""
    patients: dict[str, list[str]] = {}
    for case in sorted(groups):
        patients.setdefault(groups[case], []).append(case)
    names = sorted(patients)
    shuffled = sorted((names[index] for index in rng.permutation(len(names))), key=lambda name: -len(patients[name]))
    parts: tuple[list[str], list[str]] = ([], [])
    for name in shuffled:
        min(parts, key=len).extend(patients[name])
    return tuple(sorted(parts[0])), tuple(sorted(parts[1]))


def some_patients(cases: Sequence[str], patients: Mapping[str, str], share: float, rng: np.random.Generator) -> tuple[str, ...]:
    """The cases of a random share of their patients (`patients`: case to patient), of one at least; in the order of `cases`."""
    names = sorted({patients.get(case, case) for case in cases})
    if share == 1 or not names:
        return tuple(cases)
    chosen = {names[index] for index in rng.permutation(len(names))[: max(1, round(share * len(names)))]}
    return tuple(case for case in cases if patients.get(case, case) in chosen)


def check_halves(held_out: Mapping[str, Sequence[str]], patient_of: Mapping[str, str]) -> None:
    """Refuses folds (name to held-out cases) that cannot be fitted in halves: a ValueError names those with cases of one patient only."""
    alone = {fold: cases for fold, cases in held_out.items() if len({patient_of.get(case, case) for case in cases}) < 2}
    if alone:
        found = "; ".join(f"fold {fold}: {', '.join(sorted(cases))}" for fold, cases in alone.items())
        raise ValueError(
            f"layer fusion: expected held-out cases of two patients or more in each fold, got {found}. Name other folds with --folds, or "
            "take another kind"
        )


def joined(states: Sequence[Mapping[str, torch.Tensor]], *, trains_last: bool) -> dict[str, dict[str, torch.Tensor]]:
    """What a checkpoint holds of the networks fitted on halves of a fold: the mean of heads, else both, whose logits are averaged."""
    return dict(zip(HALVES, map(dict, states), strict=True)) if trains_last else {"network": averaged(states)}


def averaged(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of the heads' weights: for a linear head that is the mean of their logits."""
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def average_history(run: Path, parts: Sequence[Path]) -> None:
    """Writes the mean of several runs' learning curves as that of `run`, as far as the shortest goes."""
    rows = [[dict(row) for row in History(part).rows] for part in parts]
    means = [{name: float(np.mean([row[name] for row in same])) for name in same[0]} for same in zip(*rows, strict=False)]
    history = History(run)
    history.rows = means[:-1]
    history.begin(**means[-1])
    history.finish()
