"""Arrays from strangers: whatever a `.b2nd` or `.npz` file holds, nothing is evaluated, fetched or unpacked to more than it says."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import pytest
from test_storage import TRACE, example

from autoseg.preprocessing.storage import Locations, Store, open_arrays, read_array, write_array, write_arrays
from autoseg.runtime.sealing import SEAL_BYTES, seal

SMALL = np.arange(400, dtype=np.float32).reshape(4, 10, 10)


def operand(folder: Path) -> blosc2.NDArray:
    return blosc2.asarray(SMALL, urlpath=str(folder / "operand.b2nd"), mode="w")


def lazy_function(path: Path) -> None:
    mark = path.parent / "ran"

    def function(inputs: tuple, output: np.ndarray, offset: tuple) -> None:
        mark.touch()
        output[:] = inputs[0]

    blosc2.lazyudf(function, (operand(path.parent),), dtype=np.float32, shape=SMALL.shape).save(urlpath=str(path))


def lazy_expression(path: Path) -> None:
    (operand(path.parent) + 1).save(urlpath=str(path))


def reference(kind: str) -> Callable[[Path], None]:
    """An array of which the voxels are said to lie elsewhere."""

    def make(path: Path) -> None:
        elsewhere = {"kind": kind, "version": 1, "urlbase": "http://127.0.0.1:9/", "path": "x", "urlpath": "/etc/passwd"}
        blosc2.asarray(SMALL, urlpath=str(path), mode="w", meta={"b2o": elsewhere}, cparams={"codec": blosc2.Codec.LZ4})

    make.__name__ = f"reference_{kind}"
    return make


def bare_chunks(path: Path) -> None:
    blosc2.SChunk(data=SMALL, urlpath=str(path), mode="w")


def stored_as(**settings: object) -> Callable[[Path], None]:
    """An array that `write_array` does not write so."""

    def make(path: Path) -> None:
        array = np.arange(40_000).reshape(4, 100, 100).astype(settings.get("dtype", np.int16))
        blosc2.asarray(array, urlpath=str(path), mode="w", cparams=settings.get("cparams", {"codec": blosc2.Codec.LZ4}))

    make.__name__ = "stored_as_" + "_".join(settings)
    return make


def claims(*shape: int, chunks: tuple[int, ...] | None = None) -> Callable[[Path], None]:
    """A file of some hundred bytes that claims more than any memory holds."""

    def make(path: Path) -> None:
        blosc2.zeros(shape, dtype=np.uint8, urlpath=str(path), mode="w", chunks=chunks)

    make.__name__ = "claims_" + "_".join(map(str, shape))
    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lazy_function, "LazyArray"),
        (lazy_expression, "lazyexpr"),
        *((reference(kind), kind) for kind in ("c2array", "fsspec", "urlpath")),
        (bare_chunks, "expected an array of .*found SChunk"),
        (stored_as(dtype=np.int64), "expected an array of .*found int64"),
        (stored_as(cparams={"codec": blosc2.Codec.ZSTD}), "expected compression by LZ4"),
        (stored_as(cparams={"codec": blosc2.Codec.LZ4, "filters": [blosc2.Filter.BITSHUFFLE]}), "expected compression by LZ4"),
        (claims(2**14, 2**14, 4, chunks=(2**14, 2**14, 4)), "in chunks of"),
        (claims(10**6, 10**6), "expected at most .* bytes"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("sealed", [False, True])
def test_only_plain_numbers_are_opened(make: Callable[[Path], None], message: str, sealed: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.b2nd"
    make(path)
    if sealed:  # a stranger can write a digest as well
        seal(path)
    with pytest.raises(ValueError, match=rf"x\.b2nd: cannot be read as a stored array: .*{message}"):
        read_array(path)
    assert not (tmp_path / "ran").exists()


def test_a_frame_is_as_long_as_it_says(tmp_path: Path) -> None:
    write_array(tmp_path / "x.b2nd", SMALL)
    frame = (tmp_path / "x.b2nd").read_bytes()[:-SEAL_BYTES]
    for content in (frame[:-1], frame + b"\0", b"", frame[:20]):
        (tmp_path / "x.b2nd").write_bytes(content)
        with pytest.raises(ValueError, match="x.b2nd.*expected a Blosc2 frame"):
            read_array(tmp_path / "x.b2nd")


@pytest.mark.parametrize("ending", [".image.b2nd", ".labels.b2nd"])
def test_arrays_lie_on_the_grid_of_their_trace(ending: str, tmp_path: Path) -> None:
    image, labels, locations = example()
    store = Store(tmp_path)
    store.write("a", image, labels, TRACE, locations)
    write_array(tmp_path / f"a{ending}", (image if "image" in ending else labels)[..., 1:])
    case = store.load("a")
    with pytest.raises(ValueError, match=rf"a{ending}: expected . axes on the grid \(20, 29, 38\) of a.trace.json, found .*37\)"):
        _ = case.image[:], case.segmentation[:]


def objects(path: Path) -> None:
    np.savez(path, **{"0": np.array([{"a": 1}], object)})


def packed(path: Path) -> None:
    np.savez_compressed(path, **{"0": np.zeros((10**6, 3), np.int16)})


def no_archive(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 and no more")


def too_large(path: Path) -> None:
    """An array whose header claims 10^14 voxels."""
    np.savez(path, **{"0": np.zeros((100, 3), np.int16)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        array = archive.read("0.npy").replace(b"(100, 3), }" + 13 * b" ", b"(99999999999999, 3), }  ")
    assert b"99999999999999" in array and content
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.npy", array)


def not_voxels(path: Path) -> None:
    write_arrays(path, {"0": np.zeros((5, 2))})


@pytest.mark.parametrize("make", [objects, packed, no_archive, too_large, not_voxels])
def test_locations_are_whole_numbers_and_no_more_than_the_file_holds(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "a.locations.npz"
    make(path)
    with pytest.raises(ValueError, match=r"a\.locations\.npz"):
        Locations(path)["0"]


def test_locations_carry_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.locations.npz"
    write_arrays(path, {"0": np.arange(30).reshape(10, 3)})
    content = path.read_bytes()
    at = content.index(np.arange(30).tobytes()) + 8
    path.write_bytes(content[:at] + b"\7" + content[at + 1 :])
    with pytest.raises(ValueError, match="a.locations.npz.*does not fit the digest"), open_arrays(path):
        pass
    path.write_bytes(content[:-SEAL_BYTES])  # as earlier versions wrote it
    assert Locations(path)["0"].sum() == np.arange(30).sum()
