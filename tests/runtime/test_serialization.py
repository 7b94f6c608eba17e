"""Values survive JSON, files appear whole or not at all, and a folder belongs to one process."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg import schema
from autoseg.runtime import disk
from autoseg.runtime.failures import failure_of
from autoseg.runtime.locks import exclusive_lock, remove_partial_files
from autoseg.runtime.serialization import atomic_write, from_jsonable, read_json, to_jsonable, write_json
from autoseg.schema import settings, training_options

VALUES = {int: 3, float: 0.1 + 0.2, str: "Größe", bool: True, Path: Path("relative/a.nrrd"), Any: {"deep": [1, {"er": None}]}}
WORDS = {"kind": "time", "source": "body", "file_ending": ".nii.gz", "fold": "3", "folds": ("3",), "lateral_axis": 1, "axes": (2,)}
WORDS |= {
    "pairs": ((0, 1),),
    "transpose": (2, 0, 1),
    "flips": (2,),
    "shape": (3, 4, 5),
    "crop": ((0, 2),) * 3,
    "shape_before_crop": (3,) * 3,
}
WORDS |= {"spacing": (0.1 + 0.2, 1.0, 2.0), "median_shape": (3, 4, 5), "patch_size": (3, 4, 5), "patch_multiple": (1, 2, 2), "ignore": 4}
WORDS |= {"orientation": "SPL", "Labels.members": ((3,),), "reference": "Größe", "momentum": 0.1 + 0.2}
WORDS |= {"elastic_distribution": "normal", "Locator.most": (3, 4, 5)}
WORDS |= {"elastic_points": 4, "context": (3, 4, 5), "center_crop": (3, 4), "slice_shape": (3, 4)}
WORDS |= {"PredictSettings.mirror": False}
WORDS |= {"Tiling.mean": "plain", "stored": "log_odds16", "ValidationSettings.mirror_axes": (0, 2)}
WORDS |= {"Dataset.unlabelled": (schema.Case("other", (Path("relative/b.nrrd"),)),)}
WORDS |= {"EnsembleRecord.kind": "meta", "Choice.member_folds": {"Größe": ("3",)}, "Split.val": ("other",)}
WORDS |= {"EnsembleRecord.stored": "log_odds16", "slice_axis": 1, "elastic_distribution": "normal", "Locator.most": (3, 4, 5)}
WORDS |= {"Tiling.mean": "plain", "elastic_points": 5, "context": (3, 4, 5), "center_crop": (3, 4), "slice_shape": (3, 4)}
WORDS |= {"PseudoLabels.cases": {"unlabelled": "Größe"}, "unlabelled": (schema.Case("other", (Path("other.nii.gz"),), None),)}
"""Fields that take certain values only."""


def example(kind: Any, *, only_required: bool) -> Any:
    """A value of a type, made by its hints; of dataclasses with all fields, or with those that have no default."""
    if dataclasses.is_dataclass(kind):
        hints, required = typing.get_type_hints(kind), dataclasses.MISSING
        names = [item.name for item in dataclasses.fields(kind) if not only_required or item.default is item.default_factory is required]
        words = {name: WORDS.get(f"{kind.__name__}.{name}", WORDS.get(name)) for name in names}
        return kind(**{n: example(hints[n], only_required=only_required) if words[n] is None else words[n] for n in names})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return example(inner[0], only_required=only_required)
    if origin in (tuple, list):
        return origin(example(one, only_required=only_required) for one in inner if one is not ...)
    if origin is dict:
        return {VALUES[inner[0]]: example(inner[1], only_required=only_required)}
    return VALUES[kind]


STORED = {kind for module in (schema, settings, training_options) for kind in vars(module).values() if dataclasses.is_dataclass(kind)}


@pytest.mark.parametrize("only_required", [False, True])
@pytest.mark.parametrize("kind", sorted(STORED - {schema.Image}, key=lambda kind: kind.__name__))
def test_every_value_comes_back_equal_and_of_the_same_types(kind: type, only_required: bool, tmp_path: Path):
    value = example(kind, only_required=only_required)
    write_json(tmp_path / "value.json", value)
    found = read_json(tmp_path / "value.json", kind)
    assert repr(found) == repr(value)
    write_json(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "value.json").read_bytes(), "also what equality ignores"


def test_nan_is_null_in_the_file_and_nan_again(tmp_path: Path):
    path = tmp_path / "s.json"
    write_json(path, [schema.Score("a", "whole", math.nan, math.nan, 0, 0, {"hd95_mm": math.nan})])
    assert json.loads(path.read_text())["values"][0]["dice"] is None
    (score,) = read_json(path, list[schema.Score])
    assert all(map(math.isnan, (score.dice, score.iou, score.other["hd95_mm"])))
    assert score.n_reference == 0


def test_numbers_come_back_to_the_last_digit(tmp_path: Path):
    values = [0.1 + 0.2, 1e-300, 2**53 + 1, -0.0, math.pi]
    write_json(tmp_path / "v.json", values)
    assert [repr(value) for value in read_json(tmp_path / "v.json", list)] == [repr(value) for value in values]


@dataclass(frozen=True)
class Everything:
    number: float
    maybe: int | None
    where: Path | None
    pair: tuple[int, str]
    many: tuple[tuple[int, ...], ...]
    by_number: dict[int, list[Path]]
    nested: dict[str, Everything | None] = field(default_factory=dict)
    either: tuple[int, int] | str | None = None


def test_optional_nested_and_keyed_fields(tmp_path: Path):
    leaf = Everything(1.0, None, None, (1, "x"), ((), (1, 2)), {}, either=(1, 2))
    value = Everything(2, 3, Path("a/b"), (4, "y"), (), {7: [Path("c")]}, {"leaf": leaf, "none": None}, "auto")
    write_json(tmp_path / "v.json", value)
    found = read_json(tmp_path / "v.json", Everything)
    assert found == value
    assert isinstance(found.number, float)
    assert isinstance(found.by_number[7][0], Path)


def test_numpy_scalars_become_numbers():
    plain = to_jsonable({"a": np.float32(0.5), "b": (np.int64(3), np.bool_(True)), 4: Path("x")})
    assert plain == {"a": 0.5, "b": [3, True], "4": "x"}
    assert json.loads(json.dumps(plain)) == plain


def test_missing_defaults_are_filled_in():
    assert from_jsonable({"name": "a", "images": ["x"]}, schema.Case) == schema.Case("a", (Path("x"),))


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (schema.Split, b'{"train": ["a"', "expected a split, found no JSON from line 1"),
        (schema.Split, b'{"train": [], "val": [], "test": []}', "a split with the unknown test"),
        (schema.Split, b'{"train": []}', "a split without val"),
        (schema.Split, b"[1, 2]", "expected the fields of a split, got .1, 2."),
        (dict, b"[1]", "expected named values, got .1."),
        (dict, b"\xff\xfe\x00", "bytes that are no text"),
        (dict, b"[" * 100_000, "values of another kind"),
        (schema.Budget, b'{"kind": "time", "amount": -1, "rounds": 1}', "expected a positive amount"),
        (schema.Budget, b'{"kind": "time", "amount": "x", "rounds": 1}', 'expected a number, got "x"'),
        (Everything, b'{"number": 1, "maybe": null, "where": null, "pair": [1], "many": [], "by_number": {}}', "expected 2 values"),
        (Everything, b'{"number": 1, "maybe": null, "where": null, "pair": 1, "many": [], "by_number": {}}', "expected a list, got 1"),
        (Everything, b'{"number": 1, "maybe": null, "where": 3, "pair": [1, "a"], "many": [], "by_number": {"a": []}}', "expected a path"),
    ],
    ids=["cut", "surplus", "lacking", "list", "no names", "bytes", "deep", "budget", "word", "pair", "no pair", "no path"],
)
def test_wrong_files_are_named(tmp_path: Path, kind: type, text: bytes, message: str):
    (tmp_path / "wrong.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"wrong\.json: damaged, or from another version.*{message}.*put a copy"):
        read_json(tmp_path / "wrong.json", kind)


class TestAtomic:
    def test_the_file_appears_only_when_it_is_whole(self, tmp_path: Path):
        path = tmp_path / "new" / "image.nii.gz"
        with atomic_write(path) as partial:
            assert partial.parent == path.parent
            assert partial.name.startswith(".partial-") and partial.name.endswith("image.nii.gz")
            partial.write_text("half")
            assert not path.exists()
        assert path.read_text() == "half"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("half", [lambda path: path.write_text("half"), lambda path: (path / "x").mkdir(parents=True)])
    def test_an_exception_leaves_the_former_file_and_nothing_else(self, tmp_path: Path, half: Callable, error: type[BaseException]):
        path = tmp_path / "a.json"
        write_json(path, {"old": 1})

        def fail() -> None:
            with atomic_write(path) as partial:
                half(partial)
                raise error

        with pytest.raises(error):
            fail()
        for value in ({"x": object()}, {"x": math.inf}):
            with pytest.raises((TypeError, ValueError)):
                write_json(path, value)
        assert read_json(path, dict) == {"old": 1}
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("times", [3, 10**6], ids=["for a moment", "in a viewer"])
    def test_a_file_that_is_open_elsewhere_fails_that_case_only(self, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """As on Windows, which does not let it be replaced."""
        path, real, calls = tmp_path / "c0.nii.gz", os.replace, count(1)
        path.write_text("former")

        def replace(old: Path, new: Path) -> None:
            if next(calls) <= times:
                raise PermissionError(errno.EACCES, "used by another process", str(old), None, str(new))
            real(old, new)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(disk, "KEEPS_OPEN_FILES", True)
        monkeypatch.setattr(disk, "OPEN_SECONDS", 0.3)
        failures: dict[str, str] = {}
        with failure_of("c0", failures), atomic_write(path) as partial:
            partial.write_text("new")
        in_viewer = times > 3
        assert path.read_text() == ("former" if in_viewer else "new") and list(tmp_path.iterdir()) == [path]
        assert ("c0.nii.gz: cannot be replaced, as it is open in another program" in failures.get("c0", "")) == in_viewer

    def test_what_a_killed_run_left_is_removed(self, tmp_path: Path):
        (tmp_path / ".partial-99999999-a.json").write_text("half")
        (tmp_path / ".partial-99999999-b" / "x").mkdir(parents=True)
        (tmp_path / "whole.json").write_text("{}")
        remove_partial_files(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]


HOLD = """
import sys
from pathlib import Path
from autoseg.runtime.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_holds_is_refused_until_that_dies(tmp_path: Path):
    pytest.importorskip("fcntl")
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        who = f"{tmp_path}: another process is training here .process {other.pid} on .*, since "
        with pytest.raises(ValueError, match=who), exclusive_lock(tmp_path, "training"):
            pass
    finally:
        other.kill()
        other.communicate()
    for _ in range(2):
        with contextlib.suppress(KeyError), exclusive_lock(tmp_path, "training"):
            raise KeyError("free again even after an error")
