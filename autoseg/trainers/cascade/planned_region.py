"""The candidate region of a cascade in the dataset's plan: for people, and for the record. Trainings follow their ``run.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...runtime.sealing import is_edited
from ...runtime.serialization import read_json, write_json
from ...runtime.workspace import Workspace
from ...schema import Reason
from ...schema.run_record import RunRecord
from ..training_spec import TrainingSpec
from .candidate_region import CandidateRegionChoice
from .trainer import CANDIDATE_REGION


def record_candidate_region(workspace: Workspace, spec: TrainingSpec, job: RunRecord, model: Path) -> None:
    """Writes the region that a run begins with into ``plan.json``, with the reason; not that of a variant of the plan."""
    name, region, record = job.configuration.name, job.configuration.region, model / CANDIDATE_REGION
    if spec.words or region is None or not record.is_file():
        return
    plan = workspace.plan(spec.plan.dataset)
    if plan.configurations[name].region == region:
        return
    why = read_json(record, CandidateRegionChoice).why
    row = Reason(name, "region", f"radius {region.radius}", f"around what {job.configuration.previous_stage} finds: {why}")
    reasons = [reason for reason in plan.reasons if (reason.configuration, reason.what) != (name, "region")]
    configurations = plan.configurations | {name: replace(plan.configurations[name], region=region)}
    path = workspace.preprocessed(spec.plan.dataset) / "plan.json"
    write_json(path, replace(plan, configurations=configurations, reasons=(*reasons, row)), digest=not is_edited(path))
