"""The answer that a leaderboard gives, in sentences: which rule is best, how far from backprop, at what cost, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rulezoo.leaderboard import plausibility, words
from rulezoo.leaderboard.rows import DEFAULT

LEVEL = 0.05  #: of the tests

if TYPE_CHECKING:
    from rulezoo.leaderboard.overview import Line, Overview
    from rulezoo.leaderboard.ranking import Ranking, Setting


def sentence(overview: Overview) -> str:
    """Which rule is best, how far from backprop, at what cost, how plausible and how sure; empty without results."""
    if not overview.rankings:
        return ""
    ranking = overview.tuned or overview.rankings[0]
    has_ranked_rules = any(label != ranking.reference for label in ranking.ranked)
    warned = warnings(overview) if has_ranked_rules else []
    return " ".join([answer(overview, ranking), *warned])


def answer(overview: Overview, ranking: Ranking) -> str:
    """The sentence for one ranking, without warnings."""
    rivals = {label: one for label, one in ranking.ranked.items() if label != ranking.reference}
    if not rivals:
        return _nothing_ranked(overview, ranking)
    label, setting = next(iter(rivals.items()))
    line = next(one for one in overview.lines if one.label == label)
    parts = [
        _best(overview, ranking, line, setting, len(rivals)),
        _cost(setting),
        _plausibility(line),
        _rank(ranking, setting) if len(rivals) > 1 else "",
    ]
    return " ".join(filter(None, parts))


def warnings(overview: Overview) -> list[str]:
    """A sentence for each ranking in which no difference could be significant, whatever the scores."""
    return [text for one in overview.rankings if (text := warning(one))]


def warning(ranking: Ranking) -> str:
    """A sentence where no difference of a ranking could be significant, whatever the scores; else empty."""
    if not ranking.tests or ranking.smallest_p <= LEVEL:
        return ""
    where = "" if ranking.name == DEFAULT else f" of {ranking.name} settings"
    return (
        f"Warning: no difference{where} to backprop can be significant here, as {_count(ranking.pairs, 'pair')} of task and seed "
        f"and {_count(ranking.tests, 'tested rule')} allow no p below {words.p_value(ranking.smallest_p)}; more seeds would."
    )


def _nothing_ranked(overview: Overview, ranking: Ranking) -> str:
    if {line.label for line in overview.lines} == {ranking.reference}:
        return "Only backprop has results, so there is nothing to compare."
    if ranking.reference is None:
        return "No rule has every planned run, so none is ranked."
    return "No rule other than backprop has every run that backprop has, so none is ranked."


def _best(overview: Overview, ranking: Ranking, line: Line, setting: Setting, rivals: int) -> str:
    """Which rule is best, and how far it is from backprop."""
    name, tasks = (
        _named(overview, ranking, line),
        _count(len({column.task for column in overview.columns}), "task"),
    )
    best = f"Best of {rivals} rules on {tasks}: {name}." if rivals > 1 else f"One rule on {tasks}: {name}."
    if setting.percent is None:
        rank = f" Its mean rank is {words.estimate(setting.mean_rank)[0]}." if rivals > 1 else ""
        return f"{best}{rank} There is no backprop above chance to compare with."
    value = _estimate(words.estimate(setting.percent), " %")
    one = setting.difference
    if one is None:
        return f"{best} It reaches {value} of backprop."
    points = _estimate(words.estimate(one.points, signed=True), " points")
    p = f"p = {words.p_value(one.p)}, smallest possible {words.p_value(one.smallest_p)}".replace(
        "p = <", "p <"
    )
    return f"{best} It reaches {value} of backprop, a difference of {points} ({p})."


def _named(overview: Overview, ranking: Ranking, line: Line) -> str:
    if ranking.name == DEFAULT:
        return line.label
    if line.tuned and not line.kept:
        return f"{line.label} ({ranking.name})"
    return f"{line.label} (default settings)" if overview.rankings[0].name == DEFAULT else line.label


def _estimate(written: tuple[str, str], unit: str) -> str:
    value, interval = written
    return f"{value}{unit} {interval}".rstrip()


def _cost(setting: Setting) -> str:
    if setting.cost is None:
        return ""
    return f"A training step takes {words.cost(setting)} the time of backprop's."


def _plausibility(line: Line) -> str:
    if not line.plausibility:
        return ""
    found = plausibility.implausible(line.plausibility)
    return f"Implausible features: {_listed(found) if found else 'none'}."


def _rank(ranking: Ranking, setting: Setting) -> str:
    rank = setting.rank
    if rank is None or (setting.percent and setting.percent.method == "none"):
        return "One seed says nothing of how sure that is."
    return (
        f"Rank {rank.value} of {len(ranking.ranked)}, backprop included, 95 % CI [{rank.low}, {rank.high}]."
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
