"""What a rule does with a network while it takes a step, seen from outside.

A network's layers are recognised by the values of their weights: whether a rule calls `Net.run`, the module itself, a
copy of it, or multiplies with a copy of a weight makes no difference to what is seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from rulezoo.credit.feedback import Rows, convolution_arguments
from rulezoo.net import Net, Tap, Tensors
from rulezoo.net.calls import CONVOLUTIONS, LINEAR, PRODUCTS

_CONVOLUTION = {dims: func for func, dims in CONVOLUTIONS.items()}
_WITH_VECTOR = frozenset({torch.mv, Tensor.mv})


class Watch:
    """What was seen.

    Args:
        params: the network's parameters.

    Attributes:
        rows: name of a weight → all that its rows were multiplied with, forwards, each ``(n, weight[0].numel())``.
        passes: how many passes `Net.run` made.
        modules: names of the classes of modules that hold weights of the network and were called past `Net.run`.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.rows: dict[str, list[Tensor]] = {}
        self.passes = 0
        self.modules: set[str] = set()
        self.running = 0
        self._weights = {name: p.detach() for name, p in params.items() if p.ndim > 1}
        self._given: Tensors = {}  # weights that a pass is made with, where they are others

    def named(self, weight: Tensor) -> list[str]:
        """Names of the weights that have these values, ``(out, in)`` or as they are."""
        known = [*self._weights.items(), *self._given.items()]
        flat = weight.flatten(1) if weight.ndim > 1 else weight
        return list(dict.fromkeys(name for name, own in known if _equal(flat, own.flatten(1))))

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor has the values of a weight, or of a transposed one."""
        plain = unwrapped(tensor)
        return plain.ndim > 1 and bool(self.named(plain) or (plain.ndim == 2 and self.named(plain.mT)))

    def see(self, inputs: Tensor, weight: Tensor) -> None:
        """Take notice of a product of inputs ``(…, in)`` with the rows of a weight ``(out, in)``."""
        for name in self.named(weight):
            kept = self.rows.setdefault(name, [])
            kept += [part.reshape(-1, part.shape[-1]) for part in values_of(inputs)]

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """See what is done meanwhile."""
        run = Net.run

        def watched(net: Net, params: Mapping[str, Tensor], x: Tensor, tap: Tap | None = None) -> Tensor:
            before = self._given
            self._given = {n: unwrapped(p) for n, p in params.items() if n in self._weights}
            self.running, self.passes = self.running + 1, self.passes + 1
            try:
                return run(net, params, x, tap)
            finally:
                self.running, self._given = self.running - 1, before

        with ExitStack() as stack:
            handle = register_module_forward_pre_hook(self._called)
            stack.callback(handle.remove)
            stack.enter_context(patch.object(Net, "run", watched))
            stack.enter_context(_Products(self.see))
            yield self

    def _called(self, module: nn.Module, _args: object) -> None:
        if not self.running and any(self.named(unwrapped(p)) for p in module.parameters() if p.ndim > 1):
            self.modules.add(type(module).__name__)


class _Products(TorchFunctionMode):
    """Shows every product of activity with the rows of a matrix."""

    def __init__(self, see: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's protocol
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        for inputs, weight in products(func, args, kwargs or {}):
            self.see(inputs, weight)
        return func(*args, **(kwargs or {}))


def products(
    func: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Iterator[tuple[Tensor, Tensor]]:
    """The products ``inputs (…, in) @ weight (out, in).T`` that a call may be; the patches of a convolution.

    A product with a matrix from the other side (an error with the columns of a weight) is not the same, and a matrix
    that is made by two factors is both.
    """
    if func in LINEAR:
        yield _first(args, kwargs, "input", 0), unwrapped(_first(args, kwargs, "weight", 1))
    elif func in CONVOLUTIONS:
        x, weight, _, geometry = convolution_arguments(CONVOLUTIONS[func], args, dict(kwargs))
        yield Rows(x, tuple(weight.shape[2:]), geometry).all(), unwrapped(weight).flatten(1)
    elif func is torch.convolution and len(args) == 9 and not args[6]:  # not transposed; groups come last
        yield from products(_CONVOLUTION[args[1].ndim - 2], (*args[:6], args[8]), {})
    elif func in (torch.addmm, Tensor.addmm) and len(args) >= 3:
        yield from _sides(args[1], args[2])
    elif func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
        yield from _summed(*args)
    elif func in PRODUCTS | _WITH_VECTOR and len(args) == 2:
        left, right = reversed(args) if func is Tensor.__rmatmul__ else args
        yield from _sides(left, right)


def _sides(left: Tensor, right: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return
    if right.ndim == 2:
        yield left, unwrapped(right).mT
    if left.ndim == 2:
        yield right if right.ndim == 1 else right.mT, unwrapped(left)


def _summed(equation: str, left: Tensor, right: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    inside, _, out = equation.replace(" ", "").partition("->")
    one, _, other = inside.partition(",")
    for x, xs, weight, ws in ((left, one, right, other), (right, other, left, one)):
        over = [letter for letter in ws if letter in xs and letter not in out]
        if weight.ndim == 2 and len(ws) == 2 and len(over) == 1 and x.ndim == len(xs):
            matrix = unwrapped(weight)
            yield x.movedim(xs.index(over[0]), -1), matrix if ws[1] == over[0] else matrix.mT


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str, at: int) -> Tensor:
    found: Tensor = args[at] if len(args) > at else kwargs[name]
    return found


def values_of(tensor: Tensor) -> list[Tensor]:
    """The numbers of a tensor inside of transforms, and those of its tangent in forward-mode differentiation."""
    dual = forward_ad._current_level >= 0
    primal, tangent = forward_ad.unpack_dual(tensor) if dual else (tensor, None)  # type: ignore[no-untyped-call]
    return [unwrapped(part) for part in (primal, tangent) if part is not None]


def unwrapped(tensor: Tensor) -> Tensor:
    """A tensor without the wrappings of torch.func; what vmap hides comes first."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        hidden = functorch.maybe_get_bdim(tensor) if functorch.is_batchedtensor(tensor) else -1
        tensor = functorch.get_unwrapped(tensor)
        tensor = tensor.movedim(hidden, 0) if hidden > 0 else tensor
    return tensor.detach()


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
