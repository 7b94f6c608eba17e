"""The commands that train: train, train_ensemble, run, demo, and networks, which lists what can be trained."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from .command import command
from .failures import cases, finish, say_dry_run
from .options import (
    DATASET,
    PAPERS,
    add_allow_code,
    add_device,
    add_dry_run,
    add_overwrite,
    add_plan_options,
    add_train_options,
    build_training,
    plan_settings,
    settings_given,
)
from .output import say
from .results import say_choice
from .units import duration


def _add_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help=DATASET)
    parser.add_argument("configuration", help="2d, 2.5d, 3d_fullres, 3d_lowres, 3d_cascade, 2d_coronal ..., as planned")
    parser.add_argument("fold", help="number of the fold (0-4), or all to train on every case")
    parser.add_argument("--preset", help=f"a paper's settings: {PAPERS}; options that are given take precedence")
    add_train_options(parser)
    text = "learn from the images in imagesUn, too: from the chosen models' predictions of them, weighted by calibrated confidence"
    parser.add_argument("--pseudo-labels", action="store_true", help=text)
    text = "train until --time in all, also a run that is finished or was started with another --time: it goes on from its networks"
    parser.add_argument("--longer", action="store_true", help=text)
    text = "fit network, batch, optimiser and learning rate to a training of this time, whose first part --time is (--longer adds the rest)"
    parser.add_argument("--fit-to", type=duration, dest="fitted_seconds", metavar="TIME", help=text)
    text = (
        "score so many held-out patients without mirroring instead of validating the fold; without this option the same command validates"
    )
    parser.add_argument("--trial", type=int, metavar="PATIENTS", help=text)
    add_allow_code(parser)
    add_dry_run(parser)


@command(_add_train_arguments, "3 3d_fullres 0", "3 2d all --time 20m --device cpu", "3 2d 0 --time 2h --longer")
def train(options: Namespace) -> int:
    """Train one fold of one configuration and validate it on whole volumes.

    An interrupted run resumes from its latest checkpoint; a finished one is not trained again. 3d_cascade first trains the folds of
    3d_lowres that are missing. The exit status is 1 if cases failed; the same command tries them again.
    """
    from ..pipeline import train as function
    from ..pipeline.dry_training import dry_training
    from ..presets.settings import check_paper, train_settings

    check_paper(options.preset)
    settings = build_training(options, partial(train_settings, options.preset))
    if options.dry_run:
        asked = (options.dataset, options.configuration, options.fold, settings)
        return say_dry_run(dry_training(*asked, home=options.home, preset=options.preset))
    failures: dict[str, str] = {}
    begin = partial(function, options.dataset, options.configuration, options.fold, settings, home=options.home)
    scores = begin(failures=failures, preset=options.preset)
    if not failures:
        return 0
    validated = len({score.case for score in scores})
    return finish(f"Trained, and validated on {cases(validated)}", failures, of=validated + len(failures))


KINDS = ("argmax", "logits", "meta", "fusion", "multi", "vote")


def _add_ensemble_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help=DATASET)
    text = "argmax: the most confident organ; logits: a 1x1 convolution over the models' logits; meta: a small U-Net over them; "
    text += "fusion: a 1x1 convolution over their last feature maps; multi: each organ from its best model; "
    text += "vote: the majority of models of the same organs"
    parser.add_argument("--kind", required=True, choices=KINDS, help=text)
    parser.add_argument("--members", nargs="+", default=[], metavar="MODEL", help="model folders (default: the best model of each organ)")
    parser.add_argument("--folds", nargs="+", default=[], metavar="FOLD", help="folds to train (default: all that every member has)")
    parser.add_argument("--organs", nargs="+", default=[], metavar="ORGAN", help="organs of the ensemble (default: all of its members)")
    text = "what the best models of an organ are: loss (validation loss), dice, chaos ... (default: dice; multi: chaos)"
    parser.add_argument("--choose-by", metavar="METRIC", help=text)
    parser.add_argument("--per-organ", type=int, default=1, metavar="N", help="best models of each organ that are members (default 1)")
    parser.add_argument("--freeze", action="store_true", help="fusion: the models' last layers stay as they are, only the head is trained")
    text = "share of the patients whose cases may be learnt from that are learnt from, drawn at random (default 1: all)"
    parser.add_argument("--share", type=float, default=1.0, metavar="SHARE", help=text)
    parser.add_argument("--time", type=duration, dest="seconds", metavar="TIME", help="training time of each fold, e.g. 5m")
    parser.add_argument("--iterations", type=int, metavar="N", help="optimisation steps of each fold (default: 200, meta 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default 0)")
    add_device(parser)
    parser.add_argument("--restart", action="store_true", help="rename existing runs and train from the beginning")
    add_allow_code(parser)
    add_dry_run(parser)


@command(_add_ensemble_arguments, "3 --kind logits", "3 --kind meta --members 2d__Trainer__liver 2d__Trainer__spleen 3d_fullres__Trainer")
def train_ensemble(options: Namespace) -> int:
    """Combine trained models into one model, which is chosen and predicts like any other.

    It is trained on the models' predictions of cases that they were not trained on. An interrupted run resumes; a finished one is not
    trained again. The exit status is 1 if cases failed; the same command tries them again.
    """
    from ..pipeline import EnsembleSettings
    from ..pipeline import train_ensemble as function
    from ..pipeline.dry_training import dry_ensemble

    failures: dict[str, str] = {}
    settings = EnsembleSettings(**settings_given(options, EnsembleSettings))
    if options.dry_run:
        return say_dry_run(dry_ensemble(options.dataset, settings, home=options.home))
    scores = function(options.dataset, settings, home=options.home, failures=failures)
    everything = [score for fold_scores in scores.values() for score in fold_scores]
    if not failures:
        return 0
    validated = len({score.case for score in everything})
    return finish(f"Trained, and validated on {cases(validated)}", failures, of=validated + len(failures))


def _add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help=DATASET)
    add_plan_options(parser)
    parser.add_argument(
        "--folds", nargs="+", metavar="FOLD", help="folds to train (default: all; with --total as many as there is time for)"
    )
    whole = parser.add_argument_group("one deadline for everything (docs/study.md)").add_mutually_exclusive_group()
    text = "running time of everything in all, e.g. 8h: trainings are tried, those that can still win go on, and the choice is made in time"
    whole.add_argument("--total", type=duration, metavar="TIME", help=text)
    text = "the same until the clock shows that time, e.g. 07:00, or 2026-12-01 07:00"
    whole.add_argument("--until", metavar="HH:MM", help=text)
    text = "models of a paper's table to train (default: all), by the paper's names: --preset conze2021 --models UNet v16UNet"
    parser.add_argument("--models", nargs="+", default=[], metavar="MODEL", help=text)
    add_train_options(parser)
    text = "then train each model once more, from what the chosen ones make of the images in imagesUn, too, and choose again"
    parser.add_argument("--pseudo-labels", action="store_true", help=text)
    add_allow_code(parser)
    add_dry_run(parser)


@command(_add_run_arguments, "3", "3 --total 8h", "3 -c 2d 3d_fullres --folds 0 1 --time 1h", "3 --preset fang2020")
def run(options: Namespace) -> int:
    """Plan, preprocess, train every configuration on every fold, and choose the best models.

    The same command resumes after an interruption. The exit status is 1 if cases were left out or failed.
    """
    from ..pipeline import describe_experiment
    from ..pipeline import run as function
    from ..pipeline.dry_training import dry_run
    from ..presets.experiment import experiment

    if options.total is not None or options.until is not None:
        return _run_until(options)
    plan, folds = plan_settings(options), tuple(options.folds) if options.folds else None
    build = partial(experiment, options.preset, options.dataset, home=options.home, models=options.models)
    asked = build_training(options, partial(build, allow_external=options.allow_external, dry=options.dry_run))
    if options.dry_run:
        return say_dry_run(dry_run(options.dataset, plan, asked, folds=folds, home=options.home))
    failures: dict[str, str] = {}
    choice = function(options.dataset, plan, folds=folds, home=options.home, failures=failures, experiment=asked)
    say_choice(choice, options)
    if table := describe_experiment(options.dataset, asked, choice, plan.configurations or (), home=options.home):
        say(f"\n{table}")
    return _finish_run(options, failures)


def _finish_run(options: Namespace, failures: dict[str, str]) -> int:
    from ..runtime.workspace import find_workspace

    if not failures:
        return 0
    workspace = find_workspace(options.home, dataset=options.dataset)
    everything = {*workspace.usable_cases(workspace.dataset_folder(options.dataset).name), *failures}
    return finish(f"\nDone with {cases(len(everything) - len(failures))}", failures, of=len(everything))


def _run_until(options: Namespace) -> int:
    """What `--total` and `--until` do."""
    from ..pipeline.studying import Deadline, describe_run_until, run_until
    from ..presets import PAPER_PRESETS
    from ..presets.settings import train_settings

    if options.preset in PAPER_PRESETS:
        raise ValueError(
            "--total: expected no paper's --preset, whose trainings have the paper's lengths; shorten each of them with --time"
        )
    deadline, folds = Deadline(total=options.total, until=options.until), tuple(options.folds) if options.folds else None
    plan, training = plan_settings(options), build_training(options, partial(train_settings, None))
    if options.dry_run:
        say(describe_run_until(options.dataset, deadline, plan, training, folds=folds, home=options.home), wrap=False)
        return 0
    failures: dict[str, str] = {}
    choice = run_until(options.dataset, deadline, plan, training, folds=folds, home=options.home, failures=failures)
    say_choice(choice, options)
    return _finish_run(options, failures)


def _add_networks_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all), or module:Class of your own")
    parser.add_argument("--channels", type=int, default=1, metavar="N", help="channels of the image (default 1)")
    parser.add_argument("--classes", type=int, default=2, metavar="N", help="classes, background included (default 2)")
    parser.add_argument("--dim", type=int, choices=(2, 3), help="spatial axes (default: 2 and 3, as a network allows)")
    parser.add_argument("--patch", type=int, nargs="+", metavar="N", help="voxels per axis (default 128 128 and 64 64 64)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


@command(_add_networks_arguments, "", "vnet deeplabv3 --dim 3 --patch 96 96 96 --channels 2 --classes 5")
def networks(options: Namespace) -> None:
    """List the networks that autoseg_train --network knows, with paper, parameters, operations and memory of a forward pass."""
    from ..pipeline import describe_networks, list_networks

    rows = list_networks(options.names, in_channels=options.channels, out_channels=options.classes, dim=options.dim, patch=options.patch)
    say(json.dumps([row.to_json() for row in rows], indent=1) if options.json else describe_networks(rows), wrap=not options.json)


def _add_demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default="autoseg_demo", metavar="FOLDER", help="new folder (default: autoseg_demo)")
    add_overwrite(parser)
    text = "training time of each of the two models (default: a fixed number of steps, which learn the same however busy the computer is)"
    parser.add_argument("--time", type=duration, metavar="TIME", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the phantom and of the training (default 0)")


@command(_add_demo_arguments, "", "-o my_folder")
def demo(options: Namespace) -> None:
    """Run everything on built-in example data, in about six minutes on two idle processor cores.

    It makes a CT-like phantom dataset of the abdomen, plans, trains 2d and 3d_fullres, chooses the best for each organ, predicts
    held-out cases and draws them. Beside other programs it takes longer, which it says, and learns the same.
    """
    from ..evaluation.folders import mean_dice, table
    from ..pipeline import demo as function
    from ..pipeline import describe_choice

    result = function(options.output, seconds=options.time, seed=options.seed, overwrite=options.overwrite)
    say(f"\nChosen by cross-validation:\n{describe_choice(result.choice)}")
    say(f"\nHeld-out cases, which no training has seen:\n{table(result.scores)}")
    if (dice := mean_dice(result.scores)) < LEARNT:
        say(f"\nA mean Dice of {dice:.2f}: the trainings were too short; without --time they take the steps that they need.")
    say("\nPictures:\n" + "\n".join(f"  {path}" for path in result.pictures))
    say(f"\n{NEXT.format(home=result.home)}", wrap=False)


LEARNT = 0.8
"""Mean Dice below which a demonstration is said not to have learnt what it could."""

NEXT = """What to do next: look at the pictures, and at all results in one page:
  autoseg_report 900 --home {home}
For your own data, in a folder my_home/raw/Dataset003_Liver with imagesTr, labelsTr
and dataset.json (as nnU-Net and the Decathlon have them; docs/data.md):
  cd my_home
  autoseg_check -d 3                       # list the problems of the data
  autoseg_plan_and_preprocess -d 3         # measure, plan, preprocess
  autoseg_train 3 3d_fullres 0 --time 1h   # train one model, validate it
  autoseg_predict -i new_scans -o out      # segment new images
or everything for the best result, all models on all folds:
  autoseg_run 3 --time 1h"""
