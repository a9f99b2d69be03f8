"""Whatever stands in the files of a store, the commands that read it end with a table or a sentence, not a traceback."""

import hashlib
import json
import re
from datetime import UTC, datetime

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulezoo.cli import cli
from rulezoo.results import journal
from rulezoo.results.records import Cost, Hardware, Plugin, Point, Probe, Provenance, Record, RunSpec
from rulezoo.results.store import Store
from rulezoo.tuning import records as tunings

ANSWERED = Provenance(
    packages={"rulezoo": "0.1.0"},
    rule_plugin=Plugin(distribution="rulezoo"),
    task_plugin=Plugin(distribution="rulezoo"),
    hardware=Hardware(cpu="Laptop", cores=8, threads=4),
    commit="0123456789abcdef",
    dirty=False,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    seeds_together=1,
    mode="single",
)
EVIL = "\x1b]0;owned\x07\x1b[31m$\\frac{$<b>"
DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
READING = (
    *(["leaderboard", "--format", form] for form in ("table", "csv", "md", "latex", "json")),
    ["status"],
    ["logs", "nmnc", "1"],
    ["claims", "list"],
    ["claims", "report"],
)


def asked(rule="nmnc", seed=0, **changes):
    fields = {
        "protocol": 1,
        "rule": rule,
        "rule_version": 1,
        "rule_options": {"sigma": 0.1, "perturbations": 4},
        "task": "digits-cnn",
        "task_version": 1,
        "task_options": {"width": 1.0},
        "budget": {"epochs": 2, "batch": 32, "lr": 1e-3},
        "seed": seed,
        "device": "cpu",
    }
    return RunSpec(**(fields | changes))


def record(rule="nmnc", seed=0, changed=("sigma",), **changes):
    sites = {"conv1.post": {"angle": 60.0, "units": 8.0}, "fc.post": {"angle": 40.0, "units": 4.0}}
    fields = {
        "status": "ok",
        "scores": {"validation": 0.8, "test": 0.5 + 0.1 * seed},
        "chance": 0.1,
        "metric": "accuracy",
        "curve": [Point(step=40 * e, epoch=e, train_loss=1.0, validation=0.4 * e) for e in (1, 2)],
        "cost": Cost(step_ms=2, backprop_step_ms=1, ratio=2),
        "logs": {"norm": [1.0, 2.0]},
        "probes": [Probe(step=e, epoch=e, sites=sites, weights={"*": {"angle": 50.0}}) for e in (0, 2)],
        "parameters": 10,
    }
    return Record(
        asked=changes.pop("asked", None) or asked(rule, seed),
        answered=ANSWERED,
        changed=list(changed),
        **(fields | changes),
    )


def written(store, note):
    """Keep a note under the name that it has."""
    (store.root / journal.FOLDER / f"{journal._name(note)}.json").write_bytes(msgspec.json.encode(note))


def filled(root):
    """A store with runs, a failed one, a tuning and notes of what is under way."""
    store = Store(root)
    for rule in ("backprop", "nmnc"):
        for seed in (0, 1):
            store.put(record(rule, seed))
    store.put(record("frozen", 0, status="error", reason="no way", traceback="Traceback", scores={}))
    tried = [
        tunings.Tried(set={"sigma": s} if s else {}, runs=[], status="ok", validation=0.5) for s in (0, 1)
    ]
    tunings.put(
        store,
        "0123456789abcdef",
        tunings.Tuned(
            asked=asked("backprop"), given={}, n=2, trials=tried, best=1, seeds=[1000], sampler="a sampler"
        ),
    )
    question = {
        "rule_options": {"weight_decay": 0, "sigma": 0.1},
        "task_options": {},
        "budget": {"epochs": 30},
    }
    for seed in (0, 1):
        of_claim = asked("backprop", seed, **question)
        probes = [Probe(step=e, epoch=e, sites={"fc.post": {"alpha": 0.5, "units": 4.0}}) for e in range(6)]
        Store(root / "alignment" / "quick").put(record(asked=of_claim, seed=seed, changed=(), probes=probes))
    now = datetime.now(UTC).isoformat()
    notes = (
        journal.Training(asked=[asked()], began=now, step=2, total=4, seconds=1.0),
        journal.Comparison(began=now, token="0123", asked=[asked(), asked(seed=1)]),
    )
    store.folder(journal.FOLDER)
    for note in notes:
        written(store, note)
    return store


def files(store):
    return sorted(store.root.rglob("*.json"))


def read(store, commands=READING):
    """Run the commands; each must end in an orderly way, and print nothing that a terminal obeys."""
    for command in commands:
        done = CliRunner().invoke(cli, [*command, "--out", str(store.root)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code in (0, 2), command
        assert not CONTROL.search(done.output), command


def sealed(path, body):
    """Write a body, of a record with the digest that fits it."""
    if "digest" in body:
        body = {name: value for name, value in body.items() if name != "digest"}
        try:
            body["digest"] = hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()
        except OverflowError:  # an integer that no record holds
            body["digest"] = ""
    path.write_text(json.dumps(body))


def places(value, path=()):
    """The path of every value in some JSON, with the value."""
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def changed(body, path, value):
    if not path:
        return value
    copy = body.copy()
    copy[path[0]] = changed(body[path[0]], path[1:], value)
    return copy


def renamed(body, path):
    """The same with the key at the end of a path replaced by a hostile one."""
    *way, last = path
    owner = body
    for key in way:
        owner = owner[key]
    if isinstance(owner, list):
        return body
    return changed(body, way, {EVIL if name == last else name: value for name, value in owner.items()})


NUMBERS = [1e308, -1e308, 1e99, -2.0, 0, 1, 7, 1e18, 2**63, 10**400, 0.5]
TEXTS = ["", EVIL, "x" * 5000, "ok", "error", "9999", "nmnc"]
OTHERS = [True, None, [], {}, [[EVIL]], [EVIL], {EVIL: EVIL}, {EVIL: 1e99}]


def replacement(data, old):
    """Something hostile for a value, more often than not of the same type."""
    alike = {int: NUMBERS, float: NUMBERS, str: TEXTS}.get(type(old), OTHERS)
    return data.draw(st.sampled_from(data.draw(st.sampled_from([alike, alike, NUMBERS + TEXTS + OTHERS]))))


def mutated(data, path):
    """Change a file in one place."""
    text = path.read_text()
    body = json.loads(text)
    match data.draw(st.sampled_from(["value", "value", "value", "key", "cut", "deep", "bytes"])):
        case "value":
            place, old = data.draw(st.sampled_from(list(places(body))))
            new = changed(body, place, replacement(data, old))
            sealed(path, new) if isinstance(new, dict) else path.write_text(json.dumps(new))
        case "key":
            sealed(path, renamed(body, data.draw(st.sampled_from([p for p, _ in places(body) if p]))))
        case "cut":
            path.write_text(text[: data.draw(st.integers(0, len(text)))])
        case "deep":
            path.write_text(DEEP)
        case "bytes":
            path.write_bytes(data.draw(st.binary(max_size=40)))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_change_of_a_file_breaks_a_command_that_reads_it(tmp_path_factory, data):
    store = filled(tmp_path_factory.mktemp("store"))
    for file in data.draw(st.lists(st.sampled_from(files(store)), min_size=1, unique=True)):
        mutated(data, file)
    read(store)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_change_of_a_file_breaks_the_report(tmp_path_factory, data):
    store = filled(tmp_path_factory.mktemp("store"))
    for file in data.draw(st.lists(st.sampled_from(files(store)), min_size=1, unique=True)):
        mutated(data, file)
    read(store, [["leaderboard", "--html", str(tmp_path_factory.mktemp("html"))]])


def altered(store, kind, path, value):
    """Change one value of the first file of a kind."""
    file = next(f for f in files(store) if kind in f.as_posix())
    sealed(file, changed(json.loads(file.read_text()), path, value))
    return file


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("scores", "test"), 1e308, "1e308"),
        (("scores", "test"), 1.5, "test accuracy of digits-cnn must be in [0, 1], got 1.5"),
        (("scores", "test"), -0.5, "must be in [0, 1], got -0.5"),
        (("cost", "ratio"), 1e308, "$.cost.ratio`: 1e308"),
        (("cost", "ratio"), -2.0, "$.cost.ratio`: -2"),
        (("chance",), 1e308, "$.chance`: 1e308"),
        (("changed",), ["no-such-option"], "changed names 'no-such-option'"),
    ],
)
@pytest.mark.parametrize("command", [["leaderboard"], ["leaderboard", "--format", "csv"]])
def test_a_record_that_cannot_be_is_named_and_left_out(tmp_path, path, value, words, command):
    store = filled(tmp_path)
    file = altered(store, "runs/digits-cnn/nmnc", path, value)
    done = CliRunner().invoke(cli, [*command, "--out", str(store.root)])
    assert done.exit_code == 0, done.output
    assert f"left out: {file.relative_to(store.root).as_posix()}" in done.stderr
    assert words in done.stderr
    assert len([r for r in store.read().records if r.asked.rule == "nmnc"]) == 1
    read(store)


def test_a_tuning_without_its_winner_is_named_and_left_out(tmp_path):
    store = filled(tmp_path)
    altered(store, "tuning/studies", ("best",), 2)
    done = CliRunner().invoke(cli, ["leaderboard", "--out", str(store.root)])
    assert done.exit_code == 0
    assert "best must be a place among 2 trials, from 0 on, got 2" in done.stderr
    assert "tuned-2" not in done.stdout


def test_the_runs_of_the_claim_in_these_tests_are_found(tmp_path):
    from rulezoo.claims.installed import load
    from rulezoo.claims.running import stored
    from rulezoo.discovery.registry import discover

    filled(tmp_path)
    assert stored(tmp_path, load(discover(), "alignment"), "quick").done == 2


def test_status_neutralises_what_a_note_holds(tmp_path):
    store = filled(tmp_path)
    for old in (store.root / journal.FOLDER).glob("comparison-*"):
        old.unlink()
    written(store, journal.Comparison(began=EVIL[:12], token="0123", asked=[asked()]))
    done = CliRunner().invoke(cli, ["status", "--out", str(store.root)])
    assert done.exit_code == 0
    assert "�]0;owned" in done.output
    assert not CONTROL.search(done.output)


def test_status_reads_past_a_note_that_is_too_deep(tmp_path):
    store = filled(tmp_path)
    for path in (store.root / journal.FOLDER).glob("*.json"):
        path.write_text(DEEP)
    read(store)


def test_a_name_that_is_a_formula_stays_a_name_in_figures(tmp_path):
    store = Store(tmp_path / "results")
    for rule, option in (("backprop", "sigma"), ("nmnc", "$\\frac{$"), ("nmnc", "$x$\x1b[31m")):
        for seed in (0, 1):
            question = asked(rule, seed, rule_options={option: 0.5})
            store.put(record(asked=question, changed=[option], seed=seed))
    read(store, [["leaderboard", "--html", str(tmp_path / "html")]])
    pictures = [path.read_text() for path in sorted((tmp_path / "html" / "pictures").glob("*.svg"))]
    assert any("$\\frac{$=0.5" in picture for picture in pictures)
    assert not [picture for picture in pictures if CONTROL.search(picture)]


def test_a_chart_of_a_claim_takes_any_name():
    from rulezoo.claims.chart import Chart, Point
    from rulezoo.claims.figures import draw

    bad = "$\\frac{$"
    points = tuple(Point(bad, bad, x, x) for x in (1.0, 2.0))
    assert b"<svg" in draw(Chart(points, bad, {bad: bad}, "words"))
