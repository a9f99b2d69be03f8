"""The stored evaluations of a folder of results: one small file for each network and evaluation.

``evaluated/<evaluation>/<task>/<rule>/seed<k>-<key>.json`` holds an `Evaluated` and the digest of its content; arrays are
in a file of the same name with the suffix ``.npz``, whose SHA-256 the record names. Files appear whole or not at all, the
arrays first. Files that cannot be read are named and left out.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rulezoo.evaluations.records import Evaluated, Question
from rulezoo.results.provenance import anonymous
from rulezoo.results.reading import Unreadable
from rulezoo.results.store import Damage, Store, digest, read_intact, write_whole
from rulezoo.specs import file_name
from rulezoo.text import SENTENCE, TRACEBACK, bounded

if TYPE_CHECKING:
    import numpy as np

FOLDER = "evaluated"
_FILE = re.compile(r"seed\d+-[0-9a-f]{16}\.json")

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Reading:
    """Every stored evaluation, and the files that could not be read."""

    found: list[Evaluated]
    damaged: list[Damage]


def path(store: Store, asked: Question) -> Path:
    """Where the evaluation of a network is stored, or would be."""
    return store.root / _place(asked)


def put(store: Store, evaluated: Evaluated, arrays: Arrays | None = None) -> Path:
    """Store an evaluation in the place of an older one of the same identity; where it is.

    Paths and names of machine and user leave its messages.

    Args:
        store: the folder of results.
        evaluated: what was found, without the hash of the arrays.
        arrays: name → array.

    Raises:
        StoreError: if it cannot be written; what was stored before is whole.
    """
    where = path(store, evaluated.asked)
    kept = where.with_suffix(".npz")
    if arrays:
        content = _packed(arrays)
        write_whole(store.root, kept, content)
        evaluated = msgspec.structs.replace(evaluated, arrays=hashlib.sha256(content).hexdigest())
    texts = {"reason": (evaluated.reason, SENTENCE), "traceback": (evaluated.traceback, TRACEBACK)}
    safe: dict[str, Any] = {
        name: anonymous(bounded(text, most)) for name, (text, most) in texts.items() if text
    }
    safe["notes"] = {name: anonymous(bounded(note, SENTENCE)) for name, note in evaluated.notes.items()}
    body = msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(evaluated, **safe)))
    content = msgspec.json.encode(body | {"digest": digest(body)}, order="sorted")
    write_whole(store.root, where, msgspec.json.format(content, indent=1) + b"\n")
    if not arrays:
        with suppress(OSError):  # of an older evaluation
            kept.unlink(missing_ok=True)
    return where


def get(store: Store, asked: Question) -> Evaluated | None:
    """The stored evaluation; ``None`` where there is none, or it is damaged."""
    place = _place(asked)
    try:
        return _decode((store.root / place).read_bytes(), place)
    except (OSError, Unreadable):
        return None


def arrays_of(store: Store, evaluated: Evaluated) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a stored evaluation; empty where it has none.

    Raises:
        Unreadable: if their file is missing or is not the one that the record names.
    """
    if evaluated.arrays is None:
        return {}
    import numpy as np

    where = path(store, evaluated.asked).with_suffix(".npz")
    try:
        content = where.read_bytes()
    except OSError as error:
        raise Unreadable(f"{where.name} cannot be read: {error.strerror}; evaluate again") from error
    if hashlib.sha256(content).hexdigest() != evaluated.arrays:
        raise Unreadable(f"{where.name} is not the file that the record names; evaluate again")
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return dict(found)


def read(store: Store) -> Reading:
    """Every stored evaluation, in the order of the paths; what cannot be read is named. Other files are not ours."""
    found: list[Evaluated] = []
    damaged: list[Damage] = []
    for place in _places(store.root):
        try:
            found.append(_decode((store.root / place).read_bytes(), place))
        except FileNotFoundError:  # another process may have deleted it
            continue
        except (OSError, Unreadable) as error:
            why = error.strerror if isinstance(error, OSError) else error
            damaged.append(
                Damage(
                    place,
                    f"is no evaluation that this rulezoo reads ({why}); evaluate again to replace it, or delete it",
                )
            )
    return Reading(found, damaged)


def _packed(arrays: Arrays) -> bytes:
    """The content of an ``.npz`` file; numpy's own writer has no array of the name ``file``."""
    import numpy as np

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date: the same arrays give the same bytes
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return content.getvalue()


def _place(asked: Question) -> str:
    folder = f"{FOLDER}/{asked.evaluation}/{file_name(asked.task)}/{asked.rule}"
    return f"{folder}/seed{asked.seed}-{asked.key}.json"


def _places(root: Path) -> Iterator[str]:
    for found in sorted((root / FOLDER).glob("*/*/*/seed*.json")):
        if _FILE.fullmatch(found.name):
            yield found.relative_to(root).as_posix()


def _decode(content: bytes, place: str) -> Evaluated:
    evaluated = read_intact(content, Evaluated)
    if place != (expected := _place(evaluated.asked)):
        raise Unreadable(f"it belongs to {expected}")
    return evaluated
