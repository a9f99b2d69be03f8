"""Which functions of torch a network calls, and a mode that taps some of these calls.

Calls are told apart by the function and by how many calls of it came before in the same pass, so that no module is
replaced and no hook is set. What a call means (a layer, a non-linearity, dropout) is a table here.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rulezoo.net import dropout
from rulezoo.net.errors import NetError
from rulezoo.net.sites import Tap

Function = Callable[..., Any]

LINEAR = frozenset({F.linear})
CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
PRODUCTS = frozenset(
    {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__, Tensor.__rmatmul__}
)

MIXING = (
    LINEAR | PRODUCTS | frozenset(CONVOLUTIONS)
    | {torch.mv, Tensor.mv, torch.dot, Tensor.dot, torch.inner, torch.einsum, torch.tensordot, torch.bmm, Tensor.bmm}
)  # fmt: skip

MULTIPLYING = frozenset(
    {
        torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__, torch.div, Tensor.div,
        Tensor.__truediv__, Tensor.__rtruediv__, torch.addcmul,
    }
)  # fmt: skip

ACTIVATIONS = frozenset(
    {
        F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.leaky_relu, F.leaky_relu_,
        F.elu, F.elu_, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.softsign, F.hardtanh, F.hardtanh_,
        F.hardswish, F.hardsigmoid, F.tanh, torch.tanh, Tensor.tanh, torch.tanh_, Tensor.tanh_, F.sigmoid,
        torch.sigmoid, Tensor.sigmoid, torch.sigmoid_, Tensor.sigmoid_, F.logsigmoid, F.prelu, torch.prelu, F.rrelu,
        F.glu, F.threshold, F.tanhshrink, F.softshrink, F.hardshrink,
    }
)  # fmt: skip

#: Functions that combine activity with a parameter unit by unit, or leave it as it is: no weight mixes units there.
ELEMENTWISE = frozenset(
    {
        F.batch_norm, torch.batch_norm, F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm,
        F.instance_norm, torch.instance_norm, F.rms_norm, F.prelu, torch.prelu,
        torch.cat, torch.concat, torch.stack, torch.where, Tensor.where, torch.maximum, torch.minimum, torch.lerp,
        torch.add, torch.sub, torch.mul, torch.multiply, Tensor.multiply, torch.div, torch.pow, torch.addcmul, torch.addcdiv,
        Tensor.add, Tensor.add_, Tensor.sub, Tensor.sub_, Tensor.mul, Tensor.mul_, Tensor.div, Tensor.div_,
        Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, Tensor.__sub__, Tensor.__rsub__, Tensor.__isub__,
        Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.__truediv__, Tensor.__rtruediv__,
        Tensor.__itruediv__, Tensor.__pow__, Tensor.pow, Tensor.clamp, torch.clamp, Tensor.masked_fill,
        Tensor.masked_fill_, Tensor.expand_as, Tensor.view_as, Tensor.type_as, Tensor.to, Tensor.copy_,
        Tensor.__setitem__, Tensor.__getitem__, torch.index_select, Tensor.index_select, torch.gather, Tensor.gather,
        torch.eq, torch.gt, torch.lt, torch.ge, torch.le, Tensor.__eq__, Tensor.__gt__, Tensor.__lt__, Tensor.__ge__,
        Tensor.__le__, Tensor.new_zeros, Tensor.new_ones, torch.zeros_like, torch.ones_like,
        F.scaled_dot_product_attention, torch.logical_or, torch.logical_and,
    }
)  # fmt: skip

_NORMALISING = {
    F.batch_norm: (1, False),
    F.instance_norm: (1, True),
    torch.batch_norm: (3, True),
    torch.instance_norm: (3, True),
}
"""Function → position of the running mean, which the variance follows; whether it is moved unless the call says no."""


def moved_statistics(func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The running statistics that a call moves. No version counter tells: torch's kernels on a CPU leave it alone."""
    if func not in _NORMALISING:
        return []
    first, moves = _NORMALISING[func]
    flag = "training" if "batch" in func.__name__ else "use_input_stats"
    if not kwargs.get(flag, args[5] if len(args) > 5 else moves):
        return []
    named = [kwargs.get("running_mean"), kwargs.get("running_var")]
    return [t for t in (*args[first : first + 2], *named) if isinstance(t, Tensor)]


OPAQUE = {torch.gru: "gru", torch.lstm: "lstm", torch.rnn_tanh: "rnn", torch.rnn_relu: "rnn"}
"""Whole recurrent layers behind one call: nothing inside can be seen."""


def _opened(function: Any) -> Function:  # noqa: ANN401  a function written in Python
    """A copy of one of torch's composite functions whose inner calls a mode gets to see."""
    scope = {**function.__globals__, "has_torch_function": lambda *_: False}
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


COMPOSITE: dict[Function, Function] = {
    F.multi_head_attention_forward: _opened(F.multi_head_attention_forward)
}


class Place(NamedTuple):
    """A tensor of a forward pass: the output of a call, or its activity on the way in.

    Attributes:
        function: what is called.
        number: how many calls of it came before.
        side: ``"in"``, the argument that holds activity; ``"out"``, the result.
        argument: position of that argument.
    """

    function: Function
    number: int
    side: Literal["in", "out"]
    argument: int = 0


class Calls(TorchFunctionMode):
    """Taps calls at `Place` s, and gives dropout its masks, in one forward pass.

    Args:
        places: where → key of the visit.
        tap: see `rulezoo.net.sites.Tap`.
        totals: function → number of its calls in a pass, for the functions of the places.
        masks: see `rulezoo.net.dropout`; ``None`` = leave dropout to torch.
    """

    def __init__(
        self,
        places: Mapping[Place, str],
        tap: Tap | None,
        totals: Mapping[Function, int],
        masks: Mapping[str, Tensor] | None,
    ) -> None:
        super().__init__()
        self.places = places if tap is not None else {}
        self.tap, self.totals, self.masks = tap, totals, masks
        self.counts: Counter[Function] = Counter()
        self.dropped = 0

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's protocol
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func in COMPOSITE:
            with self:
                return COMPOSITE[func](*args, **kwargs)
        if func in self.totals and self.places:
            return self._tapped(func, args, kwargs)
        return self._plain(func, args, kwargs)

    def _plain(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if self.masks is not None and dropout.drops(func, args, kwargs):
            self.dropped += 1
            return dropout.apply(func, args, kwargs, self.masks, self.dropped - 1)
        return func(*args, **kwargs)

    def _tapped(self, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        number = self.counts[func]
        self.counts[func] += 1
        for argument in (0, 1):
            key = self.places.get(Place(func, number, "in", argument))
            if key is not None:
                args, kwargs = self._replaced(key, args, kwargs, argument)
        result = self._plain(func, args, kwargs)
        key = self.places.get(Place(func, number, "out"))
        return result if key is None else self._at(key, result)

    def _at(self, key: str, activity: Tensor) -> Tensor:
        assert self.tap is not None
        return self.tap(key, activity)

    def _replaced(
        self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any], argument: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if argument < len(args):
            return (*args[:argument], self._at(key, args[argument]), *args[argument + 1 :]), kwargs
        return args, kwargs | {"input": self._at(key, kwargs["input"])}

    def check(self) -> None:
        """See that the pass made the calls that were there when the network was read.

        Raises:
            NetError: if it made another number of them.
        """
        for function, total in self.totals.items():
            if self.places and self.counts[function] != total:
                raise NetError(
                    f"the network called {getattr(function, '__name__', function)} {self.counts[function]} times, and "
                    f"{total} times when it was read: its course depends on its input; give it rulezoo.Site modules "
                    "in place of add_sites"
                )
