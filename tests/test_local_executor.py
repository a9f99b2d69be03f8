"""`rulezoo compare` as a user meets it: rules that go wild, interrupts, sudden death, and what is said of mistakes."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import active_children, forkserver
from pathlib import Path

import psutil
import pytest
import torch

from rulezoo.cli import main
from rulezoo.comparison.jobs import Job
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.errors import UserError
from rulezoo.executors.local import Local
from rulezoo.processes import server
from rulezoo.results.store import Store, StoreError

LIMIT = 12.0  # seconds for a training that takes less than one when the machine is free
PATIENCE = 300.0  # seconds after which a process that was started here will not do any more what it should
TOKEN = "RULEZOO_TEST_TOKEN"  # marks the processes of a test, and all that they start, in their environment
DIGITS = ("--tasks", "digits-cnn", "--epochs", "1", "-o", "digits-cnn.width=0.25", "--device", "cpu")

PLUGIN = """
    import os, signal, sys, time
    from dataclasses import dataclass
    from pathlib import Path

    import rulezoo
    from rulezoo import RuleSpec, TaskSpec
    from rulezoo.testing import TinyTask
    from rulezoo_plugins.baselines.backprop import Backprop

    class Wild(Backprop):
        def step(self, net, loss, params, state, batch, noise, t):
            step = super().step(net, loss, params, state, batch, noise, t)
            return step if t != 2 else self.trouble(step)

        def skip(self, net, task):
            return None if hasattr(self, "trouble") else f"needs more than {len(net.visits)} sites"

    class Raises(Wild):
        def trouble(self, step):
            raise RuntimeError("no \\x1b[31m way\\nand no other")

    class Nan(Wild):
        def trouble(self, step):
            return step._replace(loss=step.loss * float("nan"))

    class Hangs(Wild):
        def trouble(self, step):
            print("a remark of the rule", flush=True)
            Path(os.environ.get("SIGN", os.devnull)).write_text("it hangs")
            time.sleep(3600)

    class Exits(Wild):
        def trouble(self, step):
            os._exit(3)

    class Swells(Wild):
        def trouble(self, step):
            held = []
            while True:
                held.append(b"x" * 50_000_000)
                time.sleep(0.01)

    class Leaves(Wild):
        def trouble(self, step):
            sys.exit("bye")

    class Panic(BaseException):
        pass

    class Panics(Wild):
        def trouble(self, step):
            raise Panic("at the disco")

    class Shouts(Wild):
        def trouble(self, step):
            raise RuntimeError("loud " * 10_000_000)

    class Rubbish(Wild):
        '''Writes into every file that is open here what would create a file in the one who unpickles it.'''

        def trouble(self, step):
            import pickle, struct

            class Bomb:
                def __reduce__(self):
                    return Path.touch, (Path(os.environ["SIGN"]),)

            payload = pickle.dumps(Bomb())
            for number in range(3, 200):
                try:
                    os.write(number, struct.pack("!i", len(payload)) + payload + b"\\n")
                except OSError:
                    pass
            time.sleep(3600)

    class Floods(Wild):
        '''Never ends its line, and never stops.'''

        def trouble(self, step):
            sockets = []
            for number in range(3, 200):
                try:
                    if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                        sockets.append(number)
                except OSError:
                    pass
            while True:
                for number in sockets:
                    os.write(number, b"x" * 5000)

    class Parent(Wild):
        '''Starts processes: one of its own session, and one whose own parent is gone.'''

        def trouble(self, step):
            import subprocess

            subprocess.Popen(["sleep", "3600"], start_new_session=True)
            subprocess.run(["sh", "-c", "sleep 3600 &"])
            return self.end(step)

        def end(self, step):
            time.sleep(3600)

    class Abandons(Parent):
        def end(self, step):
            return step

    class Flees(Parent):
        def end(self, step):
            os._exit(3)

    class Kills(Wild):
        def trouble(self, step):
            os.kill(os.getpid(), signal.SIGKILL)

    class Slow(Wild):
        '''Takes its time as long as there is no file at $SPEED.'''

        def step(self, *args):
            if "SPEED" in os.environ:
                deadline = time.monotonic() + 300
                while not Path(os.environ["SPEED"]).exists() and time.monotonic() < deadline:
                    Path(os.environ["SIGN"]).write_text("it is slow")
                    time.sleep(0.1)
            return Backprop.step(self, *args)

        def trouble(self, step):
            return step

    class NoData(TinyTask):
        def data(self, root, *, download=False):
            raise ZeroDivisionError("a bug in a task")

    @rulezoo.hookimpl
    def rulezoo_rules():
        names = "raises nan hangs exits leaves panics shouts kills swells slow wild parent abandons flees rubbish floods"
        return [RuleSpec(name, f"{__name__}:{name.title()}", "For tests.") for name in names.split()]

    @rulezoo.hookimpl
    def rulezoo_tasks():
        tiny = TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)
        return [tiny, TaskSpec("no-data", f"{__name__}:NoData", "Has a bug.")]
"""


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FILES, "")  # also puts it back after --plugin has added to it
        for name in ("RULEZOO_DEBUG", "RULEZOO_RESULTS", "RULEZOO_DATA"):
            patch.delenv(name, raising=False)
        patch.chdir(tmp_path_factory.mktemp("here"))
        # Who started the tests may have made them deaf to the interrupt (a shell does so in the background, and in CI);
        # what they start would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    monkeypatch.setenv(FILES, "")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "wild.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    return str(path)


def here(*words):
    """The command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["rulezoo", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
    return left.value.code or 0, out.getvalue(), err.getvalue()


class Elsewhere:
    """The command line in a process group of its own, so that a signal to it does not reach the tests."""

    def __init__(
        self, folder, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=None, python=(), **environ
    ):
        self.token = f"{os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, *python, "-m", "rulezoo", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            cwd=cwd or folder,
            env={**os.environ, TOKEN: self.token, **environ},
        )

    def ends(self):
        """Exit code, stdout, stderr; they are at their end only when no child holds them any more."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()

    def family(self):
        """The processes that are left: number → what they are."""
        mark, found = f"{TOKEN}={self.token}".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it is gone, or another user's
                continue
        return found

    def clean_up(self):
        for number in self.family():
            os.kill(number, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def elsewhere(tmp_path):
    if not Path("/proc/self/environ").exists():
        pytest.skip("finds processes in /proc, which this system does not have")
    started = []

    def start(*words, **environ):
        started.append(Elsewhere(tmp_path, *words, **environ))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


def until(condition, what):
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.02)
    return answer


def stored(folder):
    """(rule, seed) → record."""
    reading = Store(Path(folder)).read()
    assert reading.damaged == []
    return {(record.asked.rule, record.asked.seed): record for record in reading.records}


def files(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(folder).glob("runs/*/*/*.json")
    }


def scores(folder):
    """What `rulezoo leaderboard --format json` says, but for the cost, which is a measured time."""
    code, out, _ = here("leaderboard", "--out", folder, "--format", "json")
    assert code == 0
    return json.loads(out, object_hook=lambda value: {k: v for k, v in value.items() if k != "cost"})


WILD = {
    "backprop": ("ok", None),
    "raises": ("error", "RuntimeError: no \x1b[31m way"),
    "nan": ("diverged", "the loss was not finite at step 2 of 6"),
    "hangs": ("timeout", f"took longer than the limit of {LIMIT:g} s"),
    "exits": ("crashed", "its process ended without a word, with exit code 3"),
    "leaves": ("error", "SystemExit: bye"),
    "panics": ("error", "Panic: at the disco"),
    "kills": ("killed", "its process was ended by signal 9 (Killed)"),
    "swells": ("oom_host", "took more memory than the limit of 2 GB; --memory-limit sets it"),
    "wild": ("skipped", "needs more than 4 sites"),
    "frozen": ("ok", None),
}


@pytest.fixture(scope="module")
def wild(plugin, tmp_path_factory):
    """A comparison of rules that go wild, with two that do not first and last: folder, exit code, stdout, stderr."""
    folder = tmp_path_factory.mktemp("wild")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FILES, plugin)
        words = ["compare", "--rules", ",".join(WILD), "--tasks", "tiny", "--seeds", "2", "--epochs", "1"]
        # The one that hangs does not keep the others from being trained.
        limits = ["--time-limit", LIMIT, "--memory-limit", "2"]
        yield folder, *here(*words, "--jobs", "2", *limits, "--device", "cpu", "--out", folder)


def test_every_failure_is_a_record_of_its_own_kind(wild):
    records = stored(wild[0])
    assert {key: (record.status, record.reason) for key, record in records.items()} == {
        (rule, seed): came for rule, came in WILD.items() for seed in (0, 1)
    }
    assert "in trouble" in records["raises", 0].traceback
    assert records["backprop", 0].answered.seeds_together == 2
    for (rule, _), record in records.items():
        assert ("test" in record.scores) == (rule in ("backprop", "frozen"))
        assert record.answered.rule_plugin.distribution == (
            "rulezoo" if "test" in record.scores else "wild.py"
        )


def test_the_exit_code_and_a_line_for_each_failure_tell_of_it(wild):
    _, code, _, err = wild
    assert code == 1
    *lines, hint = [line for line in err.splitlines() if line.startswith("rulezoo: ")]
    assert "--retry failed" in hint
    failed = [rule for rule, (status, _) in WILD.items() if status not in ("ok", "skipped")]
    assert [re.sub(":.*", "", line.removeprefix("rulezoo: tiny ")) for line in lines] == [
        f"{rule} seed {seed} {WILD[rule][0]}" for rule in failed for seed in (0, 1)
    ]
    assert lines[0] == "rulezoo: tiny raises seed 0 error: RuntimeError: no �[31m way"


def test_every_rule_is_in_the_table(wild):
    _, _, out, _ = wild
    rows = {line.split()[0] for line in out.splitlines() if line}
    assert rows >= set(WILD)
    assert "needs more than 4 sites" in out


def test_where_there_is_no_terminal_there_are_no_control_characters(wild):
    _, _, out, err = wild
    assert all(c.isprintable() or c == "\n" for c in out + err)
    progress = [line for line in err.splitlines() if not line.startswith("rulezoo: ")]
    assert progress[0] == "22 of 22 runs to do"
    assert re.fullmatch(r"tiny  \S+  seeds 0,1  starting", progress[1])
    assert sorted(line.split()[:2] for line in progress[2:]) == sorted(["tiny", rule] for rule in WILD)


def test_six_kinds_of_failure_are_told_apart(wild):
    failed = {record.status for record in stored(wild[0]).values()} - {"ok", "skipped"}
    assert failed == {"error", "diverged", "timeout", "crashed", "killed", "oom_host"}


def test_the_second_time_the_failures_are_told_again_but_not_run(wild, plugin, monkeypatch):
    folder, _, out, err = wild
    monkeypatch.setenv(FILES, plugin)
    before = files(folder)
    words = ["compare", "--rules", ",".join(WILD), "--tasks", "tiny", "--seeds", "2", "--epochs", "1"]
    code, again, err_again = here(*words, "--device", "cpu", "--out", folder)
    assert (code, again) == (1, out)
    assert files(folder) == before
    told = [line for line in err.splitlines() if line.startswith("rulezoo: ")]
    assert err_again.splitlines() == ["all 22 runs are stored already", *told]


def test_a_plugin_named_after_the_server_of_processes_was_started_reaches_them(wild, tmp_path):
    """The environment of that server is the one of its start."""
    source = textwrap.dedent(PLUGIN).replace("it hangs", "another text, so another module")
    other = tmp_path / "other.py"
    other.write_text(source, encoding="utf-8")
    words = [
        "--tasks",
        "tiny",
        "--rules",
        "nan",
        "--seeds",
        "1",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    ]
    code, _, err = here("--plugin", other, "compare", *words)
    assert (code, err.splitlines()[-2]) == (
        1,
        "rulezoo: tiny nan seed 0 diverged: the loss was not finite at step 2 of 12",
    )
    assert stored(tmp_path / "out")["nan", 0].answered.rule_plugin.distribution == "other.py"


def test_a_task_whose_data_cannot_be_made_is_named_before_anything_is_trained(wild, plugin, tmp_path):
    out = tmp_path / "out"
    words = ["--tasks", "no-data,tiny", "--rules", "frozen", "--seeds", "1", "--device", "cpu", "--out", out]
    code, table, err = here("--plugin", plugin, "compare", *words)
    assert (code, table) == (2, "")
    assert Store(out).read().records == []
    said = "task 'no-data' cannot be trained on: data() raised ZeroDivisionError: a bug in a task; nothing was trained"
    assert said in err.splitlines()[-1]


def asked(rule, *seeds):
    return Request(rules=[rule], tasks=["tiny"], seeds=seeds or (0,), device="cpu", epochs=1)


def test_a_store_that_breaks_stops_everything_and_leaves_no_process(tmp_path, monkeypatch, plugin):
    """The folder of results vanishes behind a file while two jobs run, one of which will never end by itself."""
    monkeypatch.setenv(FILES, plugin)
    root, children = tmp_path / "out", []

    class Listener:
        def started(self, job):
            children.extend(active_children())
            if job.rule == "frozen":
                root.write_text("in the way")

        def progressed(self, job, done, total):
            pass

        def finished(self, job, records):
            raise AssertionError("nothing can be finished")

    jobs = [Job(asked(rule), root) for rule in ("frozen", "hangs")]
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        Local(2).run(jobs, Listener())
    assert len(set(children)) == 2
    assert not any(child.is_alive() for child in children)


def test_a_process_starts_with_torch_imported_and_deaf_to_the_interrupt():
    """That is what makes its start cheap, and Ctrl-C, which reaches it too, no traceback of its own."""
    look = """if True:
        import os, signal, sys
        deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os._exit(40 + ("torch._dynamo" in sys.modules) + 2 * deaf)
    """
    process = server.context().Process(target=exec, args=(look,))
    process.start()
    process.join()
    assert process.exitcode == 43


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_finished_and_marks_what_is_under_way(elsewhere, plugin, tmp_path):
    sign, out = tmp_path / "sign", tmp_path / "out"
    words = [
        "--rules",
        "hangs,frozen,slow",
        "--tasks",
        "tiny",
        "--seeds",
        "2",
        "--device",
        "cpu",
        "--jobs",
        "2",
    ]
    command = elsewhere(
        "--plugin", plugin, "compare", *words, "--out", out, SIGN=str(sign), SPEED=str(tmp_path / "never")
    )
    until(lambda: sign.exists() and len(files(out)) == 2, "one rule hangs and one is finished")
    before = files(out)
    until(lambda: sign.read_text() == "it is slow", "the last rule is under way")
    os.killpg(command.process.pid, signal.SIGINT)
    code, table, err = command.ends()
    assert (code, table) == (130, "")
    assert err.splitlines()[-1] == (
        "rulezoo: interrupted; finished runs are stored, and the same command resumes the rest"
    )
    assert "a remark of the rule" in here("logs", "hangs", "0", "--out", out)[1]
    assert "Traceback" not in err
    until(lambda: not command.family(), "every process is gone")
    assert {path: content for path, content in files(out).items() if path in before} == before
    assert {key: record.status for key, record in stored(out).items()} == {
        **{("frozen", seed): "ok" for seed in (0, 1)},
        **{(rule, seed): "interrupted" for rule in ("hangs", "slow") for seed in (0, 1)},
    }


@pytest.mark.slow
def test_a_polite_signal_to_end_is_an_interrupt(elsewhere, plugin, tmp_path):
    """As a scheduler or a container sends it, to this process alone."""
    sign, out = tmp_path / "sign", tmp_path / "out"
    words = ["--rules", "hangs", "--tasks", "tiny", "--seeds", "1", "--device", "cpu"]
    command = elsewhere("--plugin", plugin, "compare", *words, "--out", out, SIGN=str(sign))
    until(sign.exists, "it hangs")
    os.kill(command.process.pid, signal.SIGTERM)
    code, table, err = command.ends()
    assert (code, table) == (130, "")
    assert err.splitlines()[-1].startswith("rulezoo: interrupted; finished runs are stored")
    until(lambda: not command.family(), "every process is gone")
    assert [record.status for record in stored(out).values()] == ["interrupted"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "status"), [("parent", "timeout"), ("abandons", "ok"), ("flees", "crashed")], ids=str
)
def test_what_a_training_has_started_ends_with_it(elsewhere, plugin, tmp_path, rule, status):
    """However it ends, and whatever became of those in between."""
    words = ["--rules", f"{rule},hangs", "--tasks", "tiny", "--seeds", "1", "--device", "cpu", "--jobs", "1"]
    sign, out = tmp_path / "sign", tmp_path / "out"
    command = elsewhere(
        "--plugin", plugin, "compare", *words, "--time-limit", LIMIT, "--out", out, SIGN=str(sign)
    )
    # The child of one that crashes may be gone before it is looked for: the next rule is then under way.
    gone = sign.exists if rule == "flees" else lambda: False
    until(lambda: any("sleep" in what for what in command.family().values()) or gone(), "it has a child")
    until(sign.exists, "the next rule is under way")
    assert not any("sleep" in what for what in command.family().values())
    assert command.ends()[0] == 1
    until(lambda: not command.family(), "every process is gone")
    assert stored(out)[rule, 0].status == status


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["runner", "worker", "supervisor"])
def test_what_a_training_has_started_ends_when_its_processes_are_killed(elsewhere, plugin, tmp_path, victim):
    words = ["--rules", "parent", "--tasks", "tiny", "--seeds", "1", "--device", "cpu"]
    command = elsewhere("--plugin", plugin, "compare", *words, "--out", tmp_path / "out")
    until(lambda: sum("sleep" in what for what in command.family().values()) == 2, "it has its children")
    runner = psutil.Process(command.process.pid)
    (supervisor,) = [one for server in runner.children() for one in server.children()]
    worker = max(supervisor.children(), key=lambda one: one.memory_info().rss)
    {"runner": runner, "worker": worker, "supervisor": supervisor}[victim].kill()
    code, _, err = command.ends()
    assert (code, "Traceback" in err) == (-signal.SIGKILL if victim == "runner" else 1, False)
    until(lambda: not command.family(), "every process is gone")
    if victim != "runner":
        assert [(r.status, r.reason) for r in stored(tmp_path / "out").values()] == [
            ("killed", "its process was ended by signal 9 (Killed)")
        ]


class Silent:
    """A listener that may do something when a job begins."""

    def __init__(self, begin=lambda job: None):
        self.begin = begin

    def started(self, job):
        pass

    def progressed(self, job, done, total):
        self.begin(job)

    def finished(self, job, records):
        pass


def kill_server():
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)


def test_a_dead_server_of_processes_is_started_anew(tmp_path, plugin, monkeypatch):
    """Also where it is not quite gone when the next process is asked for."""
    monkeypatch.setenv(FILES, str(plugin))
    servers = set()
    for seed in range(6):
        Local(1).run([Job(asked("wild", seed), tmp_path)], Silent())
        servers.add(forkserver._forkserver._forkserver_pid)
        kill_server()
    assert [record.status for record in stored(tmp_path).values()] == ["skipped"] * 6
    assert len(servers) == 6


def test_a_server_of_processes_that_dies_takes_no_training_with_it(tmp_path, plugin, monkeypatch):
    monkeypatch.setenv(FILES, str(plugin))
    killed = set()

    def kill(job):
        if job.rule not in killed:
            kill_server()
            killed.add(job.rule)

    rules = ["backprop", "frozen", "exits"]
    jobs = [Job(asked(rule, 0, 1), tmp_path) for rule in rules]
    Local(2).run(jobs, Silent(kill))
    assert killed == set(rules)
    assert {(rule, r.status, r.reason) for (rule, _), r in stored(tmp_path).items()} == {
        ("backprop", "ok", None),
        ("frozen", "ok", None),
        ("exits", "crashed", "its process ended without a word, with exit code 3"),
    }


def test_processes_that_cannot_be_started_are_an_error_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_START", 0.2)
    monkeypatch.setattr(server, "context", lambda: (_ for _ in ()).throw(ConnectionRefusedError("refused")))
    with pytest.raises(UserError, match=r"no process can be started: .* does not answer .refused.; look for"):
        Local(1).run([Job(asked("frozen"), tmp_path)], Silent())


@pytest.mark.parametrize("rule", ["rubbish", "floods"])
def test_rubbish_of_a_child_is_read_as_data_and_harms_its_run_alone(tmp_path, plugin, monkeypatch, rule):
    monkeypatch.setenv(FILES, str(plugin))
    monkeypatch.setenv("SIGN", str(tmp_path / "sign"))
    jobs = [Job(asked(one), tmp_path / "out") for one in (rule, "backprop")]
    Local(1).run(jobs, Silent())
    assert not (tmp_path / "sign").exists()
    records = {rule: (r.status, r.reason) for (rule, _), r in stored(tmp_path / "out").items()}
    assert records.pop("backprop") == ("ok", None)
    status, why = records[rule]
    assert (status, why.split(";")[0]) == (
        "error",
        "its process wrote what is no message into its connection to rulezoo",
    )


def test_a_message_of_fifty_megabytes_is_cut(tmp_path, plugin, monkeypatch):
    monkeypatch.setenv(FILES, str(plugin))
    Local(1).run([Job(asked("shouts"), tmp_path)], Silent())
    (record,) = stored(tmp_path).values()
    assert (record.status, record.reason[:25]) == ("error", "RuntimeError: loud loud l")
    assert len(record.reason) < 5000
    assert "characters left out" in record.reason
    assert len(record.traceback) < 50_000
    assert "in trouble" in record.traceback


@pytest.mark.slow
def test_files_in_the_current_folder_that_bear_the_names_of_modules_are_no_modules(
    elsewhere, plugin, tmp_path
):
    """A plugin may be called like a module of Python; an installed command does not import from where it is called."""
    source = Path(plugin).read_text(encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()
    (here / "random.py").write_text("import spice_of_random\n" + source, encoding="utf-8")
    (here / "spice_of_random.py").write_text("", encoding="utf-8")
    for name in ("types", "torch", "sklearn", "multiprocessing", "psutil"):
        (here / f"{name}.py").write_text(f"raise ValueError('the wrong {name}')", encoding="utf-8")
    words = ["compare", "--rules", "frozen", "--tasks", "tiny", "--seeds", "1", "--device", "cpu"]
    command = elsewhere(
        "--plugin", here / "random.py", *words, "--out", tmp_path / "out", cwd=here, python=["-P"]
    )
    code, _, err = command.ends()
    assert code == 0, err
    assert [record.status for record in stored(tmp_path / "out").values()] == ["ok"]


@pytest.mark.slow
def test_an_interrupt_while_things_are_still_starting_is_no_traceback(elsewhere, tmp_path):
    command = elsewhere("compare", *DIGITS, "--rules", "frozen", "--out", tmp_path / "out")

    def importing():
        servers = [number for number, what in command.family().items() if "forkserver" in what]
        return any("libtorch" in Path(f"/proc/{number}/maps").read_text() for number in servers)

    until(importing, "the server of processes imports torch")
    os.killpg(command.process.pid, signal.SIGINT)
    code, table, err = command.ends()
    assert (code, table) == (130, "")
    assert "Traceback" not in err
    assert "interrupted" in err
    until(lambda: not command.family(), "every process is gone")


@pytest.mark.slow
def test_after_sudden_death_the_same_command_goes_on(elsewhere, plugin, tmp_path):
    sign, speed, out, whole = (tmp_path / name for name in ("sign", "speed", "out", "whole"))
    words = [
        "--plugin",
        plugin,
        "compare",
        *DIGITS,
        "--rules",
        "backprop,slow,frozen",
        "--seeds",
        "2",
        "--jobs",
        "2",
    ]
    command = elsewhere(*words, "--out", out, SIGN=str(sign), SPEED=str(speed))
    until(lambda: sign.exists() and len(files(out)) >= 2, "one rule is finished, and another under way")
    os.kill(command.process.pid, signal.SIGKILL)  # the parent alone: its children have to notice
    assert command.ends()[0] == -signal.SIGKILL
    until(lambda: not command.family(), "every process is gone")
    before = files(out)
    assert {path.parent.name for path in before} >= {"backprop"}
    assert "slow" not in {path.parent.name for path in before}

    speed.touch()
    code, table, err = here(*words, "--out", out)
    assert code == 0
    assert err.startswith(f"{6 - len(before)} of 6 runs to do, {len(before)} stored already\n")
    assert {path: content for path, content in files(out).items() if path in before} == before
    assert here(*words, "--out", whole)[0] == 0
    assert scores(out) == scores(whole)
    results = [stored(folder) for folder in (out, whole)]
    assert len(results[0]) == 6
    for key, record in results[0].items():
        assert (record.status, record.scores, record.curve) == (
            "ok",
            results[1][key].scores,
            results[1][key].curve,
        )
    assert "slow" in table


@pytest.mark.slow
def test_on_a_terminal_there_is_live_progress_and_then_the_table(elsewhere, tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    terminal = {"stdout": theirs, "stderr": theirs, "TERM": "xterm-256color", "COLUMNS": "120"}
    words = ["--rules", "backprop,frozen", "--seeds", "2", "--out", tmp_path / "out"]
    command = elsewhere("compare", *DIGITS, *words, **terminal)
    os.close(theirs)
    parts = []
    while select.select([ours], [], [], PATIENCE)[0]:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that nobody holds the other end any more
            break
        parts.append(part)
    os.close(ours)
    text = b"".join(parts).decode()
    assert command.process.wait(PATIENCE) == 0
    live, table = text[: text.index("accuracy %")], text[text.index("accuracy %") :]
    assert "4 of 4 runs to do" in live
    assert re.search(r"digits-cnn width=0\.25  backprop  seeds 0,1 .*\d+/19.*steps", live)
    assert re.search(r"all runs .*[024]/4.*runs", live)
    assert "digits-cnn width=0.25  frozen  seeds 0,1  test accuracy" in live
    assert "\x1b[?25h" in live  # the cursor is back
    assert re.search("backprop .*frozen .*Results: ", table, re.DOTALL)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rules", "bakprop"], r"unknown rule 'bakprop'; did you mean 'backprop'\? \(rulezoo list rules\)"),
        (["--tasks", "digit-cnn"], r"unknown task 'digit-cnn'; did you mean 'digits-cnn'.*\(rulezoo list tasks\)"),
        (["-o", "nmnc.ranc=3"], r"nmnc has no option 'ranc'; did you mean 'rank'\?"),
        (["-o", "nmnc.sigma=-1"], r"nmnc\.sigma must be a number in \[1e-08, inf\), got '-1' \(size of .*"),
        (["-o", "digits-cnn.width=9"], r"digits-cnn\.width must be a number in \[0\.25, 8\], got '9' \(factor .*"),
        (["-o", "nmnc.rank"], r"Invalid value for '-o': 'nmnc\.rank' must have the form NAME\.OPTION=VALUE, such as .*"),
        (["-o", "rank=3"], r"Invalid value for '-o': 'rank=3' must have the form NAME\.OPTION=VALUE, such as .*"),
        (["-o", ".=3"], r"Invalid value for '-o': '\.=3' must have the form NAME\.OPTION=VALUE, such as .*"),
        (["-o", "usf.lr=1"], r"-o usf\.…: 'usf' is not compared here; the rules are backprop, .*"),
        (["--device", "cuda"], r"--device cuda: torch finds no such device on this machine; it has cpu.*"),
        (["--device", "gpu"], r"Invalid value for '--device': 'gpu' is not one of .*"),
        (["--seeds", "0"], r"Invalid value for '--seeds': the number of seeds must be 1 or more, got 0 .*"),
        (["--seeds", "9-5"], r"Invalid value for '--seeds': a range of seeds must begin with its smallest, got '9-5'; write 5-9 .*"),
        (["--seeds", "few"], r"Invalid value for '--seeds': seeds must be a number of seeds \(5: seeds 0 to 4\), .*, got 'few' .*"),
        (["--seeds", "0,3,0"], r"seed 0 is given twice; give each seed once"),
        (["--seeds", "0-999999999"], r"Invalid value for '--seeds': seeds must be 10,000 at most, got 1,000,000,000 .*"),
        (["--epochs", "x"], r"Invalid value for '--epochs': 'x' is not a valid integer range\..*"),
        (["--time-limit", "0"], r"Invalid value for '--time-limit': 0\.0 is not in the range x>0\..*"),
        (["--tasks", "mnist-mlp"], r"MNIST needs a data folder and none was given; point --data .*"),
        (["--tasks", "mnist-mlp", "--data", "."], r"MNIST: looked in .* and did not find any of its files; .*"),
        (["--out", __file__], r"Invalid value for '--out' .*: Directory '.*' is a file\..*"),
        (["--out", f"{__file__}/out"], r"Results cannot be stored in .*/out: a file stands where a folder is needed; .*"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(words, said, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Local, "run", lambda *args: pytest.fail("nothing was to be run"))
    code, out, err = here("compare", *words)
    *progress, line = err.splitlines()
    assert (code, out) == (2, "")
    assert re.fullmatch(f"rulezoo: {said}", line)
    assert all(re.fullmatch(r"\d+ of \d+ runs to do", one) for one in progress)
    assert files(tmp_path / "rulezoo-results") == {}
