"""How far a comparison is: live on a terminal, plain lines elsewhere."""

import io
import os
import re
from pathlib import Path

import pytest

from rulezoo.cli import progress as module
from rulezoo.cli.progress import progress, summary
from rulezoo.comparison.jobs import Job
from rulezoo.comparison.request import Request
from rulezoo.results.records import Cost, Hardware, Plugin, Provenance, Record, RunSpec

ESC = "\x1b"


def job(rule="my-rule", seeds=(0, 1, 2), **more):
    return Job(Request(rules=[rule], tasks=["my-task"], seeds=seeds, device="cpu", **more), Path("results"))


def record(seed, status="ok", reason=None, test=0.5, ratio=None):
    asked = RunSpec(
        protocol=1, rule="my-rule", rule_version=1, rule_options={}, task="my-task", task_version=1,
        task_options={}, budget={}, seed=seed, device="cpu",
    )  # fmt: skip
    plugin = Plugin(distribution="tests")
    by = Provenance(
        packages={}, rule_plugin=plugin, task_plugin=plugin, hardware=Hardware(cpu="A", cores=1, threads=1),
        commit=None, dirty=None, started="", finished="", seeds_together=1, mode="single",
    )  # fmt: skip
    cost = None if ratio is None else Cost(step_ms=ratio, backprop_step_ms=1, ratio=ratio)
    scores = {"test": test} if status == "ok" else {}
    return Record(
        asked=asked, answered=by, status=status, reason=reason, scores=scores, chance=0, metric="hits", cost=cost
    )  # fmt: skip


@pytest.fixture
def plain():
    stream = io.StringIO()
    with progress(stream) as listener:
        yield listener, stream


@pytest.mark.parametrize(
    ("runs", "stored", "said"),
    [
        (6, 0, "6 of 6 runs to do"),
        (6, 4, "2 of 6 runs to do, 4 stored already"),
        (6, 6, "all 6 runs are stored already"),
        (1, 0, "1 of 1 run to do"),
        (1, 1, "the run is stored already"),
    ],
)
def test_it_begins_with_what_there_is_to_do(plain, runs, stored, said):
    listener, stream = plain
    listener.planned(runs, stored)
    assert stream.getvalue() == said + "\n"


def test_elsewhere_than_on_a_terminal_a_finished_job_is_a_line(plain):
    listener, stream = plain
    listener.started(job())
    for step in range(100):
        listener.progressed(job(), step, 100)
    assert stream.getvalue() == "my-task  my-rule  seeds 0-2  starting\n"
    stream.truncate(stream.seek(0))
    listener.started(job("another-rule"))
    assert stream.getvalue() == "", "a line for each of a thousand jobs that start at once helps nobody"
    records = [record(0, test=0.25, ratio=2.0), record(1, test=0.75, ratio=3.0), record(2, ratio=40.0)]
    listener.finished(job(), records)
    assert stream.getvalue() == "my-task  my-rule  seeds 0-2  test hits 50.0 %  cost ×3.00\n"


def test_a_long_silence_is_broken(plain, monkeypatch):
    listener, stream = plain
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    listener.planned(6, 0)
    for step in range(1, 1201):
        now[0] += 0.1
        listener.progressed(job(), step, 9000)
    lines = stream.getvalue().splitlines()[1:]
    assert len(lines) == 2  # in two minutes
    assert re.fullmatch(r"my-task  my-rule  seeds 0-2  step 30\d of 9,000, 0:14:3\d left", lines[0])
    assert re.fullmatch(r"my-task  my-rule  seeds 0-2  step 90\d of 9,000, 0:13:3\d left", lines[1])


@pytest.mark.parametrize(
    ("seeds", "said"),
    [((4,), "seeds 4 "), ((0, 1), "seeds 0,1 "), ((2, 3, 4), "seeds 2-4 "), ((0, 2, 3), "seeds 0,2,3 ")],
)
def test_seeds_are_named_briefly(seeds, said):
    assert said in summary(job(seeds=seeds), [record(seed) for seed in seeds])


def test_a_line_says_what_failed_and_how_often():
    bad = [record(1, "diverged", "too fast"), record(2, "diverged", "too fast")]
    line = summary(job(), [record(0), *bad])
    assert line == "my-task  my-rule  seeds 0-2  test hits 50.0 %  diverged: too fast (2 of 3)"
    assert summary(job(), [record(s, "skipped", "no sites") for s in range(3)]) == (
        "my-task  my-rule  seeds 0-2  skipped: no sites"
    )


def test_a_long_reason_is_cut_where_it_is_one_line():
    line = summary(job(), [record(0, "error", "x" * 2000)])
    assert len(line) < 500
    assert line.endswith("xxx…")


def test_a_line_names_the_options_and_holds_no_control_characters():
    wide = job(options={"my-task": {"width": "2"}, "my-rule": {"a": "1"}})
    assert summary(wide, [record(0, "skipped", "no sites")]).startswith(
        "my-task width=2  my-rule a=1  seeds 0-2"
    )
    wild = job(options={"my-rule": {"a": f"1\n{ESC}[2J"}})
    line = summary(wild, [record(0, "error", f"first\r\nsecond {ESC}]0;owned\x07")])
    assert line == "my-task  my-rule a=1 �[2J  seeds 0-2  error: first second �]0;owned�"


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal: a stream to write to, and a function that closes it and returns what was written."""
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w", encoding="utf-8")

    def written():
        stream.flush()
        os.set_blocking(ours, False)
        parts = []
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except BlockingIOError:
            return b"".join(parts).decode()

    yield stream, written
    stream.close()
    os.close(ours)


def test_on_a_terminal_it_is_live(terminal):
    stream, written = terminal
    one, other = job(), job("other", seeds=(5,), options={"other": {"a": "[red]"}})
    with progress(stream) as listener:
        listener.planned(6, 2)
        listener.started(one)
        listener.started(other)
        listener.progressed(one, 30, 60)
        listener.live.refresh()
        begun = written()
        listener.finished(one, [record(seed) for seed in range(3)])
        listener.live.refresh()
        later = written()
        listener.finished(other, [record(5, "error", "[bold]not markup[/bold]")])
    end = written()
    assert ESC in begun
    assert "4 of 6 runs to do, 2 stored already" in begun
    assert re.search(r"my-task  my-rule  seeds 0-2 .*30/60.*steps", begun)
    assert re.search(r"my-task  other a=\[red\]  seeds 5 ", begun)
    assert re.search(r"all runs .*2/6.*runs", begun)
    assert "my-task  my-rule  seeds 0-2  test hits 50.0 %" in later
    last = later[later.rindex("all runs") :]
    assert re.match(r"all runs .*5/6.*runs", last)
    assert "other" in last
    assert "my-rule" not in last  # its bar is gone
    assert "error: [bold]not markup[/bold]" in end
    assert end.endswith(f"{ESC}[?25h")  # the cursor is shown again


def test_on_a_terminal_there_is_nothing_live_about_what_is_stored(terminal):
    stream, written = terminal
    with progress(stream) as listener:
        listener.planned(6, 6)
    assert "all 6 runs are stored already" in written()
    assert "all runs" not in written()


def test_on_a_terminal_half_a_training_is_half_of_its_runs(terminal):
    """So the time that is left for all is known before the first one ends."""
    stream, written = terminal
    with progress(stream) as listener:
        listener.planned(12, 4)
        listener.started(job())
        listener.progressed(job(), 40, 60)
        listener.live.refresh()
        assert re.search(r"all runs .*6/12", written())
        listener.finished(job(), [record(seed) for seed in range(3)])
        listener.live.refresh()
        assert re.search(r"all runs .*7/12", written())


def test_on_a_terminal_the_time_that_is_left_is_told(terminal):
    stream, written = terminal
    with progress(stream) as listener:
        listener.planned(6, 0)
        listener.started(job())
        now = listener.live.get_time
        for step in range(1, 11):
            listener.live.get_time = lambda step=step: now() + 7 * step
            listener.progressed(job(), step, 20)
        listener.live.refresh()
    assert re.search(r"10/20.*0:01:1\d", written())
