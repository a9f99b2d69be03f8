"""What a run reads: the same numbers from tensors, from a packed cache, and from workers; however it is read."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from rulezoo import Budget, Data, Split, datasets, hp
from rulezoo.inputs import Ahead, Inputs, prepared
from rulezoo.source import Source, draw
from rulezoo.testing import TinyTask
from rulezoo.training import runner
from rulezoo.training.batches import Batches, Feed, ReadAhead
from rulezoo.training.run import RunRequest
from rulezoo_plugins.baselines.backprop import Backprop

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
TRAIN = torch.randint(0, 256, (40, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Stored(Source):
    """A tensor that is read as a source, and what was asked of it."""

    def __init__(self, tensor):
        self.tensor, self.asked = tensor, []
        self.shape, self.dtype = tuple(tensor.shape[1:]), tensor.dtype

    def __len__(self):
        return len(self.tensor)

    def read(self, index):
        self.asked.append(index.tolist())
        return self.tensor[index]

    def digest(self):
        return "of a test"


class Pictures(torch.utils.data.Dataset):
    def __init__(self, tensor):
        self.tensor, self.targets = tensor, (tensor.flatten(1)[:, 0] % 3).tolist()

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, i):
        return self.tensor[i], self.targets[i]


@dataclass(frozen=True)
class Augmented(TinyTask):
    """The tiny convolutional network on stored bytes."""

    budget: ClassVar[Budget] = Budget(epochs=3, batch=8, lr=0.01)
    kind: str = hp("cnn", "which network")

    def prepare(self, x, draw):
        if draw is not None:
            x = datasets.flip(datasets.crop(x, draw, padding=1), draw)
        return datasets.standardise(x, [127.0], [70.0])


def parts(how):
    split = how(TRAIN)
    return Data(split, split, split)


def as_tensor(tensor):
    return Split(tensor, torch.tensor(Pictures(tensor).targets))


WAYS = {
    "source": lambda x: Split(Stored(x), as_tensor(x).y),
    "packed": lambda x: datasets.packed(Pictures(x), key="bytes"),
    "workers": lambda x: datasets.loaded(Pictures(x), workers=2),
    "no workers": lambda x: datasets.loaded(Pictures(x), workers=0),
}


def outcomes(how, seeds=SEEDS, **options):
    """Curves, scores and probes of each seed."""
    task = Augmented()
    found = runner.run(RunRequest(Backprop(), task, seeds, task.budget, parts(how), CPU, **options))
    told = dict(found)
    assert {one.status for one in told.values()} == {"ok"}, [one.reason for one in told.values()]
    return {seed: (one.curve, one.scores, one.probes) for seed, one in told.items()}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_source_trains_as_the_tensor_does_bit_for_bit(way):
    assert outcomes(WAYS[way], probes=2) == outcomes(as_tensor, probes=2)


def test_seeds_together_have_the_batches_that_they_have_alone():
    task = Augmented()
    inputs = prepared(parts(WAYS["source"]), task, CPU).train
    together = Batches(inputs, 8, SEEDS).feed(0, 7)
    alone = [Batches(inputs, 8, [seed]).feed(0, 7) for seed in SEEDS]
    for _ in range(7):
        batch = together.next()()
        for row, feed in enumerate(alone):
            x, y = feed.next()()
            assert torch.equal(x[0], batch.x[row])
            assert torch.equal(y[0], batch.y[row])
    for feed in (together, *alone):
        feed.close()


def test_a_run_that_goes_on_has_the_batches_that_it_would_have_had():
    task = Augmented()
    for way in (as_tensor, WAYS["source"], WAYS["workers"]):
        inputs = prepared(parts(way), task, CPU).train
        with Batches(inputs, 8, SEEDS).feed(0, 12) as whole, Batches(inputs, 8, SEEDS).feed(7, 12) as rest:
            taken = [whole.next()() for _ in range(12)]
            for step in range(7, 12):
                assert torch.equal(rest.next()().x, taken[step].x)
                assert len({float(x) for x in (taken[step].x.sum(), taken[step - 1].x.sum())}) == 2


def test_augmentation_differs_between_epochs_and_seeds_and_not_between_rules():
    inputs = prepared(parts(as_tensor), Augmented(), CPU).train
    batches = Batches(inputs, 8, [0])
    which = torch.arange(8)[None]
    first = batches.take(which, 0).x
    assert torch.equal(first, batches.take(which, 0).x)
    assert not torch.equal(first, batches.take(which, 1).x)
    assert not torch.equal(first, Batches(inputs, 8, [1]).take(which, 0).x)
    assert torch.equal(first[0], inputs.x.training(which[0], draw(0, 0, which[0])))


def test_an_example_that_several_seeds_need_is_read_once():
    stored = Stored(TRAIN)
    inputs = prepared(Data(*[Split(stored, as_tensor(TRAIN).y)] * 3), Augmented(), CPU).train
    with Batches(inputs, 30, SEEDS).feed(0, 1) as feed:
        batch = feed.next()()
    assert batch.x.shape[:2] == (3, 30)
    (asked,) = stored.asked
    assert len(asked) == len(set(asked)) <= 40


def test_tensors_that_are_not_prepared_are_taken_as_they_are():
    task = TinyTask()
    before = task.data()
    inputs = prepared(before, task, CPU)
    assert all(a.x is b.x for a, b in zip(inputs, before, strict=True))
    feed = Batches(inputs.train, 8, [0]).feed(0, 5)
    assert type(feed) is Feed
    assert not isinstance(feed, ReadAhead)
    batches = Batches(inputs.train, 8, [0])
    assert torch.equal(feed.next()().x, before.train.x[batches.epoch(0)[:, 0]])


def test_evaluation_sees_no_augmentation():
    inputs = prepared(parts(WAYS["source"]), Augmented(), CPU).validation.x
    assert isinstance(inputs, Inputs)
    plain = datasets.standardise(TRAIN, [127.0], [70.0])
    assert torch.equal(inputs[torch.tensor([3, 1])], plain[[3, 1]])
    assert torch.equal(inputs[:2], plain[:2])
    assert torch.equal(inputs[[2, 2]], plain[[2, 2]])
    assert torch.equal(torch.cat(list(inputs.chunks(torch.arange(40).split(16)))), plain)


def test_reading_ahead_gives_every_item_and_hands_errors_on():
    assert list(Ahead(iter(torch.arange(5)))) == list(torch.arange(5))
    assert list(Ahead(iter(()))) == []

    def broken():
        yield torch.tensor(1)
        raise datasets.CorruptImage("of a test")

    with Ahead(broken()) as stream:
        assert int(next(stream)) == 1
        stream.wait()
        assert stream.ready
        with pytest.raises(datasets.CorruptImage, match="of a test"):
            next(stream)


def test_an_image_that_breaks_during_a_run_is_its_error():
    task = Augmented()

    class Breaking(Stored):
        def read(self, index):
            if len(self.asked) > 4:
                raise datasets.CorruptImage("cannot read the image x.JPEG")
            return super().read(index)

    split = Split(Breaking(TRAIN), as_tensor(TRAIN).y)
    ((_, outcome),) = runner.run(
        RunRequest(Backprop(), task, [0], task.budget, Data(split, split, split), CPU)
    )
    assert outcome.status == "error"
    assert "cannot read the image x.JPEG" in outcome.reason
