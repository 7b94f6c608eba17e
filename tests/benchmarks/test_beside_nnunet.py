"""The benchmark beside nnU-Net: it goes on where it was stopped, survives failures, and its table and time that remains are right."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from factories import write_dataset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = {"processor": "Fast", "cores": 2, "memory_gib": 8.0, "matrix_tiles": False, "date": "2026-01-02", "versions": {"autoseg": "1"}}


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import beside_nnunet

    return beside_nnunet


def counted(calls: list[str], tool: str, *, seconds: float = 1.0, fails: int = 0) -> Any:
    def once() -> dict[str, float]:
        calls.append(tool)
        if len([call for call in calls if call == tool]) <= fails:
            raise ValueError("broken")
        return {"seconds": seconds, "peak_mb": 10 * seconds}

    return once


def test_tools_alternate_and_a_second_run_measures_what_is_missing(beside: ModuleType, tmp_path: Path) -> None:
    calls: list[str] = []
    rows = [beside.Row("one", {"nnU-Net": counted(calls, "a"), "autoseg": counted(calls, "b")}, 4)]
    beside.measure(rows, beside.Rows(tmp_path, MACHINE), 1)
    assert calls == ["a", "b"]
    beside.measure(rows, beside.Rows(tmp_path, MACHINE), 3)
    assert calls == ["a", "b"] * 3
    beside.measure(rows, beside.Rows(tmp_path, MACHINE), 3)
    assert len(calls) == 6


def test_a_failure_is_noted_and_tried_again_and_the_other_rows_go_on(beside: ModuleType, tmp_path: Path) -> None:
    calls: list[str] = []
    closed: list[int] = []
    broken = counted(calls, "a", fails=1)
    rows = [
        beside.Row("one", {"nnU-Net": broken, "autoseg": counted(calls, "b")}, 4, close=lambda: closed.append(1)),
        beside.Row("two", {"autoseg": counted(calls, "c")}, 4, once=True),
    ]
    kept = beside.Rows(tmp_path, MACHINE)
    beside.measure(rows, kept, 2)
    assert calls == ["a", "b", "b", "c"] and closed == [1]
    assert "nnU-Net failed" in beside.table(kept) and kept.rows["one"]["failed"]["nnU-Net"] == "broken"
    beside.measure(rows, kept, 2)
    assert calls[4:] == ["a", "a"] and "failed" not in beside.table(kept)


def test_a_table_has_medians_ratios_of_pairs_and_the_machine(beside: ModuleType, tmp_path: Path) -> None:
    kept = beside.Rows(tmp_path, MACHINE)
    for theirs, ours in ((8.0, 2.0), (12.0, 4.0), (10.0, 1.0)):
        kept.add("step", "nnU-Net", {"seconds": theirs, "peak_mb": 300.0})
        kept.add("step", "autoseg", {"seconds": ours, "peak_mb": 100.0, "dice": 0.5})
    kept.note("step", compared={"voxels_that_differ": 0.25})
    text = beside.table(kept)
    assert "| step | 10 | 2 | 4 | 300 | 100 | 3 | 3 | Dice autoseg 0.5000; voxels that differ 0.25 |" in text
    assert text.startswith("Fast (without matrix tiles), 2 cores, 8 GiB; 2026-01-02; autoseg 1.")
    beside.plot(kept, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_the_time_that_remains_follows_what_was_measured(beside: ModuleType, tmp_path: Path) -> None:
    rows = [beside.Row(name, {"nnU-Net": lambda: {}, "autoseg": lambda: {}}, 10) for name in ("one", "two")]
    kept = beside.Rows(tmp_path, MACHINE)
    assert beside.remaining(rows, kept, 3) == pytest.approx(60)
    kept.add("one", "nnU-Net", {"seconds": 0.1, "took": 16, "peak_mb": 1})
    kept.add("one", "autoseg", {"seconds": 4, "peak_mb": 1})
    assert beside.remaining(rows, kept, 3) == pytest.approx(2 * 20 + 3 * 20), "the other row, too, takes twice as long as was expected"


def test_a_command_tells_its_own_seconds_and_a_failed_one_what_it_said(beside: ModuleType, tmp_path: Path) -> None:
    told = beside.run_command([sys.executable, "-c", "print('x'); print('{\"seconds\": 7, \"more\": 1}')"], tmp_path / "log.txt")
    assert told["seconds"] == 7 and told["more"] == 1 and 0 < told["took"] < 60
    with pytest.raises(ValueError, match="ended with status 3: because"):
        beside.run_command([sys.executable, "-c", "print('because'); raise SystemExit(3)"], tmp_path / "log.txt")


def test_dice_of_a_folder_is_the_mean_over_organs(beside: ModuleType, tmp_path: Path) -> None:
    from nnunet_stages import dice_of_folder

    folder = write_dataset(tmp_path / "Dataset001_Tiny") / "labelsTr"
    assert dice_of_folder(folder, folder, ".nii.gz") == pytest.approx(1)
    with pytest.raises(ValueError, match="found none"):
        dice_of_folder(folder, tmp_path, ".nii.gz")


def test_all_stages_give_rows_of_different_names(beside: ModuleType, tmp_path: Path) -> None:
    from nnunet_stages import STAGES, Bench, rows_of

    data = write_dataset(tmp_path / "Dataset001_Tiny")
    rows = rows_of(Bench(tmp_path, data, Path(sys.executable), True), list(STAGES))
    assert len({row.name for row in rows}) == len(rows) >= 13
    assert np.isfinite([row.expected for row in rows]).all()


def test_memory_is_still_looked_at_after_a_process_ended_meanwhile(beside: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from process_memory import PeakMemory

    def gone(path: Path, pattern: str) -> Any:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "glob", gone)
    peak = PeakMemory()
    peak.look("self")
    assert peak.bytes > 0
