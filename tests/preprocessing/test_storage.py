from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from autoseg.preprocessing.storage import CHUNK_BYTES, Store, StoredRecord, chunks_and_blocks, read_array, write_array
from autoseg.runtime.provenance import Stamp
from autoseg.schema import Geometry, Trace

GEOMETRY = Geometry((20, 30, 40), (1.0, 0.7, 0.1), (0.1, 0.2, 0.3), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
TRACE = Trace("a", GEOMETRY, (0, 1, 2), (20, 30, 40), ((0, 20), (1, 30), (2, 40)), (20, 29, 38), (1.0, 0.7, 0.1))


def example() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(2, 20, 29, 38)).astype(np.float32), rng.integers(-1, 3, (20, 29, 38)).astype(np.int16)
    return image, labels, {"0": np.argwhere(labels == 1).astype(np.int16), "1": np.zeros((0, 3), np.int16)}


def test_round_trip(tmp_path: Path) -> None:
    image, labels, locations = example()
    store = Store(tmp_path, patch=(8, 16, 16))
    assert store.names() == [] and not store.has("a")
    store.write("b", image, None, TRACE)
    store.write("a", image, labels, StoredRecord(TRACE, Stamp({"label": "l:1"})), locations)
    assert store.names() == ["a", "b"]
    stored = store.load("a")
    assert (stored.trace, stored.made_from) == (TRACE, Stamp({"label": "l:1"}))
    np.testing.assert_array_equal(stored.image[:], image)
    np.testing.assert_array_equal(stored.image[:, 3:7, 5:20, 30:], image[:, 3:7, 5:20, 30:])
    np.testing.assert_array_equal(stored.segmentation[3:5], labels[3:5])
    assert list(stored.locations) == ["0", "1"] and len(stored.locations["1"]) == 0
    np.testing.assert_array_equal(stored.locations["0"], locations["0"])
    assert "7" not in stored.locations
    other = store.load("b")
    assert other.segmentation is None and len(other.locations) == 0


def stored(folder: Path, *names: str) -> tuple[Store, np.ndarray]:
    image, labels, locations = example()
    store = Store(folder)
    for name in names:
        store.write(name, image, labels, TRACE, locations)
    return store, image


def test_names_may_look_like_files(tmp_path: Path) -> None:
    store, image = stored(tmp_path, "a", "a_seg", "a.image", "configuration")
    store.remove("a")
    assert store.names() == ["a.image", "a_seg", "configuration"]
    np.testing.assert_array_equal(store.load("a.image").image[:], image)


def test_incomplete_cases_do_not_count_and_are_cleaned(tmp_path: Path) -> None:
    store, _ = stored(tmp_path, "a", "b")
    (tmp_path / "b.trace.json").unlink()
    (tmp_path / ".partial-99999999-c.image.b2nd").write_bytes(b"half")
    assert store.names() == ["a"]
    with pytest.raises(ValueError, match="'b'"):
        store.load("b")
    store.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.image.b2nd", "a.labels.b2nd", "a.locations.npz", "a.trace.json"]


def test_a_failed_write_leaves_no_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = stored(tmp_path, "a")
    monkeypatch.setattr("autoseg.preprocessing.storage.np.savez", Mock(side_effect=OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        stored(tmp_path, "a")
    assert not store.has("a") and not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_predictions(tmp_path: Path, dtype: type) -> None:
    array = (np.random.default_rng(0).random((3, 10, 30, 20)) * 255).astype(dtype)
    write_array(tmp_path / "x.b2nd", array)
    found = read_array(tmp_path / "x.b2nd")
    assert found.shape == array.shape and found.dtype == dtype
    np.testing.assert_array_equal(found[:, 2:4], array[:, 2:4])
    np.testing.assert_array_equal(found[1], array[1])
    (tmp_path / "x.b2nd").write_bytes(b"damaged")
    for name in ("x.b2nd", "missing.b2nd"):
        with pytest.raises(ValueError, match=name):
            read_array(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((1, 480, 512, 512), (128, 128, 128)),
        ((4, 138, 169, 138), (128, 128, 128)),
        ((1, 10, 256, 216), (1, 256, 224)),
        ((20, 3, 5, 7), (40, 56, 40)),
        ((7, 9), (3, 4)),
    ],
)
def test_chunks_and_blocks_fit(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    chunk, block = chunks_and_blocks(shape, 4, patch)
    assert len(chunk) == len(block) == len(shape)
    assert all(1 <= b <= c <= n for b, c, n in zip(block, chunk, shape, strict=True))
    assert np.prod(block) * 4 <= 128 * 1024 and np.prod(chunk) * 4 <= CHUNK_BYTES


def test_locations_of_some_organs(tmp_path: Path) -> None:
    image, labels, _ = example()
    voxels = np.array([[1, 2, 3]], np.int16)
    Store(tmp_path).write("a", image, labels, TRACE, {"0": voxels, "1": voxels, "10": voxels, "annotated": voxels})
    store = Store(tmp_path)
    assert set(store.load("a").locations) == {"0", "1", "10", "annotated"}
    some = store.load("a", organs=(1,)).locations
    assert set(some) == {"1", "annotated"}
    with pytest.raises(KeyError):
        some["10"]
