"""Trained models: from a folder of finished folds to a function from an image to logits, both stages of a cascade in one call."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from ..data.label_subsets import translate_labels
from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..preprocessing.preprocess import preprocess_case
from ..runtime.checkpoints import load_checkpoint, load_weights
from ..runtime.hardware import memory_format
from ..runtime.provenance import file_id
from ..runtime.registry import lookup, named_in
from ..runtime.runs import ENSEMBLE, ModelFolder, Run
from ..schema import Configuration, Image, Labels, Mirroring, Plan, Trace
from .cascade import on_grid
from .coarse_to_fine import CoarseToFinePredictor, is_suited
from .export import export_labels
from .fold_agreement import check_folds_agree
from .localisation import Localiser, LocatedPredictor, build_locator
from .logits import Logits
from .low_memory import LowMemoryPredictor, use_low_memory
from .memory_limit import MemoryLimit
from .memory_need import COPIES_OF_TILE, bytes_after, network_bytes
from .predictor import Predictor, tiling_of
from .volume_predictor import Progress, Volume, predict_preprocessed, scaled

NetworkLoader = Callable[[], nn.Module]
"""Gives a network with its final weights, on the device and in evaluation mode."""

LogitsCache = MutableMapping["TrainedModel", Logits | None]
"""Logits of one image by model; None for a model whose logits are to be stored here once they are computed."""


@dataclass(frozen=True)
class InferenceOptions:
    """Settings of inference with trained networks.

    Attributes:
        folds: That are averaged; None means all that are trained.
        mirror: Average over mirrored images too.
        step: Distance of tiles as a share of the patch; None: each model's own, with which it was validated.
        first_step: The same of the first stage of cascades; None: as `step`.
        stage_folds: Folds of the first stage of cascades; None: all, whichever of the second's are wanted.
        low_memory: Hold one network, and compute one tile, at a time.
        coarse_to_fine: Look at the volume at lower resolution first, and compute only tiles in which that found organs.
        max_memory: Bytes that the process may hold; None: what the computer has.
    """

    folds: tuple[str, ...] | None = None
    mirror: bool = True
    step: float | None = None
    first_step: float | None = None
    stage_folds: tuple[str, ...] | None = None
    low_memory: bool = False
    coarse_to_fine: bool = False
    max_memory: int | None = None


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """One configuration's networks, ready to predict; equal only to itself.

    Attributes:
        name: Folder name, ``3d_fullres__Trainer``.
        configuration: As trained (the patch may be smaller than planned).
        predictor: Of all folds.
        key: Identifies the weights, so that results of other weights are not taken for theirs.
        previous: First stage of a cascade, or None.
        max_memory: Bytes that the process may hold; None: what the computer has.
    """

    name: str
    plan: Plan
    configuration: Configuration
    predictor: Predictor | LowMemoryPredictor | LocatedPredictor | CoarseToFinePredictor
    key: str
    previous: TrainedModel | None = None
    max_memory: int | None = None

    def logits(self, image: Image, *, case: str = "", progress: Progress | None = None, cache: LogitsCache | None = None) -> Logits:
        """Logits of a whole image on the configuration's own grid, with the trace that leads back to the file's.

        Args:
            image: Channels as in training, any spacing.
            case: Its name, for messages.
            progress: A cascade counts its first stage as half.
            cache: Of this image: this model and those that it depends on read their logits there, and store them where they are wanted.
        """
        cache = {} if cache is None else cache
        logits = cache.get(self)
        if logits is None:
            inputs, rest = scaled(progress, self.input_share), scaled(progress, 1 - self.input_share)
            volume, trace = self.preprocessed(image, case, inputs, cache)
            if self.max_memory is not None:
                volume = replace(volume, limit=MemoryLimit(self.max_memory, self._reserve(image, volume)))
            logits = predict_preprocessed(self.predictor, self.configuration, volume, trace, progress=rest)
            if self in cache:
                cache[self] = logits
        elif progress is not None:
            progress(1.0)
        return logits

    def _reserve(self, image: Image, volume: Volume) -> int:
        """Memory that is needed beside large arrays: for a tile, or for the steps after all tiles, when the volume is gone."""
        after = bytes_after(image.geometry.shape, volume.image.shape[1:], self.plan.labels.n_outputs)
        return max(self.tile_bytes, after - volume.image.nbytes)

    @cached_property
    def tile_bytes(self) -> int:
        """Memory that a tile takes with one network at a time: its weights, feature maps, and the tile's logits."""
        window = self.predictor if isinstance(self.predictor, (Predictor, LowMemoryPredictor)) else self.predictor.predictor
        network = window.networks[0] if isinstance(window, Predictor) else window.loaders[0]()
        inputs = (1, self.input_channels, *self.configuration.input_size)
        logits = COPIES_OF_TILE * 4 * math.prod(self.configuration.patch_size) * self.plan.labels.n_outputs
        return logits + (network_bytes(network, inputs) if isinstance(network, nn.Module) else 0)

    @property
    def input_channels(self) -> int:
        """Of its network."""
        return self.plan.in_channels(self.configuration)

    @property
    def depends_on(self) -> tuple[TrainedModel, ...]:
        """Models whose logits it needs for its own."""
        return () if self.previous is None else (self.previous,)

    @property
    def input_share(self) -> float:
        """Share of the work, for progress, of the models that it depends on."""
        return 0.5 if self.depends_on else 0.0

    def preprocessed(self, image: Image, case: str, progress: Progress | None, cache: LogitsCache) -> tuple[Volume, Trace]:
        """The image on the configuration's grid, with the first stage's organs where there is one; arguments as of `logits`."""
        array, _, trace = preprocess_case(image, None, self.plan, self.configuration, case=case)
        organs = None
        if self.previous is not None:
            first = self.previous.logits(image, case=case, progress=progress, cache=cache)
            labels = self.previous.plan.labels
            organs = on_grid(translate_labels(export_labels([first], labels), labels, self.plan.labels), trace)
        return Volume(array, organs, case=case or image.source), trace


def logits_cache_for(models: Iterable[TrainedModel]) -> LogitsCache:
    """An empty cache for one image, with a place for all models that predict it twice or are wanted for themselves."""
    wanted = list(models)
    counts = Counter(one for model in wanted for one in _dependencies(model))
    return dict.fromkeys([*wanted, *(model for model, count in counts.items() if count > 1)])


def _dependencies(model: TrainedModel) -> Iterator[TrainedModel]:
    for one in model.depends_on:
        yield one
        yield from _dependencies(one)


ModelCache = MutableMapping[tuple[Path, tuple[str, ...], float | None, bool, bool], TrainedModel]
"""Model folder, folds, step of tiles, mirroring and coarse to fine to the model that was loaded from them."""


LOADERS = {"networks": "autoseg.inference.trained_model:load_networks", ENSEMBLE: "autoseg.ensembling.prediction:load_ensemble"}
"""Kind of model folder to the function that loads its folds."""


def load_model(folder: Path, device: torch.device, options: InferenceOptions, *, loaded: ModelCache | None = None) -> TrainedModel:
    """Loads the networks of a model folder, and the models beside it that it depends on: a cascade's first stage, an ensemble's members.

    Models that were `loaded` before with the same device and settings are used again, and what is loaded is added.

    Raises:
        ValueError: No fold, or not the wanted ones, are trained; the message lists those that are.
    """
    model = ModelFolder(folder)
    available = tuple(model.trained_folds())
    folds = available if options.folds is None else options.folds
    if not folds or any(fold not in available for fold in folds):
        raise ValueError(f"{folder}: expected trained folds {', '.join(folds) or '(any)'}, found {', '.join(available) or 'none'}")
    loaded = {} if loaded is None else loaded
    key = (folder, folds, options.step, options.mirror, options.coarse_to_fine)
    if key not in loaded:
        run = model.run(folds[0])
        combines = model.is_ensemble or run.record().ensemble is not None  # the folder may have another name
        load: Callable[..., TrainedModel] = lookup(LOADERS, ENSEMBLE if combines else "networks", "kind of model")
        with named_in(run.record_file):
            loaded[key] = load(folder, folds, device, options, loaded=loaded)
    return loaded[key]


def load_networks(
    folder: Path, folds: tuple[str, ...], device: torch.device, options: InferenceOptions, *, loaded: ModelCache
) -> TrainedModel:
    """Loads networks that were trained on images, with the locator or first stage that precedes them."""
    runs = [ModelFolder(folder).run(fold) for fold in folds]
    check_folds_agree(runs)
    record = runs[0].record()
    plan, configuration = record.plan, replace(record.configuration, mirroring=_common_flips(runs))
    networks = [partial(load_network, run, plan, configuration, device) for run in runs]
    window = sliding_window(networks, configuration, plan.labels, device, options)
    predictor: Predictor | LowMemoryPredictor | LocatedPredictor | CoarseToFinePredictor = window
    coarse = options.coarse_to_fine and is_suited(configuration)
    if coarse:
        predictor = CoarseToFinePredictor(window)
    if configuration.locator is not None:
        locators: list[NetworkLoader] = [partial(load_locator, run, plan, configuration, device) for run in runs]
        if not options.low_memory:
            locators = [partial(nn.Module.eval, load()) for load in locators]
        predictor = LocatedPredictor(window, Localiser(locators, configuration, device))
    previous = None
    if record.previous_model is not None:
        stage = folder.parent / record.previous_model
        if not ModelFolder(stage).trained_folds():
            raise ValueError(f"{folder}: its first stage {record.previous_model} is not trained, or was not copied with it: {stage}")
        step = options.step if options.first_step is None else options.first_step
        previous = load_model(stage, device, replace(options, folds=options.stage_folds, step=step, coarse_to_fine=False), loaded=loaded)
    key = checkpoint_key(folder, folds) + ("" if previous is None else f" after {previous.name} {previous.key}")
    key += "" if previous is None or options.first_step is None else f" {previous.predictor.step}"
    key += " coarse to fine" if coarse else ""
    return TrainedModel(folder.name, plan, configuration, predictor, key, previous, options.max_memory)


def _common_flips(runs: Sequence[Run]) -> Mirroring:
    """The flips that the networks of all folds learned."""
    first, *others = [run.record().configuration.mirroring for run in runs]
    axes = tuple(axis for axis in first.axes if all(axis in one.axes for one in others))
    return first if axes == first.axes else replace(first, axes=axes)


def sliding_window(
    loaders: Sequence[NetworkLoader], configuration: Configuration, labels: Labels, device: torch.device, options: InferenceOptions
) -> Predictor | LowMemoryPredictor:
    """A sliding window over the networks of several folds, which are loaded now, or with low memory one by one for each volume."""
    step = tiling_of(configuration, options.step).step
    if options.low_memory:
        return LowMemoryPredictor(loaders, configuration, labels, device, options.mirror, step)
    networks = [load() for load in loaders]
    return Predictor(networks, configuration, labels, device=device, mirror=options.mirror, step=step)


def load_locator(run: Run, plan: Plan, configuration: Configuration, device: torch.device) -> nn.Module:
    """The network of one fold that localises the organs, in evaluation mode; holds only the activations it must."""
    return _with_weights(use_low_memory(build_locator(configuration, len(plan.channels))), run, "locator", configuration, device)


def load_network(run: Run, plan: Plan, configuration: Configuration, device: torch.device) -> nn.Module:
    """The network of one fold with its final weights, in evaluation mode."""
    network = build_network(
        configuration.network,
        dim=configuration.dim,
        in_channels=plan.in_channels(configuration),
        out_channels=plan.labels.n_outputs,
        single_output=configuration.sigmoid,
        **without_pretrained(configuration.built_options),
    )
    return _with_weights(network, run, "network", configuration, device)


def _with_weights(network: nn.Module, run: Run, part: str, configuration: Configuration, device: torch.device) -> nn.Module:
    states, _ = load_checkpoint(run.checkpoint)
    load_weights(network, states, part, run.checkpoint)
    layout = memory_format(configuration.dim)
    return network.to(device, memory_format=layout).eval()  # type: ignore[call-overload]  # torch's stubs lack memory_format


def checkpoint_key(folder: Path, folds: Sequence[str]) -> str:
    """Identifies the weights of a model folder's folds by the contents of their checkpoints, which are loaded at the same time anyway."""
    return " ".join(f"{fold}:{file_id(ModelFolder(folder).run(fold).checkpoint)}" for fold in folds)
