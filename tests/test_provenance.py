import os
import platform
import socket
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
import torch

from rulezoo.results import provenance
from rulezoo.results.provenance import without_paths
from rulezoo.results.records import Plugin

PLUGIN = Plugin(distribution="my-rules", version="1.2")


@pytest.fixture
def fresh():
    """Nothing remembered from another test."""
    provenance.checkout.cache_clear()
    yield
    provenance.checkout.cache_clear()


@pytest.fixture
def repository(tmp_path, monkeypatch, fresh):
    """A git repository that holds a package named rulezoo, and stands in for the one we run from."""
    package = tmp_path / "rulezoo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "HERE", package)
    return tmp_path


def git(folder, *words):
    return subprocess.run(
        ["git", "-C", folder, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def answered(**changes):
    start = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    values = {
        "device": "cpu",
        "rule_plugin": PLUGIN,
        "task_plugin": PLUGIN,
        "started": start,
        "finished": start + timedelta(seconds=90),
        "seeds_together": 3,
        "mode": "vmap",
    }
    return provenance.collect(**(values | changes))


def test_what_answered_is_described():
    found = answered()
    assert found.packages["torch"] == torch.__version__
    assert found.packages["python"] == platform.python_version()
    assert {"rulezoo", "numpy"} <= found.packages.keys()
    assert "cuda" not in found.packages
    assert found.rule_plugin == PLUGIN
    assert found.hardware.threads == torch.get_num_threads()
    assert found.hardware.cores >= 1
    assert found.hardware.cpu
    assert found.hardware.gpu is None
    assert (found.started, found.finished) == ("2026-01-01T10:00:00+00:00", "2026-01-01T10:01:30+00:00")


def test_it_names_neither_host_nor_user_nor_path():
    text = msgspec.json.encode(answered()).decode()
    assert socket.gethostname() not in text.replace("vmap", "")
    assert str(Path.home()) not in text
    assert "/" not in text.replace("+00:00", "")


def test_a_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    found = answered(device="cuda")
    assert found.hardware.gpu == "H200"
    assert found.packages["cuda"] == str(torch.version.cuda)


@pytest.mark.parametrize("error", [RuntimeError("Found no NVIDIA driver"), AssertionError("not compiled")])
def test_who_sees_no_gpu_names_none(monkeypatch, error):
    """Such as a login node, which records how a job on a GPU ended that cannot speak any more."""

    def name():
        raise error

    monkeypatch.setattr("torch.cuda.get_device_name", name)
    assert answered(device="cuda").hardware.gpu is None


def test_the_commit_of_a_checkout_and_whether_its_sources_changed(repository):
    commit = git(repository, "rev-parse", "HEAD")
    assert provenance.checkout() == (commit, False)
    provenance.checkout.cache_clear()
    (repository / "notes.txt").write_text("not a source")
    assert provenance.checkout() == (commit, False)
    provenance.checkout.cache_clear()
    (repository / "rulezoo" / "new.py").write_text("")
    assert provenance.checkout() == (commit, True)


def test_the_environment_of_a_git_hook_does_not_answer_for_another_repository(repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert provenance.checkout()[0] is not None


def test_a_copy_inside_of_somebody_elses_repository_has_no_commit(repository, monkeypatch):
    package = repository / "venv" / "rulezoo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "HERE", package)
    assert provenance.checkout() == (None, None)


def test_without_git_there_is_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.checkout() == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('File "/home/jane/zoo/rule.py", line 3', 'File "…/rule.py", line 3'),
        ("no /data/mnist/raw/x.gz (see https://example.org/a/b)", "no …/x.gz (see https://example.org/a/b)"),
        (r"C:\Users\Jane\rule.py failed", r"…\rule.py failed"),
        ("'/opt/a/b'", "'…/b'"),
        ("and/or 3/4 of a / b / c", "and/or 3/4 of a / b / c"),
        ("shape (2, 3)/(4, 5)", "shape (2, 3)/(4, 5)"),
    ],
)
def test_folders_are_taken_out_and_other_text_is_left(text, expected):
    assert without_paths(text) == expected


def test_known_folders_are_taken_out_even_with_blanks(monkeypatch, tmp_path):
    home = tmp_path / "Jane Doe"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert without_paths(f"{home}/rule.py") == "…/rule.py"
    assert without_paths(str(Path(tempfile.gettempdir(), "x.bin"))) == "…/x.bin"
    assert "Jane" not in without_paths(os.fspath(home / "rules" / "rule.py"))


def test_times_without_a_zone_are_read_as_local():
    local = datetime(2026, 1, 1, 12)
    assert answered(started=local).started == local.astimezone(UTC).isoformat(timespec="seconds")
