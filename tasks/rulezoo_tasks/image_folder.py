"""Any folder of class folders with images, for any of torchvision's classification networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor, nn

from rulezoo import Budget, Data, DataMissing, OptionError, add_sites, datasets, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.networks import ConvNet

CONVNET = "convnet"
MEAN, SD = (
    (123.675, 116.28, 103.53),
    (58.395, 57.12, 57.375),
)  # of ImageNet's pixels, by which others standardise
_HELD_OUT = 0.1


@dataclass(frozen=True)
class FolderOfImages(Classification):
    """Images ``(batch, 3, size, size)``, cropped at random after padding by size/8 and mirrored at random in training.

    With folders ``train`` and ``val``, ``val`` is the test part and a tenth of ``train`` the validation part; otherwise a tenth
    of all images each. Held-out images are drawn with a fixed seed. Images are standardised with the mean and sd of
    ImageNet.
    """

    folder: str = hp("images", "folder of class folders, or of train and val; relative to the data folder")
    classes: int = hp(10, "number of classes; the first class folders in alphabetical order", low=2)  # type: ignore[misc]
    examples: int | None = hp(None, "training and validation images of each class; none = all", low=2)
    size: int = hp(64, "height and width of the images in pixels", low=8, high=512)
    augment: bool = hp(True, "crop and mirror training images at random")
    skip_corrupt: bool = hp(False, "leave out images that cannot be read; otherwise they are an error")

    @property
    def chance(self) -> float:  # type: ignore[override]
        """One class is guessed."""
        return 1 / self.classes

    @property
    def stored(self) -> int:
        """Height and width of the images in the cache."""
        return self.size

    def data(self, root: Path | None, *, download: bool = False) -> Data[Tensor | datasets.Source]:
        """The images in a packed cache."""
        path = self._path(root)
        if not (path / "train").is_dir():
            whole = datasets.packed(self._images(path, self.examples))
            return Data(*datasets.held_out(whole, _HELD_OUT, _HELD_OUT))
        train = self._images(path / "train", self.examples)
        test = self._images(path / "val", None)
        datasets.check_same_classes(train, test)
        rest, validation = datasets.held_out(datasets.packed(train), _HELD_OUT)
        return Data(rest, validation, datasets.packed(test))

    def _path(self, root: Path | None) -> Path:
        path = Path(self.folder).expanduser()
        if not path.is_absolute():
            if root is None:
                raise DataMissing(
                    f"the folder of images {self.folder!r} is looked for in the data folder, and none was given; set --data "
                    "(or $RULEZOO_DATA), or give an absolute path as the option folder"
                )
            path = root / path
        return path

    def _images(self, path: Path, per_class: int | None) -> datasets.ImageFolder:
        corrupt: Literal["skip", "refuse"] = "skip" if self.skip_corrupt else "refuse"
        return datasets.ImageFolder(
            path, self.stored, classes=self.classes, per_class=per_class, corrupt=corrupt
        )

    def prepare(self, x: Tensor, draw: datasets.Draw | None) -> Tensor:
        """Standardised images; augmented for training."""
        if draw is not None and self.augment:
            x = datasets.flip(datasets.crop(x, draw, padding=self.size // 8), draw)
        return datasets.standardise(x, MEAN, SD)


@dataclass(frozen=True)
class ImageFolder(FolderOfImages):
    """Your own folder of images, for a small convolutional network or one of torchvision's."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=128, lr=1e-3)

    model: str = hp(CONVNET, "'convnet', or a classification network of torchvision by name")

    def network(self) -> nn.Module:
        """Three convolutions and a dense layer, or torchvision's network with sites at every hidden layer."""
        if self.model == CONVNET:
            pool = (True, True, True)
            return ConvNet((3, self.size, self.size), (32, 64, 128), pool, hidden=256, classes=self.classes)
        from torchvision import models

        if self.model not in models.list_models(module=models):
            raise OptionError(
                f"image-folder: model must be {CONVNET!r} or a classification network of torchvision "
                f"(torchvision.models.list_models(module=torchvision.models)), got {self.model!r}"
            )
        return add_sites(models.get_model(self.model, weights=None, num_classes=self.classes))
