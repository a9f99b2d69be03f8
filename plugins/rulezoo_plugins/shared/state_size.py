"""Whether the tensors that a rule keeps fit into the memory that they may take, and which options make them fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from rulezoo import LearningRule, OptionError

R = TypeVar("R", bound=LearningRule)
GB = 1e9  # bytes


def why_too_large(
    rule: R, most: float, size: Callable[[R], float], ways: Sequence[Mapping[str, object]], what: str
) -> str | None:
    """A sentence if the state of a rule takes more than ``most`` GB, else ``None``.

    Args:
        rule: the rule.
        most: GB.
        size: GB that a rule of this kind would take.
        ways: options to change, the least costly first; those that help are named.
        what: what the state is made of on this network, in words.
    """
    needed = size(rule)
    if needed <= most:
        return None
    helpful = [f"{_words(way)} ({_gb(taken)})" for way in ways if (taken := _tried(rule, way, size)) <= most]
    advice = f"set {' or '.join(helpful[:3])}, or raise memory" if helpful else "raise memory"
    return f"the rule's state would take {_gb(needed)} here ({what}), and memory={most:g} GB; {advice}"


def gigabytes(tensors: Mapping[str, Tensor]) -> float:
    """Size of some tensors, which may lie on the device "meta", in GB."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / GB


def _tried(rule: R, way: Mapping[str, object], size: Callable[[R], float]) -> float:
    try:
        return size(replace(rule, **dict(way)))  # type: ignore[arg-type]  # a dataclass of any fields
    except OptionError:
        return float("inf")


def _words(way: Mapping[str, object]) -> str:
    return " and ".join(f"{name}={value}" for name, value in way.items())


def _gb(size: float) -> str:
    return f"{size:.2g} GB"
