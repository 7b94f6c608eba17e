"""The progress bar of a training: per cent of its budget, with the time that is left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from tqdm import tqdm

from ..runtime.text_table import shown_width
from ..schema.run_record import RunRecord

log = logging.getLogger(__name__)

BAR = "{desc}: {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
"""In 80 columns with loss and Dice behind it; a wider terminal also shows the time so far."""

WIDE_BAR, WIDE = BAR.replace("{remaining}", "{elapsed} so far, {remaining}"), 100


@contextlib.contextmanager
def training_bar(job: RunRecord, used: float, *, progress: bool) -> Iterator[tqdm]:
    """The bar of a run of whose budget the share `used` is used up already; says when a time budget ends."""
    if job.budget.kind == "time":
        log.info("Training ends at %s.", f"{datetime.now() + timedelta(seconds=(1 - used) * job.budget.amount):%H:%M}")
    what = f"Training {job.configuration.name} fold {job.fold}"
    form = WIDE_BAR if shown_width() >= WIDE else BAR
    with tqdm(total=100, initial=100 * used, desc=what, bar_format=form, ncols=shown_width() - 1, disable=not progress) as bar:
        yield bar
