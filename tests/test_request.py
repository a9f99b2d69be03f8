"""One value says what is asked of a comparison: what it may hold, how seeds are written, and who carries it."""

import ast
import pickle
from dataclasses import fields, replace
from pathlib import Path

import pytest

import rulezoo
from rulezoo.comparison import seeds
from rulezoo.comparison.jobs import Job
from rulezoo.comparison.request import Request, RequestError
from rulezoo.training.protocol import Trial
from rulezoo.tuning.study import SEEDS

CORE = Path(rulezoo.__file__).parent
MOST_PARAMETERS = 6
CARRIERS = (
    *(CORE / "comparison").glob("*.py"),
    *(CORE / "tuning").glob("*.py"),
    CORE / "claims" / "running.py",
    CORE / "training" / "runner.py",
    *(CORE / "cli" / f"{name}.py" for name in ("compare", "tune", "request", "forecast")),
)


@pytest.mark.parametrize("path", CARRIERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_function_takes_what_is_asked_apart(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            names = [name for name in given if name not in ("self", "cls")]
            assert len(names) <= MOST_PARAMETERS, f"{path.name}: {node.name}({', '.join(names)})"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs must be a whole number, 1 or more, or None, got 0"),
        ({"epochs": "ten"}, "epochs must be a whole number, 1 or more, or None, got 'ten'"),
        ({"epochs": True}, "epochs must be a whole number, 1 or more, or None, got True"),
        ({"probes": None}, "probes must be a whole number, 0 or more, got None"),
        ({"trials": 1}, "trials must be a whole number, 2 or more, or None, got 1"),
        ({"checkpoint": -1}, "checkpoint must be a number of seconds, 0 or more, got -1"),
        ({"checkpoint": float("nan")}, "checkpoint must be a number of seconds, 0 or more, got nan"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, mps, got 'gpu'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ({"download": "yes"}, "download must be true or false, got 'yes'"),
        ({"data": "folder"}, r"data must be a folder \(a path\), or None, got 'folder'"),
        ({"rules": "nmnc"}, "rules must be a list of names, got 'nmnc'"),
        ({"tasks": [3]}, "tasks must be a list of names, and 3 is not a name"),
        ({"retry": ["failled"]}, "retry: unknown word 'failled'; did you mean 'failed'"),
        ({"seeds": []}, "seeds must hold at least one seed, got none"),
        ({"seeds": [0, 0]}, "seed 0 is given twice; give each seed once"),
        ({"seeds": [-1]}, r"a seed must be a whole number from 0 to \d+, got -1"),
        ({"seeds": [1.5]}, r"a seed must be a whole number from 0 to \d+, got 1.5"),
        ({"seeds": range(10_001)}, "seeds must be 10,000 at most, got 10,001"),
    ],
)
def test_a_value_that_cannot_be_is_named(given, said):
    with pytest.raises(RequestError, match=f"^{said}"):
        Request(**given)


def test_lists_are_taken_and_frozen():
    made = Request(rules=["nmnc", "nmnc", "backprop"], seeds=range(2))
    assert (made.rules, made.seeds) == (("nmnc", "backprop"), (0, 1))
    assert made == Request(rules=("nmnc", "backprop"), seeds=(0, 1))
    assert hash(made) == hash(Request(rules=("nmnc", "backprop"), seeds=(0, 1)))


def test_a_part_for_one_cell_holds_everything_else_whole():
    whole = Request(
        rules=["a", "b"], tasks=["t"], seeds=[5], options={"a": {"x": ("1", "2")}}, epochs=3, probes=2,
        budget={"lr": "1"}, data=Path("here"), keep_weights=True, keep_memory=True, evaluations=["one"],
        together=2, threads=1, compiled=True, checkpoint=5.0, precision="bfloat16", retry=["failed"],
    )  # fmt: skip
    part = whole.of_cell("a", {"x": "2"}, "t", {})
    assert (part.rules, part.tasks, part.options) == (("a",), ("t",), {"a": {"x": "2"}, "t": {}})
    others = {one.name for one in fields(Request)} - {"rules", "tasks", "options"}
    assert {name: getattr(part, name) for name in others} == {name: getattr(whole, name) for name in others}


def test_a_trial_keeps_nothing_but_its_score():
    trial = Request(probes=3, keep_weights=True, keep_memory=True, evaluations=["one"]).of_trial(SEEDS)
    assert (trial.seeds, trial.probes, trial.keep_weights, trial.keep_memory) == (SEEDS, 0, False, False)
    assert trial.evaluations == ()


def test_a_job_can_be_sent_and_looked_up():
    request = Request(
        rules=["nmnc"], tasks=["digits-cnn"], seeds=[0, 4], options={"nmnc": {"rank": "4"}},
        budget={"lr": "0.1"}, data=Path("/data"), keep_weights=True, keep_memory=True, evaluations=["rsa"],
    )  # fmt: skip
    job = Job(request, Path("/results"), Trial(1, 0.5), "plugin.py")
    again = pickle.loads(pickle.dumps(job))
    assert again == job
    assert {job: "found"}[again] == "found"
    assert again.request == request
    assert (job.rule, job.task, job.seeds, job.rule_options) == ("nmnc", "digits-cnn", (0, 4), {"rank": "4"})
    assert job != replace(job, request=replace(request, options={"nmnc": {"rank": "5"}}))


# Seeds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1", (0,)),
        ("5", (0, 1, 2, 3, 4)),
        ("5-9", (5, 6, 7, 8, 9)),
        ("7-7", (7,)),
        ("0,3,7", (0, 3, 7)),
        ("9, 0", (9, 0)),
        ("0,5-7", (0, 5, 6, 7)),
        ("3-3", (3,)),
    ],
)
def test_seeds_are_read(text, found):
    assert seeds.read(text) == found
    assert seeds.read(seeds.shown(found)) == tuple(sorted(found))


@pytest.mark.parametrize(
    ("found", "text"),
    [((0, 1, 2), "3"), ((0,), "1"), ((5, 6, 7), "5-7"), ((7,), "7-7"), ((0, 3), "0,3"), ((4, 0, 1), "0-1,4")],
)
def test_seeds_are_shown_as_they_are_read(found, text):
    assert seeds.shown(found) == text
    assert seeds.read(text) == tuple(sorted(found))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "seeds must be a number of seeds"),
        ("0", "the number of seeds must be 1 or more, got 0"),
        ("-3", "seeds must be a number of seeds"),
        ("1.5", "seeds must be a number of seeds"),
        ("5-", "seeds must be a number of seeds"),
        ("1,,2", "seeds must be a number of seeds"),
        ("²", "seeds must be a number of seeds"),
        ("9-5", "a range of seeds must begin with its smallest, got '9-5'; write 5-9"),
        ("99999999", "seeds must be 10,000 at most, got 99,999,999"),
        ("0-9999999", "seeds must be 10,000 at most, got 10,000,000"),
    ],
)
def test_seeds_that_cannot_be_read_are_named(text, said):
    with pytest.raises(RequestError, match=f"^{said}"):
        seeds.read(text)
