"""RFLO and its relatives, held to eligibility traces written out synapse by synapse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, OptionError, Site, State, credit
from rulezoo.discovery.registry import discover
from rulezoo.testing import tiny_net
from rulezoo_plugins.recurrent.lagged_noise_correlation import AtOneStep
from rulezoo_plugins.recurrent.online import RFLO, EProp, LearntManifoldRFLO, LearntRFLO

EXACT = 1e-11  # of the largest entry, in float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_equal(got, wanted, tolerance=EXACT):
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(
            got[name], tensor, rtol=0, atol=tolerance * float(tensor.abs().max()), msg=name
        )


@pytest.fixture(params=["rnn", "rnn-every-step"])
def rnn(request):
    """The tiny recurrent networks: one answer at the end, and an answer at every step."""
    return tiny_net(request.param)


@pytest.fixture
def lively(rnn):
    """Parameters so large that tanh bends, and a batch."""
    params = {name: 2 * p for name, p in rnn.params().items()}
    return params, rnn.batch(5)


def step(rule, tiny, params, batch, state=None, noise=None, t=0):
    state = rule.init(tiny.net, params, batch, seeded()) if state is None else state
    noise = rule.noise(tiny.net, state, batch, seeded(1), t) if noise is None else noise
    return rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, t)


def errors_in_time(tiny, params, batch):
    """``(b, T, o)``: zero before an answer that comes at the end."""
    output = tiny.net.run(params, batch.x)
    error, _ = credit.output_error(tiny.task.loss, output, batch.y)
    if output.ndim == 3:
        return error
    steps = batch.x.shape[1]
    return torch.stack([torch.zeros_like(error)] * (steps - 1) + [error], 1)


def eligibility_traces(params, x, errors, feedback, leak):
    """RFLO, forward in time: one trace for each synapse and example, and the error of the step at hand.

    ``leak`` is the share of the state that is new, as in the networks.
    """
    w_in, b, w_rec = (params[name] for name in ("w_in.weight", "w_in.bias", "w_rec.weight"))
    n, m = w_in.shape
    grads = {name: torch.zeros_like(p) for name, p in params.items()}
    for example, error in zip(x, errors, strict=True):
        h, traces = torch.zeros(n, dtype=x.dtype), {}
        for x_t, e_t in zip(example, error, strict=True):
            past, h_new = h, torch.zeros_like(h)
            q = [sum(feedback[k, i] * e_t[k] for k in range(len(e_t))) for i in range(n)]
            for i in range(n):
                phi = torch.tanh(w_rec[i] @ past + w_in[i] @ x_t + b[i])
                h_new[i] = (1 - leak) * past[i] + leak * phi
                local = [("w_rec.weight", (i, j), past[j]) for j in range(n)]
                local += [("w_in.weight", (i, j), x_t[j]) for j in range(m)] + [("w_in.bias", (i,), 1.0)]
                for name, synapse, presynaptic in local:
                    old = traces.get((name, synapse), 0.0)
                    traces[name, synapse] = (1 - leak) * old + leak * (1 - phi**2) * presynaptic
                    grads[name][synapse] += q[i] * traces[name, synapse]
            h = h_new
            grads["w_out.weight"] += torch.outer(e_t, h)
            grads["w_out.bias"] += e_t
    return grads


# --------------------------------------------------------------------------------------------------------------------
# The traces


def test_rflo_equals_eligibility_traces(rnn, lively):
    params, batch = lively
    rule = RFLO(scale=2.0)
    state = rule.init(rnn.net, params, batch, seeded())
    feedback = state.buffers["feedback"]

    grads = step(rule, rnn, params, batch, state).grads

    slow = eligibility_traces(
        params, batch.x, errors_in_time(rnn, params, batch), feedback, rnn.net.module.LEAK
    )
    assert_equal(grads, slow)


def test_e_prop_equals_eligibility_traces_with_the_read_out_as_feedback(rnn, lively):
    params, batch = lively

    grads = step(EProp(), rnn, params, batch).grads

    slow = eligibility_traces(
        params,
        batch.x,
        errors_in_time(rnn, params, batch),
        params["w_out.weight"],
        rnn.net.module.LEAK,
    )
    assert_equal(grads, slow)


def test_learnt_feedback_equals_eligibility_traces_with_what_was_learnt(rnn, lively):
    params, batch = lively
    rule = LearntRFLO(every=2)  # step 1 leaves the feedback as it is
    state = rule.init(rnn.net, params, batch, seeded())
    feedback = torch.randn(3, 6, generator=seeded(3), dtype=torch.float64)
    state = State(buffers={**state.buffers, "feedback.hidden": feedback[None]})

    made = step(rule, rnn, params, batch, state, t=1)

    slow = eligibility_traces(
        params, batch.x, errors_in_time(rnn, params, batch), feedback, rnn.net.module.LEAK
    )
    assert_equal(made.grads, slow)
    assert torch.equal(made.state.buffers["feedback.hidden"], feedback[None])


def test_each_neuron_may_have_a_leak_of_its_own():
    """Only then does it matter which neuron a leak belongs to; the twin is autograd through the kept leak."""
    x = torch.randn(4, 5, 3, generator=seeded(), dtype=torch.float64)
    y = torch.randint(3, (4,), generator=seeded())
    net = Net(Leaky(torch.linspace(0.1, 0.9, 6, dtype=torch.float64)).double(), x)
    params, loss = net.init_params(), tiny_net("rnn").task.loss
    rule = EProp()
    state = rule.init(net, params, Batch(x, y), seeded())

    grads = rule.step(net, loss, params, state, Batch(x, y), {}, 0).grads

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    output = net.run(leaves, x, lambda key, h: h.detach() if key.startswith("recurrent") else h)
    kept = torch.autograd.grad(loss(output, y).mean(), list(leaves.values()))
    assert_equal(grads, dict(zip(leaves, kept, strict=True)))


def test_without_recurrent_weights_e_prop_is_backprop(rnn, lively):
    """What it leaves out passes through them; the gradient of the weights themselves is exact, too."""
    params, batch = lively
    params["w_rec.weight"] = torch.zeros_like(params["w_rec.weight"])

    grads = step(EProp(), rnn, params, batch).grads

    assert_equal(grads, credit.backprop(rnn.net, rnn.task.loss, params, *batch)[0])


def test_with_recurrent_weights_it_is_not(rnn, lively):
    params, batch = lively
    true, _ = credit.backprop(rnn.net, rnn.task.loss, params, *batch)

    grads = step(EProp(), rnn, params, batch).grads

    for name in ("w_in.weight", "w_rec.weight"):
        assert (grads[name] - true[name]).norm() > 0.1 * true[name].norm()


def test_random_e_prop_is_rflo(rnn, lively):
    params, batch = lively

    assert_equal(
        step(EProp(mode="random"), rnn, params, batch).grads, step(RFLO(), rnn, params, batch).grads, 0.0
    )


def test_what_comes_after_an_error_does_not_change_its_effect():
    """Online: an error at the second step is heard then, whatever the input will be."""
    rnn = tiny_net("rnn-every-step")
    params, batch = rnn.params(), rnn.batch(5)
    later = batch.x.clone()
    later[:, 2:] = torch.randn(later[:, 2:].shape, generator=seeded(9), dtype=later.dtype)
    for rule in (RFLO(), EProp()):
        state = rule.init(rnn.net, params, batch, seeded())

        def second(output, target):
            return output[:, 1].square().sum(-1)

        one, other = (
            rule.step(rnn.net, second, params, state, Batch(x, batch.y), {}, 0).grads
            for x in (batch.x, later)
        )
        assert_equal(one, other)
        assert one["w_rec.weight"].any()


def test_feedback_is_drawn_once_and_scaled(rnn):
    params, batch = rnn.params(), rnn.batch()
    small, large = (RFLO(scale=s).init(rnn.net, params, batch, seeded()).buffers for s in (1.0, 3.0))
    torch.testing.assert_close(large["feedback"], 3 * small["feedback"])
    torch.testing.assert_close(
        small["feedback"], torch.randn(3, 6, generator=seeded(), dtype=torch.float64) / 6**0.5
    )
    made = step(RFLO(), rnn, params, batch)
    assert torch.equal(made.state.buffers["feedback"], small["feedback"])


# --------------------------------------------------------------------------------------------------------------------
# Learnt feedback


def every_direction(rnn, batch):
    """Kicks in all directions at the last step, of which ``E z zᵀ = 1`` holds exactly for each example."""
    units = rnn.net.visits["hidden[0]"].width
    direction = torch.arange(units * batch) // batch
    eye = torch.eye(units, dtype=torch.float64)
    return {"kick": units**0.5 * eye[direction], "when": torch.full((units * batch,), 0.999)}


@pytest.mark.parametrize("response", ["difference", "derivative"])
def test_the_feedback_that_is_learnt_is_the_read_out(rnn, lively, response):
    params, batch = lively
    rule = LearntRFLO(rate=1.0, response=response)

    made = step(rule, rnn, params, batch, noise=every_direction(rnn, 5))

    assert_equal({"w_out": made.state.buffers["feedback.hidden"][0]}, {"w_out": params["w_out.weight"]}, 1e-9)
    assert_equal(made.grads, step(EProp(), rnn, params, batch).grads, 1e-9)


def test_in_the_manifold_it_is_the_read_out_projected(rnn, lively):
    params, batch = lively
    rule = LearntManifoldRFLO(rate=1.0, rank=2)
    state = rule.init(rnn.net, params, batch, seeded())
    basis = state.buffers["basis.hidden"]
    noise = {"kick": 2**0.5 * torch.eye(2, dtype=torch.float64), "when": torch.full((2,), 0.999)}

    after = step(rule, rnn, params, batch, state, noise).state

    assert basis.shape == (6, 2)
    assert_equal(
        {"P": after.buffers["feedback.hidden"][0]}, {"P": params["w_out.weight"] @ basis @ basis.mT}, 1e-9
    )


def test_an_answer_at_the_end_is_only_heard_after_a_kick_at_the_end():
    """Every kick of the rule comes when it can be heard, whatever number chose its step."""
    rnn = tiny_net("rnn")
    params, batch = rnn.params(), rnn.batch(5)
    noise = every_direction(rnn, 5)
    rule = LearntRFLO(rate=1.0)

    late, early = (
        step(rule, rnn, params, batch, noise={**noise, "when": torch.full((30,), when)}).state
        for when in (0.999, 0.0)
    )

    assert torch.equal(late.buffers["feedback.hidden"], early.buffers["feedback.hidden"])


def test_an_automatic_rank_is_refused():
    with pytest.raises(OptionError, match="rank must be a number"):
        LearntManifoldRFLO(rank="auto")


# --------------------------------------------------------------------------------------------------------------------
# What is served


class Leaky(nn.Module):
    """Six units; ``forget`` is one number, one for each unit, or a gate ``(batch, 6) -> (batch, 6)``."""

    def __init__(self, forget, *, mixed=False, deep=False):
        super().__init__()
        self.w_in, self.w_rec = nn.Linear(3, 6), nn.Linear(6, 6, bias=False)
        self.forget, self.mixed = forget, mixed
        read_out = [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)] if deep else [nn.Linear(6, 3)]
        self.w_out = nn.Sequential(*read_out)
        self.recurrent, self.hidden = Site("recurrent", unrolled=True), Site("post", unrolled=True)

    def forward(self, x):
        h = x.new_zeros(len(x), 6)
        for x_t in x.unbind(1):
            forget = self.forget(x_t) if callable(self.forget) else self.forget
            own = h.roll(1, 1) if self.mixed else h
            new = torch.tanh(self.w_rec(self.recurrent(h)) + self.w_in(x_t))
            h = self.hidden((1 - forget) * own + forget * new)
        return self.w_out(h)


def reason(rule, module):
    x = torch.randn(2, 4, 3, generator=seeded())
    return rule.skip(Net(module, x), tiny_net("rnn").task)


class Gate(nn.Linear):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))


@pytest.mark.parametrize(
    "rule", [RFLO(), EProp(), LearntRFLO(), LearntManifoldRFLO()], ids=lambda r: type(r).__name__
)
def test_networks_without_an_eligibility_trace_are_skipped_with_a_reason(rule, mlp):
    assert "no site of kind 'recurrent'" in rule.skip(mlp.net, mlp.task)
    assert "constant rate" in reason(rule, Leaky(Gate(3, 6)))
    assert "constant rate" in reason(rule, Leaky(nn.Parameter(torch.full((6,), 0.5))))
    assert "constant rate" in reason(rule, Leaky(0.5, mixed=True))
    assert reason(rule, Leaky(0.5)) is None
    assert reason(rule, Leaky(torch.linspace(0.1, 0.9, 6))) is None


def test_two_recurrent_layers_are_skipped():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = Leaky(0.5), Leaky(0.5)
            self.one.w_out = nn.Identity()

        def forward(self, x):
            return self.one(x)[:, :3] + self.two(x)

    assert "one recurrent layer" in reason(RFLO(), Two())


def test_only_symmetric_e_prop_needs_a_linear_read_out():
    deep = Leaky(0.5, deep=True)
    assert "one linear layer" in reason(EProp(), deep)
    assert all(reason(rule, deep) is None for rule in (EProp(mode="random"), RFLO(), LearntRFLO()))


def test_at_one_step_each_example_is_tapped_once():
    rnn = tiny_net("rnn-every-step")
    params, x = rnn.params(), rnn.batch(4).x
    when = torch.tensor([2, 0, 3, 1])
    kick = torch.randn(4, 6, generator=seeded(), dtype=torch.float64)

    output = AtOneStep(rnn.net, when).run(params, x, lambda key, h: h + kick if key == "hidden[0]" else h)

    for b, t in enumerate(when):
        alone = rnn.net.run(
            params, x[b : b + 1], lambda key, h, b=b, t=t: h + kick[b] if key == f"hidden[{t}]" else h
        )
        torch.testing.assert_close(output[b : b + 1], alone)
    assert torch.equal(AtOneStep(rnn.net, when).run(params, x), rnn.net.run(params, x))


def test_equal_options_make_equal_rules():
    assert replace(LearntRFLO(), sigma=0.2) == LearntRFLO(sigma=0.2)


class Spiking(nn.Module):
    """Leaky integrate-and-fire neurons whose site holds the spikes, while the membrane carries the past."""

    def __init__(self, *, on_membrane):
        super().__init__()
        self.on_membrane = on_membrane
        self.w_in, self.w_rec, self.w_out = nn.Linear(3, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 3)
        self.recurrent, self.state = Site("recurrent", unrolled=True), Site("post", unrolled=True)

    def forward(self, x):
        v = spikes = x.new_zeros(len(x), 6)
        for x_t in x.unbind(1):
            v = 0.9 * v + self.w_in(x_t) + self.w_rec(self.recurrent(spikes))
            if self.on_membrane:
                v = self.state(v)
            spikes = torch.sigmoid(20 * (v - 0.5))  # a smooth threshold
            if not self.on_membrane:
                spikes = self.state(spikes)
        return self.w_out(spikes)


@pytest.mark.parametrize("rule", ["rflo", "e-prop", "rflo-noise-correlation"])
def test_a_past_that_the_site_does_not_carry_is_refused(rule):
    made = discover().make_rule(rule, {})
    hidden = Net(Spiking(on_membrane=False), torch.randn(2, 4, 3))
    assert "something else carries it" in made.skip(hidden, None)
    assert made.skip(Net(Spiking(on_membrane=True), torch.randn(2, 4, 3)), None) is None
