"""The data of a task as its network sees them: on the device, and prepared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Self

import torch
from torch import Tensor

from rulezoo.source import Draw, Source
from rulezoo.task import Data, Split, Task

Prepare = Callable[[Tensor, Draw | None], Tensor]

_AHEAD = 2  # batches that are read while others are computed with
_SHARE = 0.25  # of a GPU's free memory, that a part of the data may take
_CHUNK = 1 << 12  # examples that are copied to it at once


class Inputs:
    """Stored inputs and the function that prepares them. Indexing gives what is used for evaluation.

    Args:
        stored: on the device, or a source.
        prepare: `rulezoo.Task.prepare`.
        device: where to compute.
    """

    def __init__(self, stored: Tensor | Source, prepare: Prepare, device: torch.device) -> None:
        self.stored, self.prepare, self.device = stored, prepare, device

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, which: Tensor | Sequence[int] | slice) -> Tensor:
        """The examples of these indices, ``(n,)``, prepared for evaluation."""
        if isinstance(which, slice):
            which = torch.arange(len(self))[which]
        return self.prepare(self._stored(torch.as_tensor(which)), None)

    def training(self, which: Tensor, draw: Draw) -> Tensor:
        """Examples, prepared for training."""
        return self.prepare(self._stored(which), draw)

    def _stored(self, which: Tensor) -> Tensor:
        if isinstance(self.stored, Tensor):
            return self.stored[which.to(self.device)]
        return to_device(self.stored.read(which.cpu()), self.device)

    def chunks(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """What indexing gives for each of these indices, in their order; read ahead."""
        if isinstance(self.stored, Tensor):
            yield from map(self.__getitem__, indices)
            return
        with Ahead(self.stored.stream(indices)) as stream:
            for x in stream:
                yield self.prepare(to_device(x, self.device), None)


def prepared(data: Data[Tensor | Source], task: Task, device: torch.device) -> Data[Tensor | Inputs]:
    """The data on a device, as a task's network sees them: tensors, where nothing is to be done to them."""
    return Data(
        *(
            Split(_inputs(part.x, task, device), part.y.to(device))
            for part in (data.train, data.validation, data.test)
        )
    )


def _inputs(stored: Tensor | Source, task: Task, device: torch.device) -> Tensor | Inputs:
    if isinstance(stored, Tensor):
        stored = stored.to(device)
        if type(task).prepare is Task.prepare:
            return stored
    elif (
        stored.mapped
        and device.type == "cuda"
        and _size(stored) < _SHARE * torch.cuda.mem_get_info(device)[0]
    ):
        stored = torch.cat(
            [stored.read(part).to(device) for part in torch.split(torch.arange(len(stored)), _CHUNK)]
        )
    return Inputs(stored, task.prepare, device)


def _size(source: Source) -> int:
    return len(source) * torch.Size(source.shape).numel() * source.dtype.itemsize


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on the device; the copy to a GPU overlaps with what it computes."""
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


class Ahead:
    """The items of an iterator, which a thread asks for before they are needed; a context manager that ends it."""

    def __init__(self, items: Iterator[Tensor], depth: int = _AHEAD) -> None:
        self._pool = ThreadPoolExecutor(1, "rulezoo-read")
        self._items = items
        self._waiting: deque[Future[Tensor]] = deque(self._asked() for _ in range(depth))

    def _asked(self) -> Future[Tensor]:
        return self._pool.submit(_next, self._items)

    @property
    def ready(self) -> bool:
        """Whether the next item is there."""
        return self._waiting[0].done()

    def wait(self) -> None:
        """Until the next item is there."""
        self._waiting[0].exception()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        try:
            item = self._waiting.popleft().result()
        except _Over:
            self.close()
            raise StopIteration from None
        self._waiting.append(self._asked())
        return item

    def close(self) -> None:
        """End the thread; what it is reading is thrown away."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Over(Exception):
    """The iterator has no more items; a future cannot hold a StopIteration."""


def _next(items: Iterator[Tensor]) -> Tensor:
    for item in islice(items, 1):
        return item
    raise _Over
