"""Every stage of autoseg beside nnU-Net: seconds and memory, in alternation, on this machine. ``python -m benchmarks --out FOLDER``.

nnU-Net (the newest, or ``--nnunet``) is installed into an environment of its own, once. Written are ``rows.json`` (every measurement),
``table.md`` and ``plot.png``; the same command goes on where it was stopped, and tries again what failed. Run it on a machine that does
nothing else. Data: ``--data``, or Hippocampus in the folder of AUTOSEG_TEST_DATA, or a made-up dataset.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import subprocess
import sys
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from beside_nnunet import Rows, autoseg_version, machine, measure, plot, table
from nnunet_stages import STAGES, Bench, rows_of

log = logging.getLogger("benchmark")
VERSION = "import importlib.metadata as m; print(m.version('nnunetv2'), m.version('torch'))"


def nnunet_environment(folder: Path, package: str) -> tuple[Path, str]:
    """Python of an environment with nnU-Net, which is made where it is not there, and the versions of nnU-Net and torch.

    Raises:
        ValueError: It cannot be installed; the message ends with what pip says.
    """
    python = folder / "bin" / "python"
    found = _versions(python)
    if not found:
        log.info("installing %s into %s", package, folder)
        venv.create(folder, with_pip=True)
        torch = f"torch=={importlib.metadata.version('torch').partition('+')[0]}"
        done = subprocess.run([python, "-m", "pip", "install", "-q", torch, package], capture_output=True, text=True, check=False)
        found = _versions(python)
        if done.returncode or not found:
            raise ValueError(
                f"{folder}: {package} could not be installed; name an environment that has it with --env\n{done.stderr[-800:]}"
            )
    return python, found


def _versions(python: Path) -> str:
    if not python.is_file():
        return ""
    done = subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def chosen_data(given: Path | None, work: Path, quick: bool) -> Path:
    """The dataset: what was given, the Hippocampus data, or one that is made up."""
    if given is None:
        known = Path(os.environ.get("AUTOSEG_TEST_DATA", "")) / "Dataset004_Hippocampus"
        if not quick and os.environ.get("AUTOSEG_TEST_DATA") and known.is_dir():
            return known
        from cost_growth import Work, made_dataset

        return made_dataset(work / "made", Work(volume=0.1 if quick else 1.0, classes=2, cases=5 if quick else 20))
    name = given.name
    if not (given / "dataset.json").is_file() or not (name.startswith("Dataset") and name[7:10].isdigit()):
        raise ValueError(f"{given}: expected a dataset in nnU-Net's layout in a folder DatasetNNN_Name with a dataset.json")
    return given


def main() -> None:
    """Measures what is missing in ``rows.json``, and writes the table and the plot."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("beside_nnunet"), help="folder for measurements, table and plot")
    parser.add_argument("--env", type=Path, help="environment with nnU-Net, made if missing (default: in --out)")
    parser.add_argument("--nnunet", default="nnunetv2", metavar="PACKAGE", help="what pip installs, e.g. nnunetv2==2.8.1 (default: newest)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="dataset DatasetNNN_Name in nnU-Net's layout")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--pairs", type=int, help="measurements of each tool (default 3; of the accuracy one)")
    parser.add_argument("--quick", action="store_true", help="one pair, small sizes: does everything run?")
    given = parser.parse_args()
    out = given.out.resolve()
    try:
        python, versions = nnunet_environment((given.env or out / "environment").absolute(), given.nnunet)
        data = chosen_data(given.data, out / "work", given.quick)
    except ValueError as error:
        parser.error(str(error))
    nnunet, torch = versions.split()
    about = machine({"nnU-Net": f"{nnunet} (torch {torch})", "autoseg": autoseg_version()})
    kept = Rows(out, about | {"data": data.name})
    try:
        measure(rows_of(Bench(out / "work", data, python, given.quick), given.stages), kept, given.pairs or (1 if given.quick else 3))
    finally:
        (out / "table.md").write_text(table(kept))
        plot(kept, out / "plot.png")
        log.info("%s", table(kept))


if __name__ == "__main__":
    main()
