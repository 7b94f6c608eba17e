"""The examples of CONTRIBUTING.md run as they stand there, and satisfy what their built-in siblings must satisfy."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import test_metrics as metric_contract
import torch
from network_contract import NetworkContract, PlannedNetworkContract

from autoseg.evaluation.metrics import METRICS, find_metric
from autoseg.networks import NETWORKS, NetworkSpec, network_spec
from autoseg.pipeline.network_table import list_networks
from autoseg.planners.patch import Setting, plan_size
from autoseg.runtime.registry import import_object
from autoseg.schema.settings import TrainSettings
from autoseg.selection.candidates import candidates_for
from autoseg.selection.evidence import Comparison
from autoseg.trainers.training_spec import training_spec

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"
NETWORK = "my_networks:DropoutUNet"


def blocks() -> list[tuple[str, str]]:
    """Every block of Python and its file: the last ``my_*.py`` that the text since the block before names, or nothing."""
    text, found, start = CONTRIBUTING.read_text(), [], 0
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        names = re.findall(r"`(my_\w+\.py)`", text[start : match.start()])
        found.append((names[-1] if names else "", match[1]))
        start = match.end()
    return found


@pytest.fixture(autouse=True, scope="module")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The files of the examples, where Python finds them."""
    folder = tmp_path_factory.mktemp("examples")
    files = {name: code for name, code in blocks() if name}
    for name, code in files.items():
        (folder / name).write_text(code)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(folder))
    for name in files:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.parametrize(("name", "dim"), [(NETWORK, 2), (NETWORK, 3)])
class TestNetwork(NetworkContract, PlannedNetworkContract):
    """The network satisfies the contract of planned networks."""


def test_the_network_is_listed_planned_and_trained(tiny_plan) -> None:
    assert [row.problem for row in list_networks([NETWORK])] == ["", ""]
    setting = Setting(import_object("my_presets:dropout"), 8.0, 3)
    assert plan_size((1.0, 1.0), (64, 64), 1e9, setting).network_options["convs_per_stage"]
    settings = TrainSettings(network=NETWORK, network_options={"dropout": 0.3})
    planned, trained = tiny_plan().configurations["3d_fullres"], training_spec(tiny_plan(), "3d_fullres", settings).configuration
    assert (trained.network, trained.network_options) == (NETWORK, planned.network_options | {"dropout": 0.3})


def test_the_networks_entry_says_what_is_known_of_the_class() -> None:
    (entry,) = [code for _, code in blocks() if code.startswith('"dropout_unet"')]
    spec = eval(f"{{{entry}}}", {"NetworkSpec": NetworkSpec})["dropout_unet"]
    assert dataclasses.replace(spec, factory=NETWORK, paper="") == network_spec(NETWORK)
    assert "dropout_unet" not in NETWORKS


CHECKS = {name: inspect.signature(check).parameters for name, check in vars(metric_contract).items() if name.startswith("test_")}
"""Checks of the contract of metrics, and what each takes; ``share`` is a metric that counts voxels."""


@pytest.mark.parametrize("spacing", metric_contract.VALUES["spacing"], ids=str)
@pytest.mark.parametrize(
    ("metric", "check"),
    [("my_metrics:fowlkes_mallows", check) for check in CHECKS]
    + [("my_metrics:rms", check) for check, parameters in CHECKS.items() if "share" not in parameters],
)
def test_the_metrics_satisfy_the_contract(metric: str, check: str, spacing: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_metric(metric)
    monkeypatch.setitem(METRICS, metric, dataclasses.replace(spec, title=metric))
    arguments = {"name": metric, "judging": metric, "share": metric, "spacing": spacing}
    getattr(metric_contract, check)(**{name: arguments[name] for name in CHECKS[check]})


@pytest.mark.parametrize("trainer", ["my_options:RAdamTrainer", "my_trainers:NoisyTrainer"])
def test_loss_optimiser_and_trainers_take_steps(trainer: str, tiny_plan, tiny_job, folders) -> None:
    job = dataclasses.replace(tiny_job(tiny_plan(), iterations=2, validation_intervals=1), trainer=trainer)
    built = import_object(trainer)(job, folders, device=torch.device("cpu"), progress=False)
    before = {key: tensor.clone() for key, tensor in built.network.state_dict().items()}
    trained = built.fit().state_dict()
    assert any(not torch.equal(before[key], tensor) for key, tensor in trained.items())
    assert all(torch.isfinite(tensor).all() for tensor in trained.values())


def test_the_rule_chooses() -> None:
    values = {"2d": np.array([0.9, 0.1]), "3d_fullres": np.array([0.5, 0.4])}
    comparison = Comparison(tuple(candidates_for(list(values))[:2]), values, ("a", "b"))
    winner, reason = import_object("my_rules:best_worst_case")(comparison)
    assert winner.name == "3d_fullres"
    assert "0.4" in reason
