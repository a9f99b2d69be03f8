"""Passes through a network: the plain gradient, the graph cut behind sites, and the error at the output."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo.credit.derivatives import value_and_pull
from rulezoo.net import Net, Tensors

Loss = Callable[[Tensor, Tensor], Tensor]


def rows(activity: Tensor) -> Tensor:
    """Activity, outputs or errors as ``(batch, numbers of one example)``, also where an example is one number."""
    return activity.reshape(len(activity), -1)


def output_error(loss: Loss, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The error at the output, and the mean loss.

    Args:
        loss: per example, ``(batch, *out), targets -> (batch,)``.
        output: ``(batch, *out)``.
        target: ``(batch, ...)``.

    Returns:
        The gradient of the mean loss with respect to the output, ``(batch, *out)``, in float32 or more precise; the
        mean loss, a scalar.
    """
    mean, pull = value_and_pull(lambda y: loss(y, target).mean(), output)
    error: Tensor = pull(torch.ones_like(mean))
    return error.to(torch.promote_types(error.dtype, torch.float32)), mean


def backprop(
    net: Net, loss: Loss, params: Tensors, x: Tensor, y: Tensor, only: Collection[str] | None = None
) -> tuple[Tensors, Tensor]:
    """The exact gradient of the mean loss with respect to the parameters, and the mean loss.

    Args:
        net: the network.
        loss: per example.
        params: its parameters.
        x: inputs, ``(batch, ...)``.
        y: targets, ``(batch, ...)``.
        only: names of the parameters to differentiate by; ``None`` = all. The others cost no backward pass.
    """
    chosen = params if only is None else {name: params[name] for name in params if name in only}
    mean, pull = value_and_pull(lambda p: loss(net.run({**params, **p}, x), y).mean(), chosen)
    grads: Tensors = pull(torch.ones_like(mean))
    return grads, mean


class Cut(NamedTuple):
    """A forward pass whose graph was cut behind some sites.

    Attributes:
        output: ``(batch, *out)``.
        sites: key → activity ``(batch, *shape)`` of every site that was cut.
        pull: ``pull(error, signals) -> grads``: the gradient of ⟨output, error⟩ + Σ ⟨site, signal⟩ with respect to
            the parameters; a site without a signal gets zero. No signal crosses a cut. Call it once: the graph is
            freed.
    """

    output: Tensor
    sites: Tensors
    pull: Callable[[Tensor, Tensors], Tensors]


def cut(net: Net, params: Tensors, x: Tensor, keys: Collection[str]) -> Cut:
    """One forward pass with the graph cut behind the sites ``keys``.

    Behind a cut no gradient with respect to a block's input exists, so the pull-back of a network that is cut at
    every layer costs the weight gradients alone.

    Args:
        net: the network.
        params: its parameters.
        x: inputs, ``(batch, ...)``.
        keys: visits of sites, as in ``net.visits``.
    """

    def forward(p: Tensors) -> tuple[Tensor, Tensors]:
        sites: Tensors = {}

        def tap(key: str, activity: Tensor) -> Tensor:
            if key not in keys:
                return activity
            sites[key] = activity
            return activity.detach()

        output = net.run(p, x, tap)
        return output, sites

    (output, sites), vjp = value_and_pull(forward, params)

    def pull(error: Tensor, signals: Tensors) -> Tensors:
        every = {
            key: signals[key].to(site.dtype) if key in signals else torch.zeros_like(site)
            for key, site in sites.items()
        }
        grads: Tensors = vjp((error.to(output.dtype), every))
        return grads

    return Cut(output, sites, pull)


def site_gradients(
    net: Net, loss: Loss, params: Tensors, x: Tensor, y: Tensor, keys: Collection[str]
) -> Tensors:
    """The true gradient of the mean loss with respect to the activity at the sites ``keys``, by backprop.

    Returns:
        key → ``(batch, *shape)``. For probes and tests; a rule that calls it is backprop.
    """

    def with_offsets(offsets: Tensors) -> Tensor:
        output = net.run(params, x, lambda key, h: h + offsets[key] if key in offsets else h)
        return loss(output, y).mean()

    zeros = {key: net.zeros(key, len(x)) for key in keys}
    mean, pull = value_and_pull(with_offsets, zeros)
    gradients: Tensors = pull(torch.ones_like(mean))
    return gradients
