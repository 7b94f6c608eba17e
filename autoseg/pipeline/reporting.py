"""From a results folder to the report, one HTML file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..data.descriptions import check_leave, planned_dataset
from ..report import render
from ..report.collect import PICTURED, has_images, read_report, with_pictures
from ..runtime.dataset_folders import matching_names
from ..runtime.outputs import Outputs
from ..runtime.plotting import css_colours
from ..runtime.registry import allows_code
from ..runtime.workspace import Workspace, find_workspace, last_name
from ..schema import Dataset

log = logging.getLogger(__name__)

TITLE = b": segmentation report</title>"
"""By which a report is known where nothing was noted of it: of 0.1.0, and in a results folder that was copied without hidden files."""


@allows_code()
def write_report(
    which: str | int,
    *,
    home: str | Path | None = None,
    out: str | Path | None = None,
    cases: int = PICTURED,
    overwrite: bool = False,
    allow_code: Sequence[str] = (),
) -> Path:
    """Writes everything that is known about the models of a dataset into one HTML file, which needs nothing but itself.

    Args:
        out: File to write; None: ``results/<dataset>/report.html``.
        cases: To draw, besides the worst of each organ; 0 draws none.
        overwrite: Replace a file that is no report, or one that was changed since; never data or models.
        allow_code: Modules that a name in the dataset's files may import.

    Returns:
        The file.

    Raises:
        ValueError: There is neither a plan nor a result of this dataset, a negative number of cases, files of cases that lie where the home
            does not allow it to read, or the file must not be replaced.
    """
    if cases < 0:
        raise ValueError(f"--cases: expected 0 or more, got {cases}")
    workspace = find_workspace(home, dataset=str(which))
    name, dataset = _find(workspace, which)
    path = Path(out) if out else workspace.results(name) / "report.html"
    if path.is_dir():
        path = path / "report.html"
    protected = workspace.folders if out else ()
    outputs = Outputs("autoseg_report", inputs=(), protected=protected, overwrite=overwrite, is_own=_is_report)
    outputs.check({"report": [path]})
    has_pictures = bool(cases) and dataset is not None and has_images(dataset)
    if dataset is not None and has_pictures:
        check_leave(dataset, workspace.home)
    report = read_report(workspace, name, dataset)
    if dataset is not None and has_pictures:
        report = with_pictures(workspace, report, dataset, cases)
    with outputs.write(path) as partial:
        partial.write_text(render(report, css_colours(len(report.organs))), encoding="utf-8")
    return path


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return TITLE in file.read(1000)


def _find(workspace: Workspace, which: str | int) -> tuple[str, Dataset | None]:
    """The dataset's name, and the dataset where it is known: results can be looked at without it, and without its images."""
    try:
        dataset = planned_dataset(workspace, which)
        if not has_images(dataset):
            log.warning("The images of %s are no longer there: a report without pictures.", dataset.name)
        return dataset.name, dataset
    except ValueError:
        known = sorted({path.parent.name for part in ("results", "preprocessed") for path in workspace.home.glob(f"{part}/*/plan.json")})
        fitting = matching_names(known, last_name(which))
        if len(fitting) != 1:
            raise
        log.warning("The images of %s are no longer there: a report without pictures.", fitting[0])
        return fitting[0], None
