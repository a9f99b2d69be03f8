"""Marks on what a rule computes with a network's weights past `Net.run`, for `rulezoo.measures.locality`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from rulezoo.measures.locality import Marked
from rulezoo.net import Tensors
from rulezoo.testing.watch import Watch, products


@contextmanager
def marking_products(net: Marked, params: Tensors) -> Iterator[None]:
    """Mark the input and the result of every product with the rows of a weight that `Net.run` does not make."""
    watch = Watch(params)
    with watch.watching(), _Marking(net, watch):
        yield


class _Marking(TorchFunctionMode):
    def __init__(self, net: Marked, watch: Watch) -> None:
        super().__init__()
        self.net, self.watch, self.number = net, watch, 0

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's protocol
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if self.watch.running or not any(
            self.watch.named(weight) for _, weight in products(func, args, kwargs)
        ):
            return func(*args, **kwargs)
        self.number += 1
        name = f"by hand {self.number}"

        def into(value: Any) -> Any:  # noqa: ANN401
            if not isinstance(value, Tensor) or self.watch.is_weight(value):
                return value
            return self.net.into_layer(value, name)

        result: Tensor = func(*map(into, args), **{key: into(value) for key, value in kwargs.items()})
        return self.net.out_of_layer(result, name)
