"""A home with a trained model whose label maps are known in advance: class k where the intensity is nearest to 100 k.

`Oracle` needs no training; the datasets' channel is called ``noNorm``, so its input is the raw intensity. A test predicts any image of
whole hundreds with it, and knows every voxel of the label map that must be written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.data.images import write_image, write_label
from autoseg.pipeline import PlanSettings, TrainSettings, find_best_configuration, plan_and_preprocess, train
from autoseg.runtime.hardware import StepCost
from autoseg.schema import Geometry

DATASET = "Dataset001_Oracle"
ORGANS = 2
REGIONS = ((1, 2), (2,))
"""Values of the regions ``whole`` and ``core``, in a home of regions."""

CONFIGURATION = {2: "2d", 3: "3d_fullres"}
MODEL = {dim: f"{name}__Trainer__oracle_home.Oracle" for dim, name in CONFIGURATION.items()}


class Oracle(nn.Module):
    """Logits by the distance of the first channel's intensity to 100 k; with `regions` one output for each tuple of values."""

    def __init__(self, *, out_channels: int, deep_supervision: bool = True, regions: Sequence[Sequence[int]] = (), **options: Any) -> None:
        super().__init__()
        self.classes, self.deep_supervision, self.regions = out_channels, deep_supervision, regions
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor]:
        intensity = x[:, :1].float()
        nearness = [-40 * (intensity / 100 - k) ** 2 for k in range(1 + max([self.classes, *(v for r in self.regions for v in r)]))]
        if self.regions:
            outputs = [torch.stack([nearness[value] for value in values]).amax(0) + 10 for values in self.regions]
        else:
            outputs = nearness[: self.classes]
        logits = torch.cat(outputs, 1) + 0 * self.weight
        return (logits,) if self.training and self.deep_supervision else logits


def oracle_case(number: int, dim: int = 3, *, shape: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Image (100 times the label map), label map of the values 0, 1, 2 and geometry of a case; cases differ in where their organs lie."""
    shape = tuple(shape or (20, 24, 28)[-dim:])
    rng = np.random.default_rng([12, number])
    label = np.zeros(shape, np.uint8)
    for value in range(1, ORGANS + 1):
        size = [max(1, n // 4) for n in shape]
        at = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
        label[tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))] = value
    geometry = Geometry(shape, (2.5, 0.8, 0.7)[-dim:], (0.0,) * dim, tuple(np.eye(dim).ravel()))
    return label.astype(np.float32) * 100, label, geometry


def write_oracle_dataset(folder: Path, *, dim: int = 3, regions: bool = False, n: int = 4, ending: str = "") -> Path:
    """A dataset in nnU-Net's layout, ``c0`` ... ``c3``, for `Oracle`."""
    ending = ending or (".nii.gz" if dim == 3 else ".tif")
    for number in range(n):
        image, label, geometry = oracle_case(number, dim)
        write_image(folder / "imagesTr" / f"c{number}_0000{ending}", image[None], geometry)
        write_label(folder / "labelsTr" / f"c{number}{ending}", label, geometry)
    organs = {"whole": list(REGIONS[0]), "core": list(REGIONS[1])} if regions else {"organ1": 1, "organ2": 2}
    info = {"channel_names": {"0": "noNorm"}, "labels": {"background": 0, **organs}, "numTraining": n, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(info | ({"regions_class_order": [1, 2]} if regions else {})))
    return folder


def train_oracle(home: Path, dim: int = 3, *, regions: bool = False, **options: Any) -> Path:
    """Plans the dataset in `home` (number 1) and trains fold 0 of `Oracle` for three iterations. Returns `home`."""
    configuration = CONFIGURATION[dim]
    plan_and_preprocess(1, PlanSettings(configurations=(configuration,), workers=0), home=home)
    network = {"network": "oracle_home:Oracle", "network_options": {"regions": REGIONS} if regions else {}}
    settings = TrainSettings(**{"iterations": 3, "batch": 1, "device": "cpu", **network, **options})
    train(1, configuration, 0, settings, home=home)
    return home


def make_oracle_home(home: Path, dim: int = 3, *, regions: bool = False) -> Path:
    """A home with `write_oracle_dataset`, its trained `Oracle`, and the choice of it."""
    write_oracle_dataset(home / "raw" / DATASET, dim=dim, regions=regions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
        patch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
        train_oracle(home, dim, regions=regions)
        find_best_configuration(1, home=home)
    return home


HomeFactory = Callable[..., Path]


def shared_homes(folder: Path) -> HomeFactory:
    """``homes(dim, regions=...)``: each kind of home is made once, when it is first asked for, and must not be changed by tests."""

    def homes(dim: int = 3, *, regions: bool = False) -> Path:
        home = folder / f"{dim}d{'_regions' if regions else ''}"
        return home if home.exists() else make_oracle_home(home, dim, regions=regions)

    return homes


def copied_homes(shared: HomeFactory, folder: Path) -> HomeFactory:
    """The same, but each call copies the home into `folder`, so that a test may change it."""

    def homes(dim: int = 3, *, regions: bool = False, name: str = "home") -> Path:
        return shutil.copytree(shared(dim, regions=regions), folder / name)

    return homes
