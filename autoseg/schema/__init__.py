"""The values that cross boundaries between the stages: small, frozen. Axis and spacing order, boxes and labels: `autoseg.schema.conventions`."""

from .dataset import Case, CaseFingerprint, Dataset, Fingerprint, Intensity, Labels
from .plan import CandidateRegion, Configuration, Locator, Mirroring, Plan, Reason
from .run import Budget, Split
from .run_record import EnsembleRecord, RunEnvironment, RunRecord
from .scores import Calibration, Candidate, Choice, Compared, DiceRegression, Evidence, NestedEstimate, OrganMerging, PostProcessing, Score
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
    "PostProcessing",
    "Compared",
    "Configuration",
    "Dataset",
    "EnsembleRecord",
    "Evidence",
    "NestedEstimate",
    "Fingerprint",
    "Geometry",
    "Image",
    "Intensity",
    "Labels",
    "Locator",
    "Mirroring",
    "OrganMerging",
    "Plan",
    "PlanSettings",
    "Reason",
    "CandidateRegion",
    "DiceRegression",
    "RunEnvironment",
    "RunRecord",
    "Score",
    "Split",
    "Trace",
]
