"""The page of a rule: formula, drawing, what it differs from, results in one table, how it is cited."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from rulezoo import Limit, Plausibility, RuleSpec
from rulezoo.discovery.registry import Found, discover
from rulezoo.leaderboard import stats
from rulezoo.leaderboard.grid import arrange
from rulezoo.report import citation, drawing, formula, rule_page
from rulezoo.report.findings import Findings

ZOO = discover()


@pytest.fixture(scope="module")
def found(records):
    return Findings(arrange(records), ZOO)


def context(found, rule):
    from rulezoo.report import pictures

    with pictures.style():
        return rule_page.context(found, rule)


# Formulas


@pytest.mark.parametrize("rule", ZOO.rules)
def test_every_rule_of_the_zoo_has_a_formula_that_becomes_mathml(rule):
    spec = ZOO.rules[rule].spec
    assert spec.formula
    for line in formula.lines(spec.formula):
        root = ET.fromstring(line)
        assert root.tag.endswith("math"), f"not converted: {line}"
        assert root.get("display") == "block"


def test_a_formula_that_is_no_latex_is_shown_as_it_is():
    assert formula.mathml("\\nosuch{<b>}\x1b") == "<code>\\nosuch{&lt;b&gt;}�</code>"


def test_letters_are_those_that_the_formula_uses():
    letters = [
        meaning for _, meaning in formula.letters((r"\delta_l = (B_l e) \odot x \text{ with \eta and K}",))
    ]
    assert letters == [
        "feedback weights",
        "error signal at the drive of layer l",
        "error of the output: ∂L/∂y",
        "product element by element",
    ]


def test_a_letter_that_a_formula_explains_has_no_shared_meaning():
    shared = [
        meaning
        for _, meaning in formula.letters((r"\gamma^{k-K} x, \quad K \text{: the layer of the output}",))
    ]
    assert shared == []
    assert [m for _, m in formula.letters((r"\xi = U z, \qquad U \text{: a basis}",))] == ["perturbation"]


# Drawings


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ("backprop", "chain"),
        ("feedback-alignment", "chain"),
        ("direct-feedback-alignment", "direct"),
        ("nmnc", "direct"),
        ("node-perturbation", "scalar"),
        ("predictive-coding", "settle"),
        ("local-prediction", "local"),
        ("softhebb", "local"),
        ("frozen", "fixed"),
    ],
)
def test_the_path_of_the_error_is_what_the_rule_declares(rule, kind):
    assert drawing.path(ZOO.rules[rule].spec.plausibility).kind == kind


@pytest.mark.parametrize("rule", ZOO.rules)
def test_a_drawing_names_weights_and_noise_that_are_declared_and_no_others(rule):
    marks = ZOO.rules[rule].spec.plausibility
    root = ET.fromstring(drawing.draw(rule, marks))
    written = [text.text for text in root.iter("text")]
    kind = drawing.path(marks).kind
    assert ("ξ" in written) == marks.perturbation
    if kind in ("chain", "direct", "settle"):
        assert ("of W₃" in written) == marks.weight_transport
        assert ("B₂" in written) != marks.weight_transport
    else:
        assert not {"of W₃", "B₂"} & set(written)
    assert root.get("aria-label").startswith(f"{rule}: ")


# What it differs from


def test_neighbours_are_compared_in_pairs_as_the_statistics_module_does(found):
    shown = {one.label: one for one in context(found, "nmnc")["neighbours"]}
    assert list(shown)[:2] == ["backprop", "frozen"]
    assert shown["noise-correlation perturbations=2"].why == "equal in a limit"
    test = stats.compare(found.grid.scores(), "nmnc", rules=list(shown))["frozen"]
    difference = shown["frozen"].difference
    assert difference.value == f"{-100 * test.interval.value:+.1f}".replace("-", "−")
    assert difference.interval == f"[{-100 * test.interval.high:.1f}, {-100 * test.interval.low:.1f}]"
    assert difference.sign == "better"
    assert shown["frozen"].pairs == 6


def test_a_comparison_turned_round_has_the_other_sign(found):
    mine = {one.label: one for one in context(found, "frozen")["neighbours"]}["backprop"]
    other = {one.label: one for one in context(found, "backprop")["neighbours"]}["frozen"]
    assert (mine.difference.sign, other.difference.sign) == ("worse", "better")
    assert mine.difference.value.lstrip("−") == other.difference.value.lstrip("+")


def test_features_in_which_two_rules_differ_are_named_with_both_marks(found):
    features = {one.label: one.features for one in context(found, "nmnc")["neighbours"]}["backprop"]
    assert ("weight transport", "○", "●") in features
    assert "update locking" not in [name for name, _, _ in features]


def test_limits_are_named_on_the_pages_of_both_rules(found):
    mine = ZOO.rules["nmnc"].spec
    extra = Found(replace(mine, limits=(Limit(("rank=9",), "frozen", ("lr=1",), 5e-4),)), "x", "1")
    zoo = replace(ZOO, found={**ZOO.found, "rule": {**ZOO.rules, "nmnc": extra}})
    assert next(rule_page._limits(zoo, extra.spec)) == (
        "With rank=9 it equals", "frozen", "with lr=1, to 5 · 10⁻⁴ of the norm of the gradient.",
    )  # fmt: skip
    back = list(rule_page._limits(zoo, ZOO.rules["frozen"].spec))
    assert ("With lr=1 it equals", "nmnc", "with rank=9, to 5 · 10⁻⁴ of the norm of the gradient.") in back


# Results


def test_results_are_one_table_with_a_row_for_each_task(found, pages, text):
    results = context(found, "nmnc")["results"]
    assert [row.task for row in results] == ["digits-cnn", "digits-rnn"]
    (one,) = results[0].settings
    assert one.score.value == "92.0"
    assert one.cost == "×2.00"
    expected = stats.difference({0: 0.90, 1: 0.92, 2: 0.94}, {0: 0.97, 1: 0.96, 2: 0.98})
    assert one.difference.value == f"{100 * expected.value:+.1f}".replace("-", "−")
    assert one.difference.interval == f"[{100 * expected.low:.1f}, {100 * expected.high:.1f}]".replace(
        "-", "−"
    )
    page = pages["rules/nmnc.html"].decode()
    assert page.count('class="by-task"') == 1
    assert "Run it" not in text(pages["rules/nmnc.html"])
    assert "rulezoo compare" in page


def test_landmarks_of_a_page_have_names_of_their_own(pages):
    for name, content in pages.items():
        if name.startswith("rules/"):
            page = content.decode()
            sections = re.findall(r'<section aria-labelledby="([^"]*)"', page)
            names = [re.search(rf'id="{one}">([^<]*)<', page)[1] for one in sections]
            names += re.findall(r'role="region" aria-label="([^"]*)"', page)
            assert len(names) == len(set(names)), (name, sorted(names))


def test_failures_and_skips_are_said_once_a_row(pages, text):
    assert text(pages["rules/e-prop.html"]).count("needs recurrence") == 1
    page = text(pages["rules/feedback-alignment.html"])
    assert "3, 1 failed" in page
    assert page.count("diverged: not finite at step 4") == 1


def test_the_difference_to_backprop_at_a_tuned_setting_is_that_to_tuned_backprop(runs):
    from rulezoo.leaderboard.overview import Overview

    found = Findings(arrange([*runs("backprop", [0.9, 0.8]), *runs("frozen", [0.5, 0.6])]), ZOO)
    assert isinstance(found.overview, Overview)
    setting = next(line for line in found.overview.lines if line.rule == "frozen").default
    reference = found.overview.lines[0].default
    assert rule_page._on_task(found, setting, setting.cells[0], 0).value == "−30.0"
    assert rule_page._on_task(found, reference, reference.cells[0], 0).value == ""


# Citation and code


def test_a_reference_becomes_bibtex_with_the_fields_that_it_has():
    text = "Nøkland, van Gerven 2016, A title, with a comma, doi:10.1/x, arXiv:1609.01596; the delta rule: Widrow & Hoff 1960"
    first, second = citation.entries(text)
    assert str(first) == (
        "@misc{nokland2016title,\n  author = {Nøkland and van Gerven},\n  title = {{A title, with a comma}},\n"
        "  year = {2016},\n  doi = {10.1/x},\n  eprint = {1609.01596},\n  archiveprefix = {arXiv},\n}"
    )
    assert second.fields == (("author", "Widrow and Hoff"), ("year", "1960"))


@pytest.mark.parametrize(
    "text", ["", "unpublished", "the baseline of nobody", "see https://example.org 2020", "42, 43"]
)
def test_what_names_no_paper_has_no_entry(text):
    assert citation.bibtex(text) == ""


@pytest.mark.parametrize(
    "lead",
    [
        "",
        "the mirror: ",
        "the baseline of ",
        "after SAL: ",
        "a recurrent form of the baseline of ",
        "the manifold as in ",
    ],
)
def test_words_in_front_of_a_paper_are_no_author(lead):
    (entry,) = citation.entries(f"{lead}Kang, Richards 2026, arXiv:2601.02636")
    assert dict(entry.fields)["author"] == "Kang and Richards"


def test_an_identifier_behind_other_words_is_not_that_of_the_paper():
    (entry,) = citation.entries("Murray 2019, Title, doi:10.1/x, as in Kang 2026, arXiv:2601.02636")
    assert dict(entry.fields)["doi"] == "10.1/x"
    assert "eprint" not in dict(entry.fields)


def test_bibtex_holds_no_command():
    (entry,) = citation.entries(r"Evil 2020, \input{x} } & 100%, arXiv:1609.01596")
    assert re.fullmatch(r"\{input x?.*\}", dict(entry.fields)["title"]) or "\\input" not in str(entry)
    assert "\\input" not in str(entry)
    assert str(entry).count("{") == str(entry).count("}")


@pytest.mark.parametrize("rule", [name for name, one in ZOO.rules.items() if one.spec.reference])
def test_every_paper_of_the_zoo_has_an_entry_of_its_own(rule):
    entries = citation.entries(ZOO.rules[rule].spec.reference)
    assert len(entries) == len({entry.key for entry in entries}) >= 1
    for entry in entries:
        assert str(entry).count("{") == str(entry).count("}")


def test_a_page_has_bibtex_and_the_code_of_the_class(pages):
    page = pages["rules/nmnc.html"].decode()
    assert "@misc{kang2026" in page
    assert "class ManifoldNoiseCorrelation" in page
    assert "not verified yet" in page


def test_a_rule_whose_code_fails_has_a_page_without_it(runs):
    spec = RuleSpec(
        name="broken", target="nowhere:Broken", summary="x", plausibility=Plausibility(False, False, True, "vector", True),
        formula=("</math><script>",),
    )  # fmt: skip
    zoo = replace(ZOO, found={**ZOO.found, "rule": {**ZOO.rules, "broken": Found(spec, "x", "1")}})
    found = Findings(arrange([*runs("backprop", [0.9, 0.9]), *runs("broken", [0.5, 0.6])]), zoo)
    shown = context(found, "broken")
    assert shown["code"] is None
    assert "<script" not in "".join(shown["explained"]["formula"])
