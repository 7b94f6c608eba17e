"""The demonstration: as many steps whatever else the computer does, the end that it foretells, and what it leaves behind."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoseg import cli
from autoseg.pipeline import demonstration
from autoseg.pipeline.demonstration import CORE_SECONDS, TRAININGS, Forecast
from autoseg.runtime.hardware import processor_share
from autoseg.runtime.runs import ModelFolder
from autoseg.schema.settings import TrainSettings


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is measured, one after the other."""
    waiting: list[float] = []
    monkeypatch.setattr(demonstration, "processor_share", lambda: waiting.pop(0))
    monkeypatch.setattr(demonstration, "cpu_count", lambda: 2)
    monkeypatch.setattr(demonstration, "choose_device", lambda: SimpleNamespace(type="cpu"))
    return waiting


def test_the_length_is_counted_in_steps() -> None:
    assert all(one.iterations and one.seconds is None for one in TRAININGS.values())
    assert list(CORE_SECONDS) == ["before", *TRAININGS, "after"]
    assert sum(CORE_SECONDS.values()) / 2 <= 7 * 60, "eight minutes on two cores, with a margin"


def test_a_busy_processor_is_said_with_the_new_end_and_again_only_where_it_changes(
    shares: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    shares += [0.5, 0.45, 0.25, 0.97]
    forecast = Forecast()
    with caplog.at_level(logging.INFO):
        for part in CORE_SECONDS:
            forecast.say(part)
    idle, half, quarter, free = (record.getMessage() for record in caplog.records)
    assert idle.startswith("On 2 idle cores")
    assert "this one gets 50 %" in half and "until about" in half and "learns the same" in half
    assert "this one gets 25 %" in quarter
    assert free.startswith("The processor is free again: done by about")


def test_an_idle_processor_is_not_spoken_of_nor_a_training_of_some_time(shares: list[float], caplog: pytest.LogCaptureFixture) -> None:
    shares += [0.95] * 4
    with caplog.at_level(logging.INFO):
        for part in CORE_SECONDS:
            Forecast().say(part)
            Forecast(silent=True).say(part)
    assert all("idle cores" in record.getMessage() for record in caplog.records)


def test_the_share_of_the_processor_is_one_at_the_most() -> None:
    assert 0 < processor_share(0.05) <= 1


@pytest.mark.slow
def test_a_tiny_demonstration_ends_with_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    quick: dict[str, TrainSettings] = {name: replace(one, iterations=2) for name, one in TRAININGS.items()}
    monkeypatch.setattr(demonstration, "TRAININGS", quick)
    monkeypatch.setattr(demonstration.demo, "__kwdefaults__", {**demonstration.demo.__kwdefaults__, "n_train": 5, "n_test": 1})
    assert cli.demo(["-o", str(tmp_path / "home")]) == 0
    said = capsys.readouterr().out
    assert "too short" in said and "What to do next" in said
    assert f"autoseg_report 900 --home {tmp_path / 'home'}" in said
    assert (tmp_path / "home/pictures/phantom_005.png").is_file()
    for name, settings in quick.items():
        record = ModelFolder(tmp_path / f"home/results/Dataset900_Phantom/{name}__Trainer").run("0").record()
        assert (record.budget.kind, record.budget.amount, record.configuration.mirroring.axes) == ("iterations", 2, ())
        assert record.configuration.batch_size == settings.batch


def test_a_folder_that_holds_other_things_is_refused_and_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("mine")
    (tmp_path / "raw" / "Dataset003_Liver").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"found raw, thesis\.docx; nothing was written"):
        demonstration.demo(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Dataset003_Liver", "raw", "thesis.docx"]
    with pytest.raises(ValueError, match="found a file"):
        demonstration.demo(tmp_path / "thesis.docx")


def test_a_new_folder_an_empty_one_and_that_of_an_earlier_demonstration_are_taken(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("")
    demonstration.check_own_folder(tmp_path)
    demonstration.check_own_folder(tmp_path / "new")
    (tmp_path / "raw" / demonstration.DEMO_DATASET).mkdir(parents=True)
    (tmp_path / "predictions").mkdir()
    demonstration.check_own_folder(tmp_path)
