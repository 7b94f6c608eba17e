"""Folders with a file a training case, made of its preprocessed data by a recipe that all files share."""

from __future__ import annotations

from pathlib import Path

from ..runtime.locks import remove_partial_files
from ..runtime.serialization import read_json, write_json


def open_folder(out: Path, recipe_file: str, recipe: object) -> Path:
    """Makes the folder `out`; empties one whose files are of another recipe, then notes this one: in that order, for a kill between."""
    out.mkdir(parents=True, exist_ok=True)
    remove_partial_files(out)
    path = out / recipe_file
    try:
        same = path.is_file() and read_json(path, type(recipe)) == recipe
    except ValueError:
        same = False
    if not same:
        for old in [*out.glob("*.b2nd"), *out.glob("*.npz")]:
            old.unlink(missing_ok=True)
        write_json(path, recipe)
    return out
