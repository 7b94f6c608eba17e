"""Where trained models lie: those of a dataset of a home, or a folder anywhere, renamed or copied without its home."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.nifti_geometry import check_form
from ..runtime.dataset_folders import matching_names
from ..runtime.runs import FINAL_CHECKPOINT, RECORD, ModelFolder, Run, model_folders
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace, find_workspace, last_name
from ..schema import Plan, RunRecord
from ..schema.settings import PredictSettings

KINDS = "the results of a dataset (models, and choice.json), a model (fold_0 ...), or a fold (checkpoint_final.pt, run.json)"
"""What a folder with trained networks may be, in words."""


@dataclass(frozen=True)
class ModelSource:
    """Trained models that a prediction may choose from.

    Attributes:
        name: Of the dataset in its home, or the folder as the user wrote it.
        results: Holds the model folders and, of a dataset's results, ``choice.json``.
        plan: Of the dataset, whose label values are written: as it is planned now where the home is there.
        workspace: The home that the models belong to; None where they lie elsewhere.
        folder: What the user named; None for a dataset of a home.
        model: Name of the only model that is meant; None: those of the choice.
        folds: The only folds that are meant; None: those of the choice or model.
    """

    name: str
    results: Path
    plan: Plan
    workspace: Workspace | None = None
    folder: Path | None = None
    model: str | None = None
    folds: tuple[str, ...] | None = None

    @property
    def planned_home(self) -> Workspace | None:
        """The home, where it holds the plan that the dataset has now, and so can choose again; else None."""
        there = self.workspace is not None and (self.workspace.preprocessed(self.name) / "plan.json").is_file()
        return self.workspace if there else None

    @property
    def home(self) -> Path | None:
        """Folder of the home; None for models that lie elsewhere."""
        return None if self.workspace is None else self.workspace.home

    @property
    def dim(self) -> int:
        """Axes of the images."""
        return len(self.plan.transpose)

    @property
    def protected(self) -> tuple[Path, ...]:
        """Folders in which prediction never replaces a file of others."""
        of_home = self.workspace.folders if self.workspace is not None else ()
        return of_home if self.folder is None else (*of_home, self.folder)

    @property
    def data_folders(self) -> tuple[Path, ...]:
        """Of the home, with images, label maps and what was made of them."""
        return self.workspace.folders[:2] if self.workspace is not None else ()

    def result_folders(self, out: Path) -> tuple[Path, ...]:
        """Those with the models of a dataset, or of all; `out` among them where it would lie beside the datasets' ones."""
        if self.workspace is None:
            return (self.results,)
        everything = self.workspace.folders[2]
        return (self.results, everything, *([out] if out.resolve().parent == everything.resolve() else []))

    def nifti_geometry(self, settings: PredictSettings) -> str | None:
        """The reading of contradictory headers: the user's, else that of the plan."""
        check_form(settings.nifti_geometry)
        planned = self.plan.settings
        return settings.nifti_geometry or (planned.nifti_geometry if planned else None)


def find_source(settings: PredictSettings, home: str | Path | None = None) -> ModelSource:
    """The models that settings mean: those in `PredictSettings.folder`, else those of a trained dataset of the home.

    Raises:
        ValueError: There is none, several datasets fit, or settings contradict each other.
    """
    if settings.folder is None:
        return trained_dataset(settings.dataset, home)
    if settings.dataset is not None:
        raise ValueError(f"expected a folder of models (-m {settings.folder}) or a dataset of the home (-d {settings.dataset}), found both")
    source = source_in(settings.folder)
    if source.model is not None and settings.model not in (None, source.model, ModelFolder(Path(source.model)).configuration):
        raise ValueError(f"-m {settings.folder} is the model {source.model}, found -c {settings.model} too; leave one of them out")
    if source.folds is not None and settings.folds not in (None, source.folds):
        raise ValueError(f"-m {settings.folder} is fold {source.folds[0]}, found --folds {' '.join(settings.folds or ())}; leave one out")
    return source


def source_meant(model: str | int | Path, settings: PredictSettings, home: str | Path | None) -> ModelSource:
    """The models in a folder, or of the trained dataset that an id or name means; what settings say of either does not count.

    Raises:
        ValueError: There is neither.
    """
    settings = replace(settings, folder=None, dataset=None)
    named = str(model)
    try:
        return find_source(replace(settings, folder=named))
    except ValueError as error:
        try:  # also by a dataset's folder in raw/
            return trained_dataset(named, home, option="")
        except ValueError as other:
            if isinstance(model, Path) or os.sep in named or Path(named).is_dir():
                raise error from None
            raise ValueError(f"{other}\nand {Path.cwd()} has no folder of models of that name") from None


def trained_dataset(which: str | None, home: str | Path | None, *, option: str = "-d ") -> ModelSource:
    """The trained dataset that a user names, or the only one of the home.

    Args:
        option: Before a name in messages, as the user types it.

    Raises:
        ValueError: There is none, or several fit; the message lists them.
    """
    workspace = find_workspace(home)
    trained = workspace.trained_datasets()
    if not trained:
        raise ValueError(
            f"{workspace.home / 'results'}: nothing is trained yet. Run: autoseg_train DATASET 3d_fullres 0; "
            "a model that lies elsewhere is named with -m FOLDER"
        )
    fitting = trained if which is None else matching_names(trained, last_name(which))
    if len(fitting) != 1:
        listed = "\n".join(f"  {option}{name}" for name in trained)
        wrong = f"{option}{which} means {'several' if fitting else 'none'} of the trained datasets"
        raise ValueError(f"{'say which of the trained datasets' if which is None else wrong}:\n{listed}")
    return source_of_dataset(workspace, fitting[0])


def source_of_dataset(workspace: Workspace, dataset: str) -> ModelSource:
    """The models of a dataset in its home.

    Raises:
        ValueError: The dataset has no plan.
    """
    return ModelSource(dataset, workspace.results(dataset), workspace.present_plan(dataset), workspace)


def source_in(folder: str | Path) -> ModelSource:
    """The models in a folder anywhere: results of a dataset, one model, or one fold, under whatever name.

    Raises:
        ValueError: It holds no trained network; the message says what was found instead.
    """
    given = Path(folder).expanduser()
    path = Path(os.path.abspath(given))  # not through links: the models that this one depends on lie beside it as the user sees it
    if not path.is_dir():
        raise ValueError(f"{given}: expected a folder with {KINDS}; found {'a file' if path.is_file() else 'nothing'}")
    run, model = Run(path), ModelFolder(path)
    if run.is_trained or run.is_started:
        _check_trained(run, given)
        of_model = path.name.startswith("fold_")
        results, name = (path.parents[1], path.parent.name) if of_model else (path.parent, path.name)
        return _single(given, results, name, (run.fold if of_model else run.record().fold,))
    if model.trained_folds():
        return _single(given, path.parent, path.name, None)
    for started in model.runs():
        _check_trained(started, given)
    found = model_folders(path)
    if not found:
        raise ValueError(f"{given}: expected {KINDS}; {_instead(path)}")
    workspace = _home_of(path)
    plan = workspace.present_plan(path.name) if workspace else _plan_beside(path) or _recorded_plan(found[0])
    return ModelSource(path.name if workspace else str(given), path, plan, workspace, path)


def _single(given: Path, results: Path, name: str, folds: tuple[str, ...] | None) -> ModelSource:
    """The source of one model, with the values of the labels that the results have which it lies in."""
    workspace = _home_of(results)
    plan = workspace.present_plan(results.name) if workspace else None
    if plan is None:
        recorded, beside = _recorded_plan(ModelFolder(results / name)), _plan_beside(results)
        plan = beside if beside is not None and beside.dataset == recorded.dataset else recorded
    named = results.name if workspace else str(given)
    return ModelSource(named, results, plan, workspace, Path(os.path.abspath(given)), name, folds)


def _home_of(results: Path) -> Workspace | None:
    """The home whose ``results/`` hold a folder, where the dataset's plan is there too; None for a copy that lies elsewhere."""
    home = Workspace(results.parents[1]) if len(results.parents) > 1 and results.parent.name == "results" else None
    return home if home is not None and (home.preprocessed(results.name) / "plan.json").is_file() else None


def _plan_beside(results: Path) -> Plan | None:
    """The copy of the plan that training and the choice write beside the models."""
    path = results / "plan.json"
    return read_json(path, Plan) if path.is_file() else None


def _recorded_plan(model: ModelFolder) -> Plan:
    """The plan that a model was trained with, of all organs of its dataset; of a learned ensemble that of its first member.

    Raises:
        ValueError: The member is not there.
    """
    record = _record(model)
    while record.ensemble is not None:
        member = ModelFolder(model.folder.parent / record.ensemble.members[0])
        if not member.runs():
            lacking = ", ".join(record.ensemble.members)
            raise ValueError(f"{model.folder}: combines other models, expected beside it: {lacking}; copy them too")
        record = _record(member)
    return replace(record.plan, labels=record.plan.stored_labels, data_labels=None)


def _record(model: ModelFolder) -> RunRecord:
    """The record of the first trained fold."""
    return model.run(model.trained_folds()[0]).record()


def _check_trained(run: Run, given: Path) -> None:
    """Refuses (ValueError) a fold without one of the two files that prediction needs."""
    for path, lacking in ((run.checkpoint, "its training is not finished"), (run.record_file, "nothing is known of its training")):
        if not path.is_file():
            raise ValueError(f"{given}: expected {FINAL_CHECKPOINT} and {RECORD} of a trained fold, found no {path.name}: {lacking}")


def _instead(path: Path) -> str:
    """What a folder without models holds instead, in words: the folders below that hold some, else its first entries."""
    below = [one for one in sorted((*path.glob("*/"), *path.glob("results/*/"))) if one.is_dir() and model_folders(one)]
    if below:
        return f"it holds several such folders, name one of them: {', '.join(map(str, below))}" if below[1:] else f"name {below[0]}"
    names = [f"{one.name}{'/' if one.is_dir() else ''}" for one in sorted(path.iterdir()) if not one.name.startswith(".")]
    return f"found {', '.join(names[:5])}{' ...' if names[5:] else ''}" if names else "the folder is empty"
