"""Weights of the plain U-Net under the names of nnU-Net's ``PlainConvUNet``, and back: the same tensors, nothing is computed.

nnU-Net's network holds each convolution twice (``conv`` and ``all_modules.0``) and its encoder twice (the decoder keeps it, too), and
loads strictly: every tensor needs all of its names. They are one object here, so that ``torch.save`` stores it once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

WRAPPERS = ("_orig_mod.", "module.")
"""Prefixes that ``torch.compile`` and data parallel training put before the names."""

UNIT = ("conv", "norm")
"""Parts of a unit of convolution and normalisation, in order."""

OURS = {
    re.compile(r"encoder\.(\d+)\.(\d+)\.0\.([01])\.(weight|bias)"): "encoder.stages.{0}.0.convs.{1}",
    re.compile(r"decoder\.stages\.(\d+)\.(\d+)\.0\.([01])\.(weight|bias)"): "decoder.stages.{0}.convs.{1}",
}
"""Units of this project's network: stage, unit, part, tensor; and what the unit is called there."""

THEIRS = {
    re.compile(r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)\.(weight|bias)"): "encoder.{0}.{1}.0.{2}.{3}",
    re.compile(r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(weight|bias)"): "decoder.stages.{0}.{1}.0.{2}.{3}",
}
"""The same of nnU-Net, and the name here."""

SINGLE = {"ups": "transpconvs", "heads": "seg_layers"}
"""Lists of single layers of the decoder, by their names here."""

TWICE = re.compile(r"decoder\.encoder\..*|.*\.all_modules\.[01]\.(weight|bias)")
"""Second names of tensors that have another."""


def to_nnunet(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dict of nnU-Net's ``PlainConvUNet`` from that of `networks.unet.PlainUNet`, with all of its names.

    Raises:
        ValueError: A tensor is none of such a network; the message names it.
    """
    return {name: tensor for own, tensor in weights.items() for name in _their_names(own)}


def from_nnunet(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dict of `networks.unet.PlainUNet` from that of nnU-Net's ``PlainConvUNet``.

    Raises:
        ValueError: A tensor is none of such a network (other architectures, residual encoders); the message names it.
    """
    found = {_unwrapped(name): tensor for name, tensor in weights.items()}
    return {_our_name(name): tensor for name, tensor in found.items() if not TWICE.fullmatch(name)}


def _their_names(own: str) -> Iterator[str]:
    for pattern, unit in OURS.items():
        if match := pattern.fullmatch(own):
            stage, number, part, tensor = match.groups()
            base = unit.format(stage, number)
            for prefix in ("", "decoder.") if base.startswith("encoder.") else ("",):
                yield f"{prefix}{base}.{UNIT[int(part)]}.{tensor}"
                yield f"{prefix}{base}.all_modules.{part}.{tensor}"
            return
    match = re.fullmatch(r"decoder\.(ups|heads)\.(\d+)\.(weight|bias)", own)
    if match is None:
        raise ValueError(f"weights: expected those of a plain_unet, found {own}; nnU-Net has no network that would take them")
    yield f"decoder.{SINGLE[match[1]]}.{match[2]}.{match[3]}"


def _our_name(name: str) -> str:
    for pattern, own in THEIRS.items():
        if match := pattern.fullmatch(name):
            stage, number, part, tensor = match.groups()
            return own.format(stage, number, UNIT.index(part), tensor)
    match = re.fullmatch(r"decoder\.(transpconvs|seg_layers)\.(\d+)\.(weight|bias)", name)
    if match is None:
        raise ValueError(f"weights: expected those of nnU-Net's PlainConvUNet, found {name}; other networks cannot be taken over")
    own = next(ours for ours, theirs in SINGLE.items() if theirs == match[1])
    return f"decoder.{own}.{match[2]}.{match[3]}"


def _unwrapped(name: str) -> str:
    while wrapper := next((one for one in WRAPPERS if name.startswith(one)), ""):
        name = name.removeprefix(wrapper)
    return name
