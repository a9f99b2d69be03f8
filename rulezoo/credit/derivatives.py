"""The value of a function with its pull-back or its derivative along a direction, inside and outside of torch's transforms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class Pull(Protocol):
    """The pull-back of a function at a point."""

    def __call__(self, cotangents: Any, *, keep: bool = False) -> Any:  # noqa: ANN401  whatever structure they have
        """The gradient of ⟨value, cotangents⟩ with respect to the point, of the point's structure.

        Args:
            cotangents: one for each tensor of the value, of the value's structure.
            keep: keep the graph, to pull back again; otherwise it is freed, and this was the last call.
        """
        ...


def value_and_pull(function: Callable[[Any], Any], at: Any) -> tuple[Any, Pull]:  # noqa: ANN401  a tensor, or tensors
    """The value of a function at a point, and its pull-back.

    Under `torch.func.vmap`, and in compiled code, this is ``torch.func.vjp``. Outside of any transform it is plain
    autograd, which gives the same numbers at a lower price: functorch wraps every tensor, and an `autograd.Function`
    costs it several times as much. It gives first derivatives: neither the value nor what is pulled back carries a
    graph, except that of a transform around it.

    Args:
        function: takes what ``at`` is, and returns a tensor or a structure of tensors.
        at: a tensor, or a dictionary, list or tuple of tensors.

    Returns:
        The value, and a `Pull`: ``pull(cotangents)`` is the gradient of ⟨value, cotangents⟩ with respect to ``at``. It
        frees the graph, so call it once, or with ``keep=True`` but for the last time.
    """
    if torch.compiler.is_compiling() or _transformed():
        return _by_functorch(function, at)
    return _by_autograd(function, at)


def grad(function: Callable[[Any], Tensor], at: Any) -> Any:  # noqa: ANN401
    """The gradient of a scalar function at a point, of the point's structure; see `value_and_pull`.

    Raises:
        ValueError: if the function's value is not a scalar.
    """
    value, pull = value_and_pull(function, at)
    if not isinstance(value, Tensor) or value.shape != ():
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"credit.grad differentiates a scalar, and the function returned {got}; sum or average it over the batch, "
            "or use credit.value_and_pull"
        )
    return pull(torch.ones_like(value))


def value_and_derivative(function: Callable[[Any], Any], at: Any, direction: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """The value of a function at a point, and its derivative along a direction, in one pass of forward-mode differentiation.

    Nothing is stored for a backward pass, and it works under vmap.

    Args:
        function: takes what ``at`` is, and returns a tensor or a structure of tensors.
        at: a tensor, or a dictionary, list or tuple of tensors.
        direction: of the structure and shapes of ``at``.

    Returns:
        The value; and the Jacobian times the direction, of the value's structure and shapes.
    """
    with (
        warnings.catch_warnings()
    ):  # torch loads its forward-mode formulas through a deprecated part of itself
        warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
        value, derivative = torch.func.jvp(function, (at,), (direction,))[:2]
    return value, derivative


def _transformed() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None  # there is no public way to ask


def _by_functorch(function: Callable[[Any], Any], at: Any) -> tuple[Any, Pull]:  # noqa: ANN401
    result = torch.func.vjp(function, at)
    value, vjp = result[0], result[1]

    def pull(cotangents: Any, *, keep: bool = False) -> Any:  # noqa: ANN401
        # Left to itself it would record the backward pass too, for second derivatives: a fifth of the time of a step.
        return vjp(cotangents, retain_graph=keep, create_graph=False)[0]

    return value, pull


def _by_autograd(function: Callable[[Any], Any], at: Any) -> tuple[Any, Pull]:  # noqa: ANN401
    flat, structure = tree_flatten(at)
    leaves = [tensor.detach().requires_grad_() for tensor in flat]
    with torch.enable_grad():
        values, shape = tree_flatten(function(tree_unflatten(leaves, structure)))

    def pull(cotangents: Any, *, keep: bool = False) -> Any:  # noqa: ANN401
        flat_cotangents, given = tree_flatten(cotangents)
        if given != shape:  # their values would be taken for those of others
            raise ValueError(
                f"the cotangents have the structure {given}, and the value has {shape}; give one for each tensor of the value, "
                "dictionaries with the same keys in the same order"
            )
        pairs = zip(values, flat_cotangents, strict=True)
        reached = [(value, cotangent) for value, cotangent in pairs if value.requires_grad]
        if not reached:  # nothing depends on what is differentiated by
            return tree_unflatten([torch.zeros_like(leaf) for leaf in leaves], structure)
        outputs, grads = zip(*reached, strict=True)
        found = torch.autograd.grad(
            outputs, leaves, grads, retain_graph=keep, allow_unused=True, materialize_grads=True
        )
        return tree_unflatten(list(found), structure)

    return tree_unflatten([value.detach() for value in values], shape), pull
