import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the documents are not beside these tests"
)


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rule_of_the_readme_runs(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(# my_rule\.py.*?)```", readme, re.DOTALL)
    (tmp_path / "my_rule.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RULEZOO_PLUGINS", raising=False)
    command = [sys.executable, "-m", "rulezoo", "--plugin", "my_rule.py", "compare", "--rules", "sign-of-error",
               "--tasks", "digits-cnn", "--seeds", "1", "--epochs", "2", "-o", "digits-cnn.width=0.25"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"(?m)^sign-of-error .* \d\d\.\d$", done.stdout), done.stdout


def test_every_command_has_the_help_that_the_overview_repeats():
    from rulezoo.cli import COMMANDS, cli

    shown = CliRunner().invoke(cli, ["--help"]).output
    for name in COMMANDS:
        first = CliRunner().invoke(cli, [name, "--help"]).output.split("\n\n")[1].strip().splitlines()[0]
        assert re.sub(r"\s+", " ", first)[:40] in re.sub(r"\s+", " ", shown), name


def test_every_example_of_the_page_on_executors_can_be_given():
    """Read by click, and by what reads it after click; nothing is run."""
    from rulezoo.cli.compare import compare

    page = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")
    lines = re.findall(r"^rulezoo compare (.*)$", page, re.MULTILINE)
    assert len(lines) >= 9
    for line in lines:
        compare.make_context("compare", shlex.split(line, comments=True))


def test_what_slurm_can_be_asked_for_is_told_with_its_default():
    from rulezoo.executors.slurm_request import Request

    page = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    has = {name: getattr(Request(), name) for name in Request.__struct_fields__}
    assert told == {name: "the cluster's" if value is None else str(value) for name, value in has.items()}
