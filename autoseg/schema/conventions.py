"""Conventions of all modules: order of axes and spacings, boxes, label values, format of files.

Arrays
    Images are ``(C, Z, Y, X)`` float32, label maps ``(Z, Y, X)`` integers, batches ``(B, C, Z, Y, X)``.
    A 2D image file gives ``(C, Y, X)``; a patch of the ``2d`` configuration is ``(C, Y, X)`` and its batch ``(B, C, Y, X)``.
    A patch of the ``2.5d`` configuration is ``(C * S, Y, X)``: channel c of the slice `d` away from the middle one is number
    ``c * S + S // 2 + d``, so that all slices of a channel lie together. Beyond an end of the volume its last slice is repeated. A previous
    stage's organs follow, those of the middle slice alone.
    Preprocessed cases are always ``(C, Z, Y, X)``: a 2D image is stored as one slice, and has a spacing of two numbers.
Spacing
    Millimetres, in array order: ``(Z, Y, X)`` or, for 2D, ``(Y, X)``. No invented spacing for an axis that does not exist.
    ITK's own order ``(x, y, z)`` appears only in `Geometry.origin` and `Geometry.direction`, which are kept verbatim.
Orientation
    One letter an array axis (`autoseg.preprocessing.orientation`): the side of the patient towards which the index grows. ITK's identity
    is ``SPL``.
Boxes
    ``((start, stop), ...)``, one pair an axis, half open.
Labels
    *File values* are the integers in the user's label files. *Internal values* are consecutive: 0 background, 1..B the distinct
    foreground values in ascending order, B+1 ignore (where the dataset has it), and `OUTSIDE` where the image had no data at all
    (treated as background by the loss). *Output channels* are what a network predicts: background and one per organ (softmax), or one
    per region (sigmoid) where organs overlap.
"""

from __future__ import annotations

FORMAT = 2
"""Number of the format of ``plan.json``, ``choice.json``, ``run.json``, ``dataset.json`` and ``fingerprint.json``; 0.1.0 wrote none."""

SERIES_MARK = "dicom-series="
"""Begins the last part of the path of a DICOM series in a folder (or volume in a file) with several: ``study/dicom-series=1.2.3``."""

OUTSIDE = -1
"""Internal label of voxels outside the image's non-zero mask and of padding."""

ANNOTATED = "annotated"
"""Key of the locations of all annotated voxels of a preprocessed case (datasets with an ignore label)."""
