"""Tiny-ImageNet and ImageNet, from folders of class folders, with AlexNet and ResNet-18.

Le & Yang 2015, Tiny ImageNet visual recognition challenge, http://cs231n.stanford.edu/tiny-imagenet-200.zip; Russakovsky
et al. 2015, ImageNet large scale visual recognition challenge, https://arxiv.org/abs/1409.0575. Both are for research only;
nothing is downloaded.

A tenth of the training images is the validation part, and ``val`` the test part, since the labels of the published
test images are not public.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from rulezoo import Budget, Data, DataMissing, add_sites, datasets, hp
from rulezoo_tasks.architectures import alexnet, resnet18
from rulezoo_tasks.image_folder import MEAN, SD, FolderOfImages

_TINY = "tiny-imagenet-200"
_WIDTH = "factor on the width of every hidden layer"


@dataclass(frozen=True)
class _TinyImageNet(FolderOfImages):
    """Photographs of 64×64 pixels; ``val`` must have class folders, as ``train`` has."""

    folder: str = hp(_TINY, "folder with train and val, each of class folders; relative to the data folder")
    classes: int = hp(200, "number of classes; the first class folders in alphabetical order", low=2)  # type: ignore[misc]
    size: int = hp(64, "height and width of the images in pixels; 32 is four times faster", low=16, high=64)
    width: float = hp(1.0, _WIDTH, low=0.0625, high=4)

    def data(self, root: Path | None, *, download: bool = False) -> Data[Tensor | datasets.Source]:
        """The images in a packed cache.

        Raises:
            DataMissing: if ``val`` is as in the distribution, without class folders.
        """
        path = self._path(root)
        if (path / "val" / "val_annotations.txt").is_file() and (path / "val" / "images").is_dir():
            raise DataMissing(
                f"{path / 'val'} holds all images in one folder; move each into a folder that is called as its class in "
                "val_annotations.txt (docs/tasks.md has the script), and delete the folder images"
            )
        return super().data(root)


@dataclass(frozen=True)
class TinyImageNetAlexNet(_TinyImageNet):
    """Tiny-ImageNet with AlexNet for images of 64 px, dropout in its dense layers."""

    budget: ClassVar[Budget] = Budget(epochs=30, batch=128, lr=1e-3, schedule="cosine", evaluation_batch=256)

    dropout: float = hp(0.5, "probability that an input of a dense layer is dropped", low=0, high=0.95)

    def network(self) -> nn.Module:
        """A site behind each of the seven hidden layers."""
        return add_sites(alexnet(self.classes, self.size, self.width, self.dropout))


@dataclass(frozen=True)
class TinyImageNetResNet18(_TinyImageNet):
    """Tiny-ImageNet with ResNet-18, its first convolution 3×3 without stride, by SGD with warm-up and a cosine."""

    budget: ClassVar[Budget] = Budget(
        epochs=60,
        batch=128,
        lr=0.1,
        optimizer="SGD",
        optimizer_options={"momentum": 0.9},
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=1,
        evaluation_batch=256,
    )

    def network(self) -> nn.Module:
        """A site behind each of the 17 hidden layers of the main path."""
        return add_sites(resnet18(self.classes, self.size, self.width))


@dataclass(frozen=True)
class ImageNetResNet18(FolderOfImages):
    """ImageNet with torchvision's ResNet-18 and its recipe: SGD, a tenth of the rate every 30 of 90 epochs.

    Published: 69.76 % by backprop (torchvision's weights IMAGENET1K_V1). Deviations: images are stored at 256 px, of which
    random parts are resized; a tenth of the training images is held out; one GPU.
    """

    budget: ClassVar[Budget] = Budget(
        epochs=90,
        batch=256,
        lr=0.1,
        optimizer="SGD",
        optimizer_options={"momentum": 0.9},
        weight_decay=1e-4,
        schedule="StepLR",
        schedule_options={"step_size": 30, "gamma": 0.1},
        schedule_per="epoch",
        evaluation_batch=128,
    )

    folder: str = hp(
        "imagenet", "folder with train and val, each of class folders; relative to the data folder"
    )
    classes: int = hp(1000, "number of classes; the first class folders in alphabetical order", low=2)  # type: ignore[misc]
    size: int = hp(224, "height and width of the network's input in pixels", low=32, high=448)
    width: float = hp(1.0, _WIDTH, low=0.0625, high=4)

    @property
    def stored(self) -> int:
        """256 pixels for an input of 224."""
        return round(self.size * 256 / 224)

    def prepare(self, x: Tensor, draw: datasets.Draw | None) -> Tensor:
        """A random part, resized, and mirrored at random, in training; the middle for evaluation."""
        if draw is not None and self.augment:
            x = datasets.flip(datasets.resized_crop(x, draw, self.size), draw)
        else:
            edge = (x.shape[-1] - self.size) // 2
            x = x[..., edge : edge + self.size, edge : edge + self.size]
        return datasets.standardise(x, MEAN, SD)

    def network(self) -> nn.Module:
        """A site behind each of the 17 hidden layers of the main path."""
        return add_sites(resnet18(self.classes, self.size, self.width))
