"""Training that starts from the weights of another: its rate, and which tensors are drawn anew where the organs are others."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from factories import labels, make_configuration, make_job, make_plan, regions, write_store
from torch import nn

from autoseg.networks import NETWORKS, build_network
from autoseg.presets.settings import train_settings
from autoseg.runtime.checkpoints import save_checkpoint
from autoseg.runtime.commands import train_command
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.schema import Budget, Labels
from autoseg.schema.settings import TrainSettings
from autoseg.trainers.fine_tuning import _differing, _shapes, check_pretrained, find_pretrained, width_of
from autoseg.trainers.run_options import RunFolders, default_options
from autoseg.trainers.trainer import Trainer

CPU = torch.device("cpu")
SOURCE = Path("model/fold_0/checkpoint_final.pt")


class TestPretrained:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        for fold in ("fold_0", "fold_1"):
            save_checkpoint(tmp_path / "model" / fold / FINAL_CHECKPOINT, {"network": nn.Linear(2, 3).state_dict()}, {})
        return tmp_path / "model"

    def test_a_file_a_fold_or_a_model(self, model, monkeypatch):
        monkeypatch.chdir(model)
        assert find_pretrained(None) is None
        assert find_pretrained(Path("fold_1") / FINAL_CHECKPOINT) == model / "fold_1" / FINAL_CHECKPOINT
        assert find_pretrained(Path("fold_1")) == model / "fold_1" / FINAL_CHECKPOINT
        assert find_pretrained(model) == model / "fold_0" / FINAL_CHECKPOINT
        (model / "fold_1").rename(model / "fold_all")
        assert find_pretrained(model) == model / "fold_all" / FINAL_CHECKPOINT

    def test_what_is_not_there_or_no_network_is_refused(self, model):
        with pytest.raises(ValueError, match=r"typo\.pt: checkpoint not found"):
            find_pretrained(model / "typo.pt")
        (model / "old").mkdir()
        with pytest.raises(ValueError, match=r"old/checkpoint_final\.pt: checkpoint not found"):
            find_pretrained(model / "old")
        save_checkpoint(model / "other.pt", {"optimizer": {}}, {})
        with pytest.raises(ValueError, match="expected a checkpoint with a network, found optimizer"):
            find_pretrained(model / "other.pt")

    def test_little_that_fits_is_a_warning_and_nothing_is_refused(self, model, caplog):
        path = find_pretrained(model)
        check_pretrained(nn.Linear(2, 3), path)
        check_pretrained(nn.Linear(4, 5), None)
        assert "Only" not in caplog.text
        check_pretrained(nn.Linear(4, 3), path)  # the bias fits
        assert "Only 20 % of this network's numbers" in caplog.text
        for network, head in ((nn.Linear(4, 5), ()), (nn.Linear(2, 3), ("weight", "bias"))):
            with pytest.raises(ValueError, match="not one weight fits"):
                check_pretrained(network, path, head)
        assert torch.load(path, weights_only=True)

    def test_the_width_is_that_of_the_run_it_comes_from(self, model):
        checkpoint = model / "fold_0" / FINAL_CHECKPOINT
        assert width_of(None) == width_of(checkpoint) == 1.0
        write_json(checkpoint.with_name("run.json"), make_job(make_plan(make_configuration(width=0.5))))
        assert width_of(checkpoint) == 0.5


class TestRate:
    """A tenth of the rate that the training would have; one that was typed is taken as typed."""

    def rate(self, settings: TrainSettings) -> float:
        fine_tunes = settings.pretrained is not None
        budget = Budget("iterations", 200_000, 10)
        return default_options(budget, "cpu", batch=2, fine_tunes=fine_tunes, changes=settings.changed_options).learning_rate

    @pytest.mark.parametrize(
        ("preset", "given", "expected"),
        [
            (None, {}, 1e-2),
            (None, {"pretrained": SOURCE}, 1e-3),
            ("roth2018", {}, 1e-2),
            ("roth2018", {"pretrained": SOURCE}, 1e-3),
            ("fang2020", {"pretrained": SOURCE, "options": {"loss": "dice"}}, 2e-5),
            ("roth2018", {"pretrained": SOURCE, "learning_rate": 4e-3}, 4e-3),
            ("roth2018", {"pretrained": SOURCE, "options": {"learning_rate": 4e-3}}, 4e-3),
            (None, {"pretrained": SOURCE, "options": {"learning_rate": 4e-3}}, 4e-3),
        ],
    )
    def test_it_is_a_tenth_also_of_a_presets(self, preset, given, expected):
        settings = train_settings(preset, **given)
        assert self.rate(settings) == pytest.approx(expected)
        assert self.rate(dataclasses.replace(settings, pretrained=None)) >= self.rate(settings), "a first stage starts from nothing"

    def test_the_recorded_command_gives_the_same_rate(self):
        settings = train_settings("roth2018", pretrained=SOURCE)
        words = train_command(dataclasses.replace(make_job(make_plan()), settings=settings))
        assert "learning_rate=0.001" in words and "rate-of-preset" not in words


def trained(folder: Path, learned: Labels) -> Path:
    """The checkpoint of a fold that was trained on these organs; its weights are all sevens."""
    trainer = Trainer(make_job(make_plan(labels=learned)), RunFolders(folder, folder), device=CPU, progress=False)
    weights = {name: torch.full_like(tensor, 7) for name, tensor in trainer.network.state_dict().items()}
    save_checkpoint(folder / FINAL_CHECKPOINT, {"network": weights}, {})
    write_json(folder / "run.json", trainer.job)
    return folder / FINAL_CHECKPOINT


@pytest.mark.usefixtures("no_pictures")
class TestHead:
    BOTH = labels(ball=1, block=2)

    @pytest.mark.parametrize(
        ("learned", "wanted", "is_new"),
        [
            (BOTH, labels(Ball=4, block=9), False),
            (BOTH, labels(liver=1, spleen=2), True),
            (BOTH, labels(block=1, ball=2), True),
            (regions(ball=(1, 2), block=(2,)), regions(ball=(1, 2), block=(2,)), False),
            (regions(ball=(1, 2), block=(2,)), regions(ball=(1, 2), core=(2,)), True),
        ],
    )
    def test_it_is_new_where_the_organs_are_others(self, tmp_path, caplog, learned, wanted, is_new):
        source = trained(tmp_path / "source", learned)
        plan = make_plan(labels=wanted)
        write_store(tmp_path / "data", plan)
        folders = RunFolders(tmp_path / "run", tmp_path / "data")
        trainer = Trainer(dataclasses.replace(make_job(plan), pretrained=source), folders, device=CPU, progress=False)
        trainer.optimized.average = None
        state = torch.get_rng_state()
        head = trainer.new_head()
        assert torch.equal(torch.get_rng_state(), state), "the weights of the run are drawn as ever"
        with caplog.at_level(logging.INFO):
            trainer.restore()
            check_pretrained(trainer.network, source, head)
        fresh = {name for name, tensor in trainer.network.state_dict().items() if not bool((tensor == 7).all())}
        assert fresh == head
        assert bool(head) == is_new
        assert ("Its head is new" in caplog.text) == is_new
        assert all(len(trainer.network.state_dict()[name]) == wanted.n_outputs for name in head)

    def test_without_a_record_the_organs_are_unknown_and_shapes_decide(self, tmp_path, caplog):
        source = trained(tmp_path / "source", self.BOTH)
        (tmp_path / "source" / "run.json").unlink()
        job = dataclasses.replace(make_job(make_plan(labels=labels(liver=1, spleen=2))), pretrained=source)
        trainer = Trainer(job, RunFolders(tmp_path / "run", tmp_path / "data"), device=CPU, progress=False)
        assert trainer.new_head() == frozenset()
        with caplog.at_level(logging.INFO):
            check_pretrained(trainer.network, source)
        assert "No run.json lies beside it" in caplog.text


@pytest.mark.parametrize("name", NETWORKS)
def test_of_every_network_something_belongs_to_the_organs_and_most_does_not(name):
    spec = NETWORKS[name]
    sizes = []
    for outputs in (3, 4):
        with torch.device("meta"):
            network = None
            for dim in (2, 3):
                try:
                    options = dict(spec.small)
                    if spec.planned:
                        options |= {"strides": [[1] * dim, *[[2] * dim] * 2], "kernel_sizes": [[3] * dim] * 3}
                    network = build_network(name, dim=dim, in_channels=3, out_channels=outputs, **options)
                except ValueError:
                    continue
                break
            assert network is not None
        sizes.append(_shapes(network))
    head = _differing(*sizes)
    share = sum(sizes[0][one].numel() for one in head) / sum(shape.numel() for shape in sizes[0].values())
    assert 0 < share < (1 if name == "scn" else 0.5)
    if name == "scn":
        assert {one.split(".")[0] for one in head} == {"local", "spatial"} and any(not one.startswith("spatial") for one in sizes[0])
