"""The detector of backward passes: what it finds in rules that are known to have one, or part of one, or none."""

from __future__ import annotations

import pytest
import torch

from rulezoo import LearningRule, State, Step, credit
from rulezoo.discovery.registry import discover
from rulezoo.measures.locality import crossings
from rulezoo.testing import tiny_net

RULES = {name: found.spec for name, found in discover().rules.items()}
CLAIM_NONE = [
    name for name, spec in RULES.items() if spec.plausibility and not spec.plausibility.backward_pass
]


def found_in(rule, tiny, **options):
    return crossings(rule, tiny.net, tiny.task.loss, tiny.params(), tiny.batch(), **options)


@pytest.mark.parametrize("name", CLAIM_NONE)
def test_a_rule_that_says_it_has_no_backward_pass_has_none(name, tiny):
    rule = discover().make_rule(name, {})
    if reason := rule.skip(tiny.net, tiny.task):
        pytest.skip(reason)
    assert found_in(rule, tiny) == ()


@pytest.mark.parametrize("name", ["backprop", "feedback-alignment", "brsf"])
def test_every_visit_is_crossed_by_a_rule_that_goes_back_layer_by_layer(name, tiny):
    assert found_in(discover().make_rule(name, {}), tiny) == tuple(tiny.net.keys("post"))


def rule_of(take):
    """A rule whose step is ``take(net, loss, params, state, batch, t)``, to which it adds no more."""

    class Made(LearningRule):
        def step(self, net, loss, params, state, batch, noise, t):
            return take(net, loss, params, state, batch, t)

    return Made()


def cut_at(*keys, leak=0.0):
    """Sends a signal to some sites and lets gradients through the others; ``leak`` of them through the cuts, too."""

    def take(net, loss, params, state, batch, t):
        def forward(p):
            sites = {}

            def tap(key, h):
                if key not in keys:
                    return h
                sites[key] = h
                return leak * h + (1 - leak) * h.detach() if leak else h.detach()

            return net.run(p, batch.x, tap), sites

        (output, sites), pull = torch.func.vjp(forward, params)
        error, mean = credit.output_error(loss, output, batch.y)
        grads = pull((error, {key: torch.ones_like(h) for key, h in sites.items()}))[0]
        return Step(grads, state, mean)

    return rule_of(take)


def test_the_sites_that_are_not_cut_are_told(mlp):
    assert found_in(cut_at("post1"), mlp) == ("post2",)
    assert found_in(cut_at("post2"), mlp) == ("post1",)
    assert found_in(cut_at("post1", "post2"), mlp) == ()


def test_a_cut_that_leaks_is_told(mlp):
    assert found_in(cut_at("post1", "post2", leak=0.01), mlp) == ("post1", "post2")


def test_a_cut_through_time_that_is_missing_is_told():
    rnn = tiny_net("rnn-every-step")
    every = rnn.net.keys("post")
    assert found_in(cut_at(*every), rnn) == ()
    assert found_in(cut_at(*(every[:1] + every[2:])), rnn) == (every[1],)


def block_by_block(in_one_pass):
    """Differentiates each block by its input and takes the result as the signal of the block in front, call by call.

    Backprop, if one likes, but no call of autograd goes through more than one block.
    """

    def take(net, loss, params, state, batch, t):
        keys = net.keys("post")
        values = {}
        net.run(params, batch.x, lambda key, h: values.setdefault(key, h.detach()) if key in keys else h)

        def forward(p, inputs):
            sites = {}

            def tap(key, h):
                if key not in keys:
                    return h
                sites[key] = h
                return inputs[key]

            return net.run(p, batch.x, tap), sites

        (output, sites), pull = torch.func.vjp(forward, params, values)
        error, mean = credit.output_error(loss, output, batch.y)
        signals = {key: torch.zeros_like(h) for key, h in sites.items()}
        if in_one_pass:  # signals that are not what comes back, in the pass that looks at what comes back
            grads, _ = pull((error, {key: torch.ones_like(h) for key, h in sites.items()}))
            return Step(grads, state, mean)
        for _ in keys:
            grads, inputs = pull((error, signals))
            signals = {key: inputs[key] for key in keys}
        return Step(grads, state, mean)

    return rule_of(take)


@pytest.mark.parametrize("in_one_pass", [False, True])
def test_differentiating_one_block_by_its_input_is_no_backward_pass(mlp, in_one_pass):
    assert found_in(block_by_block(in_one_pass), mlp) == ()


def by_jacobian(local):
    """Takes the Jacobian by jacrev, which is a vmap over pull-backs, and its product with the error."""

    def take(net, loss, params, state, batch, t):
        keys = net.keys("post") if local else []
        output = net.run(params, batch.x)
        error, mean = credit.output_error(loss, output, batch.y)

        def outputs(p):
            return net.run(p, batch.x, lambda key, h: h.detach() if key in keys else h)

        rows = torch.func.jacrev(outputs)(params)
        return Step({n: torch.tensordot(error, rows[n], error.ndim) for n in rows}, state, mean)

    return rule_of(take)


def test_gradients_inside_vmap_are_seen(mlp):
    assert found_in(by_jacobian(local=False), mlp) == ("post1", "post2")
    assert found_in(by_jacobian(local=True), mlp) == ()


class Sometimes(LearningRule):
    """Backprop at step 2 only; before, it counts the steps in its memory."""

    def init(self, net, params, batch, gen):
        return State(buffers={"count": torch.zeros(())})

    def step(self, net, loss, params, state, batch, noise, t):
        assert state.buffers["count"] == t  # the memory goes on from step to step
        grads, mean = credit.backprop(
            net, loss, params, batch.x, batch.y, only=None if t == 2 else net.readout
        )
        return Step(grads, State(buffers={"count": state.buffers["count"] + 1}), mean)


def test_every_step_is_looked_at(mlp):
    assert found_in(Sometimes(), mlp, steps=2) == ()
    assert found_in(Sometimes(), mlp, steps=3) == ("post1", "post2")


def test_a_rule_that_fails_fails(mlp):
    class Broken(LearningRule):
        def step(self, *args):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        found_in(Broken(), mlp)


def test_the_network_is_as_it_was(mlp):
    batch, params = mlp.batch(), mlp.params()
    before = mlp.net.run(params, batch.x)
    found_in(discover().make_rule("backprop", {}), mlp)
    grads, _ = credit.backprop(mlp.net, mlp.task.loss, params, batch.x, batch.y)
    assert torch.equal(mlp.net.run(params, batch.x), before)
    assert all(g.isfinite().all() for g in grads.values())
