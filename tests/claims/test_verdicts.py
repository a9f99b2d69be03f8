"""Intervals over seeds, and what they say."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from rulezoo.claims.verdicts import Interval, Part, above, below, conclude, no_worse, t_interval


def test_the_interval_is_students():
    values = [0.61, 0.55, 0.58, 0.66]
    found = t_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.mean, found.n) == (pytest.approx(0.6), 4)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([0.4], 1), ([0.4, math.nan], 1)])
def test_fewer_than_two_seeds_say_nothing(values, n):
    found = t_interval(values)
    assert (found.low, found.high, found.n) == (-math.inf, math.inf, n)
    for part in (above("x", found, 0), below("x", found, 1), no_worse("x", t_interval([]), 1)):
        assert part.holds is None


@pytest.mark.parametrize(
    ("low", "high", "over", "under"),
    [(1, 3, True, False), (-3, -1, False, True), (-1, 3, None, None), (0, 3, None, None)],
)
def test_a_part_holds_only_where_the_whole_interval_does(low, high, over, under):
    found = Interval((low + high) / 2, low, high, 3)
    assert above("x", found, 0).holds is over
    assert below("x", found, 0).holds is under


@pytest.mark.parametrize(
    ("mean", "low", "high", "holds"),
    [(0.5, -1, 2, True), (-0.9, -2, 0.2, True), (-1.1, -3, 0.8, None), (-0.5, -0.9, -0.1, False)],
)
def test_no_worse_needs_an_interval_that_reaches_zero_and_a_mean_within_the_margin(mean, low, high, holds):
    assert no_worse("x", Interval(mean, low, high, 3), margin=1).holds is holds


@pytest.mark.parametrize(
    ("held", "word"),
    [
        ([True, True], "supported"),
        ([True, None], "inconclusive"),
        ([None, False], "not supported"),
        ([True, False], "not supported"),
        ([], "inconclusive"),
    ],
)
def test_the_verdict(held, word):
    at = {True: (1, 2), False: (-2, -1), None: (-1, 1)}
    parts = [above("x", Interval(0, *at[one], 3), 0) for one in held]
    assert conclude(parts).word == word


def test_an_interval_in_words():
    assert Interval(0.0312, -0.01, 0.05, 3).scaled(100).text(1, "°", sign=True) == "+3.1° [−1.0, 5.0]"
    assert t_interval([2.0]).text() == "2.0 (one seed)"
    assert t_interval([]).text() == "—"


HELD = Part(True, "t1, score: +2.2; required: > 0", "score")
REFUTED = Part(False, "t1, angle: 3.4°; required: > 10°", "angle", judged=False)


def test_a_verdict_shows_its_parts_by_kind():
    verdict = conclude([HELD, HELD, replace(HELD, holds=None), replace(REFUTED, judged=True)])
    assert verdict.text() == "not supported (score 2 of 3, angle 0 of 1)"
    assert conclude([HELD]).details() == "supported (score 1 of 1)"
    assert conclude([]).text() == "inconclusive"


def test_what_is_reported_alongside_is_counted_separately_and_decides_nothing():
    verdict = conclude([HELD, REFUTED])
    assert verdict.word == "supported"
    assert verdict.text() == "supported (score 1 of 1; also reported: angle 0 of 1)"
    assert verdict.details() == f"{verdict.text()}. Holds: t1, score. Refuted: t1, angle (not judged)"
    assert conclude([REFUTED]).text() == "inconclusive (also reported: angle 0 of 1)"
    assert conclude([replace(HELD, judged=False), replace(REFUTED, judged=True)]).word == "not supported"
