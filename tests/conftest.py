"""Fixtures that several tests share; what they build comes from `factories`."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_case, make_configuration, make_job, make_plan, write_dataset, write_previous, write_store
from oracle_home import HomeFactory, copied_homes, shared_homes

from autoseg.runtime.hardware import cpu_count
from autoseg.runtime.registry import allowed_code
from autoseg.trainers.run_options import RunFolders

MOST_PROCESSES = 4
"""Each takes about a gigabyte of memory, and the longest files set the time from here on."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Runs the whole suite in several processes, each file in one of them; parts of it, and slow tests, in one, as those processes do."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and config.option.markexpr == "not slow"
    alone = hasattr(config, "workerinput") or config.option.collectonly or config.option.usepdb or config.option.keyword
    if whole and not alone and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = min(cpu_count(), MOST_PROCESSES), "loadfile"


@pytest.fixture(scope="session", autouse=True)
def signals_are_not_ignored() -> None:
    """Jobs in the background of a shell inherit signals ignored, and the commands under test keep that."""
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from more, and the machine may be shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's shell says about data must not reach a test."""
    for name in ("AUTOSEG_HOME", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences stay in one line, so that tests find them whole; how lines wrap is tested for itself."""
    monkeypatch.setenv("COLUMNS", "10000")


@pytest.fixture(autouse=True, scope="session")
def _own_modules() -> Iterator[None]:
    """Networks and trainers of the tests may be imported, as with ``--allow-code``; what is refused is tested with other names."""
    examples = [f"my_{what}" for what in ("networks", "presets", "losses", "metrics", "optimizers", "options", "rules", "trainers")]
    with allowed_code(["oracle_home", "own_trainers", "no_such_module", "test_metric_table", "test_tables", *examples]):
        yield


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning curves are not drawn, which takes longer than the training of a tiny network; test_history draws one."""
    monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())


def _fixture_of(builder: Callable[..., Any]) -> Callable[[], Any]:
    """A fixture that hands a builder of `factories` to tests."""
    return pytest.fixture(lambda: builder)


tiny_configuration = _fixture_of(make_configuration)
tiny_plan = _fixture_of(make_plan)
tiny_job = _fixture_of(make_job)
tiny_dataset = _fixture_of(write_dataset)
tiny_case = _fixture_of(make_case)


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    """Where a run over four preprocessed cases reads and writes."""
    write_store(tmp_path / "data", make_plan())
    return RunFolders(tmp_path / "run", tmp_path / "data")


@pytest.fixture
def cascade_folders(folders: RunFolders, tmp_path: Path) -> RunFolders:
    """The same with a first stage's segmentations."""
    return dataclasses.replace(folders, previous=write_previous(tmp_path / "previous", folders.data))


@pytest.fixture(scope="session")
def shared_oracle_home(tmp_path_factory: pytest.TempPathFactory) -> HomeFactory:
    """``shared_oracle_home(dim=3, regions=False)``: a home with a trained oracle, for tests that only read it."""
    return shared_homes(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def oracle_home(shared_oracle_home: HomeFactory, tmp_path: Path) -> HomeFactory:
    """``oracle_home(dim=3, regions=False)``: a copy of such a home that the test may change."""
    return copied_homes(shared_oracle_home, tmp_path)
