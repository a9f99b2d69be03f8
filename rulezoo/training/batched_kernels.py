"""Faster convolution and pooling for a step of several seeds on a CPU, where plain vmap is slow.

vmap makes one convolution of many groups out of the convolutions of S networks, with the seeds next to the
channels: ``(batch, S * channels, height, width)``. With the channels last in memory that is faster, up to four times
for the few channels of an input; and so is max-pooling, ten times. So the batch is laid out that way
(`channels_last`), every layer keeps the layout that it is given, and pooling leaves the seeds next to the channels
(`Pooling`), where vmap would copy them next to the examples. Measured in ``benchmarks/seeds_together.md``, where it also
says what was tried and did not pay. A network on its own is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MIN_SEEDS = 4  #: number of seeds from which this is faster; functorch takes a millisecond of a step for an autograd function


def channels_last(x: Tensor) -> Tensor:
    """Images of many seeds, ``(S, batch, channels, height, width)``, with seeds and channels last in memory.

    Whatever is no image, or not on a CPU, is given back as it is.
    """
    if x.ndim != 5 or x.device.type != "cpu":
        return x
    return x.permute(1, 3, 4, 0, 2).contiguous().permute(3, 0, 4, 1, 2)


class Pooling(TorchFunctionMode):
    """While it is active, max-pooling of images on a CPU goes through `_MaxPool`, in any network.

    Average pooling over whole maps is their mean, which vmap can take with the channels last.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401  torch's protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is F.max_pool2d and not kwargs.get("return_indices"):
            x, window = _pooling(*args, **kwargs)
            if x.ndim == 4 and x.device.type == "cpu":
                return _MaxPool.apply(x, window)[0]
        if func is F.adaptive_avg_pool2d and not kwargs and args[1] in (1, (1, 1)):
            return args[0].mean((-2, -1), keepdim=True)  # torch has no batching rule for its kernel
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _Window:
    """The arguments of `F.max_pool2d` after the input, as its kernels want them; no tuple: functorch would look into it."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    def arguments(self) -> tuple[object, ...]:
        return self.size, self.stride, self.padding, self.dilation, self.ceil_mode


_Ints = int | tuple[int, int]


def _pooling(
    input: Tensor,  # noqa: A002  torch's name
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, _Window]:
    window = _Window(
        _pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation), ceil_mode
    )
    return input, window


def _pair(value: _Ints) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class _MaxPool(torch.autograd.Function):
    """``x -> (largest, where)``, for ``(batch, channels, height, width)``."""

    @staticmethod
    def forward(x: Tensor, window: _Window) -> tuple[Tensor, Tensor]:
        pooled, where = torch.ops.aten.max_pool2d_with_indices(x, *window.arguments())
        return pooled, where

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Window], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])
        ctx.save_for_forward(output[1])
        ctx.window = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return _Spread.apply(grad, *ctx.saved_tensors, ctx.window), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, None]:  # noqa: ANN401
        return _pick(tangent, *ctx.saved_tensors), None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, None],
        x: Tensor,
        window: _Window,
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        pooled, where = _MaxPool.apply(_fold(x, in_dims[0], info.batch_size), window)
        return (pooled.unflatten(1, (info.batch_size, -1)), where.unflatten(1, (info.batch_size, -1))), (1, 1)


class _Spread(torch.autograd.Function):
    """The adjoint of `_MaxPool`: each number goes back to where the largest activity was."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor, where: Tensor, window: _Window) -> Tensor:
        spread: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *window.arguments(), where)
        return spread

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
        ctx.save_for_backward(inputs[2])
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        return _pick(grad, *ctx.saved_tensors), None, None, None

    @staticmethod
    def vmap(
        info: Any,  # noqa: ANN401
        in_dims: tuple[int | None, ...],
        grad: Tensor,
        x: Tensor,
        where: Tensor,
        window: _Window,
    ) -> tuple[Tensor, int]:
        folded = (_fold(t, dim, info.batch_size) for t, dim in zip((grad, x, where), in_dims, strict=False))
        spread: Tensor = _Spread.apply(*folded, window)
        return spread.unflatten(1, (info.batch_size, -1)), 1  # type: ignore[no-untyped-call]  # torch's annotation


def _pick(x: Tensor, where: Tensor) -> Tensor:
    """The numbers of every map at the places ``where``, counted row by row."""
    return x.flatten(-2).gather(-1, where.flatten(-2)).view(where.shape)


def _fold(x: Tensor, dim: int | None, seeds: int) -> Tensor:
    """``(batch, seeds * channels, height, width)`` with channels last in memory; seeds at ``dim``, or the same for all.

    In one copy, or none if it lies so. Said in strides, since a second vmap around it would not know the layout's name.
    """
    beside = x.unsqueeze(1).expand(-1, seeds, *x.shape[1:]) if dim is None else x.movedim(dim, 1)
    return beside.permute(0, 3, 4, 1, 2).contiguous().flatten(3).permute(0, 3, 1, 2)
