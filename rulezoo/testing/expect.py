"""What the checks are written with: a refusal, and comparisons whose messages name what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class CheckFailed(AssertionError):
    """A rule broke a promise; the message says which, and where."""


class NotApplicable(Exception):
    """A check that does not concern a rule; the message says why."""


class NotExamined(Exception):
    """Nothing of what the checks are about could be looked at; the message says why."""


def expect(holds: bool, message: str) -> None:
    """Raise `CheckFailed` unless it holds."""
    if not holds:
        raise CheckFailed(message)


def expect_like(what: str, tensor: Tensor, like: Tensor) -> None:
    """The same shape, dtype and device."""
    for attribute in ("shape", "dtype", "device"):
        got, wanted = getattr(tensor, attribute), getattr(like, attribute)
        expect(got == wanted, f"{what} must keep {attribute} {wanted}, got {got}")


def expect_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    """No infinity and no NaN."""
    for name, tensor in tensors.items():
        expect(bool(tensor.isfinite().all()), f"{name} {what} is not finite")


def expect_same(what: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """The same tensors, bit for bit."""
    expect(tensors.keys() == wanted.keys(), f"{what}: {listed(set(tensors) ^ set(wanted))} came or went")
    for name, tensor in tensors.items():
        other = wanted[name]
        same = tensor.dtype == other.dtype and torch.equal(tensor.nan_to_num(), other.nan_to_num())
        expect(same, f"{what}: {name} is not the same{_distance(tensor, other)}")


def expect_close(what: str, tensor: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Equal up to ``tolerance`` times the size (2-norm) of what was wanted."""
    expect(
        tensor.shape == wanted.shape,
        f"{what} has shape {tuple(tensor.shape)}, expected {tuple(wanted.shape)}",
    )
    error = float((tensor - wanted).double().norm())
    allowed = tolerance * float(wanted.double().norm()) + torch.finfo(torch.float64).tiny
    expect(error <= allowed, f"{what} is off by {error:.3g} in norm, allowed are {allowed:.3g}")


def expect_sentence(reason: object) -> None:
    """What `skip` returns must say why."""
    words = reason.split() if isinstance(reason, str) else []
    expect(len(words) >= 3, f"skip() must say why in a sentence, got {reason!r}")


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy to compare with later."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(map(str, names)))


def _distance(tensor: Tensor, other: Tensor) -> str:
    if tensor.shape != other.shape:
        return f" (shape {tuple(tensor.shape)}, not {tuple(other.shape)})"
    return f" (largest difference {float((tensor.double() - other.double()).abs().max()):.3g})"
