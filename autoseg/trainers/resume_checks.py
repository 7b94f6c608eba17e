"""What may follow what was begun before: the same data for a run that goes on, alike networks for folds that vote together."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..preprocessing.preprocess import recipe_of
from ..runtime.checkpoints import load_checkpoint
from ..runtime.registry import FINAL_CHECKPOINT
from ..runtime.serialization import read_json, to_plain
from ..schema import Configuration, Plan
from ..schema.run_record import RunRecord
from .validation import FAILURES

log = logging.getLogger(__name__)

LITTLE = 0.5
"""Share of a network's numbers; where trained weights give less, the user should know."""


def is_finished(run: Path) -> bool:
    """Whether a run is trained, and validated without a case that failed."""
    validation = run / "validation"
    return (run / FINAL_CHECKPOINT).is_file() and (validation / "scores.json").is_file() and not (validation / FAILURES).is_file()


def check_resumable(run: Path, plan: Plan, configuration: Configuration, *, restart: bool = False) -> None:
    """Refuses data and networks that do not fit what was begun, before any of its data is replaced.

    Args:
        run: Folder of the fold.
        plan: As it is now.
        configuration: Of `plan`, to train.
        restart: The run itself begins anew, and only its sibling folds count.

    Raises:
        ValueError: A run can go on only with data preprocessed as when it began, and a new fold can join only folds that were trained on
            such data with such a network; the message says what differs.
    """
    record = run / "run.json"
    if record.is_file() and not restart:
        begun = read_json(record, RunRecord)
        _compare(record, _data(plan, configuration), _data(begun.plan, begun.configuration))
        return
    for record in _siblings(run):
        begun = read_json(record, RunRecord)
        now, then = (_data(p, c) | _network(c) for p, c in ((plan, configuration), (begun.plan, begun.configuration)))
        _compare(record, now, then)


def warn_if_options_differ(run: Path, configuration: Configuration, trainer_options: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Says where a run was begun with other options than are asked for now: they keep those that it was begun with.

    Args:
        run: Folder of the fold, with its ``run.json``.
        configuration: That is asked for.
        trainer_options: That are asked for.
        changes: Training options that are asked for, by the names of `TrainingOptions`.
    """
    begun = read_json(run / "run.json", RunRecord)
    now: dict[str, Any] = {"network options": configuration.network_options, "trainer options": dict(trainer_options), **changes}
    then: dict[str, Any] = {"network options": begun.configuration.network_options, "trainer options": begun.trainer_options}
    then |= {name: getattr(begun.options, name, None) for name in changes}
    plain = [(name, to_plain(now[name]), to_plain(then[name])) for name in now if not isinstance(changes.get(name), Mapping)]
    different = [f"{name} {old}, not {new}" for name, new, old in plain if new != old]
    if different:
        log.warning(
            "%s was begun with %s; begin anew with --restart to change that, or train beside it with --tag WORD.", run, "; ".join(different)
        )


def _siblings(run: Path) -> Iterator[Path]:
    return (record for record in sorted(run.parent.glob("fold_*/run.json")) if record.parent != run)


def _data(plan: Plan, configuration: Configuration) -> dict[str, Any]:
    return to_plain(recipe_of(plan, configuration)) | {"organs": list(plan.labels.names)}


def _network(configuration: Configuration) -> dict[str, Any]:
    return {"network": configuration.network, "network_options": to_plain(configuration.network_options)}


def _compare(record: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    # As text, in which two NaN are the same.
    different = [what for what in now if json.dumps(now[what]) != json.dumps(then[what])]
    if different:
        found = "; ".join(f"with {what} {then[what]}, the plan now says {now[what]}" for what in different)
        raise ValueError(
            f"{record}: this run was begun {found}. "
            f"Plan as before, or begin anew: --restart for a single fold, or move {record.parents[1]} away"
        )


def find_pretrained(path: Path | None) -> Path | None:
    """The checkpoint that a user means by a file, the folder of a fold, or that of a model (its fold ``all``, else its first).

    Raises:
        ValueError: It is not there, or holds no network.
    """
    if path is None:
        return None
    file = Path(path).expanduser().resolve()
    if file.is_dir():
        there = [file / FINAL_CHECKPOINT, file / "fold_all" / FINAL_CHECKPOINT, *sorted(file.glob(f"fold_*/{FINAL_CHECKPOINT}"))]
        file = next((one for one in there if one.is_file()), there[0])
    states, _ = load_checkpoint(file)
    if "network" not in states:
        raise ValueError(f"--pretrained {file}: expected a checkpoint with a network, found {', '.join(states) or 'nothing'}")
    return file


def check_pretrained(network: nn.Module, path: Path | None) -> None:
    """Refuses weights of which none fits.

    Raises:
        ValueError: No weight has the name and shape of one of the network's.
    """
    if path is None:
        return
    own, weights = network.state_dict(), load_checkpoint(path)[0]["network"]
    fitting = [name for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape]
    if not fitting:
        raise ValueError(f"--pretrained {path}: not one weight fits this network; was it trained with the same plan?")
    share = sum(own[name].numel() for name in fitting) / sum(tensor.numel() for tensor in own.values())
    if share < LITTLE:
        log.warning("Only %.0f %% of this network's numbers are taken from %s: was it trained with another plan?", 100 * share, path)
    else:
        log.info("Training starts from those weights of %s that fit: %.0f %% of the network's.", path, 100 * share)


def width_of(pretrained: Path | None) -> float:
    """Share of the planned features that the network of a checkpoint was built with, as the ``run.json`` beside it says; 1 without one."""
    record = None if pretrained is None else pretrained.with_name("run.json")
    return 1.0 if record is None or not record.is_file() else read_json(record, RunRecord).configuration.width
