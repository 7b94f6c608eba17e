"""The commands about results: find_best_configuration, evaluate, report."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .command import command
from .failures import cases, finish
from .options import DATASET, add_all, add_allow_code, add_nifti_geometry, add_overwrite, add_postprocess
from .output import say

if TYPE_CHECKING:
    from ..schema import Choice


def _add_choice_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help=DATASET)
    parser.add_argument("--metric", default="dice", help="metric to choose by: dice (default), chaos, nsd_surface ...")
    parser.add_argument("--max-members", type=int, default=3, metavar="N", help="largest number of models that are averaged (default 3)")
    rule = parser.add_mutually_exclusive_group()
    text = "supported (default: the simplest unless another is significantly better), best_mean, cheapest, or module:function"
    rule.add_argument("--rule", default="supported", help=text)
    text = "the cheapest whose mean lies within the 95 %% interval of the best; the same as --rule cheapest"
    rule.add_argument("--cheapest", action="store_const", const="cheapest", dest="rule", help=text)
    text = "exclude candidates that took longer per case in validation, with the networks of one fold"
    parser.add_argument("--max-seconds", type=float, metavar="SECONDS", help=text)
    text = "several models vote, and so do their folds in prediction, instead of being averaged"
    parser.add_argument("--vote", action="store_true", help=text)
    add_postprocess(parser, "without a trial (default: what helps)")
    add_overwrite(parser, "replace choice.json although it was edited")
    add_allow_code(parser)


def say_choice(choice: Choice, options: Namespace) -> None:
    """The choice with its evidence, and the command that uses it."""
    from ..pipeline import describe_choice
    from ..runtime.workspace import find_workspace

    workspace = find_workspace(options.home, dataset=str(options.dataset))
    home = f" --home {shlex.quote(str(options.home))}" if options.home else ""
    say(describe_choice(choice))
    say(f"\nNext: autoseg_predict -d {workspace.dataset_folder(options.dataset).name} -i IMAGES -o SEGMENTATIONS{home}")


@command(_add_choice_arguments, "3", "3 --metric nsd_surface --cheapest")
def find_best_configuration(options: Namespace) -> int:
    """Choose for every organ the model, or the average of up to three, by cross-validation.

    The evidence and the score to expect on new images are printed; autoseg_predict uses the choice. The exit status is 1 if stored
    predictions or references of cases are damaged; the choice is made by the others.
    """
    from ..data.descriptions import planned_dataset
    from ..pipeline import find_best_configuration as function
    from ..runtime.registry import allowed_code
    from ..runtime.workspace import find_workspace

    choose = partial(function, options.dataset, home=options.home, metric=options.metric, rule=options.rule)
    choose = partial(choose, overwrite=options.overwrite, vote=options.vote, postprocess=options.postprocess)
    failures: dict[str, str] = {}
    choose = partial(choose, max_members=options.max_members, max_seconds=options.max_seconds, failures=failures)
    choice = choose(allow_code=options.allow_code)
    with allowed_code(options.allow_code, typed=[options.metric]):
        say_choice(choice, options)
    if not failures:
        return 0
    dataset = planned_dataset(find_workspace(options.home, dataset=options.dataset), options.dataset)
    everything = {*(case.name for case in dataset.cases), *failures}
    return finish(f"\nChosen by {cases(choice.cases)}", failures, of=len(everything))


def _add_evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-r", "--reference", type=Path, required=True, help="folder of reference label maps, or one file")
    text = "folders of predicted label maps, or files, whose references are found by name (several files of one folder are one prediction)"
    parser.add_argument("-p", "--prediction", type=Path, required=True, nargs="+", help=text)
    parser.add_argument(
        "-d",
        "--dataset",
        help="dataset that names organs, regions, patients (default: a dataset.json beside the files or above; else values are organs)",
    )
    text = "whose cases are of one patient: a CSV or JSON file, case -> patient, or a regular expression that finds the patient in a name"
    parser.add_argument("--groups", metavar="FILE", help=f"{text} (default: the dataset's, else as noted with the predictions)")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="besides Dice and IoU; an unknown name lists the known ones")
    text = "mm within which surfaces count as the same (NSD): 2 for all organs, liver=3 for one (default: the dataset's, else 1)"
    parser.add_argument("--tolerance", nargs="+", default=[], metavar="MM", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every case's scores, the means and the comparisons to this file")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every case's scores to this file, for a spreadsheet")
    add_postprocess(parser, "of what is scored, the files stay as they are")
    add_overwrite(parser)
    add_all(parser, "print every metric and test (default: Dice, NSD, HD95 and the worst case, or --metrics)")
    parser.add_argument("--partial", action="store_true", help="score the cases that are predicted, although others are missing")
    add_nifti_geometry(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="cases compared at once (default: one per core, at most four)")


@command(_add_evaluate_arguments, "-r labelsTs -p out -d 3 --csv scores.csv", "-r labelsTs -p out other_out -d 3 --tolerance 2 liver=3")
def evaluate(options: Namespace) -> int:
    """Compare segmentations with references, case by case and organ by organ.

    File formats may differ. Of several folders of segmentations the first is compared with each of the others, with paired tests. The exit
    status is 1 if cases could not be compared.
    """
    from ..pipeline.evaluating import describe_evaluation, evaluate_predictions, evaluation_outputs, write_evaluation
    from ..runtime.registry import allowed_code

    compared = {"reference": options.reference, "predictions": options.prediction, "dataset": options.dataset, "home": options.home}
    outputs = evaluation_outputs(**compared, files={"--json": options.json, "--csv": options.csv}, overwrite=options.overwrite)
    evaluation = partial(evaluate_predictions, **compared)(
        metrics=options.metrics,
        tolerances=options.tolerance,
        partial=options.partial,
        workers=options.workers,
        nifti_geometry=options.nifti_geometry,
        postprocess=options.postprocess,
        groups=options.groups,
    )
    write_evaluation(evaluation, outputs, json=options.json, csv=options.csv)
    with allowed_code(typed=options.metrics or ()):
        say(describe_evaluation(evaluation, everything=options.all))
    if not evaluation.failures:
        return 0
    scored = sum(one.cases for one in evaluation.results)
    return finish(f"\nScores of {cases(scored)}", evaluation.failures, of=scored + len(evaluation.failures))


def _add_report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help=DATASET)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: results/DATASET/report.html)")
    add_overwrite(parser)
    parser.add_argument("--cases", type=int, default=3, metavar="N", help="cases drawn, from the best to the worst (default 3; 0: none)")
    add_allow_code(parser)


@command(_add_report_arguments, "3", "3 -o report.html --cases 8")
def report(options: Namespace) -> None:
    """Write all results of a dataset into one HTML file that needs no network.

    It shows data, plan, learning curves, the comparison of the models with its evidence, pictures of cases, and the commands that
    repeat it all.
    """
    from ..pipeline.reporting import write_report

    write = partial(write_report, options.dataset, home=options.home, out=options.output, cases=options.cases)
    say(f"The report is {write(overwrite=options.overwrite, allow_code=options.allow_code)}")
