from __future__ import annotations

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
        ("pre1", "pre1", "pre", (8,)),
        ("post1", "post1", "post", (8,)),
        ("pre2", "pre2", "pre", (7,)),
        ("post2", "post2", "post", (7,)),
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


# --------------------------------------------------------------------------------------------------------------------
# What is refused


def test_a_site_that_is_visited_twice_must_be_unrolled():
    site = Site()
    with pytest.raises(NetError, match=r"site '1' was visited twice .*unrolled=True"):
        Net(nn.Sequential(nn.Linear(5, 5), site, nn.Linear(5, 5), site), X)


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True), nn.Dropout(0.1)],
    ids=["batch norm", "instance norm", "dropout"],
)
def test_layers_that_break_purity_are_named(layer):
    with pytest.raises(NetError, match=rf"'1' is a {type(layer).__name__}"):
        Net(nn.Sequential(nn.Linear(5, 4), layer), X)


@pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.GroupNorm(2, 4)], ids=["dropout of 0", "group norm"])
def test_their_harmless_relatives_are_served(layer):
    assert Net(nn.Sequential(nn.Linear(5, 4), layer), X).output_shape == (4,)


def test_functional_dropout_is_refused():
    with pytest.raises(NetError, match="draws from torch's global generator"):
        Net(Functional(F.dropout), X)


def test_a_buffer_that_is_written_to_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x

    with pytest.raises(NetError, match="buffer 'calls'"):
        Net(Counting(), X)


@pytest.mark.parametrize("function", [F.relu_, lambda h: h.mul_(2)], ids=["relu_", "mul_"])
def test_writing_over_the_activity_of_a_site_is_refused(function):
    with pytest.raises(NetError, match="'site' writes over its activity in place"):
        Net(Functional(function), X)


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
        ({"1": "post", "2.0": "pre"}, ["1.site", "2.0.site"]),
        ({nn.ReLU: "post"}, ["1.site", "2.1.site"]),
        ({nn.Conv2d: "pre", nn.ReLU: "post"}, ["0.site", "1.site", "2.0.site", "2.1.site"]),
        ({nn.Sequential: "post", nn.Conv2d: "pre"}, ["0.site", "2.module.0.site", "2.site"]),
    ],
    ids=["names", "type", "types", "nested"],
)
def test_add_sites_leaves_the_function_and_the_parameters_alone(after, keys):
    plain = foreign()
    sited = add_sites(foreign(), after)
    net = Net(sited, IMAGES)

    assert list(net.visits) == keys
    assert torch.equal(sited(IMAGES), plain(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(sited.parameters(), plain.parameters(), strict=True))


def test_a_site_in_front_of_an_in_place_relu_reads_what_came_before_it():
    net = Net(add_sites(foreign(), {nn.Conv2d: "pre"}), IMAGES)
    params, seen = net.init_params(), {}

    net.run(params, IMAGES, lambda key, h: seen.setdefault(key, h))

    assert torch.equal(seen["0.site"], F.conv2d(IMAGES, params["0.module.weight"], params["0.module.bias"]))


def test_one_module_in_two_places_gets_a_site_in_each():
    relu = nn.ReLU()
    net = Net(add_sites(nn.Sequential(nn.Linear(5, 4), relu, nn.Linear(4, 4), relu), {nn.ReLU: "post"}), X)

    assert list(net.visits) == ["1.site", "3.site"]


def test_add_sites_says_what_it_did_not_find():
    with pytest.raises(NetError, match=r"found no place 'features' .* names: 0, 1, 2, 2\.0"):
        add_sites(foreign(), {"features": "post"})
    with pytest.raises(NetError, match=r"found no place .*BatchNorm2d"):
        add_sites(foreign(), {nn.BatchNorm2d: "post"})


def test_add_sites_refuses_two_sites_in_one_place():
    with pytest.raises(NetError, match="'1' is asked for twice"):
        add_sites(foreign(), {"1": "pre", nn.ReLU: "post"})
