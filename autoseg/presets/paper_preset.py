"""What the preset of a paper's experiment holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BARE = {"weight_decay": 0.0, "warmup": 0.0, "average_decay": 0.0}
"""Training options that the papers do not use, and the defaults here do."""


@dataclass(frozen=True, kw_only=True)
class PaperPreset:
    """One paper's experiment.

    Attributes:
        paper: Authors, venue, year.
        configurations: To plan data for and, by ``autoseg_run``, to train.
        networks: By ``autoseg_run`` each is trained; `autoseg_train` takes the first. None means the trainer's own.
        organ_by_organ: ``autoseg_run`` trains a model an organ.
        plan: Values of `PlanSettings`.
        training: Values of `TrainSettings`.
        why: What stands for what in the paper, by setting.
        departures: What is otherwise than in the paper.
    """

    paper: str
    configurations: tuple[str, ...]
    networks: tuple[str, ...] = ()
    organ_by_organ: bool = False
    plan: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, str]
    departures: tuple[str, ...]
