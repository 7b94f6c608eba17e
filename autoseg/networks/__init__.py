"""Segmentation networks, one family a file. A new one is a file here and a line in `NETWORKS`.

What a network is: an ``nn.Module`` built by ``factory(*, dim, in_channels, out_channels, deep_supervision=True, **options)`` that takes
``(B, C, *spatial)`` and returns logits. In training mode with deep supervision it returns a tuple, finest first; otherwise only the finest
logits ``(B, out_channels, *spatial)``. `tests/contracts/test_networks.py` checks every entry of the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..runtime.registry import lookup

if TYPE_CHECKING:
    from torch import nn

NETWORKS: dict[str, str] = {
    "plain_unet": "autoseg.networks.unet:PlainUNet",
    "residual_unet": "autoseg.networks.residual_unet:ResidualUNet",
    "conze_unet": "autoseg.networks.vgg_unet:conze_unet",
    "vgg16_unet": "autoseg.networks.vgg_unet:vgg16_unet",
    "vgg19_unet": "autoseg.networks.vgg_unet:vgg19_unet",
    "vgg19_unetpp": "autoseg.networks.nested_unet:vgg19_unetpp",
    "cascaded": "autoseg.networks.cascaded:cascaded",
    "unet_cascade": "autoseg.networks.cascaded:unet_cascade",
    "vgg16_unet_cascade": "autoseg.networks.cascaded:vgg16_unet_cascade",
    "vgg19_unet_cascade": "autoseg.networks.cascaded:vgg19_unet_cascade",
    "roth_unet": "autoseg.networks.roth_unet:RothUNet",
    "se_resunet": "autoseg.networks.se_resunet:SEResUNet",
    "deeplabv3": "autoseg.networks.deeplab:DeepLabV3",
    "vnet": "autoseg.networks.vnet:VNet",
    "dense_vnet": "autoseg.networks.dense_vnet:DenseVNet",
    "deepmedic": "autoseg.networks.deepmedic:DeepMedic",
    "pipo_fan": "autoseg.networks.pipo_fan:PipoFan",
    "pipo_unet": "autoseg.networks.pipo_fan:pipo_unet",
    "pipo_resunet": "autoseg.networks.pipo_fan:pipo_resunet",
    "dense_unet": "autoseg.networks.dense_unet:DenseUNet",
    "localisation_unet": "autoseg.networks.scn_unet:LocalisationUNet",
    "scn": "autoseg.networks.scn:SpatialConfigurationNet",
}
"""Name -> where the class or function lies."""


def build_network(name: str, *, dim: int, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
    """Builds a network with freshly drawn weights (from torch's global generator: seed it to repeat them).

    Args:
        name: In `NETWORKS`, or ``module:attribute`` of any other factory.
        dim: Spatial axes, 2 or 3.
        in_channels: Channels of the image (and of a previous stage's one-hot segmentation).
        out_channels: `Labels.n_outputs`.
        **options: `Configuration.network_options`, and ``deep_supervision``.

    Raises:
        ValueError: The name is unknown, or the network refuses the options.
    """
    factory = lookup(NETWORKS, name, "network")
    try:
        return factory(dim=dim, in_channels=in_channels, out_channels=out_channels, **options)
    except TypeError as error:
        raise ValueError(f"network {name!r} cannot be built with options {sorted(options)}: {error}") from error
