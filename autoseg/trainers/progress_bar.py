"""The progress bar of a training: per cent of its budget, with the time that is left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from tqdm import tqdm

from ..schema.run_record import RunRecord

log = logging.getLogger(__name__)

BAR = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} so far, {remaining} left {postfix}"


@contextlib.contextmanager
def training_bar(job: RunRecord, used: float, *, progress: bool) -> Iterator[tqdm]:
    """The bar of a run of whose budget the share `used` is used up already; says when a time budget ends."""
    if job.budget.kind == "time":
        log.info("Training ends at %s.", f"{datetime.now() + timedelta(seconds=(1 - used) * job.budget.amount):%H:%M}")
    what = f"Training {job.configuration.name} fold {job.fold}"
    with tqdm(total=100, initial=100 * used, desc=what, bar_format=BAR, disable=not progress) as bar:
        yield bar
