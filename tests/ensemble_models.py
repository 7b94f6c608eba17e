"""Models for ensembles to combine, with random weights, whose kept validation says whatever a test wants it to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data
import torch
from factories import write_random_network

import autoseg
from autoseg.data.images import read_label
from autoseg.data.label_subsets import translate_labels
from autoseg.evaluation.case_scores import score_case
from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import load_logits, save_logits
from autoseg.pipeline import EnsembleSettings, PlanSettings, PredictSettings, train_ensemble
from autoseg.preprocessing.storage import Store
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import ModelFolder, Run
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Budget, Configuration, Plan, Score, Split
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.schema.training_options import TrainingOptions
from autoseg.trainers.training_spec import of_organs

NAME = "Dataset003_Tiny"
SURE = 4.0
"""Logit of a model that knows."""

Says = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From the true mask of an organ ``(Z, Y, X)`` to the logit of that organ."""

Planned = Callable[[Configuration], Configuration]
"""From the planned configuration to that of a model."""


def right(sure: float = SURE) -> Says:
    return lambda mask, rng: np.where(mask, sure, -sure)


def wrong_in_a_corner(sure: float = SURE) -> Says:
    """Sees the organ also where it is not, and is sure of it."""

    def say(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen = mask.copy()
        seen[:, : mask.shape[1] // 3, : mask.shape[2] // 3] = True
        return np.where(seen, sure, -sure)

    return say


def speckled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One voxel in five is wrong, as surely as the others are right."""
    return np.where(mask ^ (rng.random(mask.shape) < 0.2), SURE, -SURE)


def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For a fixture of a module: ten patients, planned and preprocessed for 2d, and one more to predict; plots are left out."""
    home = tmp_path_factory.mktemp("ensembles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
        data.make_volumes(home / "raw" / NAME, n_train=10, n_test=1, numTraining=10, groups=None)
        autoseg.plan_and_preprocess(3, PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0), home=home)
        yield home


def linked_home(planned: Path, tmp_path: Path) -> Path:
    """For a fixture: the same data, nothing trained; what ensembles preprocess is removed afterwards."""
    for part in ("raw", "preprocessed"):
        (tmp_path / part).symlink_to(planned / part)
    return tmp_path


def results(home: Path) -> Path:
    return home / "results" / NAME


def splits(home: Path) -> list[Split]:
    return read_json(home / "preprocessed" / NAME / "splits.json", list[Split])


def small(configuration: Configuration) -> Configuration:
    grid = {"strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    options = {"features": [4, 8], "convs_per_stage": [1, 1], "decoder_convs": [1], **grid}
    return replace(configuration, network_options=options, patch_size=(16, 16), batch_size=2)


def add_model(home: Path, organs: Mapping[str, Says], *, tag: str = "", folds: str = "01234", seen: Planned = small) -> str:
    """A model with random weights that, so its validation says, segments `organs` as told. Returns its name."""
    plan, word = of_organs(read_json(home / "preprocessed" / NAME / "plan.json", Plan), tuple(organs))
    one = seen(plan.configurations["2d"])
    name = "__".join(filter(None, ("2d", "Trainer", word, tag)))
    store = Store(home / "preprocessed" / NAME / "2d")
    write_json(results(home) / "plan.json", read_json(home / "preprocessed" / NAME / "plan.json", Plan))
    for fold in folds:
        run, split, scores = results(home) / name / f"fold_{fold}", splits(home)[int(fold)], []
        settings = TrainSettings(organs=tuple(organs), tag=tag)
        job = RunRecord(plan, one, fold, split, Budget("iterations", 1, 1), 0, TrainingOptions(), settings=settings)
        for case in split.val:
            stored = store.load(case)
            truth = translate_labels(np.asarray(stored.segmentation[:]), plan.stored_labels, plan.labels)
            rng = np.random.default_rng([int(fold), *case.encode()])
            ratios = [say(truth == value, rng) for value, say in enumerate(organs.values(), start=1)]
            logits = Logits(torch.from_numpy(np.stack([np.zeros(truth.shape), *ratios])), stored.trace)
            save_logits(run / "validation", case, logits, plan.labels)
            found = export_labels([load_logits(run / "validation", case)], plan.labels)
            reference = read_label(home / "raw" / NAME / "labelsTr" / f"{case}.nii.gz").array
            reference = np.select([reference == member[0] for member in plan.labels.members], range(1, len(organs) + 1), 0)
            scores += score_case(case, found, reference, plan.labels, spacing_mm=stored.trace.geometry.spacing)
        write_json(run / "validation" / "scores.json", scores)
        torch.manual_seed(int(fold))
        write_random_network(run, job)
    return name


def fit(home: Path, kind: str, *members: str, **settings: object) -> dict[str, list[Score]]:
    return train_ensemble(3, EnsembleSettings(kind=kind, members=members, device="cpu", **settings), home=home)


def mean(scores: list[Score], organ: str) -> float:
    return float(np.nanmean([score.dice for score in scores if score.organ == organ]))


def stored_mean(home: Path, model: str, organ: str, fold: str) -> float:
    return mean(ModelFolder(results(home) / model).run(fold).scores(), organ)


def folder_of(home: Path, kind: str) -> Path:
    (found,) = results(home).glob(f"ensemble__{kind.capitalize()}*")
    return found


def run_of(home: Path, kind: str, fold: str = "0") -> Run:
    return ModelFolder(folder_of(home, kind)).run(fold)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoint)[0]["network"]


def predict(home: Path, out: Path, *, case: str = "case_10", **settings: object) -> np.ndarray:
    asked = PredictSettings(mirror=False, device="cpu", **settings)
    image = home / "raw" / NAME / "imagesTs" / f"{case}_0000.nii.gz"
    assert autoseg.predict_folder(image, out, asked, home=home) == {}
    return read_label(out / f"{case}.nii.gz").array
