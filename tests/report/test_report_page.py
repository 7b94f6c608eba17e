"""The report's HTML: whole, self-contained, escaped, complete; and its charts' numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import report_data as data

from autoseg.report import Report, render
from autoseg.report.charts import box_of
from autoseg.report.markup import VOID, duration, number, p_value, short_name, tag
from autoseg.report.planes import embedded, outlines
from autoseg.report.sections_cases import case_values, ranked_cases
from autoseg.report.sections_data import head
from autoseg.report.sections_use import cost_section
from autoseg.report.svg import Scale, log_ticks, round_ticks
from autoseg.runtime.figures import css_colours
from autoseg.schema import Choice


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects attributes, text and titles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images_without_words: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.links += [value for key, value in attributes if key in ("href", "src", "xlink:href") and value]
        self.ids += [found["id"]] if "id" in found else []
        if found.get("role") == "img" and not found.get("aria-label"):
            self.images_without_words.append(name)
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open and self.open[-1] == name, f"</{name}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, text: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words += text


@pytest.fixture(scope="module")
def report() -> Report:
    return data.full_report()


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render(report, css_colours(3))


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_elements_are_closed_and_names_of_places_are_used_once(parsed: Page) -> None:
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.images_without_words == []
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_it_needs_nothing_but_itself(page: str, parsed: Page) -> None:
    assert all(link.startswith(("#", "data:image/")) for link in parsed.links)
    assert not re.search(r"https?:|@import|url\(|<script|<link", page)


def test_names_are_escaped(page: str, parsed: Page) -> None:
    assert "<b>organ" not in page
    assert data.AWKWARD in parsed.words
    assert "fits <8> GB" in parsed.words


def test_all_is_there(report: Report, parsed: Page) -> None:
    words = " ".join(parsed.words.split())
    for wanted in (*data.ORGANS.names, *map(short_name, (*data.MODELS, data.AVERAGE)), *data.CASES, *report.commands):
        assert wanted in words, wanted
    for wanted in ("nested estimate", "better in 5 cases", "Learning curves", "a" * 64, "CT window", "autoseg_train 7 2d 2"):
        assert wanted in words, wanted
    assert not re.search(r"\d\.?\de[+-]\d", words), "numbers without powers of ten"
    expected = report.choice.evidence["liver"].expected
    assert f"{expected.mean:.3f} [0.801, 0.866]" in words
    assert f"is {expected.naive:.3f}" in words


def test_the_chosen_candidate_is_marked_once_an_organ(page: str) -> None:
    assert page.count('<tr class="chosen">') == 3
    assert page.count('class="mark">chosen') == 3
    first = page[page.index('<tr class="chosen">') :]
    assert short_name(data.AVERAGE) in first[: first.index("</tr>")]


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": None, "chosen": ""},
        {"choice": Choice({}, (), {}, 0)},
        {"runs": (), "scores": {}, "choice": None, "pictures": (), "folds_of": {}},
        {"plan": None, "splits": (), "versions": {}, "files": {}, "commands": (), "promises": {}, "parameters": {}, "missing": ()},
    ],
    ids=["no choice", "empty choice", "nothing trained", "no plan"],
)
def test_what_is_not_known_is_left_out(report: Report, changes: dict) -> None:
    parsed = Page(render(replace(report, **changes), css_colours(3)))
    assert parsed.open == []
    assert "Dataset007_Abdomen" in parsed.words
    assert "nan" not in parsed.words.lower().replace("nano", "")


def test_a_choice_without_evidence_says_that_its_numbers_are_too_good(report: Report) -> None:
    bare = replace(report, choice=replace(report.choice, evidence={}))
    words = Page(render(bare, css_colours(3))).words
    assert "somewhat too good" in words
    assert "nested estimate over" not in words


def test_quartiles_by_hand() -> None:
    box = box_of([0.1, 0.5, 0.6, 0.7, 0.8, float("nan")])
    # Quartiles 0.5 and 0.7, reach 0.3: 0.1 lies outside of 0.2 .. 1.0.
    assert (box.low, box.first, box.median, box.third, box.high) == pytest.approx((0.5, 0.5, 0.6, 0.7, 0.8))
    assert box_of([float("nan")]) is None


def test_ticks() -> None:
    assert round_ticks(0.61, 0.93) == [0.7, 0.8, 0.9]
    assert round_ticks(0, 250, 4) == [0, 100, 200]
    assert log_ticks(3, 2000) == [10, 100, 1000]
    assert log_ticks(3, 60) == [5, 10, 20, 50]
    assert Scale(0, 1, 100, 0).at(0.25) == 75
    assert Scale(1, 100, log=True).at(10) == pytest.approx(50)
    assert Scale(0, 1).at(3) == 100


def test_words_for_numbers() -> None:
    assert number(float("nan")) == "–"
    assert number(0.12345) == "0.123"
    assert p_value(0.0004) == "< 0.001"
    assert duration(5400) == "1.5 h"
    assert duration(4) == "4.0 s"
    assert short_name("2d__Trainer + 3d_fullres__AdversarialTrainer__liver") == "2d + 3d_fullres · AdversarialTrainer · liver"
    assert tag("a", "x", title='"<') == '<a title="&quot;&lt;">x</a>'


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


def test_what_a_model_was_trained_on_is_told_where_it_is_known(report: Report) -> None:
    cost = Page(cost_section(report)).words
    assert "Quick <GPU>" in cost and "2.9.1" in cost and "4.0 GB" in cost, "the largest peak of the folds"
    nobody = replace(report, runs=tuple(replace(run, run_environment=()) for run in report.runs))
    bare = Page(cost_section(nobody)).words
    assert "Trained on" not in bare and "PyTorch" not in bare and "peak" not in bare and "Folds" in bare


def test_the_cost_of_a_case_counts_all_networks_that_vote(report: Report) -> None:
    assert "5.0 s a case with the networks of one fold, 10.0 s with those of all folds" in Page(cost_section(report)).words
    voters = dict.fromkeys(data.MODELS, ("0",))
    assert "of all folds" not in Page(cost_section(replace(report, choice=replace(report.choice, voters=voters)))).words


def test_a_mean_dice_is_not_shown_as_another_metric(report: Report) -> None:
    other = replace(report, metric="HD95, mm", better="lower", choice=replace(report.choice, metric="hd95", evidence={}))
    words = " ".join(Page(head(other, dict(zip(data.ORGANS.names, css_colours(3), strict=True)))).words.split())
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
