"""ImageNet weights of VGG from torchvision's public files: from a path, torch's cache or a download.

Their images had three channels with zero mean and about unit variance a channel, which z-scored medical images have too.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.registry import unknown_name_error

IMAGENET = "imagenet"
"""Value of the option ``pretrained`` that stands for the public file."""

FILES = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
"""Encoder -> torchvision's file; the eight digits are the beginning of its SHA-256."""

URL = "https://download.pytorch.org/models/"

RGB = 3
"""Channels of the images of ImageNet."""

UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError)
"""Errors that `torch.load` raises for a file with other content, or a truncated one."""


def without_pretrained(options: Mapping[str, Any]) -> dict[str, Any]:
    """Removes ``pretrained`` from the options of a network, at any depth (a cascade's options hold those of its two networks).

    ``pretrained`` only says what the weights are initialised from. A network that will load a checkpoint (in prediction, in a resumed
    training) is built without it, and needs no file.
    """
    return {
        key: without_pretrained(value) if isinstance(value, Mapping) else value for key, value in options.items() if key != "pretrained"
    }


def load_encoder(encoder: nn.Module, vgg: str, source: str) -> None:
    """Loads pre-trained weights into an encoder whose state-dict keys are torchvision's (``features.N.weight``, ``features.N.bias``).

    Where the encoder has more than three input channels, the first convolution's weights are tiled over them in the order red, green, blue,
    red ... and multiplied by 3 / channels, so that its response keeps its size.

    Raises:
        ValueError: The encoder is 3D, the file is not found or holds other weights.
    """
    expected = encoder.state_dict()
    dim = next(iter(expected.values())).dim() - 2
    if dim != 2:
        raise ValueError(
            f"pretrained: ImageNet weights are 2D, this network is {dim}D; expected none (--network-option pretrained=null), got {source!r}"
        )
    weights = read_weights(vgg, source)
    encoder.load_state_dict({key: _fitting(weights.get(key), key, tuple(tensor.shape), source) for key, tensor in expected.items()})


def encoder_of(network: str) -> str | None:
    """The key of `FILES` whose weights the encoders of a network take, by its name in `NETWORKS`; None for other networks."""
    return next((vgg for vgg in FILES if network.startswith(vgg)), None)


def read_weights(vgg: str, source: str) -> Mapping[str, Any]:
    """The content of a file of weights, on the processor; arguments and errors as of `find_weights`, and it must be a state dict."""
    if source == IMAGENET and vgg in FILES and not _cached(vgg).is_file():
        return _download(vgg)
    return _read(find_weights(vgg, source))


def find_weights(vgg: str, source: str) -> Path:
    """The file of an encoder's weights.

    Args:
        vgg: A key of `FILES`.
        source: ``"imagenet"``: the public file from torch's cache, where it is downloaded to if it is not there (its hash is checked).
            Anything else is the path of a file, or of a folder that holds it under its public name.

    Raises:
        ValueError: `vgg` is unknown; there is no such file and it cannot be downloaded.
    """
    if vgg not in FILES:
        raise unknown_name_error("pretrained encoder", vgg, FILES)
    if source == IMAGENET:
        if not _cached(vgg).is_file():
            _download(vgg)
        return _cached(vgg)
    path = Path(source).expanduser()
    path = path / FILES[vgg] if path.is_dir() else path
    if not path.is_file():
        expected = f"null, {IMAGENET} or the path of a file like {FILES[vgg]} or of its folder (public: {URL}{FILES[vgg]})"
        raise ValueError(f"pretrained: expected {expected}, got {source!r}, and there is no file {path.absolute()}")
    return path


def _cached(vgg: str) -> Path:
    """Where torch keeps the public file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILES[vgg]


def _download(vgg: str) -> Mapping[str, Any]:
    url, cached = URL + FILES[vgg], _cached(vgg)
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ValueError(
            f"pretrained: expected the ImageNet weights {FILES[vgg]} at {cached}, found no such file there, and {url} cannot be downloaded "
            f"({error}). Download it elsewhere and put it there, or give its path (--network-option pretrained=PATH), or train "
            "from scratch (--network-option pretrained=null)"
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"pretrained: expected a state dict saved by torch, got {path}, which cannot be read as one: {error}") from error
    if not isinstance(weights, Mapping):
        raise ValueError(f"pretrained: expected a state dict, got {path}, which holds a {type(weights).__name__}")
    return weights


def _fitting(weight: Any, key: str, shape: tuple[int, ...], source: str) -> Tensor:
    """The weight itself, or tiled over the input channels of a first convolution that has more than three."""
    actual = tuple(weight.shape) if isinstance(weight, Tensor) else None
    if actual == shape:
        return weight
    if key == "features.0.weight" and actual == (shape[0], RGB, *shape[2:]) and shape[1] > RGB:
        return weight[:, [channel % RGB for channel in range(shape[1])]] * (RGB / shape[1])
    raise ValueError(
        f"pretrained: expected {key} of shape {shape} in {source!r}, got {actual or 'none'}; the network needs the channels of VGG, "
        "the file the convolutions of torchvision's VGG without batch norm"
    )
