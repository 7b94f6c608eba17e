"""What ``dataset.json`` may say: names are names, every entry has its form, a wrong one is refused by file and key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import write_info
from test_datasets import make, tr

from autoseg.data.dataset_json import misspelled_keys
from autoseg.data.datasets import inspect_dataset, load_dataset
from autoseg.data.patients import WITHOUT_LAST_PART, likely_patients, patients_of, patients_to_compare
from autoseg.preprocessing.storage import Store
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Case, CaseFingerprint, Dataset, Labels, Plan, Score, Split
from autoseg.schema.names import check_different, check_name

NO_NAMES = [
    *("", " ", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "a\0b", "a\nb", "a\x1b[31m", "a\u202eb", "\udcff", "C:x", ".hidden"),
    *("nul", "CON", "com1.x", "a.", "a ", " a", "x" * 201, "ü" * 101),
    *(None, 3, ["a"], {}, True),
]
LISTED = {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}


class TestNames:
    @pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
    def test_what_is_no_name_is_refused_by_every_value_that_holds_one(self, name, tmp_path):
        labels = Labels(("a",), ((1,),))
        makers = [
            lambda: Case(name, ()),
            lambda: Split((name,), ()),
            lambda: Split((), (name,)),
            lambda: CaseFingerprint(name, (), (), 1.0, 0, ()),
            lambda: Score(name, "a", 1.0, 1.0, 1, 1),
            lambda: Dataset(name, Path(), ("CT",), labels, ()),
            lambda: Plan(name, ("CT",), labels, ".nii.gz", (0, 1, 2), (), {}),
            lambda: (
                Plan("a", ("CT",), labels, ".nii.gz", (0, 1, 2), (), {name: None})
                if not isinstance(name, (list, dict))
                else check_name(name, "x")
            ),
            lambda: Store(tmp_path).trace_path(name),
            lambda: Store(tmp_path).remove(name),
        ]
        for maker in makers:
            with pytest.raises(ValueError, match="name of a .*expected a plain name .*rename it"):
                maker()

    @pytest.mark.parametrize(
        "name", ["case_001", "Fall Nr. 3 (links)", "Müller", "1.2.840.113619.573", "a+b=c,d", "肝臓", "con_1", "a" * 200, "-x", "100%"]
    )
    def test_what_is_a_name(self, name):
        assert check_name(name, "case") == name

    @pytest.mark.parametrize(
        ("names", "said"), [(("a", "b", "A"), "upper and lower case only"), (("ü", "u\u0308"), "case only"), (("a", "a"), "twice")]
    )
    def test_names_that_are_one_file_on_some_disk(self, names, said, tmp_path):
        with pytest.raises(ValueError, match=said):
            check_different(names, "case")

    @pytest.mark.parametrize("name", ["../../../escape", "/escape", "a/b", "..", "", "NUL"])
    def test_names_of_the_list_are_refused_on_load(self, tmp_path, name):
        with pytest.raises(ValueError, match=r"dataset\.json: name of a case: expected a plain name"):
            inspect_dataset(make(tmp_path / "d", tr("a"), dataset={name: LISTED}))

    def test_names_that_differ_by_case_or_come_twice_are_refused_on_load(self, tmp_path):
        with pytest.raises(ValueError, match="found 'a', which differs from 'A'"):
            load_dataset(make(tmp_path / "d", tr("a"), dataset={"A": LISTED, "a": LISTED}))
        entry = {"image": "./imagesTr/a_0000.nii.gz", "label": "./labelsTr/a.nii.gz"}
        with pytest.raises(ValueError, match="found 'a_0000', which is there twice"):
            load_dataset(make(tmp_path / "d", tr("a"), training=[entry, entry | {"image": "imagesTr/../imagesTr/a_0000.nii.gz"}]))

    def test_names_of_the_decathlons_list_are_refused_on_load(self, tmp_path):
        make(tmp_path / "d", ["imagesTr/nul.nii.gz", "labelsTr/nul.nii.gz"])
        with pytest.raises(ValueError, match="device on Windows"):
            load_dataset(make(tmp_path / "d", [], training=[{"image": "imagesTr/nul.nii.gz", "label": "labelsTr/nul.nii.gz"}]))

    def test_names_of_files_that_were_written_are_checked_when_they_are_read(self, tmp_path):
        dataset = load_dataset(make(tmp_path / "d", tr("a")))
        write_json(tmp_path / "dataset.json", dataset, digest=False)
        text = (tmp_path / "dataset.json").read_text()
        for old, new in (
            ('"name": "a"', '"name": "../a"'),
            ('"name": "d"', '"name": "../d"'),
            ('.nii.gz",\n "windows', '/../x",\n "windows'),
        ):
            assert old in text
            (tmp_path / "dataset.json").write_text(text.replace(old, new))
            with pytest.raises(ValueError, match=r"dataset\.json: .*(name|ending) of "):
                read_json(tmp_path / "dataset.json", Dataset)


VALID: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "liver": [1, 2], "tumour": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "dataset": {
        "a": {"images": ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], "label": "labelsTr/a.nii.gz"},
        "b": {"images": ["imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz"], "label": "labelsTr/b.nii.gz"},
    },
    "groups": {"a": "p", "b": "q"},
    "annotated": [{"cases": ["a"], "organs": ["liver"]}],
    "windows": {"liver": [400, 50]},
    "tolerances": {"liver": 3.0},
}
WRONG: list[Any] = [
    None,
    True,
    -1,
    1.5,
    10**400,
    "",
    "x",
    "\0",
    "../../x",
    [],
    {},
    [[]],
    [None],
    {"x": None},
    {"": {"": []}},
    [{"x": "y"}],
    "(" * 99,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of keys to every value below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key)
        yield from places(one, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


class TestForms:
    @pytest.fixture(scope="class")
    def files(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return make(tmp_path_factory.mktemp("forms"), tr("a", "b", channels=2))

    @pytest.fixture
    def folder(self, files: Path) -> Path:
        return write_info(files, **VALID)

    def test_the_example_is_right(self, folder):
        dataset = load_dataset(folder)
        assert ([case.name for case in dataset.cases], dataset.labels.regions_class_order) == (["a", "b"], (1, 2))

    @pytest.mark.parametrize("path", list(places(VALID)), ids=str)
    def test_a_wrong_value_at_any_place_is_refused_by_name_or_read_as_what_it_says(self, folder, path):
        for wrong in WRONG:
            (folder / "dataset.json").write_text(json.dumps(replaced(VALID, path, wrong)))
            try:
                inspect_dataset(folder)
            except ValueError as error:
                message = str(error)
                assert message.startswith((str(folder), "groups: ")), message
                assert len(message) < 1200

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("channel_names", {"0": None, "1": "PET"}),
            ("channel_names", "CT"),
            ("channel_names", [1, 2]),
            ("labels", ["liver"]),
            ("labels", {"background": 0, "liver": 1.0}),
            ("labels", {"background": 0, "liver": None}),
            ("labels", {"background": 0, "liver": -1}),
            ("labels", {"background": 0, "liver": True}),
            ("labels", {"background": 0, "liver": 2**40}),
            ("labels", {"background": 0, "liver": 0}),
            ("labels", {"background": 1, "liver": 2}),
            ("labels", {"background": 0, "liver": [0, 1]}),
            ("labels", {"background": 0, "liver": [1, 1]}),
            ("labels", {"background": 0, "": 1}),
            ("labels", {"background": 0, "a\x1b[31m": 1}),
            ("labels", {"0": "background", "²": "liver"}),
            ("numTraining", "2"),
            ("numTraining", -1),
            ("file_ending", 3),
            ("file_ending", "/../x"),
            ("file_ending", None),
            ("dataset", []),
            ("dataset", {"a": {"images": [], "label": "x"}}),
            ("dataset", {"a": {"images": [None], "label": "x"}}),
            ("dataset", {"a": {"images": ["x"]}}),
            ("training", {}),
            ("training", ["./imagesTr/a.nii.gz"]),
            ("groups", [["a", "b"]]),
            ("groups", {"a": None, "b": "p"}),
            ("groups", 3),
            ("annotated", "liver"),
            ("windows", [400, 50]),
            ("windows", {"liver": [10**400, 50]}),
            ("tolerances", {"liver": 10**400}),
            ("tolerances", {"liver": "x"}),
            ("regions_class_order", "12"),
            ("regions_class_order", [1, True]),
            ("regions_class_order", [1, [2]]),
        ],
    )
    def test_what_is_wrong_is_named_with_file_and_key(self, folder, key, value):
        entries = VALID | {key: value} if key != "training" else {k: v for k, v in VALID.items() if k != "dataset"} | {key: value}
        (folder / "dataset.json").write_text(json.dumps(entries))
        with pytest.raises(ValueError, match=rf"dataset\.json: .*{key}.*"):
            inspect_dataset(folder)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "cannot be read as JSON"),
            (b"[1]", "expected an object"),
            (b'{"labels": {"a": 1, "a": 2}}', "each key once in an object, found 'a' twice"),
            (b'{"labels": {"a": NaN}}', "expected a finite number, found NaN"),
            (b'{"labels": {"a": 1e999}}', "expected a finite number, found 1e999"),
            (b'{"labels": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
            ('{"labels": {"Größe": 1}}'.encode("latin-1"), "expected text in UTF-8"),
            ('{"labels": {}}'.encode("utf-16"), "expected text in UTF-8"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
        ],
    )
    def test_what_is_no_json_for_everybody(self, folder, content, said):
        (folder / "dataset.json").write_bytes(content)
        with pytest.raises(ValueError, match=rf"dataset\.json: .*{said}"):
            inspect_dataset(folder)

    def test_a_byte_order_mark_is_no_mistake(self, folder):
        (folder / "dataset.json").write_bytes(b"\xef\xbb\xbf" + (folder / "dataset.json").read_bytes())
        assert len(load_dataset(folder).cases) == 2


class TestKeys:
    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            *(
                ("labels_", "labels"),
                ("label", "labels"),
                ("Labels", "labels"),
                ("chanel_names", "channel_names"),
                ("channels", "channel_names"),
            ),
            *(("file_endings", "file_ending"), ("regions_order", "regions_class_order"), ("region_class_order", "regions_class_order")),
            *(
                ("group", "groups"),
                ("num_training", "numTraining"),
                ("anotated", "annotated"),
                ("window", "windows"),
                ("tolerance", "tolerances"),
            ),
        ],
    )
    def test_a_misspelled_key_is_said_with_the_right_one(self, tmp_path, wrong, right, caplog):
        assert misspelled_keys({wrong: 1}) == {wrong: right}
        folder = make(tmp_path / "d", tr("a"), **{wrong: "x"})
        load_dataset(folder)
        assert f"unknown key {wrong!r} is not used; did you mean {right!r}?" in caplog.text

    @pytest.mark.parametrize(("wrong", "right"), [("labels_", "labels"), ("chanel_names", "channel_names")])
    def test_it_is_the_reason_where_the_right_one_is_lacking(self, tmp_path, wrong, right):
        with pytest.raises(ValueError, match=f"unknown key {wrong!r}, and no {right!r}"):
            load_dataset(make(tmp_path / "d", tr("a"), **{wrong: {"background": 0, "a": 1}, right: None}))

    def test_keys_of_other_programs_are_silent(self, tmp_path, caplog):
        known = "name description licence license release reference tensorImageSize numTest test overwrite_image_reader_writer converted_by"
        more = "dataset_name citation authors merged_from image_reader_writer dataset_description url my_note"
        load_dataset(make(tmp_path / "d", tr("a"), **dict.fromkeys((known + " " + more).split(), "x")))
        assert not caplog.text


class TestNothingThere:
    @pytest.mark.parametrize(
        ("files", "said"),
        [
            (["images/a.nii.gz", "images/b.MHA", "labels/a.nii.gz"], r"images/ \(2 image files\), labels/ \(1 image files\)"),
            (["a.nii.gz", "a_seg.nii.gz"], r"2 image files such as a\.nii\.gz"),
            ([], "no images and no folders"),
        ],
    )
    def test_what_there_is_instead_is_said(self, tmp_path, files, said):
        folder = make(tmp_path / "d", [file for file in files if not file.endswith("MHA")])
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
        with pytest.raises(ValueError, match=f"expected training cases in .*imagesTr and .*labelsTr, found none; the folder holds {said}"):
            inspect_dataset(folder)

    @pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
    @pytest.mark.parametrize("spelled", [str.lower, str.upper, lambda part: f"{part[:6]}_{part[6:]}"])
    def test_a_folder_that_is_spelled_otherwise_is_one_message(self, tmp_path, part, spelled):
        folder = make(tmp_path / "d", tr("a", "b"))
        (folder / part).rename(folder / spelled(part))
        with pytest.raises(ValueError, match=f"expected the training {part[:6]} in {part}/, found {spelled(part)}/; rename it to {part}$"):
            inspect_dataset(folder)

    @pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
    def test_a_folder_that_is_not_there_is_one_message(self, tmp_path, part):
        folder = make(tmp_path / "d", tr("a", "b"))
        (folder / part).rename(folder / "scans")
        with pytest.raises(ValueError, match=rf"in {part}/, found no such folder; the folder holds .*scans/ \(2 image files\)"):
            inspect_dataset(folder)

    def test_images_without_one_label_map(self, tmp_path):
        folder = make(tmp_path / "d", ["imagesTr/a_0000.nii.gz"])
        (folder / "labelsTr").mkdir()
        with pytest.raises(ValueError, match="case a: missing label"):
            load_dataset(folder)


class TestLikelyPatients:
    @pytest.mark.parametrize(
        ("names", "patients"),
        [
            (("p01_ED", "p01_ES", "p02_ED", "p02_ES"), {"p01", "p02"}),
            (("a-1-x", "a-1-y", "a-2-x", "a-2-y"), {"a-1", "a-2"}),
            (("case_001", "case_002", "case_003"), set()),
            (("p01_ED", "p01_ES", "p02_ED"), set()),
            (("p01_ED", "p01_ES", "p02"), set()),
            (("p01", "p02"), set()),
            (tuple(f"s{site}_{number}" for site in (1, 2) for number in range(11)), set()),
            (tuple(f"s{site}_{number}" for site in (1, 2) for number in range(10)), {"s1", "s2"}),
        ],
    )
    def test_by_the_names_without_their_last_part(self, names, patients):
        found = likely_patients(names)
        assert set(found.values()) == patients
        assert not found or patients_of(Path(), names, WITHOUT_LAST_PART) == found

    def test_it_is_said_with_the_expression_unless_patients_are_given(self, tmp_path, caplog):
        files = tr("p01_ED", "p01_ES", "p02_ED", "p02_ES")
        load_dataset(make(tmp_path / "d", files))
        assert "2 patients with several cases each (p01_ED, p01_ES)" in caplog.text
        assert f"--groups '{WITHOUT_LAST_PART}'" in caplog.text
        caplog.clear()
        assert {case.group for case in load_dataset(tmp_path / "d", groups=WITHOUT_LAST_PART).cases} == {"p01", "p02"}
        load_dataset(tmp_path / "d", groups=".+")
        load_dataset(make(tmp_path / "d", [], groups="^p.."))
        assert not caplog.text


def test_patients_of_scores_are_those_that_are_known_and_else_guessed_from_the_names() -> None:
    frames = ["p1_a", "p1_b", "p2_a", "p2_b"]
    assert patients_to_compare(frames).of_case == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2", "p2_b": "p2"}
    assert patients_to_compare(frames).known_from == "guessed from the names of the cases"
    assert patients_to_compare(["case_1", "case_2"]).of_case == {"case_1": "case_1", "case_2": "case_2"}
    assert patients_to_compare(["case_1", "case_2"]).known_from == ""
    named, recorded = ("named", dict.fromkeys(frames[:2], "x")), ("recorded", dict.fromkeys(frames[1:3], "y"))
    found = patients_to_compare(frames, named, recorded)
    assert (found.of_case, found.known_from) == ({"p1_a": "x", "p1_b": "x", "p2_a": "y", "p2_b": "p2_b"}, "named, recorded")
    of_dataset = ("those of the dataset", {"other": "o"})
    assert patients_to_compare(frames, of_dataset) == patients_to_compare(frames), "test images are not in the dataset"
