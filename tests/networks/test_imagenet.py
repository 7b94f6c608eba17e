"""Pre-trained weights: where files are looked for, that they are loaded, and the messages when they are not. No test needs a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from autoseg.networks.imagenet import FILES, URL, read_weights, without_pretrained
from autoseg.networks.nested_unet import vgg19_unetpp
from autoseg.networks.vgg_unet import vgg16_unet, vgg19_unet

FEATURES = (4, 6, 8, 8, 8)


def made_up(factory=vgg16_unet) -> dict[str, Tensor]:
    """A state dict like torchvision's, with fewer channels, and with a part that no encoder has."""
    generator = torch.Generator().manual_seed(7)
    shapes = factory(dim=2, in_channels=3, out_channels=1, features=FEATURES).encoder.state_dict()
    weights = {key: torch.randn(one.shape, generator=generator) for key, one in shapes.items()}
    return weights | {"classifier.0.weight": torch.zeros(2, 2)}


def build(pretrained: str | None, *, in_channels: int = 3, factory=vgg16_unet, features=FEATURES) -> nn.Module:
    torch.manual_seed(0)
    return factory(dim=2, in_channels=in_channels, out_channels=1, features=features, pretrained=pretrained)


@pytest.fixture
def file(tmp_path: Path) -> str:
    torch.save(made_up(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_weights_of_a_file_become_the_encoder_s_and_only_the_encoder_s(file: str) -> None:
    network, fresh = build(file), build(None)
    for key, weight in network.encoder.state_dict().items():
        assert torch.equal(weight, made_up()[key])
    for key, weight in network.decoder.state_dict().items():
        assert torch.equal(weight, fresh.decoder.state_dict()[key])


def test_weights_of_vgg_s_own_shapes_fit(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = vgg16_unet(dim=2, in_channels=3, out_channels=1).encoder.state_dict()
    weights = {key: torch.tensor(float(i)).expand(one.shape) for i, (key, one) in enumerate(shapes.items())}
    assert weights["features.28.weight"].shape == (512, 512, 3, 3)
    torch.save(weights, tmp_path / FILES["vgg16"])
    network = vgg16_unet(dim=2, in_channels=1, out_channels=1, pretrained=str(tmp_path / FILES["vgg16"]))
    assert [float(one.mean()) for one in network.encoder.state_dict().values()] == list(range(26))


def test_the_format_of_the_public_files_is_read(tmp_path: Path) -> None:
    torch.save(made_up(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(build(str(tmp_path / "old.pth")).encoder.features[0].weight, made_up()["features.0.weight"])


@pytest.mark.parametrize(("vgg", "factory"), [("vgg16", vgg16_unet), ("vgg19", vgg19_unet), ("vgg19", vgg19_unetpp)])
def test_the_public_file_is_taken_from_torch_s_cache(vgg: str, factory, hub: Path) -> None:
    torch.save(made_up(factory), hub / FILES[vgg])
    assert torch.equal(build("imagenet", factory=factory).encoder.features[0].weight, made_up(factory)["features.0.weight"])


def test_it_is_downloaded_where_the_cache_has_none(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append((url, options))
        return made_up(vgg19_unet)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    network = build("imagenet", factory=vgg19_unet)
    assert torch.equal(network.encoder.features[34].bias, made_up(vgg19_unet)["features.34.bias"])
    ((url, options),) = asked
    assert url == "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
    assert options["check_hash"]
    assert options["weights_only"]


def test_more_than_three_channels_share_the_weights_of_red_green_and_blue(file: str) -> None:
    rgb, five, six = (build(file, in_channels=n).encoder.features[0] for n in (3, 5, 6))
    assert five.weight.shape == (4, 5, 3, 3)
    for channel, source in enumerate((0, 1, 2, 0, 1)):
        assert torch.allclose(five.weight[:, channel], rgb.weight[:, source] * 3 / 5)
    image = torch.rand(1, 3, 8, 8)
    assert torch.allclose(six(torch.cat((image, image), 1)), rgb(image), atol=1e-6)


def test_prediction_builds_the_network_without_the_file(file: str) -> None:
    options = {"features": FEATURES, "pretrained": file}
    trained = vgg16_unet(dim=2, in_channels=1, out_channels=1, **options).eval()
    Path(file).unlink()
    other = vgg16_unet(dim=2, in_channels=1, out_channels=1, **without_pretrained(options)).eval()
    other.load_state_dict(trained.state_dict())
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(other(image), trained(image))


def test_pretrained_is_left_out_at_every_depth() -> None:
    options = {"first": "vgg16_unet", "pretrained": "a", "first_options": {"pretrained": "b", "features": [1]}}
    assert without_pretrained(options) == {"first": "vgg16_unet", "first_options": {"features": [1]}}
    assert options["first_options"] == {"pretrained": "b", "features": [1]}


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"features": (5, 6, 8, 8, 8)}, r"features.0.weight of shape \(5, 3, 3, 3\).*got \(4, 3, 3, 3\)"),
        ({"factory": vgg19_unet}, r"features.16.weight .* got none"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(file: str, options: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        build(file, **options)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError('invalid hash value (expected "397923af", got "00")')])
def test_a_failed_download_says_which_file_where_and_from_where(hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(url: str, **_: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match="Download it elsewhere") as caught:
        build("imagenet")
    for part in (str(error), FILES["vgg16"], str(hub), URL + FILES["vgg16"], "pretrained=null"):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"features.0.weight": nn.ReLU()}, 0, 10, 1000])
def test_files_with_other_content_are_refused(tmp_path: Path, file: str, content: Any) -> None:
    """A list, an object that is no weight, and the first bytes of a file of weights."""
    path = tmp_path / "other.pth"
    if isinstance(content, int):
        path.write_bytes(Path(file).read_bytes()[:content])
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="other.pth, which (holds a list|cannot be read)"):
        build(str(path))


def test_unknown_files_and_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="no file.*nowhere.pth"):
        build("nowhere.pth")
    with pytest.raises(ValueError, match="expected one of vgg16, vgg19, got 'vgg11'"):
        read_weights("vgg11", "imagenet")
