"""Networks whose convolutions do not pad see real surroundings of their patch, in training and prediction alike."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from factories import LIVER_KIDNEYS, make_configuration, make_job, make_plan, patch_configuration, random_image, write_previous, write_store

from autoseg.inference.predictor import Predictor
from autoseg.inference.trained_model import load_network
from autoseg.inference.volume_predictor import Volume
from autoseg.networks.roth_unet import RothUNet
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import write_json
from autoseg.schema import Configuration, Mirroring
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.trainers.batches import TRAINING, VALIDATION, BatchMaker
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.step_cost import _random_batch
from autoseg.trainers.trainer import Trainer
from autoseg.trainers.training_spec import training_spec

CPU = torch.device("cpu")
VALID = {"valid": True, "width": 2, "norm": "instance"}


def valid_configuration(dim: int = 3, **changes: object) -> Configuration:
    """Roth's U-Net without padding, on a patch of 12 voxels an axis."""
    plan = make_plan(make_configuration(dim, **changes))
    name = next(iter(plan.configurations))
    spec = training_spec(plan, name, TrainSettings(network="roth_unet", network_options=VALID))
    return dataclasses.replace(spec.configuration, patch_size=(12,) * dim, batch_size=1)


def test_the_papers_tile_and_its_surroundings() -> None:
    one = training_spec(make_plan(), "3d_fullres", TrainSettings(network="roth_unet", network_options={"valid": True})).configuration
    assert (one.patch_size, one.input_size, one.context) == ((28, 44, 44), (116, 132, 132), (44, 44, 44))
    assert one.patch_multiple == (8, 8, 8)
    assert one.built_options == {"valid": True, "surrounded": True}
    plane = training_spec(make_plan(make_configuration(2)), "2d", TrainSettings(network="roth_unet", network_options={"valid": True}))
    assert (plane.configuration.patch_size, plane.configuration.input_size) == ((44, 44), (132, 132))


def test_a_patch_of_ones_own_must_fit_the_poolings() -> None:
    asked = TrainSettings(network="roth_unet", network_options={"valid": True}, patch=(20, 36, 52))
    assert training_spec(make_plan(), "3d_fullres", asked).configuration.input_size == (108, 124, 140)
    with pytest.raises(ValueError, match="--patch: expected 28 44 44 plus or minus multiples of 8 8 8"):
        training_spec(make_plan(), "3d_fullres", dataclasses.replace(asked, patch=(24, 36, 52)))


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(network="roth_unet"),
        TrainSettings(network="roth_unet", network_options={"valid": True}, trainer="AdversarialTrainer"),
        TrainSettings(),
    ],
    ids=["padded", "a trainer that needs image and map of one size", "the planned network"],
)
def test_others_see_their_patch_alone(settings: TrainSettings) -> None:
    one = training_spec(make_plan(), "3d_fullres", settings).configuration
    assert (one.context, one.input_size) == ((), one.patch_size)
    assert "surrounded" not in one.built_options


def test_surroundings_without_valid_convolutions_are_refused() -> None:
    with pytest.raises(ValueError, match="expected valid=True with surrounded=True"):
        RothUNet(dim=2, in_channels=1, out_channels=2, surrounded=True)


class TestBatches:
    def made(self, folders: RunFolders, stream: int, **changes: object) -> tuple[BatchMaker, RunRecord]:
        job = make_job(make_plan(valid_configuration(**changes)), "3d_fullres")
        return BatchMaker(job, folders, "abcd", stream=stream, device=CPU), job

    @pytest.mark.parametrize("stream", [TRAINING, VALIDATION])
    def test_the_image_reaches_beyond_the_label_map(self, folders, stream):
        make, _ = self.made(folders, stream)
        batch = make(0)
        assert batch.image.shape == (1, 1, 100, 100, 100)
        assert batch.segmentation.shape == (1, 12, 12, 12)

    def test_what_lies_around_is_the_image_itself(self, tmp_path):
        store = write_store(tmp_path / "data", make_plan(make_configuration(2)), ["a"], shape=(3, 110, 70))
        image, labels = (np.asarray(one[:]) for one in (store.load("a").image, store.load("a").segmentation))
        job = make_job(make_plan(valid_configuration(2)), "2d")
        make = BatchMaker(job, RunFolders(tmp_path / "run", tmp_path / "data"), ["a"], stream=VALIDATION, device=CPU)
        image, labels = (np.pad(one, [(0, 0)] * (one.ndim - 2) + [(100, 100)] * 2) for one in (image[0], labels))
        for number in range(4):
            batch = make(number)
            windows = np.lib.stride_tricks.sliding_window_view(image, (100, 100), (1, 2))
            candidates = np.argwhere(windows[..., 50, 50] == float(batch.image[0, 0, 50, 50]))
            ((z, y, x),) = [place for place in candidates if np.array_equal(windows[tuple(place)], batch.image[0, 0].numpy())]
            assert np.array_equal(batch.segmentation[0], labels[z, y + 44 : y + 56, x + 44 : x + 56])

    def test_a_first_stages_organs_reach_as_far(self, folders, tmp_path):
        previous = write_previous(tmp_path / "previous", folders.data)
        job = make_job(make_plan(valid_configuration(name="3d_cascade", previous_stage="3d_lowres")), "3d_cascade")
        make = BatchMaker(job, dataclasses.replace(folders, previous=previous), "ab", stream=VALIDATION, device=CPU)
        batch = make(0)
        assert batch.image.shape == (1, 3, 100, 100, 100)
        inner = batch.image[0, 1:, 44:56, 44:56, 44:56]
        assert torch.equal(inner[0] > 0, batch.segmentation[0] == 1), "this first stage is right everywhere"

    def test_a_trial_step_has_the_same_sizes(self, folders):
        _, job = self.made(folders, TRAINING)
        batch = _random_batch(job, CPU)
        assert (batch.image.shape, batch.segmentation.shape) == ((1, 1, 100, 100, 100), (1, 12, 12, 12))


class TestPrediction:
    def test_tiles_are_those_of_the_whole_volume(self, monkeypatch):
        """Predicted tile by tile as in one piece, where tiles begin at multiples of 8, so that they pool the same voxels."""
        monkeypatch.setattr("autoseg.inference.mirroring.autocast", lambda device: contextlib.nullcontext())
        torch.manual_seed(0)
        network = RothUNet(dim=2, in_channels=1, out_channels=4, valid=True, surrounded=True, width=2, norm="none").eval()
        volume = random_image(2, 20, 28)
        tiles = patch_configuration((12, 12), context=(44, 44))
        found = Predictor([network], tiles, LIVER_KIDNEYS, device=CPU, mirror=False, step=2 / 3).logits(Volume(volume))
        with torch.no_grad():
            whole = network(torch.nn.functional.pad(torch.from_numpy(volume).transpose(0, 1), [44] * 4)).transpose(0, 1)
        torch.testing.assert_close(found.float(), whole, rtol=2e-3, atol=2e-3)

    def test_planes(self):
        seen = []

        def network(x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return torch.cat([x[..., 2:-2, 3:-3] * factor for factor in (1, -2, 0.5, 3)], 1)

        volume = random_image(2, 20, 24)
        found = Predictor([network], patch_configuration((8, 8), context=(2, 3)), LIVER_KIDNEYS, device=CPU).logits(Volume(volume))
        torch.testing.assert_close(found[0].float(), torch.from_numpy(volume[0]), rtol=2e-3, atol=2e-3)
        assert {tuple(one.shape[2:]) for one in seen} == {(12, 14)}
        padded = np.pad(volume, ((0, 0), (0, 0), (2, 2), (3, 3)))
        assert np.array_equal(seen[0][0, 0], padded[0, 0, :12, :14])

    def test_training_and_prediction_see_the_same(self, tmp_path, monkeypatch):
        """A trained run: the logits that training computes of a validation patch are those of that place in prediction."""
        monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
        monkeypatch.setattr("autoseg.inference.mirroring.autocast", lambda device: contextlib.nullcontext())
        store = write_store(tmp_path / "data", make_plan(make_configuration(2)), ["a", "c"], shape=(1, 12, 12))
        job = make_job(make_plan(valid_configuration(2, mirroring=Mirroring())), "2d", iterations=2, validation_intervals=1)
        folders = RunFolders(tmp_path / "results" / "fold_0", tmp_path / "data")
        write_json(folders.run / "run.json", job)
        trainer = Trainer(job, folders, device=CPU, progress=False)
        network = trainer.fit()
        batch = BatchMaker(job, folders, ["a"], stream=VALIDATION, device=CPU)(0)
        with torch.no_grad():
            expected = network(batch.image).transpose(0, 1)
        found = trainer.predictor(network).logits(Volume(np.asarray(store.load("a").image[:])))
        assert expected.shape == found.shape == (3, 1, 12, 12)
        torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)
        assert load_network(Run(folders.run), job.plan, job.configuration, CPU).surrounded
