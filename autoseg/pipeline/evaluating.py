"""Label maps against references: scores of one prediction or several, their tables and files, and which of several is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial as bind
from pathlib import Path
from typing import Any

from ..data.descriptions import check_leave, planned_dataset
from ..data.images import ending_of, images_below, stem_of
from ..data.nearby_labels import labels_nearby
from ..data.nifti_geometry import check_form
from ..data.patients import patients_to_compare
from ..data.tolerances import read_tolerances
from ..evaluation.comparison import COMPARED_METRICS, Difference, compare_scores, comparison_table
from ..evaluation.folders import UNNAMED, evaluate_folders
from ..evaluation.masks import TOLERANCE_MM
from ..evaluation.metrics import check_metrics, has_value
from ..evaluation.summaries import OrganSummary, summary
from ..evaluation.tables import SHOWN_METRICS, csv_text, table
from ..runtime.outputs import Outputs
from ..runtime.registry import allows_code, unknown_name_error
from ..runtime.serialization import write_json
from ..runtime.workspace import find_workspace, home_folders
from ..schema import Dataset, Score
from .known_patients import known_patients


@dataclass(frozen=True)
class Evaluated:
    """The scores of one prediction, a folder or file.

    Attributes:
        scores: One a case and organ.
        summary: The means of each organ, over the cases that could be compared.
        failures: Case -> reason for those that could not.
    """

    prediction: Path
    scores: list[Score]
    summary: dict[str, OrganSummary]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        """Number of the cases that were scored."""
        return len({score.case for score in self.scores})


@dataclass(frozen=True)
class Compared:
    """Two predictions, folders or files, compared: one difference an organ and metric."""

    first: Path
    second: Path
    differences: list[Difference]


@dataclass(frozen=True)
class Evaluation:
    """All predictions of one evaluation, as ``--json`` writes it.

    Attributes:
        tolerance_mm: Organ to the tolerance of the NSD, ``""`` for those that are not named.
        comparisons: The first prediction with each of the others.
        postprocess: Post-processing that the predictions were scored with, which their files do not have.
        metrics: That were asked for; none are the usual ones.
        patients: How the patients of the cases are known, by which comparisons are tested; empty where each case is one.
        organs_from: The file near the label maps that names the organs; empty where the dataset does, or nobody.
    """

    reference: Path
    tolerance_mm: dict[str, float]
    results: list[Evaluated]
    comparisons: list[Compared]
    postprocess: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    patients: str = ""
    organs_from: str = ""

    @property
    def failures(self) -> dict[str, str]:
        """Case -> reason for the cases that could not be compared, with the prediction before them where there are several."""
        several = len(self.results) > 1
        return {f"{one.prediction}: {case}" if several else case: why for one in self.results for case, why in one.failures.items()}


@allows_code("metrics")
def evaluate_predictions(
    reference: Path,
    predictions: Sequence[Path],
    *,
    dataset: str | None = None,
    home: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    tolerances: Sequence[str] = (),
    partial: bool = False,
    workers: int | None = None,
    nifti_geometry: str | None = None,
    postprocess: Sequence[str] = (),
    groups: str | None = None,
) -> Evaluation:
    """Scores one prediction or several against the same references; of several, the first is compared with each of the others.

    Args:
        reference: Folder of the true label maps, or one file.
        predictions: Folders of label maps, or files; several files of one folder are one prediction, where the references are a folder.
        dataset: Its id, name or folder: names of the organs, which were annotated where, patients, tolerances. None: a ``dataset.json``
            beside the label maps or in the folder above names the organs; without one every value of a label map is an organ.
        home: Home folder.
        metrics: As `partial`, `workers` and `postprocess` see `evaluate_folders`.
        nifti_geometry: See `Case`; None means as the dataset was planned.
        groups: Whose cases are of one patient, for the tests of comparisons (`read_groups`): a file ``.csv`` or ``.json``, or a regular
            expression. None: as the dataset, or the notes beside the predictions, say.
        tolerances: What goes before the dataset's: ``2`` for every organ, ``liver=3`` for one, in mm.

    Raises:
        ValueError: What `evaluate_folders` refuses, or a metric, an organ of a tolerance or the dataset is unknown.
    """
    check_metrics(metrics or ())
    check_form(nifti_geometry)
    known = None if dataset is None else planned_dataset(find_workspace(home, dataset=dataset), dataset)
    tolerance = read_tolerances(tolerances, TOLERANCE_MM, known.tolerances if known else {})
    if known:
        _check_organs(tolerance, known.labels.names)
    evaluate = bind(evaluate_folders, metrics=metrics, tolerance_mm=tolerance, partial=partial, workers=workers, postprocess=postprocess)
    evaluate = bind(evaluate, nifti_geometry=nifti_geometry)
    if known:
        evaluate = bind(evaluate, **_as_planned(known, find_workspace(home, dataset=dataset).home, nifti_geometry))
    predictions, only = _as_one_folder(reference, predictions)
    failures: list[dict[str, str]] = [{} for _ in predictions]
    near = None if known else labels_nearby([reference, *predictions])
    labels = known.labels if known else near[0] if near else None
    evaluate = bind(evaluate, only=only)
    found = [evaluate(reference, one, labels, failures=failed) for one, failed in zip(predictions, failures, strict=True)]
    if not known:
        _check_organs(tolerance, dict.fromkeys(score.organ for scores in found for score in scores))
    cases_found = sorted({score.case for scores in found for score in scores})
    patients = patients_to_compare(cases_found, *known_patients(cases_found, predictions, groups=groups, dataset=known))
    several = zip(predictions, found, failures, strict=True)
    results = [Evaluated(prediction, scores, summary(scores), failed) for prediction, scores, failed in several]
    compared = _compared_with_first(results, metrics, patients.of_case)
    named_by = "" if near is None else str(near[1])
    return Evaluation(reference, tolerance, results, compared, tuple(postprocess), tuple(metrics or ()), patients.known_from, named_by)


def _compared_with_first(results: Sequence[Evaluated], metrics: Sequence[str] | None, patients: Mapping[str, str] | None) -> list[Compared]:
    """The first prediction beside each of the others, by the metrics that were asked for or else those that all scores hold."""
    first, *others = results
    scores = [score for one in results for score in one.scores]
    held = [name for name in COMPARED_METRICS if all(has_value(score, name) for score in scores)]
    compare = bind(compare_scores, metrics=metrics or held, patients=patients)
    return [Compared(first.prediction, other.prediction, compare(first.scores, other.scores)) for other in others]


def _as_one_folder(reference: Path, predictions: Sequence[Path]) -> tuple[Sequence[Path], list[str] | None]:
    """Several files of one folder (``out/*.nii.gz``), where the references are a folder, are one prediction: it, and its cases."""
    names, folders = [stem_of(path) for path in predictions], {path.parent for path in predictions}
    if len(names) < 2 or not reference.is_dir() or len(folders) > 1 or len(set(names)) < len(names):
        return predictions, None
    return ([folders.pop()], names) if all(path.is_file() for path in predictions) else (predictions, None)


def _as_planned(dataset: Dataset, home: Path, nifti_geometry: str | None) -> dict[str, Any]:
    """What `evaluate_folders` takes of a dataset: which organs are annotated where, the form of headers, and its cases.

    The cases' images say the spacing of pictures that have none; there are none where the home does not allow to read their files.
    """
    reading = nifti_geometry or dataset.nifti_geometry
    cases = {case.name: replace(case, nifti_geometry=reading) for case in dataset.cases}
    try:
        check_leave(dataset, home)
    except ValueError:  # without a spacing there are no distances, which is said
        cases = {}
    return {"annotated": {case.name: case.annotated for case in dataset.cases}, "nifti_geometry": reading, "cases": cases}


def describe_evaluation(evaluation: Evaluation, *, everything: bool = False) -> str:
    """The tables of every prediction and of the comparisons: Dice, NSD and HD95, or the metrics that were asked for; or every one."""
    several, asked = len(evaluation.results) > 1, ("dice", *evaluation.metrics) if evaluation.metrics else SHOWN_METRICS
    shown = None if everything else tuple(dict.fromkeys(asked))
    blocks = []
    for one in evaluation.results:
        text = table(one.scores, tolerance_mm=evaluation.tolerance_mm, metrics=shown)
        blocks.append(f"{one.prediction}\n\n{text}" if several else text)
    describe = bind(comparison_table, tolerance_mm=evaluation.tolerance_mm, metrics=shown, patients=evaluation.patients)
    for pair in evaluation.comparisons:
        names = str(pair.first), str(pair.second)
        blocks.append(describe(pair.differences, names))
    if evaluation.postprocess:
        blocks.append(f"Scored with post-processing ({' '.join(evaluation.postprocess)}), which the files do not have.")
    if evaluation.organs_from:
        blocks.append(f"Organs are named by {evaluation.organs_from}; -d DATASET also knows patients, tolerances and what was annotated.")
    elif any(score.organ.startswith(UNNAMED) for one in evaluation.results for score in one.scores):
        blocks.append("Organs have no names: -d DATASET says them, or a dataset.json beside the label maps or in the folder above.")
    if not everything and any(set(one.other) - set(asked) for some in evaluation.results for one in some.scores):
        blocks.append("Further metrics: --all; of every case: --csv FILE, --json FILE.")
    return "\n\n".join(blocks)


def evaluation_outputs(
    reference: Path,
    predictions: Sequence[Path],
    *,
    dataset: str | None = None,
    home: str | Path | None = None,
    files: Mapping[str, Path | None],
    overwrite: bool = False,
) -> Outputs:
    """What an evaluation may write; to be asked before it begins.

    Args:
        files: Option to the file that is to be written, None for none.
        overwrite: Replace files that no evaluation wrote, or that were changed since; never label maps, data or models.

    Raises:
        ValueError: A file must not be written; the message says why.
    """
    inputs, folders = images_below(reference, *predictions), home_folders(home, dataset=dataset)
    outputs = Outputs("autoseg_evaluate", inputs=inputs, protected=folders, overwrite=overwrite)
    outputs.check({option: [path] for option, path in files.items() if path is not None})
    for option, path in files.items():
        if path is not None and ending_of(path):
            raise ValueError(f"{option} {path}: expected the name of a table, found that of an image; choose another output")
    return outputs


def write_evaluation(evaluation: Evaluation, outputs: Outputs, *, json: Path | None = None, csv: Path | None = None) -> None:
    """Writes the scores, summaries and comparisons to a JSON file, and the scores of every case to one for a spreadsheet."""
    if json is not None:
        write_json(json, evaluation, write=outputs.write, digest=False)
    if csv is not None:
        with outputs.write(csv) as file:
            file.write_text(csv_text({str(one.prediction): one.scores for one in evaluation.results}), encoding="utf-8")


def _check_organs(tolerance: Mapping[str, float], organs: Sequence[str] | Mapping[str, None]) -> None:
    for organ in tolerance:
        if organ and organ not in organs:
            raise unknown_name_error("tolerance: organ", organ, organs)
