"""Lagged noise correlation, fed with kicks of which the answer is known; its twin is one jacrev for each pair of steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rulezoo import Batch, Net, OptionError, Site, State, credit
from rulezoo.options import declared
from rulezoo.testing import parametrize_rule_checks, tiny_net
from rulezoo_plugins.recurrent.lagged_noise_correlation import (
    LaggedManifoldNoiseCorrelation,
    LaggedNoiseCorrelation,
    teaching_signals,
)

EXACT = 1e-10  # of the largest entry, in float64
EXACTLY = {"rate": 1.0, "response": "derivative"}
STEPS, UNITS = 4, 6  # of the tiny networks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def assert_equal(got, wanted, tolerance=EXACT):
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))


@pytest.fixture(params=["rnn", "rnn-every-step"])
def rnn(request):
    """The tiny recurrent networks: one answer at the end, and an answer at every step."""
    return tiny_net(request.param)


@pytest.fixture
def lively(rnn):
    """Parameters so large that tanh bends, and a batch."""
    return {name: 2 * p for name, p in rnn.params().items()}, rnn.batch(5)


def choosing(step, first=0, steps=STEPS):
    """The number in [0, 1) by which a kick comes at ``step``, if the first may come at step ``first``."""
    return (step - first + 0.5) / (steps - first)


def every_direction(batch, steps=range(STEPS), first=0, units=UNITS):
    """Every example is kicked in every direction at every step: ``E z zᵀ = 1`` holds exactly for each of them.

    The rows are those of `NoiseCorrelation`: row r is example r mod batch.
    """
    eye = units**0.5 * torch.eye(units, dtype=torch.float64)
    kicks = [(choosing(t, first), eye[i]) for t in steps for i in range(units) for _ in range(batch)]
    return {
        "when": torch.tensor([when for when, _ in kicks], dtype=torch.float64),
        "kick": torch.stack([kick for _, kick in kicks]),
    }


def jacobians(net, params, example, t):
    """How the answer at each step of one example depends on the state at step ``t``: ``(T, o, n)``."""

    def answers(offset):
        output = net.run(
            params, example[None], lambda key, h: h + offset if key == f"hidden[{t}]" else h
        ).squeeze(0)
        return (
            output if output.ndim == 2 else output.new_zeros(STEPS, 3).index_put((torch.tensor(3),), output)
        )

    return torch.func.jacrev(answers)(example.new_zeros(UNITS))


def mean_lagged_jacobian(tiny, params, x, lag):
    """Averaged over examples, and over the steps at which a kick has an answer after ``lag`` steps: ``(o, n)``."""
    answered = range(STEPS) if len(tiny.net.output_shape) == 2 else [STEPS - 1]
    kicked = [t - lag for t in answered if t >= lag]
    return torch.stack([jacobians(tiny.net, params, one, t)[t + lag] for one in x for t in kicked]).mean(0)


def learnt(rule, tiny, params, batch, noise, state=None):
    state = rule.init(tiny.net, params, batch, seeded()) if state is None else state
    return rule.step(tiny.net, tiny.task.loss, params, state, batch, noise, 0).state.buffers[
        "feedback.hidden"
    ]


# --------------------------------------------------------------------------------------------------------------------
# What is estimated


def test_a_basis_as_kicks_gives_the_mean_jacobian_of_every_lag(rnn, lively):
    params, batch = lively

    feedback = learnt(LaggedNoiseCorrelation(**EXACTLY), rnn, params, batch, every_direction(5))

    assert feedback.shape == (STEPS, 3, UNITS)
    for lag, b in enumerate(feedback):
        assert_equal(b, mean_lagged_jacobian(rnn, params, batch.x, lag))


@pytest.mark.parametrize("horizon", [0, 2, 9])
def test_a_horizon_limits_the_lags_and_leaves_the_others_as_they_are(rnn, lively, horizon):
    params, batch = lively
    lags = min(horizon + 1, STEPS)
    first = 0 if len(rnn.net.output_shape) == 2 else STEPS - lags  # earlier kicks would be heard too late
    noise = every_direction(5, range(first, STEPS), first)

    feedback = learnt(LaggedNoiseCorrelation(horizon=horizon, **EXACTLY), rnn, params, batch, noise)

    assert len(feedback) == lags
    for lag, b in enumerate(feedback):
        assert_equal(b, mean_lagged_jacobian(rnn, params, batch.x, lag))


def test_a_lag_that_was_not_heard_keeps_its_feedback(rnn, lively):
    """A kick at the last step is heard at lag 0 alone."""
    params, batch = lively
    rule = LaggedNoiseCorrelation(**EXACTLY)
    before = State(buffers={"feedback.hidden": randn(STEPS, 3, UNITS)})

    after = learnt(rule, rnn, params, batch, every_direction(5, [STEPS - 1]), before)

    assert torch.equal(after[1:], before.buffers["feedback.hidden"][1:])
    assert_equal(after[0], params["w_out.weight"])


def test_the_running_average_moves_by_its_rate(rnn, lively):
    params, batch = lively
    noise = every_direction(5)
    start = State(buffers={"feedback.hidden": randn(STEPS, 3, UNITS)})
    whole = learnt(LaggedNoiseCorrelation(**EXACTLY), rnn, params, batch, noise, start)

    part = learnt(LaggedNoiseCorrelation(rate=0.25, response="derivative"), rnn, params, batch, noise, start)

    assert_equal(part, 0.75 * start.buffers["feedback.hidden"] + 0.25 * whole)


def test_kicks_in_the_manifold_give_the_jacobians_projected_on_it(rnn, lively):
    params, batch = lively
    rule = LaggedManifoldNoiseCorrelation(rank=2, **EXACTLY)
    state = rule.init(rnn.net, params, batch, seeded())
    basis = state.buffers["basis.hidden"]

    feedback = learnt(rule, rnn, params, batch, every_direction(5, units=2), state)

    assert basis.shape == (UNITS, 2)
    for lag, b in enumerate(feedback):
        assert_equal(b, mean_lagged_jacobian(rnn, params, batch.x, lag) @ basis @ basis.mT)


@pytest.mark.parametrize(("antithetic", "order"), [(True, 2), (False, 1)])
def test_finite_differences_err_by_a_power_of_sigma(rnn, lively, antithetic, order):
    params, batch = lively
    noise = every_direction(5)
    true = learnt(LaggedNoiseCorrelation(**EXACTLY), rnn, params, batch, noise)

    def error(sigma):
        rule = LaggedNoiseCorrelation(rate=1.0, sigma=sigma, antithetic=antithetic)
        return float((learnt(rule, rnn, params, batch, noise) - true).norm())

    assert error(1e-2) / error(1e-4) == pytest.approx(100.0**order, rel=0.1)


def test_least_squares_needs_no_orthonormal_kicks_where_jacobians_are_constant():
    """60 kicks in random directions; each lag has heard more of them than there are units."""
    net, batch, loss = linear(every_step=True)
    params = net.init_params()
    rule = LaggedNoiseCorrelation(rate=1.0, estimator="least-squares")
    state = rule.init(net, params, batch, seeded())
    noise = {"when": torch.rand(60, generator=seeded(), dtype=torch.float64), "kick": randn(60, UNITS)}

    feedback = rule.step(net, loss, params, state, batch, noise, 0).state.buffers["feedback.hidden"]

    transition = (1 - LEAK) * torch.eye(UNITS, dtype=torch.float64) + LEAK * params["w_rec.weight"]
    for lag, b in enumerate(feedback):
        assert_equal(b, params["w_out.weight"] @ torch.linalg.matrix_power(transition, lag), 1e-8)


# --------------------------------------------------------------------------------------------------------------------
# What is taught

LEAK = 0.3


class Linear(nn.Module):
    """A recurrent network without a non-linearity: its Jacobians depend on the lag alone."""

    def __init__(self, every_step):
        super().__init__()
        self.every_step = every_step
        self.w_in, self.w_rec = nn.Linear(3, UNITS), nn.Linear(UNITS, UNITS, bias=False)
        self.w_out = nn.Linear(UNITS, 2)
        self.recurrent, self.hidden = Site("recurrent", unrolled=True), Site("post", unrolled=True)

    def forward(self, x):
        h, states = x.new_zeros(len(x), UNITS), []
        for x_t in x.unbind(1):
            h = self.hidden((1 - LEAK) * h + LEAK * (self.w_rec(self.recurrent(h)) + self.w_in(x_t)))
            states.append(h)
        return self.w_out(torch.stack(states, 1) if self.every_step else h)


def linear(every_step):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Linear(every_step).double()
    x = randn(5, STEPS, 3)
    net = Net(module, x)
    y = randn(5, *net.output_shape, seed=1)
    return net, Batch(x, y), lambda output, target: (output - target).square().flatten(1).mean(1)


@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("response", ["difference", "derivative"])
def test_on_a_linear_network_the_step_is_backprop_through_time(every_step, response):
    net, batch, loss = linear(every_step)
    params = net.init_params()
    rule = LaggedNoiseCorrelation(rate=1.0, response=response)
    state = rule.init(net, params, batch, seeded())

    step = rule.step(net, loss, params, state, batch, every_direction(5), 0)

    true, mean = credit.backprop(net, loss, params, *batch)
    assert torch.equal(step.loss, mean)
    for name, grad in true.items():
        assert_equal(step.grads[name], grad, 1e-9)


def test_with_the_jacobians_of_each_visit_the_update_is_backprop_through_time(rnn, lively):
    """What the rule would do if it knew them; the lagged means are all that it leaves out."""
    params, (x, y) = lively
    cut = credit.cut(rnn.net, params, x, rnn.net.keys("post"))
    error, _ = credit.output_error(rnn.task.loss, cut.output, y)
    signals = {}
    for t, key in enumerate(rnn.net.keys("post")):
        rows = torch.stack([jacobians(rnn.net, params, one, t) for one in x])  # (b, T, o, n)
        heard = rows if error.ndim == 3 else rows[:, -1:]
        signals[key] = torch.einsum("bto,bton->bn", error.view(len(x), -1, 3), heard)

    grads = cut.pull(error, signals)

    for name, grad in credit.backprop(rnn.net, rnn.task.loss, params, x, y)[0].items():
        assert_equal(grads[name], grad)


def test_signals_are_the_errors_that_follow_each_through_the_feedback_of_its_lag():
    errors, feedback = randn(2, 5, 3), randn(3, 3, 4, seed=1)

    signals = teaching_signals(errors, feedback)

    for b in range(2):
        for t in range(5):
            wanted = sum(feedback[k].T @ errors[b, t + k] for k in range(3) if t + k < 5)
            assert_equal(signals[b, t], wanted)


def test_an_error_teaches_neither_what_came_later_nor_what_is_beyond_the_horizon():
    errors = torch.zeros(1, 6, 2, dtype=torch.float64)
    errors[0, 3] = 1.0

    taught = teaching_signals(errors, randn(3, 2, 4)).abs().sum((0, 2)) > 0

    assert taught.tolist() == [False, True, True, True, False, False]


def test_an_error_at_the_end_reaches_all_steps_and_without_a_horizon_to_go_the_last_alone(lively):
    tiny = tiny_net("rnn")
    params, batch = {name: 2 * p for name, p in tiny.params().items()}, tiny.batch(5)

    def first_step_is_taught(horizon):
        """By an input at the first step alone, whose weights only learn there."""
        rule = LaggedNoiseCorrelation(horizon=horizon, **EXACTLY)
        x = batch.x.clone()
        x[:, 1:] = 0
        state = rule.init(tiny.net, params, batch, seeded())
        noise = rule.noise(tiny.net, state, batch, seeded(), 0)
        grads = rule.step(tiny.net, tiny.task.loss, params, state, Batch(x, batch.y), noise, 0).grads
        return bool(grads["w_in.weight"].any())

    assert first_step_is_taught(None)
    assert first_step_is_taught(3)
    assert not first_step_is_taught(2)


# --------------------------------------------------------------------------------------------------------------------
# Kicks, schedules, options


def test_kicks_come_at_every_step_equally_often():
    """4,000 numbers from the rule's own generator; each of 4 steps has 1,000 ± 4 standard deviations of 27."""
    tiny = tiny_net("rnn-every-step")
    rule = LaggedNoiseCorrelation(perturbations=4000)
    batch = tiny.batch(5)
    state = rule.init(tiny.net, tiny.params(), batch, seeded())

    noise = rule.noise(tiny.net, state, batch, seeded(), 0)

    assert noise["kick"].shape == (4000, UNITS)
    counts = (noise["when"] * STEPS).long().bincount(minlength=STEPS)
    assert len(counts) == STEPS
    assert (counts - 1000).abs().max() < 110


def test_the_whole_batch_is_kicked_unless_told_otherwise():
    tiny = tiny_net("rnn")
    batch = tiny.batch(7)
    for rule, kicks in ((LaggedNoiseCorrelation(), 7), (LaggedNoiseCorrelation(perturbations=2), 2)):
        state = rule.init(tiny.net, tiny.params(), batch, seeded())
        assert len(rule.noise(tiny.net, state, batch, seeded(), 0)["kick"]) == kicks


def test_between_updates_nothing_is_kicked_and_the_feedback_stays(rnn, lively):
    params, batch = lively
    rule = LaggedNoiseCorrelation(every=3)
    state = State(buffers={"feedback.hidden": randn(STEPS, 3, UNITS)})

    assert rule.noise(rnn.net, state, batch, seeded(), 2) == {}
    step = rule.step(rnn.net, rnn.task.loss, params, state, batch, {}, 2)

    assert step.state.buffers == state.buffers
    assert step.grads["w_rec.weight"].any()


def test_kicks_have_the_energy_of_sigma(lively):
    """A kick of a unit vector in d = 2 dimensions has the length σ √(n / d) RMS(h)."""
    tiny = tiny_net("rnn-every-step")
    params, batch = {name: 2 * p for name, p in tiny.params().items()}, tiny.batch(5)
    rule = LaggedManifoldNoiseCorrelation(rank=2, sigma=0.2)
    state = rule.init(tiny.net, params, batch, seeded())
    seen = []

    class Watched(Net):
        def __init__(self):
            vars(self).update(vars(tiny.net))

        def run(self, params, x, tap=None):
            def watching(key, h):
                after = h if tap is None else tap(key, h)
                seen.append((after - h).norm(dim=1).detach().max() if key in self.keys("post") else 0)
                return after

            return tiny.net.run(params, x, watching)

    noise = {
        "when": torch.tensor([choosing(1)], dtype=torch.float64),
        "kick": torch.tensor([[1.0, 0.0]], dtype=torch.float64),
    }
    rule.step(Watched(), tiny.task.loss, params, state, batch, noise, 0)

    states = credit.cut(tiny.net, params, batch.x, tiny.net.keys("post")).sites
    rms = torch.cat(list(states.values())).square().mean().sqrt()
    assert float(max(seen)) == pytest.approx(0.2 * (UNITS / 2) ** 0.5 * float(rms), rel=1e-6)


def test_there_is_no_option_that_does_nothing():
    for rule in (LaggedNoiseCorrelation, LaggedManifoldNoiseCorrelation):
        assert "together" not in declared(rule)
        assert {"horizon", "sigma", "rate", "every", "perturbations"} <= declared(rule).keys()


def test_an_automatic_rank_is_refused():
    with pytest.raises(OptionError, match="rank must be a number"):
        LaggedManifoldNoiseCorrelation(rank="auto")


def test_a_sigma_that_drowns_in_rounding_is_refused():
    tiny = tiny_net("rnn", torch.float32)
    with pytest.raises(OptionError, match="sigma=1e-06 drowns in the rounding"):
        LaggedNoiseCorrelation(sigma=1e-6).init(tiny.net, tiny.params(), tiny.batch(), seeded())


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_feed_forward_networks_are_skipped_with_a_reason(kind):
    tiny = tiny_net(kind)
    for rule in (LaggedNoiseCorrelation(), LaggedManifoldNoiseCorrelation()):
        assert "visited at every time step" in rule.skip(tiny.net, tiny.task)


def test_so_are_a_single_step_and_states_that_are_no_vectors():
    class Square(Linear):
        def forward(self, x):
            state = self.hidden(self.w_in(x[:, 0]).view(-1, 2, 3))
            return self.w_out(self.hidden(state).flatten(1))

    rule, task = LaggedNoiseCorrelation(), tiny_net("rnn").task
    for module, steps, words in ((Linear(False), 1, "single time step"), (Square(False), 2, "shape (2, 3)")):
        assert words in rule.skip(Net(module.double(), randn(2, steps, 3)), task)


VARIANTS = [
    LaggedNoiseCorrelation(horizon=1, every=2, perturbations=5, antithetic=False, estimator="least-squares"),
    LaggedManifoldNoiseCorrelation(rank=0.9, refresh=2, samples=20, response="derivative"),
]


@parametrize_rule_checks(VARIANTS, nets=("rnn", "rnn-every-step"))
def test_other_options_keep_the_promises_too(check):
    check()
