"""A trained model as a function from an image to logits: folds averaged, both stages of a cascade in one call."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..preprocessing.preprocess import preprocess_case
from ..runtime.checkpoints import load_checkpoint
from ..runtime.hardware import memory_format
from ..runtime.provenance import file_id
from ..runtime.runs import ModelFolder, Run
from ..schema import Configuration, Image, Plan
from .candidate_region import candidate_region_mask
from .cascade import on_grid
from .export import Logits, export_labels
from .localisation import Localiser, LocatedPredictor, build_locator
from .low_memory import LowMemoryPredictor, use_low_memory
from .predictor import Predictor

log = logging.getLogger(__name__)

Progress = Callable[[float], None]

LogitsCache = MutableMapping["TrainedModel", Logits | None]
"""Models whose logits of one image are wanted, and what those that were asked already have said."""


@dataclass(frozen=True)
class InferenceOptions:
    """How to apply trained networks.

    Attributes:
        folds: Names of the folds that vote; None means all that are trained.
        mirror: Average over mirrored images too.
        step: Distance of tiles as a share of the patch.
        low_memory: Hold one network, and compute one tile, at a time.
    """

    folds: tuple[str, ...] | None = None
    mirror: bool = True
    step: float = 0.5
    low_memory: bool = False


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """One configuration's networks, ready to predict; equal only to itself.

    Attributes:
        name: Folder name, ``3d_fullres__Trainer``.
        plan: Of its dataset.
        configuration: As trained (the patch may be smaller than planned).
        predictor: Sliding window over the folds' networks.
        key: Identifies the weights, so that results of other weights are not taken for theirs.
        previous: First stage of a cascade, or None.
    """

    name: str
    plan: Plan
    configuration: Configuration
    predictor: Predictor | LowMemoryPredictor | LocatedPredictor
    key: str
    previous: TrainedModel | None = None

    def logits(self, image: Image, *, case: str = "", progress: Progress | None = None, known: LogitsCache | None = None) -> Logits:
        """Logits of a whole image on the configuration's own grid, with the trace that leads back to the file's.

        Args:
            image: Channels as in training, any spacing.
            case: Its name, for messages.
            progress: Called with the share done since the last call; a cascade counts its first stage as half.
            known: This model and its first stage look there for what they said before, and note it there where it is wanted.
        """
        known = {} if known is None else known
        found = known.get(self)
        if found is None:
            found = self._compute(image, case, progress, known)
            if self in known:
                known[self] = found
        elif progress is not None:
            progress(1.0)
        return found

    @property
    def depends_on(self) -> tuple[TrainedModel, ...]:
        """Models whose logits it needs for its own."""
        return () if self.previous is None else (self.previous,)

    def _compute(self, image: Image, case: str, progress: Progress | None, known: LogitsCache) -> Logits:
        array, _, trace = preprocess_case(image, None, self.plan, self.configuration, case=case)
        report, organs = progress, None
        if self.previous is not None:
            report = None if progress is None else lambda share: progress(share / 2)
            first = export_labels([self.previous.logits(image, case=case, progress=report, known=known)], self.plan.labels)
            organs = on_grid(first, trace)
        source = case or image.source
        region = candidate_region_mask(self.configuration, array, organs, source=source)
        seen = organs if self.configuration.sees_previous else None
        return Logits(self.predictor.logits(array, previous=seen, region=region, progress=report, source=source), trace)


def logits_cache_for(models: Iterable[TrainedModel]) -> LogitsCache:
    """Nothing known yet of an image, and place for the logits of all that will be asked twice or are wanted for themselves."""
    wanted = list(models)
    counts = Counter(one for model in wanted for one in _below(model))
    return dict.fromkeys([*wanted, *(model for model, count in counts.items() if count > 1)])


def _below(model: TrainedModel) -> Iterator[TrainedModel]:
    for one in model.depends_on:
        yield one
        yield from _below(one)


ModelCache = MutableMapping[tuple[Path, tuple[str, ...]], TrainedModel]
"""Model folder and folds to the model that was loaded from them."""


def load_model(folder: Path, device: torch.device, options: InferenceOptions, *, loaded: ModelCache | None = None) -> TrainedModel:
    """Loads the networks of a model folder (and, for a cascade, of its first stage beside it).

    Args:
        folder: ``results/<dataset>/<configuration>__<trainer>``.
        device: Where to compute.
        options: Folds and test-time settings.
        loaded: Models that were loaded before with the same device and settings: they are used again, and what is loaded is added.

    Raises:
        ValueError: No fold, or not the wanted ones, are trained; the message lists those that are.
    """
    there = tuple(ModelFolder(folder).trained_folds())
    folds = there if options.folds is None else options.folds
    missing = [fold for fold in folds if fold not in there]
    if not folds or missing:
        raise ValueError(f"{folder}: expected trained folds {', '.join(folds) or '(any)'}, found {', '.join(there) or 'none'}")
    loaded = {} if loaded is None else loaded
    if (folder, folds) not in loaded:
        loaded[folder, folds] = _load(folder, folds, device, options, loaded=loaded)
    return loaded[folder, folds]


def _load(folder: Path, folds: tuple[str, ...], device: torch.device, options: InferenceOptions, *, loaded: ModelCache) -> TrainedModel:
    model = ModelFolder(folder)
    if model.is_ensemble:
        from ..ensembling.prediction import load_ensemble  # its models are of the kind that is defined here

        return load_ensemble(folder, folds, device, options, loaded=loaded)
    record = model.run(folds[0]).record()
    plan, configuration = record.plan, record.configuration
    predictor = _predictor([model.run(fold) for fold in folds], plan, configuration, device, options)
    previous = None
    if record.previous_model is not None:
        first = folder.parent / record.previous_model
        # The first stage votes with all its folds: which of the second's are asked for does not matter to it.
        previous = load_model(first, device, replace(options, folds=None), loaded=loaded)
    key = checkpoint_key(folder, folds) + ("" if previous is None else f" after {previous.name} {previous.key}")
    return TrainedModel(folder.name, plan, configuration, predictor, key, previous)


def _predictor(
    runs: Sequence[Run], plan: Plan, configuration: Configuration, device: torch.device, options: InferenceOptions
) -> Predictor | LowMemoryPredictor | LocatedPredictor:
    """What predicts with the networks of these folds, and finds the box to look at first where that was learnt."""
    loaders = [partial(load_network, run, plan, configuration, device) for run in runs]
    locators = [partial(load_locator, run, plan, configuration, device) for run in runs]
    how = {"device": device, "mirror": options.mirror, "step": options.step}
    if options.low_memory:
        predictor = LowMemoryPredictor(loaders, configuration, plan.labels, **how)
    else:
        predictor = Predictor([load() for load in loaders], configuration, plan.labels, **how)
    if configuration.locator is None:
        return predictor
    if not options.low_memory:
        locators = [partial(_same, load()) for load in locators]
    return LocatedPredictor(predictor, Localiser(locators, configuration, device))


def _same(network: nn.Module) -> nn.Module:
    return network


def load_locator(run: Run, plan: Plan, configuration: Configuration, device: torch.device) -> nn.Module:
    """The network of one fold that finds the box to look at, in evaluation mode; holds only the activations it must."""
    network = build_locator(configuration, len(plan.channels))
    states, _ = load_checkpoint(run.checkpoint)
    network.load_state_dict(states["locator"])
    return use_low_memory(network).to(device, memory_format=memory_format(configuration.dim)).eval()


def load_network(run: Run, plan: Plan, configuration: Configuration, device: torch.device) -> nn.Module:
    """The network of one fold with its final weights, in evaluation mode."""
    network = build_network(
        configuration.network,
        dim=configuration.dim,
        in_channels=plan.in_channels(configuration),
        out_channels=plan.labels.n_outputs,
        **without_pretrained(configuration.built_options),
    )
    states, _ = load_checkpoint(run.checkpoint)
    network.load_state_dict(states["network"])
    return network.to(device, memory_format=memory_format(configuration.dim)).eval()


def checkpoint_key(folder: Path, folds: Sequence[str]) -> str:
    """Identifies the weights of a model folder's folds by the contents of their checkpoints, which are loaded at the same time anyway."""
    return " ".join(f"{fold}:{file_id(ModelFolder(folder).run(fold).checkpoint)}" for fold in folds)
