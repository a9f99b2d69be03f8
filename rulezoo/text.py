"""Text to print: words of plugins made safe, and numbers as they are written everywhere."""

from __future__ import annotations

SENTENCE = 4000  #: characters of a sentence that is kept of foreign code
TRACEBACK = 40_000  #: characters of a traceback that are kept


def percent(share: float, digits: int = 1) -> str:
    """``97.4 %`` for 0.974."""
    return f"{100 * share:.{digits}f} %"


def number(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """With a fixed number of digits and a true minus; no sign before a zero."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def times(factor: float) -> str:
    """``×2.25``: a multiple of something else, as the cost of a rule is of backprop's."""
    return f"×{factor:.2f}"


def clean(text: object) -> str:
    """``text`` on one line without control characters: �, where one was.

    Summaries, reasons and messages come from plugins and may hold anything: an escape sequence would
    recolour, retitle or rewrite the reader's terminal.
    """
    return _printable(" ".join(str(text).split()))


def brief(text: object, most: int = 400) -> str:
    """Like `clean`, and cut where it is too long to be read in one line."""
    whole = clean(text)
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def bounded(text: str, most: int) -> str:
    """``text`` as something that can be stored: its middle is left out where it is too long, and no half characters."""
    if len(text) > most:
        text = (
            f"{text[: most // 2]} … [{len(text) - most} characters left out] … {text[-(most - most // 2) :]}"
        )
    return text.encode("utf-8", "backslashreplace").decode()


def clean_lines(text: str) -> str:
    """Like `clean`, for text whose lines and indentation matter, such as a traceback."""
    return "\n".join(_printable(line.expandtabs()) for line in text.split("\n"))


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in line)
