"""The minibatches of a run: which examples, in which order, and how they come to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor

from rulezoo.inputs import Ahead, Inputs, to_device
from rulezoo.rule import Batch
from rulezoo.seeding import generator
from rulezoo.source import Draw, Source, draw
from rulezoo.task import Split


class Batches:
    """The minibatches of one split, in an order of its own for each seed.

    Args:
        split: on the device, see `rulezoo.inputs.prepared`.
        size: examples in a batch; a shorter last batch is dropped, unless there is no other.
        seeds: the seeds.
    """

    def __init__(self, split: Split[Tensor | Inputs], size: int, seeds: Sequence[int]) -> None:
        self.split = split
        self.size = min(size, len(split.x))
        self.seeds = seeds
        self.per_epoch = len(split.x) // self.size

    def epoch(self, number: int) -> Tensor:
        """Indices of one epoch's examples, ``(S, per_epoch, size)``."""
        orders = [
            torch.randperm(len(self.split.x), generator=generator(s, "order", number)) for s in self.seeds
        ]
        used = self.per_epoch * self.size
        return (
            torch.stack(orders)[:, :used]
            .view(len(self.seeds), self.per_epoch, self.size)
            .to(self.split.y.device)
        )

    def take(self, which: Tensor, epoch: int = 0) -> Batch:
        """The examples ``which`` of shape ``(S, size)``, as they are in an epoch: inputs ``(S, size, ...)``."""
        if isinstance(self.split.x, Tensor):
            return Batch(self.split.x[which], self.split.y[which])
        x = self.split.x.training(which.flatten(), self._draw(which, epoch))
        return Batch(x.view(*which.shape, *x.shape[1:]), self.split.y[which])

    def _draw(self, which: Tensor, epoch: int) -> Draw:
        """Random numbers of augmentation for the examples ``which`` of all seeds, one seed after the other."""
        each = [draw(seed, epoch, index).keys for seed, index in zip(self.seeds, which, strict=True)]
        return Draw(torch.cat(each))

    def feed(self, first: int, last: int) -> Feed:
        """The batches of the steps from ``first`` to ``last`` - 1 of a run."""
        stored = None if isinstance(self.split.x, Tensor) else self.split.x.stored
        return ReadAhead(self, stored, first, last) if isinstance(stored, Source) else Feed(self, first)

    def prepared(self, stored: Tensor, rows: Tensor, which: Tensor, epoch: int) -> Batch:
        """A batch of what a source has read: row ``rows[s, i]`` of ``stored`` is the example ``which[s, i]``."""
        assert isinstance(self.split.x, Inputs)
        x = self.split.x.prepare(stored[rows.flatten()], self._draw(which, epoch))
        return Batch(x.view(*which.shape, *x.shape[1:]), self.split.y[which])


Take = Callable[[], Batch]
"""Gives a batch, the same one at every call."""


class Feed:
    """The batches of successive steps, from what is on the device; a context manager.

    Args:
        batches: the batches.
        first: the first step.
    """

    ready = True  #: whether the next batch can be taken without waiting

    def __init__(self, batches: Batches, first: int) -> None:
        self._batches, self._step, self._epoch = batches, first, -1

    def next(self) -> Take:
        """The batch of the next step."""
        epoch, i = divmod(self._step, self._batches.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._batches.epoch(epoch)
        self._step += 1
        return partial(self._batches.take, self._order[:, i], epoch)

    def wait(self) -> None:
        """Until the next batch can be taken."""

    def close(self) -> None:
        """Stop reading."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ReadAhead(Feed):
    """The same from a source, which reads the next batches in a thread; an example that several seeds need is read once.

    Args:
        batches: the batches.
        source: of the inputs.
        first: the first step.
        last: the step after the last one.
    """

    def __init__(self, batches: Batches, source: Source, first: int, last: int) -> None:
        super().__init__(batches, first)
        self._asked: deque[tuple[int, Tensor, Tensor]] = deque()  # of batches that are being read
        self._device = batches.split.y.device
        self._ahead = Ahead(source.stream(self._indices(first, last)))

    def _indices(self, first: int, last: int) -> Iterator[Tensor]:
        """What to read for each step; it is advanced ahead of the steps."""
        order, known = torch.empty(0), -1
        for step in range(first, last):
            epoch, i = divmod(step, self._batches.per_epoch)
            if epoch != known:
                known, order = epoch, self._batches.epoch(epoch).cpu()
            index, rows = torch.unique(order[:, i], return_inverse=True)
            self._asked.append((epoch, order[:, i], rows))
            yield index

    @property
    def ready(self) -> bool:  # type: ignore[override]  # it changes here
        """Whether the next batch has been read."""
        return self._ahead.ready

    def wait(self) -> None:
        """Until the next batch has been read."""
        self._ahead.wait()

    def next(self) -> Take:
        """The batch of the next step; see `Feed.next`."""
        stored = to_device(next(self._ahead), self._device)
        epoch, which, rows = self._asked.popleft()
        which, rows = (to_device(t, self._device) for t in (which, rows))
        return partial(self._batches.prepared, stored, rows, which, epoch)

    def close(self) -> None:
        """Stop reading."""
        self._ahead.close()
