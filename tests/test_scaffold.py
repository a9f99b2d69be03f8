"""``rulezoo new``: what is written is whole, clean, and keeps every promise."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from rulezoo import scaffold
from rulezoo.claims import Claim
from rulezoo.cli import cli
from rulezoo.discovery.plugins import FILES
from rulezoo.testing import verify

# The rules of this repository, where they concern a stranger's file.
STRICT = """
line-length = 110
src = [".", "rulezoo-*/src"]
lint.select = ["A", "ANN", "B", "C4", "D", "E", "F", "I", "NPY", "PT", "PTH", "RET", "RUF", "SIM", "UP"]
lint.ignore = ["RUF001", "RUF002", "RUF003"]
lint.pydocstyle.convention = "google"
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv(FILES, "")
    monkeypatch.chdir(tmp_path)


def run(*words):
    return CliRunner().invoke(cli, list(words))


KINDS = ("rule", "task", "evaluation", "claim")


@pytest.mark.parametrize(("kind", "name"), [(kind, f"my-{kind}") for kind in KINDS])
def test_a_file_that_is_written_keeps_every_promise(kind, name):
    done = run("new", kind, name)
    file = f"{name.replace('-', '_')}.py"

    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == f"wrote {file}"
    assert f"  rulezoo verify {file}" in done.output.splitlines()
    (subject,) = verify.subjects(file)
    assert (subject.kind, subject.name) == (kind, name)
    report = verify.verify(subject, {})
    assert report.ok, "\n".join(verify.lines(report))
    skipped = {result.check for result in report.results if result.outcome == "skipped"}
    assert skipped <= {"limits", "gpu", "signal"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_all_that_it_needs(kind, tmp_path):
    done = run("new", kind, "my-own", "--package", "--to", "there")

    root = tmp_path / "there" / "rulezoo-my-own"
    written = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert done.exit_code == 0, done.output
    assert written == {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/rulezoo_my_own/__init__.py",
        "src/rulezoo_my_own/my_own.py",
        "src/rulezoo_my_own/py.typed",
        "tests/test_my_own.py",
    }
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "rulezoo-my-own"
    assert project["entry-points"]["rulezoo"] == {"my-own": "rulezoo_my_own"}
    assert "license" not in project
    assert "${{ matrix.python }}" in (root / ".github/workflows/test.yml").read_text(encoding="utf-8")


def test_what_is_written_is_clean_by_ruff_and_mypy(tmp_path):
    pytest.importorskip("ruff")
    pytest.importorskip("mypy")
    for kind in KINDS:
        assert run("new", kind, f"a-{kind}").exit_code == 0
        assert run("new", kind, f"b-{kind}", "--package").exit_code == 0
    (tmp_path / "ruff.toml").write_text(STRICT, encoding="utf-8")
    for words in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config=ruff.toml", "."]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    files = [path for kind in KINDS for path in (f"a_{kind}.py", f"rulezoo-b-{kind}/src/rulezoo_b_{kind}")]
    strict = ["mypy", "--strict", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}", *files]
    done = subprocess.run([sys.executable, "-m", *strict], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["rule", "My Rule"],
            "'My Rule' must be lower-case words joined by hyphens, a letter first, like 'my-rule'",
        ),
        (["rule", "3-factor"], "like 'factor'"),
        (["rule", "../x"], "like 'x'"),
        (["rule", "nmnc"], "there is a rule 'nmnc' already, of rulezoo"),
        (["task", "digits-cnn"], "there is a task 'digits-cnn' already, of rulezoo"),
        (["rule", "taken"], "'taken.py' is there already"),
        (["rule", "taken", "--package"], "pyproject.toml' is there already"),
        (["claim", "alignment"], "there is a claim 'alignment' already, of rulezoo"),
        (["network", "x"], "'network' is not one of"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_line(words, message, tmp_path):
    (tmp_path / "taken.py").write_text("mine", encoding="utf-8")
    (tmp_path / "rulezoo-taken").mkdir()
    (tmp_path / "rulezoo-taken" / "pyproject.toml").write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))

    done = run("new", *words)

    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "taken.py").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["class", "import", "state", "learning-rule", "none", "x"])
@pytest.mark.parametrize("kind", KINDS)
def test_words_of_python_and_of_the_template_are_no_trap(kind, name):
    names = scaffold.named(kind, name)
    for made in (scaffold.single_file(names, Path()), scaffold.distribution(names, Path())):
        for path, text in made.files.items():
            if path.suffix == ".py":
                compile(text, str(path), "exec")
    alone = scaffold.single_file(names, Path())
    alone.write()
    (path,) = alone.files
    made = runpy.run_path(str(path), run_name="made")
    (spec,) = made[f"rulezoo_{kind}s"]()
    assert isinstance(made[spec.target.split(":")[1]], Claim if kind == "claim" else type)
