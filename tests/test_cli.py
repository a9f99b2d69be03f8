"""The command line: what it prints, what it imports, and what it says when something is wrong."""

import ast
import csv
import json
import os
import subprocess
import sys
import textwrap

import pytest

from rulezoo.cli import COMMANDS, main
from rulezoo.cli.common import print_table
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.leaderboard import plausibility
from rulezoo.results.records import Hardware, Plugin, Provenance, Record, RunSpec
from rulezoo.results.store import Store
from rulezoo.text import clean, clean_lines

HEAVY = ("torch", "numpy", "scipy", "scipy.stats", "pandas", "matplotlib", "rich", "msgspec", "optuna")

FILE = "(a file)"  # in the words of a command, the place of a path

NICE = """
    import rulezoo

    class Nice(rulezoo.LearningRule): ...

    @rulezoo.hookimpl
    def rulezoo_rules():
        summary = "A \\x1b]0;owned\\x07 [red]rule[/red]."
        return [rulezoo.RuleSpec("nice", f"{__name__}:Nice", summary, tags=("odd",))]
"""
BROKEN = "raise ValueError('no \\x1b[2J luck')"
MISSPELT = "import rulezoo\n@rulezoo.hookimpl\ndef rulezoo_rule(): return []"
DUPLICATE = (
    "import rulezoo\n@rulezoo.hookimpl\ndef rulezoo_rules(): return [rulezoo.RuleSpec('nice', 'm:C', 's')]"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv(FILES, "")  # also puts it back after --plugin has added to it
    monkeypatch.delenv("RULEZOO_DEBUG", raising=False)
    monkeypatch.delenv("RULEZOO_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path):
    def write(source, name="my_rule.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["rulezoo", *words])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run


def imported(*words, files=()):
    """The heavy modules that a command imports, in a process of its own, and what it wrote."""
    code = f"""
        import sys
        from rulezoo.cli import main
        sys.argv = ["rulezoo", *{words!r}]
        try:
            main()
        except SystemExit as left:
            assert not left.code, left.code
        print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
    """
    environ = {**os.environ, FILES: os.pathsep.join(files)}
    arguments = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        arguments, env=environ, capture_output=True, text=True, encoding="utf-8", check=True
    )
    *errors, modules = done.stderr.splitlines()
    return modules, done.stdout, errors


@pytest.mark.parametrize(
    "words", [(), ("--help",), ("--version",), ("list",), ("list", "tasks"), ("plugins",)]
)
def test_looking_around_imports_nothing_heavy(words):
    modules, out, errors = imported(*words)
    assert (modules, errors) == ("[]", [])
    assert out


def test_looking_around_stays_light_and_works_beside_broken_plugins(file):
    sources = {"a.py": BROKEN, "b.py": MISSPELT, "c.py": DUPLICATE, "d.py": NICE}
    files = [file(source, name) for name, source in sources.items()]
    modules, out, _ = imported("plugins", files=files)
    assert modules == "[]"
    (states,) = [{line.split()[0]: line for line in out.splitlines()}]
    assert "ValueError: no �[2J luck" in states["a.py"]
    assert "did you mean 'rulezoo_rules'" in states["b.py"]
    for name in ("c.py", "d.py"):
        assert "rule 'nice' is claimed 2 times, by c.py sha256:" in states[name]
        assert " and d.py sha256:" in states[name]

    modules, out, errors = imported("list", "rules", files=files)
    assert modules == "[]"
    assert "backprop" in out
    assert "nice" not in out
    assert errors == [
        "rulezoo: 2 plugins failed to load, 2 plugins with a clash of names: see `rulezoo plugins`"
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_static_help_is_the_commands_own(name):
    command = COMMANDS[name]
    assert command.load().help.splitlines()[0] == command.help
    assert command.load().name == name


def test_help_lists_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out and command.help in out for name, command in COMMANDS.items())


def test_list_gives_name_origin_and_summary(run):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    found = discover().rule("backprop")
    assert found.origin in lines["backprop"]
    assert found.spec.summary in lines["backprop"]
    assert {"rule", "task"} <= set(lines)
    assert "backprop" not in run("list", "tasks")[1]


def test_list_filters_by_tag(run, file):
    path = file(NICE)
    out = run("--plugin", path, "list", "rules", "--tag", "odd")[1]
    assert [line.split()[0] for line in out.splitlines()] == ["rule", "nice"]


@pytest.mark.parametrize("words", [("list", "rules", "--plugin", FILE), ("--plugin", FILE, "list", "rules")])
def test_a_single_file_is_listed_and_handed_on_to_child_processes(run, file, words):
    before, path = file(DUPLICATE.replace("nice", "other"), "before.py"), file(NICE)
    os.environ[FILES] = before
    code, out, _ = run(*(path if word is FILE else word for word in words))
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "my_rule.py sha256:" in lines["nice"]
    assert "other" in lines
    assert os.environ[FILES].split(os.pathsep) == [before, path]


def test_show_tells_everything_about_a_rule(run):
    code, out, _ = run("show", "backprop")
    spec = discover().rule("backprop").spec
    assert code == 0
    for part in (spec.summary, spec.reference, spec.family, spec.target, "rulezoo 0"):
        assert part in out
    for name, mark in spec.plausibility.marks().items():
        assert [plausibility.name(name), mark] in [
            line.rsplit(maxsplit=1) for line in map(str.strip, out.splitlines())
        ]
    (row,) = [line for line in out.splitlines() if line.startswith("weight_decay")]
    assert row.split(maxsplit=5)[1:5] == ["none", "none,", "[0,", "inf)"]
    assert "weight decay per step of the optimiser" in row


def test_show_tells_what_a_task_needs(run, file):
    path = file("""
        from dataclasses import dataclass
        import rulezoo

        @dataclass(frozen=True)
        class Tiny(rulezoo.Task):
            budget = rulezoo.Budget(epochs=7, batch=32, lr=0.5)
            metric, chance = "bits", 0.25
            width: int = rulezoo.hp(4, "units of the hidden layer", low=1, high=9)

            def network(self):
                from torch import nn
                return nn.Sequential(nn.Linear(2, self.width), rulezoo.Site("pre"), nn.Linear(self.width, 1))

        @rulezoo.hookimpl
        def rulezoo_tasks():
            where = {"reference": "made up", "embedded": True}
            return [rulezoo.TaskSpec("tiny", f"{__name__}:Tiny", "A task.", **where)]
    """)
    code, out, _ = run("--plugin", path, "show", "tiny")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "made up" in lines["data"]
    assert "none" in lines["download"]
    assert "bits, 0.25 by chance" in lines["metric"]
    assert "epochs 7, batch 32, lr 0.5" in lines["budget"]
    assert lines["sites"].split() == ["sites", "1", "(pre)"]
    assert lines["width"].split() == ["width", "4", "[1,", "9]", "units", "of", "the", "hidden", "layer"]


def test_what_a_plugin_says_cannot_reach_the_terminal(run, file):
    path = file(NICE)
    for words in (["list"], ["show", "nice"], ["plugins"]):
        out = run("--plugin", path, *words)[1]
        assert "\x1b" not in out
        assert "\x07" not in out
    assert "A �]0;owned� [red]rule[/red]." in run("--plugin", path, "list")[1]


def test_on_a_terminal_markup_of_a_plugin_is_text(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table([("a", "[red]x[/red] \x1b]0;owned\x07")], ("name", "words"))
    out = capsys.readouterr().out
    assert "[red]x[/red] �]0;owned�" in out


@pytest.mark.parametrize(
    ("dirty", "tidy"),
    [
        ("a\x1b[31mb", "a�[31mb"),
        (" a\r\n\tb\x00 ", "a b�"),
        ("a\u202eb\x9bc\udc80", "a�b�c�"),
        ("σ × 8×8 日本", "σ × 8×8 日本"),
    ],
)
def test_cleaning(dirty, tidy):
    assert clean(dirty) == tidy


def test_cleaning_keeps_the_lines_of_a_traceback():
    assert clean_lines("a\n  b\x1b[2J\n\tc") == "a\n  b�[2J\n        c"


def test_plugins_as_json_and_their_tracebacks(run, file):
    path = file(BROKEN)
    code, out, _ = run("--plugin", path, "plugins", "--json")
    (mine,) = [plugin for plugin in json.loads(out) if plugin["name"] == "my_rule.py"]
    assert code == 0
    assert (mine["ok"], mine["rules"]) == (False, 0)
    assert "no \x1b[2J luck" in mine["reason"]
    _, out, _ = run("--plugin", path, "plugins", "--traceback", "my_rule.py")
    assert "Traceback (most recent call last):" in out
    assert "ValueError: no �[2J luck" in out
    assert "loaded without an error" in run("plugins", "--traceback", "rulezoo")[1]


def test_the_warning_names_the_command_that_tells_more(run, file):
    path = file(BROKEN, "my rule.py")
    code, _, err = run("--plugin", path, "list")
    assert code == 0
    assert err == f"rulezoo: 1 plugin failed to load: see `rulezoo plugins --plugin '{path}'`\n"
    assert "my rule.py" in run("--plugin", path, "plugins")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["show", "bakprop"],
            "unknown rule, task, evaluation or claim 'bakprop'; did you mean 'backprop'? (rulezoo list)",
        ),
        (["lst"], "unknown command 'lst'; did you mean 'list'? (rulezoo --help)"),
        (
            ["plugins", "--traceback", "ruzoo"],
            "unknown plugin 'ruzoo'; did you mean 'rulezoo'? (rulezoo plugins)",
        ),
        (["list", "ruls"], "Invalid value for '[rules|tasks|evaluations|claims]': 'ruls' is not one of"),
        (["show"], "Missing argument 'NAME'. (rulezoo show --help)"),
        (
            ["--plugin", "nowhere.py", "list"],
            "Invalid value for '--plugin': File 'nowhere.py' does not exist.",
        ),
        (["leaderboard", "--out", "nowhere"], "no results in nowhere: run `rulezoo compare`"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"rulezoo: {said}")
    assert err.count("\n") == 1


def test_a_rule_whose_code_fails_shows_what_is_known_and_why_not_more(run, file):
    path = file(DUPLICATE)
    code, out, err = run("--plugin", path, "show", "nice")
    assert code == 2
    assert "my_rule.py sha256:" in out
    assert err.startswith("rulezoo: rule 'nice' of my_rule.py sha256:")
    assert err.endswith(" cannot be loaded: ModuleNotFoundError: No module named 'm'\n")


@pytest.mark.parametrize(
    "error", ["rulezoo.task:DataMissing", "rulezoo.results.store:StoreError", "rulezoo.options:OptionError"]
)
def test_every_error_of_the_user_ends_at_the_border(run, monkeypatch, error):
    module, name = error.split(":")
    cls = getattr(__import__(module, fromlist=[name]), name)

    def fail(*args):
        raise cls("first\nsecond \x1b[2J")

    monkeypatch.setattr("rulezoo.cli.listing.registry", fail)
    assert run("list") == (2, "", "rulezoo: first second �[2J\n")
    with pytest.raises(cls):
        run("--debug", "list")
    monkeypatch.setenv("RULEZOO_DEBUG", "1")
    with pytest.raises(cls):
        run("list")


def test_an_error_of_ours_is_not_hidden(run, monkeypatch):
    monkeypatch.setattr("rulezoo.cli.listing.registry", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("list")


def stored(rule, seed, score):
    values = {
        "protocol": 1,
        "rule": rule,
        "rule_version": 1,
        "rule_options": {},
        "task_version": 1,
        "task_options": {},
    }
    asked = RunSpec(**values, task="digits-cnn", budget={"epochs": 1}, seed=seed, device="cpu")
    answered = Provenance(
        packages={},
        rule_plugin=Plugin(distribution="rulezoo"),
        task_plugin=Plugin(distribution="rulezoo"),
        hardware=Hardware(cpu="A", cores=1, threads=1),
        commit=None,
        dirty=None,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
        seeds_together=1,
        mode="single",
    )
    came = {"status": "ok", "scores": {"test": score}, "chance": 0.1, "metric": "accuracy"}
    return Record(asked=asked, answered=answered, **came)


@pytest.fixture
def results(tmp_path):
    """A folder with three readable records and a damaged one."""
    store = Store(tmp_path / "results")
    for rule, seed, score in (("backprop", 0, 0.96), ("backprop", 1, 0.98), ("my-rule", 0, 0.5)):
        store.put(stored(rule, seed, score))
    store.put(stored("my-rule", 1, 0.7)).write_text("{")
    return str(tmp_path / "results")


def test_the_leaderboard_shows_what_is_stored_and_names_what_is_damaged(run, results):
    code, out, err = run("leaderboard", "--out", results)
    assert code == 0
    for part in ("digits-cnn", "backprop", "97.0", "my-rule", "50.0"):
        assert part in out
    assert "\x1b" not in out
    assert err.startswith("rulezoo: left out: runs/digits-cnn/my-rule/seed1-")
    assert err.count("\n") == 1


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_the_leaderboard_has_the_form_that_is_asked_for(run, results, form, monkeypatch):
    monkeypatch.setenv("RULEZOO_RESULTS", results)
    code, out, _ = run("leaderboard", "--format", form)
    shape = {
        "table": lambda: "backprop" in out,
        "md": lambda: "\n\n| rule | % of backprop |" in out,
        "csv": lambda: {row["rule"]: row["n"] for row in csv.DictReader(out.splitlines())}["backprop"] == "2",
        "json": lambda: {line["rule"] for line in json.loads(out)["lines"]} == {"backprop", "my-rule"},
    }
    assert code == 0
    assert shape[form]()


def test_the_leaderboard_shows_only_what_is_asked_for(run, results):
    out = run("leaderboard", "--out", results, "--rule", "my-rule", "--task", "digits-cnn")[1]
    assert "my-rule" in out
    assert "97.0" not in out
    code, _, err = run("leaderboard", "--out", results, "--rule", "bakprop")
    assert code == 2
    assert "unknown rule 'bakprop'; did you mean 'backprop'? (stored: backprop, my-rule)" in err


def test_the_leaderboard_needs_no_torch(results):
    modules, out, _ = imported("leaderboard", "--out", results)
    assert "backprop" in out
    # numpy and scipy.special work out order and intervals; scipy.stats would take another second
    assert not {"torch", "scipy.stats", "pandas", "matplotlib"} & set(ast.literal_eval(modules))


def test_the_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "rulezoo", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("rulezoo 0.")


def test_a_terminal_that_cannot_write_greek_is_no_reason_to_fail(file):
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    environ[FILES] = file(DUPLICATE.replace("'s'", "'σ'"))
    arguments = [sys.executable, "-m", "rulezoo", "list", "rules"]
    done = subprocess.run(arguments, env=environ, capture_output=True, check=True)
    assert b"\\u03c3" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "--out", "a", "--out=b"], "'--out' (env var: 'RULEZOO_RESULTS'): is given 2 values, 'a' and 'b'; give one"),
        (["leaderboard", "--format", "csv", "--format", "md"], "'--format': is given 2 values, 'csv' and 'md'; give one"),
        (["claims", "run", "x", "--profile", "quick", "--profile", "full"], "is given 2 values, 'quick' and 'full'"),
        (["compare", "-o", "nmnc.rank=1", "-o", "nmnc.rank=2"], "nmnc.rank is given twice, as '1' and as '2'"),
        (["tune", "--trials", "2", "--trials", "3"], "is given 2 values, '2' and '3'"),
    ],
)  # fmt: skip
def test_an_option_with_two_values_is_refused(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_an_option_that_is_given_the_same_value_twice_or_may_be_repeated_is_fine(run):
    _, _, err = run("leaderboard", "--out", "a", "--out", "a")
    assert "is given" not in err
    _, _, err = run("compare", "--rules", "nope", "--rules", "neither", "-o", "nope.a=1", "-o", "nope.a=1")
    assert "unknown rule 'nope'" in err


def test_a_tilde_in_a_variable_is_the_home_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RULEZOO_RESULTS", "~/results")
    monkeypatch.setenv("RULEZOO_DATA", "~/data")
    code, _, err = run("compare", "--tasks", "mnist-mlp", "--rules", "frozen", "--device", "cpu")
    assert code == 2
    assert f"looked in {tmp_path}/home/data/MNIST/raw" in err
    assert (tmp_path / "home" / "results").is_dir()
    assert not (tmp_path / "~").exists()


def test_an_unknown_name_comes_with_the_plugins_that_failed(run, file):
    path = file("import not_installed_anywhere", "mine.py")
    code, _, err = run("--plugin", path, "show", "my-task")
    assert code == 2
    assert (
        "plugin 'mine.py' failed to load: ModuleNotFoundError: No module named 'not_installed_anywhere'"
        in err
    )


def test_no_rule_or_task_is_called_all(run, file):
    path = file("""
        import rulezoo

        @rulezoo.hookimpl
        def rulezoo_rules():
            return [rulezoo.RuleSpec("all", "m:C", "Every one.")]
    """)
    code, _, err = run("--plugin", path, "show", "all")
    assert code == 2
    assert "SpecError" not in err
    assert "name 'all' is reserved" in err


def test_what_takes_seconds_is_announced_before_it_begins(monkeypatch, capsys):
    from rulezoo.cli import compare
    from rulezoo.cli.common import checking
    from rulezoo.comparison.request import Request

    seen = []
    monkeypatch.setattr(compare, "load", lambda request: seen.append(capsys.readouterr().err))
    compare.prepared(Request(device="cpu"), compare.ExecutorOptions())
    assert seen == [""]  # where nobody waits at a terminal, a mistake stays one line
    seen.clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    compare.prepared(Request(device="cpu"), compare.ExecutorOptions())
    assert seen == ["rulezoo: loading rules and tasks…\n"]
    checking()
    assert capsys.readouterr().err == "rulezoo: checking tasks…\n"
