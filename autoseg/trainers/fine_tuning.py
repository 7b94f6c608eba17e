"""Fine-tuning: a training that starts from the weights of another one, whose organs may be others."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.checkpoints import load_checkpoint
from ..runtime.runs import ALL, ModelFolder, Run
from ..schema import Labels
from ..schema.run_record import RunRecord

log = logging.getLogger(__name__)

LITTLE = 0.5
"""Share of a network's numbers; where trained weights give less, the user should know."""


def find_pretrained(path: Path | None) -> Path | None:
    """The checkpoint that a user means by a file, the folder of a fold, or that of a model (its fold ``all``, else its first).

    Raises:
        ValueError: It is not there, or holds no network.
    """
    if path is None:
        return None
    file = Path(path).expanduser().resolve()
    if file.is_dir():
        model = ModelFolder(file)
        runs = [Run(file), model.run(ALL), *(model.run(fold) for fold in model.trained_folds())]
        file = next((run for run in runs if run.is_trained), runs[0]).checkpoint
    states, _ = load_checkpoint(file, remedy="name another with --pretrained")
    if "network" not in states:
        raise ValueError(f"--pretrained {file}: expected a checkpoint with a network, found {', '.join(states) or 'nothing'}")
    return file


def first_weights(run: Run, pretrained: Path | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The states that a training starts from: the final ones of a trained run, with how far that came; else pretrained ones, or None."""
    if run.is_trained:
        states, meta = load_checkpoint(run.checkpoint)
        log.info("Training on from iteration %d, after %.0f s of training.", meta["iteration"], meta["seconds"])
        return states, meta
    if pretrained is None:
        return None, None
    return load_checkpoint(pretrained, remedy="name another with --pretrained, and --restart")[0], None


def width_of(pretrained: Path | None) -> float:
    """Share of the planned features that the network of a checkpoint was built with, as the ``run.json`` beside it says; 1 without one."""
    run = None if pretrained is None else Run(pretrained.parent)
    return 1.0 if run is None or not run.is_started else run.record().configuration.width


def organs_of(pretrained: Path) -> Labels | None:
    """The organs that the network of a checkpoint learned, as the ``run.json`` beside it says; None without one."""
    run = Run(pretrained.parent)
    return run.record().plan.labels if run.is_started else None


def new_head(job: RunRecord, network: nn.Module, build: Callable[[RunRecord], nn.Module]) -> frozenset[str]:
    """Names of those tensors of a network that are not taken from the job's pretrained checkpoint, as its organs are others.

    Tensors belong to organs where they have another shape, or stand in a list of another length, in the same network for one organ more:
    the last layers of every output, a network for each organ, the first layer where a previous stage's organs are channels of the input.
    With the same organs in the same order, or with a checkpoint without a ``run.json``, whose organs nobody knows, there are none.

    Args:
        build: Gives the network of a job.
    """
    then = None if job.pretrained is None else organs_of(job.pretrained)
    if then is None or _outputs(then) == _outputs(job.plan.labels):
        return frozenset()
    plan = replace(job.plan, labels=_with_one_more(job.plan.labels), data_labels=None)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        larger = _shapes(build(replace(job, plan=plan, configuration=replace(job.configuration, sigmoid=False))))
    return _differing(_shapes(network), larger)


def kept_weights(weights: Mapping[str, Tensor], head: Collection[str]) -> dict[str, Tensor]:
    """The weights of a checkpoint without those of its head."""
    return {name: tensor for name, tensor in weights.items() if name not in head}


def check_pretrained(network: nn.Module, path: Path | None, head: Collection[str] = ()) -> None:
    """Refuses weights of which none fits, and says what of a network comes from them.

    Args:
        head: Of the network, see `new_head`.

    Raises:
        ValueError: No weight has the name and shape of one of the network's.
    """
    if path is None:
        return
    present, weights = network.state_dict(), kept_weights(load_checkpoint(path)[0]["network"], head)
    fitting = [name for name, tensor in weights.items() if name in present and present[name].shape == tensor.shape]
    if not fitting:
        raise ValueError(f"--pretrained {path}: not one weight fits this network; was it trained with the same plan?")
    share = sum(present[name].numel() for name in fitting) / sum(tensor.numel() for tensor in present.values())
    if share < LITTLE:
        log.warning(
            "Only %.0f %% of this network's numbers are taken from %s: was it trained with another plan? One that fits is made with "
            "autoseg_plan_and_preprocess --plan-from.",
            *(100 * share, path),
        )
    else:
        log.info("Training starts from those weights of %s that fit: %.0f %% of the network's.", path, 100 * share)
    learned = organs_of(path)
    if head and learned is not None:
        log.info("Its head is new (%d tensors), as that network learned other organs: %s.", len(head), ", ".join(learned.names))
    if learned is None:
        log.info("No run.json lies beside it, so its organs are taken for those of this training wherever shapes agree.")


def _outputs(labels: Labels) -> tuple[Any, ...]:
    """What the outputs of a network stand for, in order."""
    return labels.regions, *(name.lower() for name in labels.names)


def _with_one_more(labels: Labels) -> Labels:
    """The labels and one organ more."""
    value = max([*labels.base_values, labels.ignore or 0]) + 1
    name = "".join(labels.names) + "+"
    order = (*labels.regions_class_order, value) if labels.regions else ()
    return replace(labels, names=(*labels.names, name), members=(*labels.members, (value,)), regions_class_order=order)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _differing(present: Mapping[str, torch.Size], larger: Mapping[str, torch.Size]) -> frozenset[str]:
    """Names of tensors that the larger network lacks or has in another shape, and all of the lists that have more members there."""
    found = {name for name, shape in present.items() if larger.get(name) != shape}
    for name in larger.keys() - present.keys():
        for number in re.finditer(r"(?<=\.)\d+(?=\.)", name):
            members = re.compile(rf"{re.escape(name[: number.start()])}\d+\.")
            if not any(one.startswith(name[: number.end() + 1]) for one in present):
                found |= {one for one in present if members.match(one)}
                break
    return frozenset(found)
