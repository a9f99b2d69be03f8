"""Examples that are read when they are needed, and random numbers that belong to an example.

A `Source` stands for the inputs of a `rulezoo.Split` that do not fit, or need not be, in memory. A `Draw` gives
`rulezoo.Task.prepare` its random numbers: they depend on the seed, the epoch and the index of the example alone, and so
neither on the rule, nor on the order in which examples are read, nor on whether a run was interrupted.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo.seeding import number

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # the increment of splitmix64, as a signed number
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


class Source(ABC):
    """Stored examples that are read by index.

    Attributes:
        shape: of one stored example.
        dtype: in which examples are stored.
        mapped: whether reading is a copy of memory or of mapped pages, so that all of it may be copied to a GPU.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    mapped: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """The examples of these indices (int64, ``(n,)``, on the CPU): ``(n, *shape)`` on the CPU.

        It is called from more than one thread.
        """

    @abstractmethod
    def digest(self) -> str:
        """Hexadecimal digits that depend on the content, and on no path or time."""

    def stream(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """What `read` gives for each of these indices, in their order.

        A source that decodes with worker processes overrides it. It is called in the main thread; the iterator is
        advanced in a thread that reads ahead.
        """
        return map(self.read, indices)

    def subset(self, index: Tensor | Sequence[int]) -> Source:
        """These examples of the source, in this order."""
        return _Subset(self, torch.as_tensor(index, dtype=torch.int64))


class _Subset(Source):
    def __init__(self, whole: Source, index: Tensor) -> None:
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(whole):
            raise IndexError(
                f"indices reach from {int(index.min())} to {int(index.max())}; the source has {len(whole)} examples"
            )
        self.whole, self.index = whole, index
        self.shape, self.dtype, self.mapped = whole.shape, whole.dtype, whole.mapped

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: Tensor) -> Tensor:
        return self.whole.read(self.index[index])

    def stream(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        return self.whole.stream(self.index[index] for index in indices)

    def digest(self) -> str:
        content = hashlib.blake2b(self.whole.digest().encode(), digest_size=16)
        content.update(self.index.numpy().data)
        return content.hexdigest()


@dataclass(frozen=True)
class Draw:
    """Random numbers for the examples of a batch; the same call gives the same numbers.

    Attributes:
        keys: a hash of seed, epoch and index for each example, int64 ``(batch,)``.
    """

    keys: Tensor

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) with 24 random bits, float32 of shape ``(batch, *shape)``.

        Args:
            purpose: what they are for; different purposes have independent numbers.
            shape: of the numbers for one example.
        """
        return _right(self._bits(purpose, shape), 40).to(torch.float32) * 2.0**-24

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to ``high`` - 1 (``high`` below 2**31), int64 of shape ``(batch, *shape)``."""
        return (_right(self._bits(purpose, shape), 33) * high) >> 31

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal numbers, float32 of shape ``(batch, *shape)``, by the transform of Box and Muller."""
        radius, angle = self.uniform(purpose, 2, *shape).unbind(1)
        return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)

    def _bits(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        salt = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big", signed=True)
        keys = _mixed(self.keys ^ salt).view(-1, *(1 for _ in shape))
        return _mixed(keys + _counted(shape, keys.device))


def draw(seed: int, epoch: int, index: Tensor) -> Draw:
    """The random numbers of augmentation of the training examples ``index``, int64 ``(batch,)``, in an epoch."""
    return Draw(_mixed(number(seed, "augment", epoch) + (index + 1) * _GOLDEN))


def _counted(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return (torch.arange(1, math.prod(shape) + 1, device=device) * _GOLDEN).view(shape)


def _mixed(z: Tensor) -> Tensor:
    """The output function of splitmix64 (Steele, Lea & Flood 2014); products of int64 wrap, as those of uint64 do."""
    z = (z ^ _right(z, 30)) * _FIRST
    z = (z ^ _right(z, 27)) * _SECOND
    return z ^ _right(z, 31)


def _right(z: Tensor, bits: int) -> Tensor:
    """Shift to the right, with zeros from the left."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
