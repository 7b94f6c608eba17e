"""autoseg_networks, and the table behind it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from autoseg import cli
from autoseg.networks import NETWORKS
from autoseg.networks.network_cost import NetworkCost, measure
from autoseg.pipeline.network_table import DEFAULT_PATCH, NetworkRow, default_options, describe_networks, list_networks


def test_the_table_shows_what_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(spec.paper and {*spec.dims} <= {2, 3} for spec in NETWORKS.values())
    assert cli.networks(["deepmedic", "dense_vnet"]) == 0
    flat, volumes = capsys.readouterr().out.split("\n\n")
    assert "2D" in flat and "128x128" in flat
    assert "3D" in volumes and "64x64x64" in volumes
    assert flat.splitlines()[2].split()[:2] == ["deepmedic", "246,362"]
    assert volumes.splitlines()[3].split()[:2] == ["dense_vnet", "866,978"]
    header, row = flat.splitlines()[1:3]
    assert header.index("paper") == row.index("Kamnitsas et al. 2017")


def test_json_has_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.networks(["vnet", "--channels", "2", "--classes", "5", "--dim", "3", "--patch", "32", "32", "16", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    facts = {"name": "vnet", "paper": NETWORKS["vnet"].paper, "dim": 3, "patch": [32, 32, 16], "problem": ""}
    assert row == facts | asdict(measure("vnet", 3, 2, 5, (32, 32, 16)))


def test_a_patch_alone_determines_the_axes() -> None:
    (row,) = list_networks(["deepmedic"], patch=(9, 9, 9))
    assert (row.dim, row.patch) == (3, (9, 9, 9))


def test_the_planner_shapes_the_networks_that_have_no_defaults() -> None:
    options = default_options("plain_unet", DEFAULT_PATCH[3])
    assert options["features"] == [32, 64, 128, 256, 320]
    assert options["kernel_sizes"] == [[3, 3, 3]] * 5
    assert default_options("residual_unet", (128, 128))["features"] == [32, 64, 128, 256, 512, 512]
    assert default_options("vnet", (128, 128)) == {}
    assert [row.problem for row in list_networks(["plain_unet", "residual_unet"])] == [""] * 4


def test_a_network_that_cannot_be_built_has_a_dash_and_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.networks(["plain_unet", "deepmedic", "--patch", "70", "70"]) == 0
    table, reasons = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[2].split()[:4] == ["plain_unet", "-", "-", "-"]
    assert table.splitlines()[3].split()[1] == "246,362"
    assert reasons.startswith("plain_unet in 2D: ")
    assert cli.networks(["plain_unet", "--patch", "70", "70", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] is None
    assert "multiples" in row["problem"]


def test_a_network_is_listed_only_for_the_axes_it_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "deepmedic", replace(NETWORKS["deepmedic"], dims=(3,)))
    assert [row.dim for row in list_networks(["deepmedic"])] == [3]
    assert list_networks(["deepmedic"], dim=2) == []


def test_a_network_from_outside_is_measured_too() -> None:
    row, _ = list_networks(["autoseg.networks.vnet:VNet"])
    assert row.cost == measure("vnet", 2, 1, 2, (128, 128))
    assert "vnet:VNet" in describe_networks([row])


def test_numbers_are_short_and_readable() -> None:
    rows = [
        NetworkRow("first", "Paper", 2, (4, 4), NetworkCost(1234567, 2_500_000_000_000, 999)),
        NetworkRow("second", "", 2, (4, 4), None, "reason"),
    ]
    text = describe_networks(rows)
    assert text.splitlines()[2].split() == ["first", "1,234,567", "2.5", "T", "999", "Paper"]
    assert text.endswith("second in 2D: reason")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [("vnett", "'vnet'"), ("vnet --dim 3 --patch 8 8", "3 sizes"), ("vnet --patch 8", "2 or 3 sizes"), ("vnet --channels 0", "channel")],
)
def test_mistakes_are_explained_in_a_line(arguments: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.networks(arguments.split()) == 2
    assert named in capsys.readouterr().err
