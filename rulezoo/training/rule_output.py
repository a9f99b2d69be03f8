"""Checks of what a rule returns before it is used: gradients, updates, and factors on the learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Real

from torch import Tensor


def check_directions(
    grads: Mapping[str, Tensor], updates: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """See that gradients and updates belong to parameters, have their shapes, and exclude each other.

    Args:
        grads: of one step.
        updates: of the same step.
        shapes: name of every parameter → its shape; ``rule.<name>`` for the rule's own.

    Raises:
        ValueError: with the name, the value, what was expected and what to do.
    """
    for what, given in (("a gradient", grads), ("an update", updates)):
        for name, tensor in given.items():
            if name not in shapes:
                raise ValueError(
                    f"step() returned {what} of {name!r}, which is no parameter; use the names of parameters: {_listed(shapes)}"
                )
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            if shape != shapes[name]:
                got = (
                    f"of shape {shape}" if isinstance(tensor, Tensor) else f"that is a {shape}, not a tensor"
                )
                raise ValueError(
                    f"step() returned {what} of {name!r} {got}; expected shape {shapes[name]}, that of the parameter: "
                    "return one entry for each entry of the parameter"
                )
    if both := sorted(grads.keys() & updates.keys()):
        raise ValueError(
            f"step() returned both a gradient and an update of {_listed(both)}; return one of the two for each parameter"
        )


def check_rates(rates: Mapping[str, float], names: Collection[str]) -> None:
    """See that factors on the learning rate belong to parameters, and are finite and not negative.

    Args:
        rates: what `rulezoo.LearningRule.rates` returned.
        names: of every parameter; ``rule.<name>`` for the rule's own.

    Raises:
        ValueError: with the name, the value, what was expected and what to do.
    """
    for name, rate in rates.items():
        if name not in names:
            raise ValueError(
                f"rates() returned a factor for {name!r}, which is no parameter; use the names of parameters: "
                f"{_listed(names)}"
            )
        if not isinstance(rate, Real) or not math.isfinite(rate) or rate < 0:
            raise ValueError(
                f"rates() returned the factor {rate!r} for {name!r}; expected a finite number, 0 or more: it multiplies the "
                "learning rate, and 1 leaves it as it is"
            )


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
