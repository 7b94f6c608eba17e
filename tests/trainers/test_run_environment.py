"""Device, version of torch and peak memory are noted beside a run, and nothing depends on the note."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import make_job, make_plan

from autoseg.runtime.hardware import cpu_count, current_environment, device_name
from autoseg.runtime.serialization import write_json
from autoseg.schema.run_record import RunEnvironment
from autoseg.trainers import run_environment as module
from autoseg.trainers.run_environment import RUN_ENVIRONMENT, read_run_environments, record_run_environment
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.trainer import Trainer

CPU = torch.device("cpu")


def test_a_processor_has_a_name_and_a_peak() -> None:
    found = current_environment(CPU)
    assert found.kind == "cpu" and found.torch == torch.__version__ and 2**20 < found.peak_bytes < 2**50
    assert found.device == device_name(CPU) and f", {cpu_count()} core" in found.device


def test_what_goes_on_elsewhere_is_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, later = RunEnvironment("processor", "cpu", "2.9", 500), RunEnvironment("GPU", "cuda", "2.9", 200)
    for now in (here, replace(here, peak_bytes=300), later, replace(later, peak_bytes=900)):
        monkeypatch.setattr(module, "current_environment", lambda device, now=now: now)
        record_run_environment(tmp_path, CPU)
    assert read_run_environments(tmp_path) == [here, replace(later, peak_bytes=900)], "the largest peak of each"


def test_a_note_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    for wrong in ({"device": "x"}, [{"device": "x", "more": 1}], [3]):
        write_json(tmp_path / RUN_ENVIRONMENT, wrong)
        assert read_run_environments(tmp_path) == []
    record_run_environment(tmp_path, CPU)
    assert [one.kind for one in read_run_environments(tmp_path)] == ["cpu"]


def test_a_training_notes_where_it_ran_and_one_that_begins_anew_forgets(folders: RunFolders) -> None:
    write_json(folders.run / RUN_ENVIRONMENT, [RunEnvironment("of a run that left no checkpoint", "cuda", "1", 1)])
    Trainer(make_job(make_plan(), iterations=2, validation_intervals=1), folders, device=CPU, progress=False).fit()
    found = read_run_environments(folders.run)
    assert [one.device for one in found] == [device_name(CPU)] and found[0].peak_bytes > 2**20
