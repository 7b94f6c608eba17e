"""Reads files of version 0.1.0: the only place that knows what fields, files and functions were called then.

Files of 0.1.0 carry no format number; those of later versions carry ``format`` (`autoseg.schema.conventions.FORMAT`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIELDS: dict[str, dict[str, str]] = {
    "Budget": {"rounds": "validation_intervals"},
    "Labels": {"paint": "regions_class_order"},
    "Choice": {"cleaning": "postprocessing", "reliability": "dice_regression", "by": "rule", "voters": "member_folds"},
    "QualityEstimate": {"promised": "expected_dice", "true": "true_dice"},
    "OrganUncertainty": {"promised_dice": "expected_dice"},
}
"""Name of a dataclass to its former field names and what they are called now."""

FILES = {"run_environment.json": "trained_on.json", "quality_estimates.json": "foretold_dice.json"}
"""File name to what the file was called."""

OBJECTS = {"autoseg.networks.combiners:Strongest": "autoseg.networks.combiners:MaxConfidence"}
"""Renamed objects that a plan, run or choice may name."""

MODULES = {
    "evaluation.rules": "selection.rules",
    "networks.seams": "networks.feature_taps",
    "normalization": "preprocessing.normalization",
    "trainers.adversarial_losses": "trainers.losses.adversarial",
    "trainers.cascade": "trainers.cascade.trainer",
    "trainers.entropy_losses": "trainers.losses.entropy",
    "trainers.fusion": "ensembling.fusion_trainer",
    "trainers.overlap_losses": "trainers.losses.overlap",
    "trainers.partial": "trainers.losses.target_adaptive",
    "trainers.spatial_configuration": "trainers.spatial_configuration.trainer",
    "trainers.spatial_losses": "trainers.losses.heatmap",
}
"""Moved modules (inside ``autoseg``) whose objects a user may have named as ``module:object``."""


def upgrade(kind: str, data: Mapping[str, Any], *, newest: int | None = None) -> dict[str, Any]:
    """Brings the stored fields of a dataclass to today's names.

    Args:
        newest: Newest format number that can be read; None for dataclasses that are stored without one.

    Returns:
        The fields without the format number.

    Raises:
        ValueError: A newer version wrote the file.
    """
    if newest is not None and (found := data.get("format", 1)) > newest:
        raise ValueError(f"format: expected at most {newest}, found {found}: a newer version of autoseg wrote this file")
    names = {old: new for old, new in FIELDS.get(kind, {}).items() if new not in data}
    return {names.get(key, key): value for key, value in data.items() if newest is None or key != "format"}


def existing_file(path: Path) -> Path:
    """`path`, or the same file by its name in 0.1.0 where only that is there."""
    former = former_file(path)
    return former if former.is_file() and not path.is_file() else path


def former_file(path: Path) -> Path:
    """What 0.1.0 called the file `path`."""
    return path.with_name(FILES.get(path.name, path.name))


def upgrade_objects(data: Any) -> Any:
    """Replaces every ``module:object`` in parsed JSON that has moved or was renamed by the present one."""
    if isinstance(data, dict):
        return {key: upgrade_objects(value) for key, value in data.items()}
    if isinstance(data, list):
        return [upgrade_objects(value) for value in data]
    found = re.fullmatch(r"autoseg\.([\w.]+):(\w+)", data) if isinstance(data, str) else None
    return OBJECTS.get(data, f"autoseg.{MODULES.get(found[1], found[1])}:{found[2]}") if found else data
