"""The state of a run that is under way, kept so that it can resume after whatever befalls its process.

A state is a value: tensors, numbers and strings (see `rulezoo.training.runner`). It is of use only to the very code that left it,
so it is kept with a fingerprint of all that could change the numbers; one that does not fit is left unread, and the
training starts from the beginning. So it does when a run that resumed from a state fails: it has failed if it does so again. So it does when a run that resumed from a state fails: only one that fails without, too, failed.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rulezoo.results import groups
from rulezoo.results.files import write_whole
from rulezoo.training.errors import in_words

if TYPE_CHECKING:
    from rulezoo.results.records import RunSpec

Saved = dict[str, Any]
"""A state: nested dictionaries and lists of tensors, numbers and strings."""

Parts = list[tuple[int, ...]]

_DIGEST = hashlib.sha256().digest_size
_STALL = 0.02  # share of the time that writing checkpoints may take


class Checkpoints:
    """Where a training leaves its state, and what became of groups of seeds. This one keeps nothing."""

    def load(self, seeds: Sequence[int], like: Saved | None = None) -> Saved | None:
        """The last state that just these seeds left when they were trained together, if any.

        Args:
            seeds: the seeds.
            like: the state of the training before its first step; a state that is not made like it is none.
        """
        return None

    def refuse(self, seeds: Sequence[int], error: Exception) -> bool:
        """Forget the state of these seeds, for a run that resumed from it failed.

        Returns:
            whether there was one; then the training has to start from the beginning, to see whether it fails again.
        """
        return False

    def due(self) -> bool:
        """Whether it is time to leave a state again."""
        return False

    def save(self, seeds: Sequence[int], state: Saved) -> None:
        """Keep the state of these seeds in the place of an older one."""

    def divided(self, seeds: Sequence[int]) -> Parts | None:
        """The parts that these seeds have to be trained in, if they were found not to go together."""
        return None

    def whole(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """The seeds with all those that they were trained together with, if that training left a state."""
        return tuple(seeds)

    def divide(self, seeds: Sequence[int], parts: Parts) -> None:
        """Keep that these seeds do not go together; their common state is forgotten."""


class _Unusable(Exception):
    """Why a state is not one to go on from."""


class CheckpointFiles(Checkpoints):
    """Keeps states in the files of a folder.

    What cannot be written is reported and is no reason to end a training.

    Args:
        folder: the folder; made when it is first written to.
        asked: any run of the group's cell.
        made_by: name → fingerprint of everything that the numbers depend on, in addition to the specification.
        every: seconds between two states; 0 = none is kept.
        device: where tensors are loaded to.
        log: called with a sentence about what was not loaded or not written, and why.
    """

    def __init__(
        self,
        folder: Path,
        asked: RunSpec,
        made_by: Mapping[str, str],
        every: float,
        device: str,
        log: Callable[[str], None],
    ) -> None:
        self.folder, self.asked, self.made_by = folder, asked, dict(made_by)
        self.every, self.device, self.log = every, device, log
        self._last, self._took = time.monotonic(), 0.0
        self._handed_out: set[tuple[int, ...]] = set()

    def load(self, seeds: Sequence[int], like: Saved | None = None) -> Saved | None:
        """See `Checkpoints.load`."""
        path = self._path(seeds, "pt")
        try:
            state = self._read(path, seeds)
            if state is not None and like is not None and (where := _misfit_of_training(state, like)):
                raise _Unusable(f"its content is not that of this training: {where}")
        except _Unusable as error:
            self._log_unused(path, str(error))
            return None
        if state is not None:
            self._handed_out.add(tuple(seeds))
        return state

    def refuse(self, seeds: Sequence[int], error: Exception) -> bool:
        """See `Checkpoints.refuse`."""
        if tuple(seeds) not in self._handed_out:
            return False
        self._handed_out.discard(tuple(seeds))
        path = self._path(seeds, "pt")
        self._log_unused(path, f"a run that resumed from it failed ({in_words(error)})")
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return True

    def _log_unused(self, path: Path, why: str) -> None:
        self.log(f"checkpoint {path.name} is not used: {why}; the training starts from the beginning")

    def due(self) -> bool:
        """See `Checkpoints.due`; a state that takes long to write is kept less often, see `_STALL`."""
        wait = max(self.every, self._took / _STALL)
        return self.every > 0 and time.monotonic() - self._last >= wait

    def save(self, seeds: Sequence[int], state: Saved) -> None:
        """See `Checkpoints.save`."""
        import torch

        if not self.every:
            return
        begun = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"made_by": self.made_by, "seeds": list(seeds), "state": state}, buffer)
        body = buffer.getvalue()
        self._write(self._path(seeds, "pt"), hashlib.sha256(body).digest() + body)
        self._last = time.monotonic()
        self._took = self._last - begun

    def divided(self, seeds: Sequence[int]) -> Parts | None:
        """See `Checkpoints.divided`; of a group that is larger, what concerns these seeds."""
        for whole in [tuple(seeds), *self._groups_with(seeds, "json")]:
            with suppress(OSError, ValueError, TypeError, RecursionError):
                parts = json.loads(self._path(whole, "json").read_bytes())
                inside = [tuple(seed for seed in part if seed in seeds) for part in parts]
                if sorted(sum(inside, ())) == sorted(seeds) and len(seeds) > 1 and tuple(seeds) not in inside:
                    return [part for part in inside if part]
        return None

    def divide(self, seeds: Sequence[int], parts: Parts) -> None:
        """See `Checkpoints.divide`."""
        self._write(self._path(seeds, "json"), json.dumps(parts).encode())
        with suppress(OSError):
            self._path(seeds, "pt").unlink(missing_ok=True)

    def whole(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """See `Checkpoints.whole`; a state that cannot be used is none."""
        return next((g for g in self._groups_with(seeds, "pt") if self._is_usable(g)), tuple(seeds))

    def _is_usable(self, seeds: Sequence[int]) -> bool:
        try:
            return self._read(self._path(seeds, "pt"), seeds) is not None
        except _Unusable:
            return False

    def _groups_with(self, seeds: Collection[int], kind: str) -> Iterator[tuple[int, ...]]:
        """Groups of which something was kept that hold these seeds, the smallest first."""
        paths = self.folder.glob(f"{groups.cell_key(self.asked)}-*.{kind}")
        found = sorted((groups.seeds_of(path.stem) for path in paths), key=len)
        return (group for group in found if group and set(seeds) <= set(group))

    def _path(self, seeds: Sequence[int], kind: str) -> Path:
        return self.folder / f"{groups.name(self.asked, seeds)}.{kind}"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            self.log(f"no checkpoint could be written ({error.strerror}); the training goes on without")

    def _read(self, path: Path, seeds: Sequence[int]) -> Saved | None:
        import torch

        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _Unusable(f"it cannot be read ({error.strerror})") from error
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            raise _Unusable("it is damaged")
        try:
            # What torch says of a file that it refuses is advice to load it without its safety: that is not passed on.
            kept = torch.load(io.BytesIO(content[_DIGEST:]), map_location=self.device, weights_only=True)
            made_by, whose, state = dict(kept["made_by"]), tuple(kept["seeds"]), kept["state"]
        except Exception as error:
            raise _Unusable("its content is not that of a checkpoint") from error
        names = {**self.made_by, **made_by}
        if other := [name for name in names if made_by.get(name) != self.made_by.get(name)]:
            raise _Unusable(f"the {' and the '.join(map(str, other))} changed since")
        if whose != tuple(seeds):
            raise _Unusable("it is of other seeds")
        if not isinstance(state, dict):
            raise _Unusable("its content is not that of a checkpoint")
        return state


def _misfit_of_training(found: Saved, like: Saved) -> str | None:
    """What of a training's state is not made like another; an optimiser keeps nothing of what had no gradient so far."""
    if "trainer" not in like:
        return misfit(found, like)
    trainer = like["trainer"]
    blank = {**like, "trainer": {**trainer, "optimizer": {**trainer["optimizer"], "state": {}}}}
    return misfit(found, blank) or _misfit_of_optimizer(found, trainer["optimizer"]["state"])


def _misfit_of_optimizer(found: Saved, like: Mapping[int, Any]) -> str | None:
    """Shapes and dtypes of what an optimiser keeps of each parameter; torch's kernels rely on them unchecked."""
    for number, kept in found["trainer"]["optimizer"]["state"].items():
        where = f"the optimizer, state, {number}"
        if number not in like:
            return f"{where} is of no parameter"
        if wrong := misfit(kept, like[number], where):
            return wrong
    return None


def misfit(found: object, like: object, where: str = "the state") -> str | None:
    """What of a state is not made like another one, in words; values may differ, and what is empty in the other.

    Args:
        found: the state.
        like: what it should be like: the same names, kinds, shapes and dtypes.
        where: what it is called.
    """
    import torch

    if like is None:
        return None if found is None or isinstance(found, torch.Tensor) else f"{where} is no tensor"
    if isinstance(like, torch.Tensor):
        kind = (like.shape, like.dtype, like.layout)
        same = isinstance(found, torch.Tensor) and (found.shape, found.dtype, found.layout) == kind
        return None if same else f"{where} is not {like.dtype} of shape {tuple(like.shape)}"
    if isinstance(like, dict):
        if not isinstance(found, dict) or (like and found.keys() != like.keys()):
            return f"{where} has not the names that are expected"
        return _first(misfit(found[name], inner, f"{where}, {name}") for name, inner in like.items())
    if isinstance(like, list | tuple):
        if not isinstance(found, list | tuple) or (like and len(found) != len(like)):
            return f"{where} has not the length that is expected"
        pairs = zip(found, like, strict=False)
        return _first(misfit(one, inner, f"{where}, {i}") for i, (one, inner) in enumerate(pairs))
    number = int | float
    kinds = number if isinstance(like, number) and not isinstance(like, bool) else type(like)
    return None if isinstance(found, kinds) else f"{where} is no {type(like).__name__}"


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)


def clear(folder: Path, asked: RunSpec, done: Callable[[int], bool]) -> None:
    """Delete what was kept of groups whose every seed is ``done``.

    Args:
        folder: the folder.
        asked: any run of the groups' cell.
        done: whether the run of a seed is stored.
    """
    for path in folder.glob(f"{groups.cell_key(asked)}-*"):
        seeds = groups.seeds_of(path.stem) if path.suffix in (".pt", ".json") else ()
        if seeds and all(map(done, seeds)):
            with suppress(OSError):
                path.unlink()
