"""How many voxels a case has, estimated from few headers before its files are read."""

from __future__ import annotations

import math

from ..schema import Case
from .dicom import estimated_voxels
from .images import read_case_geometry


def case_voxels(case: Case) -> int:
    """Voxels of a case's first channel, for estimates of memory; 0 where its header cannot be read (whoever reads it will say why).

    Of a DICOM folder one header is read, and its voxels are multiplied by the number of files.
    """
    try:
        path = case.images[0]
        return estimated_voxels(path) if path.is_dir() else math.prod(read_case_geometry(case).shape)
    except Exception:
        return 0
