"""The help of every command: few headings, examples that can be run, and help texts that are noun phrases."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from rulezoo.cli import COMMANDS, SECTIONS, cli
from rulezoo.cli import help as module
from rulezoo.discovery.kinds import KINDS
from rulezoo.discovery.registry import discover


def every(command=cli, path=()):
    """Each command with the words that call it."""
    yield path, command
    names = COMMANDS if command is cli else getattr(command, "commands", {})
    for name in names:
        yield from every(command.get_command(click.Context(command), name), (*path, name))


ALL = dict(every())
EXAMPLES = [(path, text) for path, command in ALL.items() for _, text in command.examples]


def help_of(path):
    return CliRunner().invoke(cli, [*path, "--help"], terminal_width=100).output


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_ends_with_examples(path):
    text = help_of(path)
    command = ALL[path]
    assert command.examples
    assert text.rstrip().endswith(command.examples[-1][1]), "not wrapped, so that it can be copied"
    for does, example in command.examples:
        assert f"# {does}\n" in text
        assert shlex.split(example)[: len(path) + 1] == ["rulezoo", *path][: len(path) + 1] or not path


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_an_example_names_commands_options_and_plugins_that_exist(path, example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaderboard" / "tuned").mkdir(parents=True)
    words = shlex.split(example)[1:]
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    parsed = command.make_context(command.name, words)  # refuses unknown options and values
    zoo = discover()
    known = {name for kind in KINDS for name in zoo.all(kind)} | {"all"}
    for option in ("rules", "tasks", "evaluations"):
        assert set(parsed.params.get(option) or ()) <= known
    name = parsed.params.get("name")
    assert name is None or name in known or name.startswith("my-")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_many_options_stand_under_headings(path):
    options = [param for param in ALL[path].params if isinstance(param, click.Option)]
    headings = re.findall(r"^(\S.*):$", help_of(path), re.MULTILINE)
    if len(options) >= module.FEW:
        assert "Options" not in headings
        assert headings[-2:] == [module.GENERAL, "Examples"]
        rest = {option.name for option in options} - {n for names in module.SECTIONS.values() for n in names}
        assert rest <= {"help", "plugin", "yes", "dry_run", "timeout", "seed"}, "an option without a heading"
    elif path:
        assert [one for one in headings if one != "Commands"] == ["Options", "Examples"]


def test_every_command_stands_under_a_heading():
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_an_option_has_a_help_that_ends_with_a_full_stop(path):
    for option in ALL[path].params:
        if isinstance(option, click.Option):
            text = re.sub(r"\s*\[(default|also).*\]$", "", option.help or "")
            assert re.fullmatch(r"[A-Zq].*[.…]", text, re.DOTALL), f"{path} {option.name}: {option.help!r}"
            assert option.is_flag or not text.startswith(
                ("Use ", "Read ", "Write ", "Show ", "End ", "Ask ", "Run ")
            ), "an option with a value is described by a noun phrase"
