"""Where things lie: the home folder with ``raw/ preprocessed/ results/``, and the names of everything in it.

::

    home/raw/Dataset003_Name/                       the data, never written to
    home/preprocessed/Dataset003_Name/              dataset.json fingerprint.json plan.json splits.json, one folder a configuration
    home/results/Dataset003_Name/dataset.json, plan.json, choice.json
    home/results/Dataset003_Name/3d_fullres__Trainer/fold_0/   run.json checkpoint_final.pt history.csv progress.png validation/
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..schema import Fingerprint, Plan, Split
from .dataset_folders import described_folder, find_dataset, matching_names
from .runs import model_folders
from .serialization import read_json
from .splits_file import read_splits, without_cases

RAW_NAMES = ("raw", "nnUNet_raw")

DESCRIPTION = "dataset.json"
"""Of a planned dataset, in ``preprocessed/`` and ``results/``."""

LEFT_OUT = "left_out.json"
"""Cases that planning left out, with the reason, in ``preprocessed/``; missing where there are none."""


@dataclass(frozen=True)
class Workspace:
    """A home folder.

    Attributes:
        home: Holds ``raw/`` (or ``nnUNet_raw/``), ``preprocessed/`` and ``results/``.
    """

    home: Path

    @property
    def raw(self) -> Path:
        """Folder of datasets; nnU-Net's is used as it is, be it ``nnUNet_raw`` here or what its variable of that name says."""
        found = [self.home / name for name in RAW_NAMES if (self.home / name).is_dir()]
        elsewhere = os.environ.get(RAW_NAMES[1])
        return found[0] if found else Path(elsewhere).resolve() if elsewhere else self.home / RAW_NAMES[0]

    def preprocessed(self, dataset: str) -> Path:
        """Everything derived from a dataset before training."""
        return self.home / "preprocessed" / dataset

    def results(self, dataset: str) -> Path:
        """Everything trained on a dataset; enough by itself to predict with."""
        return self.home / "results" / dataset

    def dataset_folder(self, which: str | int) -> Path:
        """The dataset folder that an id, a name or a folder means: in ``raw/``, or one that was planned from elsewhere.

        Raises:
            ValueError: None or several fit; the message lists what is there.
        """
        try:
            return find_dataset(self.raw, which)
        except ValueError:
            elsewhere = [name for name in self.descriptions() if not (self.raw / name).is_dir()]
            fitting = matching_names(elsewhere, last_name(which))
            if len(fitting) != 1:
                raise
            return described_folder(self.descriptions()[fitting[0]], home=self.home, raw=self.raw)

    def descriptions(self) -> dict[str, Path]:
        """Name of each planned dataset to its description; the one in ``results/`` where a folder was copied without the data."""
        found = [path for part in ("results", "preprocessed") for path in sorted((self.home / part).glob(f"*/{DESCRIPTION}"))]
        return {path.parent.name: path for path in found}

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        """Data, what was derived from it, and models: where no command replaces a file that it did not write."""
        return self.raw, self.home / "preprocessed", self.home / "results"

    def plan(self, dataset: str) -> Plan:
        """The dataset's plan.

        Raises:
            ValueError: It has not been planned; the message gives the command.
        """
        path = self.preprocessed(dataset) / "plan.json"
        if not path.is_file():
            raise ValueError(f"{path}: no plan yet. Run: autoseg_plan_and_preprocess -d {dataset}")
        return read_json(path, Plan)

    def present_plan(self, dataset: str) -> Plan:
        """The plan that the dataset has now, whose label values are written; the copy beside its models where only those are there.

        Raises:
            ValueError: There is neither.
        """
        path = self.results(dataset) / "plan.json"
        return read_json(path, Plan) if not (self.preprocessed(dataset) / "plan.json").is_file() and path.is_file() else self.plan(dataset)

    def splits(self, dataset: str) -> list[Split]:
        """Its folds, of cases that could be measured.

        Raises:
            ValueError: A fold names what is no case, or is wrong in another way (`splits_file.read_splits`).
        """
        path = self.preprocessed(dataset) / "splits.json"
        if not (self.preprocessed(dataset) / "fingerprint.json").is_file():
            return read_splits(path)
        usable, left_out = self.usable_cases(dataset), self.left_out(dataset)
        return without_cases(read_splits(path, (*usable, *left_out)), left_out.keys() - set(usable), str(path))

    def usable_cases(self, dataset: str) -> tuple[str, ...]:
        """Cases that could be measured, sorted; those of the folds, and there also where a single patient gives no folds."""
        fingerprint = read_json(self.preprocessed(dataset) / "fingerprint.json", Fingerprint)
        return tuple(sorted(case.name for case in fingerprint.cases))

    def left_out(self, dataset: str) -> dict[str, str]:
        """Case -> reason for the cases that planning left out."""
        path = self.preprocessed(dataset) / LEFT_OUT
        return read_json(path, dict) if path.is_file() else {}

    def trained_datasets(self) -> list[str]:
        """Names of datasets with at least one finished training."""
        return sorted({folder.name for folder in (self.home / "results").glob("*/") if model_folders(folder)})


def last_name(which: str | int) -> str:
    """What the user gave as dataset, without the folders before it where it is a path."""
    return Path(str(which).strip()).expanduser().absolute().name


def find_workspace(home: str | Path | None = None, *, dataset: str | None = None) -> Workspace:
    """Finds the home folder without being told more than necessary.

    Args:
        home: Said by the user; wins.
        dataset: What the user gave as dataset; if it is a folder inside some ``raw/``, that one's parent is home.

    Returns:
        `home`, else ``AUTOSEG_HOME``, else the nearest folder upwards that holds ``raw/`` (failing that, ``results/`` with models in it),
        else the current folder where the dataset is given as a folder, else the parent of the folder that nnU-Net's variable names.

    Raises:
        ValueError: There is none.
    """
    named_home = home or os.environ.get("AUTOSEG_HOME")
    if named_home:
        return Workspace(Path(named_home).expanduser().resolve())
    here = Path.cwd()
    upwards = (here, *here.parents)
    for folder in upwards:
        if any((folder / name).is_dir() for name in RAW_NAMES):
            return Workspace(folder)
    for folder in upwards:
        if any(folder.glob("results/*/plan.json")):
            return Workspace(folder)
    if dataset and (Path(dataset) / "dataset.json").is_file():
        parent = Path(os.path.abspath(dataset)).parent
        return Workspace(parent.parent if parent.name in RAW_NAMES and os.access(parent.parent, os.W_OK) else here)
    elsewhere = os.environ.get(RAW_NAMES[1])
    if elsewhere:
        return Workspace(Path(elsewhere).resolve().parent)
    raise ValueError(
        f"no home folder: neither {here} nor a folder above it holds raw/. Make one (mkdir raw, datasets inside), "
        "go there, or name it with --home FOLDER"
    )


def home_folders(home: str | Path | None = None, *, dataset: str | None = None) -> tuple[Path, ...]:
    """`Workspace.folders` of the home that `find_workspace` finds; none where there is none."""
    try:
        return find_workspace(home, dataset=dataset).folders
    except ValueError:
        return ()


def fixed_name(dataset: Path) -> Path:
    """Folder for a repaired copy of a dataset: beside it, with the next free id, so that ids stay unique."""
    head, _, name = dataset.name.partition("_")
    if not (head.startswith("Dataset") and head[7:].isdigit()):
        return dataset.with_name(f"{dataset.name}_fixed")
    used = {path.name[:10] for path in dataset.parent.glob("Dataset???_*")}
    free = next(number for number in range(int(head[7:]) + 1, 10_000) if f"Dataset{number:03d}" not in used)
    return dataset.with_name(f"Dataset{free:03d}_{name}_fixed")
