"""What a cascade's second stage learns from: the first stage's cross-validation predictions, on the second stage's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..images import read_label
from ..inference.cascade import on_grid
from ..labels import to_internal
from ..model import Plan
from ..records import remove_partial
from ..storage import Store, write_array


def cases_without_prediction(model: Path, names: list[str]) -> list[str]:
    """Cases that no fold of the model folder has validated yet."""
    done = {path.name.removesuffix(".scores.json") for path in model.glob("fold_*/validation/*.scores.json")}
    return [name for name in names if name not in done]


def prepare_previous(model: Path, data: Path, out: Path, plan: Plan, *, progress: bool = True) -> Path:
    """Resamples the first stage's out-of-fold label maps to the second stage's preprocessed cases.

    Args:
        model: Model folder of the first stage.
        data: Preprocessed cases of the second stage.
        out: Gets one ``(1, Z, Y, X)`` uint8 array of internal values a case; those that are newer than their source are kept.
        plan: Of the dataset.
        progress: Show a bar.

    Returns:
        `out`.

    Raises:
        ValueError: Some cases have no prediction; the message names them.
    """
    store = Store(data)
    names = store.names()
    missing = cases_without_prediction(model, names)
    if missing:
        raise ValueError(f"{model}: no cross-validation prediction for {len(missing)} cases: {', '.join(missing[:5])} ...")
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out)
    for name in tqdm(names, desc="First stage onto the second stage's grid", unit="case", disable=not progress):
        source = next(model.glob(f"fold_*/validation/{name}{plan.file_ending}"))
        target = out / f"{name}.b2nd"
        if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
            continue
        found = to_internal(read_label(source).array, plan.labels, source=str(source))
        write_array(target, on_grid(found, store.load(name).trace)[None].astype(np.uint8))
    return out
