"""How long a newcomer's first steps take, command by command, in a fresh virtual environment.

Installation (dependencies and rulezoo apart), the first table (the README's command), an own rule from the template, verified
and compared, an own network (the file of docs/your-own-network.md), and trained weights that load without rulezoo. The
script stops at the first command that fails. It needs nothing but Python and pip.

    python benchmarks/newcomer.py                    # installs the dependencies: about 6 GB
    python benchmarks/newcomer.py --dependencies DIR # uses those in this folder of packages instead, and says so
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
RULES = "backprop,direct-feedback-alignment,frozen"
LAST = 15  # lines of the output of a command that failed


def steps(dependencies: Path | None) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Each step with its commands; the first word is found in the environment."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pip = ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    install = [] if dependencies else [("install the dependencies", [(*pip, *project["dependencies"])])]
    own_network = ("rulezoo", "--plugin", "my_network.py")
    tail = ("--tasks", "my-network", "--seeds", "1")
    return [
        *install,
        ("install rulezoo", [(*pip, *(["--no-deps"] if dependencies else []), str(HERE))]),
        ("look around: `rulezoo list`", [("rulezoo", "list")]),
        ("first table: `rulezoo compare`", [("rulezoo", "compare")]),
        ("own rule: template", [("rulezoo", "new", "rule", "my-rule")]),
        ("own rule: `rulezoo verify`", [("rulezoo", "verify", "my_rule.py")]),
        (
            "own rule: compared with backprop",
            [("rulezoo", "--plugin", "my_rule.py", "compare", "--rules", "my-rule,backprop", "--tasks", "digits-cnn")],
        ),
        ("own network: three rules compared", [(*own_network, "compare", "--rules", RULES, *tail, "--keep-weights")]),
        (
            "weights: exported, and loaded without rulezoo",
            [
                (*own_network, "export", "direct-feedback-alignment", "my-network", "0", "--to", "exported"),
                ("python", "exported/load.py"),
            ],
        ),
    ]  # fmt: skip


def own_network() -> str:
    """The file `my_network.py` of the documents."""
    page = (HERE / "docs" / "your-own-network.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(# my_network\.py\n.*?)```", page, re.DOTALL)[1]


def timed(commands: list[tuple[str, ...]], folder: Path, environ: dict[str, str]) -> float:
    """Seconds that the commands took."""
    begun = time.perf_counter()
    for command in commands:
        done = subprocess.run(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )  # fmt: skip
        if done.returncode:
            print(*done.stdout.splitlines()[-LAST:], sep="\n", file=sys.stderr)
            raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}")
    return time.perf_counter() - begun


def main() -> None:
    """Print a table of seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dependencies", type=Path, metavar="DIR", help="a folder that holds the dependencies"
    )
    dependencies = parser.parse_args().dependencies
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder, venv = Path(place) / "work", Path(place) / "venv"
        folder.mkdir()
        (folder / "my_network.py").write_text(own_network(), encoding="utf-8")
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RULEZOO"))
        }
        environ |= {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(venv)}
        rows.append(
            (
                "create the virtual environment",
                timed([(sys.executable, "-m", "venv", str(venv))], folder, environ),
            )
        )
        if dependencies:
            (packages,) = venv.glob("lib/python*/site-packages")
            (packages / "dependencies.pth").write_text(
                f"import site; site.addsitedir({str(dependencies.resolve())!r})\n"
            )
        for name, commands in steps(dependencies):
            print(f"{name} …", file=sys.stderr)
            rows.append((name, timed(commands, folder, environ)))
    print("| step | seconds |\n| --- | --: |")
    for name, seconds in [*rows, ("**in all**", sum(seconds for _, seconds in rows))]:
        print(f"| {name} | {seconds:.1f} |")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    reused = "; the dependencies were installed before" if dependencies else ""
    load = f", load average {os.getloadavg()[2]:.0f}" if hasattr(os, "getloadavg") else ""
    print(
        f"\nPython {platform.python_version()}, {platform.system()}, {platform.machine()}, {cores} cores{load}{reused}."
    )


if __name__ == "__main__":
    main()
