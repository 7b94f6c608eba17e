"""What the commands share: options, units, and how a command ends."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

PAPERS = "conze2021, crespi2023, fang2020, roth2018 or thaler2021"
"""Names in `autoseg.presets.settings.PAPER_PRESETS`, which cannot be imported for a help text."""

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """``90s``, ``20m``, ``2h``, ``1h30m`` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise argparse.ArgumentTypeError(f"expected a duration like 90s, 20m, 2h or 1h30m, got {text!r}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def assignment(text: str) -> tuple[str, Any]:
    """``name=value`` with the value as JSON where it is some (``3``, ``true``, ``[1, 2]``), else as text."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


def gigabytes(text: str) -> float:
    """``8GB``, ``8`` or ``6000MB`` in GB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb?|mb?|)", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"expected a memory size like 8GB or 6000MB, got {text!r}")
    return float(found[1]) / (1000 if found[2].startswith("m") else 1)


def window(words: list[str]) -> tuple[float, float] | str | None:
    """What follows ``--window``: ``auto``, or width and level in HU.

    Raises:
        ValueError: It is neither.
    """
    if not words:
        return None
    if words == ["auto"]:
        return "auto"
    try:
        width, level = map(float, words)
    except ValueError as error:
        raise ValueError(f"--window: expected WIDTH LEVEL in HU (400 50) or auto, got {' '.join(words)}") from error
    return width, level


def make_parser(name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """The parser of a command, with the options that every command has."""
    parser = argparse.ArgumentParser(
        prog=name, description=what, epilog=f"examples:\n  {examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", help="folder with raw/ preprocessed/ results/ (default: AUTOSEG_HOME, or the nearest upwards with raw/)")
    parser.add_argument("--verbose", action="store_true", help="say more, and show where an error comes from")
    return parser


def dataset_option(parser: argparse.ArgumentParser) -> None:
    """``-d``, which dataset."""
    parser.add_argument("-d", "--dataset", required=True, help="dataset id (3), name (Dataset003_Liver) or folder")


def plan_options(parser: argparse.ArgumentParser) -> None:
    """What a user may ask of the planner."""
    parser.add_argument("-c", "--configurations", nargs="+", help="only these (default: all that are planned)")
    parser.add_argument("--memory", type=gigabytes, metavar="8GB", help="memory target that patch and batch are planned for")
    parser.add_argument("--preset", help=f"default, resenc_m, resenc_l or resenc_xl; or a paper's experiment: {PAPERS}")
    parser.add_argument("--spacing", type=float, nargs="+", metavar="MM", help="target spacing z y x instead of the planned one")
    parser.add_argument("--force-lowres", action="store_true", help="plan 3d_lowres and 3d_cascade even where images are small")
    parser.add_argument("--groups", metavar="REGEX", help="regular expression that finds the patient in a case's name")
    parser.add_argument(
        "--trust-files", action="store_true", help="planned before: do not read files of unchanged path and size to verify their content"
    )
    parser.add_argument("--workers", type=int, help="processes (default: as cores and memory allow)")


def plan_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What the user said of the plan, by the names of `PlanSettings`; None where nothing was said."""
    return {
        "configurations": tuple(options.configurations) if options.configurations else None,
        "memory_gb": options.memory,
        "spacing": tuple(options.spacing) if options.spacing else None,
        "force_lowres": options.force_lowres or None,
        "groups": options.groups,
        "trust_files": options.trust_files or None,
        "workers": options.workers,
    }


def train_options(parser: argparse.ArgumentParser) -> None:
    """What a user may ask of a training."""
    parser.add_argument("-tr", "--trainer", help="trainer: Trainer, AdversarialTrainer ..., or module:Class of your own (default Trainer)")
    parser.add_argument("--network", metavar="NAME", help="network instead of the planned one; autoseg_networks lists them")
    parser.add_argument("--organs", nargs="+", default=[], metavar="ORGAN", help="a model of these organs only; the others are background")
    intensities = parser.add_mutually_exclusive_group()
    what = "see CT in this window, HU, e.g. 400 50; auto: the organ's own, from dataset.json or as usual for its name"
    intensities.add_argument("--window", nargs="+", default=[], metavar=("WIDTH", "LEVEL"), help=what)
    what = "normalisation instead of the planned one, e.g. zscore, clip:-200:200, scale:2048; one, or one a channel"
    intensities.add_argument("--normalization", nargs="+", default=[], metavar="SCHEME", help=what)
    budget = parser.add_argument_group("how long to train (default: two hours on a processor, 1000 epochs on a GPU)")
    budget.add_argument("--time", type=duration, metavar="TIME", help="e.g. 20m or 2h; the learning rate falls to zero exactly then")
    budget.add_argument("--epochs", type=int, help="epochs of 250 iterations")
    budget.add_argument("--iterations", type=int, help="optimisation steps")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch", type=int, help="patches a step (default: what suits plan and device)")
    parser.add_argument("--learning-rate", type=float, help="at the start (default: the trainer's)")
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="weights to start from: checkpoint, or folder of a fold or model")
    parser.add_argument("--ema", type=float, metavar="DECAY", help="moving average of the weights, which then predicts; 0 switches it off")
    parser.add_argument("--loss", help="loss instead of the trainer's: dice_ce, generalised_dice, weighted_ce ...")
    for whose in ("network", "trainer", "training"):
        parser.add_argument(
            f"--{whose}-option",
            action="append",
            default=[],
            type=assignment,
            metavar="NAME=VALUE",
            help=f"an option of the {whose}; repeatable",
        )
    parser.add_argument("--tag", default="", metavar="WORD", help="ends the model's name, so that trainings stand side by side")
    parser.add_argument("--restart", action="store_true", help="put an existing run aside and begin anew")


def train_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What the user said of the training, by the names of `TrainSettings`; None or empty where nothing was said."""
    named = {"average_decay": options.ema, "loss": options.loss}
    return {
        "trainer": options.trainer,
        "trainer_options": dict(options.trainer_option),
        "network": options.network,
        "network_options": dict(options.network_option),
        "organs": tuple(options.organs),
        "window": window(options.window),
        "normalization": tuple(options.normalization),
        "options": dict(options.training_option) | {name: value for name, value in named.items() if value is not None},
        "epochs": options.epochs,
        "iterations": options.iterations,
        "seconds": options.time,
        "seed": options.seed,
        "device": options.device,
        "batch": options.batch,
        "learning_rate": options.learning_rate,
        "pretrained": options.pretrained,
        "restart": options.restart,
        "tag": options.tag,
    }
