"""How Thaler et al. count operations: what the profiler of their framework counts, worked out from their two figures a network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def convolution_operations(network: nn.Module, x: Tensor) -> tuple[int, int]:
    """Two a multiply-add, and one a bias that is added."""
    biases = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.register_forward_hook(lambda _module, _args, out: biases.append(out.numel()))
    with FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops(), sum(biases)


def linear_upsampling_operations(coarse: int, *, levels: int, features: int) -> int:
    """Of one U-Net, as the paper counts: 3 for each value that an axis' interpolation makes, 15 for the shapes of each upsampling."""
    values = sum((2 + 4 + 8) * (coarse * 2**level) ** 3 * features for level in range(levels - 1))
    return 3 * values + 15 * (levels - 1)
