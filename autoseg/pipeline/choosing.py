"""From cross-validation predictions to the choice that prediction follows."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..evaluation.overlap import mean_of_known, score_case
from ..evaluation.selection import DEFAULT_RULE, candidates_for, choose
from ..images import read_label
from ..inference.export import export_labels
from ..inference.quantised import is_kept, kept
from ..inference.trained import model_labels
from ..label_subsets import subset, translate
from ..labels import to_internal
from ..model import Candidate, Case, Choice, Dataset, Plan, Score
from ..records import from_plain, read_json, write_json
from ..workspace import Workspace, find_workspace

log = logging.getLogger(__name__)


def find_best_configuration(
    which: str | int, *, home: str | Path | None = None, rule: str = DEFAULT_RULE, max_members: int = 3
) -> Choice:
    """Chooses for every organ the model, or the average of models, with the best cross-validation score among those that cover it.

    Args:
        which: Dataset id, name or folder.
        home: Home folder.
        rule: Name in `autoseg.evaluation.selection.RULES`.
        max_members: Largest number of models that are averaged.

    Returns:
        The choice with its evidence, which also lies in ``results/<dataset>/choice.json``.

    Raises:
        ValueError: Nothing is trained yet.
    """
    workspace = find_workspace(home, dataset=str(which))
    dataset = workspace.load_dataset(which)
    plan = workspace.plan(dataset.name)
    models, organs = _validated_models(workspace, plan)
    if not models:
        results = workspace.results(dataset.name)
        raise ValueError(f"{results}: nothing is trained and validated yet. Run: autoseg_train {dataset.name} 3d_fullres 0")
    names, folds = _comparable(models, organs)
    stored = {name: [score for fold in folds for score in _stored_scores(workspace.results(dataset.name), name, fold)] for name in names}
    names = _scored(stored)
    cases = _cases(workspace, dataset, {name: organs[name] for name in names}, folds)
    candidates = _with_evidence(workspace.results(dataset.name), candidates_for(names, max_members, organs=organs), cases)
    scores = _scores(workspace, plan, candidates, cases)
    judged = _scored(scores)
    candidates = [candidate for candidate in candidates if candidate.name in judged]
    alone = _without_comparison(workspace.results(dataset.name), models, organs, candidates)
    wanted = [organ for organ in plan.labels.names if organ not in alone]
    choice = choose(scores, candidates, wanted, folds=folds, rule=rule) if candidates else Choice({}, tuple(folds), {}, 0, by=rule)
    choice = _with_others(choice, alone, plan.labels.names)
    choice = replace(choice, voters={name: voting_folds(models[name]) for members in choice.organs.values() for name in members})
    write_json(workspace.results(dataset.name) / "choice.json", choice)
    write_json(workspace.results(dataset.name) / "plan.json", plan)
    return choice


def voting_folds(trained: Sequence[str]) -> tuple[str, ...]:
    """The folds of a model that vote: all numbered ones; fold ``all`` where there are none."""
    return tuple(fold for fold in trained if fold != "all") or tuple(trained)


def _validated_models(workspace: Workspace, plan: Plan) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """Model folder name -> folds that are trained and validated, and -> organs; cheapest configuration first.

    Of one configuration the model of most organs comes first: a choice that needs fewer networks is the cheaper one.
    """
    cost = {"2d": 0, "2.5d": 1, "3d_lowres": 2, "3d_fullres": 3, "3d_cascade": 4}
    found = {}
    root = workspace.results(plan.dataset)
    for name, folds in workspace.trained_models(plan.dataset).items():
        done = [fold for fold in folds if (root / name / f"fold_{fold}" / "validation" / "scores.json").is_file()]
        if done:
            found[name] = done
    organs = {name: model_labels(root / name, plan.labels).names for name in found}
    order = sorted(found, key=lambda name: (cost.get(name.partition("__")[0], 9), -len(organs[name]), name))
    return {name: found[name] for name in order}, organs


def _comparable(models: dict[str, list[str]], organs: dict[str, tuple[str, ...]]) -> tuple[list[str], list[str]]:
    """Models that share folds, and those folds: as many organs, then models, then folds as there are.

    A model is worth more than a fold: what a user trained should be compared, if only on one fold, and every chosen model votes with all
    of its folds anyway. Fold ``all`` is no evidence, and is used only where nothing else was trained.
    """
    numbered = {name: [fold for fold in folds if fold != "all"] for name, folds in models.items()}
    numbered = {name: folds for name, folds in numbered.items() if folds}
    if not numbered:
        log.warning("Only fold 'all' was trained: there is no held-out case to judge it by.")
        return list(models), ["all"]
    shared = [set(folds) & set(others) for folds in numbered.values() for others in numbered.values()]

    def worth(folds: set[str]) -> tuple[int, int, int]:
        able = [name for name, trained in numbered.items() if folds and folds <= set(trained)]
        return len({organ for name in able for organ in organs[name]}), len(able), len(folds)

    common = sorted(max(shared, key=worth))
    names = [name for name, folds in numbered.items() if set(common) <= set(folds)]
    for name in models:
        if name not in names:
            log.warning("%s is not compared: its trained folds are %s, the others' %s.", name, ", ".join(models[name]), ", ".join(common))
    if len(common) < 5:
        log.info("Evidence comes from fold %s only; train the other folds for a firmer choice.", ", ".join(common))
    return names, common


def _cases(workspace: Workspace, dataset: Dataset, models: dict[str, tuple[str, ...]], folds: list[str]) -> dict[str, list[Case]]:
    """Fold -> the cases that every model (name to organs) was validated on, if they could judge it, and that are still in the dataset."""
    there = {case.name: case for case in dataset.cases}
    found: dict[str, list[Case]] = {}
    for fold in folds:
        validated = {model: {score.case for score in _stored_scores(workspace.results(dataset.name), model, fold)} for model in models}
        everything = set().union(*validated.values())
        common = {
            name
            for name in everything
            if all(name in scored or not _judges(there.get(name), models[model]) for model, scored in validated.items())
        }
        removed = sorted(common - set(there))
        if removed:
            log.warning("Fold %s: no longer in the dataset and left out: %s", fold, ", ".join(removed))
        if everything - common:
            log.warning("Fold %s: left out, as not every model was validated on them: %s", fold, ", ".join(sorted(everything - common)))
        found[fold] = [there[name] for name in sorted(common & set(there))]
    return found


def _judges(case: Case | None, organs: tuple[str, ...]) -> bool:
    """Whether a case can say anything of a model of these organs: one of them was annotated in it."""
    return case is None or case.annotated is None or any(organ in case.annotated for organ in organs)


def _with_evidence(results: Path, candidates: list[Candidate], cases: dict[str, list[Case]]) -> list[Candidate]:
    """The candidates without those averages for which a member's probabilities are no longer there."""
    members = {name for candidate in candidates if len(candidate.members) > 1 for name in candidate.members}
    folders = {name: {fold: results / name / f"fold_{fold}" / "validation" for fold in cases} for name in members}
    lacking = {
        name for name in members if not all(is_kept(folders[name][fold], case.name) for fold, some in cases.items() for case in some)
    }
    if lacking:
        log.warning(
            "Averages with %s are not judged: the probabilities (.b2nd) of their validation were removed. "
            "To make them again, remove their validation folders and run the same autoseg_train.",
            ", ".join(sorted(lacking)),
        )
    return [candidate for candidate in candidates if len(candidate.members) == 1 or not lacking & set(candidate.members)]


def _scores(workspace: Workspace, plan: Plan, candidates: list[Candidate], cases: dict[str, list[Case]]) -> dict[str, list[Score]]:
    """Scores of single models as they were validated; averages are computed from the stored probabilities, each case read once."""
    root = workspace.results(plan.dataset)
    scores: dict[str, list[Score]] = {candidate.name: [] for candidate in candidates}
    for candidate in candidates:
        if len(candidate.members) == 1:
            for fold, some in cases.items():
                wanted = {case.name for case in some}
                scores[candidate.name] += [score for score in _stored_scores(root, candidate.name, fold) if score.case in wanted]
    averages = [candidate for candidate in candidates if len(candidate.members) > 1]
    todo = [(fold, case) for fold, some in cases.items() for case in some] if averages else []
    for fold, case in tqdm(todo, desc="Averaging models", unit="case", disable=not todo):
        for candidate, found in _score_averages(root, plan, case, averages, fold).items():
            scores[candidate] += found
    return scores


def _stored_scores(results: Path, model: str, fold: str) -> list[Score]:
    return from_plain(read_json(results / model / f"fold_{fold}" / "validation" / "scores.json", list), list[Score])


def _score_averages(results: Path, plan: Plan, case: Case, averages: list[Candidate], fold: str) -> dict[str, list[Score]]:
    members = {name for candidate in averages for name in candidate.members}
    logits = {name: kept(results / name / f"fold_{fold}" / "validation", case.name) for name in members}
    reference = to_internal(read_label(case.label).array, plan.labels, source=str(case.label))
    result = {}
    for candidate in averages:
        labels = subset(plan.labels, candidate.organs or plan.labels.names)
        found, _ = export_labels([logits[name] for name in candidate.members], labels)
        result[candidate.name] = score_case(case.name, found, translate(reference, plan.labels, labels), labels, organs=case.annotated)
    return result


def _scored(scores: dict[str, list[Score]]) -> list[str]:
    """Names that have scores: where nobody annotated a model's organs in any validation case, it has none."""
    without = [name for name, found in scores.items() if not found]
    if without:
        log.warning("Not compared, as they have no scores of the validation cases: %s", ", ".join(without))
    return [name for name, found in scores.items() if found]


def _without_comparison(
    results: Path, models: dict[str, list[str]], organs: dict[str, tuple[str, ...]], candidates: list[Candidate]
) -> dict[str, tuple[str, str]]:
    """Organ that no candidate covers, but a model does -> the best such model by its own numbered folds, and one sentence."""
    lacking = {organ for name in models for organ in organs[name]} - {organ for candidate in candidates for organ in candidate.organs}
    means = {name: _own_means(results, name, folds) for name, folds in models.items() if lacking & set(organs[name])}
    found: dict[str, tuple[str, str]] = {}
    for organ in sorted(lacking):
        able = [name for name in models if organ in organs[name]]
        best = max(able, key=lambda name: means[name].get(organ, -1.0))
        why = "the only model of it" if len(able) == 1 else "the best of its models, each by its own folds"
        found[organ] = best, f"{best}: not compared with the others; {why}"
    if found:
        log.warning("Not compared: %s", "; ".join(f"{organ} is taken from {model}" for organ, (model, _) in found.items()))
    return found


def _own_means(results: Path, model: str, folds: list[str]) -> dict[str, float]:
    """Organ to its mean Dice over the model's own folds, of those that a held-out case has."""
    dice: dict[str, list[float]] = {}
    for score in [score for fold in folds if fold != "all" for score in _stored_scores(results, model, fold)]:
        dice.setdefault(score.organ, []).append(score.dice)
    return {organ: mean for organ, values in dice.items() if not math.isnan(mean := mean_of_known(values))}


def _with_others(choice: Choice, alone: dict[str, tuple[str, str]], names: Sequence[str]) -> Choice:
    """The choice with what was not compared, organs in the order of the labels."""
    organs = choice.organs | {organ: (model,) for organ, (model, _) in alone.items()}
    reasons = choice.reasons | {organ: reason for organ, (_, reason) in alone.items()}
    chosen = [organ for organ in names if organ in organs]
    return replace(choice, organs={organ: organs[organ] for organ in chosen}, reasons={organ: reasons[organ] for organ in chosen})


def describe_choice(choice: Choice) -> str:
    """The candidates' Dice an organ as a table, the chosen ones marked, and a sentence an organ."""
    organs = list(choice.organs)
    width = max(len(name) for name in [*choice.table, "candidate"])
    lines = [f"{'candidate':<{width}}  " + "  ".join(f"{organ:>12}" for organ in organs)]
    for name, row in choice.table.items():
        chosen = {organ for organ in organs if " + ".join(choice.organs[organ]) == name}
        cells = [f"{row[organ]:11.4f}{'*' if organ in chosen else ' '}" if organ in row else "" for organ in organs]
        lines.append(f"{name:<{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    lines.append(f"Mean Dice over {choice.cases} validation cases of fold {', '.join(choice.folds)}; * = chosen for this organ.")
    return "\n".join(lines + [f"  {organ}: {reason}" for organ, reason in choice.reasons.items()])
