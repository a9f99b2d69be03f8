"""What rules for spiking networks need to know of one: its layers, and how its read-out weights spikes over time.

A network is served if each of its ``post`` sites holds the spikes of a layer and is visited once per step, with a ``pre``
site on what decides on a spike in front of it; if neurons remember more than their sites hold (a membrane potential, an
adaptation), each its own; and if the read-out is linear in the spikes of the last layer, whatever it does with time. All of
this is seen by running the network, not read off its class.

Letters: b batch, t steps from 0 to T - 1, r steps at which the network answers, o numbers in one answer, n units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Net, credit

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class SpikingLayer:
    """A layer of spiking neurons.

    Attributes:
        site: name of the site that holds its spikes.
        post: the visits of that site, one for each step.
        pre: the visits of the site in front of it.
        width: n.
        weights: names of the weights that drive it, from the layer below and from itself.
    """

    site: str
    post: tuple[str, ...]
    pre: tuple[str, ...]
    width: int
    weights: tuple[str, ...]


def spiking_layers(net: Net) -> tuple[SpikingLayer, ...]:
    """The layers, from the input to the read-out; ask `why_not_spiking` first."""
    visits: dict[str, list[tuple[str, str]]] = {}
    pre = ""
    for key, visit in net.visits.items():
        if visit.kind == "pre":
            pre = key
        elif visit.kind == "post":
            visits.setdefault(visit.site, []).append((pre, key))
    return tuple(
        SpikingLayer(
            site,
            post=tuple(post for _, post in pairs),
            pre=tuple(pre for pre, _ in pairs),
            width=net.visits[pairs[0][1]].width,
            weights=tuple(one.weights[0] for one in net.layers if pairs[0][0] in one.pre),
        )
        for site, pairs in visits.items()
    )


def read_out(net: Net) -> str:
    """Name of the one weight ``(o, n)`` between the spikes of the last layer and an answer; ask `why_not_spiking` first."""
    name = _read_out(net)
    if name is None:
        raise ValueError("the read-out is not one linear layer; ask why_not_spiking before")
    return name


def _read_out(net: Net) -> str | None:
    layers, weights = spiking_layers(net), [name for name in net.readout if len(net.shapes[name]) > 1]
    if len(weights) != 1 or net.shapes[weights[0]] != (*net.output_shape[-1:], layers[-1].width):
        return None
    return weights[0] if weights[0] in credit.feedback_layers(net, net.init_params()) else None


@torch.no_grad()
def read_out_kernel(net: Net) -> Tensor:
    """K, ``(r, T)``: the weight of the last layer's spikes at step t in the r-th answer, over that of the read-out."""
    params, layers, name = net.init_params(), spiking_layers(net), read_out(net)
    steps = len(layers[-1].post)
    probe = {n: torch.zeros_like(params[n]) for n in net.readout}
    probe[name][0, 0] = 1.0
    x = net.example[:1].expand(steps, *net.example.shape[1:])
    spikes = {key: net.zeros(key, steps) for one in layers for key in one.post}
    for t, key in enumerate(layers[-1].post):
        spikes[key][t, 0] = 1.0
    answers = credit.blocks(net, {**params, **probe}, x, spikes).output
    return answers.view(steps, -1, answers.shape[-1])[..., 0].T


def why_not_spiking(net: Net) -> str | None:
    """A sentence if the network is not one of spiking layers as this module means it, else ``None``."""
    posts = {site: [k for k in net.keys("post") if net.visits[k].site == site] for site in _sites(net)}
    if not any(key.endswith("]") for key in net.keys("post")):
        return "it needs neurons that spike in time, and no site of kind 'post' is visited at every time step"
    if len(set(map(len, posts.values()))) > 1 or len(net.keys("post")) == len(posts):
        return "the sites of kind 'post' must all be visited equally often, and more than once"
    if any(len(net.visits[key].shape) != 1 for key in net.keys("post")):
        return "a spiking layer must be a vector of units"
    layers = spiking_layers(net)
    pres = [key for one in layers for key in one.pre]
    if sorted(pres) != sorted(net.keys("pre")):
        return (
            "each site of kind 'post' needs a site of kind 'pre' in front of it, on what decides on a spike"
        )
    if net.example.shape[1:2] != (len(layers[0].post),) or not net.example.is_floating_point():
        return "inputs must be floating-point numbers of shape (batch, time, ...), a step for each visit of a site"
    if not _remembers(net, layers):
        return (
            "its neurons remember nothing but what their sites of kind 'post' hold, so they are rate neurons, and rules "
            "for rate networks serve them, such as e-prop and rflo"
        )
    if mixed := _mixed(net, layers):
        return f"a neuron of site {mixed!r} depends on a synapse of another one by something else than spikes"
    if _read_out(net) is None or not _is_linear(net, layers):
        return "the read-out must be linear in the spikes of the last layer, by one weight"
    return None


def _sites(net: Net) -> list[str]:
    return list(dict.fromkeys(net.visits[key].site for key in net.keys("post")))


@torch.no_grad()
def _decisions(net: Net, params: Mapping[str, Tensor], x: Tensor, spikes: Tensors) -> Tensors:
    """What decides on spikes, at every ``pre`` site, if other neurons see the given spikes."""
    return {
        k: h for k, h in credit.blocks(net, dict(params), x, spikes).sites.items() if k in net.keys("pre")
    }


def _remembers(net: Net, layers: tuple[SpikingLayer, ...]) -> bool:
    """Whether what decides at the last step depends on the input of the first, with all spikes held."""
    params, x = net.init_params(), net.example
    held = {key: net.zeros(key, len(x)) for one in layers for key in one.post}
    before = _decisions(net, params, x, held)
    after = _decisions(net, params, torch.cat([x[:, :1] * 3 + 1, x[:, 1:]], 1), held)
    last = layers[0].pre[-1]
    return not torch.allclose(before[last], after[last])


def _mixed(net: Net, layers: tuple[SpikingLayer, ...]) -> str | None:
    """The site of a layer in which a weight of one neuron moves another one, with all spikes held; ``None`` if there is none."""
    params, x = net.init_params(), net.example
    held = {key: torch.ones_like(net.zeros(key, len(x))) for one in layers for key in one.post}
    before = _decisions(net, params, x, held)
    for layer in layers:
        for name in layer.weights:
            weight = params[name].clone() if name in params else None
            if weight is None or weight.ndim != 2 or len(weight) != layer.width:
                return layer.site
            weight[0] += 1.0
            after = _decisions(net, {**params, name: weight}, x, held)
            if any(not torch.equal(before[key][:, 1:], after[key][:, 1:]) for key in layer.pre):
                return layer.site
    return None


@torch.no_grad()
def _is_linear(net: Net, layers: tuple[SpikingLayer, ...]) -> bool:
    """Whether the answers to random activity of all layers follow from the kernel."""
    params, name, gen = net.init_params(), read_out(net), torch.Generator().manual_seed(0)
    spikes = {
        key: net.normal(net.zeros(key, 2).shape, gen).to(net.visits[key].dtype)
        for one in layers
        for key in one.post
    }
    x = net.example[:1].expand(2, *net.example.shape[1:])
    answers, silent = (
        credit.blocks(net, params, x, given).output
        for given in (spikes, {key: torch.zeros_like(z) for key, z in spikes.items()})
    )
    last = torch.stack([spikes[key] for key in layers[-1].post], 1)
    expected = read_out_kernel(net) @ last @ params[name].T
    return torch.allclose((answers - silent).view_as(expected), expected, rtol=1e-4, atol=1e-5)
