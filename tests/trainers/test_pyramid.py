"""The two phases of pyramid training, and which network it trains."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from factories import make_configuration, make_job, make_plan

from autoseg.inference.trained_model import load_network
from autoseg.schema.run_record import RunRecord
from autoseg.trainers.batches import Batch
from autoseg.trainers.pyramid import PyramidTrainer

CPU = torch.device("cpu")
SMALL = {"features": [4, 8], "norm": "instance"}
pytestmark = pytest.mark.usefixtures("no_pictures")


def job_of(options=None, *, dim=2, **training) -> RunRecord:
    configuration = PyramidTrainer.configure(make_configuration(dim), make_plan(), options or {})
    configuration = dataclasses.replace(configuration, network_options=configuration.network_options | SMALL)
    job = make_job(make_plan(configuration), configuration.name, supervision="pyramid", **training)
    return dataclasses.replace(job, trainer="PyramidTrainer", trainer_options=options or {})


def trainer_of(job: RunRecord, folders) -> PyramidTrainer:
    return PyramidTrainer(job, folders, device=CPU, progress=False)


class TestConfigure:
    def test_the_planned_network_becomes_a_pyramid_on_the_planned_strides(self):
        strides = [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 4]
        planned = make_configuration(network_options={"strides": strides, "features": [32] * 6})
        configuration = PyramidTrainer.configure(planned, make_plan(), {})
        assert configuration.network == "pipo_fan"
        assert configuration.network_options == {"strides": strides[:5], "features": [64, 128, 256, 512, 512]}
        assert configuration.patch_multiple == (8, 16, 16)
        assert PyramidTrainer.configure(make_configuration(2), make_plan(), {}).network_options["features"] == [64, 128]

    def test_of_slices_with_a_fixed_number_of_pixels_it_has_the_papers_levels(self):
        """What was planned is for slices of another size, and gave small images a smaller network than its ablations."""
        configuration = PyramidTrainer.configure(make_configuration(2, slice_shape=(64, 64)), make_plan(), {})
        assert configuration.network_options == {"strides": [[1, 1], *[[2, 2]] * 4], "features": [64, 128, 256, 512, 512]}
        assert configuration.patch_multiple == (16, 16)

    def test_a_network_that_was_asked_for_is_kept_if_it_can_fuse(self):
        asked = {"patch_multiple": (2, 2), "network": "pipo_fan", "network_options": {"input_scales": 3, "output_scales": 2}}
        configuration = make_configuration(2, **asked)
        assert PyramidTrainer.configure(configuration, make_plan(), {}) is configuration
        for network, options, message in (("vgg16_unet", {}, "got 'vgg16_unet'"), ("pipo_fan", {"output_scales": 1}, "adaptive fusion")):
            changed = dataclasses.replace(configuration, network=network, network_options=options)
            with pytest.raises(ValueError, match=message):
                PyramidTrainer.configure(changed, make_plan(), {})

    def test_all_scales_count_alike(self):
        assert PyramidTrainer.suited_options(job_of().options, long_run=True).supervision == "pyramid"


class TestPhases:
    @pytest.mark.parametrize(("share", "first_phase"), [(0.5, 5), (0.0, 0), (0.75, 8), (0.99, 10)])
    def test_the_first_steps_supervise_all_scales_and_the_others_the_fused_map(self, folders, share, first_phase):
        trainer, seen = trainer_of(job_of({"fusion_from": share}, iterations=10, validation_intervals=1), folders), []
        loss = trainer.loss

        def noting(outputs, *rest):
            seen.append((trainer.network.fusing, 1 if isinstance(outputs, torch.Tensor) else len(outputs)))
            return loss(outputs, *rest)

        trainer.loss = noting
        trainer.fit()
        assert seen[:10] == [(False, 2)] * first_phase + [(True, 1)] * (10 - first_phase)

    @pytest.mark.parametrize("average", [0.0, 0.9])
    def test_validation_uses_the_finest_scale_first_and_the_fused_map_then(self, folders, average):
        trainer = trainer_of(job_of(iterations=8, validation_intervals=4, average_decay=average), folders)
        score, fused = trainer._score_patches, []
        trainer._score_patches = lambda: fused.append(trainer.final_network().fusing) or score()
        assert trainer.fit().fusing
        assert fused == [False, False, True, True]
        assert trainer.final_network() is (trainer.optimized.average if average else trainer.network)

    def test_the_fusions_weights_wait_for_the_second_phase(self, folders):
        trainer = trainer_of(job_of(iterations=4, validation_intervals=2), folders)
        step, moved = trainer.step, []

        def noting(batch: Batch) -> dict[str, torch.Tensor]:
            before = [parameter.detach().clone() for parameter in trainer.network.fusion.parameters()]
            values = step(batch)
            moved.append(any(not torch.equal(a, b) for a, b in zip(before, trainer.network.fusion.parameters(), strict=True)))
            return values

        trainer.step = noting
        trainer.fit()
        assert moved == [False, False, True, True]

    @pytest.mark.parametrize("supervision", ["pyramid", "deep"])
    def test_every_score_map_that_is_fused_later_is_supervised_in_the_first_phase(self, folders, supervision):
        job = job_of({"fusion_from": 0.9}, iterations=2, validation_intervals=1)
        trainer = trainer_of(dataclasses.replace(job, options=dataclasses.replace(job.options, supervision=supervision)), folders)
        heads, descend = [], trainer.descend

        def noting(loss):
            descend(loss)
            heads.append([bool(parameter.grad.any()) for head in trainer.network.decoder.heads for parameter in head.parameters()])

        trainer.descend = noting
        trainer.fit()
        assert len(trainer.network.decoder.heads) == 2 and all(heads[0])

    def test_what_is_built_from_the_checkpoint_predicts_the_same_fused_map(self, folders):
        job = job_of(iterations=4, validation_intervals=2)
        network, read = (trainer_of(job, folders).fit() for _ in range(2))
        x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        loaded = load_network(folders.files, job.plan, job.configuration, CPU)
        with torch.no_grad():
            assert torch.equal(network(x), read(x))
            assert torch.equal(network(x), loaded(x))
            network.set_fusing(False)
            assert not torch.equal(network(x), read(x))
