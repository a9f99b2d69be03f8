"""Direct feedback alignment, held to its formula written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rulezoo import Net, credit
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment


def start(tiny, **options):
    rule = DirectFeedbackAlignment(**options)
    params, batch = tiny.params(), tiny.batch()
    return rule, params, rule.init(tiny.net, params, batch, torch.Generator().manual_seed(1)), batch


def assert_equal(grads, wanted):
    for name, tensor in wanted.items():
        torch.testing.assert_close(grads[name], tensor, rtol=1e-9, atol=1e-14, msg=name)


def test_on_a_multilayer_perceptron_written_out(mlp):
    rule, params, state, (x, y) = start(mlp)

    grads = rule.step(mlp.net, mlp.task.loss, params, state, mlp.batch(), {}, 0).grads

    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    output = h2 @ params["readout.weight"].T + params["readout.bias"]
    error = (output.softmax(1) - F.one_hot(y, 3)) / len(y)
    d1 = (error @ state.buffers["feedback.post1"]) * (1 - h1**2)
    d2 = (error @ state.buffers["feedback.post2"]) * (1 - h2**2)
    assert_equal(
        grads,
        {
            "fc1.weight": d1.T @ x,
            "fc1.bias": d1.sum(0),
            "fc2.weight": d2.T @ h1,
            "fc2.bias": d2.sum(0),
            "readout.weight": error.T @ h2,
            "readout.bias": error.sum(0),
        },
    )


@pytest.mark.parametrize("tiny", ["cnn"], indirect=True)
def test_on_a_convolutional_network_written_out(tiny):
    """Through the pooling, which lies in front of the site; the skip connection lies behind it and carries nothing."""
    rule, params, state, (x, y) = start(tiny)

    grads = rule.step(tiny.net, tiny.task.loss, params, state, tiny.batch(), {}, 0).grads

    s1 = F.conv2d(x, params["conv1.weight"], params["conv1.bias"], padding=1)
    h1, where = F.max_pool2d(s1.relu(), 2, return_indices=True)
    s2 = F.conv2d(h1, params["conv2.weight"], params["conv2.bias"], padding=1)
    output = (h1 + s2.relu()).flatten(1) @ params["readout.weight"].T + params["readout.bias"]
    error = (output.softmax(1) - F.one_hot(y, 3)) / len(y)
    v1 = (error @ state.buffers["feedback.post1"]).view_as(h1)
    v2 = (error @ state.buffers["feedback.post2"]).view_as(h1)
    d1, d2 = F.max_unpool2d(v1, where, 2) * (s1 > 0), v2 * (s2 > 0)
    assert_equal(
        grads,
        {
            "conv1.weight": torch.nn.grad.conv2d_weight(x, params["conv1.weight"].shape, d1, padding=1),
            "conv1.bias": d1.sum((0, 2, 3)),
            "conv2.weight": torch.nn.grad.conv2d_weight(h1, params["conv2.weight"].shape, d2, padding=1),
            "conv2.bias": d2.sum((0, 2, 3)),
        },
    )


def recurrent_twin(params, x, leak, signals):
    """Gradients of the recurrent weights, when the state of step t is told ``signals[t]``."""
    h = x.new_zeros(len(x), 6)
    wanted = {name: torch.zeros_like(params[name]) for name in ("w_rec.weight", "w_in.weight", "w_in.bias")}
    for t, signal in enumerate(signals):
        rate = torch.tanh(
            h @ params["w_rec.weight"].T + x[:, t] @ params["w_in.weight"].T + params["w_in.bias"]
        )
        d = leak * signal * (1 - rate**2)
        wanted["w_rec.weight"] += d.T @ h
        wanted["w_in.weight"] += d.T @ x[:, t]
        wanted["w_in.bias"] += d.sum(0)
        h = (1 - leak) * h + leak * rate
    return wanted


@pytest.mark.parametrize("tiny", ["rnn", "rnn-every-step"], indirect=True)
def test_on_a_recurrent_network_written_out(tiny):
    """Every step hears the error of the end, or its own where there is one at every step; all through one B."""
    rule, params, state, (x, y) = start(tiny)
    error, _ = credit.output_error(tiny.task.loss, tiny.net.run(params, x), y)
    heard = error.unbind(1) if error.ndim == 3 else [error] * 4
    b = state.buffers["feedback.hidden"]
    assert b.shape == (3, 6)

    grads = rule.step(tiny.net, tiny.task.loss, params, state, tiny.batch(), {}, 0).grads

    assert_equal(grads, recurrent_twin(params, x, tiny.net.module.LEAK, [e @ b for e in heard]))


@pytest.mark.parametrize("tiny", ["rnn-every-step"], indirect=True)
def test_no_step_hears_of_errors_that_lie_in_its_future_or_past(tiny):
    rule, params, state, (x, y) = start(tiny)
    told = 2

    def loss_of_one_step(output, target):
        return F.cross_entropy(output[:, told], target[:, told], reduction="none")

    grads = rule.step(tiny.net, loss_of_one_step, params, state, tiny.batch(), {}, 0).grads

    error, _ = credit.output_error(loss_of_one_step, tiny.net.run(params, x), y)
    silence = x.new_zeros(len(x), 6)
    signals = [error[:, told] @ state.buffers["feedback.hidden"] if t == told else silence for t in range(4)]
    assert_equal(grads, recurrent_twin(params, x, tiny.net.module.LEAK, signals))


def test_feedback_is_fixed_and_its_size_is_the_declared_one():
    """3 × 4,096 draws know the RMS to 0.6 %; 4 errors are allowed."""
    from torch import nn

    from rulezoo import Batch, Site

    net = Net(nn.Sequential(nn.Linear(2, 4096), Site(), nn.Linear(4096, 3)), torch.zeros(1, 2))
    rule = DirectFeedbackAlignment(scale=2.0)
    batch = Batch(torch.zeros(1, 2), torch.zeros(1, 3))
    state = rule.init(net, net.init_params(), batch, torch.Generator().manual_seed(0))
    b = state.buffers["feedback.1"]

    assert b.shape == (3, 4096)
    assert float(b.square().mean().sqrt()) == pytest.approx(2.0 / 64, rel=0.03)
    step = rule.step(net, lambda o, y: (o - y).square().sum(1), net.init_params(), state, batch, {}, 0)
    assert step.state is state


def test_a_step_takes_one_forward_pass(tiny, monkeypatch):
    rule, params, state, batch = start(tiny)
    passes = []
    run = Net.run
    monkeypatch.setattr(Net, "run", lambda *args: passes.append(1) or run(*args))

    rule.step(tiny.net, tiny.task.loss, params, state, batch, {}, 0)

    assert len(passes) == 1
