"""How the command line reads what is given to it: paths with a ``~``, and options that are given twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click


class UserPath(click.Path):
    """A path; ``~`` is the home folder, in an environment variable, too, which no shell expands."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401  click's own
        """Read a path."""
        try:
            value = Path(value).expanduser()
        except RuntimeError as error:
            self.fail(f"{str(value)!r}: {error}", param, ctx)
        return super().convert(value, param, ctx)


def refuse_twice(command: click.Command) -> None:
    """Have a command, and the commands of a group, refuse an option with one value that is given two of them."""
    make = command.make_parser

    def make_parser(ctx: click.Context) -> Any:  # noqa: ANN401  click's own
        parser = make(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:  # noqa: ANN401
            given = list(args)  # the parser takes them out of its list
            found = parse(args)
            _check(ctx, given, found[2])
            return found

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    command.make_parser = make_parser  # type: ignore[method-assign]
    for inner in getattr(command, "commands", {}).values():
        refuse_twice(inner)


def _check(ctx: click.Context, given: Sequence[str], order: Sequence[click.Parameter]) -> None:
    for param, times in Counter(order).items():
        if times < 2 or not isinstance(param, click.Option) or param.multiple or param.is_flag or param.count:
            continue
        values = list(dict.fromkeys(_values(param, given)))
        if len(values) > 1:
            raise click.BadParameter(
                f"is given {times} values, {' and '.join(map(repr, values))}; give one", ctx=ctx, param=param
            )


def _values(option: click.Option, given: Sequence[str]) -> Iterator[str]:
    """The words that were given for an option, as far as they can be seen in the arguments."""
    for place, word in enumerate(given):
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if name in option.opts:
            yield value if equals else given[place + 1]
