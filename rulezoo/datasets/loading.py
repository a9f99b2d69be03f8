"""Data sets of torch as sources: decoded whenever they are needed, by worker processes of torch's ``DataLoader``."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rulezoo.errors import UserError
from rulezoo.source import Source
from rulezoo.task import Split

SAMPLE = 256  #: examples whose content the digest of a data set covers that is not read whole
_CHUNK = 64  # items that a worker reads at once, where all are read in order
_AHEAD = 3  # batches that each worker keeps ready


class Indexed(Protocol):
    """Anything with items by number; a map-style ``torch.utils.data.Dataset``."""

    def __getitem__(self, index: int, /) -> Any: ...  # noqa: ANN401  an example, of whatever kind


def loaded(dataset: Indexed, *, targets: Tensor | None = None, workers: int | None = None) -> Split[Source]:
    """A map-style data set of torch as a split whose examples are decoded whenever they are read.

    Args:
        dataset: `ImageFolder`, or any data set with items ``(image, label)``; images of one shape, as tensors, arrays or
            PIL images, and without random transforms: augmentation belongs to `rulezoo.Task.prepare`.
        targets: labels of all examples; ``None`` = ``dataset.targets``, or what reading every item gives.
        workers: worker processes; 0 = decode in the training process; ``None`` = as many as torch has threads.
    """
    y = targets_of(dataset, workers) if targets is None else targets
    return Split(_Loaded(dataset, y, workers), y)


def targets_of(dataset: Indexed, workers: int | None = None) -> Tensor:
    """The labels of a data set, int64 or float32 ``(examples, ...)``."""
    known = getattr(dataset, "targets", None)
    if known is None:
        known = list(in_workers(_Labels(dataset), range(length(dataset)), workers))
    y = torch.as_tensor(known)
    return y.to(torch.float32 if y.is_floating_point() else torch.int64)


def length(dataset: Indexed) -> int:
    """Number of examples."""
    size: int = len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length
    return size


def in_workers(dataset: Indexed, indices: Sequence[int], workers: int | None = None) -> Iterator[Any]:
    """The items of these numbers in their order, read by worker processes."""
    chunks = (indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK))
    for items in batches(_Items(dataset), (list(chunk) for chunk in chunks), workers):
        yield from items


def batches(dataset: Any, lists: Iterable[list[int]], workers: int | None) -> Iterator[Any]:  # noqa: ANN401
    """``dataset.__getitems__`` of each list in turn, by worker processes; their `UserError` is raised here.

    The workers start at once, and are ended when the iterator is gone.
    """
    number = max(1, torch.get_num_threads()) if workers is None else workers
    loader: DataLoader[Any] = DataLoader(
        _Caught(dataset),  # type: ignore[arg-type]  # it has what torch calls
        batch_sampler=_Each(lists),
        num_workers=number,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # or it would move torch's global one
        prefetch_factor=_AHEAD if number else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which torch sees to
        warnings.filterwarnings(
            "ignore", "This DataLoader will create"
        )  # more workers than this machine has cores
        iterator = iter(loader)
    return _raised(iterator)


def image_of(item: Any) -> Tensor:  # noqa: ANN401  an item of whatever data set
    """The stored image of an item ``(image, label)``: as it is, or channels first where it is a PIL image."""
    image = item[0] if isinstance(item, tuple | list) else item
    if isinstance(image, Tensor):
        return image
    import numpy as np

    pixels = torch.from_numpy(np.array(image))
    if hasattr(image, "getbands"):  # PIL's
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return pixels


class _Loaded(Source):
    def __init__(self, dataset: Indexed, targets: Tensor, workers: int | None) -> None:
        if len(targets) != length(dataset) or not len(targets):
            raise UserError(
                f"a data set of {length(dataset)} examples has {len(targets)} targets; expected one for each, and one "
                "example or more"
            )
        self.dataset, self.targets, self.workers = dataset, targets, workers
        first = image_of(dataset[0])
        self.shape, self.dtype = tuple(first.shape), first.dtype

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: Tensor) -> Tensor:
        return _Images(self.dataset, self.shape).__getitems__(index.tolist())

    def stream(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        lists = (index.tolist() for index in indices)
        return batches(_Images(self.dataset, self.shape), lists, self.workers)

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        content = hashlib.blake2b(f"loaded {self.dtype} {len(self)} {self.shape}".encode(), digest_size=16)
        if hasattr(self.dataset, "listing"):
            content.update(self.dataset.listing().encode())
        content.update(self.targets.numpy().tobytes())
        content.update(self.read(sample(len(self))).numpy().tobytes())
        return content.hexdigest()


def sample(examples: int) -> Tensor:
    """The indices of the examples that a digest covers, evenly spread."""
    return torch.arange(min(SAMPLE, examples)) * examples // min(SAMPLE, examples)


class _Images:
    """Batches of stored images."""

    def __init__(self, dataset: Indexed, shape: tuple[int, ...]) -> None:
        self.dataset, self.shape = dataset, shape

    def __getitems__(self, index: list[int]) -> Tensor:
        images = [image_of(self.dataset[i]) for i in index]
        for i, image in zip(index, images, strict=True):
            if tuple(image.shape) != self.shape:
                raise UserError(
                    f"example {i} of the data set has shape {tuple(image.shape)}, the first one {self.shape}; expected "
                    "images of one shape, e.g. by a transform that resizes and crops"
                )
        return torch.stack(images)


class _Items:
    def __init__(self, dataset: Indexed) -> None:
        self.dataset = dataset

    def __getitems__(self, index: list[int]) -> list[Any]:
        return [self.dataset[i] for i in index]


class _Labels:
    def __init__(self, dataset: Indexed) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        return self.dataset[index][1]


class _Caught:
    """An error that a user can mend travels from a worker as it is; torch would put a traceback into its message."""

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401
        self.dataset = dataset

    def __getitems__(self, index: list[int]) -> Any:  # noqa: ANN401
        try:
            return self.dataset.__getitems__(index)
        except UserError as error:
            return error

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401  required by torch's check, never called
        return self.__getitems__([index])


class _Each:
    """Lists of indices, as torch wants them."""

    def __init__(self, lists: Iterable[list[int]]) -> None:
        self.lists = lists

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.lists)


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401
    return batch


def _raised(iterator: Iterator[Any]) -> Iterator[Any]:
    try:
        for batch in iterator:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        del iterator  # a traceback would keep it, and with it the worker processes
