"""A click group that imports a command when it is called, and the border where errors become one line."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import click

from rulezoo.cli.arguments import refuse_twice
from rulezoo.cli.help import Example, write_examples
from rulezoo.cli.output import echo
from rulezoo.errors import UserError, unknown
from rulezoo.text import clean

GIVEN = "rulezoo.files"  #: in a click context's ``meta``: the plugin files of the command line


class Command(NamedTuple):
    """A command that is not imported yet: ``"package.module:function"``, and the first line of its help."""

    target: str
    help: str

    def load(self) -> click.Command:
        """Import it."""
        module, _, name = self.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


class LazyGroup(click.Group):
    """A group of `Command`.

    Args:
        table: name → command.
        sections: heading → names of commands, in the order of the help.
        examples: at the end of the help.
        everywhere: options that every command takes, too.
        args: for `click.Group`.
        kwargs: for `click.Group`.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        table: Mapping[str, Command],
        sections: Mapping[str, Sequence[str]],
        examples: Sequence[Example] = (),
        everywhere: Sequence[click.Parameter] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table, self.sections, self.examples = table, sections, examples
        self.everywhere = everywhere
        self.ready: list[click.Command] = []

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; ``None`` if there is none of that name."""
        if cmd_name not in self.table:
            return None
        command = self.table[cmd_name].load()
        if command not in self.ready:  # a command is a value of its module, and may be asked for twice
            refuse_twice(command)
            self.ready.append(command)
        command.params += [option for option in self.everywhere if option not in command.params]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments call."""
        if args[0] not in self.table and not args[0].startswith("-"):
            raise unknown("command", args[0], self.table, "rulezoo --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the group from the table; click's own would import every command."""
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.table[name].help) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401  handed on as they are
        """Read the arguments of the group; an error becomes one line."""
        with _border(debug=False):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  as click has it
        """Run the group and its command; an error that the user can mend becomes one line."""
        with _border(debug=ctx.params["debug"]):
            return super().invoke(ctx)


class _OneLine(click.ClickException):
    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        echo(f"rulezoo: {clean(self.message)}", err=True)


@contextmanager
def _border(*, debug: bool) -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        hint = f" ({error.ctx.command_path} --help)" if error.ctx else ""
        raise _OneLine(error.format_message() + hint) from error
    except (click.ClickException, click.exceptions.Exit, click.Abort):  # not errors, or said by click itself
        raise
    except Exception as error:
        if debug or not isinstance(error, UserError):
            raise
        line = _OneLine(str(error))
        line.exit_code = error.exit_code  # type: ignore[misc]  # click declares it as the class's
        raise line from error
