"""Checkpoints: tensors and JSON only, so that they load with ``weights_only=True`` and run no code.

A checkpoint is a dictionary of state dicts (``network``, and while training ``optimizer``, ``average`` ...) and a JSON text ``meta``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .sealing import check_archive, seal, sealed_bytes
from .serialization import atomic_write, to_jsonable


def save_checkpoint(path: Path, states: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Writes state dicts and JSON-able `meta` atomically.

    Raises:
        ValueError: `meta` holds something that is not JSON.
    """
    try:
        text = json.dumps(to_jsonable(dict(meta)))
    except TypeError as error:
        raise ValueError(f"{path}: meta: expected values that JSON can hold, got {error}") from error
    with atomic_write(path, size=_size(states) + len(text)) as partial:
        torch.save({**states, "meta": text}, partial)
        seal(partial)


def _size(states: Any) -> int:
    """Bytes of all tensors in nested states."""
    if isinstance(states, torch.Tensor):
        return states.nbytes
    values = states.values() if isinstance(states, Mapping) else states if isinstance(states, (list, tuple)) else ()
    return sum(map(_size, values))


REMEDY = "put a copy of it back, or train that fold again with --restart"
"""Of a checkpoint that cannot be read."""


def load_checkpoint(path: Path, device: torch.device | str = "cpu", *, remedy: str = REMEDY) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint.

    Args:
        remedy: What a user can do where it cannot be read.

    Returns:
        The state dicts, and `meta`.

    Raises:
        ValueError: The file is missing, damaged, or not a checkpoint of this program; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: checkpoint not found; {remedy}")
    try:
        check_archive(path, sealed_bytes(path))
        states = torch.load(path, map_location=device, weights_only=True)
        return states, json.loads(states.pop("meta"))
    except Exception as error:  # torch raises a dozen unrelated types for a damaged file
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ValueError(f"{path}: not a readable checkpoint ({reason}); {remedy}") from error


def load_weights(network: torch.nn.Module, states: Mapping[str, Any], part: str, path: Path) -> None:
    """Takes over the weights of a network, all of which must be there in its shapes.

    Args:
        part: Name of the network in the checkpoint.
        path: Of the checkpoint, for messages.

    Raises:
        ValueError: The checkpoint lacks the network or one of its tensors, or has others; the message names file and tensor.
    """
    weights = states.get(part)
    if not isinstance(weights, Mapping):
        raise ValueError(f"{path}: expected the weights of a {part}, found {', '.join(map(str, states)) or 'nothing'}")
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
    different = [name for name in expected | found if expected.get(name) != found.get(name)]
    if different:
        name = different[0]
        raise ValueError(
            f"{path}: {len(different)} tensors do not fit the {part} that its run.json describes, the first {name}: "
            f"expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    network.load_state_dict(weights)


@contextmanager
def resumed_from(path: Path) -> Iterator[None]:
    """Turns what torch says of states that do not fit the run into a ValueError that names the checkpoint, in one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 240 else f"{reason[:237]}..."
        raise ValueError(f"{path}: its states do not fit this run ({reason}); start the run anew with --restart") from error


def load_matching(network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Copies into `network` the tensors of `weights` that have the same name and shape.

    Returns:
        Names loaded, and names of the network that found no match.
    """
    present = network.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in present and present[name].shape == tensor.shape}
    network.load_state_dict({**present, **fitting})
    return sorted(fitting), sorted(set(present) - set(fitting))
