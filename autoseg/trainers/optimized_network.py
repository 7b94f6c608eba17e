"""A network with all that trains it: its optimiser, gradient clipping, loss scaling and the moving average of its weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..runtime.checkpoints import load_matching
from ..runtime.hardware import memory_format
from .gradient_clipping import GradientClip

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


def on_device(network: Network, device: torch.device, dim: int) -> Network:
    """The network on `device`, in the memory layout of its dimensions."""
    return network.to(device, memory_format=memory_format(dim))  # type: ignore[call-overload]  # torch declares no overload with both


class OptimizedNetwork:
    """A network, its optimiser and, where wanted, the exponential moving average (EMA) of its weights.

    The average is not torch's `swa_utils.AveragedModel`: that begins as the weights after the first step, has no warm-up of the decay,
    and its state has other names than the network's.

    Args:
        scaler: Of the loss, against underflow in float16; networks that train in turns share it. None needs none.
        average_decay: Of the moving average; 0 does without one.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clip: GradientClip,
        scaler: torch.amp.GradScaler | None = None,
        average_decay: float = 0.0,
    ) -> None:
        self.network, self.optimizer, self.clip = network, optimizer, clip
        self.scaler = torch.amp.GradScaler(enabled=False) if scaler is None else scaler
        self.average_decay = average_decay
        self.average = copy.deepcopy(network).requires_grad_(False) if average_decay else None

    @property
    def final(self) -> nn.Module:
        """The network that predicts: the moving average where there is one."""
        return self.network if self.average is None else self.average

    @property
    def learning_rate(self) -> float:
        """Of the optimiser's next step."""
        return self.optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def descend(self, loss: Tensor, step: int = 0) -> bool:
        """Takes a step along the clipped gradient of `loss`, and updates the moving average.

        Args:
            step: Number of steps before this one: the moving average forgets faster while it is young.

        Returns:
            False where the gradient was not finite and no step was taken: one broken gradient must not end the run; a lasting one shows in
            the loss. (In float16 the scaler leaves such steps out.)
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = self.clip(self.network.parameters())
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average(step)
        return True

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if self.average is None:
            return
        # With the full decay the first, random weights would linger.
        decay = min(self.average_decay, (1 + step) / (10 + step))
        for mean, now in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            mean.lerp_(now, 1 - decay) if mean.is_floating_point() else mean.copy_(now)

    def states(self, name: str = "network") -> dict[str, Any]:
        """All that is needed to go on, by names in a checkpoint: the run's main network's, or those of another, called `name`."""
        prefix = _prefix(name)
        states = {name: self.network.state_dict(), f"{prefix}optimizer": self.optimizer.state_dict()}
        return states if self.average is None else states | {f"{prefix}average": self.average.state_dict()}

    def load(self, states: Mapping[str, Any], name: str = "network") -> None:
        """Takes over what `states` gave."""
        prefix = _prefix(name)
        self.network.load_state_dict(states[name])
        self.optimizer.load_state_dict(states[f"{prefix}optimizer"])
        if self.average is not None:
            self.average.load_state_dict(states[f"{prefix}average"])

    def load_pretrained(self, weights: Mapping[str, Tensor], name: str = "network") -> bool:
        """Starts from those of the `weights` that fit; False where none does. `name` is for the log."""
        loaded, missing = load_matching(self.network, weights)
        if self.average is not None:
            self.average.load_state_dict(self.network.state_dict())
        log.info(
            "Pretrained weights of the %s: %d tensors loaded; freshly initialised: %s", name, len(loaded), ", ".join(missing) or "none"
        )
        return bool(loaded)


def _prefix(name: str) -> str:
    return "" if name == "network" else f"{name}_"
