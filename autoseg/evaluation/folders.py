"""Scores of one folder of label maps against another, case by case."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..data.annotations import members_of
from ..data.geometry import geometry_difference
from ..data.images import ENDINGS, PICTURES, ending_of, read_case_geometry, read_geometry, read_label, stem_of
from ..data.label_placement import as_segmented
from ..data.label_subsets import translate_labels
from ..data.labels import to_internal_values
from ..data.tolerances import tolerance_of
from ..inference.manifest import written_labels
from ..inference.postprocessing import apply_postprocessing, forced, requested_steps
from ..runtime.failures import reason_of
from ..runtime.worker_pool import worker_count
from ..schema import Case, Geometry, Image, Labels, Score
from .case_scores import score_case
from .masks import TOLERANCE_MM
from .metrics import DEFAULT_METRICS, METRICS, check_metrics, has_value
from .summaries import OrganSummary, mean_dice, summary
from .tables import table

__all__ = ["OrganSummary", "evaluate_folders", "mean_dice", "summary", "table"]

log = logging.getLogger(__name__)

SHOWN = 10
"""Cases or problems spelled out in a message before the rest is only counted."""

BYTES_PER_VOXEL = 12
"""Memory of a case while it is compared: both label maps as read and as internal values, and the masks of the largest organ."""

MOST_WORKERS = 4
"""Cases compared at once at most: more only wait for the disk."""

UNNAMED = "label "
"""Before its value, the name of an organ that nobody names."""

Scorer = Callable[..., list[Score]]
"""`_score` with its options."""

Pair = tuple[str, Path, Path]
"""A case with its reference and its prediction."""


def evaluate_folders(
    reference: str | Path,
    prediction: str | Path,
    labels: Labels | None = None,
    *,
    workers: int | None = None,
    partial: bool = False,
    metrics: Sequence[str] | None = None,
    annotated: Mapping[str, Sequence[str] | None] | None = None,
    tolerance_mm: float | Mapping[str, float] = TOLERANCE_MM,
    failures: MutableMapping[str, str] | None = None,
    cases: Mapping[str, Case] | None = None,
    nifti_geometry: str | None = None,
    postprocess: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> list[Score]:
    """Compares the label maps of two folders, two files, or a file and its like in a folder: a case is a file name without its ending.

    Args:
        reference: Folder of the true label maps, or one file; `prediction`: of those to judge.
        labels: The organs; label maps that autoseg wrote with other values are read by the organs' names. None: every value that occurs
            but 0 is an organ, named ``label 3``.
        workers: Cases compared at once; None: one a core, at most four, as far as the memory reaches.
        partial: Score what is there when predictions are missing, instead of refusing; `only`: these cases (None: all).
        metrics: Names in `METRICS` or ``module:function``, besides Dice and IoU; None means `DEFAULT_METRICS`.
        annotated: Case -> the organs that were annotated in its reference (`Case.annotated`); the others have no score, unions of organs
            one of their own. Cases that are missing, or None, have all.
        failures: Gets case -> reason for the cases that cannot be compared, and the others are scored. None: they are an error.
        tolerance_mm: For the metrics that count what lies within a tolerance: one number, or organ to number (others: `TOLERANCE_MM`).
        cases: Of the dataset, by name: their images give the spacing of label maps that have none (pictures without a file beside them).
        nifti_geometry: See `Case`.
        postprocess: Score predictions with this post-processing (`autoseg.inference.postprocessing.requested_steps`), not the files' own.

    Returns:
        One score for each case and annotated organ, cases sorted by name.

    Raises:
        ValueError: A folder has no label maps, predictions are missing, a metric is unknown, organs cannot be post-processed, or cases do
            not fit together (without `failures`: one, with: all); every such case is named. Without `labels`: no file has an organ.
    """
    check_metrics(metrics or ())
    reference, prediction = Path(reference).expanduser(), Path(prediction).expanduser()
    _check(reference, prediction, postprocess, labels)
    pairs, problems = _pairs(reference, prediction, partial=partial, only=only)
    score = bind(_score, postprocess=postprocess, metrics=metrics, tolerance_mm=tolerance_mm)
    read = bind(read_label, nifti_geometry=nifti_geometry)
    written = {} if labels is None else _written_with(pairs)
    compare = bind(_compare, labels=labels, written=written, annotated=annotated or {}, score=score, read=read, cases=cases or {})
    results = _compared(compare, pairs, workers)
    of = len(pairs) + len(problems)
    problems |= {pair[0]: result for pair, result in zip(pairs, results, strict=True) if isinstance(result, str)}
    _refuse_or_hand_on(problems, failures, of=of)
    scores = [one for result in results if not isinstance(result, str) for one in result]
    _warn_of_spacing(scores, metrics)
    if labels is None and not scores:
        raise ValueError(f"{reference} and {prediction}: expected label maps with an organ, found none with another value than 0")
    if labels is not None:
        return scores
    requested_steps(postprocess, list(dict.fromkeys(one.organ for one in scores)))
    return _complete(scores, [name for name, _, _ in pairs if name not in problems], score)


def _refuse_or_hand_on(problems: Mapping[str, str], failures: MutableMapping[str, str] | None, *, of: int) -> None:
    """Problems of `of` cases into `failures`; an error (ValueError) where nobody takes them, or no case is left."""
    if problems and (failures is None or len(problems) == of):
        raise ValueError(f"{len(problems)} of {of} cases cannot be compared:\n" + _shorten(_lines(problems), "\n"))
    if failures is not None:
        failures.update(problems)


def _check(reference: Path, prediction: Path, words: Sequence[str], labels: Labels | None) -> None:
    """Refuses (ValueError) one thing compared with itself, and post-processing of unknown organs, which without labels the files tell."""
    if reference.exists() and prediction.exists() and reference.samefile(prediction):
        raise ValueError(f"{prediction}: is the reference {reference} itself, which agrees with every reference; name the predictions")
    if labels is None:
        requested_steps(words, [word.rpartition("=")[0] for word in words])
    else:
        forced(words, labels, {})


def _score(
    case: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: Labels,
    *,
    organs: Sequence[str] | None = None,
    postprocess: Sequence[str],
    spacing_mm: Sequence[float] | None,
    **options: Any,
) -> list[Score]:
    """As `score_case`, of the prediction with post-processing; words about organs that the case lacks say nothing of it.

    Unions of organs are scored, too, as organs of their own.
    """
    steps = forced([word for word in postprocess if word.rpartition("=")[0] in ("", *labels.names)], labels, {})
    prediction = apply_postprocessing(prediction, labels, steps, spacing_mm or (1.0,) * prediction.ndim)
    scores = score_case(case, prediction, reference, labels, organs=organs, spacing_mm=spacing_mm, **options)
    unions = [one for one in organs or () if one not in labels.names and set(members_of(one, labels.names)) <= set(labels.names)]
    for union in unions:
        scores += _score_union(case, prediction, reference, labels, union=union, spacing_mm=spacing_mm, **options)
    return scores


def _score_union(
    case: str, prediction: np.ndarray, reference: np.ndarray, labels: Labels, *, union: str, tolerance_mm: Any, **options: Any
) -> list[Score]:
    """The score of organs that were annotated only together: of all of them as one; its tolerance is that of the first."""
    organs = members_of(union, labels.names)
    values = [value for organ in organs for value in labels.internal_members[labels.names.index(organ)]]
    found, true = (np.isin(array, values).astype(np.int16) for array in (prediction, reference))
    if labels.internal_ignore is not None:
        true[reference == labels.internal_ignore] = 2
    tolerance = tolerance_of(organs[0], tolerance_mm, TOLERANCE_MM)
    return score_case(case, found, true, Labels((union,), ((1,),)), ignore=2, tolerance_mm=tolerance, **options)


def _written_with(pairs: Sequence[Pair]) -> dict[Path, Labels]:
    """The labels of the label maps that autoseg wrote, with which it noted them."""
    folders = {path.parent for _, *paths in pairs for path in paths}
    return {folder / name: labels for folder in folders for name, labels in written_labels(folder).items()}


def _compared(compare: Callable[[Pair], list[Score] | str], pairs: Sequence[Pair], workers: int | None) -> list[list[Score] | str]:
    """What `compare` says of each pair, several of them at once: its scores, or why it cannot be compared."""
    n_workers = workers or (_workers([path for _, path, _ in pairs]) if pairs else 1)
    with ThreadPoolExecutor(n_workers) as pool:
        threads = copy_context()  # what the caller may import holds in the threads, too
        compared = pool.map(lambda pair: threads.copy().run(compare, pair), pairs)
        return list(tqdm(compared, total=len(pairs), desc="evaluate", unit="case", disable=None))


def _workers(references: Sequence[Path]) -> int:
    """Cases compared at once: threads, since nothing in it keeps Python to itself, as many as cores and memory allow."""
    with contextlib.suppress(Exception):  # a file that cannot be read is named when it is compared
        largest = max(math.prod(read_geometry(path).shape) for path in references)
        return min(worker_count(len(references), BYTES_PER_VOXEL * largest), MOST_WORKERS)
    return 1


def _lines(problems: Mapping[str, str]) -> list[str]:
    return [f"case {name}: {reason}" for name, reason in problems.items()]


def _pairs(
    reference: Path, prediction: Path, *, partial: bool, only: Collection[str] | None
) -> tuple[list[tuple[str, Path, Path]], dict[str, str]]:
    """Case name, reference file and prediction file of everything that both sides have; case -> reason where one side has several files."""
    if reference.is_file() and prediction.is_file():
        return [(stem_of(reference), reference, prediction)], {}
    true, guess = _label_files(reference), _label_files(prediction)
    if prediction.is_file():
        true = _of_name(true, stem_of(prediction), reference, prediction, "reference")
    elif reference.is_file():
        guess = _of_name(guess, stem_of(reference), prediction, reference, "prediction")
    for name in only or ():
        _of_name(true, name, reference, prediction / name, "reference")
    if only is not None:
        true, guess = ({name: files for name, files in some.items() if name in only} for some in (true, guess))
    missing, extra = sorted(true.keys() - guess), sorted(guess.keys() - true)
    common = sorted(true.keys() & guess)
    if not common:
        names = f"predictions {_shorten(extra)}; references {_shorten(missing)}"
        raise ValueError(f"no file in {prediction} has the name of one in {reference}: {names}")
    if missing and not partial:
        raise ValueError(
            f"{prediction}: predictions are missing for {len(missing)} of {len(true)} reference cases: {_shorten(missing)}; "
            "predict them, or score only the others with --partial"
        )
    if missing:
        log.warning("Not evaluated, as the prediction is missing: %s", _shorten(missing))
    if extra:
        log.warning("Not evaluated, as the reference is missing: %s", _shorten(extra))
    pairs, problems = [], {}
    for name in common:
        try:
            pairs.append((name, *_same_kind(true[name], guess[name])))
        except ValueError as error:
            problems[name] = str(error)
    return pairs, problems


def _of_name(files: Mapping[str, list[Path]], name: str, folder: Path, file: Path, what: str) -> dict[str, list[Path]]:
    """The files in a folder that belong to one file outside; a ValueError where none does."""
    if name not in files:
        raise ValueError(
            f"{file}: expected a {what} of that name in {folder}, found none called {name}; there are {_shorten(sorted(files))}. "
            "Name the file itself instead of its folder"
        )
    return {name: files[name]}


def _label_files(folder: Path) -> dict[str, list[Path]]:
    """Case name -> its files, of all images in `folder`, or of the one file that is named instead."""
    if folder.is_file() and ending_of(folder):
        return {stem_of(folder): [folder]}
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of label maps, found {'a file' if folder.is_file() else 'nothing'}")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if ending_of(path) and not path.name.startswith(".") and not path.is_dir():
            found.setdefault(stem_of(path), []).append(path)
    if not found:
        raise ValueError(f"{folder}: no label maps found; expected files ending in {', '.join(ENDINGS)}")
    return found


def _same_kind(references: list[Path], predictions: list[Path]) -> tuple[Path, Path]:
    """The one file of each side; where pictures are drawn beside predicted volumes, the volume is meant."""
    if len(references) == 1 and len(predictions) > 1:
        is_picture = ending_of(references[0]) in PICTURES
        predictions = [path for path in predictions if (ending_of(path) in PICTURES) == is_picture] or predictions
    for files in (references, predictions):
        if len(files) > 1:
            raise ValueError(f"expected one file, found {', '.join(str(path) for path in files)}")
    return references[0], predictions[0]


def _compare(
    pair: tuple[str, Path, Path],
    *,
    labels: Labels | None,
    written: Mapping[Path, Labels],
    annotated: Mapping[str, Sequence[str] | None],
    score: Scorer,
    read: Callable[[Path], Image],
    cases: Mapping[str, Case],
) -> list[Score] | str:
    """Scores of one case, or why there are none: one bad case shall not hide the others."""
    name, reference_path, prediction_path = pair
    try:
        if prediction_path.samefile(reference_path):
            raise ValueError("the prediction is the reference itself, through a link")
        reference, prediction = read(reference_path), read(prediction_path)
        reference = as_segmented(reference, reference_path, labels, lambda: prediction.geometry)
        prediction = as_segmented(prediction, prediction_path, labels, lambda: reference.geometry)
        if difference := _difference(reference.geometry, prediction.geometry):
            raise ValueError(f"the prediction lies elsewhere than the reference: {difference}")
        case_labels = labels or _labels_of(reference, prediction)
        guess = _internal(prediction, prediction_path, case_labels, written)
        true = _internal(reference, reference_path, case_labels, written)
        spacing = _spacing(name, (reference.geometry, prediction.geometry), cases)
        return score(name, guess, true, case_labels, organs=annotated.get(name), spacing_mm=spacing)
    except Exception as error:  # whatever a damaged file leads to
        return f"{reason_of(error)} ({prediction_path} against {reference_path})"


def _internal(label_map: Image, path: Path, labels: Labels, written: Mapping[Path, Labels]) -> np.ndarray:
    """The internal values of a label map, found by the organs' names where it is known to be written with other values."""
    own = written.get(path, labels)
    return translate_labels(to_internal_values(label_map.array, own, source=str(path)), own, labels)


def _difference(reference: Geometry, prediction: Geometry) -> str:
    """As `geometry_difference`, but of a picture only the shape counts, and the spacing where it has one: it has no place in space."""
    if reference.oriented and prediction.oriented or reference.shape != prediction.shape:
        return geometry_difference(reference, prediction)
    known = reference.has_spacing and prediction.has_spacing
    if not known or np.allclose(reference.spacing, prediction.spacing, rtol=1e-3):
        return ""
    return f"spacing {prediction.spacing} instead of {reference.spacing} mm"


def _spacing(name: str, geometries: Sequence[Geometry], cases: Mapping[str, Case]) -> tuple[float, ...] | None:
    """The spacing that one of the label maps has, or else the image of the case; None where nobody knows it."""
    known = [geometry for geometry in geometries if geometry.has_spacing]
    if not known and name in cases:
        image = read_case_geometry(cases[name])
        known = [image] if image.has_spacing and image.shape == geometries[0].shape else []
    return known[0].spacing if known else None


def _labels_of(*images: Image) -> Labels:
    """An organ for every value that occurs, 0 excepted."""
    values = sorted({int(value) for image in images for plane in image.array for value in np.unique(plane)} - {0})
    return Labels(tuple(f"{UNNAMED}{value}" for value in values), tuple((value,) for value in values))


def _warn_of_spacing(scores: Sequence[Score], metrics: Sequence[str] | None) -> None:
    """Says which cases have no distances and volumes, where nobody asked for one by name."""
    measured = {
        score.case: [name for name in DEFAULT_METRICS if METRICS[name].needs == "masks" and has_value(score, name)] for score in scores
    }
    lacking = [case for case, names in measured.items() if not names]
    if metrics is None and lacking:
        remedy = 'a file beside them says it, {"spacing": [Z, Y, X]} in mm, or the images of the dataset (-d)'
        log.warning("Without distances in mm, as nobody knows the spacing of the pictures: %s; %s", _shorten(lacking), remedy)


def _complete(scores: list[Score], cases: Sequence[str], score: Scorer) -> list[Score]:
    """Adds "absent from both" for the organs that a case without declared labels does not show."""
    organs = sorted({one.organ for one in scores}, key=lambda organ: int(organ.split()[1]))
    found = {(one.case, one.organ): one for one in scores}
    missing = [(case, organ) for case in cases for organ in organs if (case, organ) not in found]
    if missing:
        empty = np.zeros((1, 1), np.uint8)
        (absent,) = score(missing[0][0], empty, empty, Labels(("organ",), ((1,),)), spacing_mm=(1.0, 1.0))
        found |= {(case, organ): replace(absent, case=case, organ=organ) for case, organ in missing}
    return [found[case, organ] for case in cases for organ in organs]


def _shorten(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")
