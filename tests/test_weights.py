"""Kept weights: what training hands over, the files alongside records, and what is said when they cannot be used."""

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rulezoo import Budget, State, TrainedNetwork, WeightsError
from rulezoo.results import weights
from rulezoo.results.records import Record
from rulezoo.results.store import Store, StoreError
from rulezoo.testing import TinyTask
from rulezoo.training import runner
from rulezoo.training.run import RunRequest
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.feedback_weights.feedback_alignment import FeedbackAlignment

from .test_checkpoints import Dies, Killed, files
from .test_store import record as stored_record
from .test_trained import Blobs, Tied

CPU = torch.device("cpu")
BUDGET = Budget(epochs=2, batch=16, lr=0.01)


def train(rule, task, seeds=(0,), budget=None, **options):
    found = runner.run(RunRequest(rule, task, seeds, budget or task.budget, task.data(None), CPU, **options))
    return [outcome for _, outcome in found]


def network(task, outcome, seed, rule=None):
    return TrainedNetwork.from_state_dict(
        outcome.kept.weights, outcome.kept.example, rule="r", task="t", seed=seed,
        made_rule=rule or Backprop(), made_task=task,
    )  # fmt: skip


def score(task, model):
    """By hand: the share of right answers of a plain model on the test data."""
    test = task.data(None).test
    with torch.no_grad():
        return task.score(model(task.prepare(test.x, None)), test.y).mean().item()


# What training hands over ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [(4,), (4, 5, 6)], ids=["alone", "together"])
@pytest.mark.parametrize(
    "task", [Blobs(), TinyTask(kind="cnn"), TinyTask(kind="rnn")], ids=["tied", "cnn", "rnn"]
)
def test_the_plain_model_with_the_weights_has_the_score_of_the_run(task, seeds):
    for seed, outcome in zip(seeds, train(Backprop(), task, seeds, keep_weights=True), strict=True):
        assert outcome.status == "ok", outcome.reason
        assert outcome.seeds_together == len(seeds)
        trained = network(task, outcome, seed)
        assert score(task, trained.model()) == pytest.approx(outcome.scores["test"], abs=1e-6)
        begun = trained.untrained().state_dict()
        assert all(
            not torch.equal(begun[n], v) for n, v in outcome.kept.weights.items() if n in trained.params
        )
    pointers = [v.untyped_storage().data_ptr() for v in outcome.kept.weights.values()]
    assert len(set(pointers)) == len(pointers)
    assert outcome.kept.memory is None


def test_buffers_and_frozen_parameters_are_kept_and_statistics_as_they_are_after_training():
    (outcome,) = train(Backprop(), Blobs(), keep_weights=True)
    kept = outcome.kept.weights
    assert kept.keys() == Tied().state_dict().keys()
    assert kept["norm.num_batches_tracked"] == 2 * 5
    assert torch.equal(kept["first.weight"], kept["second.weight"])


def test_a_resumed_run_has_the_same_weights(tmp_path):
    def run(**options):
        task = Blobs()
        return train(Backprop(), task, (0, 1), keep_weights=True, **options)

    dying = files(tmp_path, Dies)
    dying.lives = 4
    with pytest.raises(Killed):
        run(checkpoints=dying)
    whole, resumed = run(), run(checkpoints=files(tmp_path))
    for one, other in zip(whole, resumed, strict=True):
        assert all(torch.equal(v, other.kept.weights[n]) for n, v in one.kept.weights.items())


@dataclass(frozen=True)
class Half(TinyTask):
    """Parameters in bfloat16."""

    def network(self):
        return super().network().bfloat16()

    def prepare(self, x, draw):
        return x.bfloat16()


def test_weights_in_bfloat16_are_kept_as_they_are(tmp_path):
    task = Half()
    (outcome,) = train(Backprop(), task, budget=BUDGET, keep_weights=True)
    assert {v.dtype for v in outcome.kept.weights.values()} == {torch.bfloat16}
    store = Store(tmp_path)
    store.put(
        stored_record(),
        {"weights": weights.encode(outcome.kept.weights, outcome.kept.example, stored_record())},
    )
    (record,) = store.read().records
    kept = weights.read(store, record, "weights")
    assert all(torch.equal(v, kept.tensors[n]) for n, v in outcome.kept.weights.items())
    assert score(task, network(task, outcome, 0).model()) == pytest.approx(outcome.scores["test"], abs=1e-6)


class Remembers(Backprop):
    """Predicts with its memory."""

    def init(self, net, params, batch, gen):
        return State(params={"gain": torch.ones(())}, buffers={"steps": torch.zeros((), dtype=torch.int64)})

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        return step._replace(state=State(state.params, {"steps": state.buffers["steps"] + 1}))

    def predict(self, net, params, state, x):
        return net.run(params, x) * state.params["gain"] * (state.buffers["steps"] > 0)


@pytest.mark.parametrize("seeds", [(4,), (4, 5)], ids=["alone", "together"])
def test_the_memory_is_kept_where_it_is_asked_for_or_needed_to_predict(seeds):
    task = TinyTask()
    every = train(FeedbackAlignment(), task, seeds, BUDGET, keep_memory=True)
    assert every[0].kept.weights is None
    assert all(name.startswith("buffers.feedback.") for name in every[0].kept.memory)
    assert {v.ndim for v in every[0].kept.memory.values()} == {2}
    for outcome in train(Remembers(), task, seeds, BUDGET, keep_weights=True):
        assert outcome.kept.memory["buffers.steps"] == 2 * 6
        assert outcome.kept.memory["params.gain"].shape == ()
    assert all(outcome.kept is None for outcome in train(Remembers(), task, seeds, BUDGET))


class Diverges(Backprop):
    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        return step._replace(loss=step.loss * torch.nan)


def test_nothing_is_kept_of_a_run_that_did_not_end_well():
    (outcome,) = train(Diverges(), TinyTask(), budget=BUDGET, keep_weights=True, keep_memory=True)
    assert (outcome.status, outcome.kept) == ("diverged", None)


class Forgets(nn.Linear):
    """A buffer that training changes and that is not in the state_dict."""

    def __init__(self):
        super().__init__(6, 3)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.seen += 1
        return super().forward(x)


class Extra(nn.Linear):
    """An entry of the state_dict that is no tensor."""

    def __init__(self):
        super().__init__(6, 3)

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            Forgets,
            r"buffer 'seen' changes in training and is not in the network's state_dict.*persistent=True",
        ),
        (Extra, r"'_extra_state' in the network's state_dict is neither a parameter nor a buffer"),
    ],
)
def test_weights_that_could_not_be_restored_are_refused_before_training(module, words):
    @dataclass(frozen=True)
    class Odd(Blobs):
        def network(self):
            return module()

    (outcome,) = train(Backprop(), Odd(), keep_weights=True)
    assert outcome.status == "error"
    assert re.search(words, outcome.reason), outcome.reason
    (outcome,) = train(Backprop(), Odd())
    assert outcome.status == "ok"


# The files alongside records -------------------------------------------------------------------------------------------

EXAMPLE = torch.zeros(2, 1, 8, 8)
TENSORS = {"fc.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}


def put(store, record=None, tensors=None, kind="weights"):
    record = record or stored_record()
    content = weights.encode(TENSORS if tensors is None else tensors, EXAMPLE, record)
    store.put(record, {kind: content})
    return store.get(record.asked)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def names(store, folder="runs"):
    return sorted(p.name for p in (store.root / folder).rglob("*") if p.is_file())


def test_what_is_kept_can_be_read_with_safetensors_alone_and_is_named_by_the_record(store):
    record = put(store)
    path = store.kept_path(record.asked, "weights")
    assert path.name == store.path(record.asked).stem + ".safetensors"
    found = load_file(path)
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert record.weights == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record.memory is None
    kept = weights.read(store, record, "weights")
    assert kept.about["rule"] == "nmnc"
    assert kept.about["run"] == record.asked.key
    example = weights.example_of(kept.about)
    assert (example.shape, example.dtype) == (EXAMPLE.shape, torch.float32)


def test_equal_weights_have_equal_digests():
    record = stored_record()
    contents = {
        weights.encode(dict(reversed(TENSORS.items())) if i % 2 else TENSORS, EXAMPLE, record)
        for i in range(20)
    }
    assert len(contents) == 1


def test_an_empty_memory_is_kept_as_such(store):
    record = put(store, tensors={}, kind="memory")
    assert weights.read(store, record, "memory").tensors == {}


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float64, torch.bfloat16])
def test_the_inputs_that_a_network_takes_are_known_from_the_file(store, dtype):
    content = weights.encode(TENSORS, torch.zeros(2, 5).to(dtype), stored_record())
    example = weights.example_of(weights.decode(content).about)
    assert (tuple(example.shape), example.dtype) == ((2, 5), dtype)
    assert example.double().isfinite().all()


def test_a_store_reads_its_records_with_weights_alongside(store):
    record = put(store)
    reading = store.read()
    assert (reading.records, reading.damaged) == ([record], [])


def test_old_records_are_read_without_weights(store):
    record = stored_record()
    path = store.put(record)
    body = msgspec.json.decode(path.read_bytes())
    from rulezoo.results.store import digest

    for name in ("weights", "memory", "digest"):
        del body[name]  # as before there were kept weights
    path.write_bytes(msgspec.json.encode(body | {"digest": digest(body)}, order="sorted") + b"\n")
    assert store.read().damaged == []
    assert store.get(record.asked) == record


def test_a_record_that_replaces_another_leaves_no_weights_of_it(store):
    put(store)
    store.put(stored_record(scores={"test": 0.8}))
    assert len(names(store)) == 1
    assert store.get(stored_record().asked).weights is None


def test_weights_move_with_a_record_that_is_set_aside(store):
    record = put(store)
    store.set_aside(record.asked)
    assert names(store) == []
    (found,) = store.read().records  # until there is another
    assert torch.equal(weights.read(store, found, "weights").tensors["count"], TENSORS["count"])
    assert store.put_back(record.asked) == record
    assert weights.read(store, record, "weights").about["seed"] == "0"
    store.set_aside(record.asked)
    new = put(store, tensors={"fc.weight": torch.zeros(1)})
    assert list(weights.read(store, new, "weights").tensors) == ["fc.weight"]
    assert len(names(store, ".replaced")) == 2
    assert names(store, ".again") == []
    store.set_aside(new.asked)
    store.put(stored_record())
    store.set_aside(new.asked)
    store.put(stored_record())
    assert len(names(store, ".replaced")) == 1, "weights of an older record that was replaced"


def test_weights_are_there_before_the_record_and_a_full_disk_leaves_the_old_ones(store, monkeypatch):
    wrote, replace_file = [], os.replace

    def replace(new, path):
        wrote.append(path.name.partition(".")[2])
        replace_file(new, path)

    monkeypatch.setattr(os, "replace", replace)
    old = put(store)
    assert wrote == ["safetensors", "json"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk or your quota is full"):
        put(store, tensors={"other": torch.zeros(1)})
    assert len(names(store)) == 2
    assert set(weights.read(store, old, "weights").tensors) == {"count", "fc.weight"}


# What is said ---------------------------------------------------------------------------------------------------------


def timed(seed, begin, minutes):
    record = stored_record(seed=seed)
    start = datetime(2026, 1, 1, begin, tzinfo=UTC)
    times = {"started": start.isoformat(), "finished": (start + timedelta(minutes=minutes)).isoformat()}
    return msgspec.structs.replace(record, answered=msgspec.structs.replace(record.answered, **times))


def test_weights_that_were_not_kept_are_refused_with_the_option_and_the_time(store):
    one, *others = [timed(0, 1, 1), timed(1, 1, 2), timed(2, 1, 2), timed(4, 5, 1)]
    other_rule = stored_record("backprop", 7)
    with pytest.raises(WeightsError) as caught:
        weights.read(store, one, "weights", [one, *others, other_rule])
    assert str(caught.value) == (
        "the trained weights of nmnc on digits-cnn, seed 0 were not kept; run again with --keep-weights; seeds 0-2,4 took "
        "about 3 minutes"
    )
    with pytest.raises(
        WeightsError, match=r"the memory of the rule of nmnc.* --keep-memory; seed 0 took about 60 seconds"
    ):
        weights.read(store, one, "memory")


def test_a_run_without_a_network_is_told_as_such(store):
    failed = stored_record(status="diverged", reason="the loss was not finite", scores={})
    with pytest.raises(
        WeightsError, match="there are none, since the run ended with status 'diverged': the loss was not"
    ):
        weights.read(store, failed, "weights")


def test_a_file_that_is_missing_or_changed_is_refused(store):
    record = put(store)
    path = store.kept_path(record.asked, "weights")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"is not the file that the record names \(its SHA-256 differs\)"):
        weights.read(store, record, "weights")
    path.unlink()
    with pytest.raises(
        WeightsError, match=r"the file seed0-.*\.safetensors is missing; run again with --keep-weights"
    ):
        weights.read(store, record, "weights")


def test_a_digest_that_is_none_is_no_record():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(stored_record()) | {"weights": "../../etc"}, Record)
