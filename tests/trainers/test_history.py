"""The learning curve as a table and a plot, and its alarm."""

from __future__ import annotations

import csv
import logging
import math

import pytest

from autoseg.trainers import history as module
from autoseg.trainers.history import History


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch, request):
    if "plotted" not in request.node.name:
        monkeypatch.setattr(module, "plot_history", lambda rows, path: path.write_text(str(len(rows))))


def add(history: History, number: int, dice: float = 0.5, other: float = 0.5) -> dict[str, float]:
    history.begin(validation_interval=number, iteration=10 * number, learning_rate=0.1 / number, train_loss=1.0 / number)
    return history.finish(validation_loss=0.7, mean_dice=dice, dice_liver=dice, dice_spleen=other, seconds=1.5 * number)


def test_rows_are_written_after_every_validation_interval_and_read_again_exactly(tmp_path):
    history = History(tmp_path)
    assert history.rows == []
    assert add(history, 1)["train_loss"] == 1.0
    add(history, 3, dice=1 / 3, other=math.nan)
    with history.table.open(newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["10", "30"]
    text = history.table.read_text()
    again = History(tmp_path)
    assert str(again.rows) == str(history.rows)
    again.cut(1)
    add(again, 3, dice=1 / 3, other=math.nan)
    assert history.table.read_text() == text


def test_a_table_of_an_older_version_is_continued(tmp_path):
    """autoseg 0.1.0 called validation intervals rounds."""
    history = History(tmp_path)
    add(history, 1)
    history.table.write_text(history.table.read_text().replace("validation_interval", "round"))
    again = History(tmp_path)
    assert again.rows == history.rows
    add(again, 2)
    assert [row["validation_interval"] for row in History(tmp_path).rows] == [1, 2]


def test_the_curve_is_plotted(tmp_path):
    history = History(tmp_path)
    add(history, 1, other=math.nan)
    add(history, 2)
    assert history.plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "progress.png"]


@pytest.mark.parametrize("intervals", [0, 2])
def test_intervals_after_the_checkpoint_are_made_again(tmp_path, intervals):
    history = History(tmp_path)
    for number in range(1, 5):
        add(history, number)
    resumed = History(tmp_path)
    resumed.cut(intervals)
    add(resumed, 9)
    assert [row["validation_interval"] for row in History(tmp_path).rows] == [1, 2][:intervals] + [9]


def alarms(history: History, caplog: pytest.LogCaptureFixture, values: list[tuple[float, float]]) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for number, (liver, spleen) in enumerate(values, 1):
            add(history, number, liver, spleen)
            history.warn_if_collapsed()
    return [record.getMessage() for record in caplog.records]


def test_an_organ_that_is_lost_for_five_intervals_raises_one_alarm_that_names_it(tmp_path, caplog):
    assert alarms(History(tmp_path / "a"), caplog, [(0.5, 0.0)] * 4) == []
    found = alarms(History(tmp_path / "b"), caplog, [(0.5, 0.0)] * 9)
    assert [message.partition(":")[0] for message in found] == ["spleen"]


def test_an_organ_that_comes_back_or_was_never_looked_for_raises_none(tmp_path, caplog):
    assert alarms(History(tmp_path / "a"), caplog, [(0.5, 0.0)] * 4 + [(0.5, 0.1)] + [(0.5, 0.0)] * 4) == []
    assert alarms(History(tmp_path / "b"), caplog, [(0.5, math.nan)] * 8) == []
