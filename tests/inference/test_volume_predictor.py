"""The path from a preprocessed case to its logits: what the predictor gets to see."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import patch_configuration, random_image, random_label_map, whole_trace

from autoseg.inference.candidate_region import dilated
from autoseg.inference.trained_model import LOADERS
from autoseg.inference.volume_predictor import Volume, predict_preprocessed, scaled
from autoseg.runtime.registry import lookup
from autoseg.schema import CandidateRegion

SHAPE = (6, 7, 8)


@pytest.mark.parametrize("sees_previous", [False, True])
@pytest.mark.parametrize("radius", [None, 1])
def test_the_previous_stage_gives_the_region_and_only_where_it_is_seen_the_label_map(sees_previous, radius):
    volumes, organs = [], (random_label_map(*SHAPE) == 3).astype(np.int16)
    predictor = SimpleNamespace(logits=lambda volume, progress: volumes.append(volume) or torch.zeros(2, *SHAPE))
    region = None if radius is None else CandidateRegion("previous", radius)
    configuration = replace(patch_configuration((8, 8, 8), previous="3d_lowres"), region=region, previous_input=sees_previous)
    logits = predict_preprocessed(predictor, configuration, Volume(random_image(*SHAPE), organs, case="c"), whole_trace(SHAPE))
    (volume,) = volumes
    assert logits.trace == whole_trace(SHAPE)
    assert volume.case == "c"
    assert (volume.previous is organs) == sees_previous
    assert volume.region is None if radius is None else np.array_equal(volume.region, dilated(organs > 0, radius))


def test_progress_of_a_part_is_its_share_of_the_whole():
    shares = []
    scaled(shares.append, 0.25)(0.5)
    assert shares == [0.125]
    assert scaled(None, 0.25) is None


@pytest.mark.parametrize("kind", LOADERS)
def test_every_kind_of_model_folder_has_a_loader(kind):
    assert callable(lookup(LOADERS, kind, "kind of model"))
