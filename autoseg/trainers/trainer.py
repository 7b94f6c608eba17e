"""The plain Trainer: one network, one loss, one optimiser, and a budget that is used up exactly.

It has the loop. A trainer that differs overrides `configure` (what it makes of the plan), `prepare` (which files the first batch needs),
`step` (what one batch does), `build_network`, `build_optimizer` or `build_loss`, and `extra_states` and `load_extra_states` where it trains
more than the network.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..inference.predictor import Predictor
from ..inference.volume_predictor import VolumePredictor
from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..runtime.checkpoints import load_checkpoint, resumed_from, save_checkpoint
from ..runtime.hardware import autocast, autocast_dtype, prepare_device, reset_peak_memory
from ..runtime.interruption import PostponedInterruption
from ..runtime.locks import remove_partial_files
from ..runtime.registry import lookup, unknown_name_error
from ..schema import Configuration, Labels, Plan
from ..schema.run_record import RunRecord
from ..schema.training_options import TrainingOptions
from .batches import TRAINING, VALIDATION, Batch, BatchMaker, scoring_batches
from .fine_tuning import first_weights, kept_weights, new_head
from .gradient_clipping import GradientClip
from .history import History
from .interval_means import IntervalMeans
from .loading import Prefetcher, loader_size
from .losses import build_loss
from .losses.deep_supervision import SUPERVISIONS
from .losses.target_adaptive import TargetAdaptive
from .optimized_network import OptimizedNetwork, on_device
from .optimizers import build_optimizer
from .out_of_memory import explained_out_of_memory
from .patch_loss import patch_loss
from .plateau import Plateau
from .progress_bar import training_bar
from .run_environment import record_run_environment, remove_run_environment
from .run_options import RunFolders
from .schedules import learning_rate_factor
from .validation_plan import as_validated
from .volume_scores import score_volumes, scored_blocks, without_overlap

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKPOINTS = 30.0

SCORING_SHARE = 0.5
"""Most of the remaining time budget that scoring may use: training must reach the end of the learning rate schedule by its steps."""


class Trainer:
    """Trains one fold of one configuration.

    Args:
        job: Everything that decides on the weights.
        folders: Where to read and write.

    Attributes:
        optimized: The network that is trained, with its optimiser and the moving average of its weights.
        loss: Of the network's outputs, internal labels and annotated organs.
        scaler: Of losses in float16, for all networks that are trained.
        iteration, interval, seconds: Number of steps, of validation intervals, and training time so far.
        sees_surroundings: Whether its step can work with images that reach beyond their label maps (`Configuration.context`).
    """

    sees_surroundings: ClassVar[bool] = True

    def __init__(self, job: RunRecord, folders: RunFolders, *, device: torch.device, progress: bool = True) -> None:
        self.job, self.folders, self.device, self.progress = job, folders, device, progress
        prepare_device(device)
        torch.manual_seed(job.seed)
        self.network = on_device(self.build_network(), device, job.configuration.dim)
        self.loss = self.build_loss()
        self.scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype(device) == torch.float16)
        clip, decay = GradientClip(job.options.gradient_clip, job.options.relative_clip), job.options.average_decay
        self.optimized = OptimizedNetwork(self.network, self.build_optimizer(), clip=clip, scaler=self.scaler, average_decay=decay)
        self.history, self.iteration, self.interval, self.seconds = History(folders.run), 0, 0, 0.0
        self._means, self._interruption, self._plateau = IntervalMeans(), PostponedInterruption(), Plateau(job.options)
        self._scores: dict[str, float] = {}
        self._scoring_seconds, self._saved_at, self._start = 0.0, -math.inf, 0.0

    learns_pseudo_labels = True  # whether `step` counts voxels by `Batch.weight`
    step_kinds: Mapping[int, float] = {0: 1.0}  # number of an iteration to the share of all that cost as much: here all are alike

    # What a trainer is made of: override these to differ

    def build_network(self) -> nn.Module:
        """The network of the configuration, with deep supervision as the options say."""
        configuration = self.job.configuration
        options: dict[str, Any] = {**configuration.built_options, "deep_supervision": self.job.options.deep_supervision}
        if self.folders.files.latest_checkpoint.is_file() or self.folders.files.is_trained:
            options = without_pretrained(options)  # its weights come from the checkpoint
        return build_network(
            configuration.network,
            dim=configuration.dim,
            in_channels=self.job.plan.in_channels(configuration),
            out_channels=self.job.plan.labels.n_outputs,
            single_output=configuration.sigmoid,
            **options,
        )

    @classmethod
    def configure(cls, configuration: Configuration, plan: Plan, options: Mapping[str, Any]) -> Configuration:
        """Adapts a planned configuration to this trainer (another network, a candidate region), before it is fitted to the device.

        Args:
            configuration: With the network that the user asked for.
            options: `RunRecord.trainer_options`.

        Raises:
            ValueError: An option is unknown, or the trainer cannot work with this configuration.
        """
        if options:
            raise unknown_name_error(f"option of {cls.__name__}", next(iter(options)), ())
        return configuration

    @classmethod
    def options_of_siblings(cls, options: dict[str, Any], sibling: Configuration) -> dict[str, Any]:
        """The `options` of a fold that joins others; what nobody asked for is as in the `sibling`, of perhaps an earlier version."""
        return options

    @classmethod
    def fit_to_data(cls, job: RunRecord, folders: RunFolders) -> RunRecord:
        """Completes the job by what depends on the preprocessed cases and a previous stage's segmentations; called once, at the start."""
        return job

    @property
    def labels(self) -> Labels:
        """The organs of a batch's label maps, as the loss and the scores of patches count them."""
        return self.job.plan.labels

    @classmethod
    def suited_options(cls, options: TrainingOptions, *, long_run: bool) -> TrainingOptions:
        """This trainer's default options.

        Args:
            options: Defaults of the plain trainer.
            long_run: Whether those are for a run of the reference's length.
        """
        return options

    supervisions: Mapping[str, Callable[[Any], Callable[..., Tensor]]] = SUPERVISIONS
    """How the outputs of a network with deep supervision count, by the names of `SUPERVISIONS`."""

    def predictor(self, network: nn.Module) -> VolumePredictor:
        """The predictor of whole volumes with the trained `network`."""
        return Predictor([network], as_validated(self.job), self.job.plan.labels, device=self.device)

    def prepare(self) -> None:
        """Writes files that the first batch needs; called whenever a run begins or goes on."""

    def batch_maker(self, names: Sequence[str], *, stream: int) -> BatchMaker:
        return BatchMaker(self.job, self.folders, names, stream=stream, device=self.device)

    def build_loss(self) -> Callable[..., Tensor]:
        """The loss of the options over all outputs of the network; organs that a sample lacks annotations of do not count."""
        options, batch_dice = self.job.options, self.job.configuration.batch_dice
        loss = build_loss(options.loss, self.labels, batch_dice=batch_dice, class_weights=options.class_weights)
        supervision = lookup(self.supervisions, options.supervision, "supervision")
        return TargetAdaptive(supervision(loss), self.labels)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the options over all weights of the network."""
        return build_optimizer(self.network.parameters(), self.job.options)

    def step(self, batch: Batch) -> Mapping[str, Tensor | None]:
        """Takes one optimisation step; the values it returns are averaged over a validation interval into the history, None left out."""
        with autocast(self.device):
            outputs = self.network(batch.image)
        loss = self.loss(outputs, batch.segmentation, batch.annotated, batch.weight)
        self.descend(loss)
        return {"train_loss": loss.detach()}

    def descend(self, loss: Tensor) -> None:
        """Takes a step of the optimiser along the gradient of `loss`."""
        self.optimized.descend(loss, self.iteration)

    def fit(self, *, longer: bool = False) -> nn.Module:
        """Trains until the budget is used up, from where an interrupted run stopped (or, `longer`, a trained one); gives the final network.

        A signal ends it with KeyboardInterrupt, after a checkpoint of that very step, unless a second one comes meanwhile.
        """
        if longer or not self.folders.files.is_trained:
            reset_peak_memory()
            self.restore()
            self.prepare()
            threads, ahead = loader_size(self.job, self.device)
            loader = Prefetcher(self.batch_maker(self.job.split.train, stream=TRAINING), start=self.iteration, ahead=ahead, threads=threads)
            with loader as batches, training_bar(self.job, self.used, progress=self.progress) as bar, self._interruption:
                while (self.used < 1 or self._means.count) and not self._plateau.has_ended:
                    self.train_interval(batches, bar)
                    self.finish_interval(bar)
                    self._end_if_signalled()
            if self.job.scheduled_share < 1:
                self.save()  # a longer training goes on from it as if this had not ended
            record_run_environment(self.folders.run, self.device)
            save_checkpoint(self.folders.files.checkpoint, self.final_states(), self._meta())
            if self.job.scheduled_share == 1:
                self.folders.files.latest_checkpoint.unlink(missing_ok=True)
        else:
            states, _ = load_checkpoint(self.folders.files.checkpoint)
            with resumed_from(self.folders.files.checkpoint):
                self.load_final_states(states)
        return self.final_network().eval()

    @property
    def used(self) -> float:
        """Share of the budget that is used, 0..1."""
        return self.job.budget.progress(self.iteration, self.seconds)

    def train_interval(self, batches: Iterator[Batch], bar: tqdm) -> None:
        """Takes steps until the validation interval's share of the budget is used."""
        self.network.train()
        options, means = self.job.options, self._means
        start, started, share = self.seconds, time.monotonic(), self.job.scheduled_share
        end = (self.interval + 1) / self.job.budget.validation_intervals
        while self.used < min(end, 1 - 1e-9) or means.count == 0:
            before = self.used
            factor = learning_rate_factor(options.schedule, before * share, warmup=options.warmup, start=self._start)
            self.optimized.learning_rate = options.learning_rate * factor * self._plateau.factor
            # Waiting for the batch belongs to it: its augmentation, in another thread, needs the device's memory too.
            with explained_out_of_memory(self.job.configuration, self.device):
                means.add(self.step(next(batches)))
            self.iteration += 1
            self.seconds = start + time.monotonic() - started
            bar.update(min(100 * (self.used - before), bar.total - bar.n))
            self._end_if_signalled()
        row = {"learning_rate": self.optimized.learning_rate} | means.means()
        if not means.is_finite:
            raise RuntimeError(
                f"{self.folders.run}: training diverged at iteration {self.iteration} ({row}); "
                "start over with --restart and a smaller --learning-rate"
            )
        self.history.begin(validation_interval=self.interval + 1, iteration=self.iteration, **row)

    def finish_interval(self, bar: tqdm) -> None:
        """Scores held-out cases, writes history, plot and checkpoint."""
        started = time.monotonic()
        row = self.history.finish(**self._score_if_time(), seconds=self.seconds)
        before, self.interval = self.used, self.interval + 1
        self._means.reset()
        self._plateau.add(row["validation_loss"])
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            self.save()
        # The first scoring cannot be foreseen: what it takes beyond its share is added to the budget.
        self.seconds += min(time.monotonic() - started, self._seconds_to_spare())
        bar.update(min(100 * (self.used - before), bar.total - bar.n))
        bar.set_postfix_str(f"loss {row['train_loss']:.3f}, Dice {self._scores['mean_dice']:.3f}", refresh=False)
        self.history.warn_if_collapsed()

    def _seconds_to_spare(self) -> float:
        """Seconds of a time budget that scoring may take; without limit once that is used up."""
        left = (1 - self.used) * self.job.budget.amount
        return SCORING_SHARE * left if self.job.budget.kind == "time" and left > 0 else math.inf

    def _score_if_time(self) -> dict[str, float]:
        """Loss and Dice of held-out cases, or NaN for each where they would take too much of what is left of the budget."""
        if self._scoring_seconds > self._seconds_to_spare():
            return dict.fromkeys(self._scores, math.nan)
        started = time.monotonic()
        self._scores = {**self._score_patches(), **self._score_volumes()}
        self._scoring_seconds = time.monotonic() - started
        return self._scores

    def _score_patches(self) -> dict[str, float]:
        threads, ahead = loader_size(self.job, self.device)
        batches = Prefetcher(self._scoring_batches, stop=self.job.options.validation_batches, ahead=ahead, threads=threads)
        with explained_out_of_memory(self.job.configuration, self.device), batches:
            return {"validation_loss": patch_loss(self.final_network().eval(), self._interruptible(batches), self.loss, self.device)}

    def _score_volumes(self) -> dict[str, float]:
        """Dice of whole held-out cases: of the same few after every interval, of many more after the last."""
        job, make, quick = self.job, self._scoring_batches, without_overlap(self.job.configuration)
        is_last = self.used >= 1 - 1e-9 or self.interval + 1 >= job.budget.validation_intervals
        with explained_out_of_memory(job.configuration, self.device):
            predictor = self.for_job(replace(job, configuration=quick, validation=None)).predictor(self.final_network().eval())
            return score_volumes(predictor, self._interruptible(scored_blocks(make.cases, job, is_last=is_last)), make)

    def _interruptible(self, items: Iterable[Any]) -> Iterator[Any]:
        for one in items:
            yield one
            self._end_if_signalled()

    @cached_property
    def _scoring_batches(self) -> BatchMaker:
        return scoring_batches(partial(self.batch_maker, stream=VALIDATION), self.job)

    def final_network(self) -> nn.Module:
        """The network that validates and predicts: the moving average where there is one."""
        return self.optimized.final

    def final_states(self) -> dict[str, dict[str, Any]]:
        """State dicts that prediction needs, by name; ``network`` is the final network's."""
        return {"network": self.final_network().state_dict()}

    def load_final_states(self, states: Mapping[str, Any]) -> None:
        """Takes over what `final_states` gave."""
        self.final_network().load_state_dict(states["network"])

    # Resuming

    def _end_if_signalled(self) -> None:
        """Saves the run and ends it where a signal waits; continued, it gives what it would have given without."""
        if not self._interruption.is_signalled:
            return
        if self._means.is_finite:  # else the checkpoint before is of more use
            log.info("Interrupted: saving iteration %d (Ctrl-C ends without).", self.iteration)
            self.save()
        self._interruption.raise_if_signalled()

    def save(self) -> None:
        """Writes everything that is needed to go on, atomically."""
        states = self.optimized.states() | {"scaler": self.scaler.state_dict(), "clip": {"average": self.optimized.clip.average}}
        states |= {"random": torch.get_rng_state(), "interval": self._means.states(), "plateau": self._plateau.states()}
        states |= self.extra_states()
        record_run_environment(self.folders.run, self.device)
        save_checkpoint(self.folders.files.latest_checkpoint, states, self._meta())
        self._saved_at = time.monotonic()

    def extra_states(self) -> dict[str, dict[str, Any]]:
        """States of other networks that are trained (a discriminator, its optimiser), by name."""
        return {}

    def load_extra_states(self, states: Mapping[str, Any]) -> None:
        """Takes over what `extra_states` gave."""

    def load_pretrained(self, states: Mapping[str, Any]) -> None:
        """Starts further networks from the final states of another run, where they fit; the main one is loaded already."""

    def new_head(self) -> frozenset[str]:
        """Names of the network's tensors that are not taken from the pretrained checkpoint, whose organs are others; mostly none."""
        return new_head(self.job, self.network, self._network_of)

    def _network_of(self, job: RunRecord) -> nn.Module:
        """The network that this trainer would have for another job."""
        return self.for_job(job).build_network()

    def for_job(self, job: RunRecord) -> Trainer:
        """This trainer, with its networks, as that of another job."""
        other = copy.copy(self)
        other.job = job
        return other

    def restore(self) -> None:
        """Continues from the latest checkpoint, or starts from pretrained weights where the job names some."""
        self.folders.run.mkdir(parents=True, exist_ok=True)
        remove_partial_files(self.folders.run)
        path = self.folders.files.latest_checkpoint
        if not path.is_file():
            remove_run_environment(self.folders.run)
            self._begin()
            return
        # Onto the processor first: what belongs on the device goes there when it is taken over, and Adam's step counts stay where they are.
        remedy = "put a copy of it back, or remove it: the same command then trains from the beginning, as with --restart"
        states, meta = load_checkpoint(path, remedy=remedy)
        with resumed_from(path):
            self.optimized.load(states)
            if states["scaler"]:  # empty where the run began on a device that needs none
                self.scaler.load_state_dict(states["scaler"])
            torch.set_rng_state(states["random"])
            self.optimized.clip.average = states.get("clip", {}).get("average")
            if "interval" in states:  # not in those of earlier versions, which were written between two intervals only
                self._means.load(states["interval"], self.device)
            self._plateau.load(states.get("plateau", {}))
            self.load_extra_states(states)
            self.iteration, self.seconds = meta["iteration"], meta["seconds"]
            self.interval = meta["round" if "round" in meta else "validation_interval"]  # "round" in autoseg 0.1.0
        self.history.cut(self.interval)
        place = (100 * self.used, self.iteration, self.interval, self.job.budget.validation_intervals)
        log.info("Going on at %.0f %% (iteration %d, validation interval %d of %d).", *place)

    def _begin(self) -> None:
        """Starts from the pretrained weights that the job names, or from a shorter training's that goes on (`trainers.longer`)."""
        states, meta = first_weights(self.folders.files, self.job.pretrained)
        if meta is not None:
            self.iteration, self.seconds, self.interval = meta["iteration"], meta["seconds"], meta["validation_interval"]
            self._start = self.used * self.job.scheduled_share
        self.history.cut(self.interval)
        if states is not None:
            if not self.optimized.load_pretrained(kept_weights(states["network"], frozenset() if meta else self.new_head())):
                raise ValueError(f"--pretrained {self.job.pretrained}: not one weight fits this network; was its plan the same?")
            self.load_pretrained(states)

    def _meta(self) -> dict[str, object]:
        return {"iteration": self.iteration, "validation_interval": self.interval, "seconds": self.seconds, "fold": self.job.fold}
