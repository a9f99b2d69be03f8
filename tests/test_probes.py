"""Probes against their definitions, in the limits where the truth is known, and that a training does not feel them."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
import torch
from torch import nn

from rulezoo import LearningRule, Net, Site, State, Step, credit
from rulezoo.comparison.execution import outstanding
from rulezoo.comparison.jobs import Job, work
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import discover
from rulezoo.measures.probes import ALL, QUANTITIES, Prober, observed_step, probe_steps
from rulezoo.results.records import Probe
from rulezoo.results.store import Store
from rulezoo.rule import Batch
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.testing.nets import tiny_nets
from rulezoo.training import runner
from rulezoo.training.run import RunRequest
from rulezoo_plugins.baselines.backprop import Backprop, Frozen
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.feedback_weights.feedback_alignment import FeedbackAlignment
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation, NoiseCorrelation

DIGITS = 1e-5  # probes are stored with six digits
DIRECTION = ("angle", "step_ratio", "norm_ratio")


def data_of(tiny):
    return Data(*(Split(*tiny.batch(size, seed)) for seed, size in enumerate((96, 48, 48))))


def prober_of(tiny, batch=16, **options):
    return Prober(tiny.net, tiny.task.loss, data_of(tiny), batch, **{"rank": 3} | options)


def probed(tiny, rule, t=0, state=None, geometry=False, **options):
    if state is None:
        state = rule.init(tiny.net, tiny.params(), tiny.batch(16), torch.Generator().manual_seed(0))
    return prober_of(tiny, **options).probe(rule, tiny.params(), state, t, 0, geometry=geometry)


def about(**numbers):
    return {name: pytest.approx(value, rel=DIGITS, abs=1e-4) for name, value in numbers.items()}


class Scaled(LearningRule):
    """Backprop times a factor."""

    factor = 1.0

    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step({name: self.factor * g for name, g in grads.items()}, state, mean)


def scaled(factor):
    return type("Scaled", (Scaled,), {"factor": factor, "__annotations__": {}})()


# When ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "steps", "expected"),
    [
        (0, 10, []),
        (1, 10, [10]),
        (2, 10, [0, 10]),
        (4, 10, [0, 3, 7, 10]),
        (50, 3, [0, 1, 2, 3]),
    ],
)
def test_probes_are_at_the_start_evenly_in_between_and_at_the_end(number, steps, expected):
    assert probe_steps(number, steps) == expected


# The direction of a rule ---------------------------------------------------------------------------------------------


def test_backprop_has_the_angle_zero_everywhere(tiny):
    probe = probed(tiny, Backprop())
    exact = about(angle=0, step_ratio=1, norm_ratio=1)
    assert probe.reason is None
    assert probe.sites == dict.fromkeys([tiny.net.visits[key].site for key in tiny.net.keys("post")], exact)
    assert probe.weights == dict.fromkeys([ALL, *tiny.net.shapes], exact)


@pytest.mark.parametrize(("factor", "angle"), [(3.0, 0), (-0.5, 180)])
def test_a_multiple_of_backprop(mlp, factor, angle):
    probe = probed(mlp, scaled(factor))
    for numbers in (*probe.sites.values(), *probe.weights.values()):
        assert numbers == about(angle=angle, step_ratio=factor, norm_ratio=abs(factor))


def test_the_signal_of_direct_feedback_is_seen_and_measured_as_defined(tiny):
    """DFA's signal is e B; here from the state, by loops, and with the arc cosine."""
    rule, batch = DirectFeedbackAlignment(), 16
    state = rule.init(tiny.net, tiny.params(), tiny.batch(16), torch.Generator().manual_seed(3))
    prober = prober_of(tiny, batch)
    probe = prober.probe(rule, tiny.params(), state, 0, 0, geometry=False)
    assert len(prober.batches) == 3
    sites = {}
    for key in tiny.net.keys("post"):
        sites.setdefault(tiny.net.visits[key].site, []).append(key)
    for site, keys in sites.items():
        feedback, degrees, along, ours, true = state.buffers[f"feedback.{site}"], [], 0, 0, 0
        for x, y in prober.batches:
            gradients = credit.site_gradients(tiny.net, tiny.task.loss, tiny.params(), x, y, keys)
            error, _ = credit.output_error(tiny.task.loss, tiny.net.run(tiny.params(), x), y)
            for b in range(batch):
                g = torch.cat([gradients[key][b].flatten() for key in keys])
                heard = error[b] if error.ndim == 3 else [error[b]] * len(keys)
                v = torch.cat([h @ feedback for h in heard])
                degrees.append(torch.rad2deg(torch.acos(g @ v / g.norm() / v.norm())))
                along, ours, true = along + g @ v, ours + v @ v, true + g @ g
        expected = about(
            angle=float(sum(degrees) / len(degrees)),
            step_ratio=float(along / true),
            norm_ratio=float((ours / true).sqrt()),
        )
        assert probe.sites[site] == expected


def test_weights_are_measured_batch_by_batch_and_all_of_them_as_one_vector(mlp):
    rule = DirectFeedbackAlignment()
    state = rule.init(mlp.net, mlp.params(), mlp.batch(16), torch.Generator().manual_seed(3))
    prober = prober_of(mlp)
    probe = prober.probe(rule, mlp.params(), state, 0, 0, geometry=False)
    pairs = {name: [] for name in [ALL, *mlp.net.shapes]}
    for batch in prober.batches:
        ours = rule.step(mlp.net, mlp.task.loss, mlp.params(), state, batch, {}, 0).grads
        true, _ = credit.backprop(mlp.net, mlp.task.loss, mlp.params(), *batch)
        for name in mlp.net.shapes:
            pairs[name].append((ours[name].flatten(), true[name].flatten()))
        pairs[ALL].append(tuple(torch.cat([g[n].flatten() for n in mlp.net.shapes]) for g in (ours, true)))
    for name, both in pairs.items():
        cosines = torch.stack([a @ b / a.norm() / b.norm() for a, b in both]).clamp(-1, 1)
        assert probe.weights[name]["angle"] == pytest.approx(
            float(cosines.acos().rad2deg().mean()), rel=DIGITS, abs=1e-3
        )
        along, energy = sum(a @ b for a, b in both), sum(b @ b for _, b in both)
        assert probe.weights[name]["step_ratio"] == pytest.approx(float(along / energy), rel=DIGITS)


def test_feedback_weights_that_are_the_forward_weights_give_the_true_signals(tiny):
    state = FeedbackAlignment().init(
        tiny.net, tiny.params(), tiny.batch(16), torch.Generator().manual_seed(0)
    )
    true = State(buffers={name: tiny.params()[name.removeprefix("feedback.")] for name in state.buffers})
    for numbers in probed(tiny, FeedbackAlignment(), state=true).sites.values():
        assert numbers == about(angle=0, step_ratio=1, norm_ratio=1)
    some = probed(tiny, FeedbackAlignment(), state=state).sites.values()
    assert all(5 < numbers["angle"] < 175 for numbers in some)


def test_layers_that_a_rule_leaves_alone_are_not_measured(tiny):
    probe = probed(tiny, Frozen())
    assert not any(probe.sites.values())
    assert probe.weights.keys() == {ALL, *tiny.net.readout}
    exact = about(angle=0, step_ratio=1, norm_ratio=1)
    assert all(probe.weights[name] == exact for name in tiny.net.readout)
    share = probe.weights[ALL]["norm_ratio"]  # of what backprop would do, Frozen does this much, and exactly
    assert 0 < share < 1
    assert probe.weights[ALL]["step_ratio"] == pytest.approx(share**2, rel=1e-3)


def test_a_rule_without_a_signal_has_no_angle(mlp):
    probe = probed(mlp, scaled(0.0))
    assert probe.sites["post1"] == {"angle": None, "step_ratio": 0, "norm_ratio": 0}


class ByHand(LearningRule):
    """Knows the parameters that it wants gradients of, so it pulls back to no other."""

    def step(self, net, loss, params, state, batch, noise, t):
        own = {name: params[name] for name in net.shapes}
        grads, mean = credit.backprop(net, loss, own, batch.x, batch.y)
        return Step(grads, state, mean)


class Strict(ByHand):
    """Refuses parameters that are not the network's."""

    def step(self, net, loss, params, state, batch, noise, t):
        if strange := params.keys() - net.shapes.keys():
            raise KeyError(*strange)
        return super().step(net, loss, params, state, batch, noise, t)


def test_a_rule_that_shows_no_signals_is_measured_in_weight_space(mlp):
    probe = probed(mlp, ByHand())
    assert not any(probe.sites.values())
    assert probe.weights["fc1.weight"] == about(angle=0, step_ratio=1, norm_ratio=1)
    assert probe.reason is None


def test_a_rule_that_refuses_offsets_is_measured_in_weight_space_and_says_why(mlp):
    probe = probed(mlp, Strict())
    assert not any(probe.sites.values())
    assert probe.weights["fc1.weight"] == about(angle=0, step_ratio=1, norm_ratio=1)
    assert "the signals at sites cannot be seen: KeyError" in probe.reason


def test_noise_is_the_probes_own_and_the_same_at_the_same_step(mlp):
    before = torch.get_rng_state()
    first, again, later = (probed(mlp, NoiseCorrelation(), t=t) for t in (0, 0, 1))
    assert first == again
    assert first.sites != later.sites
    assert torch.equal(torch.get_rng_state(), before)


def test_examples_come_twice_where_there_are_fewer_than_a_batch(mlp):
    probe = probed(mlp, Backprop(), batch=100)
    assert probe.sites["post1"] == about(angle=0, step_ratio=1, norm_ratio=1)
    assert [len(batch.x) for batch in prober_of(mlp, batch=100).batches] == [100]


def test_weights_that_are_no_numbers_are_not_measured(mlp):
    params = mlp.params() | {"fc1.bias": torch.full((8,), torch.nan)}
    probe = prober_of(mlp).probe(Backprop(), params, State(), 5, 0, 0.5)
    assert probe == Probe(step=5, epoch=0.5, reason="the parameters are not finite")


# The geometry of the network -----------------------------------------------------------------------------------------


def test_every_number_has_a_meaning_and_every_meaning_a_number(mlp):
    probe = probed(mlp, Backprop(), geometry=True, samples=512)
    assert [*probe.sites["post1"]] == [name for name in QUANTITIES if name not in ("two_nn_4", "two_nn_8")]
    assert {*probe.weights["fc1.weight"]} == {*DIRECTION}


def test_geometry_does_not_depend_on_the_rule(tiny):
    one, other = (probed(tiny, rule, geometry=True) for rule in (Backprop(), DirectFeedbackAlignment()))
    for site, numbers in one.sites.items():
        same = numbers.keys() - {*DIRECTION}
        assert len(same) > 10
        assert all(numbers[name] == other.sites[site][name] for name in same)


def test_the_jacobians_are_chunked_where_they_are_large(tiny, monkeypatch):
    at_once = probed(tiny, Backprop(), geometry=True).sites
    numbers_of_one = sum(tiny.net.visits[key].width for key in tiny.net.keys("post")) * math.prod(
        tiny.net.output_shape
    )
    monkeypatch.setattr(
        "rulezoo.measures.probes._CHUNK", 7 * numbers_of_one
    )  # of 48 examples, the last chunk has fewer
    chunked = probed(tiny, Backprop(), geometry=True).sites
    for site, numbers in at_once.items():
        for name, value in numbers.items():
            assert chunked[site][name] == pytest.approx(value, rel=DIGITS, abs=1e-6), (site, name)


class Plane(nn.Module):
    """Ten units whose activity lies in a plane."""

    def __init__(self, silent=False):
        super().__init__()
        self.embed, self.readout, self.site = nn.Linear(2, 10), nn.Linear(10, 3), Site("post")
        if silent:
            nn.init.zeros_(self.embed.weight)

    def forward(self, x):
        return self.readout(self.site(self.embed(x)))


def plane(silent=False):
    gen = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(Plane(silent), torch.zeros(1, 2))
    x, y = torch.randn(300, 2, generator=gen), torch.randint(3, (300,), generator=gen)
    data = Data(Split(x[:200], y[:200]), Split(x[200:], y[200:]), Split(x[200:], y[200:]))
    return Prober(net, TinyTask().loss, data, 32, rank=6).geometry(net.init_params())["site"]


def test_dimensions_that_are_known():
    numbers = plane()
    assert (numbers["units"], numbers["samples"], numbers["rank"]) == (10, 200, 2)
    assert numbers["chance"] == 0.2
    assert numbers["d99"] <= 2
    assert 1 < numbers["participation_ratio"] <= 2
    assert numbers["two_nn"] == pytest.approx(2, abs=0.4)  # 200 points; standard error 2 / sqrt(200) = 0.14


def test_a_silent_site_has_no_dimensions_and_no_manifold():
    numbers = plane(silent=True)
    assert (numbers["rank"], numbers["alpha"]) == (0, 0)
    assert "participation_ratio" not in numbers
    assert "two_nn" not in numbers


# In a training -------------------------------------------------------------------------------------------------------


def trained(rule, seeds, probes):
    task = TinyTask("cnn")
    budget = Budget(epochs=2, batch=16, lr=0.01)
    found = runner.run(RunRequest(rule, task, seeds, budget, task.data(), torch.device("cpu"), probes=probes))
    return [outcome for _, outcome in found]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["alone", "together"])
@pytest.mark.parametrize(
    "rule", [ManifoldNoiseCorrelation(rank=3, refresh=4), Backprop()], ids=["nmnc", "backprop"]
)
def test_a_training_is_the_same_bit_for_bit_with_probes_and_without(rule, seeds):
    without, with_probes = trained(rule, seeds, 0), trained(rule, seeds, 4)
    assert [outcome.status for outcome in without] == ["ok"] * len(seeds)
    for plain, one in zip(without, with_probes, strict=True):
        assert plain.curve == one.curve
        assert plain.scores == one.scores
        assert plain.probes == ()
        assert [probe.step for probe in one.probes] == [0, 4, 8, 12]
        assert [probe.epoch for probe in one.probes] == pytest.approx([0, 4 / 6, 8 / 6, 2])
        assert [probe.reason for probe in one.probes] == [None] * 4


def test_seeds_that_are_trained_together_are_probed_as_if_alone():
    together = trained(DirectFeedbackAlignment(), (0, 1), 3)
    for seed, outcome in enumerate(together):
        (alone,) = trained(DirectFeedbackAlignment(), (seed,), 3)
        for one, other in zip(outcome.probes, alone.probes, strict=True):
            for site in one.sites:
                for name in ("angle", "alpha", "ceiling"):
                    assert one.sites[site][name] == pytest.approx(other.sites[site][name], rel=1e-3, abs=0.01)
    assert together[0].probes[0] != together[1].probes[0]


def test_probes_see_the_network_of_their_moment():
    (outcome,) = trained(Backprop(), (0,), 3)
    first, middle, last = (probe.sites["post1"]["alpha"] for probe in outcome.probes)
    assert len({first, middle, last}) == 3


def test_a_probe_that_fails_does_not_end_the_training(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("cannot look")

    monkeypatch.setattr(Prober, "geometry", fail)
    (outcome,) = trained(Backprop(), (0,), 2)
    assert outcome.status == "ok"
    assert outcome.probes == (
        Probe(step=0, epoch=0, reason="RuntimeError: cannot look"),
        Probe(step=12, epoch=2, reason="RuntimeError: cannot look"),
    )


# In the store --------------------------------------------------------------------------------------------------------


def asking_for(cell, probes):
    return replace(cell, request=replace(cell.request, probes=probes))


def test_a_stored_run_without_probes_is_run_again_when_probes_are_asked_for(tmp_path):
    store = Store(tmp_path)
    words = {"digits-cnn": {"width": "0.25"}}
    asked = Request(
        rules=["backprop"], tasks=["digits-cnn"], seeds=[0], device="cpu", options=words, epochs=1
    )
    (cell,) = plan(discover(), asked)
    job = Job(cell.request, tmp_path)
    assert outstanding(asking_for(cell, 2), store) == (0,)
    (plain,) = work(job)
    assert plain.probes == []
    assert outstanding(cell, store) == ()
    assert outstanding(asking_for(cell, 2), store) == (0,)
    (with_probes,) = work(Job(asking_for(cell, 2).request, tmp_path))
    assert store.get(cell.asked[0]) == with_probes
    assert with_probes.scores == plain.scores
    assert [probe.step for probe in with_probes.probes] == [0, 19]
    assert with_probes.probes[0].sites["conv1.post"]["alpha"] > 0
    for enough in (0, 1, 2):
        assert outstanding(asking_for(cell, enough), store) == ()
    assert outstanding(asking_for(cell, 3), store) == (0,)


def test_what_cannot_have_more_probes_is_not_run_again(tmp_path):
    store = Store(tmp_path)
    words = {"digits-cnn": {"width": "0.25"}}
    asked = Request(
        rules=["backprop"], tasks=["digits-cnn"], seeds=[0], device="cpu", options=words, epochs=1
    )
    (cell,) = plan(discover(), asked)
    job = Job(cell.request, tmp_path)
    (record,) = work(job)
    every = [Probe(step=step, epoch=step / 19) for step in range(20)]
    store.put(msgspec.structs.replace(record, probes=every))
    assert outstanding(asking_for(cell, 500), store) == ()  # probed at every step there is
    store.put(msgspec.structs.replace(record, status="diverged"))
    assert outstanding(asking_for(cell, 2), store) == ()


# Rules without a teaching signal that passes a site: hidden layers do not learn, or by updates of their own. And one that
# differentiates along a direction of the parameters, for which offsets cannot be among them.
WITHOUT_SIGNALS = {
    "frozen", "dendritic-microcircuit", "greedy-layerwise", "softhebb", "oja", "sanger", "forward-gradient-weights",
}  # fmt: skip


def seen_on(kind):
    """Network, task, parameters and a batch: a tiny network, or that of a task, whose sites lie within modules (``conv1.post``)."""
    if kind in tiny_nets():
        tiny = tiny_nets()[kind]
        return tiny.net, tiny.task, tiny.params(), Batch(*tiny.batch(seed=0))
    task = discover().make_task(kind, {})
    train = task.data(None).train
    net = Net(task.network(), train.x[:2])
    return net, task, net.init_params(), Batch(train.x[:12], train.y[:12])


@pytest.mark.parametrize("kind", [*tiny_nets(), "digits-cnn", "digits-rnn"])
def test_the_signals_of_every_rule_are_seen(kind):
    net, task, params, batch = seen_on(kind)
    gen, unseen = torch.Generator().manual_seed(0), {}
    for name, found in discover().rules.items():
        rule = discover().make_rule(name, {})
        if found.distribution != "rulezoo" or name in WITHOUT_SIGNALS or rule.skip(net, task):
            continue
        state = rule.init(net, params, batch, gen)
        step = observed_step(net, task.loss, rule, params, state, batch, gen, 0)
        if step.signals().keys() != set(net.keys("post")):
            unseen[name] = step.reason
    assert unseen == {}
