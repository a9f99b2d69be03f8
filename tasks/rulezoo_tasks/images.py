"""Image data sets on disk: found, fetched, split and standardised. Reading the files is torchvision's part."""

from __future__ import annotations

import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rulezoo import Data, DataMissing, Split

_SPLIT_SEED = 0


@dataclass(frozen=True)
class Source:
    """A data set that torchvision reads.

    Attributes:
        dataset: the class in ``torchvision.datasets``.
        folder: where the files are, below the root.
        files: the files that must be there.
    """

    dataset: str
    folder: str
    files: tuple[str, ...]

    def read(self, root: Path | None, *, download: bool) -> tuple[Split, Split]:
        """The original training and test images, uint8 of shape ``(examples, channels, height, width)``.

        Raises:
            DataMissing: if files are missing and may not be, or cannot be, fetched, or if they cannot be read.
        """
        if root is None:
            raise DataMissing(
                f"{self.dataset} needs a data folder and none was given; {self._by_hand()}, or at any folder together "
                "with --download"
            )
        folder = root / self.folder
        missing = [name for name in self.files if not (folder / name).is_file()]
        if missing and not download:
            what = ", ".join(missing) if len(missing) < len(self.files) else "any of its files"
            raise DataMissing(f"{self.dataset}: looked in {folder} and did not find {what}; {self._remedy()}")
        try:
            return self._load(root, True, download), self._load(root, False, download)
        except Exception as error:  # bad files and networks raise a dozen kinds, from four libraries
            reason = f"({type(error).__name__}: {' '.join(str(error).split())})"
            raise DataMissing(
                f"{self.dataset} could not be downloaded to {folder} {reason}; without a network, {self._by_hand()}"
                if missing
                else f"{self.dataset} is in {folder} but cannot be read {reason}; delete that folder, then "
                f"{self._remedy()}"
            ) from error

    def _load(self, root: Path, train: bool, download: bool) -> Split:
        from torchvision import datasets

        with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # stdout belongs to tables
            warnings.simplefilter("ignore")  # e.g. NumPy's, on the old pickles of CIFAR-10
            found = getattr(datasets, self.dataset)(root, train=train, download=download)
        return Split(_channels_first(found.data), torch.as_tensor(found.targets).long())

    def _remedy(self) -> str:
        return f"add --download to fetch it, or {self._by_hand()}"

    def _by_hand(self) -> str:
        files = ", ".join(self.files)
        return f"point --data (or $RULEZOO_DATA) at a folder DIR with DIR/{self.folder}/ holding {files}"


_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST = Source("MNIST", "MNIST/raw", _IDX)
FASHION_MNIST = Source("FashionMNIST", "FashionMNIST/raw", _IDX)
CIFAR10 = Source(
    "CIFAR10",
    "cifar-10-batches-py",
    (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
)


def _channels_first(pixels: Any) -> Tensor:  # noqa: ANN401  an array or a tensor, as the data set has it
    images = torch.as_tensor(pixels)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)


def split(original: Split, test: Split, *, examples: int | None) -> Data:
    """Train, validation and test, standardised with the mean and sd per channel of the training part.

    Args:
        original: uint8 training images as distributed, ``(examples, channels, height, width)``; the last tenth of
            them in a fixed shuffle becomes the validation part.
        test: uint8 test images.
        examples: how many training examples to keep; ``None`` = all. Validation and test are always whole.
    """
    held_out = len(original.y) // 10
    order = torch.randperm(len(original.y), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    train, validation = order[:-held_out][:examples], order[-held_out:]
    mean, sd = moments(original.x[train])

    def standardise(x: Tensor) -> Tensor:
        return x.float().sub_(mean).div_(sd).contiguous()

    return Data(
        train=Split(standardise(original.x[train]), original.y[train]),
        validation=Split(standardise(original.x[validation]), original.y[validation]),
        test=Split(standardise(test.x), test.y),
    )


def moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd of each channel of uint8 ``pixels``, ``(examples, channels, height, width)``, as ``(channels, 1, 1)``.

    They are computed from counts of the 256 levels: exact, whatever the number of threads.
    """
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in pixels.transpose(0, 1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    level = torch.arange(256, dtype=torch.float64)
    mean = share @ level
    sd = ((share * (level - mean[:, None]).square()).sum(1)).sqrt()
    return mean.float().view(-1, 1, 1), sd.float().view(-1, 1, 1)
