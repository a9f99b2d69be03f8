"""What the command line writes: on one way only, and orderly where nobody reads it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rulezoo.cli
from rulezoo.cli.output import echo

COMMAND = [sys.executable, "-m", "rulezoo", "list"]
FOLDER = Path(rulezoo.cli.__file__).parent


def test_control_characters_become_signs(capsys):
    echo("a\x1b[31mb\x07\rc\nd\te")
    assert capsys.readouterr().out == "a�[31mb��c\nd       e\n"


def test_colours_of_our_own_stay_and_nothing_else(monkeypatch, capsys):
    echo("\x1b[1;32mgood\x1b[0m \x1b]0;title\x07 \x1b[2J", styled=True)
    assert capsys.readouterr().out == "\x1b[1;32mgood\x1b[0m �]0;title� �[2J\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_no_command_prints_on_another_way(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = {
        f"{f.value.id}.{f.attr}"
        for f in calls
        if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name)
    }
    assert path.name == "output.py" or not named & {"click.echo", "click.secho", "sys.stdout.write"}


def test_a_reader_who_leaves_ends_a_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(COMMAND, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        "rulezoo: the output cannot be written (No space left on device): free some space, or write it elsewhere"
    )


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the stream")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(closed):
    done = subprocess.run(
        f'"{sys.executable}" -m rulezoo list {closed}', shell=True, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
