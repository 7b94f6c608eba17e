"""Names of organs for label maps of no dataset: a ``dataset.json`` beside them or in the folder above says them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ..schema import Labels
from .dataset_json import read_info
from .label_names import parse_labels

log = logging.getLogger(__name__)


def labels_nearby(places: Iterable[Path]) -> tuple[Labels, Path] | None:
    """The organs of the first ``dataset.json`` beside label maps, or in the folder above, and that file; None without one.

    One that cannot be read is said in a warning, and passed over.

    Args:
        places: Label maps, or folders of them.
    """
    folders = [place if place.is_dir() else place.parent for place in (Path(one).expanduser().absolute() for one in places)]
    for folder in dict.fromkeys(near for one in folders for near in (one, one.parent)):
        file = folder / "dataset.json"
        if not file.is_file():
            continue
        try:
            return parse_labels(read_info(folder), file), file
        except ValueError as error:
            log.warning("Organs are not named by %s: %s", file, error)
    return None
