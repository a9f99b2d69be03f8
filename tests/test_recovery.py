"""Nothing is lost and nothing is done twice: kill -9, two runners at one store, more seeds than the memory holds."""

import os
import random
import re
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from rulezoo.discovery.plugins import FILES
from rulezoo.processes import server
from rulezoo.results.store import Store
from rulezoo.seeding import number

PATIENCE = 300.0  # seconds after which a process that was started here will not do any more what it should

PLUGIN = """
    import os, time
    from pathlib import Path

    from rulezoo import Budget, Data, RuleSpec, TaskSpec, datasets, hookimpl
    from rulezoo_plugins.baselines.backprop import Backprop
    from rulezoo_tasks.image_folder import ImageFolder

    def note(*words):
        with open(os.environ["NOTES"], "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    class Paced(Backprop):
        def init(self, net, params, batch, gen):
            note(type(self).__name__, "init", gen.initial_seed())
            return super().init(net, params, batch, gen)

        def step(self, net, loss, params, state, batch, noise, t):
            note(type(self).__name__, "step", t)
            time.sleep(float(os.environ.get("PACE", 0)))
            return super().step(net, loss, params, state, batch, noise, t)

    class Single(Paced):
        vmappable = False

    class Large(Paced):
        '''Holds 0.5 GB for each network.'''

        def init(self, net, params, batch, gen):
            held = globals().setdefault("HELD", [])
            held.append(b"x" * 500_000_000)
            return super().init(net, params, batch, gen)

        def step(self, *args):
            time.sleep(0.5 * (args[-1] == 0))
            if args[-1] == 5:
                HELD.clear()
            return super().step(*args)

    @hookimpl
    def rulezoo_rules():
        return [RuleSpec(name.lower(), f"{__name__}:{name}", "For tests.") for name in ("Paced", "Single", "Large")]

    class Pictures(ImageFolder):
        '''8 steps in an epoch.'''

        budget = Budget(epochs=3, batch=12, lr=0.01)

    class Decoded(Pictures):
        '''The same without a cache: worker processes decode in every epoch.'''

        def data(self, root, *, download=False):
            images = self._images(Path(self.folder), None)
            return Data(*datasets.held_out(datasets.loaded(images, workers=2), 0.1, 0.1))

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True),
                TaskSpec("pictures", f"{__name__}:Pictures", "Packed images."),
                TaskSpec("decoded", f"{__name__}:Decoded", "Images.")]
"""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are told of a death by prctl")


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    path = tmp_path / "paced.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))
    for name in ("RULEZOO_DEBUG", "RULEZOO_RESULTS", "RULEZOO_DATA"):
        monkeypatch.delenv(name, raising=False)


RUNNER = """if True:
    import ctypes, multiprocessing, os, sys
    os.environ.clear()
    os.environ.update({environ!r})
    sys.argv = {argv!r}
    log = os.open({log!r}, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2)
    # Its jobs are forked from itself, so that nothing has to be imported again. They hold both ends of their pipes, so
    # that it takes the system to tell them of its death.
    os.register_at_fork(after_in_child=lambda libc=ctypes.CDLL(None): libc.prctl(1, 9))
    from rulezoo.processes import server
    server.context = lambda m=multiprocessing: m.get_context("fork")
    from rulezoo.discovery.registry import discover
    discover()  # what is imported here is not tried in a process of its own first, which would take seconds
    from rulezoo.cli import main
    main()
"""


def start(out, rules, *words, seeds=2, epochs=1, tasks="tiny", **environ):
    """The command line in a process of its own that had torch when it began."""
    how = {
        "--rules": rules,
        "--tasks": tasks,
        "--seeds": seeds,
        "--epochs": epochs,
        "--device": "cpu",
        "--jobs": 2,
    }
    argv = ["rulezoo", "compare", *(str(word) for pair in how.items() for word in pair)]
    argv += ["--out", str(out), *map(str, words)]
    log = f"{out}-{rules}.txt"
    environ = {**os.environ, **{name: str(value) for name, value in environ.items()}}
    process = server.context().Process(
        target=exec, args=(RUNNER.format(environ=environ, argv=argv, log=log),)
    )
    process.log = Path(log)
    process.start()
    return process


def ends(process):
    """Its exit code, and all that it said."""
    process.join(PATIENCE)
    return process.exitcode, process.log.read_text()


def begun_within(process, condition):
    """Wait until something is so, or the process has ended: a busy machine takes seconds to begin."""
    deadline = time.monotonic() + PATIENCE
    while process.is_alive() and not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def results(out):
    """What was stored, but for what differs from one time to the next: key → numbers."""
    reading = Store(out).read()
    assert reading.damaged == []
    timeless = {"started": "", "finished": ""}
    return {
        record.asked.key: msgspec.structs.replace(
            record, cost=None, answered=msgspec.structs.replace(record.answered, **timeless)
        )
        for record in reading.records
    }


def files(out):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.glob("runs/*/*/*.json")}


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def begun(rule, seed):
    """What a rule notes when it begins with a seed."""
    return f"{rule} init {number(seed, rule, 'init')}"


@pytest.mark.slow
def test_killed_at_twenty_random_moments_the_store_is_that_of_an_undisturbed_run(tmp_path):
    whole, out, notes = tmp_path / "whole", tmp_path / "out", tmp_path / "notes"
    rules, words = "paced,single,nmnc", {"seeds": 3, "epochs": 5}
    code, said = ends(start(whole, rules, **words, NOTES=tmp_path / "other"))
    assert code == 0, said
    rng, known, cut_short = random.Random(0), {}, 0
    for _ in range(20):
        before = len(lines(notes))
        process = start(out, rules, "--checkpoint", 0.01, **words, NOTES=notes, PACE=0.2)  # 18 s in all
        begun_within(process, lambda before=before: len(lines(notes)) > before)
        process.join(rng.uniform(0.0, 1.5))
        cut_short += process.is_alive()
        assert process.exitcode in (None, 0), process.log.read_text()
        process.kill()
        process.join()
        assert {path: when for path, when in files(out).items() if path in known} == known
        fresh = lines(notes)[before:]
        stored = [(path.parent.name.title(), int(path.name[4])) for path in known]
        of_group = [one for one in stored if one[0] == "Paced"]
        finished = [one for one in stored if one[0] == "Single"] + (of_group if len(of_group) == 3 else [])
        assert not {begun(*one) for one in finished} & set(fresh)
        known = files(out)
    assert cut_short >= 10
    code, said = ends(start(out, rules, **words, NOTES=notes))
    assert code == 0, said
    assert results(out) == results(whole)
    assert any(
        " init " in one and re.search(" step [1-9]", next_one) for one, next_one in pairwise(lines(notes))
    )
    left = [path.name for name in (".checkpoints", ".locks") for path in (out / name).iterdir()]
    assert [name for name in left if not name.startswith("comparison-") and not name.endswith(".tmp")] == []


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pictures", "decoded"])
def test_killed_within_an_epoch_augmented_images_go_on_bit_for_bit(tmp_path, task):
    images, notes = tmp_path / "images", tmp_path / "notes"
    _draw_images(images)
    words = (f"-o{task}.folder={images}", f"-o{task}.size=8", f"-o{task}.classes=3")
    settings = {"seeds": 2, "epochs": 3, "tasks": task, "RULEZOO_CACHE": tmp_path / "cache"}
    code, said = ends(start(tmp_path / "whole", "paced", *words, **settings, NOTES=tmp_path / "other"))
    assert code == 0, said
    out, goes_on = tmp_path / "out", []
    for kill in range(3):
        before = len(lines(notes))
        process = start(out, "paced", "--checkpoint", 0.01, *words, **settings, NOTES=notes, PACE=0.2)
        begun_within(process, lambda before=before: len(lines(notes)) > before + 6)  # 2 of them are no steps
        assert process.exitcode is None, process.log.read_text()
        process.kill()
        process.join()
        goes_on += [line for line in lines(notes)[before:] if " step " in line][:1] if kill else []
    assert any(int(line.split()[-1]) % 8 for line in goes_on), "within an epoch"
    code, said = ends(start(out, "paced", *words, **settings, NOTES=notes))
    assert code == 0, said
    assert results(out) == results(tmp_path / "whole")


def _draw_images(folder):
    """Three classes of 45 images."""
    rng = np.random.default_rng(0)
    for label in ("ant", "bee", "cat"):
        (folder / label).mkdir(parents=True)
        for i in range(45):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.jpg")


@pytest.mark.slow
def test_two_runners_at_one_store_do_no_run_twice(tmp_path):
    out, notes = tmp_path / "out", tmp_path / "notes"
    words = {"NOTES": notes, "PACE": 0.05}
    runners = [start(out, "single,paced", seeds=3, **words), start(out, "paced,single", seeds=4, **words)]
    for runner in runners:
        code, said = ends(runner)
        assert code == 0, said
    assert len(results(out)) == 8
    assert sorted(line for line in lines(notes) if " init " in line) == sorted(
        begun(rule, seed) for rule in ("Paced", "Single") for seed in range(4)
    )
    assert list((out / ".locks").iterdir()) == []
    assert list((out / ".progress").glob("[!c]*")) == []


@pytest.mark.slow
def test_more_seeds_than_the_memory_holds_are_trained_in_halves(tmp_path):
    out, notes = tmp_path / "out", tmp_path / "notes"
    code, said = ends(start(out, "large", "--memory-limit", 2, seeds=4, NOTES=notes))
    assert code == 0, said
    assert [record.answered.seeds_together for record in results(out).values()] == [2, 2, 2, 2]
    assert "seeds 0-3  test" in said
    code, said = ends(start(tmp_path / "other", "large", "--memory-limit", 0.5, NOTES=notes))
    assert code == 1
    assert {record.status for record in results(tmp_path / "other").values()} == {"oom_host"}
