"""One rule on one task: what comes out of each seed, whatever the rule does, and what it is said to have cost."""

import types
from dataclasses import dataclass, replace

import pytest
import torch

from rulezoo import LearningRule, State, Step, credit
from rulezoo.measures.locality import Travel
from rulezoo.seeding import number
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training import clock, runner
from rulezoo.training import run as training
from rulezoo.training.run import RunRequest

TOGETHER = 1e-4  # relative, of a loss in float32, for seeds that are trained together or alone
BUDGET = Budget(epochs=3, batch=16, lr=0.01)
STEPS = 3 * 6  # of the 96 training examples
CPU = torch.device("cpu")


def run(rule, seeds=(0,), task=None, budget=BUDGET, **options):
    task = task or TinyTask()
    found = list(runner.run(RunRequest(rule, task, seeds, budget, task.data(), CPU, **options)))
    assert [seed for seed, _ in found] == list(seeds)
    return [outcome for _, outcome in found]


class Exact(LearningRule):
    """Backprop."""

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


class Marked(Exact):
    """Backprop that knows its seed: the buffer ``unlucky`` is 1 for some seeds. `trouble` may then do as it likes."""

    unlucky = (1,)

    def init(self, net, params, batch, gen):
        return State(buffers={"unlucky": torch.tensor(float(self.is_unlucky(gen, "init")))})

    def is_unlucky(self, gen, purpose):
        return gen.initial_seed() in [number(seed, type(self).__name__, purpose) for seed in self.unlucky]

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        return self.trouble(step, state.buffers["unlucky"] > 0, t)

    def trouble(self, step, unlucky, t):
        return step


class Nan(Marked):
    at = 8

    def trouble(self, step, unlucky, t):
        if t < self.at:
            return step
        return step._replace(loss=torch.where(unlucky, torch.nan, step.loss))


class NoLoss(Marked):
    """Computes no loss from step 7 on."""

    at = 7

    def trouble(self, step, unlucky, t):
        return step if t < self.at else step._replace(loss=None)


class NanUpdates(NoLoss):
    """Computes no loss, and from step 8 on updates that are no numbers."""

    at = 0

    def trouble(self, step, unlucky, t):
        bad = {n: torch.where(unlucky, torch.nan, 0 * g) for n, g in step.grads.items()}
        return (
            step._replace(loss=None, grads={}, updates=bad) if t >= 8 else super().trouble(step, unlucky, t)
        )


class NanWeights(Marked):
    """Gradients that are no numbers; and a rule that cannot go on with such weights."""

    at = 8

    def noise(self, net, state, batch, gen, t):
        if t > self.at and self.is_unlucky(gen, "noise"):
            raise ArithmeticError("eigenvalues of what is no number")
        return {}

    def trouble(self, step, unlucky, t):
        if t < self.at:
            return step
        return step._replace(grads={n: torch.where(unlucky, torch.nan, g) for n, g in step.grads.items()})


class RaisesForOne(Marked):
    def noise(self, net, state, batch, gen, t):
        if t == 5 and self.is_unlucky(gen, "noise"):
            raise KeyError("first line\nsecond line")
        return {}


class NoVmap(Marked):
    """Looks at a value, which vmap does not allow."""

    def trouble(self, step, unlucky, t):
        assert float(step.loss) > 0
        return step


class DeclaredNoVmap(NoVmap):
    vmappable = False


def curves(outcome):
    return [point.train_loss for point in outcome.curve]


@pytest.fixture(scope="module")
def peaceful():
    """Three seeds without trouble, trained together."""
    return run(Marked(), (0, 1, 2))


def test_without_trouble_every_seed_has_scores_and_a_curve(peaceful):
    for outcome in peaceful:
        assert (outcome.status, outcome.reason, outcome.seeds_together) == ("ok", None, 3)
        assert set(outcome.scores) == {"validation", "test"}
        assert outcome.scores["validation"] == outcome.curve[-1].validation
        assert all(0.3 < score <= 1 for score in outcome.scores.values())
        assert [(point.epoch, point.step) for point in outcome.curve] == [(1, 6), (2, 12), (3, 18)]
        assert curves(outcome)[0] > curves(outcome)[-1]
        assert outcome.parameters == sum(p.numel() for p in TinyTask().network().parameters())
    assert len({tuple(curves(outcome)) for outcome in peaceful}) == 3


def test_a_rule_need_not_compute_its_loss(peaceful):
    """The numbers stay the same; a point of the curve has the mean over the steps with a loss, or none."""
    for seeds in ((0, 1, 2), (1,)):
        for seed, outcome in zip(seeds, run(NoLoss(), seeds), strict=True):
            other = peaceful[seed]
            assert outcome.status == "ok"
            assert curves(outcome)[0] == pytest.approx(curves(other)[0], rel=TOGETHER)
            assert curves(outcome)[1] is not None
            assert curves(outcome)[2] is None
            assert outcome.curve[2].validation == other.curve[2].validation
            assert outcome.scores == other.scores


def test_without_a_loss_weights_tell_that_a_seed_diverged():
    outcomes = run(NanUpdates(), (0, 1, 2))
    assert [outcome.status for outcome in outcomes] == ["ok", "diverged", "ok"]
    assert outcomes[1].reason == "the weights were not finite at step 12 of 18"
    assert [len(outcome.curve) for outcome in outcomes] == [3, 1, 3]


def test_a_seed_alone_comes_to_the_same(peaceful):
    for seed, together in enumerate(peaceful):
        (alone,) = run(Marked(), (seed,))
        assert alone.seeds_together == 1
        assert curves(alone) == pytest.approx(curves(together), rel=TOGETHER)


def test_a_loss_that_is_no_number_is_its_seeds_own_affair(peaceful):
    lucky, unlucky, last = run(Nan(), (0, 1, 2))
    assert (unlucky.status, unlucky.scores) == ("diverged", None)
    assert unlucky.reason == f"the loss was not finite at step 8 of {STEPS}"
    assert len(unlucky.curve) == 1  # the epoch that it finished
    for outcome, undisturbed in ((lucky, peaceful[0]), (last, peaceful[2])):
        assert (outcome.status, outcome.seeds_together) == ("ok", 3)
        assert (outcome.scores, outcome.curve) == (undisturbed.scores, undisturbed.curve)  # bit for bit
    (alone,) = run(Nan(), (1,))
    assert (alone.status, alone.reason) == ("diverged", unlucky.reason)


@pytest.mark.parametrize("at", [0, 5, 6, 17])
def test_the_step_is_right_at_the_ends_of_an_epoch(at):
    rule = type("NanAt", (Nan,), {"at": at, "unlucky": (0,)})()
    (outcome,) = run(rule)
    assert outcome.reason == f"the loss was not finite at step {at} of {STEPS}"
    assert len(outcome.curve) == at // 6


def test_training_ends_when_every_seed_has_diverged():
    seen = []
    rule = type("NanForAll", (Nan,), {"at": 2, "unlucky": (0, 1)})()
    outcomes = run(rule, (0, 1), progress=lambda done, total: seen.append((done, total)))
    assert [outcome.status for outcome in outcomes] == ["diverged", "diverged"]
    assert seen[-1] == (6, STEPS)


@pytest.mark.parametrize("at", [8, 11, 5])
def test_a_rule_that_raises_on_weights_that_are_no_numbers_has_diverged(at, peaceful):
    """What made the weights so is the news; that the rule cannot work with them is not."""
    rule = type("NanWeightsAt", (NanWeights,), {"at": at})()
    outcomes = run(rule, (0, 1, 2))
    assert [outcome.status for outcome in outcomes] == ["ok", "diverged", "ok"]
    assert outcomes[1].reason == f"the weights were not finite at step {at + 1} of {STEPS}"
    assert [outcome.seeds_together for outcome in outcomes] == [1, 1, 1]
    assert curves(outcomes[2]) == pytest.approx(curves(peaceful[2]), rel=TOGETHER)


def test_outputs_that_are_no_numbers_at_the_end_are_a_divergence():
    rule = type("NanAtTheEnd", (NanWeights,), {"at": STEPS - 1, "unlucky": (0,)})()
    (outcome,) = run(rule)
    assert (outcome.status, outcome.scores) == ("diverged", None)
    assert outcome.reason == "the outputs for the test data were not finite"


def test_one_seed_that_raises_does_not_take_the_others_with_it(peaceful):
    first, bad, last = run(RaisesForOne(), (0, 1, 2))
    assert (bad.status, bad.reason) == ("error", "KeyError: 'first line\\nsecond line'")
    assert "in noise" in bad.traceback
    assert bad.curve == ()
    for outcome, together in ((first, peaceful[0]), (last, peaceful[2])):
        assert (outcome.status, outcome.seeds_together) == ("ok", 1)
        assert curves(outcome) == pytest.approx(curves(together), rel=TOGETHER)


def test_progress_is_reported_once_a_second_however_long_an_epoch_is(monkeypatch):
    seen = []
    monkeypatch.setattr("rulezoo.training.run._SAMPLES", 1)  # backprop is timed once
    run(Exact(), (0,), progress=lambda done, total: seen.append(done))
    assert len(seen) < STEPS / 2
    monkeypatch.setattr("rulezoo.training.run._REPORT_EVERY", 0.0)
    seen.clear()
    run(Exact(), (0,), progress=lambda done, total: seen.append(done))
    assert seen == list(range(1, STEPS + 1))


@pytest.mark.parametrize("rule", [NoVmap(), DeclaredNoVmap()], ids=["tried", "declared"])
def test_what_vmap_does_not_allow_is_trained_one_by_one(rule, peaceful):
    seen = []
    outcomes = run(rule, (0, 1, 2), progress=lambda done, total: seen.append((done, total)))
    assert [(outcome.status, outcome.seeds_together) for outcome in outcomes] == [("ok", 1)] * 3
    for outcome, together in zip(outcomes, peaceful, strict=True):
        assert curves(outcome) == pytest.approx(curves(together), rel=TOGETHER)
    assert seen == [(done, 3 * STEPS) for done in range(1, 3 * STEPS + 1)]


def test_seeds_one_by_one_are_told_as_soon_as_they_are_known():
    begun = []

    class Slow(DeclaredNoVmap):
        def init(self, net, params, batch, gen):
            begun.append(gen.initial_seed())
            return super().init(net, params, batch, gen)

    task = TinyTask()
    outcomes = runner.run(RunRequest(Slow(), task, (0, 1), BUDGET, task.data(), CPU))
    assert next(outcomes)[1].status == "ok"
    assert begun == [number(0, "Slow", "init")]
    assert len(list(outcomes)) == 1


def test_an_error_that_cannot_even_be_printed_is_an_error_like_others():
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError

    class Raises(LearningRule):
        def step(self, *args):
            raise Unspeakable

    for outcome in run(Raises(), (0, 1)):
        assert outcome.status == "error"
        assert outcome.reason.startswith("Unspeakable")


def test_a_long_message_is_told_by_its_first_line():
    class Raises(LearningRule):
        def step(self, *args):
            raise RuntimeError("\n first\nsecond")

    (outcome,) = run(Raises())
    assert outcome.reason == "RuntimeError: first"
    assert "second" in outcome.traceback


def test_a_rule_without_a_step_says_so():
    (outcome,) = run(LearningRule())
    assert (outcome.status, outcome.reason) == (
        "error",
        "NotImplementedError: LearningRule must define step()",
    )


def test_a_rule_that_cannot_serve_says_why():
    class Picky(LearningRule):
        def skip(self, net, task):
            return f"needs more than {len(net.visits)} sites for {task.metric}"

    outcomes = run(Picky(), (0, 1))
    assert [(one.status, one.reason) for one in outcomes] == [
        ("skipped", "needs more than 4 sites for accuracy")
    ] * 2


@dataclass(frozen=True)
class Sized(TinyTask):
    """Parts of 96, 40 and 56 examples, to tell them apart."""

    def data(self, root=None, *, download=False):
        train, validation, test = super().data()
        cut = validation.x[40:], validation.y[40:]
        return Data(
            train,
            Split(validation.x[:40], validation.y[:40]),
            Split(torch.cat([test.x, cut[0]]), torch.cat([test.y, cut[1]])),
        )


@pytest.fixture
def unobserved(monkeypatch):
    """Without the two steps that are looked at before training, to count those of the training."""
    monkeypatch.setattr(training, "travel", lambda *args, **options: Travel((), 1))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_test_data_are_read_once_at_the_end_and_validation_every_epoch(seeds, unobserved):
    read = []

    class Watched(Exact):
        def step(self, net, loss, params, state, batch, noise, t):
            read.append("step")
            return super().step(net, loss, params, state, batch, noise, t)

        def predict(self, net, params, state, x):
            read.append({40: "validation", 56: "test"}[len(x)])
            return super().predict(net, params, state, x)

    run(Watched(), seeds, Sized())
    assert read == 3 * [*6 * ["step"], "validation"] + ["test"]


def test_a_score_is_the_mean_over_all_examples_however_many_there_are():
    whole = run(Exact(), (0, 1), Sized())
    pieces = run(Exact(), (0, 1), Sized(), replace(BUDGET, evaluation_batch=17))
    for one, other in zip(whole, pieces, strict=True):
        assert other.scores == pytest.approx(one.scores, rel=1e-6)
        assert 56 * one.scores["test"] == pytest.approx(round(56 * one.scores["test"]), abs=1e-4)


def test_every_rule_begins_with_the_same_weights_and_meets_the_same_batches(unobserved):
    met = {}

    class Watched(Exact):
        """Draws from its own generators as it likes."""

        def init(self, net, params, batch, gen):
            torch.rand(3, generator=gen)
            met.setdefault(type(self), []).append(params)
            return State()

        def noise(self, net, state, batch, gen, t):
            met[type(self)].append({"x": batch.x.clone(), "y": batch.y.clone()})
            return {}

    class Thirsty(Watched):
        def noise(self, net, state, batch, gen, t):
            torch.rand(100 * t, generator=gen)
            torch.rand(t)  # a rule should not, but the others do not suffer
            return super().noise(net, state, batch, gen, t)

        def step(self, net, loss, params, state, batch, noise, t):
            step = super().step(net, loss, params, state, batch, noise, t)
            return step._replace(grads={n: -g for n, g in step.grads.items()})

    run(Thirsty(lr=0.5), (0, 1))
    run(Watched(), (0, 1))
    one, other = met.values()
    assert len(one) == 2 + 2 * STEPS == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.mark.parametrize("samples", [60, 6, 3])
def test_the_clock_runs_on_training_steps_only(monkeypatch, samples):
    """With a clock that is moved by hand: 2 s for a step with its noise, 1 s for backprop's, hours for the rest."""
    now = [0.0]

    def takes(seconds):
        now[0] += seconds

    class Timed(Exact):
        def init(self, net, params, batch, gen):
            takes(1000)
            return State()

        def noise(self, net, state, batch, gen, t):
            takes(0.5)
            return {}

        def step(self, net, loss, params, state, batch, noise, t):
            takes(
                500 if t == 0 else 1.5 if t < 12 else 9
            )  # the first step and one epoch in three are not typical
            return super().step(net, loss, params, state, batch, noise, t)

        def predict(self, net, params, state, x):
            takes(1000)
            return super().predict(net, params, state, x)

    class Reference(Exact):
        def step(self, net, loss, params, state, batch, noise, t):
            takes(1 if t else 2)
            return super().step(net, loss, params, state, batch, noise, t)

    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(training, "_PlainBackprop", Reference)
    monkeypatch.setattr(training, "_SAMPLES", samples)
    (outcome,) = run(Timed(), progress=lambda done, total: takes(1000))
    assert (outcome.step_seconds, outcome.backprop_seconds) == (2, 1)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_step_costs_something(seeds):
    for outcome in run(Exact(), seeds):
        assert outcome.step_seconds > 0
        assert outcome.backprop_seconds > 0
        assert outcome.peak_bytes is None  # of a GPU


def test_measuring_the_cost_does_not_change_what_is_learnt(monkeypatch):
    (rare,) = run(Exact(), budget=replace(BUDGET, epochs=2))
    monkeypatch.setattr(training, "_SAMPLES", 1)
    (often,) = run(Exact(), budget=replace(BUDGET, epochs=2))
    assert (rare.scores, rare.curve) == (often.scores, often.curve)


def test_what_a_rule_logs_now_and_then_is_averaged_over_those_steps():
    class Logs(Exact):
        def step(self, net, loss, params, state, batch, noise, t):
            step = super().step(net, loss, params, state, batch, noise, t)
            logs = {"t": torch.tensor(float(t))}
            if t % 6 == 4:
                logs["rare"] = torch.tensor(10.0 * t)
            if t == 7:
                logs["once"] = torch.tensor(1.0)
            return step._replace(logs=logs)

    for outcome in run(Logs(), (0, 1)):
        assert [point.logs["t"] for point in outcome.curve] == [2.5, 8.5, 14.5]
        assert [point.logs["rare"] for point in outcome.curve] == [40, 100, 160]
        assert ["once" in point.logs for point in outcome.curve] == [False, True, False]


def test_the_global_generator_is_left_alone():
    torch.rand(1)  # from where the last test may have left it
    before = torch.get_rng_state()
    run(Exact(), (0, 1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [10, 32, 1024])
def test_no_more_examples_are_evaluated_at_once_than_the_budget_says(size):
    seen = []

    class Watched(TinyTask):
        def score(self, output, target):
            seen.append(len(output))
            return super().score(output, target)

    task = Watched()
    data = task.data()
    parts = {len(data.validation.x), len(data.test.x)}
    budget = replace(BUDGET, evaluation_batch=size, epochs=1)
    (outcome,) = run(Exact(), task=task, budget=budget)
    assert outcome.status == "ok"
    assert max(seen) <= size
    assert sum(seen) == len(data.validation.x) + len(data.test.x)
    assert (set(seen) == parts) == (size >= max(parts))
    (whole,) = run(Exact(), budget=replace(BUDGET, epochs=1))
    assert outcome.scores == whole.scores


def test_a_decoupled_decay_goes_with_an_optimiser_that_has_none():
    """The reference trainer, whose decay is the optimiser's, is trained without one there."""

    class Decoupled(Exact):
        decoupled_decay = True

    budget = replace(BUDGET, optimizer="Rprop", weight_decay=0.1)
    (outcome,) = run(Decoupled(), budget=budget)
    assert (outcome.status, outcome.reason) == ("ok", None)
    (plain,) = run(Decoupled(), budget=replace(budget, weight_decay=0.0))
    assert outcome.curve != plain.curve
    (refused,) = run(Exact(), budget=budget)
    assert refused.status == "error"
    assert "budget.weight_decay must be 0 with Rprop" in refused.reason
