"""Is a forward pass a function of its parameters, its input and its buffers, and of nothing else?

What a pass may leave behind is checked as a kind: whatever it is that changes (a generator, an attribute, the input),
the network is refused in a sentence that says what to do. Buffers may change: they are part of a seed's state.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from rulezoo.net.errors import NetError

Tensors = dict[str, Tensor]

_OWN = frozenset(
    {
        "_parameters", "_buffers", "_modules", "tap", "training", "_forward_hooks", "_forward_pre_hooks",
        "_flat_weights", "_flat_weight_refs",  # of torch's recurrent layers: its parameters once more
    }
)  # fmt: skip


def refuse_side_effects(module: nn.Module, forward: Callable[[], Tensor]) -> None:
    """See that a pass moves no generator, and changes no attribute of a module that a later pass could read.

    A tensor that every pass sets before it reads it (the weight that `torch.nn.utils.weight_norm` computes, activity
    kept to be looked at) is no memory: in its place "not a number" is put, and the next pass must not see it.

    Raises:
        NetError: if it does.
    """
    generators, attributes = _generators(), _attributes(module)
    output = forward()
    for whose, state in _generators().items():
        if not _same(state, generators.get(whose)):
            raise NetError(
                f"the network draws from {whose} in its forward pass, so that no step could be repeated; use "
                "torch.nn.Dropout or F.dropout, for which rulezoo draws the masks, or take the noise out"
            )
    after = _attributes(module)
    changed = [name for name in after if name not in attributes or not _same(after[name], attributes[name])]
    kept = {name: _holder(module, name) for name in changed}
    for child, attribute in kept.values():
        value = vars(child)[attribute]
        if isinstance(value, Tensor) and value.is_floating_point():
            vars(child)[attribute] = torch.full_like(value.detach(), torch.nan)
    if not changed:
        return
    again = forward()
    read = not same_values(output, again)
    for name, (child, attribute) in kept.items():
        if read or not isinstance(vars(child)[attribute], Tensor):
            raise NetError(
                f"the network changes its attribute {name!r} in its forward pass; register it as a buffer "
                "(register_buffer), which is part of what a seed's network is, or do not keep it"
            )


def _holder(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, attribute = name.rpartition(".")
    return module.get_submodule(owner), attribute


def _generators() -> dict[str, Any]:
    states: dict[str, Any] = {
        "torch's global generator": torch.get_rng_state(),
        "NumPy's global generator": repr(np.random.get_state(legacy=False)),  # noqa: NPY002  that of the network
        "Python's random": random.getstate(),
    }
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            states[f"torch's generator on GPU {device}"] = torch.cuda.get_rng_state(device)
    return states


def _attributes(module: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix, child in module.named_modules():
        for name, value in vars(child).items():
            if name not in _OWN and not callable(value):
                found[f"{prefix}.{name}".lstrip(".")] = _frozen(value)
    return found


def _frozen(value: object, depth: int = 4) -> Any:  # noqa: ANN401
    """Something that stays what the value is now; what lies deeper in it than ``depth`` is not looked at."""
    if isinstance(value, Tensor):
        return "tensor", id(value), value._version
    if isinstance(value, int | float | str | bytes | bool | None):
        return value
    if isinstance(value, np.ndarray):
        return "array", value.tobytes()
    if depth and isinstance(value, list | tuple | set | frozenset | deque):
        return type(value).__name__, tuple(_frozen(one, depth - 1) for one in value)
    if depth and isinstance(value, dict):
        return "dict", tuple((str(key), _frozen(one, depth - 1)) for key, one in value.items())
    if depth and hasattr(value, "__dict__") and not isinstance(value, type | nn.Module | ModuleType):
        return type(value).__name__, id(value), _frozen(vars(value), depth - 1)
    return type(value).__name__, id(value)


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, "not a number" included."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and (one == other or (isinstance(one, float) and math.isnan(one)))


def check_repeats(first: Tensor, again: Tensor) -> None:
    """See that two passes with the same arguments give the same.

    Raises:
        NetError: if they do not.
    """
    if first.shape != again.shape or not torch.allclose(first, again, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise NetError(
            "two passes with the same parameters and the same input give different outputs: the network keeps or "
            "draws something that is neither a parameter nor a buffer; make it a buffer, or take it out"
        )


def check_pulled_outside(
    module: nn.Module, forward: Callable[[], tuple[Tensor, Tensors]], among: Sequence[str]
) -> None:
    """See that the gradient does not depend on whether it is pulled inside or outside of the functional call.

    What computes activity a second time in the backward pass, as torch.utils.checkpoint does, would meet the module's
    own parameters there, and not those that the pass was made with.

    Args:
        module: the network.
        forward: makes a pass, and gives its output and the tensors that it was made with.
        among: names of the tensors to differentiate by.

    Raises:
        NetError: if it does.
    """

    def gradients(inside: bool) -> list[Tensor | None]:
        output, given = forward()
        leaves = [given[name] for name in among]
        total = output.double().square().sum() if output.is_floating_point() else output.sum()
        if not inside:
            return list(torch.autograd.grad(total, leaves, allow_unused=True))
        with _reparametrize_module(module, given):
            return list(torch.autograd.grad(total, leaves, allow_unused=True))

    try:
        pairs = zip(gradients(True), gradients(False), strict=True)
        agree = all(
            (a is None) == (b is None)
            and (a is None or b is None or torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True))
            for a, b in pairs
        )
    except RuntimeError as error:
        if "checkpoint" not in str(error):
            raise NetError(f"torch cannot pull a gradient through the network: {error}") from error
        agree = False
    if not agree:
        raise NetError(
            "the network computes activity again in its backward pass (torch.utils.checkpoint), where it would meet "
            "other parameters; call the blocks directly"
        )
