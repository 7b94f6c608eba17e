"""Equal findings of a check are told once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from factories import write_case, write_info

from autoseg import cli
from autoseg.data.checks import UNDECLARED, Problem, check_dataset
from autoseg.data.misnamed import misnamed
from autoseg.data.problem_groups import grouped


def undeclared(case: str, value: int, voxels: int) -> Problem:
    return Problem(case, f"labelsTr/{case}.nii.gz", UNDECLARED, f"value {value} ({voxels} voxels)", "0 or one of [1, 2]")


def test_findings_are_equal_whatever_the_case_and_the_measure_but_not_the_value() -> None:
    problems = [undeclared("case_1", 7, 5), undeclared("case_2", 9, 5), undeclared("case_3", 7, 1200)]
    assert [group.cases for group in grouped(problems)] == [["case_1", "case_3"], ["case_2"]]


def renamed_labels(folder: Path, form: str) -> Path:
    """Twelve cases whose label maps are called otherwise than their images."""
    for number in range(12):
        write_case(folder, f"case_{number}", seed=number)
        label = folder / "labelsTr" / f"case_{number}.nii.gz"
        label.rename(label.with_name(f"{form.format(f'case_{number}')}.nii.gz"))
    return write_info(folder)


@pytest.mark.parametrize(("form", "said"), [("{}_gt", "files end in _gt"), ("seg_{}", "files begin with seg_")])
def test_label_maps_of_other_names_are_one_finding(
    form: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = renamed_labels(tmp_path / "raw" / "Dataset001_A", form)
    problems = check_dataset(folder, workers=0)
    assert len(problems) == 24 and len(grouped(problems)) == 1 and misnamed([(one.case, one.kind) for one in problems])[0] == said
    monkeypatch.setenv("COLUMNS", "80")
    table = tmp_path / "findings.csv"
    arguments = ["-d", "1", "--home", str(tmp_path), "--workers", "0"]
    assert cli.check([*arguments, "--csv", str(table)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"12 x missing label, e.g. case_0; {said}" and "and 3 more (--all, --csv)" in " ".join(" ".join(lines).split())
    assert all(len(line) <= 80 or " " not in line.strip() for line in lines)
    assert "12 problems, 0 of which --fix can repair" in " ".join(" ".join(lines).split())
    with table.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert cli.plan_and_preprocess(["-d", "1", "--home", str(tmp_path), "--workers", "0"]) == 2
    assert f"the label maps' {said}" in " ".join(capsys.readouterr().err.split()), "planning says it, too"
    assert cli.check([*arguments, "--all"]) == 1
    assert sum(line.endswith(": missing label") for line in capsys.readouterr().out.splitlines()) == 12


def test_a_label_map_that_is_really_missing_is_not_taken_for_a_renamed_one(tmp_path: Path) -> None:
    folder = renamed_labels(tmp_path / "d", "{}_gt")
    (folder / "labelsTr" / "case_3_gt.nii.gz").unlink()
    assert misnamed([(one.case, one.kind) for one in check_dataset(folder, workers=0)]) == ("", {})
