"""Folders, environments and commands of the two tools that `nnunet_stages` measures."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beside_nnunet import Values, run_command

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
SIDE = HERE / "nnunet_side.py"
"""What runs in the environment of nnU-Net."""


@dataclass(frozen=True)
class Bench:
    """What all stages work with.

    Attributes:
        work: Folder for all that is made.
        data: Dataset in nnU-Net's layout, ``DatasetNNN_Name``.
        python: Of the environment of nnU-Net.
        quick: Small sizes.
    """

    work: Path
    data: Path
    python: Path
    quick: bool

    @property
    def cores(self) -> int:
        """Processes and threads that both tools are given."""
        return len(os.sched_getaffinity(0))

    @property
    def number(self) -> str:
        """Of the dataset."""
        return str(int(self.data.name[7:10]))

    @property
    def home(self) -> Path:
        """Home folder of autoseg."""
        return self.work / "autoseg"

    def nnunet_folder(self, which: str) -> Path:
        """``raw``, ``preprocessed`` or ``results`` of nnU-Net."""
        return self.work / "nnunet" / which

    def link_data(self) -> None:
        """Both tools find the dataset in their raw folders."""
        for raw in (self.home / "raw", self.nnunet_folder("raw")):
            raw.mkdir(parents=True, exist_ok=True)
            if not (raw / self.data.name).exists():
                (raw / self.data.name).symlink_to(self.data.resolve())

    def nnunet(self, name: str, *command: str | Path) -> Values:
        """Runs a command of nnU-Net, or a Python file in its environment."""
        folders = {f"nnUNet_{which}": str(self.nnunet_folder(which)) for which in ("raw", "preprocessed", "results")}
        workers = {"nnUNet_def_n_proc": str(self.cores), "nnUNet_n_proc_DA": str(self.cores)}
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        first, *rest = command
        program = [self.python, first] if str(first).endswith(".py") else [self.python.parent / first]
        return run_command([*program, *rest], self.work / "logs" / f"{name} nnunet.txt", environment={**kept, **folders, **workers})

    def autoseg(self, name: str, *command: str | Path, home: Path | None = None) -> Values:
        """Runs a command of autoseg."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUTOSEG_HOME": str(home or self.home)}
        return run_command([sys.executable, "-m", "autoseg", *command], self.work / "logs" / f"{name} autoseg.txt", environment=environment)

    def child(self, name: str, what: str, arguments: dict[str, Any]) -> Values:
        """Runs a function of `nnunet_stages` in a process of its own."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        log_file = self.work / "logs" / f"{name} autoseg.txt"
        return run_command([sys.executable, HERE / "nnunet_stages.py", what, json.dumps(arguments)], log_file, environment=environment)


def afresh(folder: Path) -> Path:
    """The folder, which does not exist any longer."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder
