"""Drives on given activity, held to networks written out in float64: blocks without their activation functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Net, Site, credit
from rulezoo.net import NetError
from rulezoo.testing import tiny_net

ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(got, wanted):
    torch.testing.assert_close(got, wanted, **ROUNDING)


def given_at(net, rows):
    return {
        key: draw(rows, *net.visits[key].shape, seed=i) for i, key in enumerate(net.keys("post"), start=1)
    }


class Chain(nn.Sequential):
    """A layer, what follows it, a ``post`` site, and a read-out."""

    def __init__(self, *behind):
        super().__init__(nn.Linear(5, 6), *behind, Site("post"), nn.Linear(6, 3))


def net_of(module, example):
    return Net(module.double(), example)


def test_of_a_perceptron():
    tiny = tiny_net("mlp")
    p, x = tiny.params(), tiny.batch().x
    given = given_at(tiny.net, len(x))

    found = credit.drives(tiny.net, p, x, given)

    assert list(found.sites) == ["post1", "post2"]
    assert_close(found.sites["post1"], x @ p["fc1.weight"].T + p["fc1.bias"])
    assert_close(found.sites["post2"], given["post1"] @ p["fc2.weight"].T + p["fc2.bias"])
    assert_close(found.output, given["post2"] @ p["readout.weight"].T + p["readout.bias"])


def test_pooling_and_skip_connections_stay():
    tiny = tiny_net("cnn")
    p, x = tiny.params(), tiny.batch().x
    given = given_at(tiny.net, len(x))

    found = credit.drives(tiny.net, p, x, given)

    conv1 = F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1)
    conv2 = F.conv2d(given["post1"], p["conv2.weight"], p["conv2.bias"], padding=1)
    assert (conv1 < 0).any(), "or a rectifier would go unnoticed"
    assert_close(found.sites["post1"], F.max_pool2d(conv1, 2))
    assert_close(found.sites["post2"], given["post1"] + conv2)
    assert_close(found.output, given["post2"].flatten(1) @ p["readout.weight"].T + p["readout.bias"])


def test_behind_a_site_that_is_not_given_is_its_drive():
    tiny = tiny_net("mlp")
    p, x = tiny.params(), tiny.batch().x

    found = credit.drives(tiny.net, p, x, {})

    first = x @ p["fc1.weight"].T + p["fc1.bias"]
    assert_close(found.sites["post2"], first @ p["fc2.weight"].T + p["fc2.bias"])


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.ReLU(), torch.relu),
        (nn.ReLU(inplace=True), torch.relu),
        (nn.Tanh(), torch.tanh),
        (nn.Sigmoid(), torch.sigmoid),
        (nn.LeakyReLU(0.3), lambda u: F.leaky_relu(u, 0.3)),
        (nn.Hardtanh(0, 1), lambda u: u.clamp(0, 1)),
        (nn.Softplus(beta=2), lambda u: F.softplus(u, beta=2)),
    ],
    ids=lambda one: str(one) if isinstance(one, nn.Module) else "",
)
def test_the_activation_function_is_returned_and_writes_into_nothing(module, function):
    x = draw(4, 5)
    net = net_of(Chain(module), x)
    params, given = net.init_params(), given_at(net, 4)

    found = credit.drives(net, params, x, given)
    only, drive = found.activations["2"][0], draw(4, 6, seed=9)
    kept = drive.clone()

    assert_close(found.sites["2"], x @ params["0.weight"].T + params["0.bias"])
    assert len(found.activations["2"]) == 1
    assert_close(only(drive), function(kept))
    assert torch.equal(drive, kept)
    assert credit.not_of_drives(net, params) == []


def test_activation_functions_behind_the_last_site_stay():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.site = nn.Linear(5, 6), nn.Linear(6, 3), Site("post")

        def forward(self, x):
            return torch.tanh(self.second(self.site(torch.relu(self.first(x)))))

    x = draw(4, 5)
    net = net_of(Network(), x)
    params, given = net.init_params(), given_at(net, 4)

    found = credit.drives(net, params, x, given)

    assert_close(found.output, torch.tanh(given["site"] @ params["second.weight"].T + params["second.bias"]))
    assert len(found.activations["site"]) == 1


def test_each_site_has_the_functions_of_its_own_block():
    net = tiny_net("cnn").net
    found = credit.drives(net, net.init_params(), tiny_net("cnn").batch().x, {}).activations
    assert {key: [f(torch.tensor([-2.0, 3.0])).tolist() for f in of] for key, of in found.items()} == {
        "post1": [[0.0, 3.0]],
        "post2": [[0.0, 3.0]],
    }


@pytest.mark.parametrize(
    ("behind", "other"),
    [
        ((nn.ReLU(), nn.Linear(6, 6), nn.ReLU()), True),  # two layers
        ((nn.ReLU(), nn.LayerNorm(6)), True),
        ((nn.PReLU(),), True),  # a parameter decides the function
        ((), True),  # linear units
        ((nn.LayerNorm(6), nn.ReLU()), False),
        ((nn.Dropout(0.5), nn.ReLU()), False),
        ((nn.BatchNorm1d(6), nn.ReLU()), False),
    ],
    ids=str,
)
def test_sites_whose_activity_is_no_function_of_a_drive_are_named(behind, other):
    net = net_of(Chain(*behind), draw(2, 5))
    assert bool(credit.not_of_drives(net, net.init_params())) is other


def test_max_pooling_may_follow_the_function_and_average_pooling_may_not():
    def network(pool):
        layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), pool, Site("post"), nn.Flatten(), nn.Linear(36, 3)
        return net_of(nn.Sequential(*layers), draw(2, 1, 6, 6))

    for pool, named in ((nn.MaxPool2d(2), []), (nn.AvgPool2d(2), ["3"])):
        net = network(pool)
        assert credit.not_of_drives(net, net.init_params()) == named


def test_derivatives_and_seeds_together():
    tiny = tiny_net("cnn")
    x = tiny.batch().x
    given = given_at(tiny.net, len(x))
    seeds = [tiny.params(seed) for seed in (0, 1)]

    def slope(p):
        def size(h):
            found = credit.drives(tiny.net, p, x, h)
            return sum((d**3).sum() for d in found.sites.values()) + (found.output**2).sum()

        return credit.grad(size, given)

    together = torch.func.vmap(slope)({n: torch.stack([s[n] for s in seeds]) for n in seeds[0]})
    for i, params in enumerate(seeds):
        for key, wanted in slope(params).items():
            assert_close(together[key][i], wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nowhere": torch.zeros(12, 8)}, "the network has no site 'nowhere'"),
        ({"post1": torch.zeros(12, 3)}, "has shape (12, 3); expected (batch, 8)"),
        ({"post1": torch.zeros(5, 8)}, "give activity and inputs of the same examples"),
    ],
)
def test_activity_that_does_not_fit_is_refused(given, message):
    tiny = tiny_net("mlp")
    with pytest.raises(NetError) as caught:
        credit.drives(tiny.net, tiny.params(), tiny.batch().x, given)
    assert message in str(caught.value)
