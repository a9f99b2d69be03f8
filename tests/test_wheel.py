"""The wheel: built from this checkout, installed into a fresh environment, and used there as a newcomer would."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import rulezoo

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("rulezoo", "plugins/rulezoo_plugins", "tasks/rulezoo_tasks", "evaluations/rulezoo_evaluations")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="these tests are not in a checkout"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    for module in ("build", "hatchling"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a command in the new environment, which holds the wheel and finds the dependencies of this one."""
    folder = tmp_path_factory.mktemp("work")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    here = [
        path for path in sys.path if "site-packages" in path
    ]  # behind the wheel's own, so the wheel comes first
    (packages / "dependencies.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in here)
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {
        "PATH": f"{venv / 'bin'}{os.pathsep}{environ['PATH']}",
        "PIP_PYTHON": str(venv / "bin" / "python"),
    }
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--ignore-installed", str(wheel)], env=environ, check=True)

    def run(*command):
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    place = run(
        "python", "-c", "import rulezoo, rulezoo_tasks; print(rulezoo.__file__, rulezoo_tasks.__file__)"
    )
    assert all(path.startswith(str(packages)) for path in place.split()), "not the checkout"
    return run


def test_it_holds_every_file_of_the_packages_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        f"{Path(source).name}/{path.relative_to(ROOT / source).as_posix()}"
        for source in SOURCES
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == files


def test_its_version_is_that_of_the_package_and_of_the_citation(run):
    assert run("rulezoo", "--version") == f"rulezoo {rulezoo.__version__}\n"
    assert f"\nversion: {rulezoo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {rulezoo.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_its_plugins_load_and_a_comparison_a_report_and_a_template_work(run):
    assert {line.split()[-1] for line in run("rulezoo", "plugins").splitlines()[1:]} == {"ok"}
    small = ("--tasks", "digits-cnn", "--epochs", "1", "--seeds", "1", "-o", "digits-cnn.width=0.25")
    table = run("rulezoo", "compare", "--rules", "backprop,nmnc", *small, "--device", "cpu", "--jobs", "1")
    assert "nmnc" in table
    assert "index.html" in run("rulezoo", "leaderboard", "--html", "report")
    run("rulezoo", "new", "rule", "my-rule")
    assert "my-rule keeps every promise" in run("rulezoo", "verify", "my_rule.py")
