"""How much memory a training may take: a share of what is free, on the machine or in a container."""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from rulezoo.executors import memory


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 10 GB free, and the folder of its container's limits."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * 10**9))
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    return tmp_path


def test_trainings_share_nine_tenths_of_what_is_free(machine):
    assert memory.share(1) == 9 * 10**9
    assert memory.share(3) == 3 * 10**9


def test_on_many_cores_a_share_is_still_enough_for_a_training(machine):
    assert memory.share(64) == 2 * 10**9


@pytest.mark.parametrize(("limit", "share"), [("4000000000", 2.7e9), ("max", 9e9), ("40000000000", 9e9)])
def test_a_container_may_have_less(machine, limit, share):
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.current").write_text("1000000000\n")
    assert memory.share(1) == share


def test_a_process_holds_what_it_has_touched():
    """In a new process: this one may have kept memory that was freed, and would take no more of the system."""
    child = """
import os
from rulezoo.executors import memory
before = memory.resident(os.getpid())
held = b"x" * 200_000_000
print(memory.resident(os.getpid()) - before)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0.9 * 200_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell mapped pages apart")
def test_pages_of_mapped_files_are_not_held(tmp_path):
    """The system takes them back when it needs memory: data may be larger than it."""
    child = """
import mmap, os, sys
from rulezoo.executors import memory
with open(sys.argv[1], "wb") as file:
    file.write(b"x" * 100_000_000)
before = memory.resident(os.getpid())
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
touched = sum(mapped[i] for i in range(0, len(mapped), 4096))
print(memory.resident(os.getpid()) - before)
"""
    command = [sys.executable, "-c", child, tmp_path / "file"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000_000


def test_a_process_that_is_gone_holds_nothing():
    assert memory.resident(2**22 + 1) == 0  # more than there are processes


def test_sizes_are_told_in_gigabytes():
    assert [memory.in_words(size) for size in (2e9, 0.5e9, 12.3e9)] == ["2 GB", "0.5 GB", "12 GB"]
