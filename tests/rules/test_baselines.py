from __future__ import annotations

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, Site, State
from rulezoo_plugins.baselines.backprop import Backprop, Frozen

RTOL = 1e-12  # float64: autograd adds in the same order


def step(rule, tiny):
    params = tiny.params()
    return rule.step(tiny.net, tiny.task.loss, params, State(), tiny.batch(), {}, 0)


def autograd(tiny):
    leaves = {name: p.requires_grad_() for name, p in tiny.params().items()}
    x, y = tiny.batch()
    mean = tiny.task.loss(tiny.net.run(leaves, x), y).mean()
    return dict(zip(leaves, torch.autograd.grad(mean, list(leaves.values())), strict=True)), mean.detach()


def test_backprop_is_autograd(tiny):
    true, mean = autograd(tiny)

    got = step(Backprop(), tiny)

    assert got.grads.keys() == true.keys()
    for name, grad in true.items():
        torch.testing.assert_close(got.grads[name], grad, rtol=RTOL, atol=1e-15)
    assert torch.equal(got.loss, mean)


def test_frozen_trains_the_read_out_exactly_and_leaves_the_rest_alone(tiny):
    true, mean = autograd(tiny)

    got = step(Frozen(), tiny)

    assert got.grads.keys() == tiny.net.readout
    for name in tiny.net.readout:
        torch.testing.assert_close(got.grads[name], true[name], rtol=RTOL, atol=1e-15)
    assert torch.equal(got.loss, mean)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sequential(nn.Linear(5, 3)), "nothing would be frozen"),
        (nn.Sequential(nn.Linear(5, 3), Site()), "nothing would learn"),
    ],
    ids=["no site", "no read-out"],
)
def test_frozen_says_when_it_would_be_backprop_or_nothing(mlp, module, reason):
    net = Net(module, Batch(*mlp.batch()).x.float())

    assert reason in Frozen().skip(net, mlp.task)
    assert Frozen().skip(mlp.net, mlp.task) is None
