"""The notebook of the documentation runs from its first cell to its last, with numbers that make it short."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
SHORT = {"TRAINING_SECONDS": "4", "N_TRAIN, N_TEST": "6, 2", "SIZE": "0.4"}


def read_notebook() -> Any:
    return pytest.importorskip("nbformat").read(NOTEBOOK, as_version=4)


def parameters(notebook: Any) -> Any:
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return cell


def test_the_stored_outputs_are_there_and_none_is_an_error() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
    shown = re.fullmatch(r"mean Dice of 4 scans and 6 organs: (\d\.\d+)\n", "".join(cells[-1]["outputs"][-1]["text"]))
    assert shown and float(shown[1]) > 0.7, "readers are not shown a model that has learnt nothing"
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    notebook = read_notebook()
    cell = parameters(notebook)
    for name, value in SHORT.items():
        cell.source, n = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value}  ", cell.source, flags=re.MULTILINE)
        assert n == 1, name
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "notebook_home" / "predictions" / "phantom_006.nii.gz").is_file()
    text = "".join(output.get("text", "") for output in notebook.cells[-2].outputs)
    assert re.fullmatch(r"mean Dice of 2 scans and 6 organs: \d\.\d+\n", text)
