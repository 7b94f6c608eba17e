"""What ensembles are trained on: kept predictions, or images seen in several ways, as the image of preprocessed cases of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..inference.quantised_logits import load_logits
from ..networks.combiners import MAX_LOG_RATIO
from ..preprocessing.storage import Store, StoredRecord
from ..runtime.locks import exclusive_lock
from ..runtime.provenance import Stamp, recorded_ids
from ..runtime.runs import ModelFolder, Run
from ..schema.run_record import EIGHT_BITS, LOG_ODDS
from .stacking import Layout, in_eight_bits, stacked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stacks:
    """What the stacks of an ensemble are.

    Attributes:
        reference: Preprocessed cases of the grid, with label maps.
        stored: Form of the predictions.
        most: Largest log-ratio.
    """

    layout: Layout
    reference: Path
    stored: str = LOG_ODDS
    most: float = MAX_LOG_RATIO


def write_stacks(cases: Mapping[str, str], results: Path, stacks: Stacks, out: Path) -> None:
    """Stacks what each member said about cases that its networks have not seen, on the grid of one of them.

    Args:
        cases: Case to the fold that validated it: the one whose networks were not trained on it.
        results: Folder of the models.
        stacks: Members, grid and form.
        out: What is there and made from the same files stays.

    Raises:
        ValueError: A prediction is missing, or was made on other data than is preprocessed now; the message names it.
    """
    store, layout = Store(stacks.reference), stacks.layout

    def _run(case: str, member: str) -> Run:
        return ModelFolder(results / member).run(cases[case])

    files = [path for case in cases for member in layout.members if (path := _run(case, member).logits(case)).is_file()]
    ids = recorded_ids(files, what="Identifying predictions")

    def _of(case: str) -> Stamp:
        members = {member: ids.get(_run(case, member).logits(case), "missing") for member in layout.members}
        return Stamp({"case": store.content_id(case), **members})

    def _made(case: str) -> np.ndarray:
        logits = [load_logits(_run(case, member).validation, case) for member in layout.members]
        logits = [in_eight_bits(one) for one in logits] if stacks.stored == EIGHT_BITS else logits
        return stacked(logits, layout.labels, store.load(case).trace, most=stacks.most)

    _write(sorted(cases), store, out, stamp=_of, make=_made)


def write_joined(cases: Sequence[str], sources: Sequence[Path], out: Path) -> None:
    """Cases that were preprocessed in several ways on one grid, with the channels of all ways one after the other.

    Label maps come from the first of the folders of preprocessed cases.

    Raises:
        ValueError: A case is missing in a source, or lies there on another grid.
    """
    stores = [Store(source) for source in sources]

    def _made(case: str) -> np.ndarray:
        images = [np.asarray(store.load(case).image[:]) for store in stores]
        if len({image.shape[1:] for image in images}) > 1:
            found = [image.shape[1:] for image in images]
            raise ValueError(f"{case}: expected the same grid in {', '.join(map(str, sources))}, got {found}")
        return np.concatenate(images)

    def _of(case: str) -> Stamp:
        return Stamp({f"source {number}": store.content_id(case) for number, store in enumerate(stores)})

    _write(sorted(cases), stores[0], out, stamp=_of, make=_made)


def _write(cases: Sequence[str], source: Store, out: Path, *, stamp: Callable[[str], Stamp], make: Callable[[str], np.ndarray]) -> None:
    with exclusive_lock(out, "stacking predictions", wait=True):
        store = Store(out)
        store.clean()
        missing = [case for case in cases if not store.has(case) or store.load(case).made_from != stamp(case)]
        for case in tqdm(missing, desc="Stacking predictions", unit="case", disable=not missing):
            stored = source.load(case)
            image = make(case)
            if image.shape[1:] != tuple(stored.image.shape[1:]):
                raise ValueError(
                    f"{case}: the grid of its predictions {image.shape[1:]} is not that of the preprocessed case in {source.folder} "
                    f"{tuple(stored.image.shape[1:])}; plan as when the models were trained, or train them again"
                )
            segmentation = None if stored.segmentation is None else np.asarray(stored.segmentation[:])
            record = StoredRecord(stored.trace, stamp(case), stored.annotated)
            store.write(case, image, segmentation, record, dict(stored.locations))
