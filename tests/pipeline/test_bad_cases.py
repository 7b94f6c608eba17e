"""One bad case never stops the others: it is named with its reason and counted, and the command ends with exit status 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle_home import HomeFactory, oracle_case

from autoseg import cli
from autoseg.data.images import read_label, write_image
from autoseg.pipeline import predict_each

Capture = pytest.CaptureFixture[str]


def nowhere(folder: Path) -> None:
    (folder / "bad.nii.gz").symlink_to("/nowhere/bad.nii.gz")


def truncated(folder: Path) -> None:
    (folder / "bad.nii.gz").write_bytes((folder / "s0.nii.gz").read_bytes()[:90])


def twice(folder: Path) -> None:
    for ending in (".nii.gz", ".mha"):
        write_image(folder / f"bad{ending}", oracle_case(9)[0][None], oracle_case(9)[2])


def channels(folder: Path) -> None:
    image, _, geometry = oracle_case(9)
    write_image(folder / "bad.nii.gz", np.stack([image, image]), geometry)


def flat(folder: Path) -> None:
    image, _, geometry = oracle_case(9, 2)
    write_image(folder / "bad.nii.gz", image[None], geometry)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(2):
        image, _, geometry = oracle_case(number)
        write_image(tmp_path / "in" / f"s{number}.nii.gz", image[None], geometry)
    return tmp_path / "in"


@pytest.mark.parametrize("spoil", [nowhere, truncated, twice, channels, flat])
def test_predict_writes_the_others(shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, spoil, capsys: Capture) -> None:
    spoil(images)
    status = cli.main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), "--home", str(shared_oracle_home())])
    said = capsys.readouterr()
    assert status == 1
    assert said.out.splitlines()[-1].startswith(f"Segmentations of 2 cases are in {tmp_path / 'out'}; 1 of 3 cases failed: bad (")
    for number in range(2):
        assert (read_label(tmp_path / "out" / f"s{number}.nii.gz").array == oracle_case(number)[1]).all()


def test_predict_does_not_say_that_segmentations_are_where_none_is(
    shared_oracle_home: HomeFactory, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "in").mkdir()
    nowhere(tmp_path / "in")
    assert cli.main(["predict", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--home", str(shared_oracle_home())]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("No segmentation was written; 1 of 1 case failed: bad (")


def test_errors_that_no_reader_foresees_are_of_one_case(
    shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoseg.inference import prediction

    read = prediction.read_image

    def overflowing(paths, **options):
        if paths[0].name.startswith("s0"):
            raise OverflowError("cannot convert float infinity to integer")
        return read(paths, **options)

    monkeypatch.setattr(prediction, "read_image", overflowing)
    done = predict_each(images, tmp_path / "out", home=shared_oracle_home())
    assert done.written == ("s1",)
    assert done.failures == {"s0": "OverflowError: cannot convert float infinity to integer"}


def test_a_full_disk_is_no_bad_case(shared_oracle_home: HomeFactory, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from autoseg.inference import prediction

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prediction, "write_label", full)
    with pytest.raises(OSError, match="No space left"):
        predict_each(images, tmp_path / "out", home=shared_oracle_home())
