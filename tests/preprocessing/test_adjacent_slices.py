"""2.5D: which slices are seen, in which order, in training as in prediction."""

from __future__ import annotations

from dataclasses import replace

import factories
import numpy as np
import pytest
import torch
from factories import make_case, make_configuration, make_job, make_plan, write_store

from autoseg.inference.predictor import Predictor
from autoseg.inference.volume_predictor import Volume
from autoseg.planners.configurations import default_configurations, selected_configurations
from autoseg.planners.patch import PRESETS
from autoseg.planners.plan import PlanningInput, plan_configurations
from autoseg.preprocessing.adjacent_slices import adjacent_slice_indices, repeat_per_slice
from autoseg.preprocessing.storage import Store
from autoseg.schema import Mirroring
from autoseg.schema.training_options import AugmentationOptions
from autoseg.trainers import batches as module
from autoseg.trainers.augmentation.augment import Augmentation, draw
from autoseg.trainers.batches import TRAINING, VALIDATION, BatchMaker
from autoseg.trainers.patch_sampling import Sample
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.slice_patches import read_slices, repeated
from autoseg.trainers.trainer import Trainer

CPU = torch.device("cpu")
SEEING = make_configuration(2, name="2.5d", slices=3)


@pytest.mark.parametrize(
    ("z", "slices", "depth", "seen"),
    [(4, 3, 10, [3, 4, 5]), (0, 3, 10, [0, 0, 1]), (9, 3, 10, [8, 9, 9]), (1, 5, 3, [0, 0, 1, 2, 2]), (0, 3, 1, [0, 0, 0]), (7, 1, 9, [7])],
)
def test_neighbours_repeat_the_last_slice_beyond_the_volume(z, slices, depth, seen):
    assert adjacent_slice_indices(z, slices, depth) == seen


@pytest.mark.parametrize(("z", "slices"), [(0, 0), (0, 2), (0, -1), (-1, 3), (3, 3)])
def test_what_makes_no_sense_is_refused(z, slices):
    with pytest.raises(ValueError, match="slices: expected an odd" if z == 0 else "slice: expected 0 to 2"):
        adjacent_slice_indices(z, slices, 3)


def test_values_of_a_channel_count_for_its_slices():
    assert repeat_per_slice((1, None), 3) == (1, 1, 1, None, None, None)
    assert repeat_per_slice((), 3) == ()


class TestTraining:
    @pytest.mark.parametrize("z", [0, 4, 9])
    def test_all_slices_of_a_channel_lie_together(self, tmp_path, z):
        stored = write_store(tmp_path, make_plan(SEEING, channels=("MR", "T2")), ("a",)).load("a")
        image, labels = make_case(0)
        patch, around = read_slices(stored, ((z, z + 1), (2, 9), (-1, 6)), 3)
        assert patch.shape == (6, 7, 7)
        for channel in range(2):
            for place, seen in enumerate(adjacent_slice_indices(z, 3, 10)):
                assert np.array_equal(patch[3 * channel + place][:, 1:], image[0, seen, 2:9, :6])
                assert np.array_equal(around[place][:, 1:], labels[seen, 2:9, :6])
        assert (patch[:, :, 0] == 0).all()
        assert (around[:, :, 0] == -1).all()

    def batch(self, folders, monkeypatch, z, stream=VALIDATION, **changes):
        monkeypatch.setattr(module, "draw_sample", lambda *_, load_size, **__: Sample("a", ((z, z + 1), *((3, 3 + n) for n in load_size))))
        job = make_job(make_plan(replace(SEEING, **changes)), "2.5d")
        return BatchMaker(job, folders, ("a",), stream=stream, device=CPU)(0)

    @pytest.mark.parametrize("z", [0, 5, 9])
    def test_a_batch_has_the_neighbours_as_channels_and_the_middle_ones_labels(self, folders, monkeypatch, z):
        batch = self.batch(folders, monkeypatch, z)
        stored = Store(folders.data).load("a")
        assert batch.image.shape == (2, 3, 8, 8)
        expected = np.asarray(stored.image[:])[0, adjacent_slice_indices(z, 3, 10), 3:11, 3:11]
        assert np.array_equal(batch.image[0].numpy(), expected)
        assert np.array_equal(batch.segmentation[0].numpy(), np.asarray(stored.segmentation[:])[z, 3:11, 3:11])

    def test_the_middle_slice_is_augmented_as_in_2d_and_the_others_like_it(self, folders, monkeypatch):
        noiseless = AugmentationOptions(noise_probability=0.0)
        jobs = [make_job(make_plan(one), one.name, augmentation=noiseless) for one in (SEEING, make_configuration(2))]
        seen, plane = (BatchMaker(job, folders, ("a",), stream=TRAINING, device=CPU) for job in jobs)
        for number in range(6):
            one, other = seen(number), plane(number)
            torch.testing.assert_close(one.image[:, 1:2], other.image, rtol=1e-5, atol=1e-5)
            assert torch.equal(one.segmentation, other.segmentation)

    def test_draws_are_one_a_channel_and_alike_for_its_slices(self):
        options = AugmentationOptions(blur_probability=1.0, gamma_probability=1.0, brightness_probability=0.0)
        labels = factories.labels(ball=1)
        drawn = draw(np.random.default_rng(0), options, patch_size=(8, 8), channels=2, mirroring=Mirroring(), labels=labels)
        many = repeated(drawn, 3)
        assert many.gamma == tuple(drawn.gamma[channel] for channel in (0, 0, 0, 1, 1, 1))
        assert len(many.blur) == 6
        assert many.brightness == ()
        assert (many.matrix, many.flips, many.noise_seed) == (drawn.matrix, drawn.flips, drawn.noise_seed)
        assert repeated(Augmentation((8, 8)), 3) == Augmentation((8, 8))

    def test_each_slice_is_zero_outside_its_own_mask(self, tmp_path, monkeypatch):
        plan = make_plan(SEEING)
        store = write_store(tmp_path / "data", plan, ("a",))
        case = store.load("a")
        labels = np.asarray(case.segmentation[:]).copy()
        labels[4, :7], labels[6, 7:] = -1, -1
        store.write("a", np.ones((1, *labels.shape), np.float32), labels, case.trace, dict(case.locations))
        where = RunFolders(tmp_path / "run", tmp_path / "data")
        batch = self.batch(where, monkeypatch, 5, mask_normalization=(True,))
        expected = torch.ones(3, 8, 8)
        expected[0, :4], expected[2, 4:] = 0, 0  # rows 3 to 10 of the slices
        assert torch.equal(batch.image[0], expected)
        assert batch.segmentation.shape == (2, 8, 8)
        plain = self.batch(where, monkeypatch, 5)
        assert torch.equal(plain.image[0], torch.ones(3, 8, 8))

    @pytest.mark.usefixtures("no_pictures")
    def test_a_training_learns_and_its_network_has_three_times_the_channels(self, folders):
        job = make_job(make_plan(SEEING), "2.5d", iterations=60, validation_intervals=2, learning_rate=2e-2)
        trainer = Trainer(job, folders, device=CPU, progress=False)
        network = trainer.fit()
        assert trainer.history.rows[-1]["train_loss"] < trainer.history.rows[0]["train_loss"]
        assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)


class TestPrediction:
    def predictor(self, network, **changes) -> Predictor:
        return Predictor([network], replace(SEEING, **changes), factories.labels(ball=2, block=5), device=CPU)

    @pytest.mark.parametrize("shape", [(5, 8, 8), (1, 6, 9), (2, 13, 8)])
    def test_a_volume_is_what_the_network_says_slice_by_slice(self, shape, monkeypatch):
        monkeypatch.setattr("autoseg.runtime.hardware.autocast_dtype", lambda _: None)  # the same numbers on processors with bf16
        network = torch.nn.Conv2d(6, 3, 1)
        image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        found = self.predictor(network, normalization=("zscore",) * 2, mask_normalization=(False,) * 2).logits(Volume(image))
        for z in range(shape[0]):
            tile = torch.cat([image[channel, adjacent_slice_indices(z, 3, shape[0])] for channel in range(2)])
            with torch.no_grad():
                torch.testing.assert_close(found[:, z].float(), network(tile[None])[0], rtol=2e-3, atol=2e-3)

    def test_flips_are_in_the_plane_and_exchange_sides_as_in_2d(self):
        """A network that says where it is on the lateral axis, whatever the image: the mirrored answer cancels it."""
        sides = torch.linspace(-1, 1, 8).expand(8, 8)

        def network(x: torch.Tensor) -> torch.Tensor:
            return torch.stack([0 * sides, sides, -sides]).expand(len(x), 3, 8, 8) + x[:, 1:2] * 0

        mirroring = Mirroring((0, 1), 1, ((0, 1),))
        found = self.predictor(network, mirroring=mirroring).logits(Volume(torch.zeros(1, 2, 8, 8)))
        torch.testing.assert_close(found[:, 0].float(), torch.stack([0 * sides, sides, -sides]), rtol=2e-3, atol=2e-3)


class TestPlan:
    def planned(self, shape):
        spacing = (1.0,) * len(shape)
        given = PlanningInput(n_cases=20, label_keys=3, channels=("CT",), spacing=spacing, shape=shape, relative_size=1.0)
        return plan_configurations(given, PRESETS["default"], 8)

    def test_it_comes_last_as_2d_with_three_slices(self):
        planned, reasons = self.planned((60, 80, 80))
        assert list(planned)[-1] == "2.5d"
        assert planned["2.5d"] == replace(planned["2d"], name="2.5d", slices=3)
        assert planned["2.5d"].data == "2d"
        assert [reason.value for reason in reasons if reason.configuration == "2.5d"] == ["as 2d"]

    @pytest.mark.parametrize("shape", [(1, 80, 80), (80, 80)])
    def test_images_of_one_slice_do_not_get_it(self, shape):
        assert list(self.planned(shape)[0]) == ["2d"]

    def test_it_is_trained_only_where_it_is_named(self):
        plan = make_plan(make_configuration(2), make_configuration(), SEEING)
        assert default_configurations(plan) == ["2d", "3d_fullres"]
        assert selected_configurations(None, plan) == ["2d", "3d_fullres"]
        assert selected_configurations(("2.5d",), plan) == ["2.5d"]
        assert plan.in_channels(SEEING) == 3
        assert make_plan(SEEING, channels=("T1", "T2")).in_channels(SEEING) == 6
