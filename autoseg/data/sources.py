"""The dataset that each case of a merged dataset came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..schema import Case


def with_sources(cases: Sequence[Case], info: Mapping[str, Any]) -> tuple[Case, ...]:
    """Cases with the dataset that they came from, as the entry ``sources`` of ``dataset.json`` says; empty where it says nothing.

    Earlier versions wrote only ``merged_from``; there the beginnings of the cases' names tell, which are those of the datasets.
    """
    if "sources" in info:
        return tuple(replace(case, source=info["sources"].get(case.name, "")) for case in cases)
    merged = [str(one) for one in entry] if isinstance(entry := info.get("merged_from"), list) else []
    return tuple(replace(case, source=_by_name(case.name, merged)) for case in cases)


def bare_name(dataset: str) -> str:
    """``Liver`` of ``Dataset003_Liver`` or ``Task03_Liver``; other names as they are."""
    match = re.fullmatch(r"(?:Dataset|Task)\d+_(.+)", dataset)
    return match[1] if match else dataset


def prefixes(datasets: Sequence[str]) -> list[str]:
    """Beginning of the names of each dataset's cases in a merged one: its bare name, or its full one where two have the same."""
    bare = [bare_name(name) for name in datasets]
    if len({name.lower() for name in bare}) == len(bare):
        return bare
    return list(datasets) if len(set(datasets)) == len(datasets) else [f"{name}_{number}" for number, name in enumerate(datasets, 1)]


def _by_name(name: str, merged: Sequence[str]) -> str:
    """The dataset with the longest prefix that a case's name begins with."""
    fitting = [(len(prefix), dataset) for prefix, dataset in zip(prefixes(merged), merged, strict=True) if name.startswith(f"{prefix}_")]
    return max(fitting)[1] if fitting else ""
