"""A file system without working locks is named before the first training."""

import errno
import fcntl
import os

import pytest

from rulezoo.results import leases
from rulezoo.results.store import Store, StoreError


def test_locks_that_work_are_no_error_and_leave_no_file(tmp_path):
    leases.check(Store(tmp_path / "out"))
    assert list((tmp_path / "out" / ".locks").iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_has_no_locks_is_named(tmp_path, monkeypatch, code):
    def none(file, flags):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StoreError) as raised:
        leases.check(Store(tmp_path))
    assert f"the file system has no working locks ({os.strerror(code)})" in str(raised.value)
    assert "Choose a folder on a local disk with --out, or have" in str(raised.value)
    assert list((tmp_path / ".locks").iterdir()) == []


def test_a_file_system_that_gives_one_lock_to_two_processes_is_named(tmp_path, monkeypatch):
    """As far as this process is told it has the lock; the other one asks the system."""
    monkeypatch.setattr(fcntl, "flock", lambda file, flags: None)
    with pytest.raises(StoreError, match=r"no working locks \(it gives one lock to two processes\), without"):
        leases.check(Store(tmp_path))


def test_a_file_where_the_folder_of_locks_should_be_is_named(tmp_path):
    (tmp_path / ".locks").write_text("")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        leases.check(Store(tmp_path))


def test_a_comparison_checks_the_locks_before_the_first_training(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from rulezoo.cli import cli
    from rulezoo.executors.local import Local

    monkeypatch.setattr(fcntl, "flock", lambda file, flags: None)
    monkeypatch.setattr(Local, "run", lambda *args: pytest.fail("nothing was to be run"))
    words = ["compare", "--rules", "frozen", "--tasks", "digits-cnn", "--seeds", "1", "--device", "cpu"]
    done = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "out")])
    assert "no working locks" in done.output + str(done.exception)
    assert done.exit_code != 0
