"""The benchmark of how cost grows: its lines, its table, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import cost_growth

    return cost_growth


def test_lines_are_those_of_least_squares(growth: ModuleType) -> None:
    assert growth.fitted([1, 2, 4], [5, 7, 11], "volume") == pytest.approx((3, 2, 0))
    assert growth.fitted([1, 2, 4], [6, 4, 3], "workers") == pytest.approx((2, 4, 0)), "a + b / n"
    assert growth.fitted([1, 2, 3], [1, 1, 4], "cases")[2] == pytest.approx(1), "the farthest point, as a share of it"


def test_made_cases_have_all_organs_and_the_volume_that_was_asked_for(growth: ModuleType) -> None:
    work = growth.Work(volume=0.1, classes=8)
    image, label = growth.made_case(work, 0)
    assert image.shape == label.shape == work.shape and label.size == pytest.approx(1e5, rel=0.05)
    assert set(np.unique(label)) == set(range(9))


def test_a_second_call_measures_only_what_is_missing(growth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(stage: str, work: object, folder: Path) -> dict[str, float]:
        measured.append(stage)
        return {"seconds": 1.0 + len(measured), "cpu_seconds": 1.0, "peak_mb": 100.0}

    monkeypatch.setattr(growth, "_in_process", measure)
    monkeypatch.setattr(sys, "argv", ["cost_growth.py", "--quick", "--out", str(tmp_path), "--stages", "export"])
    growth.main()
    assert len(measured) == len(growth.QUICK_VALUES["volume"]) + len(growth.QUICK_VALUES["classes"]) - 1, "what both have is measured once"
    rows = json.loads((tmp_path / "rows.json").read_text())
    rows.pop(next(iter(rows)))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    measured.clear()
    growth.main()
    assert len(measured) == 1
    table = (tmp_path / "cost.md").read_text()
    assert "| export | volume | 0.8 / 1.6 / 3.2 / 6.4 |" in table and "| export | classes |" in table
    assert (tmp_path / "cost.png").is_file()


def test_models_are_made_that_can_be_chosen_among(growth: ModuleType, tmp_path: Path) -> None:
    growth.choice(tmp_path, growth.Work(volume=0.002, classes=2, cases=5, models=2))()
    assert list((tmp_path / "results").glob("*/choice.json"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs the proportional set sizes of Linux")
def test_memory_of_a_process_and_what_it_starts_is_seen(growth: ModuleType) -> None:
    from process_memory import peak_memory_of_tree

    bytes_held = 80_000_000
    # In a process of its own: what this one has freed may be taken again without being seen.
    holding = f"held = bytes([1]) * {bytes_held}; print(len(held), flush=True); input()"
    with peak_memory_of_tree() as before:
        pass
    with (
        peak_memory_of_tree() as peak,
        subprocess.Popen([sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None and child.stdout.readline().strip() == str(bytes_held)
        peak.look("self")
        child.communicate("\n")
    assert peak.bytes - before.bytes > 0.9 * bytes_held
