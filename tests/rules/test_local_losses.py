"""Local losses, held to their equations written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Net, Site, State, credit
from rulezoo.testing import tiny_net
from rulezoo_plugins.local_losses.rules import (
    GreedyPrediction,
    LocalPrediction,
    LocalPredictionSimilarity,
    LocalSimilarity,
)


def start(rule, tiny):
    params, batch = tiny.params(), tiny.batch()
    return params, batch, rule.init(tiny.net, params, batch, torch.Generator().manual_seed(1))


def similarities(rows):
    """By loops, one pair at a time."""
    n = len(rows)
    out = torch.zeros(n, n, dtype=rows.dtype)
    for i in range(n):
        for j in range(n):
            a, b = rows[i] - rows[i].mean(), rows[j] - rows[j].mean()
            out[i, j] = a @ b / (a.norm() * b.norm())
    return out


def prediction(head, h, y):
    return F.cross_entropy(h @ head[1:] + head[0], y)


def similarity(head, h, y):
    wanted = similarities(F.one_hot(y, 3).to(h.dtype))
    return ((similarities(h @ head[1:] + head[0]) - wanted) ** 2).sum() / len(h) ** 2


LOSSES = {
    LocalPrediction: lambda heads, h, y: prediction(heads["prediction"], h, y),
    LocalSimilarity: lambda heads, h, y: similarity(heads["similarity"], h, y),
    LocalPredictionSimilarity: lambda heads, h, y: (
        0.01 * prediction(heads["prediction"], h, y) + 0.99 * similarity(heads["similarity"], h, y)
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_written_out(mlp, kind):
    params, batch, state = start(kind(), mlp)
    x, y = batch
    leaves = {name: p.clone().requires_grad_() for name, p in {**params, **state.params}.items()}

    def heads(site):
        return {name.split(".")[0]: p for name, p in leaves.items() if name.endswith(f".{site}")}

    h1 = torch.tanh(x @ leaves["fc1.weight"].T + leaves["fc1.bias"])
    h2 = torch.tanh(h1.detach() @ leaves["fc2.weight"].T + leaves["fc2.bias"])
    output = h2.detach() @ leaves["readout.weight"].T + leaves["readout.bias"]
    total = (
        LOSSES[kind](heads("post1"), h1, y) + LOSSES[kind](heads("post2"), h2, y) + F.cross_entropy(output, y)
    )
    expected = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))

    result = kind().step(mlp.net, mlp.task.loss, params, state, batch, {}, 0)

    for name, grad in expected.items():
        got = result.grads[f"rule.{name}" if name in state.params else name]
        torch.testing.assert_close(got, grad, rtol=1e-9, atol=1e-13, msg=name)
    assert len(result.grads) == len(expected)
    torch.testing.assert_close(result.loss, F.cross_entropy(output, y).detach())


def test_where_its_head_is_the_read_out_the_last_layer_learns_as_by_backprop(mlp):
    rule = LocalPrediction()
    params, batch, state = start(rule, mlp)
    head = torch.cat([params["readout.bias"][None], params["readout.weight"].T])
    state = State({**state.params, "prediction.post2": head}, state.buffers)
    true, _ = credit.backprop(mlp.net, mlp.task.loss, params, *batch)

    grads = rule.step(mlp.net, mlp.task.loss, params, state, batch, {}, 0).grads

    for name in ("fc2.weight", "fc2.bias", "readout.weight", "readout.bias"):
        torch.testing.assert_close(grads[name], true[name], rtol=1e-9, atol=1e-13)
    assert not torch.allclose(grads["fc1.weight"], true["fc1.weight"], rtol=0.1)


@pytest.mark.parametrize(("beta", "same"), [(0.0, LocalPrediction), (1.0, LocalSimilarity)])
def test_at_the_ends_of_beta_it_is_one_of_the_two(mlp, beta, same):
    both = LocalPredictionSimilarity(beta=beta)
    params, batch, state = start(both, mlp)
    kept = {name: p for name, p in state.params.items() if name.startswith(same()._heads())}

    grads = both.step(mlp.net, mlp.task.loss, params, state, batch, {}, 0).grads
    others = same().step(mlp.net, mlp.task.loss, params, State(kept), batch, {}, 0).grads

    for name, grad in others.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-9, atol=1e-13, msg=name)


def test_no_gradient_leaves_a_block(tiny):
    """What a local head says of the last site changes nothing in front of the site before it."""
    rule = LocalPrediction()
    if reason := rule.skip(tiny.net, tiny.task):
        pytest.skip(reason)
    sites = dict.fromkeys(tiny.net.visits[key].site for key in tiny.net.keys("post"))
    if len(sites) < 2:
        pytest.skip("it has one site")
    params, batch, state = start(rule, tiny)
    *_, last = sites
    changed = {**state.params, f"prediction.{last}": state.params[f"prediction.{last}"] + 1}

    before = rule.step(tiny.net, tiny.task.loss, params, state, batch, {}, 0).grads
    after = rule.step(tiny.net, tiny.task.loss, params, State(changed), batch, {}, 0).grads

    moved = {name for name in params if not torch.equal(before[name], after[name])}
    assert moved
    assert not moved & {"fc1.weight", "fc1.bias", "conv1.weight", "conv1.bias"}


# Greedy layerwise training -------------------------------------------------------------------------------------------

READOUT = {"readout.weight", "readout.bias"}
TURNS = {
    "mlp": [
        {"fc1.weight", "fc1.bias", "rule.prediction.post1"},
        {"fc2.weight", "fc2.bias", "rule.prediction.post2"},
    ],
    "cnn": [
        {"conv1.weight", "conv1.bias", "rule.prediction.post1"},
        {"conv2.weight", "conv2.bias", "rule.prediction.post2"},
    ],
}


@pytest.mark.parametrize("kind", TURNS)
@pytest.mark.parametrize(("t", "turn"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, None), (60, None)])
def test_layers_take_turns_and_learn_as_by_local_prediction(kind, t, turn):
    tiny, rule = tiny_net(kind), GreedyPrediction(stage=3)
    params, batch, state = start(rule, tiny)
    every = LocalPrediction().step(tiny.net, tiny.task.loss, params, state, batch, {}, 0)

    result = rule.step(tiny.net, tiny.task.loss, params, state, batch, {}, t)

    learning = READOUT | (TURNS[kind][turn] if turn is not None else set())
    assert result.grads.keys() == learning
    for name in learning:
        torch.testing.assert_close(result.grads[name], every.grads[name], rtol=0, atol=0)
    torch.testing.assert_close(result.loss, every.loss)


def test_a_recurrent_layer_has_one_turn():
    tiny, rule = tiny_net("rnn"), GreedyPrediction(stage=3)
    params, batch, state = start(rule, tiny)

    first, then = (
        set(rule.step(tiny.net, tiny.task.loss, params, state, batch, {}, t).grads) for t in (2, 3)
    )

    assert first - then == {"w_in.weight", "w_in.bias", "w_rec.weight", "rule.prediction.hidden"}
    assert then == {"w_out.weight", "w_out.bias"}


def test_parameters_of_no_layer_or_of_two_are_skipped_in_a_sentence(mlp):
    normed = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), Site("post"), nn.Linear(4, 3))
    assert "'1.bias' does not belong to the layers in front of exactly one site" in GreedyPrediction().skip(
        Net(normed, torch.zeros(2, 5)), mlp.task
    )
    layer = nn.Linear(5, 5)
    shared = nn.Sequential(layer, nn.Tanh(), Site("post"), layer, nn.Tanh(), Site("post"), nn.Linear(5, 3))
    assert "'0.bias' does not belong" in GreedyPrediction().skip(Net(shared, torch.zeros(2, 5)), mlp.task)
    bare = Net(nn.Linear(5, 3), torch.zeros(2, 5))
    assert "need sites of kind 'post'" in GreedyPrediction().skip(bare, mlp.task)
    assert GreedyPrediction().skip(mlp.net, mlp.task) is None
