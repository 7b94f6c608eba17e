"""The commands that look at results: choice, scores. Each parses, calls one function of the pipeline, and returns the text to print."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli import run_command
from .options import duration, make_parser


def find_best_configuration(argv: list[str] | None = None) -> int:
    """autoseg_find_best_configuration"""
    parser = make_parser(
        "autoseg_find_best_configuration",
        "Choose for every organ the model, or the average of up to three, by their cross-validation; say with what evidence, and what to "
        "expect on new images. autoseg_predict follows it.",
        "autoseg_find_best_configuration 3\n  autoseg_find_best_configuration 3 --metric nsd_surface --cheapest",
    )
    parser.add_argument("dataset", help="dataset id, name or folder")
    parser.add_argument("--metric", default="dice", help="score to choose by: dice (default), chaos, nsd_surface ...")
    parser.add_argument("--max-members", type=int, default=3, help="largest number of models that are averaged (default 3)")
    way = parser.add_mutually_exclusive_group()
    what = "supported (default: the simplest unless another is better beyond luck), best_mean, cheapest, or module:function"
    way.add_argument("--rule", default="supported", help=what)
    what = "the cheapest whose mean lies within the 95 %% interval of the best; the same as --rule cheapest"
    way.add_argument("--cheapest", action="store_const", const="cheapest", dest="rule", help=what)
    what = "leave out what took longer a case in validation, with the networks of one fold"
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help=what)

    def _work(options: argparse.Namespace) -> str:
        from ..pipeline import describe_choice
        from ..pipeline import find_best_configuration as function

        how = {"rule": options.rule, "max_members": options.max_members, "metric": options.metric, "max_seconds": options.max_seconds}
        return describe_choice(function(options.dataset, home=options.home, **how))

    return run_command(parser, argv, _work)


def evaluate(argv: list[str] | None = None) -> int:
    """autoseg_evaluate"""
    parser = make_parser(
        "autoseg_evaluate",
        "Compare segmentations with references, case by case and organ by organ. File formats may differ. Of several folders of "
        "segmentations the first is compared with each of the others, with paired tests.",
        "autoseg_evaluate -r labelsTs -p out -d 3 --csv scores.csv\n"
        "  autoseg_evaluate -r labelsTs -p out other_out -d 3 --tolerance 2 liver=3",
    )
    parser.add_argument("-r", "--reference", type=Path, required=True, help="folder (or file) of reference label maps")
    parser.add_argument("-p", "--prediction", type=Path, required=True, nargs="+", help="folders (or files) of predicted label maps")
    parser.add_argument("-d", "--dataset", help="dataset whose organ names and regions to use (default: every value is an organ)")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="besides Dice and IoU; a wrong name lists the right ones")
    what = "mm within which surfaces count as the same (NSD): 2 for all organs, liver=3 for one (default: the dataset's, else 1)"
    parser.add_argument("--tolerance", nargs="+", default=[], metavar="MM", help=what)
    parser.add_argument("--json", type=Path, help="write every case's scores, the means and the comparisons to this file")
    parser.add_argument("--csv", type=Path, help="write every case's scores to this file, for a spreadsheet")
    parser.add_argument("--partial", action="store_true", help="score the cases that are predicted, although others are missing")
    parser.add_argument("--workers", type=int, help="cases compared at once (default: one a core, at most four)")

    def _work(options: argparse.Namespace) -> str:
        from ..pipeline.evaluating import describe_evaluation, evaluate_predictions, write_evaluation

        how = {name: getattr(options, name) for name in ("dataset", "home", "metrics", "partial", "workers")}
        found = evaluate_predictions(options.reference, options.prediction, **how, tolerances=options.tolerance)
        write_evaluation(found, json=options.json, csv=options.csv)
        return describe_evaluation(found)

    return run_command(parser, argv, _work)


def train_ensemble(argv: list[str] | None = None) -> int:
    """autoseg_train_ensemble"""
    parser = make_parser(
        "autoseg_train_ensemble",
        "Combine trained models into one, which is chosen and predicts like any other. What is learnt is learnt from the models' "
        "predictions of cases that they were not trained on. An interrupted run goes on by itself; a finished one says so.",
        "autoseg_train_ensemble 3 --kind logits\n"
        "  autoseg_train_ensemble 3 --kind meta --members 2d__Trainer__liver 2d__Trainer__spleen 3d_fullres__Trainer",
    )
    parser.add_argument("dataset", help="dataset id (3), name (Dataset003_Liver) or folder")
    kinds = ("argmax", "logits", "meta", "fusion", "multi")
    what = "argmax: the most confident organ; logits: a 1x1 convolution over the models' logits; meta: a small U-Net over them; "
    what += "fusion: a 1x1 convolution over their last feature maps; multi: each organ from its best model"
    parser.add_argument("--kind", required=True, choices=kinds, help=what)
    parser.add_argument("--members", nargs="+", default=[], metavar="MODEL", help="model folders (default: the best model of each organ)")
    parser.add_argument("--folds", nargs="+", default=[], help="folds to train (default: all that every member has)")
    parser.add_argument("--organs", nargs="+", default=[], metavar="ORGAN", help="an ensemble for these organs only")
    parser.add_argument("--time", type=duration, metavar="TIME", help="training of each fold, e.g. 5m")
    parser.add_argument("--iterations", type=int, help="optimisation steps of each fold (default: 200, meta 300)")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--restart", action="store_true", help="put existing runs aside and begin anew")

    def _work(options: argparse.Namespace) -> str:
        from ..evaluation.folders import table
        from ..pipeline import EnsembleSettings
        from ..pipeline import train_ensemble as function

        said = {name: getattr(options, name) for name in ("kind", "iterations", "seed", "device", "restart")}
        listed = {name: tuple(getattr(options, name)) for name in ("members", "folds", "organs")}
        scores = function(options.dataset, EnsembleSettings(**said, **listed, seconds=options.time), home=options.home)
        return table([score for some in scores.values() for score in some])

    return run_command(parser, argv, _work)


def report(argv: list[str] | None = None) -> int:
    """autoseg_report"""
    parser = make_parser(
        "autoseg_report",
        "Write all that is known about a dataset's models into one HTML file that needs no network: data, plan, learning curves, the "
        "comparison of the models with its evidence, pictures of cases, and how to make it all again.",
        "autoseg_report 3\n  autoseg_report 3 -o report.html --cases 8",
    )
    parser.add_argument("dataset", help="dataset id (3), name (Dataset003_Liver) or folder")
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: results/DATASET/report.html)")
    parser.add_argument("--cases", type=int, default=3, metavar="N", help="cases drawn, from the best to the worst (default 3; 0: none)")

    def _work(options: argparse.Namespace) -> str:
        from ..pipeline.reporting import write_report

        return f"The report is {write_report(options.dataset, home=options.home, out=options.output, cases=options.cases)}"

    return run_command(parser, argv, _work)


def overlay(argv: list[str] | None = None) -> int:
    """autoseg_overlay"""
    parser = make_parser(
        "autoseg_overlay",
        "Draw label maps over their images: three planes through the organs in true proportions, the prediction filled, the reference "
        "dashed. Files are matched by the names of their cases.",
        "autoseg_overlay -i imagesTs -p out -o pictures -d 3\n  autoseg_overlay -i scan.nii.gz -p found.nii.gz -r truth.nii.gz -o scan.png",
    )
    parser.add_argument("-i", "--input", type=Path, required=True, help="image, or folder of images (case_0000.nii.gz)")
    parser.add_argument("-p", "--prediction", type=Path, help="predicted label map, or folder of them")
    parser.add_argument("-r", "--reference", type=Path, help="reference label map, or folder of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures; a file where there is one case")
    parser.add_argument("-d", "--dataset", help="dataset whose organ names, regions and CT windows to use (default: values are organs)")
    parser.add_argument("--format", default="png", help="png, pdf, svg or jpg (default png)")
    parser.add_argument("--channel", type=int, default=0, help="number of the channel that is drawn (default 0)")
    parser.add_argument("--zoom", action="store_true", help="show the organs and their surroundings instead of whole slices")

    def _work(options: argparse.Namespace) -> str:
        from ..report.overlays import OverlaySettings, describe_problems, draw_overlays

        settings = OverlaySettings(dataset=options.dataset, format=options.format, channel=options.channel, zoom=options.zoom)
        maps = {"prediction": options.prediction, "reference": options.reference}
        drawn, problems = draw_overlays(options.input, options.output, settings=settings, home=options.home, **maps)
        if not drawn:
            raise ValueError("; ".join(describe_problems(problems)))
        done = str(drawn[0]) if len(drawn) == 1 else f"{len(drawn)} pictures are in {options.output}"
        return "\n".join([*describe_problems(problems), done])

    return run_command(parser, argv, _work)
