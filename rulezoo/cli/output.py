"""What the command line writes, on its one way to the terminal.

Names, messages and results come from plugins and from files that others may have written. An escape sequence in them would
recolour, retitle or rewrite the reader's terminal, so nothing is printed but through here.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys

import click

from rulezoo.errors import UserError
from rulezoo.text import clean_lines

_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")  # colours and weights, and nothing else that a terminal obeys


def echo(text: object = "", *, nl: bool = True, err: bool = False, styled: bool = False) -> None:
    """Write text; a control character in it becomes �.

    Args:
        text: one line or several.
        nl: whether to end the line.
        err: whether to write to stderr.
        styled: whether colours are kept, of text that rulezoo has coloured.

    Raises:
        UserError: if stdout cannot be written. Where nobody reads it any more, the process ends without a word.
    """
    parts = _STYLE.split(str(text)) if styled else [str(text)]
    safe = "".join(part if i % 2 else clean_lines(part) for i, part in enumerate(parts))
    try:
        click.echo(safe, nl=nl, err=err, color=styled or None)
    except OSError as error:
        _let_go()
        if error.errno == errno.EPIPE:
            sys.exit(128 + signal.SIGPIPE)
        raise UserError(
            f"the output cannot be written ({error.strerror}): free some space, or write it elsewhere"
        ) from error


def is_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def prepare() -> None:
    """Make sure that there are streams to write to, whatever this process was started with, and that they take every letter."""
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # it was closed, and the next file that is opened would be taken for it
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    sys.stdout, sys.stderr = (
        stream or open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  a descriptor
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2))
    )
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not every terminal can write a σ
            stream.reconfigure(errors="backslashreplace")


def _let_go() -> None:
    """Have what stdout still holds go nowhere: Python would try to write it at the end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
