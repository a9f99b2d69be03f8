"""A real Ray cluster of two nodes on this machine, one of which is killed in the middle."""

import ipaddress
import json
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from rulezoo.comparison.executor import Unreachable
from rulezoo.comparison.jobs import Job
from rulezoo.comparison.request import Request
from rulezoo.executors.local import Local
from rulezoo.executors.ray import Ray, _check_loopback
from rulezoo.results.store import Store

MEMORY = 1_800_000_000  # bytes that the first node is said to have
PATIENCE = 240.0  # seconds after which something will not happen any more

PLUGIN = """
    import os, time
    from pathlib import Path

    import rulezoo
    from rulezoo import Net, RuleSpec, TaskSpec
    from rulezoo_plugins.baselines.backprop import Backprop

    class Waits(Backprop):
        '''Waits in its third step for the file ``go`` beside this one, and puts its process into ``waits``.'''

        def step(self, net, loss, params, state, batch, noise, t):
            here = Path(__file__).parent
            if t == 0 and type(net) is Net:  # and not one that is watched before the training
                with (here / "begins").open("a") as file:
                    file.write("x")
            if t == 2:
                with (here / "waits").open("a") as file:
                    file.write(f"{os.getpid()}\\n")
                while not (here / "go").exists():
                    time.sleep(0.1)
            return super().step(net, loss, params, state, batch, noise, t)

    class Exits(Backprop):
        def step(self, *args):
            os._exit(3)

    class Raises(Backprop):
        def step(self, *args):
            raise RuntimeError("no way")

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

    class Hangs(Backprop):
        def step(self, *args):
            time.sleep(3600)

    @rulezoo.hookimpl
    def rulezoo_rules():
        names = "waits exits raises hangs greedy".split()
        return [RuleSpec(name, f"{__name__}:{name.title()}", "For tests.") for name in names]

    @rulezoo.hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(
            "RAY_worker_niceness", "0"
        )  # else other processes of a busy machine keep the workers waiting
        patch.delenv("RAY_ADDRESS", raising=False)
        pytest.importorskip("ray", reason="needs ray: pip install 'rulezoo[ray]'")
        from ray.cluster_utils import Cluster

        made = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "memory": MEMORY}
        )
        try:
            yield made
        finally:
            made.shutdown()


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


def with_seeds(job, *seeds):
    return replace(job, request=replace(job.request, seeds=seeds))


def jobs(folder, *rules):
    return [
        Job(
            Request(
                rules=[rule], tasks=["tiny"], seeds=(0, 1), device="cpu", epochs=2, threads=1, checkpoint=1e-6
            ),
            folder,
        )
        for rule in rules
    ]


def results(folder):
    """(rule, seed) → what the numbers are, without how long it took and where."""
    reading = Store(folder).read()
    assert reading.damaged == []
    return {
        (r.asked.rule, r.asked.seed): (r.status, r.reason, r.scores, [p.train_loss for p in r.curve])
        for r in reading.records
    }


@pytest.mark.slow
def test_ray_yields_what_this_machine_yields_and_failures_are_records(cluster, plugin, tmp_path, capfd):
    rules, words = ("backprop", "feedback-alignment", "raises", "exits", "hangs"), Words()
    Ray(cluster.address, time_limit=15).run(jobs(tmp_path / "there", *rules), words)
    Local(1).run(jobs(tmp_path / "here", *rules[:-1]), Words())
    there, here = results(tmp_path / "there"), results(tmp_path / "here")
    assert {key: there[key] for key in here} == here
    assert {rule: records[0].status for rule, records in words.over.items()} == {
        "backprop": "ok",
        "feedback-alignment": "ok",
        "raises": "error",
        "exits": "crashed",
        "hangs": "timeout",
    }
    assert words.steps
    assert capfd.readouterr().out == "", "stdout is for results"


@pytest.mark.slow
def test_a_job_whose_node_dies_is_done_on_another(cluster, plugin, tmp_path, capfd):
    words = Words()

    def waiting():
        file = plugin.parent / "waits"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def work(folder):
        return [
            *jobs(folder, "waits"),
            with_seeds(jobs(folder, "waits")[0], 2, 3),
            *jobs(folder, "backprop"),
        ]

    with ThreadPoolExecutor() as pool:
        running = pool.submit(Ray(cluster.address).run, work(tmp_path / "there"), words)
        try:
            until(lambda: len(waiting()) == 1, "a job waits on the first node, which is the comparison's own")
            other = cluster.add_node(num_cpus=1)
            until(lambda: len(waiting()) == 2, "a job waits on the second node")
            cluster.remove_node(other, allow_graceful=False)
            until(lambda: not psutil.pid_exists(waiting()[1]), "what it did is dead, too")
        finally:
            (plugin.parent / "go").touch()
        running.result(PATIENCE)
    assert len(waiting()) == 3, "what the dead node had begun was done again, and nothing else"
    assert (plugin.parent / "begins").read_text() == "xx", "it went on from its checkpoint"
    Local(1).run(work(tmp_path / "here"), Words())
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert len(results(tmp_path / "there")) == 6
    assert {status for status, *_ in results(tmp_path / "there").values()} == {"ok"}
    assert capfd.readouterr().out == "", "stdout is for results"


@pytest.mark.slow
def test_seeds_that_take_more_than_their_share_of_a_node_go_on_in_halves(cluster, plugin, tmp_path):
    words = Words()
    Ray(cluster.address).run(jobs(tmp_path, "greedy"), words)
    records = words.over["greedy"]
    assert [(r.status, r.answered.seeds_together) for r in records] == [("ok", 1), ("ok", 1)]


@pytest.mark.slow
def test_a_gpu_that_the_cluster_has_not_is_said_at_once(cluster, tmp_path):
    with pytest.raises(Unreachable, match="has no GPU, and would wait for one for ever"):
        Ray(cluster.address, per_gpu=2).run(jobs(tmp_path, "backprop"), Words())


def test_a_cluster_that_does_not_answer_is_said_at_once(tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install 'rulezoo[ray]'")
    with pytest.raises(Unreachable, match=r"no Ray cluster answers at 127\.0\.0\.1:1: .*refused; start one"):
        Ray("127.0.0.1:1").run(jobs(tmp_path, "backprop"), Words())


LISTENING = """if True:
    import ipaddress, json, psutil
    from rulezoo.executors.ray import _cluster

    with _cluster(None) as ray:
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        me = psutil.Process()
        found = []
        for process in [me, *me.children(recursive=True)]:
            for one in process.net_connections(kind="inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.append((process.name(), one.laddr.ip))
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_cluster_of_rulezoo_s_own_listens_on_the_loopback_interface_alone():
    pytest.importorskip("ray", reason="needs ray: pip install 'rulezoo[ray]'")
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, _ in found} >= {"gcs_server", "raylet"}
    addresses = [ipaddress.ip_address(address) for _, address in found]
    assert [str(one) for one in addresses if not (getattr(one, "ipv4_mapped", None) or one).is_loopback] == []


def test_a_ray_that_would_listen_elsewhere_is_refused():
    with pytest.raises(Unreachable, match=r"would listen at 192\.0\.2\.2, where others can reach it"):
        _check_loopback("192.0.2.2")
    _check_loopback("127.0.0.1")
    _check_loopback("::1")
