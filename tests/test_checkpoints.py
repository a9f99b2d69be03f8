"""A training that is broken off, wherever that is, goes on and ends with the same numbers, bit for bit."""

import errno
import hashlib
import io
import os
import pickle
from dataclasses import replace

import msgspec
import pytest
import torch

from rulezoo.discovery.registry import discover
from rulezoo.results import groups
from rulezoo.results.records import RunSpec
from rulezoo.seeding import number
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training import runner
from rulezoo.training.checkpoints import CheckpointFiles, Checkpoints, clear
from rulezoo.training.errors import out_of_memory
from rulezoo.training.protocol import Trial
from rulezoo.training.run import RunRequest
from rulezoo_plugins.baselines.backprop import Backprop

SGD = Budget(epochs=3, batch=16, lr=0.01, optimizer="sgd", schedule="cosine")
ADAM = replace(SGD, optimizer="adam")
STEPS = 3 * 6  # of the 96 training examples
ASKED = RunSpec(
    protocol=1, rule="r", rule_version=1, rule_options={}, task="t", task_version=1, task_options={}, budget={},
    seed=0, device="cpu",
)  # fmt: skip


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


class Dies(CheckpointFiles):
    """Leaves a state after every step and epoch, and no longer lives after so many of them."""

    lives = 0

    def due(self):
        return True

    def save(self, seeds, state):
        super().save(seeds, state)
        self.lives -= 1
        if self.lives == 0:
            raise Killed


def files(folder, kind=CheckpointFiles, said=None, **made_by):
    say = pytest.fail if said is None else said.append
    return kind(folder, ASKED, {"code": "1", **made_by}, 1.0, "cpu", say)


def numbers(outcomes):
    return [(o.status, o.reason, o.scores, o.curve, o.probes, o.seeds_together) for o in outcomes]


def train(rule, seeds, checkpoints=None, budget=ADAM, task=None, probes=0, progress=None, trial=None):
    task = task or TinyTask()
    rule = rule if not isinstance(rule, str) else discover().make_rule(rule, {})
    tell = (
        (lambda done, total: None)
        if progress is None
        else (lambda done, total: progress.append((done, total)))
    )
    cpu, data = torch.device("cpu"), task.data()
    outcomes = dict(
        runner.run(
            RunRequest(
                rule, task, seeds, budget, data, cpu, tell, probes, trial, checkpoints or Checkpoints()
            )
        )
    )
    return [outcomes.pop(seed) for seed in seeds]


def broken_off(folder, lives, *args, **words):
    dying = files(folder, Dies)
    dying.lives = lives
    with pytest.raises(Killed):
        train(*args, dying, **words)


@pytest.mark.parametrize("seeds", [(3,), (0, 1, 2)], ids=["alone", "together"])
@pytest.mark.parametrize(
    ("rule", "task", "budget"),
    [
        ("nmnc", TinyTask(), ADAM),
        ("nmnc", TinyTask(kind="cnn"), SGD),
        ("e-prop", TinyTask(kind="rnn"), ADAM),
        ("weight-mirror", TinyTask(), SGD),
    ],
    ids=["nmnc-adam", "nmnc-sgd", "e-prop", "weight-mirror"],
)
def test_a_training_that_was_killed_ends_with_the_same_numbers(tmp_path, rule, task, budget, seeds):
    whole = numbers(train(rule, seeds, task=task, budget=budget, probes=2))
    assert whole[0][0] == "ok", whole[0][:2]
    for lives in (1, 6, 10):  # after the first step, before the end of an epoch, and in the middle of one
        folder = tmp_path / str(lives)
        broken_off(folder, lives, rule, seeds, task=task, budget=budget, probes=2)
        progress = []
        assert numbers(train(rule, seeds, files(folder), budget, task, 2, progress)) == whole
        assert progress[0] == (lives, STEPS)


class Plastic(Backprop):
    """Updates and a rate of its own for some parameters, and a loss at every second step."""

    def rates(self, net):
        return {"fc1.bias": 0.1}

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        updates = {"fc2.bias": -0.3 * step.grads.pop("fc2.bias")}
        return step._replace(updates=updates, loss=step.loss if t % 2 else None)


@pytest.mark.parametrize("seeds", [(3,), (0, 1, 2)], ids=["alone", "together"])
@pytest.mark.parametrize("budget", [ADAM, SGD], ids=["adam", "sgd"])
def test_updates_rates_and_steps_without_a_loss_survive_a_kill(tmp_path, budget, seeds):
    whole = numbers(train(Plastic(), seeds, budget=budget))
    assert whole[0][0] == "ok", whole[0][:2]
    for lives in (1, 10):
        folder = tmp_path / str(lives)
        broken_off(folder, lives, Plastic(), seeds, budget=budget)
        assert numbers(train(Plastic(), seeds, files(folder), budget)) == whole


TORCH = {
    "nesterov-onecycle-clip": Budget(
        epochs=3, batch=16, lr=0.05, optimizer="SGD", optimizer_options={"momentum": 0.9, "nesterov": True},
        schedule="OneCycleLR", clip_norm=0.5,
    ),
    "adamw-onecycle": replace(ADAM, optimizer="AdamW", schedule="OneCycleLR"),
    "nadam-recursion": replace(ADAM, optimizer="NAdam", schedule="CosineAnnealingLR", warmup_steps=4),
    "radam-multistep": replace(
        ADAM, optimizer="RAdam", schedule="MultiStepLR", schedule_options={"milestones": [1, 2]}, schedule_per="epoch",
    ),
    "rmsprop-exponential": replace(
        ADAM, optimizer="RMSprop", optimizer_options={"momentum": 0.9, "centered": True},
        schedule="ExponentialLR", schedule_options={"gamma": 0.9},
    ),
    "asgd-cyclic": replace(
        ADAM, optimizer="ASGD", optimizer_options={"t0": 2.0},
        schedule="CyclicLR", schedule_options={"base_lr": 0.001, "step_size_up": 4, "cycle_momentum": False},
    ),
    "adafactor-warmup": replace(ADAM, optimizer="Adafactor", schedule="cosine", warmup_epochs=1),
    "adagrad": replace(ADAM, optimizer="Adagrad", optimizer_options={"lr_decay": 0.1}),
    "adadelta": replace(ADAM, optimizer="Adadelta", lr=1.0),
    "adamax": replace(ADAM, optimizer="Adamax"),
    "rprop": replace(ADAM, optimizer="Rprop", schedule="constant"),
}  # fmt: skip


@pytest.mark.parametrize("seeds", [(3,), (0, 1, 2)], ids=["alone", "together"])
@pytest.mark.parametrize("budget", TORCH.values(), ids=TORCH)
def test_any_optimiser_and_schedule_of_torch_survives_a_kill(tmp_path, budget, seeds):
    whole = numbers(train("backprop", seeds, budget=budget))
    assert whole[0][0] == "ok", whole[0][:2]
    for lives in (6, 10):  # before the end of an epoch, and in the middle of one
        folder = tmp_path / str(lives)
        broken_off(folder, lives, "backprop", seeds, budget=budget)
        progress = []
        assert numbers(train("backprop", seeds, files(folder), budget, progress=progress)) == whole
        assert progress[0] == (lives, STEPS)


class Double(TinyTask):
    """In float64, where torch would convert what some optimisers keep in float32."""

    def data(self, root=None, *, download=False):
        return Data(*(Split(part.x.double(), part.y) for part in super().data()))

    def network(self):
        return super().network().double()


@pytest.mark.parametrize("optimizer", ["NAdam", "ASGD", "Adam", "Adafactor"])
def test_what_an_optimiser_keeps_in_another_precision_survives_a_kill(tmp_path, optimizer):
    budget = replace(ADAM, optimizer=optimizer)
    whole = numbers(train("backprop", (0, 1), budget=budget, task=Double()))
    broken_off(tmp_path, 4, "backprop", (0, 1), budget=budget, task=Double())
    assert numbers(train("backprop", (0, 1), files(tmp_path), budget, Double())) == whole


def test_it_may_be_killed_again_and_again(tmp_path):
    whole = numbers(train("nmnc", (0, 1)))
    for _ in range(6):
        broken_off(tmp_path, 3, "nmnc", (0, 1))
    progress = []
    assert numbers(train("nmnc", (0, 1), files(tmp_path), progress=progress)) == whole
    assert progress[0] == (18, STEPS)


def test_a_trial_that_was_killed_is_given_up_where_it_would_have_been(tmp_path):
    seeds = (0, 1, 2)
    after_one = sorted(outcome.curve[0].validation for outcome in train("backprop", seeds))
    assert after_one[0] < after_one[-1]
    trial = Trial(after=1, bar=after_one[-1])
    whole = numbers(train("backprop", seeds, trial=trial))
    assert "pruned" in [one[0] for one in whole]
    for lives in (4, 6, 8):  # before, at and after the end of the epoch after which that is decided
        folder = tmp_path / str(lives)
        broken_off(folder, lives, "backprop", seeds, trial=trial)
        assert numbers(train("backprop", seeds, files(folder), trial=trial)) == whole


def test_what_a_group_ended_with_is_kept_until_its_records_are_stored(tmp_path):
    kept = files(tmp_path)
    whole = numbers(train("frozen", (0, 1), kept))
    again = []
    assert numbers(train("frozen", (0, 1), files(tmp_path), progress=again)) == whole
    assert again == [(STEPS, STEPS)]
    assert kept.whole([1]) == (0, 1)
    assert kept.whole([1, 2]) == (1, 2)
    clear(tmp_path, ASKED, lambda seed: seed == 1)
    assert kept.whole([1]) == (0, 1)
    clear(tmp_path, ASKED, lambda seed: seed < 2)
    assert kept.whole([1]) == (1,)
    assert list(tmp_path.iterdir()) == []


def test_each_outcome_is_its_seed_s_whatever_their_order(tmp_path):
    first, second, third = numbers(train("frozen", (1, 5, 3), files(tmp_path)))
    assert first != second != third != first, "they can be told apart"
    progress = []
    assert numbers(train("frozen", (5, 3), files(tmp_path), progress=progress)) == [second, third]
    assert progress == [(STEPS, STEPS)], "from the state of the group"
    for seed, numbers_of_it in ((1, first), (5, second), (3, third)):
        (alone,) = train("frozen", (seed,))
        assert alone.curve[0].train_loss == pytest.approx(numbers_of_it[3][0].train_loss, rel=1e-4)


def test_a_state_that_cannot_be_used_brings_no_seeds_with_it(tmp_path):
    broken_off(tmp_path, 4, "frozen", range(6))
    other = files(tmp_path, said=[], code="2")
    (outcome,) = train("frozen", (0,), other)
    assert outcome.seeds_together == 1
    (outcome,) = train("frozen", (0,), files(tmp_path))  # by the code that left it
    assert outcome.seeds_together == 6


def spoil(folder, change):
    (path,) = folder.glob("*.pt")
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "made_by", "why"),
    [
        (lambda old: old[:-100], {}, "it is damaged"),
        (lambda old: b"", {}, "it is damaged"),
        (lambda old: old[:-300] + bytes([old[-300] ^ 1]) + old[-299:], {}, "it is damaged"),
        (lambda old: old, {"code": "2"}, "the code changed since"),
        (lambda old: old, {"code": "2", "version of torch": "9"}, "the code and the version of torch changed since"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_left_unread_and_says_why(tmp_path, change, made_by, why):
    broken_off(tmp_path, 4, "frozen", (0, 1))
    spoil(tmp_path, change)
    said, progress = [], []
    kept = files(tmp_path, said=said, **made_by)
    assert numbers(train("frozen", (0, 1), kept, progress=progress)) == numbers(train("frozen", (0, 1)))
    name = groups.name(ASKED, (0, 1))
    assert said == [f"checkpoint {name}.pt is not used: {why}; the training starts from the beginning"]
    assert progress[0] == (1, STEPS)


def forged(folder, change):
    """Rewrite a checkpoint with a digest that is right: ``change`` is given what it holds, and gives other content."""
    (path,) = folder.glob("*.pt")
    whole = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    body = change(whole)
    if not isinstance(body, bytes):
        buffer = io.BytesIO()
        torch.save(body, buffer)
        body = buffer.getvalue()
    path.write_bytes(hashlib.sha256(body).digest() + body)


def without(*names):
    def change(whole):
        inner = whole
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]
        return whole

    return change


def put(*names_and_value):
    *names, value = names_and_value

    def change(whole):
        inner = whole
        for name in names[:-1]:
            inner = inner[name]
        inner[names[-1]] = value(inner[names[-1]]) if callable(value) else value
        return whole

    return change


def nested(whole):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return pickle_of(deep)


def pickle_of(deep):
    """A pickle of nested lists; the module would fail to write one."""
    depth = 0
    while deep:
        deep, depth = deep[0], depth + 1
    return b"\x80\x02" + b"]" * (depth + 1) + b"a" * depth + b"."


class Bomb:
    def __reduce__(self):
        return os.system, ("touch bomb",)


TRAINED = ("state", "trainer", "trained", "fc1.weight")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda whole: [1, 2], "its content is not that of a checkpoint"),
        (lambda whole: {}, "its content is not that of a checkpoint"),
        (lambda whole: pickle.dumps(Bomb()), "its content is not that of a checkpoint"),
        (lambda whole: b"rubbish", "its content is not that of a checkpoint"),
        (nested, "its content is not that of a checkpoint"),
        (put("state", [1]), "its content is not that of a checkpoint"),
        (put("seeds", 3), "its content is not that of a checkpoint"),
        (without("made_by"), "its content is not that of a checkpoint"),
        (without("state", "trainer"), "its content is not that of this training: the state has not the names"),
        (without(*TRAINED), "its content is not that of this training: the state, trainer, trained has not the names"),
        (put(*TRAINED, lambda w: w.double()), "its content is not that of this training: the state, trainer, trained, "),
        (put(*TRAINED, lambda w: w[:, :1]), "its content is not that of this training: the state, trainer, trained, "),
        (put(*TRAINED, "text"), "its content is not that of this training: the state, trainer, trained, "),
        (put("state", "trainer", "t", "four"), "its content is not that of this training: the state, trainer, t is no "),
        (put("state", "curves", []), "its content is not that of this training: the state, curves has not the length"),
        (put("state", "curves", [[1], [2]]), "a run that resumed from it failed (TypeError"),
        (put("state", "probes", [[{}], [{}]]), "a run that resumed from it failed (ValidationError"),
        (put("state", "trainer", "optimizer", "state", lambda s: {k: {**v, "exp_avg": torch.ones(9, 9)} for k, v in s.items()}),
         "its content is not that of this training: the optimizer, state, 0, exp_avg is not torch.float32 of shape"),
        (put("state", "losses", torch.ones(4, 9)), "a run that resumed from it failed (RuntimeError"),
        (put("state", "losses", torch.ones(3, 2)), "a run that resumed from it failed (ValueError"),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_digest_is_right_and_whose_content_is_not_does_no_harm(
    tmp_path, monkeypatch, change, why
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "kept"
    broken_off(folder, 4, "backprop", (0, 1))
    forged(folder, change)
    said, progress = [], []
    outcomes = train("backprop", (0, 1), files(folder, said=said), progress=progress)
    assert numbers(outcomes) == numbers(train("backprop", (0, 1)))
    (sentence,) = said
    assert sentence.startswith(f"checkpoint {groups.name(ASKED, (0, 1))}.pt is not used: {why}")
    assert sentence.endswith("; the training starts from the beginning")
    assert "weights_only" not in sentence
    assert (1, STEPS) in progress
    assert not (tmp_path / "bomb").exists()


def test_a_training_that_fails_with_and_without_its_checkpoint_has_failed(tmp_path):
    class Raises(Backprop):
        def noise(self, net, state, batch, gen, t):
            if t == 8:
                raise KeyError(t)
            return {}

    broken_off(tmp_path, 4, Raises(), (0,))
    said, progress = [], []
    (outcome,) = train(Raises(), (0,), files(tmp_path, said=said), progress=progress)
    assert (outcome.status, outcome.reason) == ("error", "KeyError: 8")
    assert len(said) == 1
    assert [steps for steps, _ in progress][:2] == [4, 5]
    assert (1, STEPS) in progress


def test_a_checkpoint_of_other_seeds_or_of_another_cell_is_none(tmp_path):
    broken_off(tmp_path, 4, "frozen", (0, 1))
    assert files(tmp_path).load((0,)) is None
    other = CheckpointFiles(
        tmp_path, msgspec.structs.replace(ASKED, rule="other"), {"code": "1"}, 1.0, "cpu", pytest.fail
    )
    assert other.load((0, 1)) is None
    assert other.whole([0]) == (0,)
    (path,) = tmp_path.glob("*.pt")
    path.rename(tmp_path / f"{groups.name(ASKED, (5, 6))}.pt")
    said = []
    assert files(tmp_path, said=said).load((5, 6)) is None
    assert "it is of other seeds" in said[0]


def test_a_disk_that_is_full_is_said_and_does_not_end_the_training(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rulezoo.results.files.os.fsync", full)
    said = []
    outcomes = train("frozen", (0, 1), files(tmp_path, said=said))
    assert [o.status for o in outcomes] == ["ok", "ok"]
    assert said == ["no checkpoint could be written (No space left on device); the training goes on without"]
    assert list(tmp_path.iterdir()) == []


def test_writing_states_takes_a_fiftieth_of_the_time_at_most(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rulezoo.training.checkpoints.time.monotonic", lambda: now[0])
    kept = CheckpointFiles(tmp_path, ASKED, {}, 60.0, "cpu", pytest.fail)

    def slow(path, content):
        now[0] += 6

    monkeypatch.setattr("rulezoo.training.checkpoints.write_whole", slow)
    kept.save((0,), {"a": torch.ones(2)})
    now[0] += 299
    assert not kept.due()
    now[0] += 1
    assert kept.due()


def test_a_state_is_left_as_often_as_was_asked_for_and_never_if_so(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rulezoo.training.checkpoints.time.monotonic", lambda: now[0])
    kept = CheckpointFiles(tmp_path, ASKED, {}, 60.0, "cpu", pytest.fail)
    assert not kept.due()
    now[0] += 60
    assert kept.due()
    kept.save((0,), {"a": torch.ones(2)})
    assert not kept.due()
    never = CheckpointFiles(tmp_path / "never", ASKED, {}, 0, "cpu", pytest.fail)
    now[0] += 1e6
    assert not never.due()
    never.save((0,), {})
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("seeds", "text"), [((0,), "0"), ((0, 1, 2), "0to2"), ((5, 1, 2, 9), "1to2.5.9"), ((3, 5), "3.5")]
)
def test_the_name_of_a_group_tells_its_seeds(seeds, text):
    name = groups.name(ASKED, seeds)
    assert name == f"{groups.cell_key(ASKED)}-{text}"
    assert groups.seeds_of(name) == tuple(sorted(seeds))


def test_the_name_of_a_large_group_fits_into_a_file_system(tmp_path):
    name = groups.name(ASKED, range(0, 1000, 2))
    assert len(name) < 200
    assert groups.seeds_of(name) == ()
    assert name != groups.name(ASKED, range(0, 1002, 2))


class Greedy(Backprop):
    """Needs more memory than there is for more than two networks."""

    networks, most = 0, 2

    def init(self, net, params, batch, gen):
        type(self).networks += 1
        return super().init(net, params, batch, gen)

    def noise(self, net, state, batch, gen, t):
        if t == 3 and self.networks > self.most:
            type(self).networks = 0
            raise self.error
        if t == STEPS - 1:
            type(self).networks = 0
        return {}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no more"), "oom_host"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom_gpu"),
        (RuntimeError("[alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "oom_host"),
    ],
)
def test_a_group_that_the_memory_does_not_hold_is_halved_until_it_does(tmp_path, error, status):
    rule = type("GreedyFor", (Greedy,), {"error": error})
    progress = []
    outcomes = train(rule(), range(5), files(tmp_path), progress=progress)
    assert [(o.status, o.seeds_together) for o in outcomes] == [("ok", k) for k in (2, 2, 1, 2, 2)]
    assert progress[-1] == (5 * STEPS, 5 * STEPS)
    for outcome, seed in zip(outcomes, range(5), strict=True):
        (alone,) = train("backprop", (seed,))
        assert outcome.scores == pytest.approx(alone.scores, abs=0.05)
    kept = files(tmp_path)  # another process does not try in vain again
    assert kept.divided(range(5)) == [(0, 1, 2), (3, 4)]
    assert kept.divided((1, 2, 3)) == [(1, 2), (3,)]
    assert kept.divided((0, 1)) is None
    hopeless = type("Hopeless", (rule,), {"networks": 10})
    (alone,) = train(hopeless(), (0,))
    assert (alone.status, alone.reason) == (status, f"{type(error).__name__}: {error}")


def test_the_rest_of_a_half_comes_from_the_training_of_the_half(tmp_path):
    rule = type("GreedyFor", (Greedy,), {"error": MemoryError(), "most": 3})
    whole = numbers(train(rule(), range(6), files(tmp_path)))
    assert [one[-1] for one in whole] == [3] * 6
    progress = []  # killed between the first record of a half and its second
    assert numbers(train(rule(), (1, 2, 4, 5), files(tmp_path), progress=progress)) == whole[1:3] + whole[4:]
    assert progress == [(2 * STEPS, 4 * STEPS), (4 * STEPS, 4 * STEPS)]


def test_data_that_do_not_fit_on_the_device_are_a_lack_of_its_memory(monkeypatch):
    def full(data, task, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("rulezoo.training.runner.prepared", full)
    assert [o.status for o in train("frozen", (0, 1))] == ["oom_gpu"] * 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom_gpu"),
        (torch.AcceleratorError("CUDA error: out of memory"), "oom_gpu"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), None),
        (ValueError("CUDA out of memory"), None),
    ],
)
def test_what_libraries_say_of_a_lack_of_memory_is_understood(error, status):
    assert out_of_memory(error) == status


def test_a_group_that_failed_in_another_way_goes_on_one_by_one_when_it_was_killed(tmp_path):
    class Raises(Backprop):
        def noise(self, net, state, batch, gen, t):
            if t == 2 and gen.initial_seed() == number(1, "Raises", "noise"):
                raise KeyError(t)
            return {}

    kept = files(tmp_path)
    whole = numbers(train(Raises(), (0, 1, 2), kept))
    assert [o[0] for o in whole] == ["ok", "error", "ok"]
    assert kept.divided((1, 2)) == [(1,), (2,)]
    assert numbers(train(Raises(), (1, 2), files(tmp_path))) == whole[1:]
