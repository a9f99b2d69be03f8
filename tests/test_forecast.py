"""A dry run: what a comparison would take, from what is stored, and nothing is run or written."""

import math
import re
import textwrap
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from click.testing import CliRunner

from rulezoo import datasets
from rulezoo.cli import cli
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.datasets.cache import CacheError, estimating
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.results.records import Cost, Hardware, Plugin, Point, Provenance, Record
from rulezoo.results.store import Store
from rulezoo.tuning import records, study
from rulezoo.tuning.forecast import forecast, forecast_cells

PLUGIN = """
    from dataclasses import dataclass

    import torch

    from rulezoo import Data, DataMissing, RuleSpec, TaskSpec, datasets, hookimpl, hp
    from rulezoo.testing import TinyTask

    @dataclass(frozen=True)
    class Far(TinyTask):
        def data(self, root, *, download=False):
            raise DataMissing(f"looked in {root}, found nothing")

    @dataclass(frozen=True)
    class Breaks(TinyTask):
        def data(self, root, *, download=False):
            return 1 / 0

    @dataclass(frozen=True)
    class Sized(TinyTask):
        batches: int = hp(3, "batches of training examples", low=1)
        wide: bool = hp(False, "another network")

        def network(self):
            return torch.nn.Linear(4, 30 if self.wide else 3)

        def data(self, root, *, download=False):
            return Data(self.draw(16 * self.batches, 0), self.draw(16, 1), self.draw(16, 2))

    @hookimpl
    def rulezoo_tasks():
        sized = TaskSpec("sized", f"{__name__}:Sized", "Tiny, of any size.", embedded=True)
        tiny = TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)
        far = TaskSpec("far", f"{__name__}:Far", "Tiny, and far away.")
        return [tiny, sized, far, TaskSpec("breaks", f"{__name__}:Breaks", "Tiny, and broken.")]
"""
HERE = Hardware(cpu="A", cores=4, threads=1)


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))
    for name in ("RULEZOO_RESULTS", "RULEZOO_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def request(*rules, **more):
    asked = {
        "rules": rules or ["backprop"],
        "tasks": ["tiny"],
        "seeds": (0, 1),
        "device": "cpu",
        "epochs": 10,
    }
    return Request(**{**asked, **more})


def put(
    store,
    asked,
    *,
    parameters=1000,
    step_ms=5.0,
    together=2,
    hardware=HERE,
    peak=None,
    status="ok",
    compiled=False,
):
    """Store a run of every cell that is asked for: 6 steps an epoch."""
    for cell in plan(discover(), asked):
        epochs = cell.budget.epochs
        for one in cell.asked:
            answered = Provenance(
                packages={}, rule_plugin=Plugin(distribution="a"), task_plugin=Plugin(distribution="a"),
                hardware=hardware, commit=None, dirty=None, started="2026-01-01T00:00:00+00:00",
                finished="2026-01-01T00:01:00+00:00", seeds_together=together, mode="vmap", compiled=compiled,
            )  # fmt: skip
            cost = Cost(step_ms=step_ms, backprop_step_ms=1, ratio=step_ms, peak_memory_mb=peak)
            store.put(
                Record(
                    asked=one, answered=answered, status=status, changed=cell.changed,
                    scores={"validation": 0.5, "test": 0.5}, chance=1 / 3, metric="accuracy", parameters=parameters,
                    cost=cost, curve=[Point(step=6 * e, epoch=e, validation=0.5) for e in range(1, epochs + 1)],
                )
            )  # fmt: skip


def of(asked, store, hardware=HERE):
    (found,) = forecast(asked, discover(), store, hardware)
    return found


def test_without_stored_runs_nothing_is_known_but_the_number_of_runs(store):
    found = of(request("backprop", "frozen"), store)
    assert (found.task, found.runs, found.stored, found.to_do, found.unknown) == ("tiny", 4, 0, 4, 4)
    assert (found.seconds, found.peak_mb, found.record_bytes) == (0, None, None)
    assert (found.weight_bytes, found.cache_bytes, found.problem) == (0, 0, "")


def test_the_time_is_that_of_the_steps_of_runs_like_these(store):
    """Two seeds share steps of 5 ms, 6 an epoch: a run of 10 epochs takes 0.15 s; eight are missing."""
    put(store, request(epochs=2))
    put(store, request(seeds=(0,)))
    found = of(request(seeds=range(9)), store)
    assert (found.runs, found.stored, found.to_do, found.unknown) == (9, 1, 8, 0)
    assert found.seconds == pytest.approx(8 * 10 * 6 * 0.005 / 2)


def test_runs_with_the_same_options_count_before_others(store):
    put(store, request(epochs=1), step_ms=5)
    put(store, request(epochs=1, options={"backprop": {"lr": "0.5"}}), step_ms=50)
    assert of(request(), store).seconds == pytest.approx(2 * 10 * 6 * 0.005 / 2)
    other = of(request(options={"backprop": {"lr": "0.1"}}), store)
    assert other.seconds == pytest.approx(2 * 10 * 6 * 0.0275 / 2)  # of all options, the median


def sized(batches, **more):
    words = {"batches": str(batches), **more}
    return request(tasks=["sized"], options={"sized": words})


def test_the_time_of_a_step_is_that_of_the_same_network_on_other_data(store):
    """Two seeds share steps of 5 ms; the other data have 7 batches, and there are 10 epochs of two runs."""
    put(store, sized(3), parameters=15)
    assert of(sized(7), store).seconds == pytest.approx(2 * 10 * 7 * 0.005 / 2)
    assert of(sized(7, wide="true"), store).unknown == 2  # it has other parameters
    slower = replace(sized(7), options={"sized": {"batches": "7"}, "backprop": {"lr": "0.3"}})
    assert of(slower, store).unknown == 0  # the learning rate takes no time


def test_cells_are_forecast_by_the_runs_of_other_stores(store, tmp_path):
    other = Store(tmp_path / "other")
    put(other, request(epochs=1))
    cells = plan(discover(), request())
    (found,) = forecast_cells(cells, store, [other], HERE)
    assert (found.runs, found.stored) == (2, 0)
    assert found.seconds == pytest.approx(2 * 10 * 6 * 0.005 / 2)
    (alone,) = forecast_cells(cells, store, [], HERE)
    assert alone.unknown == 2


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ({"hardware": Hardware(cpu="B", cores=4, threads=1)}, {}),
        ({"hardware": Hardware(cpu="A", cores=4, threads=2)}, {}),
        ({"hardware": Hardware(cpu="A", cores=4, threads=1, gpu="G")}, {}),
        ({"compiled": True}, {}),
        ({"status": "diverged"}, {}),
        ({}, {"options": {"tiny": {"kind": "rnn"}}}),
        ({}, {"budget": {"batch": "8"}}),
        ({}, {"precision": "bfloat16"}),
        ({}, {"rules": ["frozen"]}),
    ],
)
def test_the_time_of_runs_under_other_conditions_says_nothing(store, stored, asked):
    put(store, request(epochs=1), **stored)
    found = of(request(**asked), store)
    assert (found.seconds, found.unknown) == (0, 2)


def test_on_a_cluster_the_time_is_not_known(store):
    put(store, request(epochs=1))
    assert of(request(), store, None).unknown == 2


def test_on_a_gpu_the_threads_do_not_matter(store):
    put(store, request(epochs=1), hardware=Hardware(cpu="A", cores=4, threads=2, gpu="G"))
    assert of(request(), store, Hardware(cpu="B", cores=8, threads=1, gpu="G")).unknown == 0


def test_memory_and_disk_are_those_of_runs_like_these(store):
    put(store, request(epochs=1, seeds=(0,)), peak=100.0)
    put(store, request(epochs=1, seeds=(1,)), peak=300.0)
    size = sum(path.stat().st_size for path in store.root.glob("runs/**/*.json")) / 2
    found = of(request(seeds=range(3), keep_weights=True), store)
    assert found.peak_mb == 300
    assert found.record_bytes == pytest.approx(3 * size, abs=1)
    assert found.weight_bytes == 3 * 4 * 1000


def test_a_run_that_lacks_what_is_asked_for_or_is_wanted_again_is_to_do(store):
    put(store, request())
    assert of(request(), store).to_do == 0
    assert of(request(probes=2), store).to_do == 2
    assert of(request(retry=["all"]), store).to_do == 2


def test_each_value_of_a_grid_counts(store):
    assert of(request(options={"backprop": {"lr": "0.1,0.2,0.3"}}), store).runs == 6


def scored(cells, store):
    """Stands for the trials of a tuning: the default is the best."""
    for cell in cells:
        score = 0.9 if "lr" not in cell.rule_words else 0.5
        put(store, cell.request)
        for asked in cell.asked:
            record = store.get(asked)
            store.put(msgspec.structs.replace(record, scores={"validation": score}))


def test_a_tuning_counts_with_its_trials_and_winners(store):
    asked = request(trials=6)
    found = of(asked, store)
    assert (found.runs, found.stored) == (2 + 6 * len(study.SEEDS) + 2, 0)  # defaults, trials, winners
    done = study.tune(plan(discover(), asked), 4, discover(), store, scored)
    assert [len(one.trials) for one in done] == [4]
    found = of(asked, store)
    assert (found.runs, found.stored) == (2 + 12 + 2, 8)
    study.tune(plan(discover(), asked), 6, discover(), store, scored)
    found = of(asked, store)
    assert (found.runs, found.stored) == (2 + 12, 12)  # the default won
    before = sorted(records.trials_of(store).root.rglob("*"))
    of(asked, store)
    assert sorted(records.trials_of(store).root.rglob("*")) == before


def test_where_nothing_can_be_searched_there_is_one_trial(store):
    found = of(request(trials=6, options={"backprop": {"lr": "0.1"}}), store)
    assert found.runs == 2 + len(study.SEEDS) + 2


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("far", "looked in None, found nothing"),
        ("breaks", "data() of task 'breaks' failed: ZeroDivisionError"),
    ],
)
def test_data_that_cannot_be_used_are_named(store, task, said):
    found = of(request(tasks=[task]), store)
    assert found.cache_bytes is None
    assert said in found.problem


# Packed caches


@pytest.fixture
def images(tmp_path):
    from PIL import Image

    for name in ("one", "two"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_a_cache_that_is_missing_is_estimated_to_the_byte_and_not_written(images, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with estimating() as sizes:
        split = datasets.packed(datasets.ImageFolder(images, 16))
    assert sizes == [10 * 3 * 16 * 16]
    assert sorted(tmp_path.rglob("*")) == before
    assert (len(split.x), split.y.tolist()) == (10, [0] * 5 + [1] * 5)
    with pytest.raises(CacheError, match="10 examples cannot be read: their packed cache is not written yet"):
        split.x.read(torch.arange(10))
    datasets.packed(datasets.ImageFolder(images, 16))
    (content,) = tmp_path.rglob("images.npy")
    assert 0 <= content.stat().st_size - sizes[0] < 1000  # numpy's header
    with estimating() as sizes:
        datasets.packed(datasets.ImageFolder(images, 16))
    assert sizes == []


def test_the_caches_of_a_task_are_part_of_the_disk_space(images, tmp_path, store):
    options = {"image-folder": {"folder": str(images), "classes": "2", "size": "16"}}
    asked = request(tasks=["image-folder"], options=options, data=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = of(asked, store)
    assert (found.problem, found.cache_bytes) == ("", 10 * 3 * 16 * 16)
    assert sorted(tmp_path.rglob("*")) == before


# The command


def command(*words):
    fixed = ["--tasks", "tiny", "--device", "cpu", "--out", "results"]
    return CliRunner().invoke(cli, ["compare", *fixed, "--dry-run", *words])


def test_a_dry_run_shows_a_line_for_each_task_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "rulezoo.tuning.comparing.compare", lambda *args: pytest.fail("nothing was to be run")
    )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = command("--rules", "backprop,frozen", "--seeds", "5")
    assert done.exit_code == 0, done.output
    assert re.search(
        r"^tiny  10    0       10     not known       not known  not known$", done.output, re.MULTILINE
    )
    assert "10 runs, 10 to do; computing time: not known; disk: not known" in done.output
    assert done.output.endswith("Nothing was run or written.\n")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_dry_run_with_stored_runs_shows_time_and_disk(store, monkeypatch):
    monkeypatch.setattr("rulezoo.cli.forecast._hardware", lambda request, wanted: HERE)
    put(store, request(epochs=1), step_ms=60_000, peak=250)
    done = command("--rules", "backprop,frozen", "--seeds", "2", "--epochs", "10")
    assert re.search(r"1:00:00 for 2 runs, not known for 2 +250 MB +\d[\d.]* kB", done.output), done.output
    done = command("--rules", "backprop", "--seeds", "2", "--epochs", "1")
    assert re.search(r"^tiny  2     2       0      none            none    none$", done.output, re.MULTILINE)


def test_a_dry_run_is_not_asked_about_and_does_not_save():
    lrs = ",".join(str(math.ldexp(1, -k)) for k in range(300))
    done = command("--rules", "backprop", "--seeds", "5", "-o", f"backprop.lr={lrs}")
    assert done.exit_code == 0, done.output
    assert "1,500" in done.output
    refused = command("--save-config", "saved.toml")
    assert refused.exit_code == 2
    assert "--dry-run writes nothing, and --save-config writes a file; give one of them" in refused.output
    assert not Path("saved.toml").exists()
