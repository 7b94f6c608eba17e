"""The commands up to prediction: parse, call one function of the pipeline, print. What is heavy waits until the arguments are understood.

Those that look at results are in `results`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from .options import PAPERS, dataset_option, duration, make_parser, plan_arguments, plan_options, train_arguments, train_options


def plan_and_preprocess(argv: list[str] | None = None) -> int:
    """autoseg_plan_and_preprocess"""
    parser = make_parser(
        "autoseg_plan_and_preprocess",
        "Measure a dataset, plan how to train on it (spacing, patch, network; 2d, 3d_fullres, 3d_lowres, 3d_cascade), and preprocess it.",
        "autoseg_plan_and_preprocess -d 3\n  autoseg_plan_and_preprocess -d /data/Dataset003_Liver -c 2d 3d_fullres --memory 12GB",
    )
    dataset_option(parser)
    plan_options(parser)

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import plan_and_preprocess as function
        from ..planners.plan import describe

        plan = function(options.dataset, plan_settings(options), home=options.home)
        print(describe(plan))
        names = options.configurations or [name for name in plan.configurations if name in ("2d", "3d_fullres")]
        print(f"\nNext: autoseg_train {plan.dataset} {names[-1]} 0")
        return 0

    return run_command(parser, argv, _work)


def check(argv: list[str] | None = None) -> int:
    """autoseg_check"""
    parser = make_parser(
        "autoseg_check",
        "List every problem of every case of a dataset; with --fix, write a repaired copy beside it.",
        "autoseg_check -d 3\n  autoseg_check -d 3 --fix",
    )
    dataset_option(parser)
    parser.add_argument("--fix", action="store_true", help="write a copy in which everything that can be repaired safely is repaired")
    parser.add_argument("-o", "--out", type=Path, help="folder for the repaired copy (default: beside the dataset, with the next free id)")
    parser.add_argument("--groups", metavar="REGEX", help="regular expression that finds the patient in a case's name")
    parser.add_argument("--workers", type=int, help="processes (default: as cores and memory allow)")

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import check_dataset, fix_dataset
        from ..runtime.workspace import find_workspace, fixed_name

        folder = find_workspace(options.home, dataset=options.dataset).dataset_folder(options.dataset)
        problems = check_dataset(folder, groups=options.groups, workers=options.workers)
        for problem in problems:
            print(f"{problem.case}: {problem.kind}{' (--fix can repair it)' if problem.fixable else ''}")
            print(f"  file      {problem.file}\n  found     {problem.found}\n  expected  {problem.expected}")
        if not problems:
            print(f"{folder}: no problem found.")
            return 0
        fixable = sum(problem.fixable for problem in problems)
        print(f"{folder}: {len(problems)} problems, {fixable} of which --fix can repair.")
        if options.fix:
            out = options.out or fixed_name(folder)
            print("\n".join(fix_dataset(folder, problems, out)))
            print(f"The repaired copy is {out}\nNext: autoseg_plan_and_preprocess -d {out.name}")
        return 0 if options.fix else 1

    return run_command(parser, argv, _work)


def merge(argv: list[str] | None = None) -> int:
    """autoseg_merge"""
    parser = make_parser(
        "autoseg_merge",
        "Make one partially labelled dataset out of several with different organs. Organs of the same name are the same organ. Images "
        "are referred to, not copied; label maps are written anew only where their values change.",
        "autoseg_merge -d 1 2 3 -o 9\n  autoseg_merge -d Liver /data/Dataset002_Spleen -o 9 --name Abdomen",
    )
    parser.add_argument("-d", "--datasets", nargs="+", required=True, help="two or more datasets: ids, names or folders")
    parser.add_argument("-o", "--out", type=int, required=True, metavar="ID", help="id of the new dataset, which must be free")
    parser.add_argument("--name", help="its name (default: those of the datasets joined by _)")

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import merge as function

        folder, told = function(options.datasets, options.out, name=options.name, home=options.home)
        print("\n".join(told))
        print(f"The merged dataset is {folder}\nNext: autoseg_plan_and_preprocess -d {options.out}")
        return 0

    return run_command(parser, argv, _work)


def train(argv: list[str] | None = None) -> int:
    """autoseg_train"""
    parser = make_parser(
        "autoseg_train",
        "Train one fold of one configuration and validate it on whole volumes. An interrupted run goes on by itself where it was; "
        "a finished one says so. 3d_cascade first trains what it needs of 3d_lowres.",
        "autoseg_train 3 3d_fullres 0\n  autoseg_train 3 2d all --time 20m --device cpu",
    )
    parser.add_argument("dataset", help="dataset id (3), name (Dataset003_Liver) or folder")
    parser.add_argument("configuration", help="2d, 2.5d, 3d_fullres, 3d_lowres or 3d_cascade, as planned")
    parser.add_argument("fold", help="number of the fold (0-4), or all to train on every case")
    parser.add_argument("--preset", help=f"train as a paper did: {PAPERS}; what you say otherwise wins")
    train_options(parser)

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import train as function
        from ..presets.settings import check_paper, explain

        check_paper(options.preset)
        explain(options.preset)
        function(options.dataset, options.configuration, options.fold, train_settings(options), home=options.home)
        return 0

    return run_command(parser, argv, _work)


def predict(argv: list[str] | None = None) -> int:
    """autoseg_predict"""
    parser = make_parser(
        "autoseg_predict",
        "Segment new images. The trained dataset, the best models for each organ and both stages of a cascade are found by themselves.",
        "autoseg_predict -i in -o out\n  autoseg_predict -i scan.nii.gz -o out -d 3 --no-tta",
    )
    parser.add_argument("-i", "--input", required=True, help="folder of images, one file, a DICOM series, or a folder of series")
    parser.add_argument("-o", "--output", required=True, help="folder for the segmentations")
    parser.add_argument("-d", "--dataset", help="trained dataset (needed only when several are trained)")
    parser.add_argument("-c", "--configuration", dest="model", help="use this configuration or model instead of the chosen ones")
    parser.add_argument("--folds", nargs="+", help="folds that vote (default: all that each model was trained on)")
    parser.add_argument("--no-tta", action="store_true", help="no averaging over mirrored images: several times faster, slightly worse")
    parser.add_argument("--step", type=float, default=0.5, help="distance of tiles as a share of the patch (default 0.5)")
    parser.add_argument("--low-memory", action="store_true", help="one network and one tile at a time: slower, in little memory")
    parser.add_argument("--save-probabilities", action="store_true", help="also write <case>_probabilities.npy, one channel an organ")
    parser.add_argument("--uncertainty", action="store_true", help="also write maps of uncertainty and a table of what to check first")
    parser.add_argument("--ending", help="file ending of the segmentations, e.g. .nrrd (default: each input's own)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import PredictSettings, predict_folder

        settings = PredictSettings(
            dataset=options.dataset,
            model=options.model,
            folds=tuple(options.folds) if options.folds else None,
            mirror=not options.no_tta,
            step=options.step,
            low_memory=options.low_memory,
            save_probabilities=options.save_probabilities,
            uncertainty=options.uncertainty,
            ending=options.ending,
            device=options.device,
        )
        failures = predict_folder(options.input, options.output, settings, home=options.home)
        for case, reason in failures.items():
            print(f"FAILED {case}: {reason}", file=sys.stderr)
        print(f"Segmentations are in {options.output}" + (f"; {len(failures)} cases failed" if failures else ""))
        return 1 if failures else 0

    return run_command(parser, argv, _work)


def run(argv: list[str] | None = None) -> int:
    """autoseg_run"""
    parser = make_parser(
        "autoseg_run",
        "Everything in one go: plan, preprocess, train every configuration on every fold, choose the best. Started again, it goes on.",
        "autoseg_run 3\n  autoseg_run 3 -c 2d 3d_fullres --folds 0 1 --time 1h\n  autoseg_run 3 --preset fang2020",
    )
    parser.add_argument("dataset", help="dataset id, name or folder")
    plan_options(parser)
    parser.add_argument("--folds", nargs="+", help="folds to train (default: all)")
    train_options(parser)

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import describe_choice
        from ..pipeline import run as function
        from ..presets.settings import explain, trainings

        asked, folds = plan_settings(options), tuple(options.folds) if options.folds else None
        explain(options.preset)
        settings = trainings(options.preset, options.dataset, home=options.home, **train_arguments(options))
        choice = function(options.dataset, asked, settings, folds=folds, home=options.home)
        print(describe_choice(choice))
        return 0

    return run_command(parser, argv, _work)


def networks(argv: list[str] | None = None) -> int:
    """autoseg_networks"""
    parser = make_parser(
        "autoseg_networks",
        "List the networks that autoseg_train --network knows: paper, parameters, operations and memory of a forward pass of one patch.",
        "autoseg_networks\n  autoseg_networks vnet deeplabv3 --dim 3 --patch 96 96 96 --channels 2 --classes 5",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all), or module:Class of your own")
    parser.add_argument("--channels", type=int, default=1, help="of the image (default 1)")
    parser.add_argument("--classes", type=int, default=2, help="background included (default 2)")
    parser.add_argument("--dim", type=int, choices=(2, 3), help="spatial axes (default: 2 and 3, as a network allows)")
    parser.add_argument("--patch", type=int, nargs="+", metavar="N", help="voxels per axis (default 128 128 and 64 64 64)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def _work(options: argparse.Namespace) -> int:
        from ..pipeline import describe_networks, list_networks

        chosen = {"in_channels": options.channels, "out_channels": options.classes, "dim": options.dim, "patch": options.patch}
        rows = list_networks(options.names, **chosen)
        print(json.dumps([row.to_json() for row in rows], indent=1) if options.json else describe_networks(rows))
        return 0

    return run_command(parser, argv, _work)


def demo(argv: list[str] | None = None) -> int:
    """autoseg_demo"""
    parser = make_parser(
        "autoseg_demo",
        "The main job on built-in example data, in about eight minutes on two processor cores: makes a CT-like phantom dataset of the "
        "abdomen, plans, trains 2d and 3d, chooses the best for each organ, predicts held-out cases and draws them.",
        "autoseg_demo\n  autoseg_demo -o my_folder --time 5m",
    )
    parser.add_argument("-o", "--output", default="autoseg_demo", help="folder to make (default: autoseg_demo)")
    parser.add_argument("--time", type=duration, default=150.0, metavar="TIME", help="training of each of the two models (default 150s)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom and the training")

    def _work(options: argparse.Namespace) -> int:
        from ..evaluation.folders import table
        from ..pipeline import demo as function
        from ..pipeline import describe_choice

        result = function(options.output, seconds=options.time, seed=options.seed)
        print(f"\nChosen by cross-validation:\n{describe_choice(result.choice)}")
        print(f"\nHeld-out cases, which no training has seen:\n{table(result.scores)}")
        print("\nPictures:\n" + "\n".join(f"  {path}" for path in result.pictures))
        return 0

    return run_command(parser, argv, _work)


def plan_settings(options: argparse.Namespace):  # noqa: ANN202 - the type would import the pipeline
    """The planner's options, and what a preset adds, as `PlanSettings`."""
    from ..presets.settings import plan_settings as with_preset

    return with_preset(options.preset, **plan_arguments(options))


def train_settings(options: argparse.Namespace):  # noqa: ANN202 - the type would import the pipeline
    """The training's options, and what a preset adds, as `TrainSettings`."""
    from ..presets.settings import train_settings as with_preset

    return with_preset(options.preset, **train_arguments(options))


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None, work: Callable[[argparse.Namespace], int | str]) -> int:
    """Runs a command: messages on stderr, a user's mistake as one line instead of a traceback, Ctrl-C without one.

    Args:
        parser: Of its arguments.
        argv: The arguments; None takes the process's.
        work: Does it; a text that it returns is printed.

    Returns:
        The exit status: what `work` returned, 0 for a text, 2 for a user's mistake.
    """
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_AboveProgressBars()])
    logging.getLogger("autoseg").setLevel(logging.DEBUG if options.verbose else logging.INFO)
    try:
        result = work(options)
        if isinstance(result, str):
            print(result)
            return 0
        return result
    except (ValueError, RuntimeError, OSError) as error:
        if options.verbose:
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


class _AboveProgressBars(logging.StreamHandler):
    """Writes messages on lines of their own, above a progress bar that is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)
