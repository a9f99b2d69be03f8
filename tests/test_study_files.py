"""Study files: what is asked of a comparison, written down, read back, and overridden by the command line."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.comparison import study_files
from rulezoo.comparison.plan import plan, resolved
from rulezoo.comparison.request import Request
from rulezoo.comparison.study_files import KEYS, StudyFileError
from rulezoo.discovery.registry import discover

STUDY = """
rules = ["nmnc", "backprop"]
tasks = ["digits-cnn"]
seeds = "5-7"
epochs = 2
device = "cpu"
precision = "bfloat16"
compiled = true
together = 2
probes = 3
checkpoint = 10
threads = 1
trials = 4
retry = ["failed"]
data = "sets"
download = true
keep_weights = true
keep_memory = true
evaluations = ["robustness"]

[options.nmnc]
rank = [4, 16, 64]
sigma = 1e-2

[options.digits-cnn]
width = 0.25

[budget]
lr = 0.1
clip_norm = "none"
schedule = "MultiStepLR"
"schedule.milestones" = [1, 2]
optimizer = "SGD"
"optimizer.momentum" = 0.9
"optimizer.nesterov" = true
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study file."""
    monkeypatch.chdir(tmp_path)
    for name in ("RULEZOO_RESULTS", "RULEZOO_DATA"):
        monkeypatch.delenv(name, raising=False)

    def write(text, name="study.toml"):
        Path(name).write_text(text, encoding="utf-8")
        return Path(name)

    return write


def read(path):
    return Request(**study_files.read(path).fields)


def test_every_field_of_a_request_is_a_key():
    assert set(KEYS) == {one.name for one in fields(Request)}


def test_a_file_states_every_field(study):
    assert read(study(STUDY)) == Request(
        rules=["nmnc", "backprop"], tasks=["digits-cnn"], seeds=[5, 6, 7], epochs=2, device="cpu",
        precision="bfloat16", compiled=True, together=2, probes=3, checkpoint=10, threads=1, trials=4,
        retry=["failed"], data=Path("sets"), download=True, keep_weights=True, keep_memory=True,
        evaluations=["robustness"],
        options={"nmnc": {"rank": ("4", "16", "64"), "sigma": "0.01"}, "digits-cnn": {"width": "0.25"}},
        budget={
            "lr": "0.1", "clip_norm": "none", "schedule": "MultiStepLR", "schedule.milestones": "1,2",
            "optimizer": "SGD", "optimizer.momentum": "0.9", "optimizer.nesterov": "true",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("seeds = 2", (0, 1)), ('seeds = "2"', (0, 1)), ('seeds = "3-4"', (3, 4)), ("seeds = [7, 0]", (7, 0)), ("", (0, 1, 2))],
)  # fmt: skip
def test_seeds_are_a_number_a_range_or_a_list(study, text, seeds):
    assert read(study(text)).seeds == seeds


def test_all_rules_and_a_folder_beside_the_file(study):
    Path("inner").mkdir()
    made = read(study('rules = "all"\ndata = "sets"', "inner/study.toml"))
    assert (made.rules, made.data) == (("all",), Path("inner/sets"))


def test_a_table_of_the_optimizer_holds_its_options(study):
    assert read(study("[budget.optimizer]\nmomentum = 0.9")).budget == {"optimizer.momentum": "0.9"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('ruls = ["a"]', "unknown key 'ruls'; did you mean 'rules'? rules: a list of names, or \"all\"."),
        ("tune = 3", "unknown key 'tune'; did you mean 'trials'? trials: a whole number of trials, 2 or more."),
        ("xyzzy = 3", "unknown key 'xyzzy'; a study file has the keys rules, tasks, seeds, options, "),
        ('epochs = "ten"', "epochs must be a whole number, 1 or more, or None, got 'ten'"),
        ("epochs = 1.5", "epochs must be a whole number, 1 or more, or None, got 1.5"),
        ("compiled = 1", "compiled must be true or false, got 1"),
        ('rules = "nmnc"', "rules must be a list of names, got 'nmnc'"),
        ("tasks = [1]", "tasks must be a list of names, and 1 is not a name"),
        ("seeds = true", "seeds must be a number of seeds (5: seeds 0 to 4), a range"),
        ("seeds = 0", "the number of seeds must be 1 or more, got 0"),
        ('seeds = "9-5"', "a range of seeds must begin with its smallest, got '9-5'; write 5-9"),
        ("seeds = [1, 1]", "seed 1 is given twice; give each seed once"),
        ("seeds = [0.5]", "a seed must be a whole number"),
        ("data = 3", "data must be the path of a folder, relative to the study file, got 3"),
        ("options = 3", "options must be a table, got 3"),
        ("[options]\nnmnc = 3", "options.nmnc must be a table, got 3"),
        ("[options.nmnc]\nrank = []", "options.nmnc.rank must have a value, got an empty list"),
        ("[options.nmnc]\nrank = [[4]]", "options.nmnc.rank must be a number, a text, true or false, got [4]"),
        ("[options.nmnc]\nrank = 2026-01-01", "options.nmnc.rank must be a number, a text, true or false, got datetime"),
        ("budget = [1]", "budget must be a table, got [1]"),
        ('retry = ["failled"]', "retry: unknown word 'failled'; did you mean 'failed'"),
        ("a = = 3", "is not valid TOML: Invalid value (at line 1, column 5)"),
        ("rules = ['a']\nrules = ['b']", "is not valid TOML: Cannot overwrite a value (at "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_file(study, text, said):
    done = CliRunner().invoke(cli, ["compare", "--config", str(study(text)), "--out", "results"])
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.startswith("rulezoo: study.toml")
    assert said in line
    assert not Path("results").exists()


def test_a_file_that_is_no_text_or_is_missing_is_named(study):
    Path("study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StudyFileError, match=r"study\.toml is not valid TOML: 'utf-8' codec"):
        study_files.read(Path("study.toml"))
    done = CliRunner().invoke(cli, ["compare", "--config", "nowhere.toml"])
    assert done.exit_code == 2
    assert "'nowhere.toml' does not exist" in done.output


@pytest.mark.parametrize("seeds", [(0, 1), (0,), (5, 6), (7,), (0, 3, 7), tuple(range(40, 60))])
def test_what_is_written_is_read_back(study, seeds):
    whole = Request(
        rules=["nmnc"], tasks=["digits-cnn"], seeds=seeds, epochs=2, device="cpu", precision="bfloat16",
        compiled=True, together=2, probes=3, checkpoint=10.0, threads=1, trials=4, data=Path("sets").resolve(),
        keep_weights=True, keep_memory=True, evaluations=["robustness"],
        options={"nmnc": {"rank": ("4", "16"), "sigma": "1e-2"}, "other": {"path": ("a,b", "007", "none", "true")}},
        budget={"lr": "0.1", "schedule.milestones": "1,2", "optimizer": "SGD", "clip_norm": "none"},
    )  # fmt: skip
    study_files.write(Path("saved.toml"), whole, {"rulezoo": "0.1", "a-plugin": "2"})
    found = study_files.read(Path("saved.toml"))
    assert Request(**found.fields) == whole
    assert found.versions == {"rulezoo": "0.1", "a-plugin": "2"}


def test_what_has_its_default_value_is_not_written_and_no_request_to_run_again(study):
    study_files.write(Path("saved.toml"), Request(rules=["nmnc"], retry=["all"], download=True), {})
    content = tomllib.loads(Path("saved.toml").read_text(encoding="utf-8"))
    assert content == {"rules": ["nmnc"], "seeds": 3, "versions": {}}


# The command

FAST = ("--out", "results", "--device", "cpu")


class Carried(Exception):
    """Raised in place of a comparison."""


@pytest.fixture
def asked(monkeypatch):
    """The request that a command makes, which is not carried out."""

    def made(*words, name="compare"):
        seen = []

        def instead(request, *rest):
            seen.append(request)
            raise Carried

        monkeypatch.setattr(f"rulezoo.tuning.comparing.{name}", instead)
        done = CliRunner().invoke(cli, [name, *words, *FAST])
        assert isinstance(done.exception, Carried), done.output
        return seen[0], done.output

    return made


def test_options_of_the_command_override_the_file(study, asked, monkeypatch):
    path = str(study(STUDY.replace("compiled = true\n", "").replace("trials = 4\n", "")))
    made, _ = asked("--config", path)
    assert (made.seeds, made.epochs, made.probes, made.precision) == ((5, 6, 7), 2, 3, "bfloat16")
    made, _ = asked(
        "--config", path, "--rules", "backprop,nmnc,frozen", "--seeds", "0,4", "--epochs", "9", "--probe", "0",
        "-o", "nmnc.rank=8", "-o", "frozen.lr=1", "-b", "lr=0.2", "-b", "batch=64",
    )  # fmt: skip
    assert (made.rules, made.seeds, made.epochs, made.probes) == (
        ("backprop", "nmnc", "frozen"),
        (0, 4),
        9,
        0,
    )
    assert made.options == {
        "nmnc": {"rank": "8", "sigma": "0.01"},
        "digits-cnn": {"width": "0.25"},
        "frozen": {"lr": "1"},
    }
    assert (made.budget["lr"], made.budget["batch"], made.budget["optimizer"]) == ("0.2", "64", "SGD")
    assert made.tasks == ("digits-cnn",)
    assert made.data == Path("sets")
    monkeypatch.setenv("RULEZOO_DATA", "elsewhere")
    made, _ = asked("--config", path)
    assert made.data == Path("elsewhere")


def test_a_value_that_is_the_default_of_the_option_overrides_too(study, asked):
    made, _ = asked("--config", str(study("seeds = 5\nprobes = 4")), "--seeds", "3", "--probe", "0")
    assert (made.seeds, made.probes) == ((0, 1, 2), 0)


def test_the_weights_to_keep_are_carried(study, asked):
    made, _ = asked("--keep-weights", "--keep-memory")
    assert (made.keep_weights, made.keep_memory) == (True, True)


def test_a_study_file_serves_a_tuning_too(study, asked):
    path = str(study('rules = ["nmnc"]\ntrials = 4\n[options.nmnc]\nrank = 4'))
    made, _ = asked("--config", path, name="tune")
    assert (made.rules, made.trials, made.options) == (("nmnc",), 4, {"nmnc": {"rank": "4"}})
    made, _ = asked("--config", path, "--trials", "6", name="tune")
    assert made.trials == 6


def test_what_is_saved_asks_for_the_same_runs(study, asked):
    words = ("--rules", "nmnc,backprop", "--tasks", "digits-cnn", "--seeds", "2-3", "-o", "nmnc.rank=4,16",
             "-b", "schedule=MultiStepLR", "-b", "schedule.milestones=1,2")  # fmt: skip
    made, _ = asked(*words, "--save-config", "deep/saved.toml")
    again, _ = asked("--config", "deep/saved.toml")
    keys = [[a.key for cell in plan(discover(), one) for a in cell.asked] for one in (made, again)]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 6
    content = tomllib.loads(Path("deep/saved.toml").read_text(encoding="utf-8"))
    assert content["options"] == {"nmnc": {"rank": [4, 16]}}
    assert {"rulezoo", "torch"} <= set(content["versions"])


def test_the_standard_comparison_is_saved_by_its_names(study, asked):
    made, _ = asked("--save-config", "saved.toml")
    assert made.rules == ()
    content = tomllib.loads(Path("saved.toml").read_text(encoding="utf-8"))
    named = resolved(discover(), made)
    assert (tuple(content["rules"]), tuple(content["tasks"])) == (named.rules, named.tasks)


def test_a_folder_that_the_environment_names_is_not_saved(study, asked, monkeypatch):
    monkeypatch.setenv("RULEZOO_DATA", "elsewhere")
    asked("--save-config", "saved.toml")
    assert "data" not in tomllib.loads(Path("saved.toml").read_text(encoding="utf-8"))
    asked("--save-config", "saved.toml", "--data", "here")
    assert tomllib.loads(Path("saved.toml").read_text(encoding="utf-8"))["data"] == str(
        Path("here").resolve()
    )


def test_another_version_is_named(study, asked):
    path = study('rules = ["nmnc"]\n[versions]\nrulezoo = "0.0.1"\nunknown = "3"')
    _, said = asked("--config", str(path))
    (line,) = said.splitlines()
    assert line.startswith("rulezoo: study.toml was written with rulezoo 0.0.1, and this is rulezoo ")


def test_a_file_that_cannot_be_written_is_named_before_anything_is_run(study):
    Path("in-the-way").write_text("", encoding="utf-8")
    done = CliRunner().invoke(cli, ["compare", "--save-config", "in-the-way/saved.toml", *FAST])
    assert done.exit_code == 2
    assert "in-the-way/saved.toml cannot be written: " in done.output
