"""Dropout whose masks are arguments: the same for every rule, and the same in all passes of a step.

A mask is drawn as uniform numbers u, one for each unit that is dropped on its own; a unit is kept where u ≥ p. Row r of
a pass has the mask of example r modulo the rows that were drawn, so that a pass with perturbed copies of a batch, one
after another, drops in each copy what the batch drops. The first axis may also hold several rows of each example, one
after another, as the heads of attention are laid out in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo.net.errors import NetError

_WHOLE_MAPS = {F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}  # function → dimensions of a map
_ALPHA = frozenset({F.alpha_dropout, torch.alpha_dropout})
_PLAIN = frozenset({F.dropout, torch.dropout})
_ATTENTION = F.scaled_dot_product_attention
_SELU = -1.7580993408473766  # the value that SELU takes at minus infinity, F.alpha_dropout


def drops(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call drops something."""
    if func is _ATTENTION:
        return bool(_attention(*args, **kwargs)["dropout_p"] > 0)
    if func not in _PLAIN and func not in _ALPHA and func not in _WHOLE_MAPS:
        return False
    _, p, training = _given(*args, **kwargs)
    return training and p > 0


def mask_shape(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the numbers that a call needs: one for each unit, map or pair of tokens."""
    if func is _ATTENTION:
        given = _attention(*args, **kwargs)
        return (*given["query"].shape[:-1], given["key"].shape[-2])
    x = _given(*args, **kwargs)[0]
    dims = _WHOLE_MAPS.get(func, 0)
    return (*x.shape[: x.ndim - dims], *(1,) * dims)


def apply(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    masks: Mapping[str, Tensor],
    number: int,
) -> Tensor:
    """What the call returns with the mask ``number``."""
    if str(number) not in masks:
        raise NetError(
            f"the network drops out {number + 1} times or more, and {len(masks)} times when it was read: its course "
            "depends on its input"
        )
    u = _rows(masks[str(number)], mask_shape(func, args, kwargs))
    if func is _ATTENTION:
        return _attend(u, **_attention(*args, **kwargs))
    x, p, _ = _given(*args, **kwargs)
    dropped = _dropped(func, x, p, (u >= p).to(x.dtype))
    in_place = kwargs.get("inplace", args[3] if len(args) > 3 else False)
    return x.copy_(dropped) if in_place else dropped


def _dropped(func: Callable[..., Any], x: Tensor, p: float, kept: Tensor) -> Tensor:
    if func in _ALPHA:
        scale = 0.0 if p == 1 else ((1 - p) * (1 + p * _SELU**2)) ** -0.5
        return (x * kept + _SELU * (1 - kept)) * scale - scale * _SELU * p
    return x * kept / (1 - p) if p < 1 else x * 0


def _rows(u: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The numbers for a pass with ``shape[0]`` rows."""
    if u.shape[1:] != shape[1:]:
        raise NetError(
            f"dropout acts on shape {shape} where it acted on {tuple(u.shape)} when the network was read: the first "
            "axis must be the batch (batch_first=True), and the others must not change"
        )
    if shape[0] == len(u):
        return u
    return u[torch.arange(shape[0], device=u.device) % len(u)]


def _given(
    input: Tensor,  # noqa: A002  torch's name
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    train: bool | None = None,
) -> tuple[Tensor, float, bool]:
    return input, p, training if train is None else train


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> dict[str, Any]:
    return {
        "query": query, "key": key, "value": value, "attn_mask": attn_mask, "dropout_p": dropout_p,
        "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa,
    }  # fmt: skip


def _attend(
    u: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """Attention as torch defines it, with a mask on its weights (documentation of scaled_dot_product_attention)."""
    if enable_gqa:
        raise NetError("grouped-query attention with dropout is not supported; set its dropout to 0")
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    weights = scores.softmax(-1)
    kept = (u >= dropout_p).to(weights.dtype)
    return (weights * kept / (1 - dropout_p)) @ value
