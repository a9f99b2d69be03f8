"""Feedback alignment and sign symmetry. The recursion itself is held to written-out twins in ``test_credit.py``."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, Site, State, credit
from rulezoo_plugins.feedback_weights.feedback_alignment import (
    BatchRandomSign,
    FeedbackAlignment,
    FixedRandomSign,
    UniformSign,
)

SIGNS = [UniformSign, BatchRandomSign, FixedRandomSign]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def init(rule, tiny, seed=0):
    params = tiny.params()
    return params, rule.init(tiny.net, params, tiny.batch(), seeded(seed))


# Fed by the input alone, so no error travels on through them.
FIRST = {"fc1.weight", "conv1.weight", "w_in.weight"}


def weights(params):
    return {name for name, p in params.items() if p.ndim > 1} - FIRST


def test_with_the_forward_weights_as_feedback_the_step_is_backprop(tiny):
    params, batch = tiny.params(), tiny.batch()
    transposed = State(buffers={f"feedback.{name}": params[name] for name in weights(params)})

    step = FeedbackAlignment().step(tiny.net, tiny.task.loss, params, transposed, batch, {}, 0)

    true, mean = credit.backprop(tiny.net, tiny.task.loss, params, *batch)
    for name, grad in true.items():
        torch.testing.assert_close(step.grads[name], grad, rtol=1e-9, atol=1e-14)
    assert torch.equal(step.loss, mean)


def test_the_step_sends_the_error_through_the_state_and_not_through_the_weights(mlp):
    """One hidden layer at a time, written out; what the read-out learns does not depend on feedback."""
    params, state = init(FeedbackAlignment(), mlp)
    x, y = mlp.batch()

    grads = FeedbackAlignment().step(mlp.net, mlp.task.loss, params, state, Batch(x, y), {}, 0).grads

    h1 = torch.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    h2 = torch.tanh(h1 @ params["fc2.weight"].T + params["fc2.bias"])
    error, _ = credit.output_error(mlp.task.loss, h2 @ params["readout.weight"].T + params["readout.bias"], y)
    d2 = (error @ state.buffers["feedback.readout.weight"]) * (1 - h2**2)
    d1 = (d2 @ state.buffers["feedback.fc2.weight"]) * (1 - h1**2)
    torch.testing.assert_close(grads["fc1.weight"], d1.T @ x, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(grads["fc2.weight"], d2.T @ h1, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(grads["readout.weight"], error.T @ h2, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", [FeedbackAlignment(), FixedRandomSign()], ids=["fa", "frsf"])
def test_fixed_feedback_stays_when_weights_move(tiny, rule):
    params, state = init(rule, tiny)
    batch = tiny.batch()

    after = rule.step(tiny.net, tiny.task.loss, params, state, batch, {}, 0).state

    assert after.buffers.keys() == {f"feedback.{name}" for name in weights(params)}
    assert all(torch.equal(after.buffers[name], b) for name, b in state.buffers.items())


def test_feedback_is_as_large_as_the_initial_weights_and_knows_nothing_else_of_them():
    """2,400 draws: the RMS is known to 1/sqrt(2*2400) = 1.4 %, the correlation to 2 %; 4 errors are allowed."""
    net, batch = wide(40)
    params = net.init_params()

    state = FeedbackAlignment(scale=3.0).init(net, params, batch, seeded(1))

    b, w = state.buffers["feedback.readout.weight"], params["readout.weight"]
    assert float(b.square().mean().sqrt() / w.square().mean().sqrt()) == pytest.approx(3.0, rel=0.06)
    assert abs(float(torch.corrcoef(torch.stack([b.flatten(), w.flatten()]))[0, 1])) < 0.08
    assert abs(float(b.mean() / b.std())) < 0.08


def wide(outputs):
    """A network with a read-out of 60 × ``outputs`` weights, and a batch for it."""
    torch.manual_seed(0)
    layers = OrderedDict(first=nn.Linear(4, 60), tanh=nn.Tanh(), site=Site(), readout=nn.Linear(60, outputs))
    x = torch.randn(2, 4, dtype=torch.float64)
    return Net(nn.Sequential(layers).double(), x), Batch(x, torch.tensor([0, 1]))


@pytest.mark.parametrize("kind", SIGNS)
def test_feedback_has_the_signs_of_the_weights_of_today(tiny, kind):
    """Not of those at the start: half of the weights change sign in between."""
    rule = kind()
    params, state = init(rule, tiny)
    noise = rule.noise(tiny.net, state, tiny.batch(), seeded(2), 0)
    moved = {
        name: p * torch.where(torch.arange(p.numel()) % 2 == 0, 1.0, -1.0).view_as(p)
        for name, p in params.items()
    }

    feedback = rule.feedback(moved, state, noise)

    assert feedback.keys() == weights(params)
    for name, b in feedback.items():
        assert torch.equal(b.sign(), moved[name].sign())


def test_uniform_sizes_are_the_rms_of_the_initial_weights(tiny):
    rule = UniformSign(scale=0.5)
    params, state = init(rule, tiny)

    for name, b in rule.feedback(params, state, {}).items():
        torch.testing.assert_close(
            b.abs(), torch.full_like(b, 0.5 * float(params[name].square().mean().sqrt()))
        )


def test_sizes_are_drawn_for_every_batch_in_brsf_and_once_in_frsf(mlp):
    params = mlp.params()
    brsf, frsf = BatchRandomSign(), FixedRandomSign()
    gen = seeded(3)

    def sizes(rule, state, t):
        noise = rule.noise(mlp.net, state, mlp.batch(), gen, t)
        return rule.feedback(params, state, noise)["fc2.weight"].abs()

    _, state = init(brsf, mlp)
    assert not torch.isclose(sizes(brsf, state, 0), sizes(brsf, state, 1)).any()
    _, state = init(frsf, mlp)
    assert torch.equal(sizes(frsf, state, 0), sizes(frsf, state, 1))
    _, other = init(frsf, mlp, seed=1)
    assert not torch.isclose(sizes(frsf, state, 0), sizes(frsf, other, 0)).any()


def test_random_sizes_are_half_normal_with_the_size_of_the_weights():
    """E|z| = sqrt(2/pi), E z² = 1; 3,600 draws know both to about 1 %; 4 errors are allowed."""
    net, batch = wide(60)
    params = net.init_params()
    rms = float(params["readout.weight"].square().mean().sqrt())

    for rule in (BatchRandomSign(), FixedRandomSign()):
        state = rule.init(net, params, batch, seeded(0))
        b = (
            rule.feedback(params, state, rule.noise(net, state, batch, seeded(1), 0))["readout.weight"].abs()
            / rms
        )
        assert float(b.mean()) == pytest.approx((2 / torch.pi) ** 0.5, rel=0.05)
        assert float(b.square().mean()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("kind", [FeedbackAlignment, *SIGNS])
def test_a_weight_that_no_linear_or_convolution_layer_uses_is_not_left_on_backprop_in_silence(mlp, kind):
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.readout = nn.Linear(5, 5), nn.Linear(4, 2)
            self.mixing = nn.Parameter(torch.randn(5, 4))

        def forward(self, x):
            return self.readout(torch.einsum("bi,ij->bj", self.first(x), self.mixing))

    reason = kind().skip(Net(Mixing(), torch.randn(2, 5)), mlp.task)

    assert "'mixing'" in reason
    assert kind().skip(mlp.net, mlp.task) is None


@pytest.mark.parametrize("kind", [FeedbackAlignment, *SIGNS])
def test_a_weight_that_no_error_has_to_pass_needs_no_feedback_weight(mlp, kind):
    embedded = nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(12, 2))
    net = Net(embedded, torch.zeros(2, 3, dtype=torch.long))

    assert kind().skip(net, mlp.task) is None
    state = kind().init(net, net.init_params(), None, torch.Generator())
    assert {key.partition(".")[2] for key in state.buffers} == {"2.weight"}
