"""A folder of class folders with images, as a data set of stored images of one size.

It is read as torchvision's ``ImageFolder`` reads it (class folders in alphabetical order, images at any depth), with
what does not belong there left out or named.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rulezoo.errors import UserError
from rulezoo.task import DataMissing
from rulezoo.text import brief

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".webp")
)
_NAMED = 5  # names that a sentence gives


class CorruptImage(UserError, ValueError):
    """An image that cannot be read; the message names the file and the cause."""


class _File(NamedTuple):
    """An image: its path below the folder, with slashes, its class, its size in bytes, its time of modification."""

    path: str
    label: int
    size: int
    modified: int


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """The images in a folder of class folders: ``(uint8 tensor (3, size, size), label)``, in order of class and path.

    An image is converted to RGB (grey, palette and CMYK images, too), its shorter side is resized to ``size``, and its
    middle is cut out. Hidden files and files that are no images by their extension are ignored.

    Args:
        path: the folder; each folder in it is a class, in alphabetical order, with images at any depth.
        size: height and width of the stored images, in pixels.
        classes: how many classes, the first ones, or their names; ``None`` = all.
        per_class: images of each class at most, chosen by a hash of their path; ``None`` = all.
        corrupt: what to do about images that cannot be read: ``"refuse"`` raises `CorruptImage` when one is read,
            ``"skip"`` reads all of them once to find and name those, and leaves them out.

    Attributes:
        classes: names of the classes.
        files: path of each image below the folder.
        targets: label of each image.

    Raises:
        DataMissing: if the folder does not exist.
        UserError: if there are no class folders, or class folders without images, or if it cannot be listed.
    """

    def __init__(
        self,
        path: Path | str,
        size: int,
        *,
        classes: int | Sequence[str] | None = None,
        per_class: int | None = None,
        corrupt: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if corrupt not in ("refuse", "skip"):
            raise ValueError(f"corrupt must be 'refuse' or 'skip', got {corrupt!r}")
        self.path, self.size, self.corrupt = Path(path), size, corrupt
        self._asked = [
            size,
            classes if classes is None or isinstance(classes, int) else list(classes),
            per_class,
        ]
        self.classes = _chosen(self.path, _classes(self.path), classes)
        self._files = _listed(self.path, self.classes, per_class)
        if corrupt == "skip":
            self._leave_out_unreadable()

    @property
    def files(self) -> list[str]:
        """Path of each image below the folder."""
        return [file.path for file in self._files]

    @property
    def targets(self) -> list[int]:
        """Label of each image."""
        return [file.label for file in self._files]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self._files[index]
        return self._decoded(file), file.label

    def _decoded(self, file: _File) -> Tensor:
        try:
            return _pixels(self.path / file.path, self.size)
        except Exception as error:  # noqa: BLE001  bad images raise a dozen kinds
            raise CorruptImage(
                f"cannot read the image {self.path / file.path} ({_reason(error)}); repair or delete it, or leave such "
                "images out (corrupt='skip'; where a task has the option, skip_corrupt=true)"
            ) from None

    def key(self) -> str:
        """What was asked for: the name of a cache depends on it."""
        return json.dumps([str(self.path.resolve()), *self._asked, self.corrupt])

    def identity(self) -> str:
        """Hexadecimal digits of paths, sizes and times of modification of all files."""
        return _hash([*self.classes, *self._files])

    def listing(self) -> str:
        """Hexadecimal digits of what `identity` covers, without times of modification: the same for a copy."""
        return _hash(
            [*self.classes, *([file.path, file.label, file.size] for file in self._files), self.size]
        )

    def _leave_out_unreadable(self) -> None:
        from rulezoo.datasets.cache import remembered  # which packs data sets of this kind
        from rulezoo.datasets.progress import report

        found: dict[str, str] = json.loads(remembered(self, "unreadable", self._unreadable))
        for path, cause in list(found.items())[:_NAMED]:
            report(f"left out an image that cannot be read: {self.path / path} ({cause})")
        if len(found) > _NAMED:
            report(f"left out {len(found) - _NAMED:,} more images that cannot be read in {self.path}")
        self._files = [file for file in self._files if file.path not in found]
        _refuse_empty(self.path, self.classes, self._files, "images that can be read")

    def _unreadable(self) -> bytes:
        """Path → cause, of each image that cannot be read, as JSON."""
        from rulezoo.datasets.loading import in_workers
        from rulezoo.datasets.progress import Counter

        counter, found = Counter(f"reading {self.path}", len(self)), {}
        for done, cause in enumerate(in_workers(_Tested(self), range(len(self))), 1):
            if cause:
                found[self._files[done - 1].path] = cause
            counter.reached(done)
        return json.dumps(found).encode()


class _Tested:
    """For each image of a folder why it cannot be read, or nothing."""

    def __init__(self, images: ImageFolder) -> None:
        self.images = images

    def __getitem__(self, index: int) -> str:
        try:
            _pixels(self.images.path / self.images._files[index].path, self.images.size)
        except Exception as error:  # noqa: BLE001  bad images raise a dozen kinds
            return _reason(error)
        return ""


def check_same_classes(one: ImageFolder, other: ImageFolder) -> None:
    """Refuse two folders whose class folders differ: the same label would mean different things.

    Raises:
        UserError: with the names that one of them lacks.
    """
    if one.classes == other.classes:
        return
    said = [
        f"{lacking.path} lacks {_names(sorted(missing))}"
        for having, lacking in ((one, other), (other, one))
        if (missing := set(having.classes) - set(lacking.classes))
    ]
    raise UserError(
        f"the class folders of {one.path} and {other.path} differ: {'; '.join(said)}; labels are numbered by class folder, "
        "so both need the same ones"
    )


def _siblings(path: Path) -> str:
    """What else is where a folder was looked for: a set may be there under another name, such as test for val."""
    if not path.parent.is_dir():
        return ""
    found = sorted(
        entry.name for entry in _entries(path.parent) if entry.is_dir() and not entry.name.startswith(".")
    )
    return f"; {path.parent} has the folders {_names(found)}" if found else f"; {path.parent} has no folders"


def _classes(path: Path) -> list[str]:
    if not path.is_dir():
        raise DataMissing(
            f"looked for a folder of class folders in {path}, which does not exist{_siblings(path)}; check the path, and "
            "--data or $RULEZOO_DATA"
        )
    names = sorted(
        entry.name for entry in _entries(path) if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise UserError(f"{path} has no class folders; expected a folder for each class with its images")
    return names


def _chosen(path: Path, known: list[str], wanted: int | Sequence[str] | None) -> list[str]:
    if wanted is None:
        return known
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(known):
            raise UserError(
                f"classes is {wanted}, and {path} has {len(known)} class folders; set classes to {len(known)} or fewer"
            )
        if wanted < len(known):
            from rulezoo.datasets.progress import report

            report(
                f"{path} has {len(known)} class folders, of which the first {wanted} are used ({_names(known[:wanted])})"
            )
        return known[:wanted]
    if strange := sorted(set(wanted) - set(known)):
        raise UserError(f"{path} has no class folders {_names(strange)}; it has {_names(known)}")
    return sorted(wanted)


def _listed(path: Path, classes: Sequence[str], per_class: int | None) -> list[_File]:
    files: list[_File] = []
    for label, name in enumerate(classes):
        found = sorted(_images(path, name, label))
        if per_class is not None:
            chosen = sorted(found, key=lambda file: hashlib.blake2b(file.path.encode()).digest())[:per_class]
            found = sorted(chosen)
        files += found
    _refuse_empty(path, classes, files, f"images ({', '.join(sorted(EXTENSIONS))})")
    return files


def _refuse_empty(path: Path, classes: Sequence[str], files: Sequence[_File], what: str) -> None:
    full = {file.label for file in files}
    if empty := [name for label, name in enumerate(classes) if label not in full]:
        raise UserError(
            f"class folders in {path} without {what}: {_names(empty)}; delete them, or put images into them"
        )


def _images(root: Path, folder: str, label: int) -> Iterator[_File]:
    """The images in a folder and in those below it, each folder once: links may lead in circles."""
    waiting, seen = [folder], set()
    while waiting:
        inside = waiting.pop()
        status = (root / inside).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _entries(root / inside):
            below = f"{inside}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append(below)
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122  a Path for each of a million
                yield _File(below, label, *_status(entry))


def _status(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere: an image that cannot be read
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"cannot list {path} ({error.strerror}); check its permissions") from error


def _pixels(path: Path, size: int) -> Tensor:
    """A decoded image, uint8 ``(3, size, size)``."""
    import numpy as np
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which do not concern the pixels
        with Image.open(path) as image:
            rgb = _square(_rgb(image), size)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # grey with 16 bits, of which convert() would cut off all above 255
        return image.point(lambda level: level * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _square(image: Image.Image, size: int) -> Image.Image:
    from PIL import Image

    width, height = image.size
    if (width, height) != (size, size):
        short = min(width, height)
        width, height = (max(size, round(side * size / short)) for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return brief(f"{type(error).__name__}: {error}".split(" '/")[0], 120)


def _hash(value: Any) -> str:  # noqa: ANN401  whatever JSON takes
    return hashlib.blake2b(json.dumps(value).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
