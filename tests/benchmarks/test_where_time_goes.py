"""The benchmark of where time goes: what the profiler names, and both tables of a tiny network."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import where_time_goes

    monkeypatch.setitem(
        where_time_goes.SHAPES,
        "tiny",
        {
            "batch": 2,
            "patch": [16, 16, 16],
            "features": [8, 16],
            "classes": 3,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "kernel_sizes": [[3] * 3] * 2,
        },
    )
    return where_time_goes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("autoseg winograd convolve_244", "convolutions of autoseg"),
        ("WinogradConvolutionBackward", "convolutions of autoseg"),
        ("aten::mkldnn_convolution", "convolutions of torch"),
        ("aten::slow_conv3d_forward", "convolutions of torch"),
        ("_NormInTwoPassesBackward", "norm, activation"),
        ("aten::mm", "products"),
        ("aten::cat", "cat, copies, padding"),
        ("aten::select", "the rest"),
    ],
)
def test_kinds_of_what_the_profiler_names(where: ModuleType, name: str, kind: str) -> None:
    assert where.kind_of(name) == kind


def test_a_step_and_a_volume_with_their_operations_and_shares(where: ModuleType) -> None:
    rows = where.rows_of("tiny", 100.0, repeats=1)
    step, volume = rows
    assert step["operations"] == pytest.approx(6 * volume["operations"]), "two patches, and three times the forward pass; one patch"
    for one in rows:
        shares = [one[kind] for kind in (*where.KINDS, where.REST)]
        assert sum(shares) == pytest.approx(1) and one["convolutions of autoseg"] + one["convolutions of torch"] > 0.1
        assert one["of_best"] == pytest.approx(one["operations"] / one["seconds"] / 100)
    assert volume["optimiser"] == 0
    found = where.machine(edge=64, repeats=1)
    lines = where.table(found, rows).splitlines()
    assert [name in lines[2 + index] for index, name in enumerate(found)] == [True] * 5
    assert lines[-2].startswith("| tiny: step | ") and lines[-1].startswith("| tiny: volume 16x16x16 | ")
