"""Whether the folds of a model belong together: the same organs, preprocessing and network, so that their networks may vote together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..preprocessing.preprocess import recipe_of
from ..runtime.runs import Run
from ..runtime.serialization import to_jsonable
from ..schema import Configuration, Plan


def data_of(plan: Plan, configuration: Configuration) -> dict[str, Any]:
    """All that the data of a run depends on, by what it is: the recipe of preprocessing, and the organs."""
    slices = {"center_crop": list(configuration.center_crop), "slice_shape": list(configuration.slice_shape)}
    found: dict[str, Any] = to_jsonable(recipe_of(plan, configuration)) | slices | {"organs": list(plan.labels.names)}
    return found


def network_of(configuration: Configuration) -> dict[str, Any]:
    """The network of a run and its options, by what they are."""
    found = {"network": configuration.network, "network_options": to_jsonable(configuration.network_options)}
    return found | {"outputs": "one, with sigmoid" if configuration.sigmoid else "one a class"}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What of the first is not the same in the other; which statistics are read follows from the normalisation, where that differs."""
    found = [what for what in one if json.dumps(one[what]) != json.dumps(other[what])]  # as text two NaN are the same
    return [what for what in found if what != "intensities" or "normalization" not in found]


def check_folds_agree(runs: Sequence[Run]) -> None:
    """Refuses (ValueError) folds of a model that were trained with other labels, preprocessing or networks than its first."""
    records = [run.record() for run in runs]
    first, *others = [data_of(one.plan, one.configuration) | network_of(one.configuration) for one in records]
    for run, other in zip(runs[1:], others, strict=True):
        if different := differing(first, other):
            found = "; ".join(f"{what} {other[what]}, fold {runs[0].fold} with {first[what]}" for what in different)
            raise ValueError(
                f"{run.record_file}: the folds of {run.model.name} do not belong together: this one was trained with {found}. "
                f"Predict with --folds {runs[0].fold}, or train the fold again with --restart"
            )
