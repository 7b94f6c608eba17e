"""Files of our own: the same bytes or a refusal, wherever a byte was changed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_job, make_plan

from autoseg.preprocessing.storage import read_array, write_array
from autoseg.runtime.checkpoints import load_checkpoint, load_weights, save_checkpoint
from autoseg.runtime.sealing import SEAL_BYTES, check_unedited, sealed_bytes
from autoseg.runtime.serialization import read_json, to_jsonable, write_json
from autoseg.schema.run_record import RunRecord

MUTATIONS = 250


def array(path: Path) -> Callable[[], Any]:
    write_array(path, np.random.default_rng(0).integers(0, 3, (2, 9, 20, 30)).astype(np.int16))
    return lambda: np.asarray(read_array(path)[:]).tolist()


def checkpoint(path: Path) -> Callable[[], Any]:
    save_checkpoint(path, {"network": {"w": torch.arange(50.0)}}, {"iteration": 3})
    return lambda: str(load_checkpoint(path))


def record(path: Path) -> Callable[[], Any]:
    write_json(path, make_job(make_plan()))
    return lambda: json.dumps(to_jsonable(read_json(path, RunRecord)))


def named_values(path: Path) -> Callable[[], Any]:
    write_json(path, {"c0": 1.5, "c1": None})
    return lambda: read_json(path, dict)


def listed(path: Path) -> Callable[[], Any]:
    write_json(path, [1, 2.5, "three"])
    return lambda: read_json(path, list)


@pytest.mark.parametrize("kind", [array, checkpoint, record, named_values, listed])
def test_a_changed_byte_or_a_lost_end_is_refused_or_harmless(kind: Callable[[Path], Callable[[], Any]], tmp_path: Path) -> None:
    path = tmp_path / "file.b2nd"
    read = kind(path)
    expected, content, rng = read(), path.read_bytes(), np.random.default_rng(12)
    refused = 0
    for number in range(MUTATIONS):
        changed = bytearray(content)
        if number % 10 == 0:
            del changed[int(rng.integers(len(content))) :]
        elif number % 10 == 1:
            start = int(rng.integers(len(content)))
            changed[start:] = bytes(len(content) - start)
        else:
            at = int(rng.integers(len(content)))
            changed[at] ^= 1 << int(rng.integers(8)) if number % 2 else int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            assert read() == expected, f"mutation {number}"
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 0.9 * MUTATIONS


def test_what_was_edited_is_accepted_without_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "choice.json"
    write_json(path, {"rule": "supported", "folds": ["0"]})
    path.write_text(path.read_text().replace("supported", "cheapest"))
    with pytest.raises(ValueError, match='choice.json.*edited or damaged.*remove its line "digest"'):
        read_json(path, dict)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"digest"' not in line))
    assert read_json(path, dict) == {"rule": "cheapest", "folds": ["0"]}
    write_json(path, [1, 2])
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"digest"' not in line))
    assert read_json(path, list) == [1, 2]


def test_files_of_earlier_versions_have_no_digest_and_are_read(tmp_path: Path) -> None:
    for kind in (array, checkpoint):
        path = tmp_path / f"{kind.__name__}.b2nd"
        read = kind(path)
        expected, size = read(), sealed_bytes(path)
        assert size == path.stat().st_size - SEAL_BYTES
        path.write_bytes(path.read_bytes()[:size])
        assert read() == expected and sealed_bytes(path) is None
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "x.json", dict) == {"a": 1}


def test_weights_of_another_network_are_one_line_with_the_file(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"c.pt: 2 tensors do not fit the network .*first weight: expected \(2, 3\), found \(4, 3\)$"):
        load_weights(network, {"network": torch.nn.Linear(3, 4).state_dict()}, "network", tmp_path / "c.pt")
    with pytest.raises(ValueError, match="c.pt: expected the weights of a network, found average"):
        load_weights(network, {"average": {}}, "network", tmp_path / "c.pt")


def test_a_checkpoint_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", {"network": {"w": torch.zeros(10_000)}}, {})
    with zipfile.ZipFile(tmp_path / "c.pt") as read, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in read.namelist():
            packed.writestr(name, read.read(name))
    with pytest.raises(ValueError, match="packed.pt: .*uncompressed arrays"):
        load_checkpoint(tmp_path / "packed.pt")


def test_what_was_edited_is_told_from_files_of_earlier_versions(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    check_unedited(path, "autoseg_x")
    write_json(path, make_plan())
    own = path.read_text()
    check_unedited(path, "autoseg_x")
    plain = {key: value for key, value in json.loads(own).items() if key != "digest"}
    path.write_text(json.dumps({key: value for key, value in plain.items() if key != "format"}))  # version 0.1.0 wrote neither
    check_unedited(path, "autoseg_x")
    for edited in (json.dumps(plain), own.replace("memory_gb", "memory"), own.replace("sha256:", "sha256:0"), own[:-9], "[]"):
        path.write_text(edited)
        with pytest.raises(ValueError, match="plan.json: was edited or damaged.*autoseg_x --overwrite"):
            check_unedited(path, "autoseg_x")
        check_unedited(path, "autoseg_x", overwrite=True)
