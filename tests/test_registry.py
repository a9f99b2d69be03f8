"""The registry with foreign plugins: every way in which one can be broken, and the others beside it."""

import dataclasses
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from rulezoo import LearningRule, OptionError, Plausibility, RuleSpec, TaskSpec
from rulezoo.api.named import Named, named
from rulezoo.cli import cli
from rulezoo.comparison.plan import resolved
from rulezoo.comparison.request import Request
from rulezoo.discovery.kinds import TASK
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.errors import AmbiguousName, PluginError, UnknownName
from rulezoo.specs import SpecError

GOOD = """
    from dataclasses import dataclass
    from rulezoo import LearningRule, RuleSpec, hookimpl, hp

    @dataclass(frozen=True)
    class Good(LearningRule):
        gain: float = hp(1.0, "factor", low=0)

    @hookimpl
    def rulezoo_rules():
        return [RuleSpec(name="{name}", target=f"{{__name__}}:Good", summary="A rule.")]
"""

HOOK = "import rulezoo\n@rulezoo.hookimpl\n"

BROKEN = {  # what is wrong → the module, and what the reason must say
    "raises at import": ("raise ValueError('no luck')", "ValueError: no luck"),
    "leaves at import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "is not Python": ("def f(:", "SyntaxError"),
    "needs what is not there": (
        "import no_such_module_anywhere",
        "No module named 'no_such_module_anywhere'",
    ),
    "misspells the hook": (
        HOOK + "def rulezoo_rule(): return []",
        "unknown hook 'rulezoo_rule'; did you mean 'rulezoo_rules'",
    ),
    "misspells one of two hooks": (
        HOOK + "def rulezoo_rules(): return []\n@rulezoo.hookimpl\ndef rulezoo_task(): return []",
        "unknown hook 'rulezoo_task'; did you mean 'rulezoo_tasks'",
    ),
    "forgets the decorator": ("def rulezoo_rules(): return []", "not decorated with @rulezoo.hookimpl"),
    "has no hook": ("x = 1", "it has no hook"),
    "wants an argument": (
        HOOK + "def rulezoo_rules(config): return []",
        "PluginValidationError",
    ),
    "raises in the hook": (
        HOOK + "def rulezoo_rules(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "raises on the way through": (
        HOOK + "def rulezoo_rules():\n    yield 1 / 0",
        "ZeroDivisionError",
    ),
    "returns nothing": (
        HOOK + "def rulezoo_rules(): pass",
        "rulezoo_rules() returned None; expected a list of rulezoo.RuleSpec",
    ),
    "returns one spec": (
        HOOK + "def rulezoo_rules(): return rulezoo.RuleSpec('a', 'b:c', 'd')",
        "returned a RuleSpec; expected a list",
    ),
    "returns names": (
        HOOK + "def rulezoo_rules(): return ['my-rule']",
        "a list with a str",
    ),
    "returns tasks as rules": (
        HOOK + "def rulezoo_rules(): return [rulezoo.TaskSpec('a', 'b:c', 'd')]",
        "a list with a TaskSpec; expected a list of rulezoo.RuleSpec",
    ),
    "gives a bad name": (
        HOOK + "def rulezoo_rules(): return [rulezoo.RuleSpec('My Rule', 'b:c', 'd')]",
        "name 'My Rule' must be lower-case words",
    ),
    "raises what cannot be printed": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E",
        "E: <exception str() failed>",
    ),
}


@pytest.fixture(autouse=True)
def no_other_files(monkeypatch):
    monkeypatch.delenv(FILES, raising=False)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with one plugin module on the path, as pip would leave it there."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(distribution: str, source: str, version: str = "1.0") -> None:
        module = f"{distribution.replace('-', '_')}_{abs(hash(tmp_path))}"  # no other test has imported it
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[rulezoo]\nmain = {module}\n")

    return put


@pytest.fixture
def file(tmp_path):
    """Write a single-file plugin."""

    def write(source: str, name: str = "my_rule.py") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


def plugin(registry, distribution):
    (info,) = [info for info in registry.plugins if info.distribution == distribution]
    return info


def test_the_built_in_rules_come_from_a_plugin():
    registry = discover()
    assert registry.rule("backprop").distribution == "rulezoo"
    assert all(info.ok and not info.reason and not info.traceback for info in registry.plugins)
    assert sum(info.offers["rule"] for info in registry.plugins) == len(registry.rules)
    assert issubclass(registry.rule_class("backprop"), LearningRule)


def test_a_strangers_rule_is_found_with_its_distribution(install):
    install("nice-rules", GOOD.format(name="nice"), version="2.5")
    registry = discover()
    found = registry.rule("nice")
    assert (found.distribution, found.version, found.origin) == ("nice-rules", "2.5", "nice-rules 2.5")
    info = plugin(registry, "nice-rules")
    assert (info.name, info.ok) == ("main", True)
    assert info.offers == {"rule": 1, "task": 0, "evaluation": 0, "claim": 0}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_named_with_its_reason_and_the_others_work(install, what):
    source, reason = BROKEN[what]
    install("aa-broken", source)  # asked before the good ones
    install("nice-rules", GOOD.format(name="nice"))
    registry = discover()
    info = plugin(registry, "aa-broken")
    assert not info.ok
    assert reason in info.reason
    assert info.traceback.startswith("Traceback")
    assert not any(info.offers.values())
    assert {"nice", "backprop"} <= set(registry.rules)


def test_an_interrupt_is_not_swallowed(install):
    install("aa-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover()


def test_damaged_metadata_hides_nothing_else(install, tmp_path):
    install("odd", GOOD.format(name="odd"))
    (tmp_path / "odd-1.0.dist-info" / "METADATA").unlink()
    assert {"odd", "backprop"} <= set(discover().rules)


def test_a_name_claimed_twice_belongs_to_nobody(install):
    install("nice-rules", GOOD.format(name="backprop"), version="2.5")
    install("other-rules", GOOD.format(name="other"))
    registry = discover()
    for info in (plugin(registry, "nice-rules"), *[p for p in registry.plugins if p.name == "rules"]):
        assert not info.ok
        assert "rule 'backprop' is claimed 2 times" in info.reason
        assert "nice-rules 2.5" in info.reason
        assert "rulezoo 0" in info.reason
    with pytest.raises(
        AmbiguousName, match=r"backprop.*nice-rules 2\.5.*rulezoo 0|backprop.*rulezoo 0.*nice-rules"
    ):
        registry.rule("backprop")
    assert "backprop" not in registry.rules
    assert "other" in registry.rules
    assert plugin(registry, "other-rules").ok


def test_a_plugin_can_clash_with_itself(install):
    twice = "return [rulezoo.TaskSpec('t', 'm:C', 's')] * 2"
    install("nice", f"import rulezoo\n@rulezoo.hookimpl\ndef rulezoo_tasks(): {twice}")
    registry = discover()
    assert plugin(registry, "nice").reason == "task 't' is claimed 2 times, by nice 1.0"
    assert "t" not in registry.tasks


def test_unknown_names_are_told_the_near_ones():
    registry = discover()
    with pytest.raises(UnknownName) as caught:
        registry.rule("bakprop")
    assert str(caught.value) == "unknown rule 'bakprop'; did you mean 'backprop'? (rulezoo list rules)"
    with pytest.raises(UnknownName) as caught:
        registry.task("\x1b[31mzzzz")
    assert str(caught.value) == "unknown task '\\x1b[31mzzzz' (rulezoo list tasks)"


def test_a_former_name_of_a_rule_is_the_rule():
    found = discover()
    assert found.rule("weight-mirror-manifold") is found.rules["nmnc-layerwise"]
    assert found.make_rule("weight-mirror-manifold", {"rank": "7"}) == found.make_rule(
        "nmnc-layerwise", {"rank": "7"}
    )
    assert found.current("nmnc") == "nmnc"
    assert found.current("nobody") == "nobody"
    assert "weight-mirror-manifold" not in found.rules  # so listings and 'all' have it once


def test_a_rule_is_made_from_the_words_of_the_command_line(file):
    registry = discover([file(GOOD.format(name="nice"))])
    assert registry.make_rule("nice", {"gain": "2"}).gain == 2.0
    assert registry.make_rule("nice", {}).gain == 1.0
    with pytest.raises(OptionError, match=r"nice\.gain must be a number in \[0, inf\), got '-1' \(factor\)"):
        registry.make_rule("nice", {"gain": "-1"})


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_anywhere:A", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("{__name__}:Missing", "has no class Missing"),
        ("{__name__}:rulezoo_rules", "is a function, not a class"),
        ("{__name__}:Plain", "must be a subclass of rulezoo.LearningRule"),
        (
            "{__name__}:Moody",
            "rule 'nice' of my_rule.py sha256:[0-9a-f]+ cannot be made: RuntimeError: not today",
        ),
    ],
)
def test_a_rule_that_cannot_be_made_says_why(file, target, reason):
    path = file(f"""
        from dataclasses import dataclass
        import rulezoo

        class Plain: ...

        @dataclass(frozen=True)
        class Moody(rulezoo.LearningRule):
            def __post_init__(self): raise RuntimeError("not today")

        @rulezoo.hookimpl
        def rulezoo_rules(): return [rulezoo.RuleSpec("nice", f"{target}", "A rule.")]
    """)
    with pytest.raises((PluginError, SpecError), match=reason):
        discover([path]).make_rule("nice", {})


def test_an_attribute_error_in_a_rules_module_is_not_taken_for_a_missing_class(
    install, tmp_path, monkeypatch
):
    (tmp_path / "module_with_a_bug.py").write_text("import math\nmath.no_such_function\nclass A: ...")
    spec = RuleSpec("nice", "module_with_a_bug:A", "A rule.")
    with pytest.raises(AttributeError, match="no_such_function"):
        spec.load()


def test_a_single_file_is_a_plugin_named_by_its_text(file, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = file(GOOD.format(name="nice"), "one-file.py")
    registry = discover([path, path])  # given twice, it is one
    found = registry.rule("nice")
    assert found.distribution == "one-file.py"
    assert found.version.startswith("sha256:")
    assert registry.rule_class("nice") is discover([path]).rule_class("nice")
    assert not (path.parent / "__pycache__").exists()


def test_an_edited_file_is_read_anew(file, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = discover([file(GOOD.format(name="nice"), "edited.py")])
    second = discover([file(GOOD.format(name="fine"), "edited.py")])  # same length, same second
    assert "fine" in second.rules
    assert first.rule("nice").version != second.rule("fine").version


def test_broken_and_missing_files_are_named(file, tmp_path):
    broken = file("raise ValueError('no luck')", "broken.py")
    registry = discover([broken, tmp_path / "nowhere.py"])
    assert "no luck" in plugin(registry, "broken.py").reason
    assert "FileNotFoundError" in plugin(registry, "nowhere.py").reason
    assert "backprop" in registry.rules
    assert not [name for name in sys.modules if name.startswith("rulezoo_file_broken")]


def test_child_processes_see_the_files_of_the_environment_under_the_same_module_names(file):
    first, second = file(GOOD.format(name="nice"), "a.py"), file(GOOD.format(name="fine"), "b.py")
    code = "from rulezoo.discovery import registry; r = registry.discover().rules; print(r['nice'].spec.target, 'fine' in r)"
    seen = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, FILES: os.pathsep.join([str(first), "", str(second)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.split() == [discover([first]).rule("nice").spec.target, "True"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a_b"}, "name 'a_b' must be"),
        ({"name": None}, "name None must be"),
        ({"target": "a.b"}, "target of a must be 'package.module:Class'"),
        ({"target": "..a:B"}, "target of a must be 'package.module:Class'"),
        ({"version": 0}, "version of a must be a whole number, 1 or more, got 0"),
        ({"version": "1"}, "version of a must be a whole number"),
        ({"summary": None}, "summary of a must be a text"),
        ({"tags": "cnn"}, "tags of a must be a tuple of words"),
        ({"plausibility": {}}, "plausibility of a must be a Plausibility"),
    ],
)
def test_a_spec_that_breaks_the_contract_says_which_field(change, said):
    with pytest.raises(SpecError) as caught:
        RuleSpec(**{"name": "a", "target": "m:C", "summary": "s"} | change)
    assert said in str(caught.value)


def test_plausibility_knows_its_signals():
    with pytest.raises(SpecError, match="signal must be one of none, scalar, vector, neuron-specific, got"):
        Plausibility(False, False, False, "loud", False)


def test_a_signal_by_its_old_name_is_refused_with_the_new_one():
    with pytest.raises(SpecError, match="signal 'local' is now called 'neuron-specific'"):
        Plausibility(True, True, True, "local", False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_transport": "no"}, "weight_transport must be True or False, got 'no'"),
        ({"hidden_learning": None}, "hidden_learning must be True or False, got None"),
        ({"past_storage": 1}, "past_storage must be True, False or None, got 1"),
        ({"phases": -1}, "phases must be a whole number, 0 or more, or like '2 per site', got -1"),
        ({"phases": "0 per site"}, "phases must be"),
        ({"phases": True}, "phases must be"),
        ({"hidden_learning": False}, "with hidden_learning=False, signal must be 'none', got 'vector'"),
    ],
)
def test_a_mark_that_is_none_is_refused(changes, message):
    with pytest.raises(SpecError) as caught:
        Plausibility(**{**dataclasses.asdict(Plausibility(False, False, True, "vector", False)), **changes})
    assert message in str(caught.value)


def test_learning_without_a_signal_and_not_learning_are_two_things():
    hebbian = Plausibility(False, False, False, "none", False, past_storage=False)
    assert hebbian.marks() == {
        "weight_transport": "no", "backward_pass": "no", "update_locking": "no", "signal": "none",
        "perturbation": "no", "phases": "0", "hidden_learning": "yes", "past_storage": "no",
    }  # fmt: skip
    assert "past_storage" not in Plausibility(False, False, False, "none", False).marks(), "not declared"


def test_specs_are_values():
    assert TaskSpec("t", "m:C", "s") == TaskSpec("t", "m:C", "s")
    assert hash(RuleSpec("t", "m:C", "s")) == hash(RuleSpec("t", "m:C", "s"))


def test_a_plugin_file_imports_the_modules_in_its_folder_and_none_of_python_s_names_from_there(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    helped = (
        GOOD.format(name="helped")
        + "    import random, spice_of_helped\n    assert random.randrange(1) == 0\n"
    )
    (tmp_path / "spice_of_helped.py").write_text("SALT = 1\n", encoding="utf-8")
    (tmp_path / "random.py").write_text(textwrap.dedent(helped), encoding="utf-8")
    (tmp_path / "statistics.py").write_text("raise ValueError('not the one of Python')", encoding="utf-8")
    sys.modules.pop("statistics", None)
    found = discover([tmp_path / "random.py"])
    assert "helped" in found.rules
    assert sys.path[-1] == str(tmp_path)
    import statistics

    assert statistics.fmean([1.0]) == 1


def test_modules_of_one_name_in_the_folders_of_two_plugin_files_are_named(tmp_path, monkeypatch):
    """Python would give both plugins the same."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "spice_of_both.py").write_text(f"WHERE = {folder!r}\n", encoding="utf-8")
        text = GOOD.format(name=folder) + "    import spice_of_both\n"
        (tmp_path / folder / f"plugin_{folder}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    found = discover([tmp_path / folder / f"plugin_{folder}.py" for folder in ("one", "two")])
    assert "one" in found.rules
    assert "two" not in found.rules
    (broken,) = [plugin for plugin in found.plugins if not plugin.ok]
    assert "it imports 'spice_of_both', and Python finds that of another plugin file first" in broken.reason


FOUR = """
    from dataclasses import dataclass
    from rulezoo import ClaimSpec, Evaluation, EvaluationSpec, Measurement, claims, hookimpl, hp

    @dataclass(frozen=True)
    class Answer(Evaluation):
        headline = "answer"
        gain: float = hp(2.0, "factor", low=0)

        def measure(self, network, root):
            return Measurement({{"answer": 21 * self.gain}})

    ARM = claims.Arm("blue", "backprop", "digits-cnn", (0, 1))
    SKY = claims.Claim(
        "sky",
        "The sky is blue.",
        "everybody",
        claims.Standing("blue", (), "blue"),
        {{"quick": claims.Study((ARM,), "reduced", "a minute")}},
    )
    Claim = claims.Claim

    def make():
        return SKY

    @hookimpl
    def rulezoo_evaluations():
        return [EvaluationSpec("{evaluation}", f"{{__name__}}:{cls}", "An answer.", former_names=("reply",))]

    @hookimpl
    def rulezoo_claims():
        return [ClaimSpec("sky", f"{{__name__}}:{target}", "The sky is blue.")]
"""


def four(evaluation="answer", cls="Answer", target="SKY"):
    return FOUR.format(evaluation=evaluation, cls=cls, target=target)


def test_a_strangers_evaluation_and_claim_are_found_and_made(install):
    install("nice-lab", four(), version="2.5")
    registry = discover()
    assert registry.evaluation("answer").origin == "nice-lab 2.5"
    assert registry.make_evaluation("answer", {"gain": "3"}).measure(None, None).values == {"answer": 63.0}
    assert registry.claim("sky").statement == "The sky is blue."
    assert plugin(registry, "nice-lab").offers == {"rule": 0, "task": 0, "evaluation": 1, "claim": 1}


def test_evaluations_and_claims_have_former_names_near_names_and_clashes_as_rules_have(install):
    install("nice-lab", four())
    install("other-lab", four(evaluation="other"))
    registry = discover()
    assert registry.evaluation("reply").spec.name == "answer"
    assert registry.current("reply") == "answer"
    with pytest.raises(UnknownName) as caught:
        registry.evaluation("anser")
    assert str(caught.value) == (
        "unknown evaluation 'anser'; did you mean 'answer'? (rulezoo list evaluations)"
    )
    with pytest.raises(
        AmbiguousName, match=r"claim 'sky' is claimed 2 times, by nice-lab 1\.0 and other-lab"
    ):
        registry.claim("sky")
    assert not plugin(registry, "other-lab").ok
    assert {"answer", "other"} <= set(registry.evaluations)


@pytest.mark.parametrize(
    ("kwargs", "load", "reason"),
    [
        ({"cls": "make"}, lambda zoo: zoo.make_evaluation("answer", {}), ":make is a function, not a class"),
        ({"cls": "Claim"}, lambda zoo: zoo.make_evaluation("answer", {}), "must be a subclass of rulezoo.Eval"),
        ({"target": "make"}, lambda zoo: zoo.claim("sky"), r"must be a rulezoo\.claims\.Claim, not a function"),
        ({"target": "SEA"}, lambda zoo: zoo.claim("sky"), "has no claim SEA"),
    ],
)  # fmt: skip
def test_what_an_evaluation_or_a_claim_names_is_checked(file, kwargs, load, reason):
    with pytest.raises((PluginError, SpecError), match=reason):
        load(discover([file(four(**kwargs))]))


def test_what_pip_must_install_is_said_where_a_module_is_missing(file):
    path = file("""
        import rulezoo

        @rulezoo.hookimpl
        def rulezoo_evaluations():
            return [rulezoo.EvaluationSpec("rdm", "no_such_module_anywhere:A", "x", requires="rulezoo[brain]")]
    """)
    with pytest.raises(PluginError, match=r"it needs rulezoo\[brain\]: pip install 'rulezoo\[brain\]'"):
        discover([path]).make_evaluation("rdm", {})


def test_listing_what_there_is_imports_no_torch(install):
    """A claim and an evaluation are named by text; torch is imported where they are used."""
    code = (
        "import sys; from rulezoo.discovery.registry import discover; zoo = discover();"
        "print(sorted(zoo.found), {'torch', 'numpy', 'pandas'} & set(sys.modules))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "['claim', 'evaluation', 'rule', 'task'] set()"


FAMILY = """
    from dataclasses import dataclass
    from rulezoo import Task, TaskSpec, hookimpl, hp

    @dataclass(frozen=True)
    class Tasks(Task):
        maze: str = hp("Small-v0", "which maze")
        width: int = hp(3, "hidden units", low=1)

    @hookimpl
    def rulezoo_tasks():
        return [
            TaskSpec("mazes", f"{__name__}:Tasks", "Mazes.", selects="maze", example="Small-v0"),
            TaskSpec("alone", f"{__name__}:Tasks", "One.", requires="needed"),
        ]
"""


@pytest.fixture
def mazes(file):
    return discover([file(FAMILY, "mazes.py")])


def test_a_task_of_a_family_is_found_and_made_by_its_full_name(mazes):
    found = mazes.task("mazes:T.x_1-v0")
    assert (found.spec.name, found.distribution) == ("mazes:T.x_1-v0", "mazes.py")
    task = mazes.make_task("mazes:T.x_1-v0", {"width": "5"})
    assert task.resolved() == {"maze": "T.x_1-v0", "width": 5}
    assert mazes.make_task("mazes:Big", {"maze": "Big"}).maze == "Big"
    assert mazes.tasks["mazes:Big"].spec.words({"width": "2"}) == {"width": "2", "maze": "Big"}
    assert mazes.tasks["alone"].spec.words({}) == {}


def test_a_family_is_listed_once_and_its_tasks_are_not(mazes):
    assert [name for name in mazes.tasks if name in ("mazes", "alone", "mazes:Big")] == ["mazes", "alone"]
    assert mazes.tasks["mazes"].spec.is_family
    assert not mazes.tasks["mazes:Big"].spec.is_family
    assert mazes.kinds_of("mazes:Big") == mazes.kinds_of("mazes")
    assert mazes.current("mazes:Big") == "mazes:Big"


@pytest.mark.parametrize(
    "name", ["mazes:", "mazes:a/b", "mazes:..", "alone:Big", "mazes:a:b", "maze:Big", "mazes:Big:"]
)
def test_a_name_that_is_none_of_the_family_is_unknown(mazes, name):
    with pytest.raises(UnknownName, match=f"unknown task '{name}'"):
        mazes.task(name)


def test_a_family_itself_cannot_be_made(mazes):
    with pytest.raises(
        UnknownName,
        match="'mazes' is a family of tasks, one for each maze: name one of them, like 'mazes:Small-v0'",
    ):
        mazes.make_task("mazes", {"maze": "Big"})


def test_a_call_names_a_task_of_a_family_with_options(mazes):
    assert named(TASK, "mazes:Big: width = 5", None, mazes) == Named("task", "mazes:Big", {"width": "5"})
    assert named(TASK, "mazes:Big", {"width": 5}, mazes) == Named("task", "mazes:Big", {"width": "5"})
    value = mazes.make_task("mazes:Big", {"width": "5"})
    assert named(TASK, value, None, mazes) == Named("task", "mazes:Big", {"maze": "Big", "width": "5"})
    assert named(TASK, type(value), None, mazes).name == "mazes:Small-v0"


def test_all_tasks_are_those_that_can_be_made(mazes):
    tasks = resolved(mazes, Request(rules=("backprop",), tasks=("all",), device="cpu")).tasks
    assert {"alone", "digits-cnn"} <= set(tasks)
    assert not {"mazes", "neurogym"} & set(tasks)


def test_a_family_is_shown_with_its_options_and_an_example(file):
    path = str(file(FAMILY, "mazes.py"))
    family = CliRunner().invoke(cli, ["--plugin", path, "show", "mazes"]).output
    assert "name one of its tasks as mazes:MAZE, such as mazes:Small-v0" in family
    assert re.search(r"(?m)^maze +Small-v0 +any text +which maze$", family)
    assert re.search(
        r"(?m)^requires +needed$", CliRunner().invoke(cli, ["--plugin", path, "show", "alone"]).output
    )


def test_an_option_must_not_contradict_the_name(mazes):
    with pytest.raises(
        OptionError, match=r"mazes:Big\.maze is 'Big' by the name of the task, got 'Small'; leave"
    ):
        mazes.make_task("mazes:Big", {"maze": "Small"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "mazes:Big", "selects": ""}, "name 'mazes:Big' names one task of a family"),
        ({"name": "mazes", "selects": "maze"}, "needs both selects and example"),
        ({"name": "mazes", "example": "Big"}, "needs both selects and example"),
        ({"name": "mazes", "selects": 3}, "selects of mazes must be a text, got 3"),
        ({"name": "mazes:", "selects": "maze", "example": "Big"}, "must be lower-case words"),
    ],
)
def test_a_spec_of_a_family_is_whole(fields, message):
    with pytest.raises(SpecError, match=message):
        TaskSpec(**{"target": "a:B", "summary": "Mazes.", **fields})


def test_a_rule_has_no_colon_in_its_name():
    with pytest.raises(SpecError, match="must be lower-case words"):
        RuleSpec("nmnc:Big", "a:B", "A rule.")


def test_a_task_that_needs_what_is_not_installed_says_what_to_install(file):
    source = FAMILY.replace(
        "width: int", "def __post_init__(self): import no_such_module_anywhere\n        width: int"
    )
    zoo = discover([file(source, "mazes.py")])
    with pytest.raises(PluginError, match=r"No module named .*; it needs needed: pip install 'needed'"):
        zoo.make_task("alone", {})
