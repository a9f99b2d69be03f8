"""Which executor the options of the command line ask for, and what does not go together."""

import importlib.util
import os
import textwrap
from dataclasses import replace

import pytest
import torch

from rulezoo.cli.executor import ExecutorOptions, executor_setup
from rulezoo.comparison.jobs import Job
from rulezoo.comparison.request import Request
from rulezoo.errors import UserError
from rulezoo.executors.gpus import VISIBLE, chosen, least_used
from rulezoo.executors.local import Local
from rulezoo.executors.machine import THREADS
from rulezoo.results.store import Store


@pytest.fixture
def gpus(monkeypatch):
    """Make torch find so many GPUs."""

    def have(count):
        monkeypatch.delenv(VISIBLE, raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return have


def test_jobs_are_spread_over_the_gpus():
    in_use = []
    for _ in range(6):
        in_use.append(least_used(("0", "2"), in_use))
    assert in_use == ["0", "2"] * 3
    in_use.remove("2")
    assert least_used(("0", "2"), in_use) == "2"
    assert least_used((), []) is None


def test_gpus_are_called_what_the_environment_calls_them():
    assert chosen("2", 4, {}) == ("0", "1")
    assert chosen("3,1", 4, {}) == ("3", "1")
    assert chosen("2", 2, {VISIBLE: "5, GPU-ab12"}) == ("5", "GPU-ab12")
    assert chosen("0,1", 2, {VISIBLE: "5,7"}) == ("5", "7")


@pytest.mark.parametrize(
    ("wanted", "there", "sentence"),
    [
        ("2", 0, "--gpus 2: torch finds no GPU on this machine; without --gpus it computes on the CPU"),
        ("2", 1, "--gpus 2: torch finds one GPU, with number 0; `--gpus 1` shares out all there is"),
        ("0,4", 4, "--gpus 0,4: torch finds 4 GPUs, with numbers 0 to 3; `--gpus 4` shares"),
        ("all", 4, "--gpus all: expected how many, like 2, or which, like 0,3"),
        ("0", 4, "--gpus 0: expected"),
        ("1,1", 4, "--gpus 1,1: expected"),
        ("-1", 4, "--gpus -1: expected"),
    ],
)
def test_a_gpu_that_is_not_there_is_said(wanted, there, sentence):
    with pytest.raises(UserError) as raised:
        chosen(wanted, there, {})
    assert str(raised.value).startswith(sentence)


def test_the_process_of_a_job_sees_its_gpu_only(tmp_path, monkeypatch):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        textwrap.dedent("""
            import os
            import rulezoo
            from rulezoo import RuleSpec, TaskSpec
            from rulezoo_plugins.baselines.backprop import Backprop

            class Tells(Backprop):
                def skip(self, net, task):
                    return "sees " + os.environ.get("CUDA_VISIBLE_DEVICES", "all")

            @rulezoo.hookimpl
            def rulezoo_rules():
                return [RuleSpec("tells", f"{__name__}:Tells", "For tests.")]

            @rulezoo.hookimpl
            def rulezoo_tasks():
                return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
        """),
        encoding="utf-8",
    )
    monkeypatch.setenv("RULEZOO_PLUGINS", str(plugin))

    class Silent:
        def started(self, job):
            pass

        finished = progressed = lambda self, *words: None

    def seen(name, executor):
        request = Request(rules=["tells"], tasks=["tiny"], device="cpu", threads=1)
        jobs = [Job(replace(request, seeds=(seed,)), tmp_path / name) for seed in range(2)]
        executor.run(jobs, Silent())
        return sorted(record.reason for record in Store(tmp_path / name).read().records)

    monkeypatch.delenv(VISIBLE, raising=False)
    assert seen("all", Local(2)) == ["sees all"] * 2
    assert seen("shared", Local(2, gpus=("3", "GPU-7"))) == ["sees 3", "sees GPU-7"]
    monkeypatch.setenv(VISIBLE, "5")  # set after the server of processes was started
    assert seen("environment", Local(2)) == ["sees 5"] * 2
    monkeypatch.setenv(VISIBLE, "")
    assert seen("none", Local(2)) == ["sees "] * 2


def test_as_many_jobs_as_the_gpus_are_to_hold(gpus):
    gpus(4)
    asked = executor_setup(ExecutorOptions(gpus="2", per_gpu=3), "auto")
    assert asked.device == "cuda"
    assert asked.executor == Local(6, None, ("0", "1"))
    assert executor_setup(ExecutorOptions(), "auto").executor == Local(1)
    assert executor_setup(ExecutorOptions(per_gpu=3), "cuda").executor == Local(3)
    assert executor_setup(ExecutorOptions(jobs=5, gpus="2"), "auto").executor.jobs == 5
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert executor_setup(ExecutorOptions(), "cpu").executor == Local(cores)
    assert executor_setup(ExecutorOptions(memory_limit=1.5), "cpu").executor.memory_limit == 1_500_000_000


@pytest.mark.parametrize(
    ("wanted", "device", "sentence"),
    [
        (ExecutorOptions(executor="slurm", gpus="1"), "auto", "--gpus goes with --executor local, not slurm"),
        (ExecutorOptions(slurm=(("time", "5"),)), "auto", "--slurm goes with --executor slurm, not local"),
        (
            ExecutorOptions(executor="slurm", per_gpu=2),
            "auto",
            "--per-gpu goes with --executor local or ray, not slurm",
        ),
        (ExecutorOptions(gpus="1"), "cpu", "--gpus and --per-gpu are for --device cuda, not cpu"),
        (
            ExecutorOptions(executor="slurm"),
            "cuda",
            "--device cuda: ask the cluster for a GPU, with --slurm gpus=1",
        ),
        (
            ExecutorOptions(executor="ray"),
            "cuda",
            "--device cuda: ask the cluster for a GPU, with --per-gpu 1",
        ),
        (ExecutorOptions(executor="ray"), "mps", "--device mps goes with --executor local"),
        (
            ExecutorOptions(executor="slurm", time_limit=90, slurm=(("time", "5"),)),
            "auto",
            "--time-limit and --slurm time=… say the same",
        ),
    ],
)
def test_what_does_not_go_together_is_said(wanted, device, sentence, monkeypatch):
    monkeypatch.setattr("rulezoo.cli.executor.find_spec", lambda name: True)
    with pytest.raises(UserError) as raised:
        executor_setup(wanted, device)
    assert str(raised.value).startswith(sentence)


def test_the_clusters_compute_where_they_were_asked_for_a_gpu(monkeypatch):
    monkeypatch.setattr("rulezoo.cli.executor.find_spec", lambda name: True)
    asked = executor_setup(ExecutorOptions(executor="slurm", slurm=(("gpus", "1"), ("cpus", "4"))), "auto")
    assert (asked.device, asked.threads) == ("cuda", 4)
    assert executor_setup(ExecutorOptions(executor="slurm"), "auto").device == "cpu"
    assert executor_setup(ExecutorOptions(executor="ray", per_gpu=4), "auto").executor.per_gpu == 4
    assert executor_setup(ExecutorOptions(executor="ray"), "auto").executor.per_gpu is None


def test_a_time_limit_in_seconds_becomes_whole_minutes_of_one_turn(monkeypatch):
    monkeypatch.setattr("rulezoo.cli.executor.find_spec", lambda name: True)
    request = executor_setup(ExecutorOptions(executor="slurm", time_limit=90.5), "cpu").executor.request
    assert (request.time, request.resumes) == (2, 0)


@pytest.mark.parametrize(("executor", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_what_is_not_installed_is_said_with_how_to_install_it(executor, module, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "rulezoo.cli.executor.find_spec", lambda name: None if name == module else found(name)
    )
    with pytest.raises(UserError, match=rf"needs {module}: pip install 'rulezoo\[{executor}\]'"):
        executor_setup(ExecutorOptions(executor=executor), "cpu")


@pytest.mark.parametrize(
    ("environ", "jobs", "threads"),
    [
        ({}, 1, 8),
        ({}, 3, 2),
        ({"OMP_NUM_THREADS": "1"}, 1, 1),
        ({"OMP_NUM_THREADS": "3,2"}, 1, 3),
        ({"MKL_NUM_THREADS": "2"}, 1, 2),
        ({"OMP_NUM_THREADS": "16"}, 2, 4),
        ({"OMP_NUM_THREADS": "many"}, 2, 4),
        ({"OMP_NUM_THREADS": "0"}, 2, 4),
    ],
)
def test_a_training_has_its_share_of_the_cores_and_no_more_threads_than_the_environment_allows(
    monkeypatch, environ, jobs, threads
):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rulezoo.executors.machine.cores", lambda: 8)
    assert executor_setup(ExecutorOptions(jobs=jobs), "cpu").threads == threads
