"""Results and preprocessed data with a damaged file: every reader gives what was written, or refuses and names the file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_home import DATASET, HomeFactory, oracle_case

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_label, write_image
from autoseg.inference.quantised_logits import load_logits
from autoseg.pipeline import PredictSettings, predict_folder
from autoseg.preprocessing.storage import Store
from autoseg.report.runs import read_runs
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import Run, model_folders, read_history
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice, Fingerprint, Plan, Score
from autoseg.schema.run_record import RunRecord

MUTATIONS = 300
PREDICTIONS = 12


def stored(store: Store, name: str) -> str:
    case = store.load(name)
    arrays = [np.asarray(case.image[:]), np.asarray(case.segmentation[:]), *(case.locations[key] for key in case.locations)]
    return repr((case.record, [(one.shape, one.dtype, one.tobytes()) for one in arrays]))


def logits(run: Run) -> str:
    found = load_logits(run.validation, "c0")
    return repr((found.trace, np.asarray(found.array[:]).tobytes()))


def reader(home: Path, path: Path) -> Callable[[], Any]:
    """What a command reads a file with, or the case that it is a part of."""
    workspace, case, store = Workspace(home), path.name.partition(".")[0], Store(path.parent)
    run = model_folders(workspace.results(DATASET))[0].run("0")
    kinds = {"plan.json": Plan, "fingerprint.json": Fingerprint, "choice.json": Choice, "run.json": RunRecord, "scores.json": list[Score]}
    if path.parent.name == "3d_fullres" and case in store.names():
        return lambda: stored(store, case)
    if path.name in ("c0.b2nd", "c0.trace.json"):
        return lambda: logits(run)
    if path.name in ("splits.json", "dataset.json") and "preprocessed" in path.parts:
        return lambda: workspace.splits(DATASET) if case == "splits" else planned_dataset(workspace, 1)
    if path.suffix == ".gz":
        return lambda: read_label(path).array.tobytes()
    return lambda: load_checkpoint(path) if path.suffix == ".pt" else read_json(path, kinds.get(path.name, Any))


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Content with a byte or bit changed, the end lost or zeroed, a part twice, or nothing left."""
    changed, at = bytearray(content), int(rng.integers(len(content)))
    kind = int(rng.integers(8))
    if kind < 4:
        changed[at] ^= 1 << int(rng.integers(8)) if kind < 2 else int(rng.integers(1, 256))
    elif kind == 4:
        del changed[at:]
    elif kind == 5:
        changed[at:] = bytes(len(content) - at)
    elif kind == 6:
        changed[at:at] = changed[max(0, at - 20) : at + 1]
    else:
        changed.clear()
    return bytes(changed)


def files_of(home: Path) -> list[Path]:
    """All that planning, training and choosing wrote for later commands."""
    readable = ("*.json", "*.b2nd", "*.npz", "*.pt", "*.nii.gz")
    return sorted(path for part in ("preprocessed", "results") for pattern in readable for path in (home / part).rglob(pattern))


def mutations(home: Path, number: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Damages one file of the home after the other; each is whole again afterwards."""
    files, rng = files_of(home), np.random.default_rng(seed)
    for count in range(number):
        path = files[int(rng.integers(len(files)))]
        content = path.read_bytes()
        path.write_bytes(mutated(content, rng))
        yield f"mutation {count} of {path.name}", path
        path.write_bytes(content)


def test_every_reader_gives_what_was_written_or_names_the_file(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    readers = {path: reader(home, path) for path in files_of(home)}
    expected = {path: repr(read()) for path, read in readers.items()}
    refused = 0
    for what, path in mutations(home, MUTATIONS, seed=12):
        try:
            assert repr(readers[path]()) == expected[path], what
        except ValueError as error:
            refused += path.name in str(error) or pytest.fail(f"{what}: {error}")
    assert refused > 0.7 * MUTATIONS


def test_a_prediction_with_a_damaged_home_is_right_or_refused(oracle_home: HomeFactory, tmp_path: Path) -> None:
    home = oracle_home()
    image, label, geometry = oracle_case(9)
    write_image(tmp_path / "x.nii.gz", image[None], geometry)
    used = ("run.json", "choice.json", "checkpoint_final.pt", "plan.json", "dataset.json")
    predicted = 0
    for what, path in mutations(home, 8 * PREDICTIONS, seed=3):
        if path.name not in used or predicted >= PREDICTIONS:
            continue
        predicted += 1
        out = tmp_path / f"{predicted}.nii.gz"
        try:
            predict_folder(tmp_path / "x.nii.gz", out, PredictSettings(device="cpu", allow_code=("oracle_home",)), home=home)
            assert np.array_equal(read_label(out).array, label), what
        except ValueError as error:
            named = path.name in str(error) and not out.exists()
            predicted += 0 if named else pytest.fail(f"{what}: {error}")
    assert predicted == PREDICTIONS


@pytest.mark.parametrize(
    "content", [b"validation_interval,dice_a\n1,x\n", b"validation_interval,dice_a\n1,0.5,3\n", b"a,b\n1\n", b"\xff\1"]
)
def test_a_damaged_history_is_named(content: bytes, oracle_home: HomeFactory, caplog: pytest.LogCaptureFixture) -> None:
    home = oracle_home()
    run = model_folders(home / "results" / DATASET)[0].run("0")
    run.history_file.write_bytes(content)
    with pytest.raises(ValueError, match="history.csv: damaged: expected a table of numbers"):
        read_history(run.history_file)
    with caplog.at_level(logging.WARNING):
        assert all(not one.history for one in read_runs(home / "results" / DATASET))
    assert str(run.history_file) in caplog.text
