"""Files in a store that are not rulezoo's, such as copies of a file-synchronising service, stop nothing and stay."""

import os
import textwrap
import time

import pytest

from rulezoo.comparison.execution import execute
from rulezoo.comparison.jobs import CHECKPOINTS, work
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.results import groups, journal, logs
from rulezoo.results.status import overview
from rulezoo.results.store import STALE, Store
from rulezoo.tuning import records as tunings

PLUGIN = """
    from rulezoo import TaskSpec, hookimpl

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "tiny_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


class Here:
    """An executor that does every job here, and a listener."""

    def run(self, jobs, listener):
        for job in jobs:
            work(job)

    def planned(self, runs, stored):
        pass


def cells(**more):
    asked = Request(rules=["frozen"], tasks=["tiny"], seeds=(0, 1), device="cpu", epochs=1, **more)
    return plan(discover(), asked)


def foreign(store):
    """Strange files in every folder of a store; their paths."""
    (cell,) = cells()
    key, name = groups.cell_key(cell.asked[0]), groups.name(cell.asked[0], (0, 1))
    paths = [
        store.root / "runs" / "notes.txt",
        store.root / "runs" / "probe",
        store.root / "runs" / ".mine.tmp",
    ]
    for folder in (CHECKPOINTS, logs.FOLDER, journal.FOLDER):
        for end in (
            ".pt.bak", " (conflicted copy).pt", " (conflicted copy).json", " (copy).log", ".bak", "~", ".pt.orig",
        ):  # fmt: skip
            paths.append(store.root / folder / f"{name}{end}")
        for seeds in ("0to99999999", "0to", "to1", "1to2to3", "", "x", "1.", "-1", "²", "9" * 5000):
            paths += [store.root / folder / f"{key}-{seeds[:60]}{end}" for end in (".pt", ".json", ".log")]
        paths.append(store.root / folder / ".notes.tmp")
    paths += [store.root / folder / "README.md" for folder in (".again", ".replaced", ".locks")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"mine": 1}')
        os.utime(path, (time.time() - 2 * STALE,) * 2)
    for folder in (".again", CHECKPOINTS, logs.FOLDER, journal.FOLDER, ".replaced"):
        for inner in ("backup.json", "backup.pt", f"{key}-7.log", f"{key}-7.pt"):
            (store.root / folder / inner).mkdir()
            paths.append(store.root / folder / inner)
    dangling = store.root / logs.FOLDER / f"{key}-8.log"
    dangling.symlink_to("nowhere")
    return [*paths, dangling]


def test_foreign_files_stop_no_comparison_and_stay(store):
    paths = foreign(store)
    execute(cells(checkpoint=0.001), store, Here(), Here())
    execute(cells(retry=["all"], checkpoint=0.001), store, Here(), Here())
    reading = store.read()
    assert [record.status for record in reading.records] == ["ok", "ok"]
    assert reading.damaged == []
    assert [path.name for path in paths if not os.path.lexists(path)] == []
    seen = overview(store, discover())
    assert (seen.planned, seen.finished, seen.running) == (2, 2, [])
    for asked in cells()[0].asked:
        assert logs.of(store, asked) == []
    own = groups.name(cells()[0].asked[0], (0, 1))
    assert not (store.root / CHECKPOINTS / f"{own}.pt").exists(), "what is ours is tidied up"


@pytest.mark.parametrize(
    "name",
    [
        "0to1.pt",
        "0to1 (conflicted copy)",
        "0to99999999",
        "0to",
        "to1",
        "1.",
        "",
        "x",
        "-1",
        "²",
        "1to2to3",
        " 1",
    ],
)
def test_a_name_that_is_none_tells_of_no_seeds(name):
    assert groups.seeds_of(f"0123456789abcdef-{name}") == ()


def test_a_copy_of_a_conclusion_is_no_second_tuning(store):
    folder = store.root / "tuning" / "studies" / "tiny" / "frozen"
    folder.mkdir(parents=True)
    for name in ("tuned-8-0123456789abcdef (copy).json", "notes.json"):
        (folder / name).write_text("{}")
    assert tunings.read(store) == tunings.Conclusions([], [])
    (folder / "tuned-8-0123456789abcdef.json").write_text("{}")
    assert len(tunings.read(store).damaged) == 1, "one of ours that cannot be read is named"


def test_a_copy_of_a_note_is_no_second_training(store):
    asked = cells()[0].asked
    name = groups.name(asked[0], (0, 1))
    with journal.training(store, name, asked):
        path = store.root / journal.FOLDER / f"{name}.json"
        copy = path.with_name(f"{name} (copy).json")
        copy.write_bytes(path.read_bytes())
        assert len(list(journal._notes(store, journal.Training))) == 1
        journal.sweep(store, asked)
        assert copy.exists()
