"""Options that several commands share, and the settings made of them."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .units import assignment, duration, gigabytes, spacing, window

if TYPE_CHECKING:
    from ..schema.settings import PlanSettings

T = TypeVar("T")

PAPERS = "conze2021, crespi2023, fang2020, roth2018 or thaler2021"
"""Names in `autoseg.presets.settings.PAPER_PRESETS`, which cannot be imported for a help text."""

DATASET = "dataset id (3), name (Dataset003_Liver) or folder"


def add_device(parser: ArgumentParser) -> None:
    """Adds ``--device``."""
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def add_allow_code(parser: ArgumentParser) -> None:
    """Adds ``--allow-code``."""
    text = "a module of your own, or of others you trust, that a name in the dataset's or models' files may import; repeatable"
    parser.add_argument("--allow-code", action="append", default=[], metavar="MODULE", help=text)


def add_dry_run(parser: ArgumentParser) -> None:
    """Adds ``--dry-run``."""
    text = "say what would be done, with the inputs that were found and the files that would be written or replaced, and write nothing"
    parser.add_argument("--dry-run", action="store_true", help=text)


def add_groups(parser: ArgumentParser) -> None:
    """Adds ``--groups``."""
    parser.add_argument("--groups", metavar="REGEX", help="regular expression that finds the patient in a case's name")


def add_all(parser: ArgumentParser, text: str) -> None:
    """Adds ``--all``, which prints what is left out otherwise."""
    parser.add_argument("--all", action="store_true", help=text)


def add_overwrite(parser: ArgumentParser, text: str = "") -> None:
    """Adds ``--overwrite``; `text` is its help where it is about other files than outputs."""
    text = text or "replace files that this command did not write, or that were changed since; never its inputs"
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_postprocess(parser: ArgumentParser, instead: str) -> None:
    """Adds ``--postprocess``; `instead` says instead of what."""
    text = f"largest: keep the largest component of each organ, kidney=2: the two largest of one, none: nothing; {instead}"
    parser.add_argument("--postprocess", nargs="+", default=[], metavar="STEPS", help=text)


def add_nifti_geometry(parser: ArgumentParser) -> None:
    """Adds ``--nifti-geometry``."""
    text = "which header is true where sform and qform of a NIfTI file contradict each other"
    default = "default: as planned; else the sform that agrees with pixdim"
    parser.add_argument("--nifti-geometry", choices=("sform", "qform"), help=f"{text} ({default})")


def add_external(parser: ArgumentParser) -> None:
    """Adds ``--allow-external``."""
    text = "let dataset.json name files outside of the dataset's folder; remembered for this dataset in the home"
    parser.add_argument("--allow-external", action="store_true", help=text)


def add_workers(parser: ArgumentParser) -> None:
    """Adds ``--workers``."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: as many as cores and memory allow)")


def add_plan_options(parser: ArgumentParser) -> None:
    """Adds the options of planning and preprocessing."""
    parser.add_argument(
        "-c", "--configurations", nargs="+", metavar="NAME", help="only these (default: all that are planned); also 2d_coronal, 2d_sagittal"
    )
    parser.add_argument(
        "--memory", type=gigabytes, dest="memory_gb", metavar="8GB", help="memory target that patch and batch are planned for"
    )
    parser.add_argument("--preset", help=f"default, resenc_m, resenc_l or resenc_xl; or a paper's experiment: {PAPERS}")
    text = "target spacing z y x in mm instead of the planned one; or a multiple of that, e.g. x2"
    parser.add_argument("--spacing", nargs="+", metavar="MM", help=text)
    parser.add_argument("--force-lowres", action="store_true", help="plan 3d_lowres and 3d_cascade even where images are small")
    parser.add_argument("--one-grid", action="store_true", help="plan 3d_lowres and 3d_cascade on the grid of 3d_fullres")
    text = "take over the plan of another dataset (id, name, or the folder of its plan or models), to train its networks on"
    parser.add_argument("--plan-from", metavar="DATASET", help=text)
    add_groups(parser)
    add_external(parser)
    add_nifti_geometry(parser)
    text = "planning again: do not read files whose path and size are as recorded to verify that their content is, too"
    parser.add_argument("--trust-files", action="store_true", help=text)
    add_overwrite(parser, "replace plan.json, and the choice in autoseg_run, although it was edited")
    add_workers(parser)


def plan_settings(options: Namespace) -> PlanSettings:
    """Builds the settings of planning: the preset's, overridden by the options that are given."""
    from ..presets import settings as presets
    from ..schema.settings import PlanSettings

    given = {name: None if value is False else value for name, value in settings_given(options, PlanSettings).items()}
    given["spacing"] = spacing(options.spacing)
    return presets.plan_settings(given.pop("preset"), **given)


def add_train_options(parser: ArgumentParser) -> None:
    """Adds the options of training."""
    parser.add_argument("-tr", "--trainer", help="trainer: Trainer (default), AdversarialTrainer ..., or module:Class of your own")
    parser.add_argument("--network", metavar="NAME", help="network instead of the planned one; autoseg_networks lists them")
    parser.add_argument("--organs", nargs="+", default=[], metavar="ORGAN", help="train on these organs only; the others are background")
    text = "of a merged dataset: learn from the cases of these datasets only; all held-out cases are validated"
    parser.add_argument("--sources", nargs="+", default=[], metavar="DATASET", help=text)
    text = "a model of one organ: one output with sigmoid, or two with softmax (default: as in the paper of the network)"
    parser.add_argument("--sigmoid", action=BooleanOptionalAction, help=text)
    intensities = parser.add_mutually_exclusive_group()
    text = "CT window in HU, e.g. 400 50; auto: the window of the organ, from dataset.json or as usual for its name"
    intensities.add_argument("--window", nargs="+", default=[], metavar=("WIDTH", "LEVEL"), help=text)
    text = "normalisation instead of the planned one, e.g. zscore, clip:-200:200, scale:2048; one, or one per channel"
    intensities.add_argument("--normalization", nargs="+", default=[], metavar="SCHEME", help=text)
    _add_slices(parser)
    _add_budget(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default 0)")
    add_device(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="batch size (default: as planned, adapted to the device)")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="initial learning rate (default: the trainer's)")
    text = "checkpoint to start from, or the folder of a fold or model; weights that fit are loaded"
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help=text)
    text = "exponential moving average of the weights, which is used for prediction; 0 switches it off"
    parser.add_argument("--ema", type=float, metavar="DECAY", help=text)
    parser.add_argument("--loss", metavar="NAME", help="loss instead of the trainer's: dice_ce, dice_topk, dice_focal, tversky_ce ...")
    for owner in ("network", "trainer", "training"):
        text = f"an option of the {owner}{', also of its augmentation' if owner == 'training' else ''}; repeatable"
        name = "options" if owner == "training" else f"{owner}_options"
        parser.add_argument(f"--{owner}-option", action="append", default=[], dest=name, type=assignment, metavar="NAME=VALUE", help=text)
    text = "auto: fewer mirrored copies and tiles in validation where it would take longer than half of --time; full: never (default auto)"
    parser.add_argument("--validation", choices=("auto", "full"), default="auto", help=text)
    text = "suffix of the model's name, so that trainings with other options are stored side by side"
    parser.add_argument("--tag", default="", metavar="WORD", help=text)
    parser.add_argument("--restart", action="store_true", help="rename an existing run and train from the beginning")


def _add_slices(parser: ArgumentParser) -> None:
    """Adds the options of the grey values and the part of slices that a network sees."""
    text = "with --window: round to 256 grey values, as an 8-bit image has"
    parser.add_argument("--window-bits", type=int, choices=(8,), help=text)
    text = "use only so many pixels (of the image) about the centre of each slice; what lies outside is background"
    parser.add_argument("--center-crop", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help=text)
    text = "2d and 2.5d: resample each slice to so many pixels instead of to the planned spacing"
    parser.add_argument("--slice-shape", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help=text)
    parser.add_argument("--patch", type=int, nargs="+", metavar="N", help="voxels per axis of a training patch instead of the planned ones")


def _add_budget(parser: ArgumentParser) -> None:
    budget = parser.add_argument_group("training time (default: two hours on a processor, 1000 epochs on a GPU)")
    text = "e.g. 20m or 2h; the learning rate reaches zero at its end"
    budget.add_argument("--time", type=duration, dest="seconds", metavar="TIME", help=text)
    budget.add_argument("--epochs", type=int, metavar="N", help="epochs of 250 iterations")
    budget.add_argument("--iterations", type=int, metavar="N", help="optimisation steps")
    text = "optimisation steps of a cascade's first stage (default: what its second stage gets)"
    budget.add_argument("--first-iterations", type=int, metavar="N", help=text)


def settings_given(options: Namespace, kind: type[Any]) -> dict[str, Any]:
    """The options that have the names of a settings' fields: lists as tuples, those of ``NAME=VALUE`` as a dictionary."""
    values = {item.name: getattr(options, item.name) for item in fields(kind) if hasattr(options, item.name)}
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    return values | {name: dict(value) if value and isinstance(value[0], tuple) else tuple(value) for name, value in lists.items()}


def build_training(options: Namespace, build: Callable[..., T]) -> T:
    """Calls `build` with the options of training by the names of `TrainSettings`; None and what is empty mean not given."""
    from ..schema.settings import TrainSettings

    named = {"average_decay": options.ema, "loss": options.loss}
    given = settings_given(options, TrainSettings)
    given["options"] = {**dict(given["options"]), **{name: value for name, value in named.items() if value is not None}}
    return build(**given | {"window": window(options.window)})
