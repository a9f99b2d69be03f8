"""Drives: what the blocks of a network compute without their activation functions, on given activity.

Networks with an energy (equilibrium propagation) and networks of dyads (dual propagation) have units that receive two
inputs: the drive from below, and feedback from above; the activation function is applied to their sum. So these rules
need the drive of each unit alone. Where max-pooling follows an increasing activation function, pooling the drives and
then applying the function gives the same activity: the drive of a pooled unit is the pooled drive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rulezoo.credit.blocks import _check_activity, _replaced, blocks
from rulezoo.net import Net, Tensors
from rulezoo.net.calls import ACTIVATIONS

Activation = Callable[[Tensor], Tensor]

_NOT_OF_ONE_UNIT = {F.prelu, torch.prelu, F.rrelu, F.glu}  # with parameters, random numbers, or two units
_POINTWISE = ACTIVATIONS - _NOT_OF_ONE_UNIT


class Drives(NamedTuple):
    """What drives the units of a network on given activity.

    Attributes:
        sites: key of each ``post`` site → ``(batch, *shape)``, what the block in front of it computes without its activation
            functions.
        output: ``(batch, *out)``, what the last block computes, with its activation functions.
        activations: key of each ``post`` site → the activation functions that were left out, in the order of the pass.
    """

    sites: Tensors
    output: Tensor
    activations: dict[str, tuple[Activation, ...]]


def drives(net: Net, params: Tensors, x: Tensor, given: Mapping[str, Tensor]) -> Drives:
    """Evaluate every block on given activity, without the activation functions in front of ``post`` sites, in one pass.

    Behind a site in ``given`` the network sees the given activity, as in `blocks`. Where a ``post`` site is not given, it
    sees the drive. Left out are the functions that torch applies to each unit alone (`torch.relu`, `torch.tanh`, …);
    everything else stays: pooling, skip connections, normalisation.

    Args:
        net: the network.
        params: its parameters.
        x: inputs, ``(batch, ...)``.
        given: key → activity ``(batch, *shape)``.

    Raises:
        NetError: as `blocks`.
    """
    for key, activity in given.items():
        _check_activity(net, key, activity)
    posts = net.keys("post")
    left_out = _LeavingOut(active=bool(posts))
    sites: Tensors = {}
    found: dict[str, tuple[Activation, ...]] = {}

    def tap(key: str, activity: Tensor) -> Tensor:
        if key in posts:
            sites[key], found[key] = activity, left_out.take()
            left_out.active = len(sites) < len(posts)
        return _replaced(key, activity, given)

    with left_out:
        output = net.run(params, x, tap)
    return Drives(sites, output, found)


def not_of_drives(net: Net, params: Tensors) -> list[str]:
    """Keys of ``post`` sites whose activity is not one activation function of their drive, for the network's example.

    Such are sites behind several layers, sites with average pooling or a skip connection between the activation function
    and the site, and those whose activation function has parameters.
    """
    net = net.evaluation().without_moving()
    with torch.no_grad():
        sites = blocks(net, params, net.example, {}).sites
        activity = {key: sites[key] for key in net.keys("post")}
        found = drives(net, params, net.example, activity)
        return [
            key
            for key, drive in found.sites.items()
            if len(found.activations[key]) != 1
            or not torch.allclose(found.activations[key][0](drive), activity[key])
        ]


class _LeavingOut(TorchFunctionMode):
    """While it is active, activation functions return what they are given."""

    def __init__(self, *, active: bool) -> None:
        super().__init__()
        self.active = active
        self._found: list[Activation] = []

    def take(self) -> tuple[Activation, ...]:
        """The functions that were left out since the last call."""
        found, self._found = tuple(self._found), []
        return found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401  torch's protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if not self.active or func not in _POINTWISE:
            return func(*args, **kwargs)
        given, *more = args if args else (kwargs["input"],)
        named = {name: value for name, value in kwargs.items() if name not in ("input", "inplace")}
        # A copy, since the function may be one that writes into what it is given.
        self._found.append(lambda drive: func(drive.clone(), *more, **named))
        return given
