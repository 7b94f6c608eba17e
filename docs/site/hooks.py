"""Hooks of the site (mkdocs.yml): pages outside of docs/, links between pages as they stand in the repository, the notebook."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
MOVED = {
    "README.md": "index.md",
    "docs/README.md": "pages.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.md",
    "docs/notebook.ipynb": "notebook.md",
}
"""Path in the repository -> path in the site, of pages that do not lie in the site as in docs/."""

REPOSITORY_PATHS = {page: path for path, page in MOVED.items()}
LINK = re.compile(
    r"^```.*?^```|`[^`\n]+`|(?P<picture>!?)\[(?P<text>[^]]*)\]\((?!https?:|mailto:|#|data:)(?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)",
    re.MULTILINE | re.DOTALL,
)
"""A link within the repository; or code, in which there are none."""
CELL = re.compile(r"<td.*?</td>", re.DOTALL)
STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)
"""What pandas adds to each table; the site has a style of its own."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of `MOVED`, and the pictures of the notebook."""
    for path, page in MOVED.items():
        if (old := files.get_file_from_path(path.removeprefix("docs/"))) and path.startswith("docs/"):
            files.remove(old)
        text, pictures = _notebook(ROOT / path) if path.endswith(".ipynb") else ((ROOT / path).read_text(encoding="utf-8"), {})
        for name, content in pictures.items():
            files.append(File.generated(config, name, content=content))
        files.append(File.generated(config, page, content=_as_page(path, text)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Links lead to where their pages lie in the site; those to other files of the repository become plain text."""
    path = REPOSITORY_PATHS.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda link: _moved(link, path, page.file.src_uri) if link["target"] else link[0], markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Bars in code of tables, which a repository's page writes as ``\\|``, are bars."""
    return CELL.sub(lambda cell: cell[0].replace("\\|", "|"), html)


def _moved(link: re.Match[str], path: str, page: str) -> str:
    """One link of the file `path` of the repository, as it is to be in the site's `page`."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link["target"]))
    if target in MOVED:
        target = MOVED[target]
    elif target.startswith("docs/"):
        target = target.removeprefix("docs/")
    elif not link["picture"]:
        return link["text"]
    return f"{link['picture']}[{link['text']}]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{link['anchor'] or ''})"


def _as_page(path: str, text: str) -> str:
    if path == "README.md":
        return f"---\nhide: [navigation]\n---\n\n{text}"  # there is no other page beside it
    return f"# Licence\n\n```text\n{text}\n```\n" if path == "LICENSE" else text


def _notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook with its stored outputs as Markdown, and its pictures by name."""
    template = {"output_filename_template": "notebook_{cell_index}_{index}{extension}"}
    text, resources = MarkdownExporter(config=Config({"ExtractOutputPreprocessor": template})).from_filename(str(path))
    return STYLE.sub("", text).replace('<table border="1" class="dataframe">', "<table>"), resources["outputs"]
