"""Conze's family: which of its models are trained, and which are not run for want of ImageNet's weights."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from factories import write_dataset

from autoseg.networks import build_network
from autoseg.networks.imagenet import FILES
from autoseg.networks.vgg_unet import vgg16_unet, vgg19_unet
from autoseg.presets import PAPER_PRESETS
from autoseg.presets.experiment import describe_not_run, experiment

FAMILY = ["UNet", "v16UNet", "v16pUNet", "v19UNet", "v19pUNet", "v19pUNet+", "UNet1-1"]
FAMILY += ["v16pUNet1-1", "v19pUNet1-1", "cGv16pUNet1-1", "cGv19pUNet1-1"]
WITHOUT = ["UNet", "v16UNet", "v19UNet", "UNet1-1"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a tiny dataset, on a computer without a connection and with an empty cache of torch."""
    write_dataset(tmp_path / "raw" / "Dataset001_Tiny")

    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    return tmp_path


def write_weights(folder: Path) -> Path:
    """Made-up weights with the shapes and names of the public files."""
    folder.mkdir(parents=True)
    for vgg, factory in {"vgg16": vgg16_unet, "vgg19": vgg19_unet}.items():
        with torch.device("meta"):
            shapes = factory(dim=2, in_channels=3, out_channels=1).encoder.state_dict()
        weights = {key: torch.tensor(float(i + 1)).expand(one.shape) for i, (key, one) in enumerate(shapes.items())}
        torch.save(weights | {"classifier.0.bias": torch.zeros(3)}, folder / FILES[vgg])
    return folder


def test_without_the_files_pretrained_models_are_not_run_and_never_trained_under_their_names(home: Path) -> None:
    found = experiment("conze2021", 1, home=home, seconds=300.0)
    assert list(found.rows) == WITHOUT * 2 and [one.organs for one in found.trainings] == [("ball",)] * 4 + [("block",)] * 4
    assert list(found.not_run) == [name for name in FAMILY if "p" in name]
    lines = describe_not_run(found)
    assert [line.partition(": ")[0] for line in lines] == [
        "v16pUNet, v16pUNet1-1, cGv16pUNet1-1",
        "v19pUNet, v19pUNet+, v19pUNet1-1, cGv19pUNet1-1",
    ]
    assert all(FILES[vgg] in line and str(home / "hub/checkpoints") in line for vgg, line in zip(FILES, lines, strict=True))
    assert not any(one.network_options for one in found.trainings) and {one.tag for one in found.trainings} == set(WITHOUT)


def test_each_file_is_looked_for_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is not there may take minutes to fail."""
    tried = []

    def fail(url: str, **_: object) -> None:
        tried.append(url.rpartition("/")[2])
        raise URLError("timed out")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    assert len(experiment("conze2021", 1, home=home, seconds=300.0).not_run) == 7
    assert sorted(tried) == sorted(FILES.values())


def test_with_the_files_all_are_run(home: Path) -> None:
    folder = write_weights(home / "weights")
    found = experiment("conze2021", 1, home=home, organs=("ball",), network_options={"pretrained": str(folder)})
    assert list(found.rows) == FAMILY and not found.not_run
    for name, one in zip(found.rows, found.trainings, strict=True):
        assert one.network_options == ({"pretrained": str(folder)} if "p" in name else {}), name
        assert one.trainer == ("AdversarialTrainer" if name.startswith("cG") else "Trainer")
        assert one.sigmoid and one.tag == name.replace("+", "plus")
    write_weights(home / "hub" / "checkpoints")
    assert list(experiment("conze2021", 1, home=home, organs=("ball",)).rows) == FAMILY


def test_switched_off_pretraining_does_not_train_them_without(home: Path) -> None:
    write_weights(home / "hub" / "checkpoints")
    found = experiment("conze2021", 1, home=home, organs=("ball",), network_options={"pretrained": None})
    assert list(found.rows) == WITHOUT and len(found.not_run) == 7
    with pytest.raises(ValueError, match="none of its models can be trained: v16pUNet: .*pretrained=None was given"):
        experiment("conze2021", 1, home=home, models=["v16pUNet"], network_options={"pretrained": None})


def test_some_of_the_models(home: Path) -> None:
    assert list(experiment("conze2021", 1, home=home, organs=("ball",), models=["UNet1-1", "UNet"]).rows) == ["UNet", "UNet1-1"]
    with pytest.raises(ValueError, match="model of the paper: expected one of .*Did you mean 'v16UNet'"):
        experiment("conze2021", 1, home=home, models=["v16UNett"])
    with pytest.raises(ValueError, match="expected with --preset"):
        experiment(None, 1, home=home, models=["UNet"])
    for other in ({"network": "vgg16_unet"}, {"trainer": "AdversarialTrainer"}):
        with pytest.raises(ValueError, match="--models UNet: none of them has the network, trainer and pre-training that were named"):
            experiment("conze2021", 1, home=home, models=["UNet"], **other)
    assert experiment("conze2021", 1, home=home, organs=("ball", "block"), models=["UNet"]).rows == ("UNet",) * 2, "a model an organ"
    (vnet,) = experiment("conze2021", 1, home=home, organs=("ball",), network="vnet").trainings
    assert (vnet.network, vnet.tag, vnet.network_options) == ("vnet", "", {})


def test_weights_of_the_right_shapes_go_into_both_encoders_of_a_cascade_unchanged(tmp_path: Path) -> None:
    folder = write_weights(tmp_path / "weights")
    for row in PAPER_PRESETS["conze2021"].rows:
        if row.name not in ("v16pUNet1-1", "v19pUNet+"):
            continue
        options = {"pretrained": str(folder)}
        network = build_network(str(row.training["network"]), dim=2, in_channels=1, out_channels=2, single_output=True, **options)
        encoders = [network.encoder] if row.name == "v19pUNet+" else [network.first.encoder, network.second.encoder]
        for encoder in encoders:
            assert encoder.features[0].weight.shape == (64, 3, 3, 3)
            assert [float(one.mean()) for one in encoder.state_dict().values()] == [i + 1.0 for i in range(len(encoder.state_dict()))]
