"""What would end a training in its trial step, found without one: before a folder is made, or a case preprocessed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..data.label_subsets import subset_labels
from ..networks import build_network, network_spec
from ..networks.imagenet import without_pretrained
from ..runtime.hardware import choose_device
from ..runtime.registry import NetworkError, lookup
from ..schema import Labels
from ..schema.settings import TrainSettings
from ..schema.training_options import TrainingOptions
from . import TRAINERS
from .fine_tuning import find_pretrained
from .losses import build_loss
from .optimizers import build_optimizer
from .option_names import check_option_names
from .run_options import default_options
from .run_setup import budget_of
from .schedules import learning_rate_factor
from .training_spec import TrainingSpec

REFUSALS = (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)
"""What a network raises for a patch that it cannot take."""


def checked_training_options(settings: TrainSettings) -> TrainingOptions:
    """The training options that a run with these settings gets, for a batch of one.

    Raises:
        ValueError: An option is unknown, its value makes no sense, or nothing would come of it.
    """
    device, trainer = choose_device(settings.device), lookup(TRAINERS, settings.trainer, "trainer")
    changes, fine_tunes = settings.changed_options, settings.pretrained is not None
    try:
        return default_options(
            budget_of(settings), device.type, batch=1, fine_tunes=fine_tunes, changes=changes, suited=trainer.suited_options
        )
    except TypeError as error:  # a word where a number is compared
        given = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        raise ValueError(f"training options: expected values as the defaults, got {given}: {error}") from error


def check_names(settings: TrainSettings, labels: Labels) -> None:
    """Refuses what is wrong whatever the plan will be: before the images of a large dataset are measured and preprocessed for it.

    Args:
        labels: Of the dataset.

    Raises:
        ValueError: There is no such organ, network, trainer, training option or checkpoint.
    """
    if settings.organs:
        subset_labels(labels, settings.organs)
    if settings.network is not None:
        network_spec(settings.network)
    checked_training_options(settings)
    check_option_names(settings.changed_options)
    find_pretrained(settings.pretrained)


def check_trial(spec: TrainingSpec, settings: TrainSettings) -> None:
    """Refuses networks, losses, optimisers and schedules that cannot be built from their options, or cannot take the planned patch.

    Networks are built without weights, unless they start from a file of them or are not this program's own.

    Raises:
        ValueError: The message names the option.
    """
    options = checked_training_options(settings)
    learning_rate_factor(options.schedule, 0.0)
    configuration = spec.configuration
    build_loss(options.loss, spec.plan.labels, batch_dice=configuration.batch_dice, class_weights=options.class_weights)
    build_optimizer([nn.Parameter(torch.zeros(1))], options)
    if options.organ_slices and configuration.dim == 3:
        raise ValueError(f"organ_slices: expected a configuration of slices (2d, 2.5d), got {configuration.name}")
    plan_channels, outputs = spec.plan.in_channels(configuration), spec.plan.labels.n_outputs
    _check_network(spec, plan_channels, outputs, deep_supervision=options.deep_supervision)
    locator = configuration.locator
    if locator is not None and locator.whole and "foreground" in settings.changed_options:
        raise ValueError(
            "foreground: expected a training on patches, got one on whole regions, which always show every organ; leave it out, or add "
            "--trainer-option whole_region=false"
        )
    if locator is not None:
        found = replace(
            configuration, network=locator.network, network_options=locator.network_options, patch_size=locator.shape, context=()
        )
        _check_network(replace(spec, configuration=found), len(spec.plan.channels), 2, deep_supervision=False)


def _check_network(spec: TrainingSpec, channels: int, outputs: int, *, deep_supervision: bool) -> None:
    configuration = spec.configuration
    options = {**configuration.built_options, "deep_supervision": deep_supervision}
    shape: dict[str, Any] = {"dim": configuration.dim, "in_channels": channels, "out_channels": outputs}
    shape["single_output"] = configuration.sigmoid
    own = ":" not in configuration.network
    with torch.random.fork_rng(devices=[]):  # weights that are drawn here change no training
        if not own or options != without_pretrained(options):
            build_network(configuration.network, **shape, **options)
        if not own:
            return
        with torch.device("meta"):
            network = build_network(configuration.network, **shape, **without_pretrained(options))
    try:
        with torch.no_grad():
            network.train()(torch.empty(2, channels, *configuration.input_size, device="meta"))
    except REFUSALS as error:
        patch = "x".join(map(str, configuration.patch_size))
        raise NetworkError(f"network {configuration.network!r}, options {options}: cannot take a patch of {patch}: {error}") from error
