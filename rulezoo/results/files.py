"""Writing files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  #: the name of a temporary file


def temporary(path: Path) -> Path:
    """A temporary file for the content of another, in the same folder, under a name that nothing has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file that appears whole or not at all, in the place of an older one.

    Args:
        path: the file; its folder exists.
        content: all of it.
        durable: whether it has to outlive a loss of power; that takes the disk some milliseconds.

    Raises:
        OSError: and then neither the file nor a temporary one is there that was not there before.
    """
    # Not tempfile: its files are readable by their owner alone, and results are shared.
    new = temporary(path)
    try:
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(new, path)  # noqa: PTH105  spelt like the system call that it is
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def dangling(path: Path) -> Path | None:
    """The link on the way to a path that leads nowhere, if there is one."""
    return next((one for one in (path, *path.parents) if one.is_symlink() and not one.exists()), None)
