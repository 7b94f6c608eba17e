"""For the report: every training with its history and the command that makes it again; versions and the files that decide everything."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import platform
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..evaluation.report import RunFacts
from ..evaluation.selection import DEFAULT_RULE
from ..machine import cpu_count
from ..model import Choice, Configuration, Plan
from ..naming import ENSEMBLE
from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..planners.patch import PRESETS
from ..records import read_json
from ..trainers.job import TrainingJob
from ..trainers.validation import FAILURES

log = logging.getLogger(__name__)


def read_runs(results: Path, dataset: str) -> tuple[RunFacts, ...]:
    """Every fold of every model below a results folder, also those that are not finished."""
    return tuple(_read_run(path.parent, dataset) for path in sorted(results.glob("*__*/fold_*/run.json")))


def _read_run(run: Path, dataset: str) -> RunFacts:
    model, fold = run.parent.name, run.name.removeprefix("fold_")
    command, facts = "", {}
    try:
        job = read_json(run / "run.json", TrainingJob)
        command, facts = training_command(job, dataset, model), _facts(job)
    except ValueError as error:  # written by another version: the rest of the report is worth having
        log.warning("%s", error)
    validation = run / "validation"
    seconds = {case: float(value) for case, value in _json(validation / "timings.json").items() if isinstance(value, (int, float))}
    return RunFacts(model, fold, _history(run / "history.csv"), command, facts, seconds, _json(validation / FAILURES))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _history(path: Path) -> tuple[dict[str, float], ...]:
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple({key: float(value) if value else float("nan") for key, value in row.items()} for row in csv.DictReader(file))


def _facts(job: TrainingJob) -> dict[str, str]:
    options, one = job.options, job.configuration
    amount = f"{job.budget.amount:g} steps" if job.budget.kind == "iterations" else f"{job.budget.amount:g} s"
    facts = {
        "seed": str(job.seed),
        "budget": amount,
        "trainer": job.trainer,
        "network": one.network + (f" ({one.width:g} of the features)" if one.width != 1 else ""),
        "patch": " x ".join(map(str, one.patch_size)),
        "batch": str(one.batch_size),
        "loss": options.loss,
        "optimiser": f"{options.optimizer}, rate {options.learning_rate:g}, {options.schedule}",
        "weight average": f"{options.average_decay:g}",
        "memory target": f"{job.plan.memory_gb:g} GB",
        "cases": f"{len(job.split.train)} + {len(job.split.val)} held out",
    }
    if job.pretrained is not None:
        facts["started from"] = f"{job.pretrained.parent.parent.name}/{job.pretrained.parent.name}"
    return facts


def training_command(job: TrainingJob, dataset: str, model: str) -> str:
    """The command that trains this again, with what differs from the defaults and the batch that the device got."""
    budget = f"--iterations {job.budget.amount:g}" if job.budget.kind == "iterations" else f"--time {job.budget.amount:g}s"
    seed = f" --seed {job.seed}" if job.seed else ""
    if job.configuration.name == ENSEMBLE:
        own = job.trainer_options
        members = " ".join(map(shlex.quote, own.get("members", ())))
        kind = own.get("kind", job.trainer.lower())
        return f"autoseg_train_ensemble {dataset} --kind {kind} --members {members} --folds {job.fold} {budget}{seed}"
    words = [f"autoseg_train {dataset} {job.configuration.name} {job.fold}", budget + seed, f"--batch {job.configuration.batch_size}"]
    if job.trainer != "Trainer":
        words.append(f"--trainer {shlex.quote(job.trainer)}")
    planned = job.plan.configurations.get(job.configuration.name)
    if planned is not None and planned.network != job.configuration.network:
        words.append(f"--network {shlex.quote(job.configuration.network)}")
    if job.plan.data_labels is not None:
        words.append("--organs " + " ".join(map(shlex.quote, job.plan.labels.names)))
    if planned is not None and planned.normalization != job.configuration.normalization:
        words.append("--normalization " + " ".join(map(shlex.quote, job.configuration.normalization)))
    words += [f"--trainer-option {shlex.quote(f'{name}={json.dumps(value)}')}" for name, value in job.trainer_options.items()]
    tag = _tag(job, model)
    return " ".join(words) + (f" --tag {shlex.quote(tag)}" if tag else "")


def _tag(job: TrainingJob, model: str) -> str:
    """The word at the end of a model folder's name that nothing in the job explains."""
    words = model.split("__")[2:]
    explained = len([one for one in (job.plan.data_labels is not None,) if one])
    planned = job.plan.configurations.get(job.configuration.name)
    if planned is not None:
        explained += planned.network != job.configuration.network
        explained += planned.normalization != job.configuration.normalization
    return words[-1] if len(words) > explained else ""


def commands(dataset: str, plan: Plan | None, runs: tuple[RunFacts, ...], choice: Choice | None) -> tuple[str, ...]:
    """All commands from the data to a prediction."""
    lines = []
    if plan is not None:
        preset = PRESETS.get(plan.preset)
        line = f"autoseg_plan_and_preprocess -d {dataset}" + (f" --preset {plan.preset}" if plan.preset != "default" else "")
        if preset is None or preset.gigabytes != plan.memory_gb:
            line += f" --memory {plan.memory_gb:g}GB"
        asked = [one.value.replace(" x ", " ") for one in plan.reasons if one.what == "spacing" and one.why == "as you asked"]
        lines.append(line + (f" --spacing {asked[0]}" if asked else ""))
    ordered = sorted(runs, key=lambda run: run.model.startswith(ENSEMBLE))
    lines += [run.command for run in ordered if run.command]
    if choice is not None:
        how = (f" --metric {choice.metric}" if choice.metric != "dice" else "") + (
            f" --rule {choice.by}" if choice.by != DEFAULT_RULE else ""
        )
        lines.append(f"autoseg_find_best_configuration {dataset}{how}")
    lines += [f"autoseg_report {dataset}", f"autoseg_predict -d {dataset} -i IMAGES -o SEGMENTATIONS"]
    return tuple(lines)


def count_parameters(results: Path, plan: Plan | None) -> dict[str, int]:
    """Model folder, and configuration of the plan, to the parameters of its network, where it can be built."""
    found = {}
    for name, one in (plan.configurations if plan else {}).items():
        found[name] = _parameters(plan, one)
    for model in sorted({path.parents[1] for path in results.glob("*__*/fold_*/run.json")}):
        try:
            job = read_json(next(iter(sorted(model.glob("fold_*/run.json")))), TrainingJob)
        except ValueError:  # said when the run was read
            continue
        found[model.name] = _parameters(job.plan, job.configuration)
    return {name: number for name, number in found.items() if number is not None}


def _parameters(plan: Plan, one: Configuration) -> int | None:
    shape = {"dim": one.dim, "in_channels": plan.in_channels(one), "out_channels": plan.labels.n_outputs}
    try:
        with torch.device("meta"):
            network = build_network(one.network, **shape, **without_pretrained(one.built_options))
    except (ValueError, TypeError, RuntimeError, NotImplementedError, KeyError) as error:
        log.debug("%s: its parameters cannot be counted: %s", one.name, error)
        return None
    return sum(weight.numel() for weight in network.parameters()) or None


def versions() -> dict[str, str]:
    """Of the programs and the machine that make the report."""
    found = {"autoseg": _version("autoseg"), "Python": platform.python_version(), "PyTorch": str(torch.__version__)}
    found |= {name: _version(name) for name in ("numpy", "scipy", "SimpleITK", "scikit-image", "batchgenerators")}
    found |= {"System": f"{platform.system()} {platform.machine()}", "Cores": str(cpu_count())}
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name(0)
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def hashes(folders: tuple[Path, ...]) -> dict[str, str]:
    """SHA-256 of the files that decide everything, the first found of each name."""
    found = {}
    for name in ("dataset.json", "fingerprint.json", "plan.json", "splits.json", "choice.json"):
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is not None:
            found[f"{path.parent.parent.name}/{path.parent.name}/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
