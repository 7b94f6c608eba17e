"""The commands that prepare data: check, merge, plan_and_preprocess."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .command import command
from .failures import cases, finish, say_dry_run
from .options import (
    DATASET,
    add_all,
    add_allow_code,
    add_dry_run,
    add_external,
    add_groups,
    add_nifti_geometry,
    add_overwrite,
    add_plan_options,
    add_workers,
    plan_settings,
)
from .output import say

if TYPE_CHECKING:
    from ..data.checks import Problem
    from ..runtime.workspace import Workspace
    from ..schema import Plan


def _add_plan_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help=DATASET)
    add_plan_options(parser)
    add_allow_code(parser)
    add_dry_run(parser)


@command(_add_plan_arguments, "-d 3", "-d /data/Dataset003_Liver -c 2d 3d_fullres --memory 12GB")
def plan_and_preprocess(options: Namespace) -> int:
    """Measure a dataset, plan spacing, patch and network of each configuration, and preprocess it.

    The plan is printed with the reason of every choice; its configurations are 2d, 2.5d, 3d_fullres and, for large images, 3d_lowres
    and 3d_cascade. The exit status is 1 if cases were left out.
    """
    from ..pipeline import plan_and_preprocess as function
    from ..pipeline.dry_training import dry_plan
    from ..planners.plan import describe
    from ..presets import PAPER_PRESETS
    from ..runtime.workspace import find_workspace
    from ..study.local import IS_TASK

    settings = plan_settings(options)
    if options.dry_run:
        return say_dry_run(dry_plan(options.dataset, settings, home=options.home))
    plan = function(options.dataset, settings, home=options.home)
    say(describe(plan))
    names = settings.configurations or [name for name in plan.configurations if name in ("2d", "3d_fullres")]
    workspace = find_workspace(options.home, dataset=options.dataset)
    paper = f" --preset {options.preset}" if options.preset in PAPER_PRESETS else ""
    if IS_TASK not in os.environ:
        say(f"\nNext: autoseg_train {plan.dataset} {names[-1]} 0{paper}{_start(plan, names[-1], workspace)}")
    left_out = workspace.left_out(plan.dataset)
    if not left_out:
        return 0
    planned = set(workspace.usable_cases(plan.dataset)) - left_out.keys()
    result = f"Planned with {cases(len(planned))}"
    return finish(result, left_out, of=len(planned) + len(left_out), what="left out")


def _start(plan: Plan, configuration: str, workspace: Workspace) -> str:
    """The switch by which training starts from a model of the dataset whose plan was taken over, where that has one."""
    from ..runtime.runs import model_folders

    source = plan.settings.plan_from if plan.settings is not None else None
    if source is None:
        return ""
    models = [one for one in model_folders(workspace.results(source)) if one.configuration == configuration]
    return f" --pretrained {shlex.quote(str(models[0].folder))}" if models else ""


def _add_check_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help=DATASET)
    parser.add_argument("--fix", action="store_true", help="write a copy in which everything that can be repaired safely is repaired")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="repaired copy (default: beside the dataset, next free id)")
    text = "with --fix: whose header is true where a label map does not lie where its image lies (without, such cases are left out)"
    parser.add_argument("--geometry", choices=("image", "label"), help=text)
    add_groups(parser)
    add_external(parser)
    add_nifti_geometry(parser)
    add_workers(parser)
    add_all(parser, "list every finding of every case (default: equal ones together)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every finding of every case to this file, for a spreadsheet")
    add_overwrite(parser)


@command(_add_check_arguments, "-d 3", "-d 3 --fix", "-d 3 --fix --geometry image")
def check(options: Namespace) -> int:
    """List the problems of all cases of a dataset; with --fix, write a repaired copy beside it.

    Equal findings are told once, with the number of their cases. The exit status is 1 if there are problems; with --fix, if cases had to
    be left out. Headers that contradict themselves and are read by the rule of docs/data.md are listed, too.
    """
    from ..data.checks import SETTLED, checked_dataset
    from ..data.descriptions import planned_nifti_geometry, reading_permission
    from ..data.problem_groups import write_problems
    from ..data.summary import dataset_summary
    from ..pipeline import fix_dataset
    from ..runtime.outputs import Outputs
    from ..runtime.workspace import find_workspace, fixed_name, home_folders

    workspace = find_workspace(options.home, dataset=options.dataset)
    folder = workspace.dataset_folder(options.dataset)
    allowed = reading_permission(workspace, folder, allow_external=options.allow_external)
    reading = {"groups": options.groups, "allow_external": allowed}
    reading["nifti_geometry"] = options.nifti_geometry or planned_nifti_geometry(workspace, folder)
    outputs = Outputs(
        "autoseg_check", inputs=(), protected=home_folders(options.home, dataset=options.dataset), overwrite=options.overwrite
    )
    outputs.check({"--csv": [options.csv]} if options.csv is not None else {})
    dataset, found, geometries = checked_dataset(folder, workers=options.workers, **reading)
    if options.csv is not None:
        write_problems(options.csv, found, write=outputs.write)
    problems, notes = [one for one in found if not one.is_note], [one for one in found if one.is_note]
    _print_problems([*notes, *problems], everything=options.all)
    if not problems and not (options.fix and notes):
        settled = sum(note.kind == SETTLED for note in notes)
        kinds = f"; {settled} contradictory headers are read by the rule" if settled else ""
        say(f"{folder}: no problem found in {dataset_summary(dataset, geometries)}{kinds}.")
        return 0
    if problems:
        _print_numbers(folder, problems)
    if not options.fix:
        return 1
    out = options.out or fixed_name(folder)
    given = {"allow_external": allowed, "nifti_geometry": reading["nifti_geometry"]}
    messages = fix_dataset(folder, found, out, geometry=options.geometry, **given)
    say("\n".join(messages))
    left_out = sum(": left out: " in message for message in messages)
    say(f"The repaired copy is {out}\nNext: autoseg_plan_and_preprocess -d {out.name}")
    if left_out:
        say(f"{left_out} case{'s were' if left_out > 1 else ' was'} left out.")
    return int(bool(left_out))


ALSO = 8
"""Cases that a group of equal findings names."""


def _print_problems(problems: Sequence[Problem], *, everything: bool) -> None:
    """Prints equal findings together, or each by itself."""
    from ..data.problem_groups import ProblemGroup, grouped
    from ..runtime.shown_text import in_one_line

    for group in [ProblemGroup((one,)) for one in problems] if everything else grouped(problems):
        one, number, cases_of = group.example, len(group.problems), group.cases
        if one.is_note and number == 1:
            say(in_one_line(f"{one.case}: {one.kind}: {one.file}: {one.found}; {one.expected}"))
            continue
        title = f"{one.case}: {one.kind}" if number == 1 else f"{number} x {one.kind}, e.g. {one.case}"
        repair = f" (--fix can repair {'it' if number == 1 else 'them'})" if one.fixable else ""
        say(in_one_line(title + repair + (f"; {group.hint}" if group.hint else "")))
        for what, text in (("file", one.file), ("found", one.found), ("expected", one.expected)):
            say(f"  {what:<9} {in_one_line(text)}")
        if len(cases_of) > 1:
            more = f" and {len(cases_of) - 1 - ALSO} more (--all, --csv)" if len(cases_of) - 1 > ALSO else ""
            say(f"  {'also':<9} {in_one_line(', '.join(cases_of[1 : 1 + ALSO]))}{more}")


def _print_numbers(folder: Path, problems: Sequence[Problem]) -> None:
    from ..data.problem_groups import grouped

    problems = [one for group in grouped(problems) for one in group.problems]  # of two that one name explains, one
    fixable = sum(problem.fixable for problem in problems)
    asking = sum(bool(problem.readings) for problem in problems)
    more = f", {asking} more with --geometry image or label" if asking else ""
    say(f"{folder}: {len(problems)} problem{'s' if len(problems) > 1 else ''}, {fixable} of which --fix can repair{more}.")


def _add_merge_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-d", "--datasets", nargs="+", required=True, metavar="DATASET", help="two or more datasets: ids, names or folders")
    parser.add_argument("-o", "--out", type=int, required=True, metavar="ID", help="id of the new dataset, which must be free")
    parser.add_argument("--name", help="name of the new dataset (default: those of the datasets joined by _)")
    text = "what a label becomes: lits:tumor=liver; of unknown side: kits:kidney=left_kidney+right_kidney; none: kits:cyst=background"
    parser.add_argument("--map", nargs="+", action="extend", default=[], dest="mapping", metavar="DATASET:LABEL=ORGAN", help=text)
    add_external(parser)
    add_nifti_geometry(parser)


@command(
    _add_merge_arguments,
    "-d 1 2 3 -o 9",
    "-d Liver /data/Dataset002_Spleen -o 9 --name Abdomen",
    "-d LiTS BTCV -o 9 --map lits:tumor=liver",
)
def merge(options: Namespace) -> None:
    """Make one partially labelled dataset out of several with different organs.

    Organs of the same name are the same organ; --map says what becomes of other labels. Images are referred to, not copied; label maps
    are written anew only where their values change.
    """
    from ..pipeline import merge as function

    form = options.nifti_geometry
    given = {"name": options.name, "home": options.home, "allow_external": options.allow_external, "nifti_geometry": form}
    given["mapping"] = options.mapping
    folder, messages = function(options.datasets, options.out, **given)
    say("\n".join(messages))
    again = f" --nifti-geometry {form}" if form else ""
    say(f"The merged dataset is {folder}\nNext: autoseg_plan_and_preprocess -d {options.out}{again}")
