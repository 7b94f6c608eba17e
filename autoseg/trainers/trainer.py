"""The plain Trainer: one network, one loss, one optimiser, a budget that is used up exactly.

It owns the loop. A trainer that differs overrides `configure` (what it makes of the plan), `prepare` (what must lie ready), `step` (what
one batch does), `build_network`, `build_optimizer` or `build_loss`, and `extra_states` and `load_extra_states` where it has more to keep.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..inference.predictor import Predictor
from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..runtime.checkpoints import load_checkpoint, load_matching, save_checkpoint
from ..runtime.hardware import autocast, half_type, is_out_of_memory, memory_format, prepare, reset_peak_memory
from ..runtime.locks import remove_partial
from ..runtime.registry import lookup, unknown
from ..runtime.runs import FINAL_CHECKPOINT, LATEST_CHECKPOINT
from ..schema import Configuration, Labels, Plan
from ..schema.run_record import RunRecord
from ..schema.training_options import TrainingOptions
from .batches import TRAINING, VALIDATION, Batch, BatchMaker, NothingAnnotatedError
from .gradient_clipping import GradientClip
from .history import History
from .job import RunFolders
from .loading import Prefetcher, loader_size
from .losses import build_loss
from .losses.deep_supervision import SUPERVISIONS
from .losses.target_adaptive import Annotated, TargetAdaptive
from .optimizers import build_optimizer
from .run_environment import record_run_environment, remove_run_environment
from .schedules import learning_rate_factor
from .validation import PatchScores

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKPOINTS = 30.0

SCORING_SHARE = 0.5
"""Of what is left of a time budget, the most that scoring may use: a training must end by its own steps, with the learning rate at zero."""


class Trainer:
    """Trains one fold of one configuration.

    Args:
        job: What to do.
        folders: Where to read and write.
        device: Where to compute.
        progress: Show a progress bar.
    """

    def __init__(self, job: RunRecord, folders: RunFolders, *, device: torch.device, progress: bool = True) -> None:
        self.job, self.folders, self.device, self.progress = job, folders, device, progress
        prepare(device)
        torch.manual_seed(job.seed)
        self.network = self.build_network().to(device, memory_format=memory_format(job.configuration.dim))
        self.average = copy.deepcopy(self.network).requires_grad_(False) if job.options.average_decay else None
        self.loss = self.build_loss()
        self.optimizer = self.build_optimizer()
        self.clip = GradientClip(job.options.gradient_clip, job.options.relative_clip)
        self.fixed_clip = GradientClip(job.options.gradient_clip, 0.0)  # for what else is trained
        self.scaler = torch.amp.GradScaler(device.type, enabled=half_type(device) == torch.float16)
        self.history = History(folders.run)
        self.iteration, self.round, self.seconds = 0, 0, 0.0
        self._scores: dict[str, float] = {}
        self._scoring_seconds = 0.0
        self._scored_cases = job.split.val or job.split.train

    # What a trainer is made of: override these to differ

    def build_network(self) -> nn.Module:
        """The network of the configuration, with deep supervision as the options say."""
        configuration = self.job.configuration
        options = dict(configuration.built_options, deep_supervision=self.job.options.deep_supervision)
        if any((self.folders.run / name).is_file() for name in (LATEST_CHECKPOINT, FINAL_CHECKPOINT)):
            options = without_pretrained(options)  # its weights come from the checkpoint
        return build_network(
            configuration.network,
            dim=configuration.dim,
            in_channels=self.job.plan.in_channels(configuration),
            out_channels=self.job.plan.labels.n_outputs,
            **options,
        )

    @classmethod
    def configure(cls, configuration: Configuration, plan: Plan, options: Mapping[str, Any]) -> Configuration:
        """What this trainer makes of a planned configuration (another network, a candidate region), before it is fitted to the device.

        Args:
            configuration: With the network that the user asked for.
            plan: Of the dataset.
            options: `TrainingJob.trainer_options`.

        Raises:
            ValueError: An option is unknown, or the trainer cannot work with this configuration.
        """
        if options:
            raise unknown(f"option of {cls.__name__}", next(iter(options)), ())
        return configuration

    @classmethod
    def fit_to_data(cls, job: RunRecord, folders: RunFolders) -> RunRecord:
        """The job with what only the preprocessed cases (and a previous stage's segmentations of them) can tell; called once, as it begins.

        Args:
            job: Fitted to the device.
            folders: Where the run will read and write.
        """
        return job

    @property
    def labels(self) -> Labels:
        """The organs of a batch's label maps, as the loss and the scores of patches count them."""
        return self.job.plan.labels

    @classmethod
    def suited_options(cls, options: TrainingOptions, *, long_run: bool) -> TrainingOptions:
        """The options that a run of this trainer begins with where the user asks for nothing else.

        Args:
            options: That suit the plain trainer.
            long_run: Whether those are for a run of the reference's length.
        """
        return options

    def predictor(self, network: nn.Module) -> Predictor:
        """What the trained `network` predicts whole volumes with."""
        return Predictor([network], self.job.configuration, self.job.plan.labels, device=self.device)

    def prepare(self) -> None:
        """Makes what must lie ready before the first batch; called whenever a run begins or goes on."""

    def build_loss(self) -> Callable[[Tensor | Sequence[Tensor], Tensor, Annotated], Tensor]:
        """The loss of the options over all outputs of the network; organs that a sample lacks annotations of do not count."""
        job = self.job
        loss = build_loss(job.options.loss, self.labels, batch_dice=job.configuration.batch_dice)
        supervision = lookup(SUPERVISIONS, job.options.supervision, "supervision")
        return TargetAdaptive(supervision(loss), self.labels)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the options over all weights of the network."""
        return build_optimizer(self.network.parameters(), self.job.options)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimisation step; what it returns is averaged over a round into the history."""
        with autocast(self.device):
            outputs = self.network(batch.image)
        loss = self.loss(outputs, batch.segmentation, batch.annotated)
        self.descend(loss)
        return {"train_loss": loss.detach()}

    def descend(self, loss: Tensor) -> None:
        """Gradient of `loss`, clipped, one step of the optimiser, and the weights' moving average."""
        if self.descend_on(loss, self.network, self.optimizer) and self.average is not None:
            # Young averages forget faster, or the first, random weights would linger.
            decay = min(self.job.options.average_decay, (1 + self.iteration) / (10 + self.iteration))
            with torch.no_grad():
                for mean, now in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                    mean.lerp_(now, 1 - decay) if mean.is_floating_point() else mean.copy_(now)

    def descend_on(self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """One clipped step of an optimiser over the weights of `network`; False where its gradient was not finite and no step was taken."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        norm = (self.clip if optimizer is self.optimizer else self.fixed_clip)(network.parameters())
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            return False  # as the scaler does for fp16: one broken gradient must not end the run; a lasting one shows in the loss
        self.scaler.step(optimizer)
        self.scaler.update()
        return True

    # The loop

    def fit(self) -> nn.Module:
        """Trains until the budget is used up, from where a former run stopped, and returns the network to predict with."""
        if not (self.folders.run / FINAL_CHECKPOINT).is_file():
            reset_peak_memory()
            self.restore()
            self.prepare()
            make = BatchMaker(self.job, self.folders, self.job.split.train, stream=TRAINING, device=self.device)
            threads, ahead = loader_size(self.job, self.device)
            with Prefetcher(make, start=self.iteration, ahead=ahead, threads=threads) as batches, self._bar() as bar:
                while self.used < 1:
                    self.train_interval(batches, bar)
                    self.finish_interval(bar)
            record_run_environment(self.folders.run, self.device)
            save_checkpoint(self.folders.run / FINAL_CHECKPOINT, self.final_states(), self._meta())
            (self.folders.run / LATEST_CHECKPOINT).unlink(missing_ok=True)
        else:
            self.load_final_states(load_checkpoint(self.folders.run / FINAL_CHECKPOINT)[0])
        return self.final_network().eval()

    @property
    def used(self) -> float:
        """Share of the budget that is used, 0..1."""
        return self.job.budget.progress(self.iteration, self.seconds)

    def train_interval(self, batches: Iterator[Batch], bar: tqdm) -> None:
        """Steps until the round's share of the budget is used."""
        self.network.train()
        sums: dict[str, Tensor] = {}
        start, started, count = self.seconds, time.monotonic(), 0
        end = (self.round + 1) / self.job.budget.validation_intervals
        while self.used < min(end, 1 - 1e-9) or count == 0:
            rate, before = self._set_learning_rate(), self.used
            for name, value in self._step_or_explain(batches).items():
                sums[name] = sums.get(name, 0) + value
            self.iteration, count = self.iteration + 1, count + 1
            self.seconds = start + time.monotonic() - started
            bar.update(min(100 * (self.used - before), bar.total - bar.n))
        means = {name: float(value) / count for name, value in sums.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise RuntimeError(
                f"{self.folders.run}: training diverged at iteration {self.iteration} ({means}); "
                "begin anew with --restart and a smaller --learning-rate"
            )
        self.history.begin(round=self.round + 1, iteration=self.iteration, learning_rate=rate, **means)

    def finish_interval(self, bar: tqdm) -> None:
        """Scores validation patches, writes history, plot and checkpoint."""
        started = time.monotonic()
        row = self.history.finish(**self._score_if_time(), seconds=self.seconds)
        before, self.round = self.used, self.round + 1
        if self._checkpoint_due():
            self.save()
        # The first scoring cannot be foreseen: what it takes beyond its share is added to the budget.
        self.seconds += min(time.monotonic() - started, self._seconds_to_spare())
        bar.update(min(100 * (self.used - before), bar.total - bar.n))
        bar.set_postfix_str(f"loss {row['train_loss']:.3f}, validation Dice {self._scores['mean_dice']:.3f}")
        self.history.warn_if_collapsed()

    def _seconds_to_spare(self) -> float:
        """What scoring may take of a time budget; all it needs once that is used up."""
        left = (1 - self.used) * self.job.budget.amount
        return SCORING_SHARE * left if self.job.budget.kind == "time" and left > 0 else math.inf

    def _score_if_time(self) -> dict[str, float]:
        """The scores of the validation patches, or NaN for each where they would take too much of what is left of the budget."""
        if self._scoring_seconds > self._seconds_to_spare():
            return dict.fromkeys(self._scores, math.nan)
        started = time.monotonic()
        self._scores = self._score_patches()
        self._scoring_seconds = time.monotonic() - started
        return self._scores

    def _score_patches(self) -> dict[str, float]:
        network = self.final_network().eval()
        make = self._scoring_batches()
        scores = PatchScores(self.labels)
        threads, ahead = loader_size(self.job, self.device)
        loader = Prefetcher(make, stop=self.job.options.validation_batches, ahead=ahead, threads=threads)
        with self._memory_explained(), torch.inference_mode(), loader as batches:
            for batch in batches:
                with autocast(self.device):
                    logits = network(batch.image)
                loss = self.loss(logits, batch.segmentation, batch.annotated)
                scores.add(logits.float(), batch.segmentation, loss, annotated=batch.annotated)
        return scores.result()

    def _scoring_batches(self) -> BatchMaker:
        """Of the validation cases; of the training cases where none of the former was annotated for the organs."""
        try:
            return BatchMaker(self.job, self.folders, self._scored_cases, stream=VALIDATION, device=self.device)
        except NothingAnnotatedError as error:
            log.warning("%s: scores while training come from training cases.", error)
            self._scored_cases = self.job.split.train
            return BatchMaker(self.job, self.folders, self._scored_cases, stream=VALIDATION, device=self.device)

    def final_network(self) -> nn.Module:
        """The network that validates and predicts: the moving average where there is one."""
        return self.network if self.average is None else self.average

    def final_states(self) -> dict[str, dict[str, Any]]:
        """What prediction needs, by name; ``network`` is the final network's."""
        return {"network": self.final_network().state_dict()}

    def load_final_states(self, states: Mapping[str, Any]) -> None:
        """Takes over what `final_states` gave."""
        self.final_network().load_state_dict(states["network"])

    # Going on where a run stopped

    def save(self) -> None:
        """Writes everything that is needed to go on, atomically."""
        states = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        states["random"], states["clip"] = torch.get_rng_state(), self.clip.state()
        if self.average is not None:
            states["average"] = self.average.state_dict()
        states |= self.extra_states()
        record_run_environment(self.folders.run, self.device)
        save_checkpoint(self.folders.run / LATEST_CHECKPOINT, states, self._meta())
        self._saved_at = time.monotonic()

    def extra_states(self) -> dict[str, dict[str, Any]]:
        """State of what else is trained, by name (a discriminator, its optimiser), to go on from."""
        return {}

    def load_extra_states(self, states: Mapping[str, Any]) -> None:
        """Takes over what `extra_states` gave."""

    def load_pretrained(self, states: Mapping[str, Any]) -> None:
        """Takes over what fits of the final states of another run (beside the network's own, which is loaded already)."""

    def restore(self) -> None:
        """Continues from the latest checkpoint, or starts from pretrained weights where the job names some."""
        self.folders.run.mkdir(parents=True, exist_ok=True)
        remove_partial(self.folders.run)
        path = self.folders.run / LATEST_CHECKPOINT
        if not path.is_file():
            self.history.clear()
            remove_run_environment(self.folders.run)
            self._load_pretrained()
            return
        # Onto the processor first: what belongs on the device goes there when it is taken over, and Adam's step counts stay where they are.
        states, meta = load_checkpoint(path)
        self.network.load_state_dict(states["network"])
        self.optimizer.load_state_dict(states["optimizer"])
        if states["scaler"]:  # empty where the run began on a device that needs none
            self.scaler.load_state_dict(states["scaler"])
        torch.set_rng_state(states["random"])
        self.clip.load(states.get("clip", {}))
        if self.average is not None:
            self.average.load_state_dict(states["average"])
        self.load_extra_states(states)
        self.iteration, self.round, self.seconds = meta["iteration"], meta["round"], meta["seconds"]
        self.history.cut(self.round)
        log.info(
            "Going on at %.0f %% (iteration %d, round %d of %d).",
            100 * self.used,
            self.iteration,
            self.round,
            self.job.budget.validation_intervals,
        )

    def _load_pretrained(self) -> None:
        if self.job.pretrained is None:
            return
        states, _ = load_checkpoint(self.job.pretrained)
        loaded, missing = load_matching(self.network, states["network"])
        if not loaded:
            raise ValueError(f"--pretrained {self.job.pretrained}: not one weight fits this network; was it trained with the same plan?")
        if self.average is not None:
            self.average.load_state_dict(self.network.state_dict())
        log.info("Pretrained weights: %d tensors loaded; freshly initialised: %s", len(loaded), ", ".join(missing) or "none")
        self.load_pretrained(states)

    def _meta(self) -> dict[str, object]:
        return {"iteration": self.iteration, "round": self.round, "seconds": self.seconds, "fold": self.job.fold}

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - getattr(self, "_saved_at", -math.inf) > SECONDS_BETWEEN_CHECKPOINTS

    # Small things

    def _set_learning_rate(self) -> float:
        options = self.job.options
        rate = options.learning_rate * learning_rate_factor(options.schedule, self.used, warmup=options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _step_or_explain(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        # Waiting for the batch belongs to it: its augmentation, in another thread, needs the device's memory too.
        with self._memory_explained():
            return self.step(next(batches))

    @contextlib.contextmanager
    def _memory_explained(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            patch, size = "x".join(map(str, self.job.configuration.patch_size)), self.job.configuration.batch_size
            raise RuntimeError(
                f"out of memory on {self.device} with patch {patch} and batch {size}: is another program using it? "
                "Run the same command again to go on, or plan for less with autoseg_plan_and_preprocess --memory"
            ) from error

    @contextlib.contextmanager
    def _bar(self) -> Iterator[tqdm]:
        left = (1 - self.used) * self.job.budget.amount
        if self.job.budget.kind == "time":
            log.info("Training ends at %s.", (datetime.now() + timedelta(seconds=left)).strftime("%H:%M"))
        layout = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} so far, {remaining} left {postfix}"
        what = f"Training {self.job.configuration.name} fold {self.job.fold}"
        with tqdm(total=100, initial=100 * self.used, desc=what, bar_format=layout, disable=not self.progress) as bar:
            yield bar
