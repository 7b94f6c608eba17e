"""Which contents of its cases an artefact was made from (a run, the scores of a held-out case), and what of them is another now.

An artefact of an earlier version has no such note; nothing is known of it then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ..schema import Case
from .provenance import Stamp, annotated_setting, case_inputs, file_id, reading_setting, record, recorded_stamp
from .runs import ModelFolder, Run
from .sealing import seal_of

ANNOTATED = "annotated organs"

READING = "image headers, by --nifti-geometry"

NETWORK = "network"
"""In the note of a held-out case's scores: the checkpoint that predicted it."""

SEALED = "seal "
"""Begins the identity of a checkpoint that is known by the digest at its end; others are known by their content id."""

SHOWN = 5
"""Cases named in a message before the rest is only counted."""


def note_contents(artefact: Path, cases: Iterable[Case], networks: Mapping[str, str] | None = None) -> None:
    """Notes the contents of an artefact's cases, as planning recorded them; to be called before the artefact is written.

    Args:
        networks: ``model/fold`` of other runs that it is made from, or `NETWORK`, to the `checkpoint_id` of their checkpoints.
    """
    known = [case for case in cases if case.digests]
    inputs = {f"{case.name}: {what}": identity for case in known for what, identity in case_inputs(case, case.digests).items()}
    settings = {case.name: annotated_setting(case) for case in known} | {_reading_key(case): _reading(case) for case in known}
    record(artefact, Stamp(inputs | dict(networks or {}), settings))


def changed_contents(artefact: Path, cases: Iterable[Case]) -> dict[str, tuple[str, ...]]:
    """Cases whose contents are others than an artefact was made from, to what of them is: ``image 0``, ``label``, `ANNOTATED`, `READING`.

    Cases that are gone, or of which nothing was noted, are not among them.
    """
    noted = recorded_stamp(artefact) or Stamp()
    found = {}
    for case in cases:
        if not case.digests or case.name not in noted.settings:
            continue
        now = {f"{case.name}: {what}": (what, identity) for what, identity in case_inputs(case, case.digests).items()}
        changed = [what for key, (what, identity) in now.items() if noted.inputs.get(key) != identity]
        changed += [ANNOTATED] * (noted.settings[case.name] != annotated_setting(case))
        changed += [READING] * (noted.settings.get(_reading_key(case), _reading(case)) != _reading(case))
        if changed:
            found[case.name] = tuple(changed)
    return found


def changed_training_cases(run: Run, cases: Iterable[Case]) -> dict[str, tuple[str, ...]]:
    """`changed_contents` of the cases that a started run was trained on."""
    trained_on = set(run.record().split.train)
    return changed_contents(run.record_file, [case for case in cases if case.name in trained_on])


def changed_validation_cases(run: Run, cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """`changed_contents` of the held-out cases that a run was validated on."""
    found: dict[str, tuple[str, ...]] = {}
    for case in cases:
        if run.case_scores(case.name).is_file():
            found |= changed_contents(run.case_scores(case.name), [case])
    return found


def predicted_by_others(run: Run, cases: Iterable[str]) -> list[str]:
    """Held-out cases whose scores are of other networks than the run's present ones; of scores without such a note nothing is known."""
    noted = {name: validated_network(run, name) for name in cases if run.case_scores(name).is_file()}
    return [name for name, network in noted.items() if network and not (run.is_trained and _is_of(run.checkpoint, network))]


def validated_network(run: Run, case: str) -> str:
    """The `checkpoint_id` of the network that predicted a held-out case; empty where it was not noted."""
    stamp = recorded_stamp(run.case_scores(case)) or Stamp()
    return stamp.inputs.get(NETWORK, "")


def checkpoint_id(path: Path) -> str:
    """Identifies a checkpoint by the digest at its end, which is verified whenever it is loaded; without one by its content id."""
    return f"{SEALED}{digest}" if (digest := seal_of(path)) else _content_id(path)


def _is_of(path: Path, identity: str) -> bool:
    """Whether a checkpoint is the one that was noted, also by earlier versions, which noted the content id."""
    return identity == (checkpoint_id(path) if identity.startswith(SEALED) else _content_id(path))


def _content_id(checkpoint: Path) -> str:
    status = checkpoint.stat()
    return _content_id_of(checkpoint, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=256)
def _content_id_of(checkpoint: Path, state: tuple[int, ...]) -> str:
    """Hashed once a process, as one command asks often, and checkpoints are large; `state` is the file's at the time."""
    return file_id(checkpoint)


def networks_of(results: Path, members: Iterable[str], folds: Iterable[str]) -> dict[str, str]:
    """``model/fold`` of models below ``results/<dataset>`` to the `checkpoint_id` of their final checkpoints, of those that are trained."""
    runs = [ModelFolder(results / name).run(fold) for fold in folds for name in members]
    return {_network_key(run): checkpoint_id(run.checkpoint) for run in runs if run.is_trained}


def members_trained_since(run: Run) -> list[str]:
    """``model/fold`` of the networks that an ensemble's run was made from and that are others now, or gone."""
    noted = recorded_stamp(run.record_file) or Stamp()
    made_of = run.record().ensemble if run.is_started else None
    members = () if made_of is None else made_of.members
    keys = {_network_key(one): one for name in members for one in ModelFolder(run.model.folder.parent / name).runs()}
    then = {key: identity for key, identity in noted.inputs.items() if key.partition("/")[0] in members}
    return [
        key for key, identity in then.items() if key not in keys or not (keys[key].is_trained and _is_of(keys[key].checkpoint, identity))
    ]


def in_words(changed: Mapping[str, Sequence[str]]) -> str:
    """``case_1 (label), case_2 (image 0, label)``, of many the first and the number of the others."""
    listed = ", ".join(f"{case} ({', '.join(what)})" for case, what in list(changed.items())[:SHOWN])
    return listed + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")


def _network_key(run: Run) -> str:
    return f"{run.model.name}/{run.fold}"


def _reading_key(case: Case) -> str:
    return f"{case.name}: nifti_geometry"


def _reading(case: Case) -> str:
    return reading_setting([case]).get("nifti_geometry", "")
