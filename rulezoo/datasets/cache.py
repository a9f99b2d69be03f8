"""Images decoded once, into files that processes map into memory and share.

A cache is a folder with ``images.npy`` and ``targets.npy``, which numpy reads, and ``header.json``, which says of what
it was made. It appears whole or not at all; a lock has one process pack while others wait.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from rulezoo.datasets.loading import Indexed, image_of, in_workers, length, sample, targets_of
from rulezoo.datasets.progress import Counter, report
from rulezoo.errors import UserError
from rulezoo.source import Source
from rulezoo.task import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE = "RULEZOO_CACHE"  #: environment variable with the folder of packed caches
VERSION = 1  #: of the format
_FOLDER = ".rulezoo-cache"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ESTIMATE: ContextVar[list[int] | None] = ContextVar("estimate", default=None)  # see `estimating`
_WAIT = 10.0  # seconds between two reports that another process is still packing


class CacheError(UserError):
    """A packed cache that cannot be written; the message says why, and what to do."""


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache says of itself.

    Attributes:
        version: of the format.
        identity: of the source: its files, with their sizes and times of modification.
        shape: of all the images, ``(examples, channels, height, width)``.
        dtype: numpy's name of their type.
        classes: names of the classes.
        digest: of all images and targets.
    """

    version: int
    identity: str
    shape: list[int]
    dtype: str
    classes: list[str]
    digest: str


def packed(
    dataset: Indexed, *, key: str | None = None, targets: Tensor | None = None, workers: int | None = None
) -> Split[Source]:
    """A map-style data set as a split in a memory-mapped cache, which is made the first time it is asked for.

    It lies in ``$RULEZOO_CACHE``; else in ``.rulezoo-cache`` next to the image folder, or in the data set's ``root``; else,
    where that cannot be written, in ``$XDG_CACHE_HOME/rulezoo`` or ``~/.cache/rulezoo``. When the source's files change, it is
    rewritten.

    Args:
        dataset: `ImageFolder`, or any data set with items ``(image, label)``; see `loaded`.
        key: a name for what the items are, such as ``"cifar10 train"``; it is needed where the data set is no `ImageFolder`.
        targets: labels of all examples; ``None`` = ``dataset.targets``, or what reading every item gives.
        workers: worker processes that decode; ``None`` = as many as torch has threads.

    Raises:
        CacheError: if it cannot be written.
        CorruptImage: if an image cannot be read.
    """
    source = _Identified(dataset, key, targets, workers)
    if found := _found(source):
        return found
    if (sizes := _ESTIMATE.get()) is not None:
        return _estimated(source, sizes)
    place = source.writable()
    with _locked(place, f"pack {source.name}"):
        found, why = _opened(place, source.identity)
        if found is None:
            if why:
                report(f"the packed cache {place} {why}: it is packed again")
            _pack(source, place)
            found, why = _opened(place, source.identity)
        if found is None:
            raise CacheError(f"the packed cache {place} {why}, although it was just written; check the disk")
    return found


@contextmanager
def estimating() -> Iterator[list[int]]:
    """A block in which no cache is written: the list receives the size in bytes of each one that is missing.

    `packed` returns examples that cannot be read in place of a missing cache.
    """
    sizes: list[int] = []
    token = _ESTIMATE.set(sizes)
    try:
        yield sizes
    finally:
        _ESTIMATE.reset(token)


def _estimated(source: _Identified, sizes: list[int]) -> Split[Source]:
    targets, first = source.targets(), image_of(source.dataset[0])
    sizes.append(len(targets) * first.numel() * first.element_size())
    return Split(_NotPacked(len(targets), first), targets)


class _NotPacked(Source):
    """Stands for a cache that is not written yet."""

    def __init__(self, number: int, first: Tensor) -> None:
        self.number, self.shape, self.dtype = number, tuple(first.shape), first.dtype

    def __len__(self) -> int:
        return self.number

    def read(self, index: Tensor) -> Tensor:
        raise CacheError(f"{len(index)} examples cannot be read: their packed cache is not written yet")

    def digest(self) -> str:
        raise CacheError("the packed cache is not written yet, so it has no digest")


class _Packed(Source):
    mapped = True

    def __init__(self, images: NDArray[Any], header: _Header) -> None:
        self.images, self.header = np.asarray(images), header
        self.shape = tuple(header.shape[1:])
        self.dtype = torch.from_numpy(np.empty(0, images.dtype)).dtype

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: Tensor) -> Tensor:
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise IndexError(f"an index is out of range; there are {len(self)} examples")
        # One thread, which leaves the interpreter to others; unlike indexing, it copies each example in one go.
        return torch.from_numpy(np.take(self.images, index.numpy(), axis=0, mode="clip"))

    def digest(self) -> str:
        return self.header.digest


class _Identified:
    """A data set, and what its cache depends on."""

    def __init__(
        self, dataset: Indexed, key: str | None, targets: Tensor | None, workers: int | None
    ) -> None:
        self.dataset, self.workers, self._targets = dataset, workers, targets
        own: Callable[[], str] | None = getattr(dataset, "key", None)
        if key is None and own is None:
            raise ValueError(
                f"packed() needs a key for a {type(dataset).__name__}: a name for what its items are, e.g. 'cifar10 train'"
            )
        self.key = key if key is not None else own() if own else ""
        self.path = getattr(dataset, "path", None)
        self.name = str(self.path or self.key)
        self.identity = _identity(dataset, self.key)
        self.root = self.path.parent if self.path else getattr(dataset, "root", None)

    def targets(self) -> Tensor:
        return targets_of(self.dataset, self.workers) if self._targets is None else self._targets

    def places(self) -> list[Path]:
        """Where its cache may be, the best place first."""
        stem = self.path.name if self.path else "".join(c if c.isalnum() else "-" for c in self.key)[:40]
        name = f"{stem}-{hashlib.blake2b(self.key.encode(), digest_size=6).hexdigest()}"
        if given := os.environ.get(CACHE):
            return [Path(given).expanduser() / name]
        own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rulezoo" / name
        return [*([Path(self.root) / _FOLDER / name] if self.root else []), own]

    def writable(self) -> Path:
        """The first place that can be written."""
        causes = []
        for place in self.places():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                probe = place.parent / f".{secrets.token_hex(8)}.tmp"
                probe.touch()
                probe.unlink()
            except OSError as error:
                causes.append(f"{place.parent} ({error.strerror})")
            else:
                return place
        raise CacheError(
            f"cannot write a packed cache of {self.name} into {' or '.join(causes)}; set ${CACHE} to a folder that can be "
            "written"
        )


def _identity(dataset: Indexed, key: str) -> str:
    own: Callable[[], str] | None = getattr(dataset, "identity", None)
    content = hashlib.blake2b(f"{key} {length(dataset)}".encode(), digest_size=16)
    if own is not None:
        content.update(own().encode())
        return content.hexdigest()
    for i in sample(length(dataset))[::16].tolist():
        content.update(image_of(dataset[i]).contiguous().numpy().tobytes())
    return content.hexdigest()


def _found(source: _Identified) -> Split[Source] | None:
    for place in source.places():
        found, _ = _opened(place, source.identity)
        if found:
            return found
    return None


def _opened(place: Path, identity: str) -> tuple[Split[Source] | None, str]:
    """A cache; or why it cannot be used, which is nothing where there is none."""
    if not place.exists():
        return None, ""
    try:
        fields = msgspec.json.decode((place / "header.json").read_bytes())
        if (version := fields.get("version")) != VERSION:
            return None, f"is of version {version}, and this rulezoo uses version {VERSION}"
        header = msgspec.convert(fields, _Header)
        if header.identity != identity:
            return None, "was made from other files"
        images = np.load(place / "images.npy", mmap_mode="r")  # which checks the length of the file
        targets = torch.from_numpy(np.load(place / "targets.npy"))
    except (OSError, ValueError, AttributeError, EOFError, msgspec.MsgspecError):
        return None, "is damaged"
    if list(images.shape) != header.shape or len(targets) != len(images):
        return None, "is damaged"
    return Split(_Packed(images, header), targets), ""


def _pack(source: _Identified, place: Path) -> None:
    """Write a cache under another name, and give it its own when it is whole."""
    for left in place.parent.glob(f".{place.name}.*.tmp"):  # by processes that were killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    new = place.with_name(f".{place.name}.{secrets.token_hex(8)}.tmp")
    size = 0
    try:
        targets = source.targets()
        first = image_of(source.dataset[0]).contiguous()
        size = len(targets) * first.numel() * first.element_size()
        if size > (free := shutil.disk_usage(place.parent).free):
            raise CacheError(_full(place, size, free))
        new.mkdir()
        header = _write(source, new, first, targets)
        (new / "header.json").write_bytes(msgspec.json.format(msgspec.json.encode(header)))
        if place.exists():
            shutil.rmtree(place)
        new.rename(place)
    except OSError as error:
        if error.errno in _FULL:
            raise CacheError(_full(place, size, shutil.disk_usage(place.parent).free)) from error
        raise CacheError(f"cannot write the packed cache {place} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _full(place: Path, size: int, free: int) -> str:
    return (
        f"the disk is full: the packed cache {place} takes {size / 1e9:.2g} GB, and {free / 1e9:.2g} GB can be written there; "
        f"free some, or set ${CACHE} to a folder on another disk"
    )


def _write(source: _Identified, folder: Path, first: Tensor, targets: Tensor) -> _Header:
    shape, pixels = (len(targets), *first.shape), first.numpy()
    content = hashlib.blake2b(f"packed {pixels.dtype} {shape}".encode(), digest_size=16)
    counter = Counter(f"packing {source.name}", len(targets))
    # Written, not mapped: on a full disk, writing to a mapped file ends the process.
    with (folder / "images.npy").open("xb") as file:
        layout = {"descr": np.lib.format.dtype_to_descr(pixels.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, layout)
        for i, item in enumerate(in_workers(source.dataset, range(len(targets)), source.workers)):
            image = image_of(item).contiguous().numpy()
            if image.shape != shape[1:] or image.dtype != pixels.dtype:
                raise UserError(
                    f"example {i} of {source.name} has shape {image.shape} and type {image.dtype}, the first one "
                    f"{shape[1:]} and {pixels.dtype}; expected the same, e.g. by a transform that resizes and crops"
                )
            file.write(image.data)
            content.update(image.data)
            counter.reached(i + 1)
        _to_disk(file)
    with (folder / "targets.npy").open("xb") as file:
        np.save(file, targets.numpy())
        _to_disk(file)
    content.update(targets.numpy().tobytes())
    return _Header(
        version=VERSION,
        identity=source.identity,
        shape=list(shape),
        dtype=str(pixels.dtype),
        classes=list(getattr(source.dataset, "classes", [])),
        digest=content.hexdigest(),
    )


def _to_disk(file: Any) -> None:  # noqa: ANN401
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _locked(place: Path, what: str) -> Iterator[None]:
    """Be the only process at work on a cache."""
    from filelock import FileLock, Timeout

    lock = FileLock(place.with_name(f".{place.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=_WAIT)
            break
        except Timeout:
            report(f"waiting for another process to {what}")
    try:
        yield
    finally:
        lock.release()


class _Remembered(msgspec.Struct, frozen=True):
    version: int
    identity: str
    content: bytes


def remembered(dataset: Indexed, what: str, make: Callable[[], bytes]) -> bytes:
    """What ``make`` returns for a data set, made once and kept in its cache's folder."""
    source = _Identified(dataset, None, None, None)

    def known() -> bytes | None:
        for place in source.places():
            try:
                found = msgspec.json.decode(
                    place.with_name(f"{place.name}.{what}.json").read_bytes(), type=_Remembered
                )
            except (OSError, msgspec.MsgspecError):
                continue
            if (found.version, found.identity) == (VERSION, source.identity):
                return found.content
        return None

    if (content := known()) is not None:
        return content
    if _ESTIMATE.get() is not None:
        return make()
    place = source.writable()
    with _locked(place, f"read {source.name}"):
        if (content := known()) is None:
            content = make()
            path = place.with_name(f"{place.name}.{what}.json")
            new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            new.write_bytes(msgspec.json.encode(_Remembered(VERSION, source.identity, content)))
            new.replace(path)
    return content
