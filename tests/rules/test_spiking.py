"""Rules for spiking networks, held to traces written out synapse by synapse, and to their limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, credit, nets
from rulezoo.testing import parametrize_rule_checks, tiny_net
from rulezoo_plugins.spiking.e_prop import SpikingEProp, errors_heard
from rulezoo_plugins.spiking.structure import read_out_kernel, spiking_layers, why_not_spiking

EXACT = 1e-11  # of the largest entry, in float64
DECAY, RHO, BETA, KAPPA, GAMMA = 0.8, 0.9, 0.6, 0.7, 0.4
STEPS = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(widths=(3, 5, 2), *, recurrent=True, adaptation=BETA, every_step=False, steps=STEPS):
    """A network with lively weights and biases, and a batch of four examples."""
    torch.manual_seed(5)
    module = nets.SpikingNetwork(
        widths, recurrent=recurrent, every_step=every_step, decay=DECAY, adaptation=adaptation,
        adaptation_decay=RHO, readout_decay=KAPPA, dampening=GAMMA, gain=3.0,
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer in module.children():
            if isinstance(layer, nets.LIF):
                layer.w_in.bias.normal_(mean=0.2, std=0.3)
    x = torch.randn(4, steps, 3, dtype=torch.float64)
    return Net(module, x), Batch(x, torch.tensor([0, 1, 0, 1]))


def loss(output, y):
    losses = F.cross_entropy(
        output.flatten(0, -2), y.repeat_interleave(output[0].numel() // 2), reduction="none"
    )
    return losses.view(len(y), -1).sum(1)


def step(rule, net, batch, state=None, params=None, noise=None, t=0):
    params = net.init_params() if params is None else params
    state = rule.init(net, params, batch, seeded()) if state is None else state
    return rule.step(net, loss, params, state, batch, {} if noise is None else noise, t)


def assert_equal(got, wanted, tolerance=EXACT):
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            got[name], tensor, rtol=0, atol=tolerance * max(float(tensor.abs().max()), 1e-300), msg=name
        )


def hidden(net):
    return [name for name in net.shapes if name not in net.readout]


def angle(some, others, names):
    one, other = (torch.cat([grads[name].flatten() for name in names]) for grads in (some, others))
    return math.degrees(math.acos(min(1.0, torch.cosine_similarity(one, other, dim=0).item())))


def in_time(net, batch, params=None):
    """The errors of the output, ``(b, time, o)``: zero before an answer that comes at the end."""
    params = net.init_params() if params is None else params
    error, _ = credit.output_error(loss, net.run(params, batch.x), batch.y)
    return error if error.ndim == 3 else F.pad(error.unsqueeze(1), (0, 0, STEPS - 1, 0))


# E-prop --------------------------------------------------------------------------------------------------------------


def e_prop_by_hand(params, batch, errors, feedback, beta):
    """Forward in time: two traces for each synapse, filtered as the read-out filters spikes, and the error of the step."""
    grads = {name: torch.zeros_like(p) for name, p in params.items()}
    layers = sorted({name.split(".")[0] for name in params if name.startswith("lif")})
    for x, e in zip(batch.x, errors, strict=True):
        seen = list(x)
        for layer in layers:
            w, b = params[f"{layer}.w_in.weight"], params[f"{layer}.w_in.bias"]
            w_rec = params.get(f"{layer}.w_rec.weight", torch.zeros(len(w), len(w), dtype=w.dtype))
            n, spikes = len(w), []
            v = a = z = psi = torch.zeros(n, dtype=w.dtype)
            of_v, of_a, filtered = {}, {}, {}
            for t in range(STEPS):
                presynaptic = {
                    f"{layer}.w_in.weight": seen[t],
                    f"{layer}.w_in.bias": torch.ones(1, dtype=w.dtype),
                }
                if f"{layer}.w_rec.weight" in params:
                    presynaptic[f"{layer}.w_rec.weight"] = z
                v, a = DECAY * v + w @ seen[t] + b + w_rec @ z - z, RHO * a + z
                u = v - 1 - beta * a
                before, psi = psi, GAMMA * (1 - u.abs()).clamp(min=0)
                z = (u > 0).to(w.dtype)
                spikes.append(z)
                for name, inputs in presynaptic.items():
                    for j in range(n):
                        for i in range(len(inputs)):
                            key = name, j, i
                            old_v, old_a = of_v.get(key, 0.0), of_a.get(key, 0.0)
                            of_a[key] = (RHO - beta * before[j]) * old_a + before[j] * old_v
                            of_v[key] = DECAY * old_v + inputs[i]
                            trace = psi[j] * (of_v[key] - beta * of_a[key])
                            filtered[key] = KAPPA * filtered.get(key, 0.0) + (1 - KAPPA) * trace
                            signal = sum(feedback[layer][k, j] * e[t, k] for k in range(e.shape[1]))
                            where = (j, i) if params[name].ndim == 2 else (j,)
                            grads[name][where] += signal * filtered[key]
            seen = spikes
        s = torch.zeros(len(seen[0]), dtype=x.dtype)
        for t in range(STEPS):
            s = KAPPA * s + (1 - KAPPA) * seen[t]
            grads["w_out.weight"] += torch.outer(e[t], s)
            grads["w_out.bias"] += e[t]
    return grads


@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("mode", ["random", "symmetric"])
def test_e_prop_equals_eligibility_traces(mode, every_step):
    net, batch = network(every_step=every_step)
    rule = SpikingEProp(mode=mode, scale=2.0)
    params = net.init_params()
    state = rule.init(net, params, batch, seeded())
    feedback = params["w_out.weight"] if mode == "symmetric" else state.buffers["feedback.lif1.post"]

    made = step(rule, net, batch, state)

    slow = e_prop_by_hand(params, batch, in_time(net, batch), {"lif1": feedback}, BETA)
    assert all(grad.abs().max() > 1e-4 for grad in slow.values())
    assert_equal(made.grads, slow)
    assert_equal(made.state.buffers, state.buffers, 0.0)
    torch.testing.assert_close(made.loss, loss(net.run(params, batch.x), batch.y).mean())


def test_e_prop_in_layers_equals_eligibility_traces_with_feedback_of_their_own():
    net, batch = network((3, 5, 4, 2), adaptation=0.3)
    rule = SpikingEProp()
    state = rule.init(net, net.init_params(), batch, seeded())
    feedback = {f"lif{n}": state.buffers[f"feedback.lif{n}.post"] for n in (1, 2)}
    assert [tuple(b.shape) for b in feedback.values()] == [(2, 5), (2, 4)]

    grads = step(rule, net, batch, state).grads

    assert_equal(grads, e_prop_by_hand(net.init_params(), batch, in_time(net, batch), feedback, 0.3))


@pytest.mark.parametrize("every_step", [True, False])
def test_without_recurrent_weights_symmetric_e_prop_is_backprop_through_time(every_step):
    net, batch = network(every_step=every_step)
    params = net.init_params()
    params["lif1.w_rec.weight"] = torch.zeros_like(params["lif1.w_rec.weight"])
    true, _ = credit.backprop(net, loss, params, *batch)

    assert_equal(step(SpikingEProp(mode="symmetric"), net, batch, params=params).grads, true)

    plain, batch = network(recurrent=False, every_step=every_step)
    true, _ = credit.backprop(plain, loss, plain.init_params(), *batch)
    assert_equal(step(SpikingEProp(mode="symmetric"), plain, batch).grads, true)


def test_at_a_single_step_symmetric_e_prop_is_backprop():
    """Such a network is refused, since nothing shows that its neurons remember; the step itself is right."""
    net, batch = network(steps=1)
    true, _ = credit.backprop(net, loss, net.init_params(), *batch)

    assert_equal(step(SpikingEProp(mode="symmetric"), net, batch).grads, true)
    assert true["lif1.w_in.weight"].any()


def test_with_recurrent_weights_it_lies_within_60_degrees_of_backprop_and_is_not_backprop():
    for every_step in (True, False):
        net, batch = network(every_step=every_step)
        true, _ = credit.backprop(net, loss, net.init_params(), *batch)
        grads = step(SpikingEProp(mode="symmetric"), net, batch).grads
        assert 2 < angle(grads, true, hidden(net)) < 60
        for name in net.readout:
            torch.testing.assert_close(grads[name], true[name])


def test_random_feedback_is_drawn_once_and_scaled():
    net, batch = network((3, 5, 4, 2))
    small, large = (
        SpikingEProp(scale=s).init(net, net.init_params(), batch, seeded()).buffers for s in (1.0, 3.0)
    )
    gen = seeded()
    for site, n in (("lif1.post", 5), ("lif2.post", 4)):
        drawn = torch.randn(2, n, generator=gen, dtype=torch.float64)
        torch.testing.assert_close(small[f"feedback.{site}"], drawn / n**0.5)
        torch.testing.assert_close(large[f"feedback.{site}"], 3 * drawn / n**0.5)


def test_what_comes_after_an_error_does_not_change_its_effect():
    """Online: an error at the second step is heard then, whatever the input will be."""
    net, batch = network(every_step=True)
    later = batch.x.clone()
    later[:, 2:] = torch.randn(later[:, 2:].shape, generator=seeded(9), dtype=later.dtype)
    rule = SpikingEProp()
    params = net.init_params()
    state = rule.init(net, params, batch, seeded())

    def second(output, target):
        return output[:, 1].square().sum(-1)

    one, other = (
        rule.step(net, second, params, state, Batch(x, batch.y), {}, 0).grads for x in (batch.x, later)
    )
    assert_equal(one, other)
    assert one["lif1.w_rec.weight"].any()


@parametrize_rule_checks([SpikingEProp(mode="symmetric")], nets=["snn"])
def test_symmetric_e_prop_keeps_every_promise(check):
    check()


# The structure of a network --------------------------------------------------------------------------------------------


def test_the_kernel_is_how_the_read_out_hears_a_spike():
    for every_step in (True, False):
        net, _ = network(every_step=every_step)
        kernel = read_out_kernel(net)
        lags = torch.arange(STEPS).unsqueeze(1) - torch.arange(STEPS)
        wanted = torch.where(lags >= 0, (1 - KAPPA) * KAPPA ** lags.clamp(min=0), 0.0).double()
        torch.testing.assert_close(kernel, wanted if every_step else wanted[-1:])


def test_errors_are_heard_as_spikes_are():
    kernel = torch.tensor([[0.5, 0.0], [0.25, 2.0]])
    error = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]])
    assert errors_heard(error, kernel).tolist() == [[[1.0, 10.0], [4.0, 40.0]]]
    assert errors_heard(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.5, 2.0]])).tolist() == [
        [[1.5, 2.0], [6.0, 8.0]]
    ]


def test_the_layers_of_a_network():
    net, _ = network((3, 5, 4, 2))
    one, two = spiking_layers(net)
    assert (one.site, one.width, one.weights) == ("lif1.post", 5, ("lif1.w_in.weight", "lif1.w_rec.weight"))
    assert (two.site, two.width, two.weights) == ("lif2.post", 4, ("lif2.w_in.weight", "lif2.w_rec.weight"))
    assert two.pre == tuple(f"lif2.pre[{t}]" for t in range(STEPS))
    assert two.post == tuple(f"lif2.post[{t}]" for t in range(STEPS))


class Odd(nn.Module):
    """A layer of spiking neurons with something odd about it."""

    def __init__(self, odd=""):
        super().__init__()
        self.odd, n = odd, 6
        self.w_in = nn.Linear(3, n)
        deep = [nn.Linear(n, 5), nn.Tanh(), nn.Linear(5, 2)] if odd == "deep read-out" else [nn.Linear(n, 2)]
        self.w_out = nn.Sequential(*deep)
        self.pre, self.post = Site("pre", unrolled=True), Site("post", unrolled=True)
        self.other = Site("post")
        self.pixels = Site("post", unrolled=True)

    def forward(self, x):
        v = s = x.new_zeros(len(x), 6)
        for x_t in x.unbind(1):
            v = (v.roll(1, 1) if self.odd == "mixed" else 0.9 * v) + self.w_in(x_t)
            above = v - 0.5
            z = nets.spike(above if self.odd == "no pre" else self.pre(above))
            if self.odd == "a map":
                z = self.pixels(z.view(-1, 2, 3)).flatten(1)
            elif self.odd != "memory at the site":
                z = self.post(z)
            else:
                v = self.post(v)
            s = s + (z.square() if self.odd == "square" else z)
        return self.w_out(self.other(s) if self.odd == "two sites" else s)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("", None),
        ("mixed", "depends on a synapse of another one"),
        ("no pre", "needs a site of kind 'pre' in front of it"),
        ("a map", "must be a vector of units"),
        ("memory at the site", "remember nothing but what their sites"),
        ("square", "must be linear in the spikes"),
        ("deep read-out", "must be linear in the spikes"),
        ("two sites", "must all be visited equally often"),
    ],
)
def test_networks_that_are_not_of_spiking_layers_are_refused_in_a_sentence(odd, reason):
    found = why_not_spiking(Net(Odd(odd).double(), torch.randn(2, 4, 3, dtype=torch.float64)))
    assert found is None if reason is None else reason in found


def test_rate_networks_perceptrons_and_single_steps_are_refused():
    for kind, reason in (
        ("mlp", "neurons that spike in time"),
        ("rnn", "rate networks serve them, such as e-prop"),
    ):
        tiny = tiny_net(kind)
        assert reason in SpikingEProp().skip(tiny.net, tiny.task)
    assert "more than once" in why_not_spiking(network(steps=1)[0])
    swapped = Net(Swapped(), torch.randn(6, 2, 3))
    assert "(batch, time, ...)" in why_not_spiking(swapped)


class Swapped(nn.Module):
    """Takes inputs ``(batch, units, time)``."""

    def __init__(self):
        super().__init__()
        self.inner = nets.SpikingNetwork((2, 5, 2))

    def forward(self, x):
        return self.inner(x.transpose(1, 2))


def test_symmetric_feedback_needs_every_layer_to_project_to_the_read_out():
    deep, _ = network((3, 5, 4, 2))
    assert "only the last of the layers" in SpikingEProp(mode="symmetric").skip(deep, None)
    assert SpikingEProp().skip(deep, None) is None
    assert SpikingEProp(mode="symmetric").skip(network()[0], None) is None
