"""Data that need not fit in memory: image folders, data sets of torch, a packed cache, augmentation by example.

def data(self, root, *, download=False):
    train, test = datasets.ImageFolder(root / "train", size=64), datasets.ImageFolder(root / "val", size=64)
    datasets.check_same_classes(train, test)
    ...
    return Data(datasets.packed(train), ..., datasets.packed(test))

def prepare(self, x, draw):
    if draw is not None:
        x = datasets.flip(datasets.crop(x, draw, padding=8), draw)
    return datasets.standardise(x, MEAN, SD)
"""

from rulezoo.datasets.augmentation import crop, flip, moments, resized_crop, standardise
from rulezoo.datasets.cache import CACHE, CacheError, packed
from rulezoo.datasets.folder import CorruptImage, ImageFolder, check_same_classes
from rulezoo.datasets.loading import loaded
from rulezoo.datasets.splitting import held_out
from rulezoo.source import Draw, Source

__all__ = [
    "CACHE",
    "CacheError",
    "CorruptImage",
    "Draw",
    "ImageFolder",
    "Source",
    "check_same_classes",
    "crop",
    "flip",
    "held_out",
    "loaded",
    "moments",
    "packed",
    "resized_crop",
    "standardise",
]
