"""What a training printed: a file in the store for each group of seeds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rulezoo.results import groups
from rulezoo.results.files import write_whole
from rulezoo.results.provenance import anonymous

if TYPE_CHECKING:
    from rulezoo.results.records import RunSpec
    from rulezoo.results.store import Store

FOLDER = ".logs"


def capture(store: Store, asked: Sequence[RunSpec]) -> None:
    """From here on, what this process prints goes to the end of a file in the store, native code's words included.

    Raises:
        StoreError: if the folder cannot be made.
    """
    path = store.folder(FOLDER) / f"{groups.name(asked[0], [one.seed for one in asked])}.log"
    with suppress(OSError), path.open("a", encoding="utf-8") as file:  # a training can do without a log
        file.write(f"--- {datetime.now(UTC).isoformat(timespec='seconds')}\n")
        file.flush()
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def anonymise(store: Store, asked: Sequence[RunSpec]) -> None:
    """Take paths, and the names of the machine and the user, out of what these runs printed, once they are over."""
    cells = {groups.cell_key(one) for one in asked}
    for path in (store.root / FOLDER).glob("[!.]*.log"):
        if path.name.partition("-")[0] in cells:
            with suppress(OSError):
                before = path.read_text(encoding="utf-8", errors="replace")
                if (after := anonymous(before)) != before:
                    write_whole(path, after.encode(), durable=False)


def _let_go(stream: TextIO) -> None:
    """What a stream holds is written now, and from now on line by line: who dies suddenly has had his say."""
    stream.flush()
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True)


def of(store: Store, asked: RunSpec) -> list[Path]:
    """The files that hold what a run printed, the latest last."""
    found = (store.root / FOLDER).glob(f"{groups.cell_key(asked)}-*.log")
    mine = [path for path in found if path.is_file() and asked.seed in groups.seeds_of(path.stem)]
    return sorted(mine, key=lambda path: path.stat().st_mtime)
