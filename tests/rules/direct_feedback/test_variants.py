"""Variants of direct feedback alignment, held to their formulas written out, and to their limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Batch, Budget, Net, Site, State, credit
from rulezoo.net import Values
from rulezoo.options import OptionError, declared
from rulezoo.testing import tiny_net
from rulezoo.training.trainer import Trainer
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.direct_feedback.conditioned import ConditionedDirectFeedback, divided
from rulezoo_plugins.direct_feedback.direct_kolen_pollack import DirectKolenPollack
from rulezoo_plugins.direct_feedback.random_targets import DirectRandomTargetProjection

RULES = [DirectKolenPollack, ConditionedDirectFeedback, DirectRandomTargetProjection]
DECAY, LR = 2.0, 0.05


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def begin(rule, tiny):
    params, batch = tiny.params(), tiny.batch()
    return params, rule.init(tiny.net, params, batch, seeded()), batch


def first(rule, tiny, state=None):
    params, drawn, batch = begin(rule, tiny)
    return rule.step(tiny.net, tiny.task.loss, params, state or drawn, batch, {}, 0)


def assert_equal(got, wanted, rtol=1e-9):
    assert got.keys() >= wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=rtol, atol=1e-13, msg=name)


def cosine(some, others, names):
    flat = (torch.cat([one[name].flatten() for name in names]) for one in (some, others))
    return torch.cosine_similarity(*flat, dim=0).item()


def hidden(tiny):
    return [name for name in tiny.params() if name not in tiny.net.readout]


# Networks written out ------------------------------------------------------------------------------------------------


def perceptron(p, x, y):
    """The activities of a perceptron, and the error of the mean loss at its output."""
    h1 = torch.tanh(x @ p["fc1.weight"].T + p["fc1.bias"])
    h2 = torch.tanh(h1 @ p["fc2.weight"].T + p["fc2.bias"])
    output = h2 @ p["readout.weight"].T + p["readout.bias"]
    return h1, h2, (output.softmax(1) - F.one_hot(y, 3)) / len(y)


def perceptron_gradients(x, h1, h2, error, v1, v2):
    """Gradients for teaching signals of both sites."""
    d1, d2 = v1 * (1 - h1**2), v2 * (1 - h2**2)
    return {
        "fc1.weight": d1.T @ x,
        "fc1.bias": d1.sum(0),
        "fc2.weight": d2.T @ h1,
        "fc2.bias": d2.sum(0),
        "readout.weight": error.T @ h2,
        "readout.bias": error.sum(0),
    }


def convolutional(p, x, y):
    s1 = F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1)
    h1, where = F.max_pool2d(s1.relu(), 2, return_indices=True)
    s2 = F.conv2d(h1, p["conv2.weight"], p["conv2.bias"], padding=1)
    h2 = h1 + s2.relu()
    output = h2.flatten(1) @ p["readout.weight"].T + p["readout.bias"]
    return s1, where, h1, s2, h2, (output.softmax(1) - F.one_hot(y, 3)) / len(y)


def recurrent(p, x, leak):
    """States, rates, and the state in front of each step."""
    h, seen = x.new_zeros(len(x), 6), []
    for x_t in x.unbind(1):
        rate = torch.tanh(h @ p["w_rec.weight"].T + x_t @ p["w_in.weight"].T + p["w_in.bias"])
        after = (1 - leak) * h + leak * rate
        seen.append((h, rate, after))
        h = after
    return seen


def recurrent_gradients(p, x, leak, signals):
    wanted = {name: torch.zeros_like(p[name]) for name in ("w_rec.weight", "w_in.weight", "w_in.bias")}
    for t, ((h, rate, _), signal) in enumerate(zip(recurrent(p, x, leak), signals, strict=True)):
        d = leak * signal * (1 - rate**2)
        wanted["w_rec.weight"] += d.T @ h
        wanted["w_in.weight"] += d.T @ x[:, t]
        wanted["w_in.bias"] += d.sum(0)
    return wanted


# Direct Kolen-Pollack ------------------------------------------------------------------------------------------------


def dkp_of_perceptron(p, b, x, y):
    h1, h2, error = perceptron(p, x, y)
    grads = perceptron_gradients(x, h1, h2, error, error @ b["feedback.post1"], error @ b["feedback.post2"])
    # One number at a time: the error of an output times the activity of a unit, over the examples.
    own = {
        f"rule.feedback.{site}": torch.tensor(
            [
                [sum(error[k, o] * h[k, u] for k in range(len(x))) for u in range(h.shape[1])]
                for o in range(3)
            ],
            dtype=h.dtype,
        )
        for site, h in (("post1", h1), ("post2", h2))
    }
    return grads | own


def test_direct_kolen_pollack_written_out(mlp):
    params, state, (x, y) = begin(DirectKolenPollack(), mlp)

    step = first(DirectKolenPollack(), mlp)

    wanted = dkp_of_perceptron(params, state.params, x, y)
    assert step.grads.keys() == wanted.keys()
    assert_equal(step.grads, wanted)
    torch.testing.assert_close(step.loss, mlp.task.loss(mlp.net.run(params, x), y).mean())


def trained(rule, steps, optimizer="sgd"):
    """A trainer's tensors before and after some steps on a perceptron, and the batches."""
    tiny = tiny_net("mlp")
    batches = [tiny.batch(8, seed=t) for t in range(steps)]
    budget = Budget(1, 8, LR, optimizer=optimizer, weight_decay=rule.weight_decay)
    given = Batch(batches[0].x[None], batches[0].y[None])
    trainer = Trainer(
        rule, tiny.net, tiny.task.loss, [Values(tiny.params(), {}, {})], given, [0], budget, steps
    )
    before = {name: p.clone() for name, p in trainer.trained.items()}
    for x, y in batches:
        trainer.step(Batch(x[None], y[None]))
    return before, dict(trainer.trained), batches


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_direct_kolen_pollack_is_the_recursion_of_the_paper(rate):
    """ΔB = −η e hᵀ − λ B with SGD of momentum 0.9 and λ = 1 − exp(−decay / steps), by hand; both times the rate of their own."""
    steps = 5
    rule = DirectKolenPollack(feedback_rate=rate)
    tensors, after, batches = trained(rule, steps)
    momentum = {name: torch.zeros_like(p) for name, p in tensors.items()}
    for x, y in batches:
        b = {name.removeprefix("rule."): p for name, p in tensors.items() if name.startswith("rule.")}
        for name, grad in dkp_of_perceptron(tensors, b, x, y).items():
            momentum[name] = 0.9 * momentum[name] + grad
            own = rate if name.startswith("rule.") else 1.0
            tensors[name] = math.exp(-own * DECAY / steps) * tensors[name] - own * LR * momentum[name]
    assert_equal(after, tensors)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_feedback_of_the_last_site_becomes_the_read_out_at_the_rate_of_kolen_pollack(optimizer):
    """Not so that of a site further down, which no forward weight is the read-out of."""
    before, after, _ = trained(DirectKolenPollack(), 20, optimizer)

    def off(tensors):
        return tensors["readout.weight"] - tensors["rule.feedback.post2"]

    torch.testing.assert_close(off(after), math.exp(-DECAY) * off(before), rtol=1e-9, atol=1e-13)
    assert float((after["readout.weight"] - before["readout.weight"]).norm()) > 0.1
    assert float((after["rule.feedback.post1"] - before["rule.feedback.post1"]).norm()) > 0.1


@pytest.mark.parametrize("kind", ["rnn", "rnn-every-step"])
def test_visits_of_a_recurrent_site_share_a_feedback_that_learns_from_all_of_them(kind):
    tiny = tiny_net(kind)
    params, state, (x, y) = begin(DirectKolenPollack(), tiny)
    error, _ = credit.output_error(tiny.task.loss, tiny.net.run(params, x), y)
    errors = error.unbind(1) if error.ndim == 3 else [error] * 4
    states = [after for _, _, after in recurrent(params, x, tiny.net.module.LEAK)]
    b = state.params["feedback.hidden"]

    grads = first(DirectKolenPollack(), tiny).grads

    wanted = recurrent_gradients(params, x, tiny.net.module.LEAK, [e @ b for e in errors])
    own = sum(e.T @ h for e, h in zip(errors, states, strict=True))
    assert_equal(grads, wanted | {"rule.feedback.hidden": own})


def test_direct_kolen_pollack_starts_from_the_weights_of_direct_feedback_and_asks_for_decay(tiny):
    _, state, _ = begin(DirectKolenPollack(scale=2.0), tiny)
    _, fixed, _ = begin(DirectFeedbackAlignment(scale=2.0), tiny)

    assert not state.buffers
    assert state.params.keys() == fixed.buffers.keys()
    for name, b in fixed.buffers.items():
        assert torch.equal(state.params[name], b)
    assert DirectKolenPollack(feedback_rate=0.3).rates(tiny.net) == {
        f"rule.{name}": 0.3 for name in fixed.buffers
    }
    with pytest.raises(OptionError, match="weight_decay must be a number in"):
        DirectKolenPollack(weight_decay=None)


def test_with_the_read_out_as_its_feedback_the_last_hidden_layer_gets_its_true_gradient(mlp):
    params, state, batch = begin(DirectKolenPollack(), mlp)
    agreed = State({**state.params, "feedback.post2": params["readout.weight"]})

    grads = first(DirectKolenPollack(), mlp, agreed).grads

    true, _ = credit.backprop(mlp.net, mlp.task.loss, params, *batch)
    names = ("fc2.weight", "fc2.bias", "readout.weight", "readout.bias")
    assert_equal(grads, {name: true[name] for name in names})


# Conditioned direct feedback -----------------------------------------------------------------------------------------


def second_moment(rows):
    """The mean of the outer products, one row at a time."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=rows.dtype)
    for row in rows:
        total += torch.outer(row, row)
    return total / len(rows)


def conditioned(g, inputs, errors, rule):
    """(E + λ_E)⁻¹ G (A + λ_A)⁻¹, of the norm of G."""
    found = g
    if rule.condition != "activity":
        damped = second_moment(errors) + rule.error_damping * torch.eye(errors.shape[1], dtype=g.dtype)
        found = torch.linalg.inv(damped) @ found
    if rule.condition != "error":
        damped = second_moment(inputs) + rule.activity_damping * torch.eye(inputs.shape[1], dtype=g.dtype)
        found = found @ torch.linalg.inv(damped)
    return found * g.norm() / found.norm() if rule.match_norm else found


CONDITIONS = [
    ConditionedDirectFeedback(condition=condition, match_norm=match, activity_damping=0.2, error_damping=0.05)
    for condition in ("activity", "error", "both")
    for match in (True, False)
]


@pytest.mark.parametrize("rule", CONDITIONS)
@pytest.mark.parametrize("examples", [4, 12])
def test_conditioning_on_a_perceptron_written_out(mlp, rule, examples):
    """With fewer examples than units of a layer, and with more."""
    params, state, _ = begin(rule, mlp)
    x, y = batch = mlp.batch(examples)
    h1, h2, error = perceptron(params, x, y)
    v1, v2 = error @ state.buffers["feedback.post1"], error @ state.buffers["feedback.post2"]
    wanted = perceptron_gradients(x, h1, h2, error, v1, v2)
    d1, d2 = examples * v1 * (1 - h1**2), examples * v2 * (1 - h2**2)
    wanted["fc1.weight"] = conditioned(wanted["fc1.weight"], x, d1, rule)
    wanted["fc2.weight"] = conditioned(wanted["fc2.weight"], h1, d2, rule)

    step = rule.step(mlp.net, mlp.task.loss, params, state, batch, {}, 0)

    assert_equal(step.grads, wanted)
    assert step.state is state
    torch.testing.assert_close(step.loss, mlp.task.loss(mlp.net.run(params, x), y).mean())


@pytest.mark.parametrize("rule", CONDITIONS)
def test_conditioning_of_convolutions_sees_every_patch_and_position(rule):
    tiny = tiny_net("cnn")
    params, state, (x, y) = begin(rule, tiny)
    s1, where, h1, s2, _, error = convolutional(params, x, y)
    v1, v2 = ((error @ state.buffers[f"feedback.post{k}"]).view_as(h1) for k in (1, 2))
    d1, d2 = F.max_unpool2d(v1, where, 2) * (s1 > 0), v2 * (s2 > 0)
    wanted = {}
    for name, fed, d in (("conv1.weight", x, d1), ("conv2.weight", h1, d2)):
        patches = F.unfold(fed, 3, padding=1).mT.flatten(0, 1)
        errors = len(x) * torch.stack(
            [d[k, :, i, j] for k in range(len(d)) for i in range(d.shape[2]) for j in range(d.shape[3])]
        )
        raw = torch.nn.grad.conv2d_weight(fed, params[name].shape, d, padding=1)
        wanted[name] = conditioned(raw.flatten(1), patches, errors, rule).view_as(raw)

    assert_equal(
        first(rule, tiny).grads, wanted | {"conv1.bias": d1.sum((0, 2, 3)), "conv2.bias": d2.sum((0, 2, 3))}
    )


@pytest.mark.parametrize("rule", CONDITIONS)
@pytest.mark.parametrize("kind", ["rnn", "rnn-every-step"])
def test_conditioning_of_recurrent_weights_sees_every_time_step(kind, rule):
    tiny = tiny_net(kind)
    params, state, (x, y) = begin(rule, tiny)
    leak, b = tiny.net.module.LEAK, state.buffers["feedback.hidden"]
    error, _ = credit.output_error(tiny.task.loss, tiny.net.run(params, x), y)
    signals = [e @ b for e in (error.unbind(1) if error.ndim == 3 else [error] * 4)]
    seen = recurrent(params, x, leak)
    errors = torch.cat(
        [len(x) * leak * v * (1 - rate**2) for v, (_, rate, _) in zip(signals, seen, strict=True)]
    )
    wanted = recurrent_gradients(params, x, leak, signals)
    fed = {"w_rec.weight": torch.cat([h for h, _, _ in seen]), "w_in.weight": torch.cat(x.unbind(1))}
    for name, rows in fed.items():
        wanted[name] = conditioned(wanted[name], rows, errors, rule)

    assert_equal(first(rule, tiny).grads, wanted, rtol=1e-8)


def test_both_systems_of_equations_give_the_same():
    gen = seeded()
    for rows, width in ((3, 7), (7, 7), (9, 7)):
        z, g = (torch.randn(n, width, generator=gen, dtype=torch.float64) for n in (rows, 4))
        wanted = g @ torch.linalg.inv(z.T @ z / rows + 0.3 * torch.eye(width, dtype=g.dtype))
        torch.testing.assert_close(divided(g, z, 0.3), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("condition", ["activity", "error", "both"])
def test_with_large_damping_conditioning_is_direct_feedback_alignment(tiny, condition):
    rule = ConditionedDirectFeedback(condition=condition, activity_damping=1e12, error_damping=1e12)
    plain = first(DirectFeedbackAlignment(), tiny).grads

    grads = first(rule, tiny).grads
    for name, wanted in plain.items():
        off = float((grads[name] - wanted).norm() / wanted.norm())
        assert off < 1e-8, name  # the moment divided by the damping, and rounding
    little = replace(rule, activity_damping=1e-3, error_damping=1e-3)
    assert cosine(first(little, tiny).grads, plain, hidden(tiny)) < 0.99


def test_conditioning_by_the_error_needs_a_site_in_front_of_the_nonlinearity(mlp):
    bare = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), Site("post"), nn.Linear(4, 3))
    blind = Net(bare.double(), torch.zeros(2, 5, dtype=torch.float64))

    assert "set condition=activity" in ConditionedDirectFeedback().skip(blind, mlp.task)
    assert ConditionedDirectFeedback(condition="activity").skip(blind, mlp.task) is None
    rule = ConditionedDirectFeedback(condition="activity")
    state = rule.init(blind, blind.init_params(), mlp.batch(), seeded())
    assert rule.step(blind, mlp.task.loss, blind.init_params(), state, mlp.batch(), {}, 0).grads.keys() == {
        "0.weight", "0.bias", "3.weight", "3.bias"
    }  # fmt: skip


def test_conditioning_skips_hidden_layers_whose_weight_is_not_plain(mlp):
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))
    net = Net(nn.Sequential(normed, Site("pre"), Site("post"), nn.Linear(4, 3)), torch.zeros(2, 5))

    for condition in ("activity", "both"):
        reason = ConditionedDirectFeedback(condition=condition).skip(net, mlp.task)
        assert "linear or convolutional with a plain weight, and layer '0' is not" in reason


# Direct random target projection -------------------------------------------------------------------------------------


def test_random_targets_on_a_perceptron_written_out(mlp):
    rule = DirectRandomTargetProjection()
    params, state, (x, y) = begin(rule, mlp)
    h1, h2, error = perceptron(params, x, y)
    b1, b2 = (state.buffers[f"projection.post{k}"] for k in (1, 2))
    v1, v2 = (torch.stack([-b[label] / len(y) for label in y]) for b in (b1, b2))

    step = first(rule, mlp)

    wanted = perceptron_gradients(x, h1, h2, error, v1, v2)
    assert step.grads.keys() == wanted.keys()
    assert_equal(step.grads, wanted)
    assert step.state is not None
    torch.testing.assert_close(step.loss, mlp.task.loss(mlp.net.run(params, x), y).mean())


def test_random_targets_are_direct_feedback_of_minus_the_label(tiny):
    """The gradient of −⟨output, label⟩ is minus the label, so direct feedback alignment of this loss sends just that."""
    rule = DirectRandomTargetProjection()
    params, state, batch = begin(rule, tiny)
    feedback = State(buffers={n.replace("projection", "feedback"): b for n, b in state.buffers.items()})

    def minus_overlap(output, y):
        shared = output * F.one_hot(y, output.shape[-1])
        return -shared.flatten(1).sum(1) * len(y) / y.numel()

    sent = DirectFeedbackAlignment().step(tiny.net, minus_overlap, params, feedback, batch, {}, 0).grads
    grads = first(rule, tiny).grads

    true, _ = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    assert_equal(grads, {name: sent[name] for name in hidden(tiny)})
    assert_equal(grads, {name: true[name] for name in tiny.net.readout})


def test_hidden_layers_learn_before_the_output_is_known(tiny):
    """What they receive does not depend on the loss."""
    rule = DirectRandomTargetProjection()
    params, state, batch = begin(rule, tiny)

    def other(output, y):
        return 3 * tiny.task.loss(output, y) + output.square().flatten(1).sum(1)

    grads = rule.step(tiny.net, other, params, state, batch, {}, 0).grads

    assert_equal(grads, {name: first(rule, tiny).grads[name] for name in hidden(tiny)}, rtol=0)


def test_projections_are_uniform_and_of_the_declared_size():
    """3 × 4,096 draws know the RMS to 0.4 %; four errors are allowed."""
    net = Net(nn.Sequential(nn.Linear(2, 4096), Site("post"), nn.Linear(4096, 3)), torch.zeros(1, 2))
    rule = DirectRandomTargetProjection(scale=2.0)
    state = rule.init(
        net, net.init_params(), Batch(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)), seeded()
    )
    b = state.buffers["projection.1"]

    assert b.shape == (3, 4096)
    assert b.dtype == torch.float32
    assert float(b.square().mean().sqrt()) == pytest.approx(2 * math.sqrt(2 / 4096), rel=0.02)
    assert float(b.max()) == pytest.approx(2 * math.sqrt(6 / 4096), rel=0.01)
    assert float(b.min()) == pytest.approx(-2 * math.sqrt(6 / 4096), rel=0.01)


def test_tasks_without_labels_are_skipped_in_a_sentence(mlp):
    rule = DirectRandomTargetProjection()

    class Task:
        targets, classes = "labels", 3

    assert rule.skip(mlp.net, Task()) is None
    for targets, words in ((None, "does not declare its targets"), ("numbers", "has numbers as targets")):
        Task.targets = targets
        assert words in rule.skip(mlp.net, Task())
    Task.targets, Task.classes = "labels", 2
    assert "an output for each of the 2 classes, and outputs have shape (3,)" in rule.skip(mlp.net, Task())
    scalar = Net(
        nn.Sequential(nn.Linear(5, 4), Site("post"), nn.Linear(4, 1), nn.Flatten(0)), torch.zeros(2, 5)
    )
    assert "outputs have shape ()" in rule.skip(scalar, Task())


def test_hidden_layers_may_learn_at_a_rate_of_their_own(tiny):
    rates = DirectRandomTargetProjection(hidden_rate=0.3).rates(tiny.net)
    assert rates == {name: 0.3 for name in tiny.params() if not name.startswith(("readout", "w_out"))}


# All -----------------------------------------------------------------------------------------------------------------


def test_defaults():
    free = {"lr": None, "weight_decay": None, "scale": 1.0}
    damping = {"activity_damping": 0.3, "error_damping": 0.1}
    assert DirectKolenPollack().resolved() == free | {"weight_decay": 2.0, "feedback_rate": 1.0}
    assert ConditionedDirectFeedback().resolved() == free | damping | {
        "condition": "both",
        "match_norm": True,
    }
    assert DirectRandomTargetProjection().resolved() == free | {"hidden_rate": 0.1}
    searched = [
        {name: one.search for name, one in declared(rule).items() if one.search and one.log} for rule in RULES
    ]
    assert searched == [
        {"scale": (0.1, 10), "weight_decay": (0.5, 5), "feedback_rate": (0.1, 10)},
        {"scale": (0.1, 10), "activity_damping": (0.03, 3), "error_damping": (0.003, 3)},
        {"scale": (0.01, 10), "hidden_rate": (0.01, 1)},
    ]


@pytest.mark.parametrize("rule", RULES)
def test_a_network_without_sites_is_skipped_in_a_sentence(rule, mlp):
    bare = Net(nn.Linear(5, 3), torch.zeros(2, 5))
    assert "sites of kind 'post', and this network has none" in rule().skip(bare, mlp.task)


@pytest.mark.parametrize(
    ("name", "least"),
    [("direct-kolen-pollack", 0.9), ("ndfa", 0.7), ("direct-random-target-projection", 0.3)],
)
def test_the_angle_to_backprop_is_within_a_bound(name, least):
    """After 300 steps on a perceptron, in which feedback and forward weights align."""
    rule = dict(zip(("direct-kolen-pollack", "ndfa", "direct-random-target-projection"), RULES, strict=True))[
        name
    ]()
    tiny = tiny_net("mlp")
    params, state, _ = begin(rule, tiny)
    for t in range(300):
        step = rule.step(tiny.net, tiny.task.loss, params, state, tiny.batch(32, seed=t), {}, t)
        params = {n: p - 0.1 * step.grads[n] for n, p in params.items()}
        own = {n: (1 - 0.002) * b - 0.1 * step.grads[f"rule.{n}"] for n, b in state.params.items()}
        state = State(own, step.state.buffers)
    batch = tiny.batch(64, seed=999)
    grads = rule.step(tiny.net, tiny.task.loss, params, state, batch, {}, 0).grads
    true, _ = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    assert least < cosine(grads, true, hidden(tiny)) < 0.9999
