"""The values that cross boundaries between the stages: small, frozen. Axis and spacing order, boxes and labels: `autoseg.conventions`."""

from .data import Case, CaseFingerprint, Dataset, Fingerprint, Intensity, Labels
from .plans import Configuration, Locator, Mirroring, Plan, Reason, Region
from .runs import Budget, Split
from .scores import Candidate, Choice, Score
from .volumes import Box, Geometry, Image, Trace

__all__ = [
    "Box",
    "Budget",
    "Candidate",
    "Case",
    "CaseFingerprint",
    "Choice",
    "Configuration",
    "Dataset",
    "Fingerprint",
    "Geometry",
    "Image",
    "Intensity",
    "Labels",
    "Locator",
    "Mirroring",
    "Plan",
    "Reason",
    "Region",
    "Score",
    "Split",
    "Trace",
]
