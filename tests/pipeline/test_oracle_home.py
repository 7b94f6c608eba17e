"""What the oracle network must write is known in advance, in each kind of home."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle_home import HomeFactory, oracle_case

from autoseg.data.images import read_label, write_image
from autoseg.pipeline import predict_folder


@pytest.mark.parametrize(("dim", "ending"), [(3, ".nii.gz"), (2, ".tif")])
@pytest.mark.parametrize("regions", [False, True])
def test_label_map_is_a_hundredth_of_the_intensity(oracle_home: HomeFactory, tmp_path: Path, dim: int, ending: str, regions: bool) -> None:
    image, label, geometry = oracle_case(9, dim)
    write_image(tmp_path / "in" / f"new{ending}", image[None], geometry)
    assert predict_folder(tmp_path / "in", tmp_path / "out", home=oracle_home(dim, regions=regions)) == {}
    np.testing.assert_array_equal(read_label(tmp_path / "out" / f"new{ending}").array, label)
