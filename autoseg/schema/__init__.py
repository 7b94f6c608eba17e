"""The values that cross boundaries between the stages: small, frozen. Axis and spacing order, boxes and labels: `autoseg.schema.conventions`."""

from .dataset import Case, CaseFingerprint, Dataset, Fingerprint, Intensity, Labels
from .plan import Configuration, Locator, Mirroring, Plan, Reason, Region
from .run import Budget, Split
from .scores import Calibration, Candidate, Choice, Cleaning, Compared, Evidence, Expected, Merged, Reliability, Score
from .settings import PlanSettings
from .volume import Box, Geometry, Image, Trace

__all__ = [
    "Box",
    "Budget",
    "Calibration",
    "Candidate",
    "Case",
    "CaseFingerprint",
    "Choice",
    "Cleaning",
    "Compared",
    "Configuration",
    "Dataset",
    "Evidence",
    "Expected",
    "Fingerprint",
    "Geometry",
    "Image",
    "Intensity",
    "Labels",
    "Locator",
    "Mirroring",
    "Merged",
    "Plan",
    "PlanSettings",
    "Reason",
    "Region",
    "Reliability",
    "Score",
    "Split",
    "Trace",
]
