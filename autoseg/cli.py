"""The commands: parse, call one function of the pipeline, print. Nothing heavy is imported before the arguments are understood."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """``90s``, ``20m``, ``2h``, ``1h30m`` in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise argparse.ArgumentTypeError(f"expected a duration like 90s, 20m, 2h or 1h30m, got {text!r}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def gigabytes(text: str) -> float:
    """``8GB``, ``8`` or ``6000MB`` in GB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb?|mb?|)", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"expected a memory size like 8GB or 6000MB, got {text!r}")
    return float(found[1]) / (1000 if found[2].startswith("m") else 1)


def plan_and_preprocess(argv: list[str] | None = None) -> int:
    """autoseg_plan_and_preprocess"""
    parser = _parser(
        "autoseg_plan_and_preprocess",
        "Measure a dataset, plan how to train on it (spacing, patch, network; 2d, 3d_fullres, 3d_lowres, 3d_cascade), and preprocess it.",
        "autoseg_plan_and_preprocess -d 3\n  autoseg_plan_and_preprocess -d /data/Dataset003_Liver -c 2d 3d_fullres --memory 12GB",
    )
    _dataset_option(parser)
    _plan_options(parser)

    def _work(options: argparse.Namespace) -> int:
        from .pipeline import plan_and_preprocess as function
        from .planners.plan import describe

        plan = function(options.dataset, _plan_settings(options), home=options.home)
        print(describe(plan))
        names = options.configurations or [name for name in plan.configurations if name in ("2d", "3d_fullres")]
        print(f"\nNext: autoseg_train {plan.dataset} {names[-1]} 0")
        return 0

    return _run(parser, argv, _work)


def check(argv: list[str] | None = None) -> int:
    """autoseg_check"""
    parser = _parser(
        "autoseg_check",
        "List every problem of every case of a dataset; with --fix, write a repaired copy beside it.",
        "autoseg_check -d 3\n  autoseg_check -d 3 --fix",
    )
    _dataset_option(parser)
    parser.add_argument("--fix", action="store_true", help="write a copy in which everything that can be repaired safely is repaired")
    parser.add_argument("-o", "--out", type=Path, help="folder for the repaired copy (default: beside the dataset, with the next free id)")
    parser.add_argument("--groups", metavar="REGEX", help="regular expression that finds the patient in a case's name")
    parser.add_argument("--workers", type=int, help="processes (default: as cores and memory allow)")

    def _work(options: argparse.Namespace) -> int:
        from .pipeline import check_dataset, fix_dataset
        from .workspace import find_workspace, fixed_name

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

    return _run(parser, argv, _work)


def train(argv: list[str] | None = None) -> int:
    """autoseg_train"""
    parser = _parser(
        "autoseg_train",
        "Train one fold of one configuration and validate it on whole volumes. An interrupted run goes on by itself where it was; "
        "a finished one says so. 3d_cascade first trains what it needs of 3d_lowres.",
        "autoseg_train 3 3d_fullres 0\n  autoseg_train 3 2d all --time 20m --device cpu",
    )
    parser.add_argument("dataset", help="dataset id (3), name (Dataset003_Liver) or folder")
    parser.add_argument("configuration", help="2d, 3d_fullres, 3d_lowres or 3d_cascade, as planned")
    parser.add_argument("fold", help="number of the fold (0-4), or all to train on every case")
    _train_options(parser)

    def _work(options: argparse.Namespace) -> int:
        from .pipeline import train as function

        function(options.dataset, options.configuration, options.fold, _train_settings(options), home=options.home)
        return 0

    return _run(parser, argv, _work)


def find_best_configuration(argv: list[str] | None = None) -> int:
    """autoseg_find_best_configuration"""
    parser = _parser(
        "autoseg_find_best_configuration",
        "Choose for every organ the model, or the average of two, with the best cross-validation score. autoseg_predict follows it.",
        "autoseg_find_best_configuration 3",
    )
    parser.add_argument("dataset", help="dataset id, name or folder")
    parser.add_argument("--max-members", type=int, default=2, help="largest number of models that are averaged (default 2)")

    def _work(options: argparse.Namespace) -> int:
        from .pipeline import describe_choice
        from .pipeline import find_best_configuration as function

        print(describe_choice(function(options.dataset, home=options.home, max_members=options.max_members)))
        return 0

    return _run(parser, argv, _work)


def predict(argv: list[str] | None = None) -> int:
    """autoseg_predict"""
    parser = _parser(
        "autoseg_predict",
        "Segment new images. The trained dataset, the best models for each organ and both stages of a cascade are found by themselves.",
        "autoseg_predict -i in -o out\n  autoseg_predict -i scan.nii.gz -o out -d 3 --no-tta",
    )
    parser.add_argument("-i", "--input", required=True, help="folder of images, one file, a DICOM series, or a folder of series")
    parser.add_argument("-o", "--output", required=True, help="folder for the segmentations")
    parser.add_argument("-d", "--dataset", help="trained dataset (needed only when several are trained)")
    parser.add_argument("-c", "--configuration", dest="model", help="use this configuration or model instead of the chosen ones")
    parser.add_argument("--folds", nargs="+", help="folds that vote (default: all that the choice rests on)")
    parser.add_argument("--no-tta", action="store_true", help="no averaging over mirrored images: several times faster, slightly worse")
    parser.add_argument("--step", type=float, default=0.5, help="distance of tiles as a share of the patch (default 0.5)")
    parser.add_argument("--save-probabilities", action="store_true", help="also write <case>_probabilities.npy, one channel an organ")
    parser.add_argument("--ending", help="file ending of the segmentations, e.g. .nrrd (default: each input's own)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")

    def _work(options: argparse.Namespace) -> int:
        from .pipeline import PredictSettings, predict_folder

        settings = PredictSettings(
            dataset=options.dataset,
            model=options.model,
            folds=tuple(options.folds) if options.folds else None,
            mirror=not options.no_tta,
            step=options.step,
            save_probabilities=options.save_probabilities,
            ending=options.ending,
            device=options.device,
        )
        failures = predict_folder(options.input, options.output, settings, home=options.home)
        for case, reason in failures.items():
            print(f"FAILED {case}: {reason}", file=sys.stderr)
        print(f"Segmentations are in {options.output}" + (f"; {len(failures)} cases failed" if failures else ""))
        return 1 if failures else 0

    return _run(parser, argv, _work)


def evaluate(argv: list[str] | None = None) -> int:
    """autoseg_evaluate"""
    parser = _parser(
        "autoseg_evaluate",
        "Compare segmentations with references, case by case and organ by organ. File formats may differ.",
        "autoseg_evaluate -r labelsTs -p out\n  autoseg_evaluate -r labelsTs -p out -d 3 --json scores.json",
    )
    parser.add_argument("-r", "--reference", type=Path, required=True, help="folder (or file) of reference label maps")
    parser.add_argument("-p", "--prediction", type=Path, required=True, help="folder (or file) of predicted label maps")
    parser.add_argument("-d", "--dataset", help="dataset whose organ names and regions to use (default: every value is an organ)")
    parser.add_argument("--json", type=Path, help="write every case's scores to this file")
    parser.add_argument("--partial", action="store_true", help="score the cases that are predicted, although others are missing")
    parser.add_argument("--workers", type=int, help="cases compared at once (default: one a core, at most four)")

    def _work(options: argparse.Namespace) -> int:
        from .evaluation.folders import table
        from .pipeline import evaluate_folders
        from .records import write_json
        from .workspace import find_workspace

        labels = None
        if options.dataset is not None:
            labels = find_workspace(options.home, dataset=options.dataset).load_dataset(options.dataset).labels
        scores = evaluate_folders(options.reference, options.prediction, labels, workers=options.workers, partial=options.partial)
        if options.json:
            write_json(options.json, scores)
        print(table(scores))
        return 0

    return _run(parser, argv, _work)


def run(argv: list[str] | None = None) -> int:
    """autoseg_run"""
    parser = _parser(
        "autoseg_run",
        "Everything in one go: plan, preprocess, train every configuration on every fold, choose the best. Started again, it goes on.",
        "autoseg_run 3\n  autoseg_run 3 -c 2d 3d_fullres --folds 0 1 --time 1h",
    )
    parser.add_argument("dataset", help="dataset id, name or folder")
    _plan_options(parser)
    parser.add_argument("--folds", nargs="+", help="folds to train (default: all)")
    _train_options(parser)

    def _work(options: argparse.Namespace) -> int:
        from .pipeline import describe_choice
        from .pipeline import run as function

        folds = tuple(options.folds) if options.folds else None
        choice = function(options.dataset, _plan_settings(options), _train_settings(options), folds=folds, home=options.home)
        print(describe_choice(choice))
        return 0

    return _run(parser, argv, _work)


def demo(argv: list[str] | None = None) -> int:
    """autoseg_demo"""
    parser = _parser(
        "autoseg_demo",
        "The main job on built-in example data, in about eight minutes on two processor cores: makes a CT-like phantom dataset of the "
        "abdomen, plans, trains 2d and 3d, chooses the best for each organ, predicts held-out cases and draws them.",
        "autoseg_demo\n  autoseg_demo -o my_folder --time 5m",
    )
    parser.add_argument("-o", "--output", default="autoseg_demo", help="folder to make (default: autoseg_demo)")
    parser.add_argument("--time", type=duration, default=150.0, metavar="TIME", help="training of each of the two models (default 150s)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom and the training")

    def _work(options: argparse.Namespace) -> int:
        from .evaluation.folders import table
        from .pipeline import demo as function
        from .pipeline import describe_choice

        result = function(options.output, seconds=options.time, seed=options.seed)
        print(f"\nChosen by cross-validation:\n{describe_choice(result.choice)}")
        print(f"\nHeld-out cases, which no training has seen:\n{table(result.scores)}")
        print("\nPictures:\n" + "\n".join(f"  {path}" for path in result.pictures))
        return 0

    return _run(parser, argv, _work)


# Options that several commands share


def _parser(name: str, what: str, examples: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name, description=what, epilog=f"examples:\n  {examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", help="folder with raw/ preprocessed/ results/ (default: AUTOSEG_HOME, or the nearest upwards with raw/)")
    parser.add_argument("--verbose", action="store_true", help="say more, and show where an error comes from")
    return parser


def _dataset_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help="dataset id (3), name (Dataset003_Liver) or folder")


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--configurations", nargs="+", help="only these (default: all that are planned)")
    parser.add_argument("--memory", type=gigabytes, metavar="8GB", help="memory target that patch and batch are planned for")
    parser.add_argument("--preset", default="default", help="default, resenc_m, resenc_l or resenc_xl")
    parser.add_argument("--spacing", type=float, nargs="+", metavar="MM", help="target spacing z y x instead of the planned one")
    parser.add_argument("--force-lowres", action="store_true", help="plan 3d_lowres and 3d_cascade even where images are small")
    parser.add_argument("--groups", metavar="REGEX", help="regular expression that finds the patient in a case's name")
    parser.add_argument("--workers", type=int, help="processes (default: as cores and memory allow)")


def _plan_settings(options: argparse.Namespace):  # noqa: ANN202 - the type would import the pipeline
    from .pipeline import PlanSettings

    return PlanSettings(
        configurations=tuple(options.configurations) if options.configurations else None,
        preset=options.preset,
        memory_gb=options.memory,
        spacing=tuple(options.spacing) if options.spacing else None,
        force_lowres=options.force_lowres,
        groups=options.groups,
        workers=options.workers,
    )


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-tr", "--trainer", default="Trainer", help="trainer: Trainer, or module:Class of your own (default Trainer)")
    budget = parser.add_argument_group("how long to train (default: two hours on a processor, 1000 epochs on a GPU)")
    budget.add_argument("--time", type=duration, metavar="TIME", help="e.g. 20m or 2h; the learning rate falls to zero exactly then")
    budget.add_argument("--epochs", type=int, help="epochs of 250 iterations")
    budget.add_argument("--iterations", type=int, help="optimisation steps")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch", type=int, help="patches a step (default: what suits plan and device)")
    parser.add_argument("--learning-rate", type=float, help="at the start (default: the trainer's)")
    parser.add_argument("--pretrained", type=Path, metavar="PATH", help="weights to start from: checkpoint, or folder of a fold or model")
    parser.add_argument("--restart", action="store_true", help="put an existing run aside and begin anew")


def _train_settings(options: argparse.Namespace):  # noqa: ANN202 - the type would import the pipeline
    from .pipeline import TrainSettings

    return TrainSettings(
        trainer=options.trainer,
        epochs=options.epochs,
        iterations=options.iterations,
        seconds=options.time,
        seed=options.seed,
        device=options.device,
        batch=options.batch,
        learning_rate=options.learning_rate,
        pretrained=options.pretrained,
        restart=options.restart,
    )


def _run(parser: argparse.ArgumentParser, argv: list[str] | None, work: Callable[[argparse.Namespace], int]) -> int:
    """Runs a command: messages on stderr, a user's mistake as one line instead of a traceback, Ctrl-C without one."""
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_AboveProgressBars()])
    logging.getLogger("autoseg").setLevel(logging.DEBUG if options.verbose else logging.INFO)
    try:
        return work(options)
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
