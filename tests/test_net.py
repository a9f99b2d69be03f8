from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Net, Site, add_sites
from rulezoo.net import NetError

X = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """A linear layer, a site, and a function of your choice."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.site, self.function = nn.Linear(5, 4), Site(), function

    def forward(self, x):
        return self.function(self.site(self.layer(x)))


def test_run_is_the_module_at_the_parameters_that_are_given(tiny):
    params, x = tiny.params(seed=3), tiny.batch().x
    twin = tiny.task.network().double()
    twin.load_state_dict(params)

    assert torch.equal(tiny.net.run(params, x), twin(x))


def test_parameters_are_copies():
    module = nn.Linear(5, 2)
    net = Net(module, X)
    before = module.weight.detach().clone()

    net.init_params()["weight"].zero_()

    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("tiny", ["mlp"], indirect=True)
def test_visits_name_order_kind_and_shape(tiny):
    assert [(key, *visit) for key, visit in tiny.net.visits.items()] == [
        ("pre1", "pre1", "pre", (8,), torch.float64),
        ("post1", "post1", "post", (8,), torch.float64),
        ("pre2", "pre2", "pre", (7,), torch.float64),
        ("post2", "post2", "post", (7,), torch.float64),
    ]
    assert tiny.net.output_shape == (3,)


@pytest.mark.parametrize("tiny", ["rnn-every-step"], indirect=True)
def test_an_unrolled_site_is_indexed_by_visit(tiny):
    assert tiny.net.keys("post") == ["hidden[0]", "hidden[1]", "hidden[2]", "hidden[3]"]
    assert tiny.net.keys("recurrent") == [f"recurrent[{t}]" for t in range(4)]
    assert list(tiny.net.visits)[:4] == ["recurrent[0]", "pre[0]", "hidden[0]", "recurrent[1]"]
    assert {visit.site for visit in tiny.net.visits.values()} == {"recurrent", "pre", "hidden"}
    assert tiny.net.output_shape == (4, 3)


@pytest.mark.parametrize("tiny", ["cnn"], indirect=True)
def test_width_counts_the_units_of_a_map(tiny):
    assert tiny.net.visits["pre1"].shape == (4, 6, 6)
    assert tiny.net.visits["post1"].width == 4 * 3 * 3  # behind the pooling


def test_readout_is_what_lies_behind_the_last_site(tiny):
    expected = (
        {"w_out.weight", "w_out.bias"} if tiny.name.startswith("rnn") else {"readout.weight", "readout.bias"}
    )

    assert tiny.net.readout == expected


def test_readout_is_found_where_gradients_are_switched_off():
    with torch.no_grad():
        net = Net(nn.Sequential(nn.Linear(5, 4), Site(), nn.Linear(4, 2)), X)

    assert net.readout == {"2.weight", "2.bias"}
    assert not net.run(net.init_params(), X).requires_grad


def test_readout_without_sites_is_everything_and_behind_a_last_site_nothing():
    assert Net(nn.Linear(5, 2), X).readout == {"weight", "bias"}
    assert Net(nn.Sequential(nn.Linear(5, 2), Site()), X).readout == frozenset()


def test_a_tap_replaces_what_the_network_sees_downstream(mlp):
    params, x = mlp.params(), mlp.batch().x
    seen = {}

    def tap(key, activity):
        seen[key] = activity
        return 2 * activity if key == "post1" else activity

    output = mlp.net.run(params, x, tap)

    hidden = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    doubled = torch.tanh(2 * hidden @ params["fc2.weight"].T + params["fc2.bias"])
    torch.testing.assert_close(seen["post1"], hidden)
    torch.testing.assert_close(seen["post2"], doubled)
    torch.testing.assert_close(output, doubled @ params["readout.weight"].T + params["readout.bias"])
    assert list(seen) == list(mlp.net.visits)


def test_a_tap_is_taken_off_even_when_it_fails(mlp):
    params, x = mlp.params(), mlp.batch().x
    untouched = mlp.net.run(params, x)

    with pytest.raises(ZeroDivisionError):
        mlp.net.run(params, x, lambda key, activity: 1 / 0)

    assert torch.equal(mlp.net.run(params, x), untouched)


def test_a_network_may_be_looked_at_without_moving_the_global_generator(mlp):
    before = torch.get_rng_state()
    Net(mlp.net.module, mlp.net.example)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_numbers_are_those_of_torch_in_the_type_of_a_rule_s_memory(dtype):
    net = Net(
        nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).to(dtype), torch.ones(2, 3).long()
    )

    drawn = net.normal((50, 4), torch.Generator().manual_seed(3))

    assert torch.equal(drawn, torch.randn(50, 4, generator=torch.Generator().manual_seed(3), dtype=dtype))
    assert drawn.dtype == net.memory_dtype() == dtype
    assert net.normal((), torch.Generator()).shape == ()


def test_the_width_of_the_output_counts_the_units_of_one_example(mlp):
    assert mlp.net.output_width == 3
    assert Net(nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (3, 2))), X).output_width == 6
    assert Net(nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), X).output_width == 1


# --------------------------------------------------------------------------------------------------------------------
# What is refused


def test_a_site_that_is_visited_twice_must_be_unrolled():
    site = Site()
    with pytest.raises(NetError, match=r"site '1' was visited twice .*unrolled=True"):
        Net(nn.Sequential(nn.Linear(5, 5), site, nn.Linear(5, 5), site), X)


def test_dropout_in_evaluation_is_refused():
    with pytest.raises(NetError, match=r"drops out in evaluation mode.*training=self.training"):
        Net(Functional(F.dropout), X)


def test_dropout_is_drawn_for():
    net = Net(Functional(nn.Dropout(0.5)), X)
    assert net.drops
    assert torch.equal(net.run(net.init_params(), X), net.run(net.init_params(), X))


@pytest.mark.parametrize(
    ("function", "whose"),
    [
        (lambda h: h + torch.randn_like(h), "torch's global generator"),
        (lambda h: h * float(np.random.rand()), "NumPy's global generator"),  # noqa: NPY002
        (lambda h: h * random.random(), "Python's random"),
    ],
    ids=["torch", "numpy", "python"],
)
def test_other_noise_is_refused_and_says_whose(function, whose):
    with pytest.raises(NetError, match=f"draws from {whose}.*F.dropout"):
        Net(Functional(function), X)


@pytest.mark.parametrize("function", [F.relu_, lambda h: h.mul_(2)], ids=["relu_", "mul_"])
def test_what_writes_over_the_activity_of_a_site_gets_a_copy(function):
    net, seen = Net(Functional(function), X), {}
    params = net.init_params()

    output = net.run(params, X, lambda key, h: seen.setdefault(key, h))

    layer = F.linear(X, params["layer.weight"], params["layer.bias"])
    assert torch.equal(seen["site"], layer)
    assert torch.equal(output, function(layer.clone()))


# --------------------------------------------------------------------------------------------------------------------
# Sites for foreign networks


def foreign():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(inplace=True)),
        nn.Flatten(),
    )


IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("after", "keys"),
    [
        ({"1": "post", "2.0": "pre"}, ["1", "2.0"]),
        ({nn.ReLU: "post"}, ["1", "2.1"]),
        ({F.relu: "post"}, ["1.relu", "2.1.relu"]),
        ({nn.Conv2d: "pre", nn.ReLU: "post"}, ["0", "1", "2.0", "2.1"]),
        ({nn.Sequential: "post", nn.Conv2d: "pre"}, ["0", "2.0", "2"]),
        ({"1": "post", "2.1:0": "pre"}, ["1", "2.1:0"]),
        (None, ["0.pre", "0.post", "2.0.pre"]),
    ],
    ids=["names", "type", "function", "types", "nested", "call", "by themselves"],
)
def test_add_sites_leaves_the_function_and_the_parameters_alone(after, keys):
    plain = foreign()
    sited = add_sites(foreign(), after)
    net = Net(sited, IMAGES)

    assert list(net.visits) == keys
    assert torch.equal(sited(IMAGES), plain(IMAGES))
    assert net.state_dict(net.init_params()).keys() == plain.state_dict().keys()
    assert all(torch.equal(p, net.init_params()[n]) for n, p in plain.named_parameters())


def test_a_site_in_front_of_an_in_place_relu_reads_what_came_before_it():
    net = Net(add_sites(foreign(), {nn.Conv2d: "pre"}), IMAGES)
    params, seen = net.init_params(), {}

    net.run(params, IMAGES, lambda key, h: seen.setdefault(key, h))

    assert torch.equal(seen["0"], F.conv2d(IMAGES, params["0.weight"], params["0.bias"]))


def test_one_module_in_two_places_gets_a_site_in_each():
    relu = nn.ReLU()
    net = Net(add_sites(nn.Sequential(nn.Linear(5, 4), relu, nn.Linear(4, 4), relu), {nn.ReLU: "post"}), X)

    assert list(net.visits) == ["1", "3"]


def test_add_sites_says_what_it_did_not_find():
    with pytest.raises(NetError, match=r"found no place 'features' .* names: 0, 1, 2, 2\.0"):
        add_sites(foreign(), {"features": "post"})
    with pytest.raises(NetError, match=r"found no place .*BatchNorm2d"):
        add_sites(foreign(), {nn.BatchNorm2d: "post"})


def test_add_sites_refuses_two_sites_in_one_place():
    with pytest.raises(NetError, match="'1' is asked for twice"):
        add_sites(foreign(), {"1": "pre", nn.ReLU: "post"})
