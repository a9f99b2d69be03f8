"""A store may be published: nothing in it names a machine, a user or a folder."""

import platform
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.results import groups, journal, logs
from rulezoo.results.provenance import anonymous
from rulezoo.results.records import Hardware, Plugin, Probe, Provenance, Record, RunSpec
from rulezoo.results.store import Store
from rulezoo.tuning import records as tunings

ASKED = RunSpec(
    protocol=1,
    rule="nmnc",
    rule_version=1,
    rule_options={},
    task="digits-cnn",
    task_version=1,
    task_options={},
    budget={"epochs": 1},
    seed=0,
    device="cpu",
)
ANSWERED = Provenance(
    packages={},
    rule_plugin=Plugin(distribution="rulezoo"),
    task_plugin=Plugin(distribution="rulezoo"),
    hardware=Hardware(cpu="Laptop", cores=8, threads=4),
    commit=None,
    dirty=None,
    started="2026-01-01",
    finished="2026-01-01",
    seeds_together=1,
    mode="single",
)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "janes-laptop.lab.example")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))


def record(**changes):
    fields = {"status": "ok", "scores": {"test": 0.5}, "chance": 0.1, "metric": "accuracy"}
    return Record(asked=ASKED, answered=ANSWERED, **(fields | changes))


def content(folder):
    return "\n".join(f"{path}\n{path.read_text()}" for path in folder.rglob("*") if path.is_file())


def private(text):
    return [word for word in ("jane", "janes-laptop", "/home", "/data") if word in text]


def test_messages_hold_no_name_of_machine_or_user():
    said = "janes-laptop: no file /data/jane/x.bin of jane (janes-laptop.lab.example)"
    assert anonymous(said) == "…: no file …/x.bin of … (…)"
    assert anonymous("janette of plain-janes-laptops") == "janette of plain-janes-laptops"


def test_notes_hold_no_host_and_no_process(tmp_path):
    store = Store(tmp_path)
    with journal.comparison(store, [ASKED]), journal.training(store, "0-0", [ASKED]):
        under_way = content(tmp_path / journal.FOLDER)
    for text in (under_way, content(tmp_path / journal.FOLDER)):
        assert '"asked"' in text
        assert not private(text)
        assert '"host"' not in text
        assert '"pid"' not in text


def test_logs_lose_their_paths_when_a_comparison_has_ended(tmp_path):
    store = Store(tmp_path)
    mine = store.folder(logs.FOLDER) / f"{groups.name(ASKED, [0])}.log"
    mine.write_text("/home/jane/rule.py:3: UserWarning\nhello from janes-laptop\n")
    other = msgspec.structs.replace(ASKED, task="digits-rnn")
    theirs = store.folder(logs.FOLDER) / f"{groups.name(other, [0])}.log"
    theirs.write_text("/home/jane/under_way.py\n")
    logs.anonymise(store, [ASKED])
    assert mine.read_text() == "…/rule.py:3: UserWarning\nhello from …\n"
    assert theirs.read_text() == "/home/jane/under_way.py\n"  # another comparison may be at work on it


def test_publish_copies_records_and_nothing_else(tmp_path):
    store = Store(tmp_path / "results")
    store.put(
        record(
            status="error", reason="no /data/jane/x", probes=[Probe(step=0, epoch=0, reason="/home/jane/a b")]
        )
    )
    tunings.trials_of(store).put(record(scores={"validation": 0.5}))
    tried = tunings.Tried(set={}, runs=[], status="ok", validation=0.5)
    tuned = tunings.Tuned(
        asked=ASKED, given={}, n=2, trials=[tried], best=0, seeds=[1000], sampler="a sampler"
    )
    tunings.put(store, "0123456789abcdef", tuned)
    for name in (".progress", ".logs", ".locks", ".checkpoints"):
        (store.folder(name) / "file").write_text("/home/jane on janes-laptop")
    (store.root / "runs" / "digits-cnn" / "nmnc" / "broken.json").write_text("/home/jane")
    to = tmp_path / "published"
    done = CliRunner().invoke(cli, ["leaderboard", "--out", str(store.root), "--publish", str(to)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{to}: 2 records\n"
    assert "left out: runs/digits-cnn/nmnc/broken.json" in done.stderr
    assert {path.relative_to(to).parts[0] for path in to.rglob("*") if path.is_file()} == {"runs", "tuning"}
    assert not private(content(to).replace(str(tmp_path), ""))
    assert Store(to).read().records == store.read().records
    assert tunings.read(Store(to)).tunings == [tuned]


def test_publish_does_not_mix_with_what_is_there(tmp_path):
    store = Store(tmp_path / "results")
    store.put(record())
    done = CliRunner().invoke(cli, ["leaderboard", "--out", str(store.root), "--publish", str(store.root)])
    assert done.exit_code == 2
    assert "must be a new or an empty folder" in done.stderr
