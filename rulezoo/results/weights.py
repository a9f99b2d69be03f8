"""Kept weights: the files alongside records that hold a trained network, and a rule's memory, as safetensors.

The names are those of the plain model's ``state_dict``. A record names the SHA-256 of its files, so a file that was
changed, or that belongs to another run of the same name, is never taken for its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.errors import WeightsError
from rulezoo.results import groups
from rulezoo.text import brief

if TYPE_CHECKING:
    from torch import Tensor

    from rulezoo.results.records import Record
    from rulezoo.results.store import Store

_ABOUT = "rulezoo"  # the entry of a file's metadata that holds the rest
_WORDS = {"weights": "the trained weights", "memory": "the memory of the rule"}
_OPTION = {"weights": "--keep-weights", "memory": "--keep-memory"}


class Kept(NamedTuple):
    """The content of a file of kept tensors.

    Attributes:
        tensors: name → tensor, on the CPU.
        about: what else the file says: name → text.
    """

    tensors: dict[str, Tensor]
    about: dict[str, str]


def encode(tensors: Mapping[str, Tensor], example: Tensor, record: Record) -> bytes:
    """The content of a file.

    Args:
        tensors: on the CPU, contiguous, without shared memory.
        example: inputs of the network; their shape and type are kept.
        record: of the run.
    """
    from safetensors.torch import save

    asked = record.asked
    about = {
        "rule": asked.rule,
        "task": asked.task,
        "seed": str(asked.seed),
        "run": asked.key,
        "input_shape": ",".join(map(str, example.shape[1:])),
        "input_dtype": str(example.dtype).removeprefix("torch."),
    }
    # One entry: safetensors writes several in random order, and equal weights would have different digests.
    content: bytes = save(dict(tensors), {_ABOUT: json.dumps(about)})
    return content


def read(store: Store, record: Record, kind: str, others: Iterable[Record] = ()) -> Kept:
    """What is kept of a run.

    Args:
        store: where the record is.
        record: the record.
        kind: ``"weights"`` or ``"memory"``.
        others: further records; those of the same runs but for the seed tell how long they took.

    Raises:
        WeightsError: if nothing was kept, or the file is missing, changed or unreadable.
    """
    asked = record.asked
    what = f"{_WORDS[kind]} of {asked.rule} on {asked.task}, seed {asked.seed}"
    again = f"run again with {_OPTION[kind]}{_time(record, others)}"
    expected: str | None = getattr(record, kind)
    if expected is None:
        if record.status != "ok":
            reason = f": {brief(record.reason)}" if record.reason else ""
            raise WeightsError(
                f"{what}: there are none, since the run ended with status {record.status!r}{reason}"
            )
        raise WeightsError(f"{what} were not kept; {again}")
    path = store.kept_path(asked, kind)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"{what}: the file {path.name} is missing; {again} and --retry all") from error
    except OSError as error:
        raise WeightsError(f"{what}: {path.name} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise WeightsError(
            f"{what}: {path.name} is not the file that the record names (its SHA-256 differs); restore it from a copy, or "
            f"{again} and --retry all"
        )
    return decode(content)


def decode(content: bytes) -> Kept:
    """The tensors of a file's content, and its metadata."""
    from safetensors.torch import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return Kept(load(content), json.loads(header["__metadata__"][_ABOUT]))


def example_of(about: Mapping[str, str]) -> Tensor:
    """Two inputs of the shape and type that a file names, as `rulezoo.Net` needs them; their values mean nothing."""
    import torch

    dtype: torch.dtype = getattr(torch, about["input_dtype"])
    shape = [2, *(int(n) for n in about["input_shape"].split(",") if n)]
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _time(record: Record, others: Iterable[Record]) -> str:
    """How long the runs of these seeds took, in words: "; seeds 0-4 took about 3 minutes"."""
    cell = groups.cell_key(record.asked)
    same = {one.asked.seed: one for one in others if groups.cell_key(one.asked) == cell}
    same[record.asked.seed] = record
    seeds = groups.spans(sorted(same))
    return f"; seed{'s' * (len(same) > 1)} {seeds} took {_about(seconds(same.values()))}"


def advice(records: Sequence[Record]) -> str:
    """How to get the weights of runs that were not kept, with the time that the runs took.

    Args:
        records: of the runs, at least one.
    """
    seeds = sorted({record.asked.seed for record in records})
    took = f"seed{'s' * (len(seeds) > 1)} {groups.spans(seeds)} took {_about(seconds(records))}"
    return f"run again with --keep-weights; {took}"


def seconds(records: Iterable[Record]) -> float:
    """Wall time that these runs took; those that one process trained began at the same time."""
    ends: dict[datetime, datetime] = {}
    for record in records:
        begin = datetime.fromisoformat(record.answered.started)
        end = datetime.fromisoformat(record.answered.finished)
        ends[begin] = max(end, ends.get(begin, end))
    return sum((end - begin).total_seconds() for begin, end in ends.items())


def _about(seconds: float) -> str:
    """A time in the unit that makes it a small number."""
    for unit, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 1.5 * size or unit == "second":
            number = max(1, round(seconds / size))
            return f"about {number} {unit}{'s' * (number > 1)}"
    raise AssertionError
