"""A result whose code has changed is stale; a comment does not make it so, and what it does not use neither."""

import importlib.util
import json
import sys
import textwrap
from functools import partial

import msgspec
import pytest

from rulezoo.discovery import fingerprint as module
from rulezoo.discovery.fingerprint import fingerprint
from rulezoo.discovery.registry import discover
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.overview import build
from rulezoo.results.freshness import FAILED, mixed_data, stale, wanted_again
from rulezoo.results.records import Answered, Asked, Hardware, Plugin, Record

FILES = {
    "__init__.py": "",
    "rule.py": '''
        """A rule."""
        from typing import TYPE_CHECKING
        import zoo_x.far
        from . import helper
        from rulezoo import LearningRule

        class Rule(LearningRule):
            """What it does."""
            def step(self):
                return helper.once(f"{1:>3}")
    ''',
    "helper.py": "from .deep.down import twice as t\ndef once(x):\n    return t(x)\n",
    "far.py": "ONE = 1\n",
    "deep/__init__.py": "",
    "deep/down.py": "def twice(x):\n    return 2 * x\n",
    "other.py": "X = 1\n",
}


def forget():
    for cached in (fingerprint, module._read, module._source):
        cached.cache_clear()


def test_a_module_beside_a_plugin_that_is_a_file_is_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path, helper = tmp_path / "my_file.py", tmp_path / "beside_it.py"
    path.write_text("import json, numpy\nfrom beside_it import K\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("rulezoo_file_my_file_0", path)
    monkeypatch.setitem(sys.modules, "rulezoo_file_my_file_0", importlib.util.module_from_spec(spec))

    def of(text):
        helper.write_text(text, encoding="utf-8")
        forget()
        return fingerprint("rulezoo_file_my_file_0")

    assert of("K = 1\n") == of("K = 1  # a remark\n") != of("K = 0\n")
    path.write_text("import json, numpy\n", encoding="utf-8")
    assert of("K = 1\n") == of("K = 0\n"), "what it does not import is not"
    forget()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Rewrites a file of a package of plugins, and tells the fingerprint of its rule."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "_packages", lambda: frozenset({"zoo_x"}))

    def of(changes=None):
        for name, text in {**FILES, **(changes or {})}.items():
            path = tmp_path / "zoo_x" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        forget()
        return fingerprint("zoo_x.rule")

    yield of
    forget()


RULE = FILES["rule.py"]


@pytest.mark.parametrize(
    ("name", "text", "changes"),
    [
        ("rule.py", RULE.replace("{1:>3}", "{1:>4}"), True),
        ("helper.py", FILES["helper.py"].replace("t(x)", "t(x) + 1"), True),
        ("far.py", "ONE = 2\n", True),
        ("deep/down.py", FILES["deep/down.py"].replace("2 *", "3 *"), True),
        ("rule.py", RULE.replace("A rule.", "Another text."), False),
        ("rule.py", RULE.replace("What it does.", "What it is."), False),
        ("rule.py", RULE.replace("return helper", "# why\n\n                return   helper"), False),
        ("other.py", "X = 2\n", False),
        ("__init__.py", "X = 2\n", False),
    ],
)
def test_what_changes_a_fingerprint(package, name, text, changes):
    before = package()
    assert len(before) == 16
    assert package() == before
    assert (package({name: text}) != before) == changes


def test_nothing_is_imported_for_it(package):
    package()
    assert not [name for name in sys.modules if name.startswith("zoo_x")]


def test_a_module_without_a_source_has_none(package):
    with pytest.raises(LookupError, match=r"the source of zoo_x\.gone is not there"):
        fingerprint("zoo_x.gone")


def test_every_built_in_rule_and_task_has_one():
    zoo = discover()
    specs = [found.spec for found in (*zoo.rules.values(), *zoo.tasks.values())]
    assert all(len(fingerprint(spec.module)) == 16 for spec in specs)
    assert fingerprint(zoo.rules["backprop"].spec.module) != fingerprint(zoo.rules["nmnc"].spec.module)


def record(rule="backprop", task="digits-cnn", status="ok", rule_code=None, task_code=None, seed=0):
    asked = Asked(
        protocol=1, rule=rule, rule_version=1, rule_options={}, task=task, task_version=1,
        task_options={}, budget={}, seed=seed, device="cpu",
    )  # fmt: skip
    plugin = Plugin(distribution="tests")
    by = Answered(
        packages={}, rule_plugin=plugin, task_plugin=plugin, hardware=Hardware(cpu="A", cores=1, threads=1),
        commit=None, dirty=None, started="", finished="", seeds_together=1, mode="single",
        rule_code=rule_code, task_code=task_code,
    )  # fmt: skip
    return Record(asked=asked, answered=by, status=status, scores={"test": 0.5}, chance=0.1, metric="hits")


def test_a_record_is_stale_when_the_code_of_its_rule_or_task_is_another():
    zoo = discover()
    rule, task = (fingerprint(one.spec.module) for one in (zoo.rules["backprop"], zoo.tasks["digits-cnn"]))
    assert stale(record(rule_code=rule, task_code=task), zoo) is None
    assert stale(record(rule_code="0" * 16, task_code=task), zoo) == "the code of rule backprop changed since"
    assert stale(record(rule_code="0" * 16, task_code="1" * 16), zoo) == (
        "the code of rule backprop and of task digits-cnn changed since"
    )
    assert stale(record(), zoo) is None  # stored before there were fingerprints
    assert stale(record(rule="gone", rule_code="0" * 16), zoo) is None


def test_the_board_says_so():
    rows = [record(rule_code=code, seed=seed) for seed, code in enumerate(["0" * 16, None])]
    zoo = discover()
    text = render(build(rows, stale=lambda one: stale(one, zoo)))
    assert "stale: the code of rule backprop changed since (1 of 2)" in text
    assert "stale" not in render(build(rows))


ONE, OTHER = "1" * 16, "2" * 16


def of_data(digest, **changes):
    made = record(**changes)
    return msgspec.structs.replace(made, answered=msgspec.structs.replace(made.answered, data=digest))


def test_runs_of_one_task_on_different_data_are_found():
    same = [of_data(ONE, seed=seed, rule=rule) for seed in (0, 1) for rule in ("backprop", "frozen")]
    unknown = record(seed=5)
    elsewhere = of_data(OTHER, task="digits-rnn")
    assert mixed_data([*same, unknown, elsewhere]) == {}
    odd = of_data(OTHER, rule="frozen", seed=2)
    assert mixed_data([odd, *same, unknown, elsewhere]) == {
        odd.asked.key: f"trained on data with digest {OTHER}, other runs of digits-cnn on data with digest {ONE}"
    }
    options = msgspec.structs.replace(odd.asked, task_options={"width": 3})
    assert mixed_data([*same, msgspec.structs.replace(odd, asked=options)]) == {}, (
        "another task, by its options"
    )


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
def test_a_table_says_which_runs_are_of_other_data(form):
    rows = [of_data(ONE, seed=seed) for seed in (0, 1, 2)]
    rows += [of_data(digest, rule="frozen", seed=seed) for seed, digest in enumerate([ONE, OTHER, OTHER])]
    said = (
        f"mixed data: frozen, seeds 1, 2: trained on data with digest {OTHER}, other runs of digits-cnn on data with "
        f"digest {ONE}"
    )
    text = render(build(rows), form, width=300)
    if form == "json":
        notes = [
            note
            for line in json.loads(text)["lines"]
            for cell in line["default"]["cells"]
            for note in cell["notes"]
        ]
        assert notes == [said]
    else:
        assert text.replace("\\", "").count(said) == 1
    assert "mixed data" not in render(build(rows[:4]), form)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["failed"], {"error", "timeout"}),
        (["timeout"], {"timeout"}),
        (["stale"], {"stale"}),
        (["stale", "error"], {"stale", "error"}),
        (["all"], {"ok", "stale", "error", "timeout", "skipped"}),
        ([], set()),
    ],
)
def test_what_is_wanted_again(words, chosen):
    records = {status: record(status=status) for status in ("ok", "error", "timeout", "skipped")}
    records["stale"] = record(rule_code="0" * 16)
    wanted = wanted_again(words, partial(stale, registry=discover()))
    assert {name for name, one in records.items() if wanted(one)} == chosen
    assert "skipped" not in FAILED
