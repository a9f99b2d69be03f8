"""A real SLURM on this machine, with a controller, a node and a key of its own, started here and stopped after."""

import getpass
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rulezoo.comparison.executor import Unreachable
from rulezoo.comparison.jobs import Job
from rulezoo.comparison.request import Request as ComparisonRequest
from rulezoo.errors import UserError
from rulezoo.executors.attempt import attempt
from rulezoo.executors.local import Local
from rulezoo.executors.slurm import _reported_failure
from rulezoo.executors.slurm_request import Request
from rulezoo.results.store import Store, StoreError

PATIENCE = 240.0  # seconds after which something will not happen any more
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIG = """
    ClusterName=test
    SlurmctldHost=localhost(127.0.0.1)
    SlurmctldPort={controller}
    SlurmUser={user}
    SlurmdUser={user}
    AuthType=auth/munge
    CredType=cred/munge
    # How soon a job that was requeued may begin again, in seconds, hangs on it.
    AuthInfo=socket={folder}/munge.socket,cred_expire=5
    StateSaveLocation={folder}/state
    SlurmdSpoolDir={folder}/spool
    SlurmctldPidFile={folder}/slurmctld.pid
    SlurmdPidFile={folder}/slurmd.pid
    # Without control groups, which a container may not have.
    ProctrackType=proctrack/linuxproc
    TaskPlugin=task/none
    # What takes more memory than it asked for is ended, as control groups would see to.
    JobAcctGatherType=jobacct_gather/linux
    JobAcctGatherFrequency=task=1
    JobAcctGatherParams=OverMemoryKill
    AccountingStorageType=accounting_storage/none
    MpiDefault=none
    SelectType=select/cons_tres
    SelectTypeParameters=CR_Core_Memory
    DefMemPerCPU={each}
    SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
    CommunicationParameters=NoAddrInAny,NoCtldInAddrAny
    # A node that was set down stays so until it is resumed.
    ReturnToService=1
    KillWait=3
    MessageTimeout=60
    SlurmdTimeout=0
    NodeName=here NodeHostname=localhost NodeAddr=127.0.0.1 Port={node} CPUs=2 RealMemory={memory} State=UNKNOWN
    PartitionName=short Nodes=here Default=YES MaxTime=INFINITE State=UP
"""

PLUGIN = """
    import os, subprocess, signal, time
    from pathlib import Path

    import rulezoo
    from rulezoo import Net, RuleSpec, TaskSpec
    from rulezoo_plugins.baselines.backprop import Backprop

    class Waits(Backprop):
        '''Waits in its third step for the file ``go`` beside this one, and says so in ``waits``.'''

        def step(self, net, loss, params, state, batch, noise, t):
            here = Path(__file__).parent
            if t == 0 and type(net) is Net:  # and not one that is watched before the training
                with (here / "begins").open("a") as file:
                    file.write("x")
            if t == 2:
                with (here / "waits").open("a") as file:
                    file.write("x")
                while not (here / "go").exists():
                    time.sleep(0.1)
            return super().step(net, loss, params, state, batch, noise, t)

    class Exits(Backprop):
        def step(self, *args):
            os._exit(3)

    class Raises(Backprop):
        def step(self, *args):
            raise RuntimeError("no way")

    class Abandons(Backprop):
        '''Leaves a process of a session of its own behind.'''

        def step(self, net, loss, params, state, batch, noise, t):
            if t == 0 and type(net) is Net:
                left = subprocess.Popen(["sleep", "3600"], start_new_session=True)
                with (Path(__file__).parent / "left").open("a") as file:
                    file.write(f"{left.pid}\\n")
            return super().step(net, loss, params, state, batch, noise, t)

    class Deaf(Backprop):
        '''Does not hear that the end of its time comes.'''

        def step(self, *args):
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            time.sleep(3600)

    class Greedy(Backprop):
        '''Takes 0.8 GB for each seed that is trained in its process.'''

        def init(self, *args):
            held.append(b"x" * 800_000_000)
            return super().init(*args)

        def step(self, *args):
            if len(held) > 1:
                time.sleep(30)  # until it is ended
            held.clear()  # the next seed may be trained in the same process
            return super().step(*args)

    held = []

    @rulezoo.hookimpl
    def rulezoo_rules():
        names = "waits exits raises abandons deaf greedy".split()
        return [RuleSpec(name, f"{__name__}:{name.title()}", "For tests.") for name in names]

    @rulezoo.hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def daemon(folder, *words, **environ):
    """A daemon in the foreground, which does not survive the block, nor does anything that it started in its group."""
    with (folder / f"{words[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [shutil.which(words[0], path=SBIN), *map(str, words[1:])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **environ},
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.2)
    return answer


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := [name for name in NEEDED if shutil.which(name, path=SBIN) is None]:
        pytest.skip(f"needs SLURM (Debian: slurm-wlm, munge); {', '.join(missing)} not found")
    pytest.importorskip("submitit", reason="needs submitit: pip install 'rulezoo[slurm]'")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    controller, node = free_ports(2)
    config = folder / "slurm.conf"
    memory = int(0.8 * psutil.virtual_memory().total / 2**20)
    words = {"folder": folder, "user": getpass.getuser(), "controller": controller, "node": node,
             "memory": memory, "each": memory // 2}  # fmt: skip
    config.write_text(textwrap.dedent(CONFIG).format(**words), encoding="utf-8")
    munge = ["--foreground", "--force", "--socket", folder / "munge.socket", "--key-file", key,
             "--pid-file", folder / "munge.pid", "--seed-file", folder / "munge.seed",
             "--log-file", folder / "munge.log"]  # fmt: skip
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", str(config))
        patch.setenv("RULEZOO_PLUGINS", "")
        stack.enter_context(daemon(folder, "munged", *munge))
        until((folder / "munge.socket").exists, "munged answers")
        stack.enter_context(daemon(folder, "slurmctld", "-D", "-i", "-f", config))
        stack.enter_context(daemon(folder, "slurmd", "-D", "-N", "here", "-f", config))
        stack.callback(
            subprocess.run, ["scancel", "--full", "--signal=KILL", "--partition=short"], check=False
        )
        until(lambda: output("sinfo", "--noheader", "--format=%T") in ("idle", "mixed"), "the node is there")
        yield folder


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv("RULEZOO_PLUGINS", str(path))
    return path


class Words:
    """A listener that remembers what it was told."""

    def __init__(self):
        self.begun, self.steps, self.over = [], [], {}

    def started(self, job):
        self.begun.append(job.rule)

    def progressed(self, job, done, total):
        assert job.rule in self.begun
        self.steps.append((done, total))

    def finished(self, job, records):
        assert job.rule in self.begun
        self.over[job.rule] = records


def asked(rule, task, seeds, **more):
    return ComparisonRequest(rules=[rule], tasks=[task], seeds=seeds, device="cpu", **more)


def with_seeds(job, *seeds):
    return replace(job, request=replace(job.request, seeds=seeds))


def jobs(folder, *rules):
    return [Job(asked(rule, "tiny", (0, 1), epochs=2, threads=1, checkpoint=1e-6), folder) for rule in rules]


def slurm(**words):
    from rulezoo.executors.slurm import Slurm

    return Slurm(Request.of({"time": "5", **words}), poll=1.0)


def results(folder):
    """(rule, seed) → what the numbers are, without how long it took and where."""
    reading = Store(folder).read()
    assert reading.damaged == []
    return {
        (r.asked.rule, r.asked.seed): (r.status, r.scores, [(p.train_loss, p.validation) for p in r.curve])
        for r in reading.records
    }


def waiting(plugin):
    """How often the rule has begun to wait."""
    file = plugin.parent / "waits"
    return len(file.read_text()) if file.exists() else 0


@contextmanager
def running(work, words):
    """A comparison under way, whose end is waited for; if the block fails, its jobs are cancelled."""
    with ThreadPoolExecutor() as pool:
        comparison = pool.submit(slurm().run, work, words)
        try:
            yield
        except BaseException:
            subprocess.run(["scancel", "--full", "--signal=KILL", "--partition=short"], check=False)
            subprocess.run(["scancel", "--partition=short"], check=False)
            subprocess.run(["scontrol", "update", "NodeName=here", "State=RESUME"], check=False)
            raise
        comparison.result(PATIENCE)


def node(state, *words):
    subprocess.run(["scontrol", "update", "NodeName=here", f"State={state}", *words], check=True)


def steps(number):
    """The processes of SLURM that look after a job on the node."""
    names = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [name for name in names if name.startswith(f"slurmstepd: [{number}.")]


def queue(column):
    return output("squeue", "--noheader", f"--format={column}").split()


@pytest.mark.slow
def test_slurm_yields_what_this_machine_yields_and_failures_are_records(cluster, plugin, tmp_path):
    rules = ("backprop", "feedback-alignment", "raises", "exits", "abandons")
    words = Words()
    slurm().run(jobs(tmp_path / "there", *rules), words)
    Local(1).run(jobs(tmp_path / "here", *rules), Words())
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert {rule: records[0].status for rule, records in words.over.items()} == {
        "backprop": "ok",
        "feedback-alignment": "ok",
        "raises": "error",
        "exits": "crashed",
        "abandons": "ok",
    }
    left = [int(line) for line in (plugin.parent / "left").read_text().splitlines()]
    assert len(left) == 2, "one by each executor"
    assert not any(map(psutil.pid_exists, left))
    assert "with exit code 3; its log: .slurm/" in words.over["exits"][0].reason


@pytest.mark.slow
def test_a_job_that_is_preempted_requeued_or_loses_its_node_loses_nothing(cluster, plugin, tmp_path):
    words = Words()
    with running(jobs(tmp_path / "there", "waits"), words):
        until(lambda: waiting(plugin) == 1, "the job waits")
        until(lambda: words.steps, "how far it is, is told")
        (number,) = queue("%A")
        subprocess.run(["scancel", "--signal=USR2", number], check=True)  # what comes before a pre-emption
        until(lambda: waiting(plugin) == 2, "the job was submitted again, and waits")
        assert queue("%A") == [number]
        subprocess.run(["scontrol", "requeue", number], check=True)  # without a word to the job
        until(lambda: waiting(plugin) == 3, "the job was submitted once more, and waits")
        node("DOWN", "Reason=test")
        until(lambda: not steps(number), "what the node did is dead")
        node("RESUME")
        until(lambda: waiting(plugin) == 4, "the node is there again, and the job waits on it")
        assert words.over == {}
        (plugin.parent / "go").touch()
    assert words.begun == ["waits"]
    assert (plugin.parent / "begins").read_text() == "x", "it went on from its checkpoint"
    Local(1).run(jobs(tmp_path / "here", "waits"), Words())
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert {status for status, _, _ in results(tmp_path / "there").values()} == {"ok"}


@pytest.mark.slow
def test_jobs_end_with_their_time_whether_they_hear_of_it_or_not(cluster, plugin, tmp_path):
    words = Words()
    slurm(time="1", resumes="0").run(jobs(tmp_path, "waits", "deaf"), words)
    assert {(r.status, r.reason) for r in words.over["waits"]} == {
        ("timeout", "took longer than the limit of 1 min, and was not to be resumed (again)")
    }
    assert waiting(plugin) == 1
    for record in words.over["deaf"]:
        assert record.status == "timeout"
        assert record.reason.startswith("SLURM ended its job: TIMEOUT; its log: .slurm/")


@pytest.mark.slow
def test_seeds_that_take_more_memory_than_their_job_has_go_on_in_halves(cluster, plugin, tmp_path):
    words = Words()
    slurm(memory="1.8").run(jobs(tmp_path / "there", "greedy"), words)
    records = words.over["greedy"]
    assert [(r.status, r.answered.seeds_together) for r in records] == [("ok", 1), ("ok", 1)]
    assert words.begun == ["greedy"]
    assert len(list((tmp_path / "there" / ".slurm").glob("*_submitted.pkl"))) == 2, "it was submitted twice"
    one_by_one = [with_seeds(job, n) for job in jobs(tmp_path / "here", "backprop") for n in (0, 1)]
    Local(1).run(one_by_one, Words())
    here = {seed: what for (_, seed), what in results(tmp_path / "here").items()}
    assert {seed: what for (_, seed), what in results(tmp_path / "there").items()} == here


@pytest.mark.slow
def test_a_seed_that_takes_more_memory_than_its_job_has_is_out_of_memory(cluster, plugin, tmp_path):
    words = Words()
    (job,) = jobs(tmp_path, "greedy")
    slurm(memory="0.5").run([with_seeds(job, 0)], words)
    (record,) = words.over["greedy"]
    assert record.status == "oom_host"
    assert re.match(r"SLURM ended its job: .*memory.*; its log: .slurm/", record.reason, re.IGNORECASE)


@pytest.mark.slow
def test_an_interrupt_cancels_the_jobs_and_marks_those_that_had_begun(cluster, plugin, tmp_path):
    command = [sys.executable, "-m", "rulezoo", "compare", "--executor", "slurm", "--rules", "waits",
               "--tasks", "tiny", "--seeds", "2", "--device", "cpu", "--out", tmp_path / "results"]  # fmt: skip
    with hearing(command) as process:
        until(lambda: waiting(plugin), "the job waits")
        time.sleep(6)  # it has to be seen, too
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; finished runs are stored" in err
    until(lambda: not queue("%A"), "no job is left")
    assert {status for status, _, _ in results(tmp_path / "results").values()} == {"interrupted"}


@pytest.mark.slow
def test_jobs_that_a_killed_comparison_left_are_cancelled_and_done_again(cluster, plugin, tmp_path):
    command = [sys.executable, "-m", "rulezoo", "compare", "--executor", "slurm", "--rules", "waits",
               "--tasks", "tiny", "--seeds", "2", "--device", "cpu", "--epochs", "2",
               "--checkpoint", "1e-6", "--out", tmp_path / "there"]  # fmt: skip
    with hearing(command) as process:
        until(lambda: waiting(plugin) == 1, "the job waits")
        process.kill()
    (left,) = queue("%A")
    with hearing(command) as process:
        until(lambda: waiting(plugin) == 2, "another job waits")
        assert left not in queue("%A")
        (plugin.parent / "go").touch()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert (plugin.parent / "begins").read_text() == "x", "it went on from the checkpoint of the other"
    Local(1).run(jobs(tmp_path / "here", "waits"), Words())
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert not list((tmp_path / "there" / ".slurm").glob("*.mark"))


@contextmanager
def hearing(command):
    """A process that hears the interrupt, even where the tests were started deaf to it."""
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            list(map(str, command)), stdout=-1, stderr=-1, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, deaf)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_refusal_of_slurm_is_told_in_its_own_words(cluster, tmp_path, monkeypatch, capfd):
    with pytest.raises(Unreachable, match="invalid partition specified: nowhere"):
        slurm(partition="nowhere").run(jobs(tmp_path, "backprop"), Words())
    text = Path(os.environ["SLURM_CONF"]).read_text(encoding="utf-8")
    dead = tmp_path / "slurm.conf"
    text = text.replace("MessageTimeout=60", "MessageTimeout=5")  # in which SLURM's commands give up
    dead.write_text(re.sub("SlurmctldPort=.*", f"SlurmctldPort={free_ports(1)[0]}", text), encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(dead))
    with pytest.raises(Unreachable, match=r"did not take the jobs; `sbatch` said: .*Unable to contact"):
        slurm().run(jobs(tmp_path, "backprop"), Words())
    assert capfd.readouterr() == ("", "")


def test_without_slurm_that_is_said(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'rulezoo[slurm]'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match=r"no sbatch and no srun and .*a login node"):
        slurm().run(jobs(tmp_path, "backprop"), Words())


@pytest.mark.parametrize(
    ("word", "code", "expected"),
    [
        ("COMPLETED", 0, ("crashed", "its process ended without a word, with exit code 0")),
        ("FAILED", 3 << 8, ("crashed", "its process ended without a word, with exit code 3")),
        ("FAILED", 137 << 8, ("killed", "its process was ended by signal 9")),
        ("TIMEOUT", 0, ("timeout", "SLURM ended its job: TIMEOUT")),
        ("OUT_OF_MEMORY", 137 << 8, ("oom_host", "SLURM ended its job: OUT_OF_MEMORY")),
        ("NODE_FAIL", 0, ("killed", "SLURM ended its job: NODE_FAIL")),
        ("CANCELLED", 0, ("killed", "SLURM ended its job: CANCELLED")),
    ],
)
def test_the_word_of_slurm_becomes_a_status(word, code, expected, tmp_path):
    from rulezoo.executors.slurm_queue import State, exit_reason

    assert exit_reason(State(word, code), tmp_path / "log") == expected


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "slurmstepd-here: error: StepId=3.0 exceeded memory limit (9 > 8), being killed",
            "exceeded memory limit (9 > 8), being killed",
        ),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=3.0.", "oom_kill event in StepId=3.0."),
        ("srun: error: node7: task 0: Out Of Memory", "Out Of Memory"),
    ],
)
def test_a_lack_of_memory_is_read_from_the_log_where_slurm_says_it_there(line, cause, tmp_path):
    from rulezoo.executors.slurm_queue import State, exit_reason

    log = tmp_path / "log"
    log.write_text(f"the job: exceeded memory limit of its own\n{line}\nsrun: error: task 0: Killed\n")
    assert exit_reason(State("FAILED", 137 << 8), log) == ("oom_host", f"SLURM ended its job: {cause}")
    assert exit_reason(State("FAILED", 3 << 8), log)[0] == "crashed"
    log.write_text("the job: exceeded memory limit of its own\n")
    assert exit_reason(State("FAILED", 137 << 8), log)[0] == "killed"


def test_a_job_that_slurm_forgot_is_dead(tmp_path):
    from rulezoo.executors.slurm_queue import exit_reason

    assert exit_reason(None, tmp_path) == ("killed", "SLURM does not know its job any more")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"partion": "long"}, "unknown option of SLURM 'partion'; did you mean 'partition'"),
        ({"time": "1h"}, "--slurm time=1h: Expected int"),
        ({"time": "0"}, "--slurm time=0: Expected int >= 1"),
        ({"gpus": "-1"}, "--slurm gpus=-1: Expected int >= 0"),
        ({"memory": "0"}, "--slurm memory=0: Expected float > 0"),
        ({"partition": "a b"}, "--slurm partition=a b: Expected str matching regex"),
    ],
)
def test_what_slurm_cannot_be_asked_for_is_said(words, sentence):
    with pytest.raises(UserError) as raised:
        Request.of(words)
    assert str(raised.value).startswith(sentence)


def test_what_is_asked_of_slurm_is_what_the_user_wrote():
    request = Request.of({"partition": "long", "time": "120", "cpus": "4", "memory": "7.5", "gpus": "1"})
    assert request.parameters(8) == {
        "partition": "long",
        "time": 120,
        "cpus_per_task": 4,
        "mem": "7680M",
        "gpus_per_node": 1,
        "signal_delay_s": 90,
        "array_parallelism": 8,
        "additional_parameters": {"requeue": True},
    }
    assert not {"partition", "mem", "gpus_per_node"} & set(Request().parameters(None))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch bomb",)


def left(folder, content):
    """What a job is to the comparison that left this as its result."""
    path = folder / "result.pkl"
    path.write_bytes(content)
    handle = SimpleNamespace(paths=SimpleNamespace(result_pickle=path))
    return SimpleNamespace(handle=handle, job=Job(asked("r", "t", (0,)), folder / "store"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(("success", None)), None),
        (pickle.dumps(("error", "Traceback:\n  x\nImportError: no such module\n")), "could not begin: ImportError: no"),
        (pickle.dumps(("success", "no store")), "no store"),
        (pickle.dumps(("success", Bomb())), "its result is none: it names posix.system"),
        (pickle.dumps(3), "its result is none: "),
        (b"rubbish", "its result is none: "),
        (b"", "its result is none: "),
        (bytes(1 << 21), "its result is none: it is larger than"),
    ],
)  # fmt: skip
def test_what_a_job_leaves_as_its_result_is_read_as_data(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    came = _reported_failure(left(tmp_path, content))
    assert came is None if said is None else (came[0] == "error" and said in came[1])
    assert not (tmp_path / "bomb").exists()


def test_a_job_that_says_that_results_cannot_be_stored_is_believed_where_that_is_so(tmp_path):
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        _reported_failure(left(tmp_path, pickle.dumps(("success", "no store"))))


def test_an_exit_of_a_rule_is_its_failure_and_one_of_submitit_is_not(tmp_path, monkeypatch):
    def bye(*args):
        sys.exit("bye")

    monkeypatch.setattr("rulezoo.executors.attempt.work", bye)
    monkeypatch.setattr("rulezoo.executors.attempt.capture", lambda *args: None)
    job = Job(asked("frozen", "digits-cnn", (0,)), tmp_path)
    assert attempt(job) == ("error", "SystemExit: bye")
    with pytest.raises(SystemExit):
        attempt(job, leaving=lambda: True)
