"""What every trainer in `TRAINERS` must satisfy, on data that a network of a few hundred weights learns in seconds."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from factories import labels, make_configuration, make_job, make_plan, regions
from trainer_runs import Killed, build, elsewhere, equal, kill_at, run_until_killed, signal_at, weights

from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.interruption import Terminated
from autoseg.runtime.runs import FINAL_CHECKPOINT, LATEST_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.schema import Budget
from autoseg.schema.run_record import RunRecord
from autoseg.trainers import TRAINERS
from autoseg.trainers import trainer as module
from autoseg.trainers.batches import TRAINING, VALIDATION, Batch, BatchMaker
from autoseg.trainers.run_environment import RUN_ENVIRONMENT
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.trainer import Trainer

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


EXCLUSIVE_ONLY = ("SpatialConfigurationTrainer",)
"""Trainers that refuse organs that overlap."""


def rows(folders: RunFolders) -> list[list[str]]:
    """The history without its times."""
    return [line.split(",")[:-1] for line in (folders.run / "history.csv").read_text().splitlines()]


def assert_goes_on(trainer: Trainer, undisturbed: RunFolders) -> None:
    """Finishes a run that was killed: all networks and the history are those of the undisturbed run, bit by bit."""
    trainer.fit()
    resumed, expected = (load_checkpoint(folders.run / FINAL_CHECKPOINT)[0] for folders in (trainer.folders, undisturbed))
    assert resumed.keys() == expected.keys()
    assert all(equal(resumed[network], expected[network]) for network in expected)
    assert rows(trainer.folders) == rows(undisturbed)


@pytest.fixture
def job() -> Callable[..., RunRecord]:
    return partial(make_job, make_plan())


class TestSignals:
    def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint_before(self, job, folders, monkeypatch):
        undisturbed, interrupted = elsewhere(folders, "undisturbed"), elsewhere(folders, "interrupted")
        build("Trainer", job(), undisturbed).fit()
        trainer, save = build("Trainer", job(), interrupted), torch.save
        signal_at(trainer, signal.SIGINT, 5)

        def slow(states: object, path: Path) -> None:
            path.write_bytes(b"half")
            if trainer.iteration == 6:
                signal.raise_signal(signal.SIGINT)
            save(states, path)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", slow)
            with pytest.raises(KeyboardInterrupt):
                trainer.fit()
        assert load_checkpoint(interrupted.run / LATEST_CHECKPOINT)[1]["iteration"] == 4
        assert not list(interrupted.run.glob(".*"))
        assert_goes_on(build("Trainer", job(), interrupted), undisturbed)

    def test_a_run_that_diverges_keeps_the_checkpoint_before_when_it_is_interrupted(self, job, folders):
        trainer = build("Trainer", job(), folders)
        signal_at(trainer, signal.SIGINT, 5)
        step = trainer.step
        trainer.step = lambda batch: {key: value * (torch.inf if trainer.iteration == 5 else 1) for key, value in step(batch).items()}
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
        assert load_checkpoint(folders.run / LATEST_CHECKPOINT)[1]["iteration"] == 4


@pytest.mark.parametrize("name", TRAINERS)
class TestContract:
    def test_the_loss_falls_and_the_organs_are_found(self, name, job, folders):
        trainer = build(name, job(iterations=120, validation_intervals=4, learning_rate=2e-2, validation_batches=4), folders)
        trainer.fit()
        first, last = trainer.history.rows[0], trainer.history.rows[-1]
        assert last["train_loss"] < 0.7 * first["train_loss"]
        assert last["mean_dice"] > max(0.4, first["mean_dice"])

    def test_the_budget_is_used_up_exactly(self, name, job, folders):
        trainer = build(name, job(iterations=10, validation_intervals=3), folders)
        trainer.fit()
        assert (trainer.iteration, trainer.used) == (10, 1)
        assert [(row["validation_interval"], row["iteration"]) for row in trainer.history.rows] == [(1, 4), (2, 7), (3, 10)]
        assert trainer.history.rows[-1]["learning_rate"] < 0.1 * 1e-2

    def test_the_same_job_gives_the_same_weights_and_another_seed_others(self, name, job, folders):
        seeds = {"one": 3, "two": 3, "three": 4}
        for where, seed in seeds.items():
            build(name, dataclasses.replace(job(), seed=seed), elsewhere(folders, where)).fit()
        one, two, three = (weights(elsewhere(folders, where)) for where in seeds)
        assert equal(one, two)
        assert not equal(one, three)

    @pytest.mark.parametrize("average", [0.0, 0.9])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_a_run_that_is_killed_anywhere_and_resumed_gives_exactly_the_undisturbed_weights(self, name, job, folders, average, optimizer):
        chosen = job(
            iterations=9, validation_intervals=4, average_decay=average, optimizer=optimizer, relative_clip=2.0 if average else 0.0
        )
        undisturbed, killed = elsewhere(folders, "undisturbed"), elsewhere(folders, "killed")
        build(name, chosen, undisturbed).fit()
        # In the first validation interval, where no checkpoint exists; between two; in the middle of one; in the very last step.
        for iteration, after in ((1, True), (3, False), (4, True), (8, True)):
            run_until_killed(build(name, chosen, killed), iteration, after=after)
        assert not (killed.run / FINAL_CHECKPOINT).exists()
        assert_goes_on(build(name, chosen, killed), undisturbed)

    def test_a_kill_while_the_checkpoint_is_written_goes_back_to_the_former_one(self, name, job, folders, monkeypatch):
        undisturbed, killed = elsewhere(folders, "undisturbed"), elsewhere(folders, "killed")
        build(name, job(), undisturbed).fit()
        trainer, save = build(name, job(), killed), torch.save

        def dying(states: object, path: Path) -> None:
            path.write_bytes(b"half")
            if trainer.interval == 3:
                raise Killed
            save(states, path)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", dying)
            with pytest.raises(Killed):
                trainer.fit()
        resumed = build(name, job(), killed)
        resumed.restore()
        assert resumed.interval == 2
        assert_goes_on(build(name, job(), killed), undisturbed)

    def test_a_signal_saves_that_very_step_and_the_run_goes_on_from_there(self, name, job, folders, monkeypatch):
        """Within an interval, while patches are scored, and in the last step; no other checkpoint is written meanwhile."""
        chosen = job(iterations=9, validation_intervals=2, average_decay=0.9, validation_batches=2)
        undisturbed, interrupted = elsewhere(folders, "undisturbed"), elsewhere(folders, "interrupted")
        build(name, chosen, undisturbed).fit()
        monkeypatch.setattr(module, "SECONDS_BETWEEN_CHECKPOINTS", math.inf)
        moments = ((signal.SIGINT, 2, 3, 0), (signal.SIGTERM, 3, 4, 0), (signal.SIGTERM, None, 5, 0), (signal.SIGINT, 8, 9, 1))
        for number, moment, iteration, interval in moments:
            trainer, handler = build(name, chosen, interrupted), signal.getsignal(number)
            signal_at(trainer, number, moment)
            with pytest.raises(KeyboardInterrupt) as ended:
                trainer.fit()
            assert (ended.type is Terminated, signal.getsignal(number)) == (number == signal.SIGTERM, handler)
            meta = load_checkpoint(interrupted.run / LATEST_CHECKPOINT)[1]
            assert (meta["iteration"], meta["validation_interval"]) == (iteration, interval)
        assert_goes_on(build(name, chosen, interrupted), undisturbed)

    def test_what_a_killed_run_left_half_written_is_removed(self, name, job, folders):
        folders.run.mkdir()
        (folders.run / ".partial-99999999-checkpoint_latest.pt").write_bytes(b"half")
        build(name, job(), folders).fit()
        assert sorted(path.name for path in folders.run.iterdir()) == [FINAL_CHECKPOINT, "history.csv", "progress.png", RUN_ENVIRONMENT]

    def test_checkpoints_load_without_running_code_into_main_memory(self, name, job, folders, monkeypatch):
        run_until_killed(build(name, job(average_decay=0.9), folders), 5)
        latest, places, load = torch.load(folders.run / LATEST_CHECKPOINT, weights_only=True), [], torch.load
        assert {"network", "optimizer", "average", "random", "meta"} <= set(latest)
        trainer = build(name, job(average_decay=0.9), folders)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "load", lambda *args, **options: places.append(options["map_location"]) or load(*args, **options))
            trainer.device = torch.device("meta")  # stands for a GPU
            trainer.restore()
        assert places == ["cpu"]
        assert all(state["step"].device == CPU for state in trainer.optimized.optimizer.state.values())
        trainer.device = CPU
        trainer.fit()
        final = torch.load(folders.run / FINAL_CHECKPOINT, weights_only=True)
        assert equal(final["network"], trainer.final_network().state_dict())

    def test_a_finished_run_is_read_and_not_trained_again(self, name, job, folders):
        image = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
        expected = build(name, job(), folders).fit()(image)
        before = (folders.run / FINAL_CHECKPOINT).stat().st_mtime_ns
        again = build(name, job(), folders)
        kill_at(again, 0)
        assert torch.equal(again.fit()(image), expected)
        assert (folders.run / FINAL_CHECKPOINT).stat().st_mtime_ns == before

    def test_the_moving_average_predicts_when_asked_for(self, name, job, folders):
        trainer = build(name, job(average_decay=0.8), folders)
        mean = {key: tensor.clone() for key, tensor in trainer.network.state_dict().items()}
        step = trainer.step

        def watched(batch: object) -> dict[str, torch.Tensor]:
            number, result = trainer.iteration, step(batch)
            decay = min(0.8, (1 + number) / (10 + number))
            for key, tensor in trainer.network.state_dict().items():
                mean[key] = decay * mean[key] + (1 - decay) * tensor
            return result

        trainer.step = watched
        network = trainer.fit()
        assert network is trainer.optimized.average
        assert not equal(weights(folders), trainer.network.state_dict())
        for key, tensor in weights(folders).items():
            torch.testing.assert_close(tensor, mean[key], rtol=1e-5, atol=1e-6)

    def test_a_checkpoint_of_an_older_version_goes_on(self, name, job, folders, monkeypatch):
        """autoseg 0.1.0 called validation intervals rounds."""
        undisturbed, killed = elsewhere(folders, "undisturbed"), elsewhere(folders, "killed")
        build(name, job(), undisturbed).fit()
        trainer = build(name, job(), killed)
        meta = trainer._meta
        monkeypatch.setattr(trainer, "_meta", lambda: {{"validation_interval": "round"}.get(key, key): one for key, one in meta().items()})
        run_until_killed(trainer, 5)
        table = trainer.history.table
        table.write_text(table.read_text().replace("validation_interval", "round"))
        assert_goes_on(build(name, job(), killed), undisturbed)

    def test_pretrained_weights_are_loaded_where_they_fit(self, name, job, folders, caplog):
        build(name, job(), elsewhere(folders, "first")).fit()
        source = elsewhere(folders, "first").run / FINAL_CHECKPOINT
        one_organ = dataclasses.replace(make_job(make_plan(labels=labels(ball=2))), pretrained=source)
        for chosen in (one_organ, dataclasses.replace(one_organ, options=job(average_decay=0.9).options)):
            trainer = build(name, chosen, elsewhere(folders, "second"))
            fresh = {key: tensor.clone() for key, tensor in trainer.network.state_dict().items()}
            with caplog.at_level(logging.INFO):
                trainer.restore()
            given = load_checkpoint(source)[0]["network"]
            fitting = [key for key in fresh if given[key].shape == fresh[key].shape]
            assert 0 < len(fitting) < len(fresh)
            for network in {trainer.network, trainer.final_network()}:
                for key, tensor in network.state_dict().items():
                    assert torch.equal(tensor, given[key] if key in fitting else fresh[key]), key
            assert f"{len(fitting)} tensors loaded; freshly initialised: " in caplog.text

    def test_the_head_is_new_where_the_organs_are_others_though_as_many(self, name, job, folders):
        first = build(name, job(), elsewhere(folders, "first"))
        first.fit()
        write_json(elsewhere(folders, "first").run / "run.json", first.job)
        source = elsewhere(folders, "first").run / FINAL_CHECKPOINT
        others = dataclasses.replace(make_job(make_plan(labels=labels(liver=2, spleen=5))), pretrained=source, seed=8)
        trainer, given = build(name, others, elsewhere(folders, "second")), load_checkpoint(source)[0]["network"]
        trainer.restore()
        kept = {key for key, tensor in trainer.network.state_dict().items() if torch.equal(tensor, given[key])}
        head = trainer.new_head()
        assert head and kept - head and not {key for key in kept & head if given[key].std() > 0}
        assert kept | head == given.keys()

    def test_pretrained_weights_of_which_none_fits_are_refused(self, name, job, folders, tmp_path):
        torch.save({"network": {"other": torch.zeros(2)}, "meta": "{}"}, tmp_path / "other.pt")
        for path, message in ((tmp_path / "other.pt", "not one weight fits"), (tmp_path / "no.pt", "checkpoint not found")):
            with pytest.raises(ValueError, match=message):
                build(name, dataclasses.replace(job(), pretrained=path), folders).fit()

    def test_a_resumed_run_does_not_start_from_the_pretrained_weights_again(self, name, job, folders, tmp_path):
        run_until_killed(build(name, job(), folders), 5)
        build(name, dataclasses.replace(job(), pretrained=tmp_path / "gone.pt"), folders).fit()
        assert (folders.run / FINAL_CHECKPOINT).is_file()

    def test_a_loss_that_diverges_is_a_clear_error_and_leaves_the_last_good_checkpoint(self, name, job, folders):
        trainer = build(name, job(), folders)
        step = trainer.step

        def exploding(batch: object) -> dict[str, torch.Tensor]:
            return {key: value * torch.inf if trainer.iteration >= 5 else value for key, value in step(batch).items()}

        trainer.step = exploding
        with pytest.raises(RuntimeError, match=r"run: training diverged at iteration 6 .*smaller --learning-rate"):
            trainer.fit()
        assert load_checkpoint(folders.run / LATEST_CHECKPOINT)[1]["iteration"] == 4
        assert not (folders.run / FINAL_CHECKPOINT).exists()

    def test_an_absurd_learning_rate_ends_in_that_error(self, name, job, folders):
        with pytest.raises(RuntimeError, match="diverged"):
            build(name, job(iterations=40, optimizer="sgd", learning_rate=1e30), folders).fit()

    @pytest.mark.parametrize("stream", [TRAINING, VALIDATION, None])
    @pytest.mark.parametrize(
        ("error", "message"),
        [(torch.OutOfMemoryError("CUDA"), "patch 8x8x8 and batch 2.*--memory"), (RuntimeError("bad shape"), "^bad shape$")],
    )
    def test_out_of_memory_is_explained_and_no_other_error(self, name, job, folders, monkeypatch, stream, error, message):
        """In a step, or in a thread of the loader."""
        make, trainer = BatchMaker.__call__, build(name, job(), folders)

        def fail(*some: object) -> Batch:
            if stream is None or some[0].stream == stream:
                raise error
            return make(*some)

        monkeypatch.setattr(*(trainer, "step") if stream is None else (BatchMaker, "__call__"), fail)
        with pytest.raises(RuntimeError, match=message):
            trainer.fit()

    def test_validation_batches_are_made_ahead_too(self, name, job, folders, monkeypatch):
        make, made = BatchMaker.__call__, []

        def noted(maker: BatchMaker, number: int) -> Batch:
            if maker.stream == VALIDATION:
                made.append((number, threading.current_thread().name.rpartition("_")[0]))
            return make(maker, number)

        monkeypatch.setattr(BatchMaker, "__call__", noted)
        build(name, job(validation_intervals=1, validation_batches=3), folders).fit()
        assert made == [(number, "autoseg-batch") for number in range(3)]

    def test_a_damaged_checkpoint_is_named(self, name, job, folders):
        folders.run.mkdir()
        (folders.run / LATEST_CHECKPOINT).write_bytes(b"half")
        with pytest.raises(ValueError, match=r"checkpoint_latest\.pt: not a readable checkpoint .*remove it: the same command then trains"):
            build(name, job(), folders).fit()

    def test_a_time_budget_ends_in_time_with_the_learning_rate_at_its_end(self, name, job, folders, monkeypatch):
        now = iter(range(10**6))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
        trainer = build(name, dataclasses.replace(job(), budget=Budget("time", 60.0, 4)), folders)
        trainer.fit()
        assert 60 <= trainer.seconds < 75
        assert 20 < trainer.iteration < 61
        first, second, third, last = (row["learning_rate"] for row in trainer.history.rows)
        assert first > second > third > last
        assert last < 0.03 * 1e-2

    def test_slow_scoring_does_not_take_the_steps_of_the_last_interval(self, name, job, folders, monkeypatch):
        """Steps take a second, each scoring forty of a budget of sixty."""
        now = [0.0]
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        trainer = build(name, dataclasses.replace(job(), budget=Budget("time", 60.0, 4)), folders)
        step, score = trainer.step, trainer._score_patches

        def slow(result: dict, seconds: float) -> dict:
            now[0] += seconds
            return result

        trainer.step = lambda batch: slow(step(batch), 1.0)
        trainer._score_patches = lambda: slow(score(), 40.0)
        trainer.fit()
        table = trainer.history.rows
        assert [math.isnan(row["mean_dice"]) for row in table] == [False, True, True, False]
        assert [row.keys() for row in table] == [table[0].keys()] * 4
        assert table[-1]["learning_rate"] < 0.03 * 1e-2
        assert now[0] < 60 + 2 * 40
        assert len(rows(folders)) == 5

    @pytest.mark.parametrize(
        ("configuration", "channels"),
        [(make_configuration(2), 1), (make_configuration(3), 1), (make_configuration(name="3d_cascade", previous_stage="3d_lowres"), 3)],
    )
    def test_the_network_that_comes_back_is_ready_to_predict(self, name, folders, cascade_folders, configuration, channels):
        where = folders if configuration.previous_stage is None else cascade_folders
        trainer = build(name, make_job(make_plan(configuration), configuration.name), where)
        network = trainer.fit()
        assert not network.training
        assert network is (trainer.network if trainer.optimized.average is None else trainer.optimized.average)
        size = (8,) * configuration.dim
        with torch.no_grad():
            assert network(torch.zeros(1, channels, *size)).shape == (1, 3, *size)

    def test_regions_and_ignored_voxels(self, name, folders):
        chosen = make_job(make_plan(labels=regions(both=(2, 5), block=(5,), ignore=9)))
        if name in EXCLUSIVE_ONLY:
            with pytest.raises(ValueError, match="exclude each other"):
                build(name, chosen, folders)
            return
        trainer = build(name, chosen, folders)
        trainer.fit()
        assert {"dice_both", "dice_block"} <= set(trainer.history.rows[-1])

    def test_without_deep_supervision(self, name, job, folders):
        trainer = build(name, job(deep_supervision=False), folders)
        trainer.fit()
        assert torch.isfinite(torch.tensor(trainer.history.rows[-1]["train_loss"]))
