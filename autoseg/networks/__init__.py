"""Segmentation networks, one family a file. A new one is a file here and an entry of `NETWORKS`.

A network is an ``nn.Module`` built by ``factory(*, dim, in_channels, out_channels, deep_supervision=True, **options)`` that takes
``(B, C, *spatial)`` and returns logits. In training mode with deep supervision it returns a tuple, finest first; otherwise only the finest
logits ``(B, out_channels, *spatial)``. `tests/contracts/test_networks.py` checks every entry of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..runtime.registry import NetworkError, import_object, lookup

if TYPE_CHECKING:
    from torch import nn

MOST_PARAMETERS = 2**31
"""Of a network; with their gradients and the optimiser's momentum they take 24 GB."""

REFUSALS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError)
"""What constructors raise for options that make no sense."""

USUAL_SUM = 3000
"""Options of a network whose numbers add up to less need no look at its size before it is built."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Entry of the table of networks.

    Attributes:
        factory: ``module:name`` of the class or function that builds the network.
        paper: Authors, year, venue; empty for a network from outside the project.
        small: Options of a network that is small enough for a test; the topology of a planned one is added to them.
        dims: Numbers of spatial axes that it can be built for.
        planned: Whether the planner determines features, strides and kernel sizes, with plain convolutions (``convs_per_stage``) or
            residual blocks (``blocks_per_stage``) in the encoder; None for a network with a topology and defaults of its own.
        mirrored: It may learn from mirrored images; not a network that learns where organs lie relative to each other.
        pointwise_head: Its logits are a 1x1 convolution of its last feature maps, so that it can take part in feature fusion.
        binary: In its paper it segments one organ by one output with sigmoid; so does a model of one organ here, unless asked otherwise.
    """

    factory: str
    paper: str
    small: Mapping[str, Any]
    dims: tuple[int, ...] = (2, 3)
    planned: Literal["plain", "residual"] | None = None
    pointwise_head: bool = True
    binary: bool = False
    mirrored: bool = True


_CONZE = "Conze et al. 2021, Artificial Intelligence in Medicine"
_FANG = "Fang and Yan 2020, IEEE Transactions on Medical Imaging"
_THALER = "Thaler et al. 2021, FLARE challenge at MICCAI"
_VGG_SMALL = {"features": [8, 8, 8, 8, 8]}

NETWORKS: dict[str, NetworkSpec] = {
    "plain_unet": NetworkSpec(
        factory="autoseg.networks.unet:PlainUNet",
        paper="Isensee et al. 2021, Nature Methods",
        small={"features": [8, 12, 16], "convs_per_stage": [2, 2, 2], "decoder_convs": [2, 2]},
        planned="plain",
    ),
    "residual_unet": NetworkSpec(
        factory="autoseg.networks.residual_unet:ResidualUNet",
        paper="Isensee et al. 2024, MICCAI",
        small={"features": [8, 12, 16], "blocks_per_stage": [1, 2, 2], "decoder_convs": [1, 1]},
        planned="residual",
    ),
    "conze_unet": NetworkSpec(factory="autoseg.networks.vgg_unet:conze_unet", paper=_CONZE, small={"features": [8, 12, 16]}, binary=True),
    "vgg16_unet": NetworkSpec(factory="autoseg.networks.vgg_unet:vgg16_unet", paper=_CONZE, small=_VGG_SMALL, binary=True),
    "vgg19_unet": NetworkSpec(factory="autoseg.networks.vgg_unet:vgg19_unet", paper=_CONZE, small=_VGG_SMALL, binary=True),
    "vgg19_unetpp": NetworkSpec(
        factory="autoseg.networks.nested_unet:vgg19_unetpp", paper=f"Zhou et al. 2018, DLMIA; {_CONZE}", small=_VGG_SMALL, binary=True
    ),
    "cascaded": NetworkSpec(
        factory="autoseg.networks.cascaded:cascaded",
        paper=_CONZE,
        small={"first": "conze_unet", "first_options": {"features": [8, 8]}, "second": "roth_unet", "second_options": {"width": 4}},
        binary=True,
    ),
    "unet_cascade": NetworkSpec(factory="autoseg.networks.cascaded:unet_cascade", paper=_CONZE, small={"features": [8, 12]}, binary=True),
    "vgg16_unet_cascade": NetworkSpec(factory="autoseg.networks.cascaded:vgg16_unet_cascade", paper=_CONZE, small=_VGG_SMALL, binary=True),
    "vgg19_unet_cascade": NetworkSpec(factory="autoseg.networks.cascaded:vgg19_unet_cascade", paper=_CONZE, small=_VGG_SMALL, binary=True),
    "roth_unet": NetworkSpec(
        factory="autoseg.networks.roth_unet:RothUNet",
        paper="Cicek et al. 2016, MICCAI; Roth et al. 2018, Computerized Medical Imaging and Graphics",
        small={"width": 4},
    ),
    "se_resunet": NetworkSpec(
        factory="autoseg.networks.se_resunet:SEResUNet",
        paper="Cao et al. 2021, Neurocomputing; Crespi et al. 2023",
        small={"width": 8, "levels": 3, "reduction": 4},
    ),
    "deeplabv3": NetworkSpec(
        factory="autoseg.networks.deeplab:DeepLabV3",
        paper="Chen et al. 2017, arXiv 1706.05587; Crespi et al. 2023",
        small={"width": 4, "blocks": [1, 1, 1, 1], "pyramid_channels": 32, "output_stride": 8},
    ),
    "vnet": NetworkSpec(factory="autoseg.networks.vnet:VNet", paper="Milletari et al. 2016, 3DV", small={"width": 2}),
    "dense_vnet": NetworkSpec(
        factory="autoseg.networks.dense_vnet:DenseVNet",
        paper="Gibson et al. 2018, IEEE Transactions on Medical Imaging",
        small={"dropout": 0.1},
        pointwise_head=False,
    ),
    "deepmedic": NetworkSpec(
        factory="autoseg.networks.deepmedic:DeepMedic",
        paper="Kamnitsas et al. 2017, Medical Image Analysis",
        small={"widths": [8, 8, 8], "joint_widths": [16, 16], "dropout": 0.1},
    ),
    "pipo_fan": NetworkSpec(
        factory="autoseg.networks.pipo_fan:PipoFan",
        paper=_FANG,
        small={"features": [8, 8, 12], "norm": "instance"},
        pointwise_head=False,
    ),
    "pipo_unet": NetworkSpec(
        factory="autoseg.networks.pipo_fan:pipo_unet",
        paper=f"Ronneberger et al. 2015, MICCAI; {_FANG}",
        small={"features": [8, 8, 12]},
    ),
    "pipo_resunet": NetworkSpec(
        factory="autoseg.networks.pipo_fan:pipo_resunet",
        paper=f"Han 2017, arXiv 1704.07239; {_FANG}",
        small={"features": [8, 8, 12]},
    ),
    "dense_unet": NetworkSpec(
        factory="autoseg.networks.dense_unet:DenseUNet",
        paper="Li et al. 2018, IEEE Transactions on Medical Imaging",
        small={"growth_rate": 4, "blocks": [2, 2, 2], "stem": 8, "last_features": 8},
    ),
    "localisation_unet": NetworkSpec(
        factory="autoseg.networks.scn_unet:LocalisationUNet", paper=_THALER, small={"features": 8, "levels": 3}
    ),
    "scn": NetworkSpec(
        factory="autoseg.networks.scn:SpatialConfigurationNet",
        paper=f"Payer et al. 2017, STACOM at MICCAI; {_THALER}",
        small={"features": 8, "levels": 3, "spatial_features": 4, "spatial_levels": 2, "downsampling": 2, "dropout": 0.0},
        pointwise_head=False,
        mirrored=False,
    ),
}
"""Name -> entry. A network from outside is named ``module:name``, without an entry, see `network_spec`."""


COMBINERS = (
    "autoseg.networks.combiners:MaxConfidence",
    "autoseg.networks.combiners:MajorityVote",
    "autoseg.networks.combiners:LogitsConvolution",
    "autoseg.networks.combiners:MetaUNet",
    "autoseg.networks.fusion:Fusion",
)
"""Networks of learned ensembles, which their run records name by these paths."""


def network_spec(name: str) -> NetworkSpec:
    """The entry of a network in `NETWORKS`, or of the class or function that ``module:name`` points to.

    A class derived from one in the table has that one's entry (so the planner shapes a class derived from `unet.PlainUNet` like a plain
    U-Net); any other has one that says nothing.

    Raises:
        ValueError: The name is unknown, or cannot be imported.
    """
    found = import_object(name, "network") if name in COMBINERS else lookup(NETWORKS, name, "network")
    if isinstance(found, NetworkSpec):
        return found
    by_factory = {spec.factory: spec for spec in NETWORKS.values()}
    for base in getattr(found, "__mro__", ()):
        if spec := by_factory.get(f"{base.__module__}:{base.__qualname__}"):
            return replace(spec, factory=name, paper="")
    return NetworkSpec(factory=name, paper="", small={})


def surroundings_of(name: str, dim: int, options: Mapping[str, Any]) -> tuple[tuple[int, ...], ...] | None:
    """What a network with convolutions that do not pad sees around its patch; None where its logits have the input's size.

    It says so by a static method ``surroundings(dim, **options)``, and is then built with ``surrounded=True``, and takes the patch with
    its surroundings.

    Returns:
        Per axis: voxels at each side of the patch, the size of its own patch, and the steps in which that may be cut.
    """
    tell = getattr(import_object(network_spec(name).factory, "network"), "surroundings", None)
    return None if tell is None else tell(dim, **options)


def build_network(name: str, *, dim: int, in_channels: int, out_channels: int, single_output: bool = False, **options: Any) -> nn.Module:
    """Builds a network with freshly drawn weights (from torch's global generator: seed it to repeat them).

    Args:
        name: In `NETWORKS`, or ``module:name`` of any other factory.
        dim: Spatial axes, 2 or 3.
        in_channels: Channels of the image (and of a previous stage's one-hot segmentation).
        out_channels: `Labels.n_outputs`.
        single_output: Of two outputs, background and an organ, only the organ's is a map of the network (`single_output`).
        **options: `Configuration.network_options`, and ``deep_supervision``.

    Raises:
        NetworkError: It refuses the options; or it is one of this program and would have more than `MOST_PARAMETERS`, which is found
            before memory is taken.
        ValueError: The name is unknown.
    """
    factory = import_object(network_spec(name).factory, "network")
    if single_output and out_channels != 2:
        raise ValueError(f"network with one output: expected background and one organ, got {out_channels} outputs")
    arguments = {"dim": dim, "in_channels": in_channels, "out_channels": 1 if single_output else out_channels, **options}
    try:
        if factory.__module__.startswith(f"{__name__}.") and _sum(list(arguments.values())) > USUAL_SUM:
            _check_size(name, factory, arguments)
        return _with_background(factory(**arguments)) if single_output else factory(**arguments)
    except NetworkError:  # of a network in this one
        raise
    except REFUSALS as error:
        raise NetworkError(f"network {name!r} cannot be built with options {sorted(options)}: {error}") from error


def _with_background(network: nn.Module) -> nn.Module:
    from .single_output import with_background  # needs torch, which the table does not

    return with_background(network)


def _sum(value: Any) -> float:
    """Of the numbers in nested lists and dictionaries, without their signs."""
    if isinstance(value, (list, tuple, dict)):
        return sum(map(_sum, value.values() if isinstance(value, dict) else value))
    return abs(value) if isinstance(value, (int, float)) else 0


def _check_size(name: str, factory: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> None:
    """Builds the network without its numbers, on torch's meta device, and raises NetworkError where it has too many."""
    import torch

    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in factory(**arguments).parameters())
    if parameters > MOST_PARAMETERS:
        options = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise NetworkError(f"network {name!r}: expected at most {MOST_PARAMETERS} parameters, found {parameters} with {options}")
