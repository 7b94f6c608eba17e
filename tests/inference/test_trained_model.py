"""Trained models on disk: loaded once, run once, both stages of a cascade in one call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import make_geometry

from autoseg.inference.ensemble import Ensemble
from autoseg.inference.trained_model import InferenceOptions, load_model
from autoseg.networks import build_network
from autoseg.runtime.checkpoints import save_checkpoint
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.schema import Choice, Image

CPU = torch.device("cpu")
OPTIONS = InferenceOptions(("0",), mirror=False)


@pytest.fixture
def results(tmp_path: Path, tiny_plan, tiny_configuration, tiny_job) -> Path:
    """A first stage and the cascade that follows it, with random weights."""
    first = tiny_configuration(name="3d_lowres", data="3d_lowres")
    second = tiny_configuration(name="3d_cascade", previous_stage="3d_lowres")
    plan = tiny_plan(first, second)
    for configuration in (first, second):
        job = dataclasses.replace(
            tiny_job(plan, configuration.name), previous_model="3d_lowres__Trainer" if configuration is second else None
        )
        fold = tmp_path / f"{configuration.name}__Trainer" / "fold_0"
        write_json(fold / "run.json", job)
        network = build_network(
            configuration.network,
            dim=3,
            in_channels=plan.in_channels(configuration),
            out_channels=plan.labels.n_outputs,
            **configuration.network_options,
        )
        save_checkpoint(fold / FINAL_CHECKPOINT, {"network": network.state_dict()}, {})
    return tmp_path


def an_image() -> Image:
    array = np.random.default_rng(0).normal(size=(1, 10, 12, 11)).astype(np.float32)
    return Image(array, make_geometry((10, 12, 11)))


def test_a_first_stage_that_is_a_member_too_is_loaded_and_run_once(results, monkeypatch):
    loaded = {}
    names = ("3d_cascade__Trainer", "3d_lowres__Trainer")
    cascade, lowres = (load_model(results / name, CPU, OPTIONS, loaded=loaded) for name in names)
    assert cascade.previous is lowres
    ensemble = Ensemble(
        Choice({"ball": names[:1], "block": names[1:]}, ("0",), {}, 0),
        dict(zip(names, (cascade, lowres), strict=True)),
        cascade.plan.labels,
    )
    predicted, shares, preprocessed = [], [], type(lowres).preprocessed
    monkeypatch.setattr(type(lowres), "preprocessed", lambda self, *rest: predicted.append(self.name) or preprocessed(self, *rest))
    together = ensemble.logits(an_image(), progress=shares.append)
    assert sorted(predicted) == sorted(names)
    assert sum(shares) == pytest.approx(1)
    for name, model in ensemble.models.items():
        assert np.array_equal(np.asarray(together[name].array), np.asarray(model.logits(an_image()).array))


def test_without_a_cache_every_model_is_loaded_anew(results):
    one, other = (load_model(results / "3d_lowres__Trainer", CPU, OPTIONS) for _ in range(2))
    assert one is not other
    assert one.key == other.key


def test_folds_that_are_not_trained_are_named(results):
    with pytest.raises(ValueError, match="folds 3.*0"):
        load_model(results / "3d_lowres__Trainer", CPU, InferenceOptions(("3",)))
