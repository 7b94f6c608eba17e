"""Damages files that the program wrote, and opens them as it does: a stage of ``mutations.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LISTS = ("scores.json", "run_environment.json")
"""Own files that hold a list."""


def make_home(home: Path) -> None:
    """A planned phantom with one trained model, its choice and a prediction; what is there stays."""
    from autoseg.data.phantom.dataset import make_phantom
    from autoseg.pipeline import PlanSettings, TrainSettings, find_best_configuration, plan_and_preprocess, predict_folder, train

    if (home / "predictions").exists():
        return
    make_phantom(home / "raw/Dataset900_Phantom", n_train=4, n_test=1, seed=3, size=0.2)
    plan_and_preprocess(900, PlanSettings(configurations=("2d",), workers=0), home=home)
    train(900, "2d", 0, TrainSettings(iterations=2, batch=2, device="cpu"), home=home)
    find_best_configuration(900, home=home)
    predict_folder(home / "raw/Dataset900_Phantom/imagesTs", home / "predictions", home=home)


def open_own_file(home: Path, file: Path) -> Any:
    """What the program reads from one of its files, in a form that can be compared."""
    import pickle

    from autoseg.data.descriptions import read_description
    from autoseg.data.images import read_label
    from autoseg.preprocessing.storage import Locations, read_array
    from autoseg.runtime.checkpoints import load_checkpoint
    from autoseg.runtime.serialization import read_json
    from autoseg.runtime.workspace import Workspace

    if file.name == "splits.json":
        return Workspace(home).splits(file.parent.name)
    if file.name == "dataset.json":
        return read_description(file, home=home, raw=home / "raw")
    if file.suffix == ".json":
        return read_json(file, list if file.name.endswith(LISTS) else dict)
    if file.suffix == ".b2nd":
        return read_array(file)[:].tobytes()
    if file.suffix == ".npz":
        return {key: value.tobytes() for key, value in Locations(file).items()}
    if file.suffix == ".pt":
        states, meta = load_checkpoint(file)
        plain = {
            name: {key: value.numpy().tobytes() if hasattr(value, "numpy") else value for key, value in state.items()}
            if isinstance(state, dict)
            else state
            for name, state in states.items()
        }
        return pickle.dumps((plain, meta))
    image = read_label(file)
    return image.array.tobytes(), image.geometry


def damage_own_file(home: Path, rng: np.random.Generator, mutated: Callable[[bytes, np.random.Generator], bytes]) -> str:
    """Damages a file that the program wrote, and opens it as the program does; the file is as before afterwards."""
    kinds = (".json", ".b2nd", ".npz", ".pt", ".nii.gz")
    places = [home / "preprocessed", home / "results", home / "predictions"]
    files = sorted(file for place in places for file in place.rglob("*") if file.name.endswith(kinds))
    file = files[int(rng.integers(len(files)))]
    data, before = file.read_bytes(), open_own_file(home, file)
    try:
        file.write_bytes(mutated(data, rng))
        return "same" if open_own_file(home, file) == before else f"FAULT: {file.name}: read as something else without a word"
    except ValueError as error:
        return "refused" if file.name in str(error) else f"FAULT: {file.name}: no file is named: {error}"
    except Exception as error:
        return f"FAULT: {file.name}: {type(error).__name__}: {error}"
    finally:
        file.write_bytes(data)
