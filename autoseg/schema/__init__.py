"""Frozen dataclasses that several rooms share. Conventions of axes, spacings, boxes and labels: `autoseg.schema.conventions`."""

# ruff: noqa: F401

from .dataset import Case, CaseFingerprint, Dataset, Fingerprint, Intensity, Labels
from .plan import CandidateRegion, Configuration, Locator, Mirroring, Plan, Reason, Tiling
from .run import Budget, Split
from .run_record import EnsembleRecord, PseudoLabels, RunEnvironment, RunRecord
from .scores import (
    Calibration,
    Candidate,
    CandidateComparison,
    Choice,
    DiceRegression,
    Evidence,
    Members,
    NestedEstimate,
    OrganMerging,
    PostProcessing,
    Score,
    UsualPlace,
    candidate_members,
    candidate_name,
)
from .settings import PlanSettings
from .volume import Box, Geometry, Image, Trace
