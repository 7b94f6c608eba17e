"""Settings of each command, one frozen value each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .training_options import nested

FINE_TUNING_RATE = 0.1
"""Share of the learning rate with which weights that were trained before are trained on (Roth et al. 2018)."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Settings of planning.

    Attributes:
        configurations: To preprocess; None means all of the plan but ``2.5d``.
        preset: ``default``, ``resenc_m``, ``resenc_l`` or ``resenc_xl``.
        memory_gb: Memory target; None means the preset's.
        spacing: Target spacing ``(Z, Y, X)`` in mm instead of the planned one, or a multiple of that (``x2``).
        force_lowres: Plan a low resolution and a cascade even where the patch already sees enough.
        one_grid: Plan both stages of the cascade on the grid of ``3d_fullres``.
        plan_from: Id or name of a dataset, or the folder of its plan, whose plan is taken over (`planners.plan_from`); None plans anew.
        groups: Regular expression that finds the patient in a case's name.
        allow_external: Let ``dataset.json`` name files outside of the dataset's folder; the home remembers it.
        nifti_geometry: ``sform`` or ``qform``: the reading of NIfTI headers that contradict themselves; None means as planned before, and
            refuses the ambiguous ones.
        trust_files: Take files whose path and size are as recorded for unchanged, without reading them to verify their content.
        workers: Processes; None means as many as cores and memory allow.
        overwrite: Replace a plan (and in `pipeline.run` a choice) that was edited.
        allow_code: Modules of your own, or of others, that a name in the dataset's files may import; one that `preset` names is allowed.
    """

    configurations: tuple[str, ...] | None = None
    preset: str = "default"
    memory_gb: float | None = None
    spacing: tuple[float, ...] | str | None = None
    force_lowres: bool = False
    one_grid: bool = False
    plan_from: str | None = None
    groups: str | None = None
    allow_external: bool = False
    nifti_geometry: str | None = None
    trust_files: bool = False
    workers: int | None = None
    overwrite: bool = False
    allow_code: tuple[str, ...] = ()

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """The modules that may be imported: allowed, or of names that were typed."""
        return _with_modules_of(self.allow_code, self.preset)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a training.

    Attributes:
        trainer: Name in `autoseg.trainers.TRAINERS` or ``module:Class``.
        trainer_options: Options of this trainer alone.
        network: Name in `autoseg.networks.NETWORKS` or ``module:function``; None means the planned one, or the trainer's own.
        network_options: Its keyword arguments.
        organs: That the model learns, the others are background; empty means all.
        sources: Of a merged dataset those datasets whose cases are learnt from, and scored while training; empty means all.
        window: Width and level in HU of the CT window, or ``auto`` for that of the organs (`autoseg.data.ct_windows`); None as planned.
        window_bits: 8 rounds the values in the window to 256 grey values; None keeps them.
        center_crop: Pixels of the image (rows, columns) about the centre of each slice that are seen; None means all.
        slice_shape: Pixels (rows, columns) to which each slice is resampled instead of to the planned spacing; of ``2d`` and ``2.5d``.
        patch: Voxels per axis of the network's input instead of the planned ones.
        sigmoid: A model of one organ has one output with sigmoid instead of two with softmax; None means as in the paper of its network.
        normalization: Schemes instead of the planned ones (`autoseg.preprocessing.normalization.find_scheme`): one, or one a channel.
        options: Values of `autoseg.schema.training_options.TrainingOptions` that differ from what suits the length of the run.
        epochs: Budget in epochs of 250 iterations.
        seconds: Budget in wall time.
        fitted_seconds: Budget in wall time that network, batch, optimiser and learning rate are fitted to, where `seconds` is only its
            first part.
        longer: Train a run with a budget in time on until `seconds` in all, also a finished one (`trainers.longer`).
        trial: Held-out patients that are scored instead of a validation (`trainers.trial`); None validates.
        first_iterations: Budget of a cascade's first stage in optimisation steps; None means the same as its second.
        seed: Of every random choice.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        batch: Patches a step; None means what suits the device.
        learning_rate: At the start; None means the trainer's.
        rate_of_preset: The rate among `options` is that of a paper's preset and was not typed: with `pretrained` a tenth of it is taken.
        pretrained: Checkpoint to start from, or the folder of a fold or model that has one.
        validation: ``auto``: with fewer mirrored copies and tiles where that would take longer than half of `seconds`; ``full``: never.
        pseudo_labels: Learn from the images without label maps too, by the chosen models' predictions of them.
        restart: Move an existing run aside and start again.
        tag: Last part of the model folder's name, to keep trainings apart that differ in an option only.
        allow_code: Modules of your own, or of others, that a name in a plan or run record may import; those of `trainer`, `network`,
            `normalization` and `options` are allowed.
    """

    trainer: str = "Trainer"
    trainer_options: dict[str, Any] = field(default_factory=dict)
    network: str | None = None
    network_options: dict[str, Any] = field(default_factory=dict)
    organs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    window: tuple[float, float] | str | None = None
    window_bits: int | None = None
    center_crop: tuple[int, ...] | None = None
    slice_shape: tuple[int, ...] | None = None
    patch: tuple[int, ...] | None = None
    sigmoid: bool | None = None
    normalization: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    iterations: int | None = None
    seconds: float | None = None
    fitted_seconds: float | None = None
    longer: bool = False
    trial: int | None = None
    first_iterations: int | None = None
    seed: int = 0
    device: str = "auto"
    batch: int | None = None
    learning_rate: float | None = None
    rate_of_preset: bool = False
    pretrained: Path | None = None
    validation: str = "auto"
    pseudo_labels: bool = False
    restart: bool = False
    tag: str = ""
    allow_code: tuple[str, ...] = ()

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """The modules that may be imported: allowed, or of names that were typed."""
        options = (*self.options.values(), *self.network_options.values(), *self.trainer_options.values())
        return _with_modules_of(self.allow_code, self.trainer, self.network, *self.normalization, *options)

    @property
    def changed_options(self) -> dict[str, Any]:
        """Training options that differ from what suits the length of the run, by the names of `TrainingOptions`."""
        options = nested(self.options)
        if self.rate_of_preset and self.pretrained is not None and "learning_rate" in options:
            options["learning_rate"] *= FINE_TUNING_RATE
        return options | ({} if self.learning_rate is None else {"learning_rate": self.learning_rate})


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Settings of a prediction; `device`: see `TrainSettings`.

    Attributes:
        dataset: Id, name or folder of the dataset whose models predict; None means the only one that is trained.
        folder: Folder of models anywhere, instead of a dataset of the home: results of a dataset, one model, or one fold.
        model: ``3d_fullres`` or ``3d_fullres__Trainer`` instead of the chosen models; None follows the choice.
        folds: Folds whose networks are averaged; None means all that each model was trained on.
        mirror: Average over mirrored images (test-time augmentation); None: where held-out cases gained enough by it.
        step: Distance of tiles as a share of the patch; two: of a cascade's first stage, and of all others; None: as validated.
        fast: The cheapest models and the cheapest way whose Dice on held-out cases is at most 0.01 lower (`autoseg.selection.fast_choice`).
        low_memory: Hold one network and compute one tile at a time: slower, with the least memory.
        max_memory_gb: Most memory that the process may hold, in GB (1e9 bytes), with one network and one tile at a time and large arrays in
            temporary files; a case that needs more is not begun. None: what the computer has.
        save_probabilities: Write probability maps too.
        uncertainty: Write uncertainty maps too, and the table of what to check first even of a single case.
        statistics: Also each organ's intensities and estimated Dice in the table of volumes.
        vote: The majority of the label maps of all folds and members, instead of the average of their probabilities.
        postprocess: Post-processing instead of the chosen one (`autoseg.inference.postprocessing.forced`).
        ending: Of written files, ``.nrrd`` or ``nrrd``; None means each input's own.
        nifti_geometry: As in `PlanSettings`; None means as in the plan.
        allow_code: Modules of your own, or of others, that a name in the models' files may import.
    """

    dataset: str | None = None
    folder: str | Path | None = None
    model: str | None = None
    folds: tuple[str, ...] | None = None
    mirror: bool | None = None
    step: float | tuple[float, float] | None = None
    fast: bool = False
    low_memory: bool = False
    max_memory_gb: float | None = None
    save_probabilities: bool = False
    uncertainty: bool = False
    statistics: bool = False
    vote: bool = False
    postprocess: tuple[str, ...] = ()
    ending: str | None = None
    nifti_geometry: str | None = None
    device: str = "auto"
    allow_code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fast and self.mirror:
            raise ValueError("--fast: predicts without mirrored copies, found --tta too; leave one of them out")
        if self.max_memory_gb is not None and not self.max_memory_gb > 0:
            raise ValueError(f"--max-memory: expected more than 0 GB, got {self.max_memory_gb}")

    @property
    def max_memory(self) -> int | None:
        """The same in bytes."""
        return None if self.max_memory_gb is None else int(self.max_memory_gb * 1e9)

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """The modules that may be imported."""
        return self.allow_code


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings:
    """Settings of an ensemble; others than these: see `TrainSettings`.

    Attributes:
        kind: ``argmax``, ``logits``, ``meta``, ``fusion``, ``multi`` or ``vote``.
        members: Names of model folders; none means the best model of each organ by its validation.
        folds: To train; none means all that every member has.
        organs: That it segments; none means all that a member segments.
        choose_by: What the best models of an organ are: ``loss`` (of validation) or a metric; None means ``chaos`` for ``multi``, where
            distances are known, else ``dice``.
        per_organ: Models of an organ that are members where `members` names none.
        freeze: Of ``fusion``: the members' last layers stay as they are, instead of being trained on.
        share: Of the patients that a fold may learn from those that it does learn from, drawn at random; at least one.
        allow_code: Modules of your own, or of others, that a name in the members' files may import.
    """

    kind: str
    members: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    choose_by: str | None = None
    per_organ: int = 1
    freeze: bool = False
    share: float = 1.0
    iterations: int | None = None
    seconds: float | None = None
    seed: int = 0
    device: str = "auto"
    restart: bool = False
    allow_code: tuple[str, ...] = ()

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """The modules that may be imported: allowed, or of a name that was typed."""
        return _with_modules_of(self.allow_code, self.choose_by)


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """What a user may ask of the choice among models.

    Attributes:
        metric: By which candidates are compared: a name in `autoseg.evaluation.metrics.METRICS`, or ``module:function``.
        rule: Name in `autoseg.selection.choice.RULES`, or ``module:function`` of a `Comparison`.
        max_members: Largest number of models that are averaged.
        max_seconds: Candidates that took longer a case in validation (with the networks of one fold) are left out.
        vote: Members of a candidate vote instead of being averaged, as their folds do in prediction then.
        postprocess: Post-processing that is taken without a trial (`autoseg.inference.postprocessing.forced`).
    """

    metric: str = "dice"
    rule: str = "supported"
    max_members: int = 3
    max_seconds: float | None = None
    vote: bool = False
    postprocess: tuple[str, ...] = ()


def _with_modules_of(modules: tuple[str, ...], *names: Any) -> tuple[str, ...]:
    """The modules, and those of the names that are written ``module:name``."""
    named = [name.partition(":")[0] for name in names if isinstance(name, str) and re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", name)]
    return tuple(dict.fromkeys((*modules, *named)))
