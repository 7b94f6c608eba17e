"""The commands that look at results: choice, scores. Each parses, calls one function of the pipeline, and returns the text to print."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli import run_command
from .cli_options import make_parser


def find_best_configuration(argv: list[str] | None = None) -> int:
    """autoseg_find_best_configuration"""
    parser = make_parser(
        "autoseg_find_best_configuration",
        "Choose for every organ the model, or the average of two, with the best cross-validation score. autoseg_predict follows it.",
        "autoseg_find_best_configuration 3",
    )
    parser.add_argument("dataset", help="dataset id, name or folder")
    parser.add_argument("--max-members", type=int, default=2, help="largest number of models that are averaged (default 2)")

    def _work(options: argparse.Namespace) -> str:
        from .pipeline import describe_choice
        from .pipeline import find_best_configuration as function

        return describe_choice(function(options.dataset, home=options.home, max_members=options.max_members))

    return run_command(parser, argv, _work)


def evaluate(argv: list[str] | None = None) -> int:
    """autoseg_evaluate"""
    parser = make_parser(
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

    def _work(options: argparse.Namespace) -> str:
        from .evaluation.folders import table
        from .pipeline import evaluate_folders
        from .records import write_json
        from .workspace import find_workspace

        labels, annotated = None, {}
        if options.dataset is not None:
            dataset = find_workspace(options.home, dataset=options.dataset).load_dataset(options.dataset)
            labels, annotated = dataset.labels, {case.name: case.annotated for case in dataset.cases}
        how = {"workers": options.workers, "partial": options.partial, "annotated": annotated}
        scores = evaluate_folders(options.reference, options.prediction, labels, **how)
        if options.json:
            write_json(options.json, scores)
        return table(scores)

    return run_command(parser, argv, _work)
