"""A study is carried out once, goes on where it stopped, and is refused before the first training.

What another claim has made is copied where it is the same, and made where it is not.
"""

import math
import re
from dataclasses import dataclass, replace

import msgspec
import pytest

from rulezoo.claims.design import Arm, Claim, ClaimError, Criterion, Evaluate, Study, Tuning
from rulezoo.claims.evidence import over_seeds
from rulezoo.claims.installed import of
from rulezoo.claims.running import Runners, outdated, run, store_of, stored
from rulezoo.claims.standing import Standing
from rulezoo.claims.verdicts import above, conclude
from rulezoo.cli import main
from rulezoo.comparison.jobs import work
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import discover
from rulezoo.errors import UserError
from rulezoo.evaluations import running as evaluating
from rulezoo.tuning.comparing import Listeners, runner

TINY = {"width": "0.25"}


class InThisProcess:
    """Does jobs in this process; is interrupted after so many of them."""

    def __init__(self, patience=1000):
        self.patience, self.done = patience, []

    def run(self, jobs, listener):
        for job in jobs:
            if len(self.done) >= self.patience:
                raise KeyboardInterrupt
            work(job)
            self.done.append(job)


def tiny(label, rule, **fields):
    return Arm(label, rule, "digits-cnn", (0,), task_options=TINY, epochs=1, **fields)


@pytest.fixture
def claim():
    ours = tiny("ours", "backprop", tuned="ours", probes=1)
    tuning = Tuning("ours", replace(ours, seeds=(1000,), probes=0, tuned=""), "lr", ("1e-4", "1e-2"))
    arms = (ours, tiny("theirs", "frozen", probes=1))
    return Claim(
        "test",
        "It works.",
        "us",
        Standing("ours", ("theirs",), "ours"),
        {"quick": Study(arms, "s", "t", (tuning,))},
    )


def go(claim, tmp_path, executor):
    request = Request(device="cpu", threads=1)
    run_cells = runner(request, executor, Listeners())
    return run(claim, "quick", request, discover(), store_of(tmp_path, claim, "quick"), Runners(run_cells))


def test_a_study_is_tuned_then_run_and_goes_on_where_it_stopped(claim, tmp_path):
    for patience, runs in ((1, 1), (1, 2), (1, 3)):
        with pytest.raises(KeyboardInterrupt):
            go(claim, tmp_path, InThisProcess(patience))
        found = stored(tmp_path, claim, "quick")
        assert (found.done, found.planned, found.complete) == (runs, 4, False)
    last = InThisProcess()
    found = go(claim, tmp_path, last)
    assert [job.rule for job in last.done] == ["frozen"]
    assert found.complete
    assert found.chosen == {"ours": "1e-2"}
    assert found.of("ours")[0].asked.rule_options["lr"] == 0.01
    assert [len(record.probes) for record in found.records] == [1, 1]

    nothing = InThisProcess()
    assert go(claim, tmp_path, nothing) == found
    assert not nothing.done


@pytest.mark.parametrize(
    "bad", [{"options": {"rank": "nearly"}}, {"rule": "nobody"}, {"tuned": "", "options": {"lr": "-1"}}]
)
def test_what_does_not_exist_is_refused_before_the_first_training(claim, tmp_path, bad):
    study = claim.studies["quick"]
    wrong = replace(study, arms=(study.arms[0], replace(study.arms[1], **bad)))
    executor = InThisProcess()
    with pytest.raises(UserError, match="claim test cannot be run with this rulezoo"):
        go(replace(claim, studies={"quick": wrong}), tmp_path, executor)
    assert not executor.done


def test_seeds_are_trained_one_by_one_where_that_is_asked_for(claim, tmp_path):
    study = claim.studies["quick"]
    arms = (replace(study.arms[1], seeds=(0, 1)),)
    for together, jobs in ((True, [(0, 1)]), (False, [(0,), (1,)])):
        one = replace(claim, studies={"quick": replace(study, arms=arms, tunings=(), together=together)})
        executor = InThisProcess()
        go(one, tmp_path / str(together), executor)
        assert [job.seeds for job in executor.done] == jobs


def test_arms_that_ask_the_same_question_are_run_once(claim, tmp_path):
    arms = (tiny("ours", "frozen"), tiny("theirs", "frozen"))
    executor = InThisProcess()
    found = go(replace(claim, studies={"quick": Study(arms, "s", "t")}), tmp_path, executor)
    assert len(executor.done) == 1
    assert found.of("ours") == found.of("theirs")
    assert found.complete


@pytest.mark.slow
def test_the_command_runs_a_claim_and_says_its_verdict(claim, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rulezoo.claims.installed.load", lambda registry, name: claim)
    monkeypatch.setattr("sys.argv", ["rulezoo", "claims", "run", "test"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    out, err = capsys.readouterr()
    assert "digits-cnn width=0.25  frozen" in err
    assert "  open: test score of ours − theirs: " in out
    assert out.endswith("Verdict (quick profile): inconclusive (score 0 of 1)\n")  # one seed has no interval
    assert store_of(tmp_path / "leaderboard" / "claims", claim, "quick").read().records


@pytest.mark.slow
def test_the_command_exits_with_1_when_a_run_failed(claim, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = claim.studies["quick"]
    arms = tuple(replace(arm, tuned="") for arm in study.arms)
    only = replace(claim, studies={"quick": replace(study, arms=arms, tunings=())})
    monkeypatch.setattr("rulezoo.claims.installed.load", lambda registry, name: only)
    monkeypatch.setattr("sys.argv", ["rulezoo", "claims", "run", "test", "--time-limit", "0.001"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "rulezoo: digits-cnn frozen seed 0 timeout: took longer than the limit" in capsys.readouterr().err


def test_each_profile_has_a_store_of_its_own(claim, tmp_path):
    assert store_of(tmp_path, claim, "quick").root == tmp_path / "test" / "quick"


# --------------------------------------------------------------------------------------------------------------------
# Evaluations of the networks that a study trains


@dataclass(frozen=True)
class Calibrated(Criterion):
    """Reads a value of an evaluation."""

    verdict_rule = "Supported if every network was evaluated."

    def judge(self, evidence):
        found = over_seeds(evidence.of("ours"), lambda record: evidence.value("calibrated", record, "ece"))
        return conclude([above("error", found, -1, kind="error")])


@pytest.fixture
def evaluated_claim():
    arms = (
        replace(tiny("ours", "backprop", probes=1), seeds=(0, 1)),
        tiny("theirs", "frozen", probes=1),
    )
    study = Study(
        arms, "s", "t", evaluations=(Evaluate("calibrated", "calibration", {"bins": "5"}, ("ours",)),)
    )
    return Claim("test", "It works.", "us", Calibrated(), {"quick": study})


def evaluate(store, records, asked):
    class Quiet:
        def planned(self, total, stored): ...
        def started(self, one): ...
        def finished(self, one, evaluated, reason): ...

    assert not evaluating.evaluate(store, records, [asked], Quiet()).reasons


def test_a_study_evaluates_the_networks_of_the_series_that_it_names(evaluated_claim, tmp_path):
    store = store_of(tmp_path, evaluated_claim, "quick")
    request = Request(device="cpu", threads=1)
    executor = InThisProcess()
    run_cells = runner(request, executor, Listeners())
    evidence = run(evaluated_claim, "quick", request, discover(), store, Runners(run_cells))
    assert (evidence.done, evidence.planned, evidence.complete) == (3, 5, False)
    evidence = run(evaluated_claim, "quick", request, discover(), store, Runners(run_cells, evaluate))
    assert (evidence.done, evidence.planned, evidence.complete) == (5, 5, True)
    assert len(executor.done) == 2  # nothing is trained again
    ours, theirs = evidence.of("ours"), evidence.of("theirs")
    assert all(0 <= evidence.value("calibrated", record, "ece") <= 1 for record in ours.values())
    assert math.isnan(evidence.value("calibrated", theirs[0], "ece"))
    assert evaluated_claim.criterion.judge(evidence).word == "supported"
    assert stored(tmp_path, evaluated_claim, "quick") == evidence

    other = replace(evaluated_claim.studies["quick"].evaluations[0], options={"bins": "7"})
    study = replace(evaluated_claim.studies["quick"], evaluations=(other,))
    changed = replace(evaluated_claim, studies={"quick": study})
    assert stored(tmp_path, changed, "quick").done == 3  # those were asked for with other options


def test_the_evidence_stands_without_the_weights(evaluated_claim, tmp_path):
    """Weights are large, so that only records and evaluations are kept in a repository."""
    store = store_of(tmp_path, evaluated_claim, "quick")
    request = Request(device="cpu", threads=1)
    run_cells = runner(request, InThisProcess(), Listeners())
    run(evaluated_claim, "quick", request, discover(), store, Runners(run_cells, evaluate))
    for path in store.root.rglob("*.safetensors"):
        path.unlink()
    assert stored(tmp_path, evaluated_claim, "quick").complete


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (
            Evaluate("a", "calibraton"),
            "claim test cannot be run with this rulezoo: unknown evaluation 'calibraton'",
        ),
        (Evaluate("a", "calibration", {"bin": "5"}), "claim test cannot be run with this rulezoo: "),
    ],
)
def test_an_evaluation_that_does_not_exist_is_refused_before_the_first_run(
    evaluated_claim, tmp_path, one, message
):
    executor = InThisProcess()
    study = replace(evaluated_claim.studies["quick"], evaluations=(one,))
    with pytest.raises(UserError, match=re.escape(message)):
        go(replace(evaluated_claim, studies={"quick": study}), tmp_path, executor)
    assert not executor.done


def test_evaluations_that_do_not_fit_the_study_are_refused(evaluated_claim):
    study = evaluated_claim.studies["quick"]
    (one,) = study.evaluations
    with pytest.raises(ClaimError, match="two evaluations of the study are called 'calibrated'"):
        replace(study, evaluations=(one, one))
    lost = replace(one, labels=("nobody",))
    with pytest.raises(
        ClaimError,
        match="'calibrated' is of series 'nobody', and the study has no such series; those are ours, theirs",
    ):
        replace(study, evaluations=(lost,))


def test_an_arm_can_have_a_batch_of_its_own(claim, tmp_path):
    arms = tuple(
        tiny(label, "frozen", budget={"batch": batch}) for label, batch in (("small", "32"), ("large", "256"))
    )
    found = go(replace(claim, studies={"quick": Study(arms, "s", "t")}), tmp_path, InThisProcess())
    assert found.complete
    assert [found.of(label)[0].asked.budget["batch"] for label in ("small", "large")] == [32, 256]


def asking(name, *arms, evaluations=()):
    study = Study(arms, "s", "t", evaluations=evaluations)
    return Claim(name, "It works.", "us", Standing("ours", ("theirs",), "ours"), {"quick": study})


def made_and_copied(claim, tmp_path):
    """Runs a claim; the rules that were trained, and the runs that were copied."""
    executor, copied = InThisProcess(), []
    runners = Runners(runner(REQUEST, executor, Listeners()), evaluate, copied.extend)
    evidence = run(claim, "quick", REQUEST, discover(), store_of(tmp_path, claim, "quick"), runners)
    assert evidence.complete
    return [job.rule for job in executor.done], copied


REQUEST = Request(device="cpu", threads=1)
OURS, THEIRS = tiny("ours", "backprop", probes=1), tiny("theirs", "frozen", probes=1)


@pytest.fixture
def made(tmp_path):
    """The store of a claim that was run, beside which others will be."""
    first = asking("first", OURS, THEIRS)
    assert made_and_copied(first, tmp_path) == (["backprop", "frozen"], [])
    return store_of(tmp_path, first, "quick")


def test_what_another_claim_has_made_is_copied_and_the_rest_is_run(made, tmp_path):
    second = asking("second", OURS, replace(THEIRS, seeds=(0, 1)))
    trained, copied = made_and_copied(second, tmp_path)
    assert trained == ["frozen"]
    assert [(one.record.asked.rule, one.holder.root) for one in copied] == [
        ("backprop", made.root),
        ("frozen", made.root),
    ]
    own = store_of(tmp_path, second, "quick")
    assert all(own.get(record.asked) == record for record in made.read().records)
    assert len(own.read().records) == 3
    assert made_and_copied(second, tmp_path) == ([], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "killed", "scores": {}, "probes": [], "reason": "the machine was switched off"},
        {"code": "0" * 16},
        {"probes": []},
    ],
    ids=["broken off", "of older code", "not probed"],
)
def test_what_is_not_the_result_that_is_asked_for_is_not_copied(made, tmp_path, changes):
    fields = dict(changes)
    code = fields.pop("code", None)
    for record in made.read().records:
        answered = msgspec.structs.replace(record.answered, rule_code=code or record.answered.rule_code)
        made.put(msgspec.structs.replace(record, answered=answered, **fields))
    assert made_and_copied(asking("second", OURS), tmp_path) == (["backprop"], [])


def test_other_options_and_other_profiles_are_other_questions(made, tmp_path):
    other = replace(OURS, options={"lr": "0.5"})
    assert made_and_copied(asking("second", other), tmp_path) == (["backprop"], [])
    made.root.rename(made.root.with_name("full"))
    assert made_and_copied(asking("third", OURS), tmp_path) == (["backprop"], [])


@pytest.mark.parametrize("state", ["sound", "missing", "changed"])
def test_weights_are_copied_where_networks_are_evaluated(tmp_path, state):
    one = Evaluate("calibrated", "calibration", {"bins": "5"}, ("ours",))
    first, second = (asking(name, OURS, evaluations=(one,)) for name in ("first", "second"))
    assert made_and_copied(first, tmp_path)[0] == ["backprop"]
    (record,) = (store := store_of(tmp_path, first, "quick")).read().records
    weights = store.kept_path(record.asked, "weights")
    there = state == "sound"
    if state == "missing":
        weights.unlink()
    if state == "changed":
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    trained, copied = made_and_copied(second, tmp_path)
    assert (trained, len(copied)) == (([], 1) if there else (["backprop"], 0))
    own = store_of(tmp_path, second, "quick").kept_path(record.asked, "weights")
    assert own.is_file()
    assert not there or own.read_bytes() == weights.read_bytes()

    third = asking("third", OURS)  # evaluates nothing, and so keeps no weights
    assert made_and_copied(third, tmp_path)[0] == []
    assert not store_of(tmp_path, third, "quick").kept_path(record.asked, "weights").exists()


def test_runs_of_older_code_are_counted(made, tmp_path):
    claim = asking("first", OURS, THEIRS)
    evidence = stored(tmp_path, claim, "quick")
    assert outdated(evidence, discover()) == 0
    older, other = made.read().records
    answered = msgspec.structs.replace(older.answered, rule_code="0" * 16)
    made.put(msgspec.structs.replace(older, answered=answered))
    assert outdated(stored(tmp_path, claim, "quick"), discover()) == 1
    made.path(other.asked).unlink()
    version = msgspec.structs.replace(other.asked, task_version=other.asked.task_version - 1)
    made.put(msgspec.structs.replace(other, asked=version))
    assert outdated(stored(tmp_path, claim, "quick"), discover()) == 2
    assert of(claim, discover(), tmp_path, aged=True)[0].caveat == "2 of 2 judged runs are of older code"

    made_and_copied(claim, tmp_path)  # asks for the other version only
    assert outdated(stored(tmp_path, claim, "quick"), discover()) == 1


@pytest.mark.slow
def test_the_command_runs_again_what_is_of_older_code(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rulezoo.cli.claims._claim", lambda zoo, name: asking("first", OURS, THEIRS))
    record = made.read().records[0]
    answered = msgspec.structs.replace(record.answered, rule_code="0" * 16)
    made.put(msgspec.structs.replace(record, answered=answered))
    command = ["rulezoo", "claims", "run", "first", "--out", ".", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        main()
    assert "1 of 2 judged runs are of older code; the same command" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*command, "--retry", "stale"])
    with pytest.raises(SystemExit):
        main()
    assert "older code" not in capsys.readouterr().err
    assert made.get(record.asked).answered.rule_code != "0" * 16
