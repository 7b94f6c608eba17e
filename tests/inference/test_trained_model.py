"""Trained models on disk: loaded once, run once, both stages of a cascade in one call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import make_configuration, make_geometry, make_job, make_plan, random_image, write_random_network

from autoseg.inference.ensemble import Ensemble
from autoseg.inference.trained_model import InferenceOptions, load_model
from autoseg.schema import Choice, Image

CPU = torch.device("cpu")
OPTIONS = InferenceOptions(("0",), mirror=False)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A first stage and the cascade that follows it, with random weights."""
    first = make_configuration(name="3d_lowres", data="3d_lowres")
    second = make_configuration(name="3d_cascade", previous_stage="3d_lowres")
    plan = make_plan(first, second)
    for configuration, previous in ((first, None), (second, "3d_lowres__Trainer")):
        record = dataclasses.replace(make_job(plan, configuration.name), previous_model=previous)
        write_random_network(tmp_path / f"{configuration.name}__Trainer" / "fold_0", record)
    return tmp_path


IMAGE = Image(random_image(10, 12, 11), make_geometry((10, 12, 11)))


def test_a_first_stage_that_is_a_member_too_is_loaded_and_run_once(results, monkeypatch):
    loaded = {}
    names = ("3d_cascade__Trainer", "3d_lowres__Trainer")
    cascade, lowres = (load_model(results / name, CPU, OPTIONS, loaded=loaded) for name in names)
    assert cascade.previous is lowres
    choice = Choice({"ball": names[:1], "block": names[1:]}, ("0",), {}, 0)
    ensemble = Ensemble(choice, dict(zip(names, (cascade, lowres), strict=True)), cascade.plan.labels)
    predicted, shares, preprocessed = [], [], type(lowres).preprocessed
    monkeypatch.setattr(type(lowres), "preprocessed", lambda self, *rest: predicted.append(self.name) or preprocessed(self, *rest))
    together = ensemble.logits(IMAGE, progress=shares.append)
    assert sorted(predicted) == sorted(names)
    assert sum(shares) == pytest.approx(1)
    for name, model in ensemble.models.items():
        assert np.array_equal(np.asarray(together[name].array), np.asarray(model.logits(IMAGE).array))


def test_folds_that_are_not_trained_are_named(results):
    with pytest.raises(ValueError, match="folds 3.*0"):
        load_model(results / "3d_lowres__Trainer", CPU, InferenceOptions(("3",)))
