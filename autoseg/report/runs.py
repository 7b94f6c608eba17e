"""For the report: every training with its history and the command that makes it again; versions and the files that decide everything."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..runtime.commands import choice_command, plan_command, train_command
from ..runtime.hardware import cpu_count
from ..runtime.runs import Run, read_history, started_runs
from ..schema import Choice, Configuration, Plan
from ..schema.run_record import RunEnvironment, RunRecord
from ..trainers.run_environment import read_run_environments
from . import RunFacts

log = logging.getLogger(__name__)


def read_runs(results: Path) -> tuple[RunFacts, ...]:
    """Every fold of every model below a results folder, also those that are not finished."""
    return tuple(_read_run(run) for run in started_runs(results))


def _read_run(run: Run) -> RunFacts:
    environments = _run_environments(run)
    record: RunRecord | None = None
    command, facts, needs = "", dict[str, str](), tuple[str, ...]()
    try:
        record = run.record()
        folds = [run.fold, *(sibling.fold for sibling in run.siblings())]
        command = train_command(record, folds=sorted(folds), device=environments[-1].kind if environments else "")
        facts, needs = _facts(record), _needs(record)
    except ValueError as error:  # written by another version: the rest of the report is worth having
        log.warning("%s", error)
    failures = run.failures()
    history = _history(run.history_file)
    return RunFacts(
        run.model.name, run.fold, history, command, facts, run.timings(), failures, run.is_validated, needs, environments, record
    )


def _run_environments(run: Run) -> tuple[RunEnvironment, ...]:
    """Of the run, or of the parts that an ensemble is trained in."""
    return tuple(one for folder in (run.folder, *sorted(run.folder.glob("half_*"))) for one in read_run_environments(folder))


def _history(path: Path) -> tuple[dict[str, float], ...]:
    try:
        return tuple(read_history(path))
    except ValueError as error:  # the rest of the report is worth having
        log.warning("%s", error)
        return ()


def _facts(job: RunRecord) -> dict[str, str]:
    options, one = job.options, job.configuration
    amount = f"{job.budget.amount:.10g} steps" if job.budget.kind == "iterations" else f"{job.budget.amount:.10g} s"
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


def _needs(job: RunRecord) -> tuple[str, ...]:
    """Model folders that must be there before this can be trained."""
    pretrained = () if job.pretrained is None else (job.pretrained.parent.parent.name,)
    previous = () if job.previous_model is None else (job.previous_model,)
    members = () if job.ensemble is None else job.ensemble.members
    return (*pretrained, *previous, *members)


def commands(dataset: str, plan: Plan | None, runs: Sequence[RunFacts], choice: Choice | None) -> tuple[str, ...]:
    """All commands from the data to a prediction, each after those whose models it needs."""
    lines = [] if plan is None else [plan_command(plan)]
    left = list(runs)
    while left:
        waiting = {run.model for run in left}
        ready = [run for run in left if not waiting & ({*run.needs} - {run.model})] or left
        lines += [run.command for run in ready if run.command]
        left = [run for run in left if run not in ready]
    lines += [] if choice is None else [choice_command(choice, dataset)]
    lines += [f"autoseg_report {dataset}", f"autoseg_predict -d {dataset} -i IMAGES -o SEGMENTATIONS"]
    return tuple(dict.fromkeys(lines))


def count_parameters(results: Path, plan: Plan | None) -> dict[str, int]:
    """Model folder, and configuration of the plan, to the parameters of its network, where it can be built."""
    found: dict[str, int | None] = {}
    if plan is not None:
        found = {name: _parameters(plan, one) for name, one in plan.configurations.items()}
    for model in {run.model.name: run.model for run in started_runs(results)}.values():
        try:
            job = model.runs()[0].record()
        except ValueError:  # said when the run was read
            continue
        found[model.name] = _parameters(job.plan, job.configuration)
    return {name: number for name, number in found.items() if number is not None}


def _parameters(plan: Plan, one: Configuration) -> int | None:
    shape = {"dim": one.dim, "in_channels": plan.in_channels(one), "out_channels": plan.labels.n_outputs}
    try:
        with torch.device("meta"):
            network = build_network(one.network, single_output=one.sigmoid, **shape, **without_pretrained(one.built_options))
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
