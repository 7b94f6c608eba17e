"""The benchmark of fast prediction: what it adds up, and that it goes on where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    sys.modules.pop("fast_prediction", None)
    import fast_prediction

    return fast_prediction


def kept(fast: ModuleType, folder: Path):
    about = {"processor": "some", "matrix_tiles": False, "cores": 2, "date": "today", "scan": "4 x 5 x 6", "minutes": "6 minutes"}
    return fast.Rows(folder, about)


def test_steps_that_are_kept_are_not_done_again(fast: ModuleType, tmp_path: Path) -> None:
    done = []
    for _ in range(2):
        values = fast.Steps(kept(fast, tmp_path)).once("planning", lambda: done.append(1) or {"seconds": 2.0, "peak_mb": 1.0})
    assert (values["seconds"], len(done)) == (2.0, 1)


def test_nnunets_time_is_added_up_and_ours_compared(fast: ModuleType, tmp_path: Path, monkeypatch) -> None:
    rows = kept(fast, tmp_path)
    told = {
        "tiles": 10,
        "mirrored_copies": 8,
        "copies_of_this_model": 4,
        "tile_seconds": [1.0, 2.0, 9.0],
        "preprocessing_seconds": 15.0,
        "export_seconds": 25.0,
    }
    bench = fast.Bench(tmp_path, tmp_path / "Dataset901_Fast", Path("python"), quick=False)
    monkeypatch.setattr(fast.Bench, "nnunet", lambda *command: told)
    rows.add("nnU-Net, modelled", "once", fast.modelled(bench))
    for number in range(2):
        for way, seconds, dice in (("in full", 50.0, 0.91), ("default", 20.0, 0.90), ("fast", 5.0 + 5 * number, 0.905)):
            rows.add(f"{way}, CT {number}", "once", {"seconds": seconds, "dice": dice, "peak_mb": 700.0 + number})
    lines = fast.table(rows, 2).splitlines()
    assert "10 tiles x 8 copies x 2.00 s (median of 3)" in lines[4]
    assert "| 200 | 1 |" in lines[4], "15 + 10 x 8 x 2 + 25 seconds"
    assert "with the 4 copies" in lines[5] and "| 120 | 1.7 x |" in lines[5]
    assert lines[-1] == "| autoseg, fast | 7.5 | 26.7 x | 701 | 0.9050 | +0.0050 |"
