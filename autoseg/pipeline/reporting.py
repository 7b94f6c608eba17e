"""From a results folder to the report, one HTML file."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm import tqdm

from ..data.label_subsets import file_name
from ..evaluation.metrics import find_metric, has_value, value_of
from ..report import DatasetFacts, Missing, Report, render
from ..report.cases import case_values, draw_case, has_predictions, pick_cases, ranked_cases, worst_of_organs
from ..report.commands import choice_command, with_fold
from ..report.runs import commands, count_parameters, hashes, read_runs, versions
from ..runtime.dataset_folders import names_meant
from ..runtime.figures import css_colours
from ..runtime.serialization import atomic
from ..runtime.workspace import Workspace, find_workspace, last_name
from ..schema import Dataset

log = logging.getLogger(__name__)


def write_report(which: str | int, *, home: str | Path | None = None, out: str | Path | None = None, cases: int = PICTURED) -> Path:
    """Writes everything that is known about the models of a dataset into one HTML file, which needs nothing but itself.

    Args:
        which: Dataset id, name or folder.
        home: Home folder.
        out: File to write; None: ``results/<dataset>/report.html``.
        cases: To draw, besides the worst of each organ; 0 draws none.

    Returns:
        The file.

    Raises:
        ValueError: There is neither a plan nor a result of this dataset, or a negative number of cases.
    """
    if cases < 0:
        raise ValueError(f"--cases: expected 0 or more, got {cases}")
    workspace = find_workspace(home, dataset=str(which))
    name, dataset = _find(workspace, which)
    report = read_report(workspace, name, dataset)
    if cases and dataset is not None and has_images(dataset):
        report = with_pictures(workspace, report, dataset, cases)
    path = Path(out) if out else workspace.results(name) / "report.html"
    if path.is_dir():
        path = path / "report.html"
    with atomic(path) as partial:
        partial.write_text(render(report, css_colours(len(report.organs))), encoding="utf-8")
    return path


def _find(workspace: Workspace, which: str | int) -> tuple[str, Dataset | None]:
    """The dataset's name, and the dataset where it is known: results can be looked at without it, and without its images."""
    try:
        dataset = planned_dataset(workspace, which)
        if not has_images(dataset):
            log.warning("The images of %s are no longer there: a report without pictures.", dataset.name)
        return dataset.name, dataset
    except ValueError:
        known = sorted({path.parent.name for part in ("results", "preprocessed") for path in workspace.home.glob(f"{part}/*/plan.json")})
        fitting = names_meant(known, last_name(which))
        if len(fitting) != 1:
            raise
        log.warning("The images of %s are no longer there: a report without pictures.", fitting[0])
        return fitting[0], None


def read_report(workspace: Workspace, name: str, dataset: Dataset | None) -> Report:
    """All but the pictures.

    Raises:
        ValueError: There is neither a plan nor a dataset.
    """
    results, preprocessed = workspace.results(name), workspace.preprocessed(name)
    plan = _read(Plan, preprocessed / "plan.json", results / "plan.json")
    if plan is None:
        raise ValueError(
            f"{preprocessed / 'plan.json'}: no plan yet, so there is nothing to report. Run: autoseg_plan_and_preprocess -d {name}"
        )
    choice = _read(Choice, results / "choice.json")
    runs = read_runs(results, name)
    metric = choice.metric if choice else "dice"
    kind = find_metric(metric)
    scores, folds_of = read_scores(results, choice, metric)
    splits = tuple(_read(list[Split], preprocessed / "splits.json") or ())
    words = (kind.title or metric) + (f", {kind.unit}" if kind.unit else "")
    chosen = datetime.fromtimestamp((results / "choice.json").stat().st_mtime).strftime("%Y-%m-%d %H:%M") if choice else ""
    report = Report(
        dataset=dataset_facts(plan, dataset, _read(Fingerprint, preprocessed / "fingerprint.json")),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        chosen=chosen,
        plan=plan,
        parameters=count_parameters(results, plan),
        choice=choice,
        metric=words,
        better=kind.better,
        scores=read_computed(results, choice, metric) | scores,
        folds_of=folds_of,
        estimated_dice=read_estimated_dice(results) if choice else {},
        runs=runs,
        splits=splits,
        commands=commands(name, plan, runs, choice),
        versions=versions(),
        files=hashes((results, preprocessed)),
    )
    return replace(report, missing=tuple(_missing(report, dataset)))


def _read(kind: type, *paths: Path):  # noqa: ANN202 - what `kind` says
    """The first of the files that is there, None without any."""
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else read_json(path, kind)


def dataset_facts(plan: Plan, dataset: Dataset | None, fingerprint: Fingerprint | None) -> DatasetFacts:
    """What is known of the data, from its files and from its measurements."""
    cases = () if dataset is None else dataset.cases
    measured = () if fingerprint is None else fingerprint.cases
    labels = plan.stored_labels
    volumes = {
        organ: tuple(case.voxels[place] * math.prod(case.spacing) / (1000 if len(case.spacing) == 3 else 1) for case in measured)
        for place, organ in enumerate(labels.names)
    }
    annotated = {organ: sum(case.annotated is None or organ in case.annotated for case in cases) for organ in labels.names}
    return DatasetFacts(
        name=plan.dataset,
        channels=plan.channels,
        labels=labels,
        cases=len(cases) or len(measured),
        patients=len({case.group or case.name for case in cases}),
        shapes=tuple(case.shape for case in measured),
        spacings=tuple(case.spacing for case in measured),
        orientations=dict(Counter(case.orientation for case in measured).most_common()),
        volumes=volumes if measured else {},
        volume_unit="mm²" if measured and len(measured[0].spacing) == 2 else "ml",
        annotated=annotated if cases else {},
        intensities=plan.intensities,
    )


def read_scores(results: Path, choice: Choice | None, metric: str) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, str]]:
    """Model to organ to case to score, of the folds that were compared, and case to the fold in which it was held out."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    folds_of: dict[str, str] = {}
    for path in sorted(results.glob("*__*/fold_*/validation/scores.json")):
        model, fold = path.parents[2].name, path.parents[1].name.removeprefix("fold_")
        if fold == "all" or (choice is not None and choice.cases and fold not in choice.folds):
            continue
        for score in read_json(path, list[Score]):
            if has_value(score, metric):
                scores.setdefault(model, {}).setdefault(score.organ, {})[score.case] = value_of(score, metric)
                folds_of[score.case] = fold
    return scores, folds_of


def read_computed(results: Path, choice: Choice | None, metric: str) -> dict[str, dict[str, dict[str, float]]]:
    """Candidate to organ to case to score, of those that the choice computed and kept case by case (`candidate_scores`): averages."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    if choice is None:
        return found
    for path in sorted(path for fold in choice.folds for path in (results / FOLDER / file_name(metric) / f"fold_{fold}").glob("*.json")):
        for name, scores in read_json(path, Record).scores.items():
            for score in scores if name in choice.table else ():
                if has_value(score, metric):
                    found.setdefault(name, {}).setdefault(score.organ, {})[score.case] = value_of(score, metric)
    return found


def _missing(report: Report, dataset: Dataset | None) -> list[Missing]:
    """What a complete report would have besides."""
    name, found = report.dataset.name, []
    if dataset is None or not dataset.folder.is_dir():
        found.append(Missing("pictures of cases: the images are no longer in raw/"))
    if not report.runs:
        first = [one for one in ("3d_fullres", "2d", *report.plan.configurations) if one in report.plan.configurations][0]
        return [*found, Missing("models: none is trained yet", f"autoseg_train {name} {first} 0")]
    unfinished = [f"{run.model} fold {run.fold}" for run in report.runs if not run.validated]
    if unfinished:
        found.append(Missing(f"validation of {', '.join(unfinished)}: not finished; the same autoseg_train goes on"))
    if report.choice is None:
        return [*found, Missing("the choice of models with intervals and tests", f"autoseg_find_best_configuration {name}")]
    if not report.choice.evidence:
        found.append(Missing("confidence intervals and tests: the choice was made without", f"autoseg_find_best_configuration {name}"))
    unknown = sorted(name for name in report.scores if " + " not in name and name not in report.choice.table)
    if unknown:
        found.append(Missing(f"the comparison of {', '.join(unknown)}: the choice does not know them", choice_command(report.choice, name)))
    if len(report.choice.folds) < 2:
        found.append(Missing("the nested estimate: it needs at least two folds of every model", _another_fold(report)))
    return found


def _another_fold(report: Report) -> str:
    """The command of a model's fold without which the choice cannot rest on one fold more; of folds that few models lack first."""
    trained = {run.model: {other.fold for other in report.runs if other.model == run.model} for run in report.runs}
    folds = [str(fold) for fold in range(len(report.splits)) if str(fold) not in report.choice.folds]
    for fold in sorted(folds, key=lambda fold: -sum(fold in there for there in trained.values())):
        lacking = [run.command for run in report.runs if fold not in trained[run.model] and run.command.startswith("autoseg_train ")]
        if lacking:
            return with_fold(lacking[0], fold)
    return f"autoseg_find_best_configuration {report.dataset.name}" if folds else ""


def _with_pictures(workspace: Workspace, report: Report, dataset: Dataset, n: int) -> Report:
    """The report with pictures of some of the held-out cases whose predictions are stored."""
    choice = report.choice if report.choice and report.choice.organs else _first_models(report)
    if not choice.organs:
        return report
    held_out = HeldOut(workspace.results(report.dataset.name), report.plan, choice)
    known, cases = ranked_cases(report), {case.name: case for case in dataset.cases}
    ranked = [(case, mean) for case, mean in known if case in cases and has_predictions(held_out, case, report.folds_of.get(case, ""))]
    there = {case for case, _ in ranked}
    whys = pick_cases(ranked, n)
    if n >= PICTURED:
        values = {organ: case_values(report, organ) for organ in choice.organs}
        whys |= worst_of_organs(report, {organ: {c: v for c, v in one.items() if c in there} for organ, one in values.items()}, whys)
    pictures, missing = [], list(report.missing)
    for name, why in tqdm(whys.items(), desc="Drawing cases", unit="case", disable=not whys):
        try:
            pictures.append(draw_case(held_out, dataset, cases[name], report.folds_of[name], why))
        except (ValueError, OSError, RuntimeError) as error:
            log.warning("%s is not drawn: %s", name, error)
            missing.append(Missing(f"a picture: {error}"))
    if known and not ranked:
        missing.append(Missing("pictures of cases: their stored predictions were removed; validate again"))
    return replace(report, pictures=tuple(pictures), missing=tuple(missing))


def _first_models(report: Report) -> Choice:
    """What stands in for a choice that was not made: for each organ the first model that has scores of it."""
    organs: dict[str, tuple[str, ...]] = {}
    for model, scores in report.scores.items():
        organs |= {organ: (model,) for organ in scores if organ not in organs}
    return Choice(organs, tuple(sorted(set(report.folds_of.values()))), {}, 0)
