"""Runs what a page shows and puts what it prints below it: ``python docs/site/outputs.py docs/first_hour.md --in FOLDER``.

Commands are ```bash blocks; their output is the ```text block behind each, which is replaced (blocks without one do not run). They run in
order, with the ``autoseg`` of this Python, as in one terminal: ``cd`` lasts. What fails ends the program. Progress bars are left out,
nothing else. A notebook (``docs/notebook.ipynb``) is run from its first cell to its last, and stored with its outputs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

PAIR = re.compile(r"(^```bash\n((?:(?!```).*\n)*)```\n\n)```text\n(?:(?!```).*\n)*```$", re.MULTILINE)

BAR = re.compile(r"[^\r\n]*(\d%\||\d/\d+ cases \||: \d+:\d\d of at most \d+ s)[^\r\n]*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--in", dest="folder", type=Path, required=True, help="where the commands run; made if missing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.page.suffix == ".ipynb":
        run_notebook(options.page, options.folder)
        return
    terminal = Terminal(options.folder.resolve())
    page, at = options.page.read_text(encoding="utf-8"), 0
    while pair := PAIR.search(page, at):
        shown = f"{pair[1]}```text\n{terminal.run(pair[2])}\n```"
        page, at = page[: pair.start()] + shown + page[pair.end() :], pair.start() + len(shown)
        options.page.write_text(page, encoding="utf-8")  # at once, since the next command may take hours


def run_notebook(path: Path, folder: Path) -> None:
    """Runs a notebook in a folder; what belongs to this run alone, times and the kernel's version, is not stored."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=3600, kernel_name="python3", record_timing=False, resources=resources).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in (output for output in cell.outputs if output.output_type == "stream"):
            output.text = without_bars(output.text)
        cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    nbformat.write(notebook, path)


def without_bars(text: str) -> str:
    """A text without progress bars (``Checking: 100%|####| 15/15``), which a terminal overwrites, and without spaces at ends of lines."""
    rows = [BAR.sub("", row.rpartition("\r")[2]).rstrip() for row in text.split("\n")]
    kept = [row for row, before in zip(rows, text.split("\n"), strict=True) if row or not BAR.search(before)]
    return "\n".join(kept) if any(kept) else ""


class Terminal:
    """Runs lines of a shell, each time in the folder where the former ended."""

    def __init__(self, folder: Path) -> None:
        self.home = self.folder = folder

    def run(self, commands: str) -> str:
        """What these lines print, to the terminal or as errors, in 80 columns; paths below the first folder are relative to it."""
        sys.stderr.write(commands)
        surroundings = {**os.environ, "COLUMNS": "80", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with tempfile.NamedTemporaryFile("r") as ended_in:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{commands}pwd > {ended_in.name}"],
                cwd=self.folder,
                env=surroundings,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            self.folder = Path(ended_in.read().strip() or self.folder)
        if done.returncode:
            sys.exit(f"{commands}ended with status {done.returncode}:\n{done.stdout}")
        return without_bars(done.stdout).strip("\n").replace(f"{self.home}/", "")


if __name__ == "__main__":
    main()
