"""Environments of neurogym as tasks: their trials by hand, the mask, what is refused, and rules that learn them."""

import importlib.util
import math
import re
import sys

import numpy as np
import pytest
import torch

import rulezoo
from rulezoo import OptionError
from rulezoo.discovery.registry import discover
from rulezoo.errors import PluginError
from rulezoo.testing import check_task
from rulezoo_tasks.neurogym_envs import IGNORED, Neurogym, parts

needs_neurogym = pytest.mark.skipif(
    importlib.util.find_spec("neurogym") is None, reason="needs neurogym: pip install 'rulezoo[neurogym]'"
)
EXACT = 1e-12
ENVS = ["PerceptualDecisionMaking-v0", "DelayMatchSample-v0", "GoNogo-v0", "ReadySetGo-v0", "yang19.dm1-v0"]
RULES = [
    "backprop", "rflo", "e-prop", "rflo-noise-correlation", "rflo-nmnc", "lagged-noise-correlation", "lagged-nmnc",
    "noise-correlation", "nmnc", "node-perturbation", "direct-feedback-alignment", "frozen",
]  # fmt: skip


def test_without_neurogym_the_error_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "neurogym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "neurogym", None)
    with pytest.raises(
        PluginError, match=re.escape("it needs rulezoo[neurogym]: pip install 'rulezoo[neurogym]'")
    ):
        discover().make_task("neurogym:SomeOther-v0", {"trials": "17"})


@needs_neurogym
def test_trials_written_out_by_hand():
    """Half a second each of stimulus, delay and decision; a fixation cue that ends with the delay."""
    data = Neurogym("GoNogo-v0", trials=8, noise=0.0).data(None)
    assert [len(part.y) for part in data] == [8, 2, 4]
    for part in data:
        for x, y in zip(part.x, part.y, strict=True):
            go = int(y[-1])
            expected = np.zeros((15, 3))
            expected[:10, 0] = 1
            expected[:5, 1 + go] = 1
            assert x.tolist() == expected.tolist()
            assert y.tolist() == [IGNORED] * 10 + [go] * 5
    assert set(data.train.y[:, -1].tolist()) == {0, 1}


@needs_neurogym
def test_trials_are_those_of_the_environment_from_one_seed_for_each_part():
    from neurogym.envs.native.delaymatchsample import DelayMatchSample

    data = Neurogym("DelayMatchSample-v0", trials=12, noise=0.0, arguments='{"sigma": 0.5}').data(None)
    for part, seed in zip(data, (20220101, 20220102, 20220103), strict=True):
        env = DelayMatchSample(sigma=0.5)
        env.seed(seed)
        for x, y in zip(part.x, part.y, strict=True):
            env.new_trial()
            start, end = env.start_ind["decision"], env.end_ind["decision"]
            assert np.array_equal(x, env.ob)
            assert y[start:end].tolist() == env.gt[start:end].tolist()
            assert (torch.cat([y[:start], y[end:]]) == IGNORED).all()


@needs_neurogym
def test_noise_is_added_to_inputs_within_a_trial_and_is_no_part_of_its_targets():
    plain, noisy = (Neurogym("yang19.dm1-v0", noise=sd, trials=400).data(None) for sd in (0.0, 0.2))
    for before, after in zip(plain, noisy, strict=True):
        assert torch.equal(before.y, after.y)
        lengths = (before.y != IGNORED).float().cumsum(1).argmax(1) + 1  # the decision comes last
        within = torch.arange(before.y.shape[1]) < lengths[:, None]
        added = (after.x - before.x)[within]
        assert added.std().item() == pytest.approx(0.2, rel=4 / math.sqrt(2 * added.numel()))
        assert abs(added.mean()) < 4 * 0.2 / added.numel() ** 0.5
        assert not after.x[~within].any()
    assert len(set(lengths.tolist())) > 1, "the test sees padding"


@needs_neurogym
@pytest.mark.parametrize(
    ("env", "period", "counted"),
    [
        ("DelayMatchCategory-v0", None, range(20, 27)),  # it has no decision: the last period
        ("DelayMatchCategory-v0", "first_delay", range(7, 20)),
        ("GoNogo-v0", "trial", range(15)),
        ("GoNogo-v0", None, range(10, 15)),
    ],
)
def test_the_period_that_counts(env, period, counted):
    y = Neurogym(env, trials=4, period=period).data(None).train.y
    first, last = counted[0], counted[-1]
    masks = (y != IGNORED).tolist()
    assert all(mask == masks[0] for mask in masks)
    steps = [t for t, counts in enumerate(masks[0]) if counts]
    assert steps == list(range(steps[0], steps[-1] + 1))
    if env == "GoNogo-v0":
        assert (steps[0], steps[-1]) == (first, last)
    else:
        from neurogym.envs.native.delaymatchcategory import DelayMatchCategory

        inner = DelayMatchCategory()
        inner.new_trial()
        name = period or "test"
        assert (steps[0], steps[-1] + 1) == (inner.start_ind[name], inner.end_ind[name])


@needs_neurogym
def test_loss_score_and_chance_by_hand():
    task = Neurogym("GoNogo-v0", trials=40, period="trial", arguments='{"timing": {"delay": 300}}')
    y = task.data(None).train.y.clone()
    y[:, 3:6] = IGNORED
    y[0, 7:] = IGNORED
    output = torch.randn(*y.shape, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses, scores = task.loss(output, y), task.score(output, y)
    assert losses.dtype == scores.dtype == torch.float64
    for i in range(len(y)):
        nats, right, n = 0.0, 0.0, 0
        for t in range(y.shape[1]):
            if y[i, t] >= 0:
                a, b = output[i, t].tolist()
                nats += math.log(math.exp(a) + math.exp(b)) - (a, b)[int(y[i, t])]
                right += (b > a) == bool(y[i, t])
                n += 1
        assert losses[i].item() == pytest.approx(nats / n, abs=EXACT)
        assert scores[i].item() == pytest.approx(right / n, abs=EXACT)

    labels = task.data(None).train.y
    zeros = [sum(int(a) == 0 for a in row) / len(row) for row in labels]
    assert task.chance == pytest.approx(sum(zeros) / len(zeros))
    assert task.chance > 0.7


@needs_neurogym
def test_a_step_that_does_not_count_has_no_gradient():
    task = Neurogym("GoNogo-v0", trials=8)
    y = task.data(None).train.y
    output = torch.randn(*y.shape, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(task.loss(output, y).sum(), output)
    assert torch.equal(grad.abs().sum(-1) > 0, y != IGNORED)


@needs_neurogym
@pytest.mark.parametrize("env", ENVS)
def test_a_task_keeps_every_promise(env):
    spec = discover().task(f"neurogym:{env}").spec
    task = Neurogym(env, trials=400)
    failed = {
        r.check: r.message for r in check_task(task, spec=spec) if r.outcome in ("failed", "not examined")
    }
    assert failed == {}


@needs_neurogym
def test_every_environment_is_served_or_refused_in_a_sentence():
    from neurogym.envs.registration import ALL_EXTENDED_ENVS

    refused = {}
    for env in ALL_EXTENDED_ENVS:
        try:
            data = Neurogym(env, trials=4).data(None)
        except OptionError as error:
            refused[env] = str(error)
        else:
            assert all((part.y != IGNORED).any(1).all() for part in data), env
            assert all(torch.isfinite(part.x).all() for part in data), env
            again = parts.__wrapped__(Neurogym(env).setting, 4, 0.1)  # made, not remembered
            assert all(
                torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(data, again, strict=True)
            ), env
    continuous = {"ReachingDelayResponse-v0", "SpatialSuppressMotion-v0"}
    rewarded = {"Bandit-v0", "DawTwoStep-v0", "EconomicDecisionMaking-v0", "Null-v0"}
    assert continuous | rewarded <= refused.keys() <= continuous | rewarded | {"AnnubesEnv-v0"}
    assert all("finite set at each step, and" in refused[env] for env in continuous)
    assert all("it is for reinforcement learning" in refused[env] for env in rewarded)


@needs_neurogym
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"env": "GoNoGo-v0"},
            "env must be an environment of neurogym, got 'GoNoGo-v0'; did you mean 'GoNogo-v0'",
        ),
        (
            {"env": "xyz"},
            "env must be an environment of neurogym, got 'xyz'; there are AnnubesEnv-v0, AntiReach-v0,",
        ),
        (
            {"env": "GoNogo-v0", "period": "delays"},
            "period must be one of GoNogo-v0: fixation, stimulus, delay, decision, or 'trial'",
        ),
        (
            {"env": "GoNogo-v0", "dt": 1000},
            "dt is 1000 ms, and the period in which GoNogo-v0 is answered lasts less",
        ),
        (
            {"env": "DelayMatchSample-v0", "dt": 5000},
            "dt is 5000 ms, and the period in which DelayMatchSample-v0 is answered",
        ),
        ({"env": "GoNogo-v0", "arguments": "{"}, "arguments must be a JSON object, got '{': "),
        ({"env": "GoNogo-v0", "arguments": "[1]"}, "arguments must be a JSON object, like"),
        (
            {"env": "GoNogo-v0", "arguments": '{"dt": 20}'},
            "arguments must not contain dt, which is an option of the task",
        ),
        ({"env": "GoNogo-v0", "arguments": '{"delay": 20}'}, "env GoNogo-v0 cannot be made with arguments="),
    ],
)
def test_what_cannot_be_used_is_refused(options, message):
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        Neurogym(**options)


@needs_neurogym
def test_the_time_step_the_cell_and_the_width():
    task = Neurogym("GoNogo-v0", dt=50, cell="gru", width=9, trials=8)
    assert task.data(None).train.x.shape == (8, 30, 3)
    network = task.network()
    assert isinstance(network, rulezoo.nets.GRU)
    assert network(torch.zeros(2, 30, 3)).shape == (2, 30, 2)
    assert network.width == 9
    assert Neurogym("GoNogo-v0", trials=8, leak=0.4).network().leak == 0.4


@needs_neurogym
def test_data_that_were_changed_are_whole_at_the_next_call():
    task = Neurogym("GoNogo-v0", trials=8)
    task.data(None).train.x.zero_()
    assert task.data(None).train.x.any()


@needs_neurogym
@pytest.mark.slow
def test_recurrent_rules_learn_it(tmp_path):
    """Two seeds in one vmap each; perfect answers are 1, and chance is a half."""
    results = rulezoo.compare(
        RULES, ["neurogym:GoNogo-v0:trials=640,width=32"], seeds=2, epochs=8, out=tmp_path, device="cpu"
    )
    records = results.records
    assert {(r.asked.rule, r.status) for r in records} == {(rule, "ok") for rule in RULES}
    assert {r.asked.task for r in records} == {"neurogym:GoNogo-v0"}
    assert len({r.answered.data for r in records}) == 1
    assert all(
        r.scores["test"] > 0.9
        for r in records
        if r.asked.rule in ("backprop", "rflo", "e-prop", "lagged-nmnc")
    )
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"neurogym+GoNogo-v0"}
