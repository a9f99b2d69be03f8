"""The example of the page on tasks runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import fill

PAGE = Path(__file__).resolve().parents[2] / "docs" / "writing-a-task.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documents are not beside these tests")
def test_the_example_with_images_trains(tmp_path):
    (source,) = re.findall(r"```python\n(# pets\.py.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "pets.py").write_text(source, encoding="utf-8")
    fill(tmp_path / "data" / "pets" / "train", ("cat", "dog"), each=30)
    fill(tmp_path / "data" / "pets" / "val", ("cat", "dog"), each=5, seed=1)
    command = [sys.executable, "-m", "rulezoo", "--plugin", "pets.py", "compare", "--rules", "backprop", "--tasks", "pets",
               "--seeds", "2", "--epochs", "2", "--device", "cpu", "--data", "data"]  # fmt: skip
    environ = {name: value for name, value in os.environ.items() if name != "RULEZOO_PLUGINS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    assert re.search(r"backprop +\d+\.\d", done.stdout), done.stdout
    assert len(list((tmp_path / "data" / "pets" / ".rulezoo-cache").glob("[!.]*"))) == 2
