"""What of a plan a user wants otherwise for one training: network, organs, intensities, and what the trainer makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.ct_windows import Window, check_window, common_window
from ..data.label_subsets import organs_tag, safe_file_name, subset_labels
from ..data.labels import plan_mirroring
from ..data.region_order import check_region_order
from ..networks import network_spec, surroundings_of
from ..planners.budget import patch_multiple
from ..planners.configurations import selected_configurations
from ..preprocessing.normalization import find_scheme
from ..preprocessing.slice_grids import with_center_crop, with_slice_shape
from ..preprocessing.windows import with_normalization
from ..runtime.registry import lookup
from ..runtime.runs import ModelFolder
from ..schema import Configuration, Labels, Mirroring, Plan
from ..schema.settings import TrainSettings
from . import TRAINERS

PSEUDO = "pseudo"
"""Word of a model that learns from pseudo-labels."""


@dataclass(frozen=True)
class TrainingSpec:
    """What a training follows.

    Attributes:
        plan: Of the dataset, or of some of its organs.
        configuration: As planned, or with another network or normalisation.
        words: What the name of the model folder says beside configuration and trainer.
        former_words: The same as earlier versions said it, which gave organs with like names one folder.
    """

    plan: Plan
    configuration: Configuration
    words: tuple[str, ...] = ()
    former_words: tuple[str, ...] = ()

    def model(self, results: Path, trainer: str, configuration: str = "") -> ModelFolder:
        """Its model folder below ``results/<dataset>``; that of earlier versions if there.

        Args:
            configuration: Of another model, a cascade's first stage, which learns from no pseudo-labels.
        """
        without = (PSEUDO,) if configuration else ()
        former, model = (
            ModelFolder.named(results, configuration or self.configuration.name, trainer, [word for word in words if word not in without])
            for words in (self.former_words, self.words)
        )
        is_former = former != model and former.runs() and former.labels(self.plan.labels).names == self.plan.labels.names
        return former if is_former else model


def training_spec(plan: Plan, name: str, settings: TrainSettings, *, windows: Mapping[str, Window] | None = None) -> TrainingSpec:
    """The plan and the configuration that a training follows.

    Args:
        name: Of one of its configurations.
        windows: Organ to CT window, where the dataset has its own.

    Raises:
        ValueError: There is no such configuration, network, organ, window or trainer, or the trainer cannot work with it.
    """
    selected_configurations([name], plan)
    plan, organs = of_organs(plan, settings.organs)
    former = organs_tag(plan.labels) if organs else ""
    # The region that a cascade noted there is for those trainers only that ask for one.
    configuration = replace(plan.configurations[name], region=None)
    configuration = _with_network(configuration, settings)
    configuration, intensities = _with_intensities(configuration, plan.labels, settings, windows or {})
    configuration, *slices = _with_slices(configuration, settings)
    trainer = lookup(TRAINERS, settings.trainer, "trainer")
    if settings.tag and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", settings.tag):
        raise ValueError(f"--tag: expected a word of letters, digits, dots and dashes, got {settings.tag!r}")
    pseudo = [PSEUDO] if settings.pseudo_labels else []
    sources = ["from_" + "+".join(map(safe_file_name, settings.sources))] if settings.sources else []
    further = (*slices, *pseudo, *sources, settings.tag)
    words, former_words = (tuple(filter(None, (settings.network, one, intensities, *further))) for one in (organs, former))
    configuration = trainer.configure(_with_outputs(configuration, plan.labels, settings), plan, settings.trainer_options)
    if settings.network is None and settings.network_options:  # of the planned network, or of the trainer's own
        configuration = replace(configuration, network_options=configuration.network_options | settings.network_options)
    network_spec(configuration.network)  # what the plan names must be there, and allowed, before anything long begins
    if trainer.sees_surroundings:
        configuration = _with_surroundings(configuration, settings.patch or ())
    if settings.patch and configuration.locator is not None and configuration.locator.whole:
        configuration = replace(configuration, patch_size=settings.patch)  # of the largest region
    for scheme in configuration.normalization:
        find_scheme(scheme)
    return TrainingSpec(plan, configuration, words, former_words)


def is_of_cascade(spec: TrainingSpec) -> bool:
    """Whether the configuration is one of the two stages of a cascade."""
    one = spec.configuration
    return one.previous_stage is not None or one.name in {other.previous_stage for other in spec.plan.configurations.values()}


def of_stage(settings: TrainSettings, spec: TrainingSpec) -> TrainSettings:
    """The settings with the budget of a cascade's first stage, where this is one and it has its own."""
    stages = {one.previous_stage for one in spec.plan.configurations.values()}
    if settings.first_iterations is None or spec.configuration.name not in stages:
        return settings
    return replace(settings, iterations=settings.first_iterations, seconds=None, epochs=None)


def _with_surroundings(configuration: Configuration, asked: Sequence[int]) -> Configuration:
    """The configuration with the patch and the surroundings of a network whose convolutions do not pad; any other as it is.

    Raises:
        ValueError: The patch that was `asked` for does not fit such a network.
    """
    sizes = surroundings_of(configuration.network, configuration.dim, configuration.network_options)
    if sizes is None:
        return configuration
    context, patch, multiple = sizes
    if any((size - own) % step for size, own, step in zip(asked, patch, multiple, strict=bool(asked))):
        own, steps = (" ".join(map(str, one)) for one in (patch, multiple))
        raise ValueError(f"--patch: expected {own} plus or minus multiples of {steps} for this network, got {' '.join(map(str, asked))}")
    patch = tuple(asked) or patch
    return replace(configuration, context=context, patch_size=patch, patch_multiple=multiple)


def of_organs(plan: Plan, organs: Sequence[str]) -> tuple[Plan, str]:
    """The plan of a model of some organs, which reads the same preprocessed data, and the word for them in names.

    Args:
        organs: Names; none, or all there are, mean the plan as it is.

    Raises:
        ValueError: A name is no organ of the dataset.
    """
    labels = subset_labels(plan.labels, organs or plan.labels.names)
    if labels == plan.labels:
        return plan, ""
    check_region_order(labels, f"organs {', '.join(labels.names)}")
    configurations = {name: replace(one, mirroring=_mirroring(plan, one, labels)) for name, one in plan.configurations.items()}
    plan_of_organs = replace(plan, labels=labels, data_labels=plan.stored_labels, configurations=configurations)
    return plan_of_organs, organs_tag(labels, plan.stored_labels.names)


def _mirroring(plan: Plan, configuration: Configuration, labels: Labels) -> Mirroring:
    """Flips that are right for these labels: an organ whose partner is not learnt keeps its side."""
    lateral = configuration.mirroring.lateral_axis if plan.lateral_axis is None else plan.lateral_in(configuration)
    return plan_mirroring(labels, configuration.dim, lateral)[0]


def _with_intensities(
    configuration: Configuration, labels: Labels, settings: TrainSettings, windows: Mapping[str, Window]
) -> tuple[Configuration, str]:
    """The configuration with the window or the normalisation that was asked for, and the word for it."""
    schemes = settings.normalization
    if settings.window_bits not in (None, 8) or settings.window_bits and settings.window is None:
        raise ValueError(f"--window-bits: expected 8, together with --window, got {settings.window_bits}")
    if settings.window is not None:
        if schemes:
            raise ValueError("--window and --normalization: expected only one of them")
        if "ct" not in configuration.normalization:
            found = ", ".join(configuration.normalization)
            raise ValueError(
                f"--window: is in Hounsfield units, expected a channel of CT, found normalisation {found}; add --normalization zscore"
            )
        auto = settings.window == "auto"
        width, level = common_window(labels.names, windows) if auto else check_window(settings.window, "--window")
        schemes = (f"window{settings.window_bits or ''}:{width:g}:{level:g}",)
    return with_normalization(configuration, schemes) if schemes else (configuration, "")


def _with_slices(configuration: Configuration, settings: TrainSettings) -> tuple[Configuration, str, str]:
    """The configuration with the crop, the size of slices and the patch that were asked for, and the words for the first two."""
    crop = shape = ""
    if settings.center_crop:
        configuration, crop = with_center_crop(configuration, settings.center_crop)
    if settings.slice_shape:
        configuration, shape = with_slice_shape(configuration, settings.slice_shape)
    if patch := settings.patch:
        found = " ".join(map(str, patch))
        if len(patch) != configuration.dim or any(type(size) is not int or size < 1 for size in patch):
            raise ValueError(f"--patch: expected {configuration.dim} sizes for {configuration.name}, got {found}")
        multiple = patch_multiple(configuration) if network_spec(configuration.network).planned else [1] * len(patch)
        if any(size % one for size, one in zip(patch, multiple, strict=True)):
            raise ValueError(f"--patch: expected multiples of {' '.join(map(str, multiple))} for this network, got {found}")
        configuration = replace(configuration, patch_size=tuple(patch))
    return configuration, crop, shape


def _with_outputs(configuration: Configuration, labels: Labels, settings: TrainSettings) -> Configuration:
    """The configuration with one output, where one organ is learnt and the user or the network's paper has it so."""
    wanted = settings.sigmoid
    if wanted is None:
        wanted = settings.network is not None and network_spec(settings.network).binary
    return replace(configuration, sigmoid=bool(wanted) and len(labels.names) == 1 and not labels.regions)


def _with_network(configuration: Configuration, settings: TrainSettings) -> Configuration:
    """The configuration with the network of the settings, which has the planned options if the planner shapes both networks alike."""
    if not network_spec(settings.network or configuration.network).mirrored:
        configuration = replace(configuration, mirroring=Mirroring())
    if settings.network is None:
        return configuration
    kinds = {network_spec(name).planned for name in (settings.network, configuration.network)}
    alike = settings.network == configuration.network or (len(kinds) == 1 and None not in kinds)
    options = (configuration.network_options if alike else {}) | settings.network_options
    return replace(configuration, network=settings.network, network_options=options, patch_multiple=tuple(patch_multiple(configuration)))
