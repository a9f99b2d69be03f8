"""Figures: names where there is room and always for the pointer, nothing clipped, one look a rule, the numbers of the overview."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulezoo.discovery.registry import discover
from rulezoo.leaderboard.grid import arrange
from rulezoo.report import figures, labels, looks, pictures
from rulezoo.report.findings import Findings

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found(records):
    return Findings(arrange(records), discover())


@pytest.fixture(scope="module")
def many(runs):
    """Forty rules: those of the catalogue, with scores and costs close to each other."""
    records = [*runs("backprop", [0.97, 0.96, 0.98])]
    for i, rule in enumerate([name for name in discover().rules if name != "backprop"][:39]):
        tests = [0.6 + 0.3 * (i % 13) / 13 + d for d in (0, 0.01, -0.01)]
        records += runs(rule, tests, cost=1 + (i % 7) / 5)
    return Findings(arrange(records), discover())


def ranking(found):
    return found.overview.rankings[0]


def marks(svg):
    """Name → the elements that tell it, of a picture as a file."""
    by_name = {}
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        if group.get("class") == "tip":
            by_name.setdefault(group.get("data-name"), []).append(group)
    return by_name


def cost(found):
    with pictures.style():
        return figures.cost(found, ranking(found))


# Score against cost


@pytest.mark.parametrize("which", ["found", "many"])
def test_every_ranked_rule_has_a_dot_that_tells_its_name_and_numbers(which, request):
    found = request.getfixturevalue(which)
    figure = cost(found)
    named = marks(figure.svg)
    assert set(named) == set(ranking(found).ranked)
    for label, one in ranking(found).ranked.items():
        tip = named[label][0].get("data-tip")
        assert f"{label}: {one.percent.value:.1f} %" in tip
        assert f"×{one.cost:.2f}" in tip
        assert named[label][0].findtext(f"{SVG}title") == tip
        assert figure.inline.count(f'data-tip="{tip}"') >= 2, (
            "in the form for wide and in that for narrow pages"
        )


def test_few_rules_all_have_their_names_written(found):
    written = {text.text for text in ET.fromstring(cost(found).svg).iter(f"{SVG}text")}
    assert set(ranking(found).ranked) <= written


@pytest.mark.parametrize("which", ["found", "many"])
@pytest.mark.parametrize("width", [pictures.WIDE, pictures.NARROW])
def test_no_dot_whisker_or_name_is_clipped(which, width, request):
    found = request.getfixturevalue(which)
    dots = [
        pictures.Dot(
            label,
            one.cost,
            one.percent.value,
            found.looks[label],
            one.percent.low - 40,
            one.percent.high + 40,
        )
        for label, one in ranking(found).ranked.items()
    ]
    with pictures.style():
        drawn = pictures.scatter(dots, found.looks.families, "cost", "score", width=width)
    root = ET.fromstring(drawn.file())
    _, _, wide, high = map(float, root.get("viewBox").split())
    frames = [numbers(p) for p in root.iter(f"{SVG}path") if p.get("style") == "fill: none"]
    (left, right), (top, bottom) = ((min(f[k::2]), max(f[k::2])) for f in frames[1:2] for k in (0, 1))
    for groups in marks(drawn.file()).values():
        for group in groups:
            for path in group.iter(f"{SVG}path"):
                if path.get("clip-path"):  # a whisker
                    found_numbers = numbers(path)
                    assert min(found_numbers[1::2]) > top
                    assert max(found_numbers[1::2]) < bottom
            for dot in group.iter(f"{SVG}use"):
                assert left < float(dot.get("x")) < right
                assert top < float(dot.get("y")) < bottom
            for text in group.iter(f"{SVG}text"):
                half = 0.62 * 12 * len(text.text) / 2  # wider than letters are
                assert float(text.get("x")) - half / 1.1 >= 0
                assert float(text.get("x")) + half / 1.3 <= wide
                assert 0 < float(text.get("y")) < high


def numbers(path):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.get("d"))]


POINT = st.tuples(st.floats(20, 380), st.floats(20, 280), st.floats(20, 120), st.floats(0, 30))


@settings(max_examples=60, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=40))
def test_names_cover_neither_each_other_nor_points_and_stay_inside(drawn):
    frame = labels.Box(0, 0, 400, 300)
    points = [labels.Point(x, y, width, 12, y - reach, y + reach) for x, y, width, reach in drawn]
    boxes = [box for box in labels.place(points, frame) if box]
    for i, box in enumerate(boxes):
        assert box.left >= frame.left - 0.2
        assert box.right <= frame.right + 0.2
        assert box.bottom >= frame.bottom - 0.2
        assert box.top <= frame.top + 0.2
        assert not any(box.overlap(other) for other in boxes[:i])
        assert not any(box.overlap(labels.Box(p.x - 4, p.y - 4, p.x + 4, p.y + 4)) for p in points)


def test_points_far_from_each_other_have_their_names_next_to_them():
    points = [labels.Point(50 + 150 * i, 50 + 60 * j, 60, 12, 45, 55) for i in range(3) for j in range(3)]
    for point, box in zip(points, labels.place(points, labels.Box(0, 0, 500, 300)), strict=True):
        assert box is not None
        assert box.left - point.x == pytest.approx(8)


def test_the_front_holds_what_no_other_beats_in_cost_and_score():
    dots = [
        pictures.Dot(str(k), x, y)
        for k, (x, y) in enumerate([(1, 5), (2, 4), (2, 6), (0.5, 1), (3, 6), (4, 9)])
    ]
    beaten = {a.name for a in dots for b in dots if b.x <= a.x and b.y >= a.y and (b.x < a.x or b.y > a.y)}
    assert [dot.name for dot in pictures.pareto(dots)] == ["3", "0", "2", "5"]
    assert {dot.name for dot in dots} - beaten == {dot.name for dot in pictures.pareto(dots)}


# Looks


def test_rules_of_a_leaderboard_can_be_told_apart_without_colour(found):
    lines = found.looks.lines
    assert len({(str(look.dash), look.marker) for look in lines.values()}) == len(lines)


def test_a_family_has_one_colour_and_marks_of_plausibility_one_marker(many):
    for line in many.overview.lines:
        look = many.looks[line.label]
        if line.rule not in ("backprop", "frozen"):
            assert look.colour == many.looks.families[line.family]
        assert look.plausibility == looks.plausibility_class(line.plausibility)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({}, looks.UNKNOWN),
        ({"weight_transport": "yes", "backward_pass": "yes"}, looks.TRANSPORT),
        ({"weight_transport": "no/yes"}, looks.TRANSPORT),
        ({"weight_transport": "no", "backward_pass": "within blocks of 4"}, looks.BACKWARD),
        ({"weight_transport": "no", "backward_pass": "no", "update_locking": "yes"}, looks.LOCKED),
        ({"weight_transport": "no", "backward_pass": "no", "update_locking": "no"}, looks.LOCAL),
    ],
)
def test_the_class_is_the_first_implausible_feature(marks, expected):
    assert looks.plausibility_class(marks) == expected


def test_a_rule_has_the_same_look_in_every_figure(found):
    """The stroke of its line in learning curves, the profile, and the fill of its dot."""
    with pictures.style():
        shown = [
            figures.curves_of_task(found, 0),
            figures.curves_of_task(found, 1),
            figures.profile(found, ranking(found)),
        ]
        dots = marks(figures.cost(found, ranking(found)).svg)
    styles = {}
    for figure in shown:
        for name, groups in marks(figure.svg).items():
            path = next(groups[0].iter(f"{SVG}path"))
            style = dict(re.findall(r"(stroke|stroke-dasharray): ([^;]+)", path.get("style")))
            styles.setdefault(name, set()).add(tuple(sorted(style.items())))
    assert {name: len(one) for name, one in styles.items()} == dict.fromkeys(styles, 1)
    for name, (style,) in styles.items():
        if name in dots:
            fills = [use.get("style") for group in dots[name] for use in group.iter(f"{SVG}use")]
            assert any(f"fill: {dict(style)['stroke']}" in fill for fill in fills)


def test_colours_can_be_read_on_both_pages():
    """WCAG asks 3:1 of graphics, 4.5:1 of text."""
    for name, pair in looks.COLOURS.items():
        for colour, page in zip(pair, ("#fcfcfa", "#14171c"), strict=True):
            least = {"line": 1.0, "ink": 7.0}.get(name, 4.5)
            assert contrast(colour, page) >= least, (name, colour)


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


# Pictures in pages and as files


def test_pictures_of_a_page_share_no_identifier_and_refer_to_their_own(pages):
    for name, content in pages.items():
        if name.endswith(".html"):
            page = content.decode()
            ids = re.findall(r'\bid="([^"]*)"', page)
            assert len(ids) == len(set(ids)), name
            for target in re.findall(r'url\(#([^)]*)\)|xlink:href="#([^"]*)"', page):
                assert "".join(target) in ids, name


def test_a_task_page_has_the_pictures_that_its_runs_allow(pages):
    page = pages["tasks/digits-cnn.html"].decode()
    for kind in ("cost", "curves", "perturbations", "angles"):
        assert f"pictures/digits-cnn-{kind}.svg" in page
        assert f"pictures/digits-cnn-{kind}.svg" in pages


def test_every_figure_has_words_a_file_and_a_table(pages):
    for name, content in pages.items():
        for figure in re.findall(
            r"<figure(?: data-ranking[^>]*)?>(.*?)</figure>", content.decode("utf-8", "ignore"), re.DOTALL
        ):
            if 'class="figure' in figure:
                assert all(len(alt) > 40 for alt in re.findall(r'<svg[^>]*aria-label="([^"]*)"', figure)), (
                    name
                )
                file = re.search(r'href="(?:\.\./)?(pictures/[^"]*)" download', figure)
                assert file[1] in pages
                assert "</table>" in figure
                assert figure.count('class="figure wide"') == figure.count('class="figure narrow"')


def test_pictures_follow_the_readers_colours_and_hold_no_date(pages):
    for name, content in pages.items():
        if name.endswith(".svg"):
            ET.fromstring(content)
            assert b"prefers-color-scheme" in content
            assert b"#fe12" not in content, "a stand-in colour is left"
            assert b"<dc:date>" not in content


def test_a_name_cannot_leave_its_place_in_a_picture():
    evil = '"><script>alert(1)</script>\x1b'
    with pictures.style():
        dots = [pictures.Dot(evil, 1, 1, tip=evil), pictures.Dot("b", 2, 2)]
        drawn = pictures.scatter(dots, {evil: "c0"}, evil, evil, width=pictures.WIDE)
    for content in (drawn.file().decode(), drawn.inline("a", evil)):
        assert "<script" not in content
        assert "\x1b" not in content
    ET.fromstring(drawn.file())


def test_the_profile_is_that_of_the_statistics_module(found):
    from rulezoo.leaderboard import stats

    with pictures.style():
        figure = figures.profile(found, ranking(found))
    expected = stats.profile(found.grid.scores(), [0.5, 0.8, 0.9, 0.95, 1.0])
    shown = {row[0]: row[1:] for row in figure.table.rows}
    assert shown == {
        rule: tuple(f"{100 * one:.0f}" for one in share) for rule, share in expected.items() if rule in shown
    }
    assert set(shown) == set(ranking(found).ranked)
