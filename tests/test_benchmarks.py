"""The benchmarks that have a verdict give it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not beside these tests")
def test_measured_angles_are_those_of_the_theory():
    command = [sys.executable, BENCHMARKS / "angles_against_theory.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    budgets = re.findall(r"^(?:VNC|NMNC) +\S+ +\d+ +(\d+) ", done.stdout, re.MULTILINE)
    assert sorted(map(int, budgets)) == [39] * 4 + [156] * 4 + [1216] * 4  # two rules at two sites
