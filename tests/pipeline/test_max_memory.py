"""``--max-memory``: what a case needs is named before anything is computed, or the limit is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import labels, make_configuration, make_geometry, make_job, make_plan, write_random_network

import autoseg
from autoseg.data.images import read_label, write_image
from autoseg.pipeline import PredictSettings, load_model, predict_each
from autoseg.schema import Labels

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = labels(**{f"organ_{value}": value for value in range(1, 4)})
MANY = labels(**{f"organ_{value}": value for value in range(1, 30)})


def made(folder: Path, organs: Labels, patch: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[Path, Path]:
    """A model of random weights, and a folder with an image of blocks that it may take for anything."""
    configuration = make_configuration(patch_size=patch, median_shape=shape)
    write_random_network(folder / "model" / "fold_0", make_job(make_plan(configuration, labels=organs)))
    rng = np.random.default_rng(0)
    blocks = rng.normal(0, 300, [n // 8 for n in shape])
    image = np.kron(blocks, np.ones((8, 8, 8))).astype(np.int16) + rng.normal(0, 20, shape).astype(np.int16)
    write_image(folder / "images" / "big.nii.gz", image[None].astype(np.int16), make_geometry(shape, (1.0, 1.0, 1.0)))
    return folder / "model", folder / "images"


def test_the_need_is_named_before_anything_is_computed(tmp_path: Path, monkeypatch) -> None:
    model, images = made(tmp_path, TINY, (8, 8, 8), (16, 24, 32))
    settings = PredictSettings(folder=model, max_memory_gb=0.01, device="cpu")
    monkeypatch.setattr("autoseg.inference.predictor.Predictor.logits", None)
    done = predict_each(images, tmp_path / "out", settings)
    assert not done.written
    reason = done.failures["big"]
    assert "for 32 x 24 x 16 voxels with 4 classes" in reason
    assert "--max-memory allows 0.01 GB; allow " in reason
    with pytest.raises(ValueError, match="--max-memory allows 0.01 GB"):
        load_model(model, settings).predict(images / "big.nii.gz")
    with pytest.raises(ValueError, match="--max-memory"):
        PredictSettings(max_memory_gb=0)


def test_what_is_done_is_kept_and_what_fits_is_equal(tmp_path: Path) -> None:
    model, images = made(tmp_path, TINY, (8, 8, 8), (16, 24, 32))
    of_limit = {limit: PredictSettings(folder=model, max_memory_gb=limit, device="cpu") for limit in (None, 100.0, 0.01)}
    for limit in (None, 100.0):
        assert predict_each(images, tmp_path / str(limit), of_limit[limit]).written == ("big",)
    maps = [read_label(tmp_path / str(limit) / "big.nii.gz").array for limit in (None, 100.0)]
    assert np.mean(maps[0] == maps[1]) > 0.999
    assert predict_each(images, tmp_path / "None", of_limit[0.01]).failures == {}, "nothing is left to predict"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads proportional set sizes")
def test_the_limit_is_kept(tmp_path: Path) -> None:
    """A volume of 13 million voxels with 30 classes: logits of 0.8 GB, sums of 0.5 GB."""
    model, images = made(tmp_path, MANY, (64, 96, 96), (200, 256, 256))
    limit = 1.2e9
    command = [sys.executable, "-m", "autoseg", "predict", "-i", images, "-o", tmp_path / "out", "-m", model, "--no-tta"]
    command += ["--device", "cpu", "--max-memory", "1.2GB"]
    environment = {"PYTHONPATH": str(Path(autoseg.__file__).parents[1]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    measure = (
        "import json, subprocess, sys; from process_memory import peak_memory_of_tree\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "with peak_memory_of_tree(child.pid) as peak: status = child.wait()\n"
        "print(json.dumps([status, peak.bytes]))"
    )
    environment["PYTHONPATH"] += f":{BENCHMARKS}"
    done = subprocess.run([sys.executable, "-c", measure, *map(str, command)], capture_output=True, text=True, env=environment, check=True)
    status, peak = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert 0.5e9 < peak <= limit, f"{peak / 1e6:.0f} MB"
    told = next(float(line.partition("at most ")[2].split()[0]) for line in done.stderr.splitlines() if "at most" in line)
    assert told == pytest.approx(peak / 1e6, rel=0.1), "MB that the command tells"
