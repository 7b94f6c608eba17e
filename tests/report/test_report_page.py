"""The report's HTML: whole, self-contained, escaped, complete; and its charts' numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import report_data as data

from autoseg.report import Report, render
from autoseg.report.cases import case_values, ranked_cases
from autoseg.report.figures import Curve, Scale, common_scale, curve_figure
from autoseg.report.formatting import duration, number, p_value, short_name, significant
from autoseg.report.planes import embedded, outlines
from autoseg.report.sections_models import comparison_section
from autoseg.runtime.plotting import css_colours
from autoseg.schema import Choice

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects links, ids and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.links, self.ids, self.images_without_words = ([] for _ in range(4))
        self.words = ""
        self.feed(page)
        self.close()
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [value for key, value in attrs if key in ("href", "src", "xlink:href") and value]
        self.ids += [found["id"] or ""] if "id" in found else []
        is_picture = found.get("role") == "img" or tag == "svg" and "overflow" not in found  # else it is a part of a chart
        self.images_without_words += [tag] if is_picture and not found.get("aria-label") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words += data


def section(page: str, name: str) -> str:
    """The text of a section."""
    start = page.index(f'<section id="{name}"')
    return Page(page[start : page.index("</section>", start) + len("</section>")]).words


def page_of(report: Report, **changes: Any) -> str:
    return render(replace(report, **changes), css_colours(3))


@pytest.fixture(scope="module")
def report() -> Report:
    return data.full_report()


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return page_of(report)


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_elements_are_closed_and_ids_are_unique(page: str, parsed: Page) -> None:
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.images_without_words == []
    used = {link[1:] for link in parsed.links if link.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(parsed.ids)


def test_it_needs_nothing_but_itself(page: str, parsed: Page) -> None:
    assert all(link.startswith(("#", "data:image/")) for link in parsed.links)
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link", page)
    assert page.count("<style") == 1, "no figure brings a style of its own, which would hold for all of the page"


def test_the_same_report_gives_the_same_page(report: Report, page: str) -> None:
    assert page_of(report) == page


def test_names_are_escaped(page: str, parsed: Page) -> None:
    assert "<b>organ" not in page
    assert data.AWKWARD in parsed.words
    assert "fits <8> GB" in parsed.words
    assert "&amp;lt;" not in page and "&amp;amp;" not in page, "once"


def test_no_name_becomes_an_element_or_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = """x" 'onload='a onload="a"><script>a<!--"""
    monkeypatch.setattr(data, "CASES", tuple(evil + case for case in data.CASES))
    monkeypatch.setattr(data, "MODELS", tuple(model + evil for model in data.MODELS))
    monkeypatch.setattr(data, "AVERAGE", " + ".join(data.MODELS[:2]))
    monkeypatch.setattr(data, "AWKWARD", evil + "</script></title></style>{{ 7 * 7 }}$x^$")
    monkeypatch.setattr(data, "ORGANS", replace(data.ORGANS, names=("liver", data.AWKWARD, "spleen")))
    report = data.full_report()
    page = page_of(replace(report, dataset=replace(report.dataset, name=evil), versions={evil: evil}, files={evil: evil}, made=evil))
    tags, attributes = set(), set()

    class Names(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            attributes.update(name for name, _ in attrs)

    Names().feed(page)
    assert Page(page).open == [] and data.AWKWARD in Page(page).words
    assert "script" not in tags and not [name for name in attributes if re.search(r"^on|[^a-z0-9:-]", name.lower())], attributes


def test_all_is_there(report: Report, page: str, parsed: Page) -> None:
    for wanted in (*data.ORGANS.names, *map(short_name, (*data.MODELS, data.AVERAGE)), *data.CASES, *report.commands):
        assert wanted in parsed.words, wanted
    for wanted in ("nested estimate", "better in 5 cases", "Learning curves", "a" * 64, "CT window", "autoseg_train 7 2d 2"):
        assert wanted in parsed.words, wanted
    assert not re.search(r"\d\.?\de[+-]\d", parsed.words), "numbers without powers of ten"
    expected = report.choice.evidence["liver"].expected
    assert f"{expected.mean:.3f} [0.801, 0.866]" in parsed.words
    assert f"is {expected.naive:.3f}" in parsed.words
    assert "case_03: estimated 0.660, true 0.680" in parsed.words, "titles of the points"
    assert f"case_03: {data.scores()[data.MODELS[0]]['liver']['case_03']:.3f}" in parsed.words
    assert len(re.findall(r'<image href="data:image/png', page)) == 6


def test_the_chosen_candidate_is_marked_once_an_organ(page: str) -> None:
    assert page.count('<tr class="chosen">') == 3
    assert page.count('class="mark">chosen') == 3
    first = page[page.index('<tr class="chosen">') :]
    assert short_name(data.AVERAGE) in first[: first.index("</tr>")]


def test_many_candidates_are_shown_on_demand_and_the_chosen_one_at_once(report: Report) -> None:
    best = {f"model_{place}__Trainer": {"spleen": dict.fromkeys(data.CASES, 0.99)} for place in range(14)}
    first, rest = comparison_section(replace(report, scores=report.scores | best))["organs"][2]["tables"]
    assert len(first["rows"]) == 13 and sum(row["is_chosen"] for row in first["rows"]) == 1
    assert len(rest["rows"]) == 14 + 4 - 13


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": None, "chosen": ""},
        {"choice": Choice({}, (), {}, 0)},
        {"runs": (), "scores": {}, "choice": None, "pictures": (), "folds_of": {}},
        {"plan": None, "splits": (), "versions": {}, "files": {}, "commands": (), "estimated_dice": {}, "parameters": {}, "missing": ()},
    ],
    ids=["no choice", "empty choice", "nothing trained", "no plan"],
)
def test_what_is_not_known_is_left_out(report: Report, changes: dict[str, Any]) -> None:
    parsed = Page(page_of(report, **changes))
    assert parsed.open == []
    assert "Dataset007_Abdomen" in parsed.words
    assert "nan" not in parsed.words.lower().replace("nano", "")
    assert "None" not in parsed.words


def test_a_choice_without_evidence_says_that_its_numbers_are_biased(report: Report) -> None:
    words = Page(page_of(report, choice=replace(report.choice, evidence={}))).words
    assert "biased upwards" in words
    assert "nested estimate over" not in words


def test_models_that_were_validated_otherwise_are_told(report: Report) -> None:
    validated = {"2d__Trainer": "4 mirrored copies", "3d_fullres__Trainer": "no mirrored copies"}
    assert "no mirrored copies" in Page(page_of(report, choice=replace(report.choice, validated=validated))).words
    assert "Validation was shortened" not in Page(page_of(report)).words


def test_box_plots_by_hand(report: Report) -> None:
    values = dict(zip(data.CASES, [0.1, 0.5, 0.6, 0.7, 0.8, float("nan")], strict=False))
    scores = {"one": {"liver": values}, "two": {"liver": {"case_00": 0.5, "case_01": 0.6}}}
    view = comparison_section(replace(report, choice=None, scores=scores))
    rows = {row["name"]: row for row in view["organs"][0]["tables"][0]["rows"]}
    box = rows["one"]["box"]
    # Quartiles 0.5 and 0.7, reach 0.3: 0.1 lies outside of 0.2 .. 1.0.
    assert [box[key] for key in ("whislo", "q1", "med", "q3", "whishi")] == pytest.approx([0.5, 0.5, 0.6, 0.7, 0.8])
    assert len(rows["one"]["points"]) == 5
    assert rows["two"]["box"] is None, "too few cases"


def test_scales() -> None:
    assert Scale(0.61, 0.93).ticks == [0.7, 0.8, 0.9]
    assert Scale(3, 2000, log=True).ticks == [10, 100, 1000]
    assert Scale(3, 60, log=True).ticks == [5, 10, 20, 50]
    assert Scale(0, 1).at(0.25) == 25
    assert Scale(1, 100, log=True).at(10) == pytest.approx(50)
    assert Scale(0, 1).at(3) == 100 and Scale(0, 1, margin=2).at(3) == 98
    assert common_scale([0.5, float("nan"), 1.0], within=(0, 1)).high == 1
    assert common_scale([]).ticks


def test_curves_have_gaps_and_single_values_are_dots() -> None:
    nan = float("nan")
    drawn = curve_figure([Curve([1, 2, 3, 4], [0.1, nan, 0.5, 0.6], "#ee7733")], x_max=4, y_range=(0, 1), name="a", label="<a>")
    assert drawn.count("<use") == 1
    assert 'aria-label="&lt;a&gt;"' in drawn
    assert "#010" not in drawn and "var(--grid)" in drawn, "colours of the style sheet"


def test_words_for_numbers() -> None:
    assert number(float("nan")) == "–"
    assert number(0.12345) == "0.123"
    assert [significant(value) for value in (0.0, 1234.5, 0.051, 2.0, float("nan"))] == ["0", "1234", "0.051", "2", "–"]
    assert p_value(0.0004) == "< 0.001"
    assert duration(5400) == "1.5 h"
    assert duration(4) == "4.0 s"
    assert short_name("2d__Trainer + 3d_fullres__AdversarialTrainer__liver") == "2d + 3d_fullres · AdversarialTrainer · liver"


def test_cases_are_ranked_worst_first_and_unknown_scores_are_left_out(report: Report) -> None:
    ranked = ranked_cases(report)
    means = [mean for _, mean in ranked]
    assert means == sorted(means)
    assert {case for case, _ in ranked} == set(data.CASES)
    worse = replace(report, better="lower")
    assert [case for case, _ in ranked_cases(worse)] == [case for case, _ in ranked][::-1]
    values = case_values(report, "liver")
    of_members = [report.scores[model]["liver"]["case_03"] for model in data.MODELS[:2]]
    assert values["case_03"] == pytest.approx(np.mean(of_members)), "an average that is not known case by case"


def test_cases_of_a_signed_error_are_ranked_by_its_size(report: Report) -> None:
    scores = {data.MODELS[0]: {"liver": {"even": 5.0, "good": 1.0}, "spleen": {"even": -5.0, "good": 1.0}}}
    signed = replace(report, better="zero", choice=None, scores=scores)
    assert ranked_cases(signed) == [("even", 5.0), ("good", 1.0)]


def test_the_run_environment_is_shown_where_it_is_known(report: Report, page: str) -> None:
    cost = section(page, "cost")
    assert "Quick <GPU>" in cost and "2.9.1" in cost and "4.0 GB" in cost, "the largest peak of the folds"
    bare = section(page_of(report, runs=tuple(replace(run, run_environment=()) for run in report.runs)), "cost")
    assert "Trained on" not in bare and "PyTorch" not in bare and "peak" not in bare and "Folds" in bare


def test_the_cost_of_a_case_counts_all_networks_that_vote(report: Report, page: str) -> None:
    assert "5.0 s a case with the networks of one fold, 10.0 s with those of all folds" in section(page, "cost")
    single = replace(report.choice, member_folds=dict.fromkeys(data.MODELS, ("0",)))
    assert "of all folds" not in section(page_of(report, choice=single), "cost")


def test_a_mean_dice_is_not_shown_as_another_metric(report: Report) -> None:
    page = page_of(report, metric="HD95, mm", better="lower", choice=replace(report.choice, metric="hd95", evidence={}))
    words = Page(page[page.index("<header") : page.index("</header>") + len("</header>")]).words
    assert "no held-out case" in words and f"{report.choice.table[data.AVERAGE]['liver']:.3f}" not in words


def test_outlines_run_along_the_voxels_edges_in_mm() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    points = np.array([[float(x) for x in pair.split()] for pair in re.findall(r"[\d.]+ [\d.]+", outlines(mask, (2.0, 1.0)))])
    assert points[:, 0].min() == pytest.approx(3) and points[:, 0].max() == pytest.approx(7)
    assert points[:, 1].min() == pytest.approx(4) and points[:, 1].max() == pytest.approx(8)
    assert outlines(np.zeros((4, 4), bool), (1.0, 1.0)) == ""


def test_large_slices_are_embedded_small() -> None:
    rng = np.random.default_rng(0)
    small, large = (embedded(rng.integers(0, 255, shape).astype(np.uint8)) for shape in ((50, 40), (2000, 900)))
    assert small.startswith("data:image/png;base64,")
    assert large.startswith("data:image/jpeg;base64,")
    assert len(large) < 500_000


def test_a_case_has_one_dice_that_of_the_final_result(report: Report) -> None:
    """Post-processing, averaging and merging change a case's Dice: caption and table agree on what comes out in the end."""
    final = {"liver": dict.fromkeys(data.CASES, 0.9871)}
    shown = section(page_of(report, final=final), "cases")
    assert shown.count("0.987") == len(data.CASES) + len(report.pictures) and "0.810" not in shown


def test_legends_name_what_is_there(report: Report) -> None:
    shown = section(page_of(report), "cases")
    legend = shown[: shown.index("Best")]
    assert "liver" in legend and "spleen" not in legend, "no picture shows a spleen"
    assert "reference: dashed" in legend and "Radiological" not in legend, "these planes have no direction"
    planes = tuple(replace(plane, reference={}, edges=("A", "P", "R", "L")) for plane in report.pictures[0].planes)
    alone = section(page_of(report, pictures=(replace(report.pictures[0], planes=planes),)), "cases")
    assert "reference: dashed" not in alone and "hide references" not in alone and "patient's right (R) is on the left" in alone
    runs = tuple(
        replace(run, history=tuple({k: v for k, v in row.items() if k != "dice_spleen"} for row in run.history)) for run in report.runs
    )
    assert "spleen, Dice" in section(page_of(report), "curves") and "spleen, Dice" not in section(page_of(report, runs=runs), "curves")
