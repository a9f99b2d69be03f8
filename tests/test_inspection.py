"""Foreign code before the first training: whatever it does ends as a sentence, and nothing is trained or stored."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from rulezoo.comparison import inspection
from rulezoo.comparison.execution import execute
from rulezoo.comparison.inspection import LIMIT, Inspector, TaskError
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.results.store import Store
from rulezoo.task import DataMissing

PLUGIN = """
    import os, sys, time
    from dataclasses import dataclass

    import numpy as np
    import torch

    from rulezoo import Data, DataMissing, RuleSpec, Split, TaskSpec, hookimpl, hp
    from rulezoo.testing import TinyTask

    @dataclass(frozen=True)
    class Case(TinyTask):
        which: str = hp("fine", "what goes wrong")

        def data(self, root=None, *, download=False):
            data = super().data()
            match self.which:
                case "exit":
                    os._exit(0)
                case "quit":
                    sys.exit(0)
                case "crash":
                    os.abort()
                case "hang":
                    time.sleep(600)
                case "talk":
                    while True:
                        print("a lot " * 1000)
                case "fork":
                    os.fork()
                case "children":
                    import subprocess
                    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(601)"])
                case "rubbish":
                    for descriptor in range(3, 64):
                        try:
                            os.write(descriptor, b"\\0\\0\\0\\5hello")
                        except OSError:
                            pass
                    time.sleep(600)
                case "ask":
                    input()
                case "packs":
                    from rulezoo.datasets.progress import report
                    report("packing images: 5 of 10 images")
                case "missing":
                    raise DataMissing(f"looked in {root}, found nothing")
                case "unseeded":
                    noise = torch.as_tensor(np.random.randn(*data.train.x.shape)).float()
                    data = data._replace(train=Split(data.train.x + noise, data.train.y))
                case "nan":
                    data.test.x[4, 1] = float("nan")
                case "far" if not download:
                    raise DataMissing("add --download")
            return data

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("case", f"{__name__}:Case", "A case.", embedded=True)]
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "case_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))


def cells(which="fine", rules=("backprop",), **options):
    return plan(
        discover(),
        Request(
            rules=rules,
            tasks=["case"],
            seeds=[0],
            device="cpu",
            options={"case": {"which": which, **options}},
            epochs=1,
        ),
    )


def said(which):
    with pytest.raises(TaskError) as caught:
        Inspector().check(cells(which))
    return str(caught.value)


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("exit", "data() ended its process with exit code 0"),
        ("quit", "data() raised SystemExit: 0"),
        ("crash", "data() crashed: signal 6 (Aborted) ended its process"),
        ("ask", "data() raised EOFError"),
        ("rubbish", "data() wrote into rulezoo's own pipe"),
        ("unseeded", "data() returned other data when it was called a second time (train inputs)"),
        ("nan", "inputs of test contain NaN in 1 of 48 examples, the first at index 4"),
    ],
)
def test_what_a_task_does_to_its_process_is_a_sentence(which, sentence):
    assert f"task 'case' (which={which}) cannot be trained on: {sentence}" in said(which)


@pytest.mark.parametrize("which", ["hang", "talk"])
def test_a_task_that_does_not_return_is_ended(which, monkeypatch):
    monkeypatch.setenv(LIMIT, "3")
    begin = time.monotonic()
    sentence = said(which)
    assert f"data() did not finish within 3 s ({LIMIT} sets the limit)" in sentence
    assert ("the last line it printed: a lot a lot" in sentence) == (which == "talk")
    assert len(sentence) < 1000
    assert time.monotonic() - begin < 60


def test_progress_of_a_task_that_packs_its_data_is_reported():
    sentences = []
    Inspector(progress=sentences.append).check(cells("packs"))
    assert sentences == ["packing images: 5 of 10 images"] * 2  # data() is called twice


def test_a_task_that_forks_is_examined_once():
    inspector = Inspector()
    inspector.check(cells("fork"))
    assert len(inspector.found) == 1


def test_what_a_task_starts_does_not_outlive_its_examination():
    Inspector().check(cells("children"))
    left = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "import time; time.sleep(601)" in (process.info["cmdline"] or [])
    ]
    assert left == []


def test_every_failing_task_is_named_at_once_and_the_others_are_examined():
    every = [cell for which in ("nan", "fine", "exit", "missing", "quit") for cell in cells(which)]
    inspector = Inspector()
    with pytest.raises(TaskError) as caught:
        inspector.check(every)
    for words in ("which=nan", "exit code 0", "looked in None, found nothing", "SystemExit: 0"):
        assert str(caught.value).count(words) == 1
    assert "which=fine" not in str(caught.value)
    assert len(inspector.found) == 1


def test_only_missing_data_are_missing_data(tmp_path):
    with pytest.raises(DataMissing, match=f"^looked in {tmp_path}, found nothing$"):
        Inspector(tmp_path).check(cells("missing"))
    with pytest.raises(DataMissing, match="add --download"):
        Inspector().check(cells("far"))
    Inspector(download=True).check(cells("far"))


def test_a_task_is_examined_once(monkeypatch):
    runs = []
    run = inspection._run
    monkeypatch.setattr(
        inspection, "_run", lambda requests, *args: runs.append(requests) or run(requests, *args)
    )
    inspector, reports = Inspector(report=lambda: reports.append(1)), []
    inspector.check(cells(rules=("backprop", "frozen")))
    inspector.check(cells())
    assert [len(requests) for requests in runs] == [1]
    assert len(reports) == 1
    inspector.check(cells(kind="cnn"))
    assert [len(requests) for requests in runs] == [1, 1]


class Nobody:
    """An executor that is given nothing to do, and a listener."""

    def run(self, jobs, listener):
        raise AssertionError("nothing was to be run")

    def planned(self, runs, stored):
        pass


def test_nothing_is_trained_or_stored_when_a_task_fails(tmp_path):
    store = Store(tmp_path / "results")
    with pytest.raises(TaskError):
        execute(cells("nan"), store, Nobody(), Nobody())
    assert list(store.root.rglob("*.json")) == []


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_none(text, monkeypatch):
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(
        inspection.UserError, match=f"{LIMIT} must be a number of seconds above 0, got '{text}'"
    ):
        Inspector().check(cells())


def compare(folder, text, *arguments, limit="8"):
    """``rulezoo compare`` with a plugin of this text, and one seed."""
    path = folder / "foreign.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "rulezoo",
        "--plugin",
        str(path),
        "compare",
        "--device",
        "cpu",
        "--seeds",
        "1",
    ]
    environ = {**os.environ, LIMIT: limit, FILES: "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--epochs", "1", "--rules", "frozen", "--tasks", "foreign", *arguments],
        check=False,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )


FOREIGN = """
    import os, sys, time
    from dataclasses import dataclass
    from rulezoo import RuleSpec, TaskSpec, hookimpl
    from rulezoo.testing import TinyTask
    from rulezoo_plugins.baselines.backprop import Backprop

    @dataclass(frozen=True)
    class Foreign(TinyTask):
        def __post_init__(self):
            INIT

    AT_IMPORT

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("foreign", f"{__name__}:Foreign", "A case.", embedded=True)]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("init", "at_import", "sentence"),
    [
        ("pass", "os._exit(0)", "the import of plugin 'foreign.py' ended its process with exit code 0"),
        ("pass", "os.abort()", "the import of plugin 'foreign.py' crashed: signal 6 (Aborted)"),
        ("pass", "time.sleep(600)", "the import of plugin 'foreign.py' did not finish within 8 s"),
        ("pass", "sys.exit(0)", "plugin 'foreign.py' failed to load: SystemExit: 0"),
        ("pass", "import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
        ("os._exit(0)", "pass", "making task 'foreign' ended its process with exit code 0"),
        ("time.sleep(600)", "pass", "making task 'foreign' did not finish within 8 s"),
        ("sys.exit(0)", "pass", "cannot be made: SystemExit: 0"),
    ],
)
def test_a_plugin_that_does_not_come_back_from_its_import_or_its_making(tmp_path, init, at_import, sentence):
    text = FOREIGN.replace("INIT", init).replace("AT_IMPORT", at_import)
    done = compare(tmp_path, text)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.rglob("*.json"))


def test_a_foreign_plugin_in_order_is_compared(tmp_path):
    done = compare(tmp_path, FOREIGN.replace("INIT", "super().__post_init__()").replace("AT_IMPORT", "pass"))
    assert done.returncode == 0, done.stderr
    assert "checking tasks" not in done.stderr, "only on a terminal"
    (record,) = Store(tmp_path / "rulezoo-results").read().records
    assert len(record.answered.data) == 16


SLOW = """
    import os, subprocess, sys, time
    from dataclasses import dataclass
    from rulezoo import TaskSpec, hookimpl
    from rulezoo.testing import TinyTask

    @dataclass(frozen=True)
    class Slow(TinyTask):
        def data(self, root=None, *, download=False):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            with open("pids.new", "w") as file:
                file.write(f"{os.getpid()} {child.pid}")
            os.rename("pids.new", "pids")
            time.sleep(600)

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("slow", f"{__name__}:Slow", "A case.", embedded=True)]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_nothing_outlives_a_comparison_that_ends_while_a_task_is_examined(tmp_path, number, code):
    path = tmp_path / "slow.py"
    path.write_text(textwrap.dedent(SLOW), encoding="utf-8")
    command = [sys.executable, "-m", "rulezoo", "--plugin", str(path), "compare", "--device", "cpu"]
    # A shell starts what runs in its background deaf to SIGINT, and every process below inherits that.
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "--rules", "frozen", "--tasks", "slow", "--seeds", "1"],
        cwd=tmp_path,
        env={**os.environ, FILES: ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, deaf)
    patience = time.monotonic() + 100
    while not (tmp_path / "pids").exists() and time.monotonic() < patience:
        time.sleep(0.1)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(psutil.pid_exists, pids))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in said
    patience = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < patience:
        time.sleep(0.1)
    assert [pid for pid in pids if alive(pid)] == []


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stray_module_in_the_current_folder_is_not_imported(tmp_path):
    for name in ("random", "torch", "numpy", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not to be imported')")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    path = plugins / "foreign.py"
    path.write_text(
        textwrap.dedent(FOREIGN.replace("INIT", "super().__post_init__()").replace("AT_IMPORT", "pass")),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rulezoo", "--plugin", str(path), "compare", "--device", "cpu", "--seeds", "1",
         "--epochs", "1", "--rules", "frozen", "--tasks", "foreign"],
        check=False, cwd=tmp_path, env={**os.environ, FILES: ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
