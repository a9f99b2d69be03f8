"""Rules for spiking networks, held to traces written out synapse by synapse, and to their limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, State, credit, nets
from rulezoo.testing import parametrize_rule_checks, tiny_net
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.spiking.alignment import SpikeTimingAlignment
from rulezoo_plugins.spiking.e_prop import SpikingEProp, errors_by_step
from rulezoo_plugins.spiking.ottt import OTTT
from rulezoo_plugins.spiking.structure import read_out_kernel, spiking_layers, why_not_spiking

EXACT = 1e-11  # of the largest entry, in float64
DECAY, RHO, BETA, KAPPA, GAMMA = 0.8, 0.9, 0.6, 0.7, 0.4
STEPS = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(
    widths=(3, 5, 2), *, recurrent=True, adaptation=BETA, every_step=False, steps=STEPS, readout_decay=KAPPA
):
    """A network with lively weights and biases, and a batch of four examples."""
    torch.manual_seed(5)
    module = nets.SpikingNetwork(
        widths, recurrent=recurrent, every_step=every_step, decay=DECAY, adaptation=adaptation,
        adaptation_decay=RHO, readout_decay=readout_decay, dampening=GAMMA, gain=3.0,
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


def test_direct_feedback_alignment_through_time_is_random_e_prop_where_the_read_out_has_no_memory():
    net, batch = network((3, 5, 4, 2), every_step=True, readout_decay=0.0)
    rule = DirectFeedbackAlignment()
    state = rule.init(net, net.init_params(), batch, seeded())
    own = State(buffers={**state.buffers, "kernel": torch.eye(STEPS, dtype=torch.float64)})

    direct = step(rule, net, batch, state).grads

    assert_equal(step(SpikingEProp(), net, batch, own).grads, direct)
    assert torch.equal(read_out_kernel(net), own.buffers["kernel"])
    assert all(direct[name].any() for name in hidden(net))


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
    """Online: the effect of an error at the second step does not depend on later input."""
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


def test_the_kernel_is_the_sensitivity_of_the_read_out_to_a_spike():
    for every_step in (True, False):
        net, _ = network(every_step=every_step)
        kernel = read_out_kernel(net)
        lags = torch.arange(STEPS).unsqueeze(1) - torch.arange(STEPS)
        wanted = torch.where(lags >= 0, (1 - KAPPA) * KAPPA ** lags.clamp(min=0), 0.0).double()
        torch.testing.assert_close(kernel, wanted if every_step else wanted[-1:])


def test_errors_of_answers_by_step():
    kernel = torch.tensor([[0.5, 0.0], [0.25, 2.0]])
    error = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]])
    assert errors_by_step(error, kernel).tolist() == [[[1.0, 10.0], [4.0, 40.0]]]
    assert errors_by_step(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.5, 2.0]])).tolist() == [
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
        output = self.w_out(self.other(s) if self.odd == "two sites" else s)
        return output[:, 0] if self.odd == "a number" else output


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
        ("a number", "must be linear in the spikes"),
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


# OTTT ------------------------------------------------------------------------------------------------------------------


def ottt_by_hand(params, batch, errors, kernel):
    """Forward in time, one example and step after another; ``errors`` is ``(b, r, o)``, the answers' errors."""
    grads = {name: torch.zeros_like(p) for name, p in params.items()}
    layers = sorted({name.split(".")[0] for name in params if name.startswith("lif")})
    for x, e in zip(batch.x, errors, strict=True):
        v, z, trace = (dict.fromkeys(layers, 0.0) for _ in range(3))
        s = torch.zeros(params["w_out.weight"].shape[1], dtype=x.dtype)
        for t in range(STEPS):
            seen, slope = x[t], {}
            for layer in layers:
                w, b = params[f"{layer}.w_in.weight"], params[f"{layer}.w_in.bias"]
                trace[layer] = DECAY * trace[layer] + torch.cat([seen, torch.ones(1, dtype=x.dtype)])
                v[layer] = DECAY * v[layer] + w @ seen + b - z[layer]
                slope[layer] = GAMMA * (1 - (v[layer] - 1).abs()).clamp(min=0)
                z[layer] = seen = (v[layer] > 1).to(x.dtype)
            s = KAPPA * s + (1 - KAPPA) * seen
            error = sum(kernel[r, t] * e[r] for r in range(len(e)))
            g = params["w_out.weight"].T @ error
            for layer in reversed(layers):
                g = slope[layer] * g
                grads[f"{layer}.w_in.weight"] += torch.outer(g, trace[layer][:-1])
                grads[f"{layer}.w_in.bias"] += g * trace[layer][-1]
                g = params[f"{layer}.w_in.weight"].T @ g
            if len(e) > 1 or t == STEPS - 1:
                answer = e[t] if len(e) > 1 else e[0]
                grads["w_out.weight"] += torch.outer(answer, s)
                grads["w_out.bias"] += answer
    return grads


DEEP = {"recurrent": False, "adaptation": 0.0}


@pytest.mark.parametrize("every_step", [True, False])
def test_ottt_equals_traces_and_errors_within_a_step(every_step):
    net, batch = network((3, 5, 6, 4, 2), every_step=every_step, **DEEP)
    params = net.init_params()
    error, _ = credit.output_error(loss, net.run(params, batch.x), batch.y)

    made = step(OTTT(), net, batch)

    slow = ottt_by_hand(params, batch, error.view(4, -1, 2), read_out_kernel(net))
    assert all(grad.abs().max() > 1e-6 for grad in slow.values())
    assert_equal(made.grads, slow)
    torch.testing.assert_close(made.loss, loss(net.run(params, batch.x), batch.y).mean())


def test_with_one_layer_ottt_is_backprop_through_time_and_symmetric_e_prop():
    for every_step in (True, False):
        net, batch = network(every_step=every_step, **DEEP)
        true, _ = credit.backprop(net, loss, net.init_params(), *batch)
        assert_equal(step(OTTT(), net, batch).grads, true)
        assert_equal(step(SpikingEProp(mode="symmetric"), net, batch).grads, true)


def test_at_a_single_step_ottt_is_backprop():
    net, batch = network((3, 5, 6, 4, 2), steps=1, **DEEP)
    true, _ = credit.backprop(net, loss, net.init_params(), *batch)
    assert_equal(step(OTTT(), net, batch).grads, true)


def test_with_several_layers_ottt_lies_within_60_degrees_of_backprop_and_leaves_out_the_past_of_the_layers_above():
    net, batch = network((3, 5, 6, 2), **DEEP)
    true, _ = credit.backprop(net, loss, net.init_params(), *batch)
    grads = step(OTTT(), net, batch).grads
    above = [name for name in true if name.startswith(("lif2", "w_out"))]
    assert_equal({n: grads[n] for n in above}, {n: true[n] for n in above})
    assert 2 < angle(grads, true, ["lif1.w_in.weight", "lif1.w_in.bias"]) < 60


def test_ottt_refuses_what_it_does_not_serve_in_a_sentence():
    task = tiny_net("snn").task
    assert "feedforward networks" in OTTT().skip(network()[0], task)
    assert "such as adaptation" in OTTT().skip(network(recurrent=False, adaptation=0.1)[0], task)
    assert "neurons that spike in time" in OTTT().skip(tiny_net("cnn").net, task)
    assert OTTT().skip(network(**DEEP)[0], task) is None


# Alignment by spike timing -----------------------------------------------------------------------------------------------


def change_by_hand(rule, w, b, lower, upper):
    """One trial, step and synapse after another: every pair of spikes moves the feedback weight."""
    m, n = w.shape
    trials, steps = lower.shape[1], lower.shape[0]
    drives = []
    for k in range(trials):
        l0 = [1.0 if lower[0, k, j] < 0.5 else 0.0 for j in range(n)]
        drives += [float(sum(w[i, j] * (l0[j] - 0.5) for j in range(n))) for i in range(m)]
    g = rule.coupling / (sum(d**2 for d in drives) / len(drives)) ** 0.5
    total = torch.zeros_like(w)
    for k in range(trials):
        low = [[1.0 if lower[0, k, j] < 0.5 else 0.0 for j in range(n)]]
        up = [[1.0 if upper[0, k, i] < 0.5 else 0.0 for i in range(m)]]
        for t in range(1, steps):
            p_up = [0.5 + g * float(sum(w[i, j] * (low[-1][j] - 0.5) for j in range(n))) for i in range(m)]
            p_low = [0.5 + g * float(sum(b[i, j] * (up[-1][i] - 0.5) for i in range(m))) for j in range(n)]
            low.append([1.0 if lower[t, k, j] < p_low[j] else 0.0 for j in range(n)])
            up.append([1.0 if upper[t, k, i] < p_up[i] else 0.0 for i in range(m)])
        for i in range(m):
            for j in range(n):
                for t in range(steps):
                    for s in range(steps):
                        both = up[t][i] * low[s][j]
                        if s < t:  # the lower neuron was first
                            total[i, j] += both * rule.window ** (t - s - 1)
                        elif t < s:
                            total[i, j] -= both * rule.window ** (s - t - 1)
    return total * 4 / (g * trials * (steps - 1))


def spontaneous(rule, m, n, seed=0):
    gen = seeded(seed)
    draw = (
        torch.rand(rule.steps, rule.trials, units, generator=gen, dtype=torch.float64) for units in (n, m)
    )
    return tuple(draw)


@pytest.mark.parametrize("window", [0.0, 0.6])
def test_alignment_equals_pairs_of_spikes_written_out(window):
    rule = SpikeTimingAlignment(trials=3, steps=7, window=window, coupling=0.3)
    w, b = (torch.randn(3, 4, generator=seeded(s), dtype=torch.float64) for s in (1, 2))
    lower, upper = spontaneous(rule, 3, 4)

    torch.testing.assert_close(rule.change(w, b, lower, upper), change_by_hand(rule, w, b, lower, upper))


def mean_change(b, w, window):
    """The mean ΔB of 60,000 trials of eleven steps, and the standard error of an entry, from 60 batches of them."""
    rule = SpikeTimingAlignment(trials=1000, steps=11, coupling=0.1, window=window)
    each = torch.stack([rule.change(w, b, *spontaneous(rule, *w.shape, seed)) for seed in range(60)])
    return each.mean(0), each.std(0).max() / 60**0.5


@pytest.mark.parametrize("window", [0.0, 0.5])
def test_the_expected_change_is_the_weight_minus_the_feedback_weight(window):
    """20 entries each within 4 standard errors of 0.06 (seeds fixed); 2 at most were seen. The bias is of order g²."""
    w, b = (torch.randn(4, 5, generator=seeded(s), dtype=torch.float64) for s in (1, 2))
    for feedback in (torch.zeros_like(w), b, w):
        found, error = mean_change(feedback, w, window)
        assert error < 0.06
        assert (found - (w - feedback)).abs().max() < 4 * error


def test_the_feedback_comes_to_the_weight():
    """The angle falls from 90° to less than 15°, the size to within 10 %, for a layer of 30 and 20 neurons."""
    rule = SpikeTimingAlignment()
    w = torch.randn(20, 30, generator=seeded(1), dtype=torch.float64)
    b, angles = torch.zeros_like(w), []
    for t in range(120):
        lower, upper = spontaneous(rule, 20, 30, seed=t)
        b = b + max(rule.rate, 1 / (t + 1)) * rule.change(w, b, lower, upper)
        angles.append(angle({"w": b}, {"w": w}, ["w"]))
    assert angles[0] > angles[9] > angles[29] > angles[89]
    assert angles[-1] < 15
    assert (b.norm() / w.norm()).item() == pytest.approx(1, abs=0.1)


def aligned(net):
    params = net.init_params()
    return {f"feedback.{name}": params[name] for name in ("lif2.w_in.weight", "w_out.weight")}


def test_with_feedback_that_is_the_weight_it_is_backprop_through_time():
    net, batch = network((3, 5, 6, 2), **DEEP)
    true, _ = credit.backprop(net, loss, net.init_params(), *batch)
    rule = SpikeTimingAlignment(every=2)  # step 1 leaves the feedback as it is

    made = step(rule, net, batch, State(buffers=aligned(net)), t=1)

    assert_equal(made.grads, true)
    assert_equal(made.state.buffers, aligned(net), 0.0)
    assert rule.noise(net, made.state, batch, seeded(), 1) == {}


def test_with_feedback_that_has_come_near_it_lies_within_45_degrees_of_backprop_and_is_not_backprop():
    net, batch = network((3, 5, 6, 2), **DEEP)
    params, rule = net.init_params(), SpikeTimingAlignment()
    true, _ = credit.backprop(net, loss, params, *batch)
    state, off = rule.init(net, params, batch, seeded()), []
    for t in range(80):
        made = step(rule, net, batch, state, noise=rule.noise(net, state, batch, seeded(t), t), t=t)
        state = made.state
        off.append(angle(made.grads, true, hidden(net)))
    assert 1 < off[-1] < 45
    assert off[-1] < off[0]


@pytest.mark.parametrize(("t", "rate"), [(0, 1.0), (8, 0.2), (100, 0.04)])
def test_a_step_moves_the_feedback_and_sends_errors_through_it(t, rate):
    net, batch = network((3, 5, 6, 2), **DEEP)
    params, rule = net.init_params(), SpikeTimingAlignment(every=2, rate=0.04, trials=5, steps=4)
    state = State(
        buffers={name: torch.randn(b.shape, generator=seeded(4)).double() for name, b in aligned(net).items()}
    )
    noise = rule.noise(net, state, batch, seeded(), t)
    assert {name: tuple(z.shape) for name, z in noise.items()} == {
        "lower.lif2.w_in.weight": (4, 5, 5), "upper.lif2.w_in.weight": (4, 5, 6),
        "lower.w_out.weight": (4, 5, 6), "upper.w_out.weight": (4, 5, 2),
    }  # fmt: skip

    made = step(rule, net, batch, state, noise=noise, t=t)

    expected = {}
    for name in ("lif2.w_in.weight", "w_out.weight"):
        b = state.buffers[f"feedback.{name}"]
        expected[name] = b + rate * rule.change(
            params[name], b, noise[f"lower.{name}"], noise[f"upper.{name}"]
        )
    assert_equal(made.state.buffers, {f"feedback.{name}": b for name, b in expected.items()})
    assert_equal(made.grads, credit.through_feedback(net, loss, params, expected, *batch)[0])


def test_spontaneous_activity_is_uniform_noise_and_feedback_begins_at_zero():
    net, batch = network((3, 5, 6, 2), **DEEP)
    rule = SpikeTimingAlignment()
    state = rule.init(net, net.init_params(), batch, seeded())
    assert {n: tuple(b.shape) for n, b in state.buffers.items()} == {
        "feedback.lif2.w_in.weight": (6, 5), "feedback.w_out.weight": (2, 6),
    }  # fmt: skip
    assert not any(b.any() for b in state.buffers.values())
    u = rule.noise(net, state, batch, seeded(), 0)["lower.w_out.weight"]
    assert u.min() >= 0
    assert u.max() < 1
    assert u.mean().item() == pytest.approx(0.5, abs=4 / (12 * u.numel()) ** 0.5)


def test_alignment_refuses_what_it_does_not_serve_in_a_sentence():
    rule, task = SpikeTimingAlignment(), tiny_net("snn").task
    assert "recurrent synapses" in rule.skip(network()[0], task)
    assert "neurons that spike in time" in rule.skip(tiny_net("mlp").net, task)
    assert rule.skip(network((3, 5, 6, 2), adaptation=0.5, recurrent=False)[0], task) is None


# Defaults --------------------------------------------------------------------------------------------------------------


def test_the_options_that_results_are_stored_with():
    """A change here changes every result: raise the version of the rule."""
    common = {"lr": None, "weight_decay": None}
    assert SpikingEProp().resolved() == {**common, "mode": "random", "scale": 1.0}
    assert OTTT().resolved() == common
    assert SpikeTimingAlignment().resolved() == {
        **common, "rate": 0.03, "every": 1, "trials": 32, "steps": 20, "coupling": 0.2, "window": 0.5,
    }  # fmt: skip
