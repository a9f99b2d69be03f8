"""Sites by themselves, on networks as people bring them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from rulezoo import Batch, Net, add_sites
from rulezoo.rule import State
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation

from .networks import NETWORKS, GRUCell, LeakyRNN, Network, evaluated, loss, targets


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_one_layer_deep_and_names_stay_those_of_the_model(name):
    network = NETWORKS[name]
    plain, module = network.module(), add_sites(network.module())
    net = Net(module, network.inputs())

    assert net.depth == network.depth
    assert net.keys("post")
    assert net.keys("pre") or not any(layer.operation != "recurrent" for layer in net.layers[:-1])
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in plain.named_parameters()]
    state = net.state_dict(net.init_params())
    fresh = network.module(seed=4)
    fresh.load_state_dict(state, strict=True)
    x = network.inputs(3)
    # Not to the last bit: torch's modules take faster ways in evaluation where nobody watches.
    torch.testing.assert_close(evaluated(fresh, x), net.evaluation().run(net.init_params(), x))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_hidden_layer_is_followed_by_a_site(name):
    """A layer whose output feeds another one has a post site behind it."""
    net = Net(add_sites(NETWORKS[name].module()), NETWORKS[name].inputs())

    bare = [layer.name for layer in net.layers if not layer.post and set(layer.parameters) - net.readout]

    assert bare == (["attention.in_proj"] if name == "attention" else [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "pixels", "layers"),
    [
        (torchvision.models.resnet18, 32, 21),
        (torchvision.models.alexnet, 64, 8),
        (torchvision.models.vgg11_bn, 32, 11),
        (torchvision.models.mobilenet_v3_small, 32, 54),
    ],
)
def test_torchvisions_networks_at_their_full_width(make, pixels, layers):
    torch.manual_seed(0)
    net = Net(add_sites(make(num_classes=10)), torch.randn(2, 3, pixels, pixels))

    assert net.depth == 1
    assert len(net.layers) == layers
    assert all(layer.post for layer in net.layers[:-1])


@pytest.mark.parametrize(
    ("after", "keys"),
    [
        ({"4.relu:0": "pre", "4.relu:1": "post"}, ["4.relu:0", "4.relu:1"]),
        ({"4": "post", "2": "post"}, ["2", "4"]),
        ({nn.Conv2d: "pre"}, ["0", "4.conv1", "4.conv2", "5.conv1", "5.conv2", "5.downsample.0"]),
        ({nn.MaxPool2d: "post", "5": "post"}, ["3", "5"]),
    ],
    ids=["calls", "names", "type", "both"],
)
def test_a_mapping_by_name_type_and_call(after, keys):
    network = NETWORKS["resnet"]
    module = add_sites(network.module(), after)
    net = Net(module, network.inputs())

    assert list(net.visits) == keys
    assert torch.equal(net.run(net.init_params(), network.inputs(), lambda key, h: h.clone()),
                       network.module()(network.inputs()))  # fmt: skip


def test_a_mapping_by_function():
    net = Net(
        add_sites(NETWORKS["functional-mlp"].module(), {F.relu: "post"}), NETWORKS["functional-mlp"].inputs()
    )
    assert list(net.visits) == ["relu:0", "relu:1"]


def test_a_module_that_is_called_several_times_gets_a_site_for_each_call():
    net = Net(add_sites(NETWORKS["resnet"].module(), {nn.ReLU: "post"}), NETWORKS["resnet"].inputs())
    assert list(net.visits) == ["2", "4.relu:0", "4.relu:1", "5.relu:0", "5.relu:1"]


@pytest.mark.parametrize(
    ("make", "unrolled"),
    [
        (GRUCell, {"candidate.post:0": 3, "reset.post": 4}),
        (LeakyRNN, {"W.recurrent": 4, "W.post": 4}),
    ],
)
def test_in_time_sites_are_unrolled(make, unrolled):
    network = Network(make, (4, 3))
    net = Net(add_sites(network.module()), network.inputs())

    sites = [visit.site for visit in net.visits.values()]
    assert {name: sites.count(name) for name in unrolled} == unrolled
    for name, steps in unrolled.items():
        assert [key for key in net.visits if key.startswith(f"{name}[")] == [
            f"{name}[{t}]" for t in range(steps)
        ]


# --------------------------------------------------------------------------------------------------------------------
# Doubled and halved


class Deep(nn.Module):
    """Four hidden layers of ReLU."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (5, 8, 8, 8, 8, 3)
        self.w = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Identity()

    def forward(self, x):
        for layer in self.w[:-1]:
            x = torch.relu(layer(x))
        return self.w[-1](self.last(x))


RULES = {"dfa": DirectFeedbackAlignment(), "nmnc": ManifoldNoiseCorrelation(rank=3, response="derivative")}


def second_layers_update(rule, after, *, scale):
    """The update of W2 with W2 and b2 times ``scale`` and W3 divided by it: nothing behind the third layer changes."""
    network = Network(Deep)
    net = Net(add_sites(network.module(), after), network.inputs())
    params = net.init_params()
    params["w.1.weight"] *= scale
    params["w.1.bias"] *= scale
    params["w.2.weight"] /= scale
    batch = Batch(network.inputs(), targets((3,), network.batch, 0))
    state: State = rule.init(net, params, batch, torch.Generator().manual_seed(0))
    noise = rule.noise(net, state, batch, torch.Generator().manual_seed(1), 0)
    output = net.run(params, batch.x)
    return rule.step(net, loss, params, state, batch, noise, 0).grads["w.1.weight"], output


def test_doubling_and_halving_changes_nothing_behind_the_third_layer_and_halves_the_gradient():
    once, same = second_layers_update(Backprop(), None, scale=1)
    twice, output = second_layers_update(Backprop(), None, scale=2)

    torch.testing.assert_close(output, same)
    torch.testing.assert_close(twice, once / 2)


def test_with_sites_everywhere_the_update_of_direct_feedback_does_not_know_the_weights_behind():
    once, _ = second_layers_update(RULES["dfa"], None, scale=1)
    twice, _ = second_layers_update(RULES["dfa"], None, scale=2)

    assert once.any()
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_with_one_site_behind_the_last_layer_a_rule_is_backprop_within_the_block(rule):
    once, _ = second_layers_update(RULES[rule], {"last": "post"}, scale=1)
    twice, _ = second_layers_update(RULES[rule], {"last": "post"}, scale=2)

    torch.testing.assert_close(twice, once / 2)
    net = Net(add_sites(Network(Deep).module(), {"last": "post"}), Network(Deep).inputs())
    assert net.depth == 4
