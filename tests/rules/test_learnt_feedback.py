"""Rules through learnt feedback weights: exact mirrors give the rule itself, others give it through what was learnt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rulezoo import Net, State, credit
from rulezoo_plugins.feedback_weights.weight_mirror import LayerwiseManifoldNoiseCorrelation, WeightMirror
from rulezoo_plugins.learnt_feedback.rules import Mirrored, MirroredInManifold
from rulezoo_plugins.predictive_coding.rules import PredictiveCoding

PAIRS = [(Mirrored, WeightMirror), (MirroredInManifold, LayerwiseManifoldNoiseCorrelation)]


def steps(rule, tiny, ts):
    params, batch = tiny.params(), tiny.batch()
    state = rule.init(tiny.net, params, batch, torch.Generator().manual_seed(0))
    for t in ts:
        noise = rule.noise(tiny.net, state, batch, torch.Generator().manual_seed(t), t)
        step = rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t)
        state = step.state
    return step


def assert_equal(got, wanted, rtol=1e-9):
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=rtol, atol=1e-13, msg=name)


@pytest.mark.parametrize(("own", "mirror"), PAIRS)
@pytest.mark.parametrize("options", [{}, {"antithetic": False, "every": 2, "rate": 0.4}])
def test_it_learns_the_weights_of_its_mirror_and_with_backprop_it_is_the_mirror(mlp, own, mirror, options):
    ours = steps(own(rule="backprop", perturbations=16, **options), mlp, range(4))
    theirs = steps(mirror(perturbations=16, **options), mlp, range(4))
    coding = steps(own(perturbations=16, **options), mlp, range(4))

    assert_equal(ours.grads, theirs.grads)
    assert_equal(ours.state.buffers, theirs.state.buffers)
    assert_equal(coding.state.buffers, theirs.state.buffers)


def test_the_rule_runs_through_the_weights_that_were_just_learnt(mlp):
    """Predictive coding written out for one step of relaxation, with B in place of W on the way back."""
    rule = Mirrored(perturbations=16)
    step = steps(rule, mlp, [0])
    feedback = {key.removeprefix("feedback."): b for key, b in step.state.buffers.items()}
    assert not torch.allclose(feedback["fc2.weight"], mlp.params()["fc2.weight"], rtol=0.01)

    bound = credit.with_feedback(mlp.net, feedback)
    expected = PredictiveCoding().step(bound, mlp.task.loss, mlp.params(), State(), mlp.batch(), {}, 0)
    plain = PredictiveCoding().step(mlp.net, mlp.task.loss, mlp.params(), State(), mlp.batch(), {}, 0)

    assert_equal(step.grads, expected.grads)
    assert not torch.allclose(step.grads["fc1.weight"], plain.grads["fc1.weight"], rtol=0.01)


@pytest.mark.parametrize("name", list(Mirrored.RULES))
def test_with_noise_enough_the_mirror_is_exact_and_the_rule_itself(mlp, name):
    step = steps(Mirrored(rule=name, estimator="least-squares", perturbations=64), mlp, [0])
    inner = Mirrored.RULES[name].step(mlp.net, mlp.task.loss, mlp.params(), State(), mlp.batch(), {}, 0)

    assert_equal(step.grads, inner.grads, rtol=1e-6)


def test_what_the_rule_or_the_mirror_needs_is_said(mlp):
    bare = Net(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), torch.zeros(2, 5))
    assert "needs sites of kind 'post'" in Mirrored().skip(bare, mlp.task)
    assert Mirrored(rule="backprop").skip(bare, mlp.task) is None
    assert "memory=0 GB" in Mirrored(memory=0).skip(mlp.net, mlp.task)


@pytest.mark.parametrize("own", [Mirrored, MirroredInManifold])
def test_an_answer_that_is_an_equilibrium_is_one_with_the_learnt_weights(mlp, own):
    rule = own(rule="symmetric-equilibrium-propagation", perturbations=16)
    inner, x = Mirrored.RULES[rule.rule], mlp.batch().x
    state = steps(rule, mlp, [0]).state
    feedback = {n.removeprefix("feedback."): b for n, b in state.buffers.items() if n.startswith("feedback.")}

    answer = rule.predict(mlp.net, mlp.params(), state, x)

    bound = credit.with_feedback(mlp.net, feedback)
    torch.testing.assert_close(answer, inner.predict(bound, mlp.params(), State(), x))
    assert not torch.allclose(answer, inner.predict(mlp.net, mlp.params(), State(), x), rtol=1e-3)


def test_learning_rates_are_those_of_the_rule(mlp):
    assert Mirrored(rule="symmetric-equilibrium-propagation").rates(mlp.net)["fc1.weight"] == 0.1
    assert Mirrored().rates(mlp.net) == {}
