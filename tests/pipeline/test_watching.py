"""A folder into which scans fall: each is predicted once it is complete, what is bad is named once, and a restart does nothing again."""

from __future__ import annotations

import gzip
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import story_data as data
from dicom_files import stack, voxels, write_series
from factories import BALL_AND_BAR, ThresholdModel, ensemble_of, make_plan

from autoseg import cli
from autoseg.data.images import read_label, write_image
from autoseg.pipeline import watching
from autoseg.pipeline.loaded_model import LoadedModel
from autoseg.pipeline.model_source import ModelSource
from autoseg.pipeline.watching import Watch
from autoseg.schema.settings import PredictSettings


class Clock:
    """Seconds that a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Served:
    """A watched folder with a model that notes what it predicts."""

    def __init__(self, folder: Path) -> None:
        self.incoming, self.out, self.clock = folder / "incoming", folder / "out", Clock()
        self.incoming.mkdir(exist_ok=True)
        self.model = ThresholdModel()
        self.start()

    def start(self) -> None:
        """As when the command is called again."""
        source = ModelSource("models", self.out.parent, make_plan(labels=BALL_AND_BAR, channels=("CT",)))
        self.watch = Watch(LoadedModel(source, PredictSettings(), ensemble_of(a=self.model)), self.incoming, self.out, clock=self.clock)

    def put(self, name: str, number: int = 0) -> Path:
        """A scan that falls into the folder."""
        image, _, geometry = data.draw_case(number)
        write_image(self.incoming / name, image[None], geometry)
        return self.incoming / name

    def look(self, seconds: float = 5.0) -> list[str]:
        """Looks once, and waits."""
        found = self.watch.look()
        self.clock.now += seconds
        return found

    def maps(self) -> list[str]:
        """Label maps that are there."""
        return sorted(path.name for path in self.out.glob("*.nii.gz"))


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_scans_are_predicted_once_each_and_a_restart_does_nothing_again(served: Served) -> None:
    assert served.look() == [], "nothing is there yet"
    served.put("a_0000.nii.gz")
    assert [served.look() for _ in range(3)] == [[], ["a"], []]
    served.put("b.nii.gz", 1)
    assert [served.look() for _ in range(3)] == [[], ["b"], []]
    assert served.maps() == ["a.nii.gz", "b.nii.gz"]
    assert np.mean(read_label(served.out / "b.nii.gz").array == data.draw_case(1)[1]) > 0.98
    assert (served.out / "autoseg_uncertainty.csv").read_text().count("\n") == 5
    served.start()
    assert [served.look() for _ in range(2)] == [[], ["a", "b"]], "looked at again"
    assert served.model.predicted == ["a", "b"], "and found done"
    assert served.watch.written == {"a", "b"} and not served.watch.failures
    served.put("a_0000.nii.gz", 2)
    assert [served.look() for _ in range(2)] == [[], ["a"]]
    assert served.model.predicted == ["a", "b", "a"], "another scan of that name"


def test_a_file_is_taken_when_it_stopped_growing_and_is_whole(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    whole = served.put("a.nii.gz").read_bytes()
    path = served.incoming / "a.nii.gz"
    for share in (2, 3, 4):
        path.write_bytes(whole[: len(whole) * share // 5])
        assert served.look() == []
    assert "not complete" not in caplog.text, "it grew"
    assert [served.look() for _ in range(3)] == [[], [], []]
    assert caplog.text.count("is not complete yet") == 1
    assert "ends early" in next(iter(served.watch.incomplete.values()))
    path.write_bytes(whole)
    assert [served.look() for _ in range(2)] == [[], ["a"]]


def test_bad_files_are_named_once_and_tried_again_when_they_change(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    good = served.put("bad.nii.gz").read_bytes()
    (served.incoming / "bad.nii.gz").write_bytes(b"no image")
    served.put("good.nii.gz")
    (served.incoming / "notes.txt").write_text("no image either")
    looks = [served.look() for _ in range(4)]
    assert looks == [[], ["bad", "good"], [], []]
    assert list(served.watch.failures) == ["bad"]
    assert caplog.text.count("bad failed: ") == 1
    assert served.maps() == ["good.nii.gz"]
    (served.incoming / "bad.nii.gz").write_bytes(good)
    assert [served.look() for _ in range(3)] == [[], ["bad"], []]
    assert served.maps() == ["bad.nii.gz", "good.nii.gz"] and not served.watch.failures


def test_all_channels_are_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    served = Served(tmp_path)
    two = make_plan(labels=BALL_AND_BAR, channels=("CT", "PET"))
    served.model.plan = two
    served.put("a_0000.nii.gz")
    assert served.look() == [] and "missing channel" not in caplog.text, "the other one may be on its way"
    assert [served.look() for _ in range(2)] == [[], []]
    assert caplog.text.count("missing channel") == 1
    served.put("a_0001.nii.gz")
    assert [served.look() for _ in range(2)] == [[], ["a"]]


def test_a_series_is_waited_for_until_it_is_quiet(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    files = write_series(served.incoming / "series", voxels(), stack())
    late = served.out.parent / files[-1].name
    shutil.move(files[-1], late)
    assert [served.look() for _ in range(2)] == [[], []]
    shutil.move(late, files[-1])
    assert [served.look() for _ in range(5)] == [[], [], [], ["series"], []]
    lacking = shutil.move(files[2], late)
    assert [served.look() for _ in range(3)] == [[], [], []]
    assert caplog.text.count("looked at again when it changes") == 1, "a slice is missing"
    shutil.move(lacking, files[2])


def test_a_drive_that_is_away_for_a_moment_is_waited_for(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.put("a.nii.gz")
    served.look()
    served.incoming.rename(served.out.parent / "away")
    assert [served.look() for _ in range(2)] == [[], []]
    assert caplog.text.count("cannot be looked at now") == 1
    (served.out.parent / "away").rename(served.incoming)
    assert served.look() == ["a"]


def test_files_of_others_fail_that_case_alone(served: Served) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        served.put(name)
    served.out.mkdir()
    (served.out / "a.nii.gz").write_text("mine")
    served.look()
    assert served.look() == ["a", "b"]
    assert list(served.watch.failures) == ["a"] and "--overwrite" in served.watch.failures["a"]
    assert (served.out / "a.nii.gz").read_text() == "mine"
    assert served.watch.written == {"b"}


def test_a_folder_that_cannot_be_served_is_refused(served: Served) -> None:
    unfit = (
        ("none", "out", "found nothing"),
        ("incoming", "incoming", "among which nothing is written"),
        ("incoming", "a.nii", "a folder"),
    )
    for folder, out, message in unfit:
        with pytest.raises(ValueError, match=message):
            Watch(served.watch.model, served.out.parent / folder, served.out.parent / out)


def test_the_command_ends_by_ctrl_c(served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served.put("a.nii.gz")
    (served.incoming / "bad.nii.gz").write_bytes(b"no image")
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setattr("autoseg.pipeline.load_model", lambda *_, **__: served.watch.model)
    words = ["--watch", str(served.incoming), "-o", str(served.out), "--every", "2s"]
    assert cli.predict(words) == 1
    printed = capsys.readouterr()
    assert naps == [2, 2, 2]
    assert "The segmentation of 1 case is in" in printed.out and "1 of 2 cases failed: bad" in printed.out
    assert cli.predict(["-i", "in", "-o", "out", "--every", "2s"]) == 2


def test_gzip_files_end_early_or_not(tmp_path: Path) -> None:
    content = gzip.compress(np.random.default_rng(0).bytes(10_000))
    for size, early in ((len(content), False), (len(content) - 1, True), (len(content) // 2, True), (0, True)):
        (tmp_path / "x.gz").write_bytes(content[:size])
        assert watching._ends_early(tmp_path / "x.gz") == early
    (tmp_path / "x.gz").write_bytes(b"no gzip at all")
    assert not watching._ends_early(tmp_path / "x.gz"), "reading it says what is wrong"
