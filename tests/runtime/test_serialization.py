"""Values survive JSON, files appear whole or not at all, and a folder belongs to one process."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg import schema as model
from autoseg.runtime.locks import exclusive_lock, remove_partial_files
from autoseg.runtime.serialization import atomic_write, from_jsonable, read_json, to_jsonable, write_json
from autoseg.schema.run_record import RunRecord
from autoseg.schema.training_options import TrainingOptions

NAN = float("nan")
GEOMETRY = model.Geometry((3, 4, 5), (2.5, 0.7, 0.1 + 0.2), (-1.5, 1e-17, 3.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0), (1.0, 2.0))
LABELS = model.Labels(("whole", "core"), ((1, 2), (2,)), ignore=9, regions=True, regions_class_order=(1, 2))
CONFIGURATION = model.Configuration(
    name="3d_cascade",
    dim=3,
    spacing=(3.0, 1.0, 1.0),
    median_shape=(20, 30, 40),
    patch_size=(8, 16, 16),
    batch_size=2,
    normalization=("ct", "zscore"),
    mask_normalization=(False, True),
    network="plain_unet",
    network_options={"features": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]], "deep": {"er": True}, "none": None},
    batch_dice=True,
    mirroring=model.Mirroring((0, 2), 2, ((0, 1),)),
    data="3d_fullres",
    previous_stage="3d_lowres",
)
INTENSITY = model.Intensity(1.0, 2.0, 3.0, -1024.0, 5.0, 6.0, 0.1)
PLAN = model.Plan(
    "Dataset001_Tiny",
    ("CT", "Größe"),
    LABELS,
    ".nii.gz",
    (2, 0, 1),
    (INTENSITY,),
    {"3d_cascade": CONFIGURATION, "2d": dataclasses.replace(CONFIGURATION, name="2d", previous_stage=None)},
    (model.Reason("all", "spacing", "1 x 2", "median"),),
)
CASE = model.Case("a", (Path("/raw/a_0000.nii.gz"), Path("relative.nrrd")), Path("/raw/a.nii.gz"), "patient")
SPLIT = model.Split(("a", "b"), ())
COMPARED = model.CandidateComparison(0.9, 0.85, 0.95, 0.01, 0.04, 0.08)
EXPECTED = model.NestedEstimate(0.89, 0.84, 0.94, 0.9, 4, {"0": "2d__Trainer"})
EVIDENCE = model.Evidence("2d__Trainer", 4, {"2d__Trainer": COMPARED}, EXPECTED)
CLEANING = model.PostProcessing(12.5, 2, True, "helps")
CALIBRATION = model.Calibration(1.5, 0.04, 0.02)
RELIABILITY = model.DiceRegression(0.9, 0.05, 0.03, 0.7, 40)
MERGED = model.OrganMerging(1.5, 6, 4, {"whole": 0.9}, {"whole": 0.89})
BUDGET = model.Budget("time", 1200.0, 30, "as asked")
EXAMPLES = [
    GEOMETRY,
    LABELS,
    model.Labels(("one",), ((1,),)),
    CASE,
    model.Case("new", (Path("x.png"),)),
    model.Dataset("Dataset001_Tiny", Path("/raw/Dataset001_Tiny"), ("CT",), LABELS, (CASE,)),
    INTENSITY,
    model.Fingerprint((model.CaseFingerprint("a", (3, 4, 5), (1.0, 1.5, 2.0), 0.75, 1, (0, 12), "SPL"),), (INTENSITY,)),
    model.Mirroring(),
    model.CandidateRegion("previous", 3),
    model.Locator((6.0, 6.5, 6.5), (16, 32, 32), 3.0, network_options={"features": 4}),
    CONFIGURATION,
    PLAN,
    model.PlanSettings(configurations=("2d",), spacing=(1.0, 2.0), groups=r"^p\d+"),
    model.Trace("a", GEOMETRY, (0, 1, 2), (3, 4, 5), ((0, 3), (1, 4), (0, 5)), (6, 7, 8), (1.0, 1.0, 1.0), (0, 2)),
    BUDGET,
    SPLIT,
    model.Score("a", "whole", 0.5, 0.25, 10, 12, {"surface_distance_mm": 1.5}),
    model.Candidate(("2d__Trainer", "3d_fullres__Trainer")),
    model.Choice({"whole": ("2d__Trainer",)}, ("0", "all"), {"2d__Trainer": {"whole": 0.9}}, 4, {"whole": "best"}),
    model.Choice(
        {"whole": ("2d__Trainer",)},
        ("0",),
        {},
        4,
        evidence={"whole": EVIDENCE},
        seconds={"2d__Trainer": 1.5},
        postprocessing={"whole": CLEANING},
        calibration={"2d__Trainer": CALIBRATION},
        dice_regression={"whole": RELIABILITY},
        merged=MERGED,
    ),
    COMPARED,
    EXPECTED,
    EVIDENCE,
    CLEANING,
    CALIBRATION,
    RELIABILITY,
    MERGED,
    RunRecord(PLAN, CONFIGURATION, "0", SPLIT, BUDGET, 7, TrainingOptions(), pretrained=Path("/x.pt"), previous_model="3d_lowres__Trainer"),
]


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_every_value_comes_back_equal_and_of_the_same_types(value: Any, tmp_path: Path):
    write_json(tmp_path / "value.json", value)
    found = read_json(tmp_path / "value.json", type(value))
    assert found == value
    assert repr(found) == repr(value)


def test_every_stored_type_of_the_model_has_an_example():
    known = {kind for kind in vars(model).values() if dataclasses.is_dataclass(kind)}
    inside = {model.Image, model.CaseFingerprint, model.Reason}  # an image is never stored as JSON, the others are parts of examples
    assert known - inside == {type(value) for value in EXAMPLES} - {RunRecord}


def test_fields_that_equality_ignores_come_back_too(tmp_path: Path):
    write_json(tmp_path / "g.json", GEOMETRY)
    assert read_json(tmp_path / "g.json", model.Geometry).nifti == GEOMETRY.nifti


def test_nan_is_null_in_the_file_and_nan_again(tmp_path: Path):
    path = tmp_path / "s.json"
    write_json(path, [model.Score("a", "whole", NAN, NAN, 0, 0, {"hd95_mm": NAN})])
    assert json.loads(path.read_text())[0]["dice"] is None
    (score,) = read_json(path, list[model.Score])
    assert math.isnan(score.dice)
    assert math.isnan(score.iou)
    assert math.isnan(score.other["hd95_mm"])
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


def test_optional_nested_and_keyed_fields(tmp_path: Path):
    leaf = Everything(1.0, None, None, (1, "x"), ((), (1, 2)), {})
    value = Everything(2, 3, Path("a/b"), (4, "y"), (), {7: [Path("c")]}, {"leaf": leaf, "none": None})
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
    assert from_jsonable({"train": ["a"], "val": []}, model.Split) == model.Split(("a",), ())
    assert from_jsonable({"name": "a", "images": ["x"]}, model.Case) == model.Case("a", (Path("x"),))


def test_wrong_files_are_named(tmp_path: Path):
    wrong = {
        "cut": '{"train": ["a"',
        "surplus": '{"train": [], "val": [], "test": []}',
        "lacking": '{"train": []}',
        "list": "[1, 2]",
    }
    for name, text in wrong.items():
        (tmp_path / f"{name}.json").write_text(text)
        with pytest.raises(ValueError, match=rf"{name}\.json.*Split"):
            read_json(tmp_path / f"{name}.json", model.Split)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes\.json"):
        read_json(tmp_path / "bytes.json", dict)
    (tmp_path / "budget.json").write_text('{"kind": "time", "amount": -1, "rounds": 1}')
    with pytest.raises(ValueError, match=r"budget\.json: .*expected a positive amount"):
        read_json(tmp_path / "budget.json", model.Budget)
    (tmp_path / "pair.json").write_text('{"number": 1, "maybe": null, "where": null, "pair": [1], "many": [], "by_number": {}}')
    with pytest.raises(ValueError, match=r"pair\.json"):
        read_json(tmp_path / "pair.json", Everything)


class TestAtomic:
    def test_the_file_appears_only_when_it_is_whole(self, tmp_path: Path):
        path = tmp_path / "new" / "image.nii.gz"
        with atomic_write(path) as partial:
            assert partial.parent == path.parent
            assert partial.name.startswith(".partial-")
            assert partial.name.endswith("image.nii.gz")
            partial.write_text("half")
            assert not path.exists()
        assert path.read_text() == "half"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_exception_leaves_the_former_file_and_nothing_else(self, tmp_path: Path, error: type[BaseException]):
        path = tmp_path / "a.json"
        write_json(path, {"old": 1})

        def fail() -> None:
            with atomic_write(path) as partial:
                partial.write_text("half")
                raise error("stop")

        with pytest.raises(error):
            fail()
        assert read_json(path, dict) == {"old": 1}
        assert list(tmp_path.iterdir()) == [path]

    def test_a_value_that_json_cannot_hold_leaves_the_former_file(self, tmp_path: Path):
        write_json(tmp_path / "a.json", {"old": 1})
        for value in ({"x": object()}, {"x": float("inf")}):
            with pytest.raises((TypeError, ValueError)):
                write_json(tmp_path / "a.json", value)
        assert read_json(tmp_path / "a.json", dict) == {"old": 1}
        assert len(list(tmp_path.iterdir())) == 1

    def test_folders_are_removed_too(self, tmp_path: Path):
        def fail() -> None:
            with atomic_write(tmp_path / "folder") as partial:
                partial.mkdir()
                (partial / "x").write_text("half")
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            fail()
        assert not list(tmp_path.iterdir())

    def test_what_a_killed_run_left_is_removed(self, tmp_path: Path):
        (tmp_path / ".partial-99999999-a.json").write_text("half")
        (tmp_path / ".partial-99999999-b").mkdir()
        (tmp_path / ".partial-99999999-b" / "x").write_text("half")
        (tmp_path / "whole.json").write_text("{}")
        remove_partial_files(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]


class TestOnlyOne:
    HOLD = """
import sys
from pathlib import Path
from autoseg.runtime.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""

    def hold(self, folder: Path) -> subprocess.Popen:
        other = subprocess.Popen([sys.executable, "-c", self.HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "held\n"
        return other

    def test_a_folder_that_another_process_holds_is_refused_until_that_dies(self, tmp_path: Path):
        pytest.importorskip("fcntl")
        other = self.hold(tmp_path / "run")
        try:
            with pytest.raises(ValueError, match="run: .*training"), exclusive_lock(tmp_path / "run", "training"):
                pass
        finally:
            other.kill()
            other.communicate()
        with exclusive_lock(tmp_path / "run", "training"):
            pass

    def test_it_is_free_again_after_the_block_even_after_an_error(self, tmp_path: Path):
        def fail() -> None:
            with exclusive_lock(tmp_path, "training"):
                raise KeyError("stop")

        for _ in range(2):
            with pytest.raises(KeyError):
                fail()
