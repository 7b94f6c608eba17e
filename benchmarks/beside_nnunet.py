"""Rows of the benchmark beside nnU-Net: measuring in alternation, keeping every measurement, table and plot.

What is measured: `nnunet_stages`. Every measurement is written to ``rows.json`` at once, so that the same command goes on where it was
stopped. Memory is the peak of the proportional set size of the process that is measured and all that it starts.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from process_memory import peak_memory_of_tree

log = logging.getLogger("benchmark")
NNUNET, OURS = "nnU-Net", "autoseg"
Values = dict[str, Any]
"""Of one measurement: ``seconds``, ``peak_mb``, and what else a row tells (``dice``)."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Unique; of what was measured are kept by it.
        tools: Tool to the function that measures it once, in the order of the alternation.
        expected: Seconds of one pair, roughly, for the time that remains before anything is known.
        once: One pair, however many are asked for.
        prepare: Before the first measurement of a run, unmeasured.
        close: After the last.
        compare: What the outputs of the two have in common, noted once.
    """

    name: str
    tools: Mapping[str, Callable[[], Values]]
    expected: float
    once: bool = False
    prepare: Callable[[], object] | None = None
    close: Callable[[], object] | None = None
    compare: Callable[[], Values] | None = None


class Rows:
    """The measurements on disk: row to tool to list of values; and notes of a row.

    Args:
        folder: Of ``rows.json``, ``table.md`` and ``plot.png``.
        machine: What the measurements were made on, written with them.
    """

    def __init__(self, folder: Path, machine: Mapping[str, Any]) -> None:
        self.path = folder / "rows.json"
        folder.mkdir(parents=True, exist_ok=True)
        known = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.machine = {**machine, "first": known.get("machine", {}).get("first", machine.get("date"))}
        self.rows: dict[str, Values] = known.get("rows", {})

    def values(self, row: str, tool: str) -> list[Values]:
        """Measurements of a tool so far."""
        return self.rows.get(row, {}).get(tool, [])

    def add(self, row: str, tool: str, values: Values) -> None:
        """Keeps one measurement."""
        self.rows.setdefault(row, {}).setdefault(tool, []).append(values)
        self.rows[row].get("failed", {}).pop(tool, None)
        self.write()

    def note(self, row: str, **notes: Any) -> None:
        """Keeps something of a row beside its measurements."""
        self.rows.setdefault(row, {}).update(notes)
        self.write()

    def write(self) -> None:
        """Writes all of them, whole or not at all."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=1))
        partial.replace(self.path)


def measure(rows: Sequence[Row], kept: Rows, pairs: int) -> None:
    """Measures what is missing, tools in alternation; a row that fails is noted, tried again by the next run, and the others go on."""
    for number, row in enumerate(rows):
        wanted = 1 if row.once else pairs
        if any(len(kept.values(row.name, tool)) < wanted for tool in row.tools):
            log.info("%d of %d: %s; about %s remain", number + 1, len(rows), row.name, _minutes(remaining(rows[number:], kept, pairs)))
            _measure_row(row, kept, wanted)
        if row.compare and "compared" not in kept.rows.get(row.name, {}) and not kept.rows.get(row.name, {}).get("failed"):
            _guarded(row.name, "compared", kept, lambda row=row: kept.note(row.name, compared=row.compare()))


def _measure_row(row: Row, kept: Rows, wanted: int) -> None:
    try:
        if row.prepare and not _guarded(row.name, "preparation", kept, row.prepare):
            return
        failed: set[str] = set()
        for pair in range(wanted):
            for tool, once in row.tools.items():
                if tool in failed or len(kept.values(row.name, tool)) > pair:
                    continue
                if not _guarded(row.name, tool, kept, lambda tool=tool, once=once: kept.add(row.name, tool, once())):
                    failed.add(tool)
                    continue
                last = kept.values(row.name, tool)[-1]
                log.info("  %s: %.3g s, %.0f MB", tool, last["seconds"], last["peak_mb"])
    finally:
        if row.close:
            row.close()


def _guarded(row: str, what: str, kept: Rows, work: Callable[[], object]) -> bool:
    """Does something that may fail on a machine; a failure is said and noted."""
    failed = dict(kept.rows.get(row, {}).get("failed", {}))
    try:
        work()
    except (OSError, ValueError, RuntimeError, KeyError, MemoryError) as error:
        log.warning("  %s: %s failed: %s", row, what, str(error).strip()[-600:])
        kept.note(row, failed={**failed, what: str(error).strip()[-2000:]})
        return False
    if what in failed:
        del failed[what]
        kept.note(row, failed=failed)
    return True


def remaining(rows: Sequence[Row], kept: Rows, pairs: int) -> float:
    """Seconds that the missing measurements take: medians of the same row, else what is expected times how far that was off so far."""
    known = [(row, sum(_medians(kept, row).values())) for row in rows if len(_medians(kept, row)) == len(row.tools)]
    off = sum(seconds for _, seconds in known) / sum(row.expected for row, _ in known) if known else 1.0
    total = 0.0
    for row in rows:
        medians = _medians(kept, row)
        for tool in row.tools:
            missing = max(0, (1 if row.once else pairs) - len(kept.values(row.name, tool)))
            total += missing * medians.get(tool, off * row.expected / len(row.tools))
    return total


def _medians(kept: Rows, row: Row) -> dict[str, float]:
    """Of the seconds by the clock that a measurement of each tool took."""
    values = {tool: kept.values(row.name, tool) for tool in row.tools}
    return {tool: median(one.get("took", one["seconds"]) for one in some) for tool, some in values.items() if some}


def run_command(command: Sequence[str | Path], log_file: Path, *, environment: Mapping[str, str] | None = None) -> Values:
    """Runs a command, and measures seconds by the clock with its start, and peak memory; what it says in JSON at last goes before.

    Raises:
        ValueError: It failed; the message ends with what it said.
    """
    started = time.perf_counter()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("w") as said:
        child = subprocess.Popen([*map(str, command)], stdout=said, stderr=subprocess.STDOUT, env=environment, stdin=subprocess.DEVNULL)
        with peak_memory_of_tree(child.pid) as peak:
            status = child.wait()
    seconds = time.perf_counter() - started
    text = log_file.read_text(errors="replace")
    if status:
        raise ValueError(f"{' '.join(map(str, command))[:300]}\nended with status {status}: {text[-1500:]}")
    return {"seconds": seconds, "peak_mb": peak.bytes / 1e6, "took": seconds, **_told(text)}


def _told(text: str) -> Values:
    """The JSON object of the last line, if it is one."""
    last = text.rstrip().rpartition("\n")[2]
    try:
        told = json.loads(last) if last.startswith("{") else {}
    except ValueError:
        return {}
    return told


def with_peak(process: int, work: Callable[[], float], repeats: int) -> Values:
    """Median seconds that a function tells of a process, and its peak memory meanwhile."""
    started = time.perf_counter()
    with peak_memory_of_tree(process) as peak:
        seconds = [work() for _ in range(repeats)]
    return {"seconds": median(seconds), "peak_mb": peak.bytes / 1e6, "took": time.perf_counter() - started}


def autoseg_version() -> str:
    """Of autoseg, with the commit where this is a checkout, and of the torch beside it."""
    from autoseg import __version__

    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"{' '.join([__version__, *done.stdout.split()])} (torch {importlib.metadata.version('torch')})"


def nnunet_version(python: Path) -> str:
    """Of nnU-Net and of the torch beside it, in the environment of a Python."""
    text = "import importlib.metadata as m; print(m.version('nnunetv2'), '(torch', m.version('torch') + ')')"
    done = subprocess.run([python, "-c", text], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine(versions: Mapping[str, str]) -> dict[str, Any]:
    """Processor, its matrix tiles or not, cores, memory, date and versions."""
    information = Path("/proc/cpuinfo").read_text()
    name = next((line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")), platform.machine())
    flags = next((set(line.split()) for line in information.splitlines() if line.startswith("flags")), set())
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16") if flag in flags]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    about = {"processor": name, "cores": len(os.sched_getaffinity(0)), "memory_gib": round(gigabytes, 1), "instructions": kinds}
    return {**about, "matrix_tiles": "amx_tile" in flags, "date": str(datetime.date.today()), "versions": dict(versions)}


def table(kept: Rows) -> str:
    """All rows as Markdown, with the machine above; ratios are nnU-Net's to ours, the median of those of the pairs."""
    about = kept.machine
    tiles = "with" if about["matrix_tiles"] else "without"
    date = about["date"] if about["date"] == about["first"] else f"{about['first']} to {about['date']}"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['processor']} ({tiles} matrix tiles), {about['cores']} cores, {about['memory_gib']:g} GiB; {date}; {versions}.\n",
        f"| | {NNUNET}, s | {OURS}, s | faster | {NNUNET}, MB | {OURS}, MB | smaller | pairs | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, row in kept.rows.items():
        found = {tool: row.get(tool, []) for tool in (NNUNET, OURS)}
        cells = [name]
        for key in ("seconds", "peak_mb"):
            cells += [_shown([one[key] for one in found[tool]]) for tool in (NNUNET, OURS)]
            ratios = _ratios(row, key)
            cells.append(f"{median(ratios):.3g}" if ratios else "")
        pairs = max(len(some) for some in found.values())
        lines.append(f"| {' | '.join([*cells, str(pairs), _remarks(row, found)])} |")
    return "\n".join(lines) + "\n"


def _ratios(row: Values, key: str) -> list[float]:
    """nnU-Net's value to ours, of each pair."""
    pairs = zip(row.get(NNUNET, []), row.get(OURS, []), strict=False)
    return [theirs[key] / ours[key] for theirs, ours in pairs if ours[key]]


def _shown(values: Sequence[float]) -> str:
    return f"{median(values):.4g}" if values else ""


def _remarks(row: Values, found: Mapping[str, list[Values]]) -> str:
    remarks = [f"Dice {tool} {median(one['dice'] for one in some):.4f}" for tool, some in found.items() if some and "dice" in some[0]]
    remarks += [f"{what.replace('_', ' ')} {value:.2g}" for what, value in row.get("compared", {}).items()]
    return "; ".join([*remarks, *(f"{what} failed" for what in row.get("failed", {}))])


def plot(kept: Rows, path: Path) -> None:
    """Ratios of seconds and memory as in the table, one bar each, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    both = {name: row for name, row in kept.rows.items() if all(_ratios(row, key) for key in ("seconds", "peak_mb"))}
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.42 * len(both)))
    for shift, key, label in ((-0.2, "seconds", "seconds"), (0.2, "peak_mb", "peak memory")):
        ratios = [median(_ratios(row, key)) for row in both.values()]
        bars = axes.barh([place + shift for place in range(len(both))], ratios, 0.38, label=label)
        axes.bar_label(bars, fmt="%.2g", padding=2, fontsize=8)
    axes.set_yticks(range(len(both)), list(both))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    about = kept.machine
    tiles = "with" if about["matrix_tiles"] else "without"
    axes.set_title(f"{about['processor']}, {tiles} matrix tiles, {about['cores']} cores, {about['date']}", fontsize=9)
    axes.set_xlabel(f"{NNUNET} / {OURS}")
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
