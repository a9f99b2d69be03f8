"""Where a tuning looks: the options for which a rule declares a search, and its learning rate.

The user's own choices are not searched. The author's default always lies in the space, so that it can be given to the
sampler like any other trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rulezoo.options import Option, Value, declared

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from rulezoo.comparison.plan import Cell

LR_REACH = 10.0  #: the learning rate is searched from a tenth of the default to ten times the default
DIGITS = 3  #: significant digits of a real number that is tried

Space = Mapping[str, "BaseDistribution"]
"""name of an option → the values that a tuning may try."""


def space(cell: Cell) -> dict[str, BaseDistribution]:
    """What may be tried for a rule on a task; empty when the user chose everything.

    The learning rate is searched on a logarithmic scale around the one that the rule would have on this task, unless
    the rule declares another search.
    """
    found = {}
    defaults = values(cell)
    for option in declared(type(cell.rule)).values():
        if option.name in cell.rule_words:
            continue
        default = defaults[option.name]
        if option.search is not None:
            found[option.name] = _distribution(option, option.search, default, log=option.log)
        elif option.name == "lr" and isinstance(default, float) and default > 0:
            around = (default / LR_REACH, default * LR_REACH)
            found[option.name] = _distribution(option, around, default, log=True)
    return found


def values(cell: Cell) -> dict[str, Value]:
    """Every option of the rule as it is in effect: a learning rate that is left to the task is the task's."""
    return cell.rule.resolved() | {"lr": float(cell.budget.lr)}


def legible(value: Value, distribution: BaseDistribution) -> Value:
    """A value with few digits, for labels that can be read and for identities that no rounding error changes."""
    from optuna.distributions import FloatDistribution

    if not isinstance(distribution, FloatDistribution):
        return value
    rounded = float(f"{value:.{DIGITS}g}")
    return min(max(rounded, distribution.low), distribution.high)


def _distribution(
    option: Option, search: tuple[Value, ...], default: Value, *, log: bool
) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numbers = [v for v in search if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(search) != 2 or len(numbers) != 2:
        return CategoricalDistribution(tuple(dict.fromkeys([*search, default])))
    if isinstance(default, int | float) and not isinstance(default, bool):
        numbers.append(default)
    low, high = max(min(numbers), option.low), min(max(numbers), option.high)
    if float in option.types:
        return FloatDistribution(float(low), float(high), log=log)
    return IntDistribution(int(low), int(high), log=log)
