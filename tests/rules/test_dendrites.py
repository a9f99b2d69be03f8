"""Bursts and dendritic microcircuits, neuron by neuron as in the papers, and their limits of small errors."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Net, Site, State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.dendrites.bursts import BurstCCN, burst_change
from rulezoo_plugins.dendrites.microcircuit import DendriticMicrocircuit
from rulezoo_plugins.feedback_weights.feedback_alignment import FeedbackAlignment


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def begun(rule, tiny):
    params, batch = tiny.params(), tiny.batch()
    return params, batch, rule.init(tiny.net, params, batch, gen(1))


def first(rule, tiny, state=None, loss=None):
    params, batch, begins = begun(rule, tiny)
    return rule.step(tiny.net, loss or tiny.task.loss, params, state or begins, batch, {}, 0)


def assert_equal(grads, expected, rtol=1e-9):
    assert grads.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(grads[name], tensor, rtol=rtol, atol=1e-13, msg=name)


def cosine(some, others, names):
    flat = (torch.cat([one[name].flatten() for name in names]) for one in (some, others))
    return torch.cosine_similarity(*flat, dim=0).item()


def without_teacher(output, y):
    return 0 * output.sum(1)


# Bursts --------------------------------------------------------------------------------------------------------------


def rectified(params, x):
    """Rates of a network of rectified linear units, for one example."""
    v1 = params["0.weight"] @ x + params["0.bias"]
    v2 = params["3.weight"] @ v1.relu() + params["3.bias"]
    return v1.relu(), v2.relu(), params["6.weight"] @ v2.relu() + params["6.bias"]


def relu_net():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), Site("post"), nn.Linear(8, 7), nn.ReLU(), Site("post"), nn.Linear(7, 3)
    ).double()
    x = torch.randn(12, 5, generator=gen(3), dtype=torch.float64)
    net = Net(module, x)
    return net, net.init_params(), Batch(x, torch.arange(12) % 3)


def cross_entropy(output, y):
    return F.cross_entropy(output, y, reduction="none")


@pytest.mark.parametrize("baseline", [0.5, 0.2])
def test_bursts_neuron_by_neuron(baseline):
    """Events and bursts through Y and Q = p_b Y, and ΔW = (b − p_b e) e', for rectified linear units."""
    net, params, batch = relu_net()
    teaching = 0.8
    rule = BurstCCN(baseline=baseline, teaching=teaching)
    state = rule.init(net, params, batch, gen(1))
    y2, y1 = state.buffers["feedback.6.weight"], state.buffers["feedback.3.weight"]
    expected = {name: torch.zeros_like(p) for name, p in params.items()}

    def bursting(e, u):
        p = 1 / (1 + math.exp(-(math.log(baseline / (1 - baseline)) + u / e / (baseline * (1 - baseline)))))
        return p * e

    for x, label in zip(*batch, strict=True):
        e1, e2, out = rectified(params, x)
        error = out.softmax(0) - F.one_hot(label, 3)
        b3 = baseline * out - teaching * error
        u2 = y2.T @ b3 - (baseline * y2).T @ out
        b2 = torch.stack([bursting(e, u) if e > 0 else e for e, u in zip(e2, u2, strict=True)])
        u1 = y1.T @ b2 - (baseline * y1).T @ e2
        b1 = torch.stack([bursting(e, u) if e > 0 else e for e, u in zip(e1, u1, strict=True)])
        for layer, b, e, before in (
            ("6", b3, out, e2),
            ("3", b2, e2, e1),
            ("0", b1, e1, x),
        ):
            change = (b - baseline * e) / teaching / len(batch.x)
            expected[f"{layer}.weight"] -= torch.outer(change, before)
            expected[f"{layer}.bias"] -= change

    result = rule.step(net, cross_entropy, params, state, batch, {}, 0)

    assert_equal(result.grads, expected, rtol=1e-7)
    torch.testing.assert_close(result.loss, cross_entropy(net.run(params, batch.x), batch.y).mean())
    assert result.state is state


@pytest.mark.parametrize("sign", [1, -1])
def test_a_burst_rate_lies_between_zero_and_the_rate_of_events(sign):
    events = sign * torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    for baseline in (0.5, 0.1):
        more, less = (
            burst_change(events, torch.full((3,), u, dtype=torch.float64), baseline) for u in (1e3, -1e3)
        )
        torch.testing.assert_close(more, (1 - baseline) * events.abs())
        torch.testing.assert_close(less, -baseline * events.abs())
        small = burst_change(events, torch.full((3,), 1e-6, dtype=torch.float64), baseline)
        torch.testing.assert_close(small, torch.tensor([1e-6, 1e-6, 0.0]).double(), rtol=1e-5, atol=1e-12)


def test_without_a_teacher_every_neuron_bursts_at_the_baseline_and_nothing_learns(tiny):
    rule = BurstCCN(baseline=0.3)
    assert not any(g.any() for g in first(rule, tiny, loss=without_teacher).grads.values())
    assert not burst_change(torch.rand(5), torch.zeros(5), 0.5).any()


@pytest.mark.parametrize(("symmetric", "rule"), [(False, FeedbackAlignment()), (True, None)])
def test_where_the_teacher_is_weak_bursts_are_the_errors_of_feedback_alignment_or_backprop(
    tiny, symmetric, rule
):
    """The difference is of second order in the error where p_b is not 0.5, so of first order relative to it."""
    weights = "symmetric" if symmetric else "random"
    true = (
        first(rule, tiny).grads
        if rule
        else credit.backprop(tiny.net, tiny.task.loss, tiny.params(), *tiny.batch())[0]
    )
    off = {}
    for teaching in (1e-3, 1e-4):
        grads = first(BurstCCN(baseline=0.3, teaching=teaching, feedback_weights=weights), tiny).grads
        off[teaching] = float(sum((grads[n] - true[n]).square().sum() for n in true) ** 0.5)
    assert off[1e-4] < 1e-3 * float(sum(g.square().sum() for g in true.values()) ** 0.5)
    assert off[1e-3] / off[1e-4] == pytest.approx(10, rel=0.3)


def test_at_its_default_strength_bursts_saturate(tiny):
    params, batch, state = begun(BurstCCN(), tiny)
    own = (
        BurstCCN(feedback_weights="symmetric")
        .step(tiny.net, tiny.task.loss, params, state, batch, {}, 0)
        .grads
    )
    true = credit.backprop(tiny.net, tiny.task.loss, params, *batch)[0]
    hidden = [name for name in params if name not in tiny.net.readout]
    assert 0.5 < cosine(own, true, hidden) < 1 - 1e-6


# Microcircuits -------------------------------------------------------------------------------------------------------


def deep_perceptron():
    """5 → 8 → 7 → 6 → 3 with tanh: in a third hidden layer interneurons and soma have different inputs."""
    torch.manual_seed(0)
    layers = {}
    for k, (n_in, n_out) in enumerate(pairwise((5, 8, 7, 6)), 1):
        layers |= {f"fc{k}": nn.Linear(n_in, n_out), f"pre{k}": Site("pre"), f"tanh{k}": nn.Tanh()}
        layers[f"post{k}"] = Site("post")
    module = nn.Sequential(OrderedDict(layers, readout=nn.Linear(6, 3))).double()
    mlp = tiny_net("mlp")
    net = Net(module, mlp.batch().x[:2])
    return SimpleNamespace(net=net, task=mlp.task, params=net.init_params, batch=mlp.batch)


def circuit_by_hand(rule, params, state, x, label):
    """One example of a perceptron with tanh: gradients of the forward and lateral weights."""
    names = [name.removesuffix(".weight") for name in params if name.endswith(".weight")]
    top = len(names) - 1
    w, bias = [params[f"{name}.weight"] for name in names], [params[f"{name}.bias"] for name in names]
    down = [state.buffers[f"down.{k}"] for k in range(top)]
    ip, pi = ([state.params[f"{kind}.{k}"] for k in range(top)] for kind in ("ip", "pi"))
    phi = [torch.tanh] * top + [lambda u: u]
    lam, mu = rule.apical, rule.interneuron

    def lateral(k, r):
        return ip[k][:, :-1] @ r + ip[k][:, -1]

    u = [w[0] @ x + bias[0]]
    for k in range(1, top + 1):
        u.append(w[k] @ torch.tanh(u[k - 1]) + bias[k])
    inter = [(1 - mu) * lateral(k, torch.tanh(u[k])) + mu * u[k + 1] for k in range(top)]
    for _ in range(rule.steps):
        r = [phi[k](u[k]) for k in range(top + 1)]
        mirrored = [phi[k + 1](inter[k]) for k in range(top)]
        v = [w[k] @ (r[k - 1] if k else x) + bias[k] for k in range(top + 1)]
        a = [down[k] @ r[k + 1] + pi[k] @ mirrored[k] for k in range(top)]
        error = v[top].softmax(0) - F.one_hot(label, 3)
        u = [*(v[k] + lam * a[k] for k in range(top)), v[top] - rule.nudge * error]
        alone = [lateral(k, r[k]) for k in range(top)]
        inter = [(1 - mu) * alone[k] + mu * u[k + 1] for k in range(top)]
    grads = {}
    for k, name in enumerate(names):
        left = rule.nudge * (lam * (1 - mu)) ** (top - k)
        change = (phi[k](u[k]) - phi[k](v[k])) / left
        grads[f"{name}.weight"] = -torch.outer(change, x if k == 0 else r[k - 1])
        grads[f"{name}.bias"] = -change
    for k in range(top):
        behind = (phi[k + 1](inter[k]) - phi[k + 1](alone[k])) / mu
        grads[f"rule.ip.{k}"] = -torch.outer(behind, torch.cat([r[k], torch.ones(1, dtype=torch.float64)]))
        grads[f"rule.pi.{k}"] = torch.outer(a[k], mirrored[k])
    return grads


@pytest.mark.parametrize("make", [lambda: tiny_net("mlp"), deep_perceptron], ids=["mlp", "deep"])
@pytest.mark.parametrize("feedback", ["random", "symmetric"])
def test_a_circuit_example_by_example(make, feedback):
    tiny = make()
    rule = DendriticMicrocircuit(
        nudge=0.7, apical=0.4, interneuron=0.2, steps=6, feedback=feedback, first_phase=3, mirror_rate=0.5
    )
    params, batch, state = begun(rule, tiny)
    expected = {}
    for x, label in zip(*batch, strict=True):
        for name, g in circuit_by_hand(rule, params, state, x, label).items():
            expected[name] = expected.get(name, 0) + g / len(batch.x)

    result = first(rule, tiny, state)

    assert_equal(result.grads, expected)
    torch.testing.assert_close(result.loss, tiny.task.loss(tiny.net.run(params, batch.x), batch.y).mean())
    assert result.state is state


def test_the_first_phase_by_loops(mlp):
    rule = DendriticMicrocircuit(first_phase=3)
    params, (x, _), state = begun(rule, mlp)
    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    v2 = h1 @ params["fc2.weight"].T + params["fc2.bias"]
    h2 = torch.tanh(v2)
    out = h2 @ params["readout.weight"].T + params["readout.bias"]
    for k, (r, potential, rates) in enumerate(((h1, v2, h2), (h2, out, out))):
        ones = torch.cat([r, torch.ones(len(r), 1, dtype=torch.float64)], 1)
        down = state.buffers[f"down.{k}"]
        ip, pi = torch.zeros(potential.shape[1], ones.shape[1]).double(), torch.zeros_like(down)
        for _ in range(3):
            d_ip, d_pi = torch.zeros_like(ip), torch.zeros_like(pi)
            for b in range(len(r)):
                d_ip += torch.outer(potential[b] - ip @ ones[b], ones[b]) / len(r)
                d_pi -= torch.outer((down + pi) @ rates[b], rates[b]) / len(r)
            ip = ip + d_ip / (1 + (ones**2).sum() / len(r))
            pi = pi + d_pi / (1 + (rates**2).sum() / len(r))
        torch.testing.assert_close(state.params[f"ip.{k}"], ip)
        torch.testing.assert_close(state.params[f"pi.{k}"], pi)


def test_self_predicting_lateral_weights_are_copies(mlp):
    params, _, state = begun(DendriticMicrocircuit(start="self-predicting"), mlp)
    for k, name in enumerate(("fc2", "readout")):
        weight = torch.cat([params[f"{name}.weight"], params[f"{name}.bias"][:, None]], 1)
        assert torch.equal(state.params[f"ip.{k}"], weight)
        assert torch.equal(state.params[f"pi.{k}"], -state.buffers[f"down.{k}"])
        assert not torch.allclose(state.buffers[f"down.{k}"], params[f"{name}.weight"].T)
    _, _, state = begun(DendriticMicrocircuit(feedback="symmetric"), mlp)
    assert torch.equal(state.buffers["down.1"], params["readout.weight"].T)


def test_in_the_self_predicting_state_apical_potentials_are_zero_without_a_teacher(mlp):
    grads = first(DendriticMicrocircuit(start="self-predicting"), mlp, loss=without_teacher).grads
    assert all(float(g.abs().max()) < 1e-12 for g in grads.values())
    unlearnt = first(DendriticMicrocircuit(first_phase=0), mlp, loss=without_teacher).grads
    assert float(unlearnt["rule.pi.0"].abs().max()) > 1e-3


def test_the_first_phase_leads_to_the_self_predicting_state(mlp):
    """Apical potentials vanish for the inputs that it has seen; they are as good as explained after many updates."""
    left = {}
    for updates in (0, 100, 10_000):
        grads = first(DendriticMicrocircuit(first_phase=updates), mlp, loss=without_teacher).grads
        left[updates] = float(grads["rule.pi.0"].norm() + grads["rule.pi.1"].norm())
    assert left[100] < 0.3 * left[0]
    assert left[10_000] < 0.02 * left[0]


def test_where_the_teacher_is_weak_a_circuit_gives_the_direction_of_backprop(mlp):
    true, off = credit.backprop(mlp.net, mlp.task.loss, mlp.params(), *mlp.batch())[0], {}
    for nudge in (1e-2, 1e-3):
        rule = DendriticMicrocircuit(nudge=nudge, feedback="symmetric", start="self-predicting")
        grads = first(rule, mlp).grads
        off[nudge] = float(sum((grads[n] - true[n]).square().sum() for n in true) ** 0.5)
    assert off[1e-3] < 0.01 * float(sum(g.square().sum() for g in true.values()) ** 0.5)
    assert off[1e-2] / off[1e-3] == pytest.approx(10, rel=0.2)


def test_a_circuit_is_not_backprop_by_default(mlp):
    hidden = [name for name in mlp.params() if name not in mlp.net.readout]
    true, _ = credit.backprop(mlp.net, mlp.task.loss, mlp.params(), *mlp.batch())
    rule = DendriticMicrocircuit(feedback="symmetric", start="self-predicting")
    assert 0.8 < cosine(first(rule, mlp).grads, true, hidden) < 0.9999


def test_lateral_weights_have_rates_of_their_own(mlp):
    rates = DendriticMicrocircuit(mirror_rate=0.5, cancel_rate=0.25).rates(mlp.net)
    assert rates == {"rule.ip.0": 0.5, "rule.ip.1": 0.5, "rule.pi.0": 0.25, "rule.pi.1": 0.25}


def chain(*layers):
    return Net(nn.Sequential(*layers), torch.randn(2, 5, generator=gen()))


def hidden_layer(n_in, n_out):
    return nn.Linear(n_in, n_out), Site("pre"), nn.ReLU(), Site("post")


@pytest.mark.parametrize(
    "net",
    [
        tiny_net("cnn").net,
        tiny_net("rnn").net,
        Net(nn.Linear(5, 3), torch.zeros(2, 5)),
        chain(nn.Linear(5, 4), nn.ReLU(), Site("post"), nn.Linear(4, 3)),
        chain(*hidden_layer(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
        chain(*hidden_layer(5, 4), nn.Tanh(), nn.Linear(4, 3)),
        chain(nn.Tanh(), *hidden_layer(5, 4), nn.Linear(4, 3)),
        chain(nn.Linear(5, 4), Site("pre"), nn.GLU(), Site("post"), nn.Linear(2, 3)),
        chain(*hidden_layer(5, 4), nn.Linear(4, 4), Site("pre"), nn.GLU(), Site("post"), nn.Linear(2, 3)),
        chain(*hidden_layer(5, 4), nn.Linear(4, 3), nn.Tanh()),
        chain(*hidden_layer(5, 4), nn.Linear(4, 3), Site("pre"), nn.Tanh(), Site("post")),
    ],
    ids=["convolutions", "recurrent", "no site", "no pre", "norm", "between", "before", "gated", "gated behind", "after",
         "no read-out"],
)  # fmt: skip
def test_what_is_no_chain_of_dense_layers_is_skipped_in_a_sentence(mlp, net):
    assert "it needs dense layers in a chain" in DendriticMicrocircuit().skip(net, mlp.task)


def test_a_chain_without_biases_and_with_a_flattened_image_is_served(mlp):
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 4, bias=False),
        Site("pre"),
        nn.ReLU(),
        Site("post"),
        nn.Linear(4, 3, bias=False),
    ).double()
    x = torch.randn(5, 2, 3, generator=gen(), dtype=torch.float64)
    net, rule, batch = Net(module, x), DendriticMicrocircuit(), Batch(x, torch.tensor([0, 1, 2, 0, 1]))
    params = net.init_params()
    assert rule.skip(net, mlp.task) is None
    step = rule.step(net, cross_entropy, params, rule.init(net, params, batch, gen()), batch, {}, 0)
    assert step.grads.keys() == {*params, "rule.ip.0", "rule.pi.0"}


def test_bursts_need_sites_and_weights_that_can_be_replaced(mlp):
    assert "kind 'post'" in BurstCCN().skip(Net(nn.Linear(5, 3), torch.zeros(2, 5)), mlp.task)
    assert BurstCCN().skip(mlp.net, mlp.task) is None
    assert isinstance(begun(BurstCCN(), mlp)[2], State)
