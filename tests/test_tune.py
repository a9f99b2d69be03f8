"""Tuning: equal care for every rule, no look at the test data, and the same trials however often it is stopped."""

import math
import textwrap
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
import pytest
import torch

from rulezoo import LearningRule, Step, credit, hp
from rulezoo.cli import main
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.errors import UserError
from rulezoo.leaderboard import board, formats, grid, overview
from rulezoo.leaderboard import tuned as report
from rulezoo.results.provenance import collect
from rulezoo.results.records import Plugin, Point, Record
from rulezoo.results.store import Store
from rulezoo.task import Budget, Data, Split
from rulezoo.testing import TinyTask
from rulezoo.training import runner
from rulezoo.training.protocol import Trial
from rulezoo.training.run import RunRequest
from rulezoo.tuning import records, sampler, study
from rulezoo.tuning.records import Tried
from rulezoo.tuning.sampler import ROUND, Past
from rulezoo.tuning.space import legible, space, values

CPU = torch.device("cpu")
PLUGIN = """
    import os
    from dataclasses import dataclass

    from rulezoo import LearningRule, RuleSpec, Step, TaskSpec, credit, hookimpl, hp
    from rulezoo.testing import TinyTask

    @dataclass(frozen=True)
    class Many(LearningRule):
        scale: float = hp(1.0, "factor", low=0, search=(0.1, 10), log=True)
        rank: int = hp(64, "a number", low=1, search=(8, 32))
        kind: str | None = hp(None, "a word", choices=("a", "b"), search=("a", "b"))
        size: int | str = hp(4, "a number or a word", low=1, choices=("auto",), search=(8, "auto"))
        quiet: float = hp(0.5, "not searched")

        def step(self, net, loss, params, state, batch, noise, t):
            grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
            return Step({name: self.scale * g for name, g in grads.items()}, state, mean)

    class Burns(Many):
        '''Loses its numbers, but for the author's default.'''

        def step(self, net, loss, params, state, batch, noise, t):
            step = super().step(net, loss, params, state, batch, noise, t)
            return step if self.lr is None else step._replace(loss=step.loss * float("nan"))

    class Fragile(Many):
        '''Its process is killed, but for the author's default, until there is a file.'''

        def step(self, *given):
            if self.lr is not None and not os.path.exists("results/mended"):
                os.kill(os.getpid(), 9)
            return super().step(*given)

    @hookimpl
    def rulezoo_rules():
        many = RuleSpec("many", f"{__name__}:Many", "Many options.")
        fragile = RuleSpec("fragile", f"{__name__}:Fragile", "Fragile.")
        return [many, fragile, RuleSpec("burns", f"{__name__}:Burns", "Burns.")]

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("tiny", "rulezoo.testing:TinyTask", "Tiny.", embedded=True)]
"""


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    path = tmp_path / "tuned_plugin.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    monkeypatch.setenv(FILES, str(path))
    monkeypatch.delenv("RULEZOO_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def cells(*rules, seeds=(0, 1), tasks=("tiny",), epochs=4, **options):
    asked = Request(
        rules=rules or ["many"], tasks=tasks, seeds=seeds, device="cpu", options=options, epochs=epochs
    )
    return plan(discover(), asked)


# A trial is a run that sees less


class Exact(LearningRule):
    def step(self, net, loss, params, state, batch, noise, t):
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class Alone(Exact):
    vmappable = False


def train(trial, rule=None, seeds=(1000, 1001), *, task=None, data=None):
    task = task or TinyTask()
    budget = Budget(epochs=4, batch=16, lr=0.01)
    found = runner.run(
        RunRequest(rule or Exact(), task, seeds, budget, data or task.data(), CPU, trial=trial)
    )
    return [outcome for _, outcome in found]


def test_a_trial_does_not_read_the_test_data():
    data = TinyTask().data()
    unreadable = Data(data.train, data.validation, Split(data.test.x * torch.nan, data.test.y))
    assert [outcome.status for outcome in train(None, data=unreadable)] == ["diverged"] * 2
    trials, finals = train(Trial(), data=unreadable), train(None)
    assert [outcome.status for outcome in trials] == ["ok"] * 2
    assert [{*outcome.scores} for outcome in trials] == [{"validation"}] * 2
    assert [o.scores["validation"] for o in trials] == [o.scores["validation"] for o in finals]


def test_a_trial_whose_outputs_are_no_numbers_diverged():
    class Blind(Exact):
        def predict(self, net, params, state, x):
            return super().predict(net, params, state, x) * torch.nan

    (outcome,) = train(Trial(), Blind(), [1000])
    assert (outcome.status, outcome.reason) == (
        "diverged",
        "the outputs for the validation data were not finite",
    )


@pytest.mark.parametrize("rule", [Exact(), Alone()], ids=["together", "one-by-one"])
def test_the_seeds_below_the_bar_are_given_up_and_the_others_are_not(rule):
    whole = train(Trial(), rule)
    halves = [outcome.curve[1].validation for outcome in whole]
    assert halves[0] != halves[1]
    low = halves.index(min(halves))
    given_up = train(Trial(after=2, bar=sum(halves) / 2), rule)
    assert [outcome.status for outcome in given_up] == ["pruned" if k == low else "ok" for k in range(2)]
    assert given_up[1 - low].scores == whole[1 - low].scores
    assert given_up[low].scores is None
    assert given_up[low].curve == whole[low].curve[:2]
    assert (
        f"after epoch 2 of 4: accuracy on validation data was {100 * min(halves):.1f} %"
        in given_up[low].reason
    )


def test_a_group_of_which_nothing_more_is_wanted_ends():
    steps = []
    task, budget = TinyTask(), Budget(epochs=4, batch=16, lr=0.01)
    outcomes = runner.run(
        RunRequest(
            Exact(),
            task,
            (0, 1),
            budget,
            task.data(),
            CPU,
            lambda t, of: steps.append(t),
            trial=Trial(1, 2.0),
        )
    )
    assert [outcome.status for _, outcome in outcomes] == ["pruned"] * 2
    assert max(steps) == 96 / 16


# Where a tuning looks


def test_the_space_holds_what_is_declared_the_learning_rate_and_every_default():
    (cell,) = cells()
    found = space(cell)
    assert list(found) == ["lr", "scale", "rank", "kind", "size"]
    lr = found["lr"]
    assert (lr.low, lr.high, lr.log) == (pytest.approx(0.001), pytest.approx(0.1), True)
    assert (found["scale"].low, found["scale"].high, found["scale"].log) == (0.1, 10, True)
    assert (found["rank"].low, found["rank"].high, found["rank"].log) == (8, 64, False)
    assert found["kind"].choices == ("a", "b", None)
    assert found["size"].choices == (8, "auto", 4)


def test_what_the_user_chose_is_not_searched():
    (cell,) = cells(many={"rank": "16", "lr": "0.5"})
    assert list(space(cell)) == ["scale", "kind", "size"]
    assert values(cell)["lr"] == 0.5


def test_a_learning_rate_of_the_rule_s_own_is_the_middle():
    (cell,) = cells()
    own = replace(cell, budget=replace(cell.budget, lr=2.0))
    assert space(own)["lr"].low == pytest.approx(0.2)
    assert "lr" not in space(replace(cell, budget=replace(cell.budget, lr=0.0)))


def test_a_search_that_a_rule_declares_for_its_learning_rate_counts():
    @dataclass(frozen=True)
    class Own(Exact):
        lr: float | None = hp(None, "learning rate", low=0, search=(1e-5, 1e-3), log=True)

    (cell,) = cells()
    found = space(replace(cell, rule=Own()))
    assert (found["lr"].low, found["lr"].high) == (1e-5, 0.01)  # up to the task's own


def test_values_are_short_and_stay_inside():
    (cell,) = cells()
    lr = replace_bounds(space(cell)["lr"], 0.0012345, 0.0045678)
    assert legible(0.00234567, lr) == 0.00235
    assert legible(0.0012345, lr) == 0.0012345
    assert legible(16, space(cell)["rank"]) == 16


def replace_bounds(distribution, low, high):
    return type(distribution)(low, high, log=distribution.log)


# What is tried next


def past(cell, n, score=lambda lr: lr):
    """``n`` trials at random, with the scores that a function of the learning rate gives them."""
    found = sampler.propose(space(cell), [], n, seed=5)
    base = values(cell)
    return [
        Past(base | one, Tried(set=one, runs=[], status="ok", validation=score(one["lr"]))) for one in found
    ]


def test_the_same_past_has_the_same_proposals_and_a_longer_list_begins_with_a_shorter_one():
    (cell,) = cells()
    before = past(cell, 6)
    four = sampler.propose(space(cell), before, 4, seed=1)
    assert sampler.propose(space(cell), before, 4, seed=1) == four
    assert sampler.propose(space(cell), before, 2, seed=1) == four[:2]
    assert sampler.propose(space(cell), before, 4, seed=2) != four
    assert {*four[0]} == {*space(cell)}


def test_the_sampler_listens():
    """Its proposals come closer to the best learning rate than chance, whose mean distance on this axis is 0.63."""
    (cell,) = cells()
    best = math.log10(0.08)
    before = past(cell, 24, score=lambda lr: -abs(math.log10(lr) - best))
    proposed = [sampler.propose(space(cell), before, 1, seed)[0]["lr"] for seed in range(20)]
    distances = sorted(abs(math.log10(lr) - best) for lr in proposed)
    assert distances[10] < 0.3


@pytest.mark.parametrize("status", ["diverged", "pruned", "skipped", "oom_host"])
def test_the_sampler_hears_of_trials_that_did_not_end_well(status):
    (cell,) = cells()
    halfway = 0.2 if status == "pruned" else None
    bad = Past(values(cell), Tried(set={}, runs=[], status=status, halfway=halfway))
    assert len(sampler.propose(space(cell), [*past(cell, 4), bad], 2, seed=0)) == 2


# How a tuning goes


class Oracle:
    """Runs nothing: its records say what a function of the trial's options says; it may be interrupted."""

    def __init__(self, score, patience=math.inf):
        self.score, self.patience, self.runs, self.bars = score, patience, [], []

    def __call__(self, cells, store):
        for cell in cells:
            self.bars.append((cell.trial.after, cell.trial.bar))
            for asked in cell.asked:
                if store.get(asked) is None:
                    if len(self.runs) >= self.patience:
                        raise KeyboardInterrupt
                    self.runs.append(asked)
                    store.put(self.record(cell, asked))

    def record(self, cell, asked):
        outcome = self.score(values(cell), asked.seed)
        status, score = outcome if isinstance(outcome, tuple) else ("ok", outcome)
        epochs = 4 if status == "ok" else 2
        plugin, now = Plugin(distribution="rulezoo"), datetime.now(UTC)
        return Record(
            asked=asked,
            answered=collect(
                device="cpu",
                rule_plugin=plugin,
                task_plugin=plugin,
                started=now,
                finished=now,
                seeds_together=1,
                mode="single",
            ),
            status=status,
            reason=None if status == "ok" else "said the oracle",
            scores={"validation": score} if status == "ok" else {},
            curve=[Point(step=e, epoch=e, validation=score * e / 4) for e in range(1, epochs + 1)],
            chance=0.1,
            metric="accuracy",
        )


def by_lr(options, seed):
    """Best at a learning rate of 0.03."""
    return 1 / (1 + abs(math.log10(options["lr"] / 0.03)))


def tune(store, oracle, n=6, plan=None):
    return study.tune(plan or cells(), n, discover(), store, oracle)


def stored(store):
    trials = records.trials_of(store)
    files = [path for path in (store.root / "tuning").rglob("*.json") if "studies" in path.parts]
    return {r.asked.key: r.asked for r in trials.read().records}, {path: path.read_bytes() for path in files}


def test_every_rule_has_as_many_trials_and_the_default_is_the_first(store):
    oracle = Oracle(by_lr)
    tuned = tune(store, oracle, 6, cells("many", "backprop"))
    for one in tuned:
        assert len(one.trials) == 6
        assert one.trials[0].set == {}
        assert all("lr" in trial.set for trial in one.trials[1:])
        assert one.ruleset == "tuned-6"
        assert one.best == max(range(6), key=lambda k: one.trials[k].validation or 0)
        assert one.sampler.startswith("optuna ")
    assert len(oracle.runs) == 2 * 6 * 2
    assert {asked.seed for asked in oracle.runs} == {1000, 1001} == set(tuned[0].seeds)
    keys = {key for one in tuned for trial in one.trials for key in trial.runs}
    assert keys == {asked.key for asked in oracle.runs} == stored(store)[0].keys()
    assert [sorted(one.trials[1].set) for one in tuned] == [["kind", "lr", "rank", "scale", "size"], ["lr"]]


def test_trials_are_no_results(store):
    tune(store, Oracle(by_lr))
    assert store.read().records == []


def test_the_same_command_again_runs_nothing_and_says_the_same(store):
    first = tune(store, Oracle(by_lr))
    before = stored(store)
    again = Oracle(by_lr, patience=0)
    assert tune(store, again) == first
    assert stored(store) == before


@pytest.mark.parametrize("patience", range(12))
def test_a_tuning_that_was_interrupted_goes_on_with_the_same_trials(store, tmp_path, patience):
    whole = tune(Store(tmp_path / "whole"), Oracle(by_lr))
    interrupted, rest = Oracle(by_lr, patience), Oracle(by_lr)
    with pytest.raises(KeyboardInterrupt):
        tune(store, interrupted)
    assert stored(store)[1] == {}
    assert tune(store, rest) == whole
    assert len(interrupted.runs) == patience
    assert len(rest.runs) == 12 - patience
    assert records.read(store).tunings == whole


def test_a_larger_n_goes_on_from_a_smaller_one(store):
    (few,), more_runs = tune(store, Oracle(by_lr), 6), Oracle(by_lr)
    (more,) = tune(store, more_runs, 9)
    assert more.trials[:6] == few.trials
    assert len(more_runs.runs) == 2 * 3
    assert [one.ruleset for one in records.read(store).tunings] == ["tuned-6", "tuned-9"]


def test_a_failed_seed_makes_a_trial_the_worst(store):
    def unlucky(options, seed):
        return 0.5 if options["lr"] == 0.01 else ("diverged", 0.9) if seed == 1001 else 0.9

    (tuned,) = tune(store, Oracle(unlucky))
    assert tuned.best == 0
    assert [trial.status for trial in tuned.trials] == ["ok", *["diverged"] * 5]
    assert [trial.validation for trial in tuned.trials] == [0.5, *[None] * 5]


def test_where_everything_fails_the_default_stays(store):
    (tuned,) = tune(store, Oracle(lambda options, seed: ("killed", 0.0)))
    assert (tuned.best, tuned.winner.set) == (0, {})
    assert report.summary(tuned) == (
        "tiny  many tuned-6: the default, for no trial ended well  (6 trials, 6 killed)"
    )


@pytest.mark.parametrize("status", ["killed", "crashed", "error", "timeout", "oom_host", "oom_gpu"])
def test_a_trial_that_failed_is_said_to_have_changed_the_winner_perhaps(store, status):
    def unlucky(options, seed):
        return (status, 0.0) if options["lr"] > 0.01 and seed == 1000 else by_lr(options, seed)

    (tuned,) = tune(store, Oracle(unlucky))
    failed = sum(trial.status == status for trial in tuned.trials)
    assert failed > 0
    assert report.failures(tuned) == (
        f"tuning of many on tiny: {failed} of 6 trials failed ({failed} {status}) and could not win, so the winner may "
        "be another one; the same command with --retry failed runs them again"
    )


@pytest.mark.parametrize("status", ["ok", "diverged", "pruned"])
def test_a_trial_that_ended_for_its_options_is_no_failure(store, status):
    (tuned,) = tune(store, Oracle(lambda options, seed: 0.5 if options["lr"] == 0.01 else (status, 0.4)))
    assert tuned.failed == []
    assert report.failures(tuned) is None


def test_the_bar_is_the_lower_quartile_of_what_was_seen_after_half_of_the_epochs(store):
    oracle = Oracle(by_lr)
    (tuned,) = tune(store, oracle, 5)
    halves = sorted(trial.validation / 2 for trial in tuned.trials[:4])
    assert oracle.bars == [(2, None)] * 4 + [(2, pytest.approx(halves[0] / 4 + 3 * halves[1] / 4))]


@pytest.mark.parametrize(
    ("halves", "bar"),
    [
        ([], None),
        ([0.8], None),
        ([None, 0.8, None, None], None),
        ([0.8, 0.4], 0.5),  # a quarter of the way from the lower to the higher
        ([None, 0.8, None, 0.4], 0.5),
        ([0.8, 0.4, 0.6], 0.5),
    ],
)
def test_two_trials_that_came_as_far_are_enough_for_a_bar(halves, bar):
    """Others of the round may have failed before they had a score."""
    (cell,) = cells()
    done = tuple(
        (cell, Tried(set={}, runs=[], status="killed" if half is None else "ok", halfway=half))
        for half in halves
    )
    one = study.Study(cell, done)
    assert one.bar == (None if bar is None else pytest.approx(bar))
    (trial,) = {proposed.trial for proposed in one.next_round(discover(), len(done) + 1)}
    assert trial == Trial(after=2, bar=one.bar)


def test_a_trial_that_was_given_up_counts_as_one_but_does_not_win(store):
    tried = []

    def give_up(options, seed):
        tried.append(seed)
        return ("pruned", 1.0) if len(tried) > 2 * ROUND else 0.5

    (tuned,) = tune(store, Oracle(give_up), 6)
    assert [trial.status for trial in tuned.trials] == ["ok"] * 4 + ["pruned"] * 2
    assert tuned.best == 0
    assert tuned.trials[4].halfway == 0.5


def test_what_was_given_up_by_a_bar_that_is_no_longer_its_own_is_run_again(store):
    """As after a trial was killed, another bar drawn from those that were left, and the killed one run again."""
    tried = []

    def give_up(options, seed):
        tried.append(seed)
        return ("pruned", 1.0) if len(tried) > 2 * ROUND else 0.5  # halfway at 0.5, above the bar of 0.25

    tune(store, Oracle(give_up), 6)
    again = Oracle(lambda options, seed: 0.5)
    (tuned,) = tune(store, again, 6)
    assert len(again.runs) == 2 * 2
    assert [trial.status for trial in tuned.trials] == ["ok"] * 6


def test_a_trial_below_its_bar_cannot_win_even_if_it_was_run_to_its_end(store):
    tried = []

    def late(options, seed):
        tried.append(seed)
        return 0.4 if len(tried) > 2 * ROUND else 0.8  # halfway at 0.2, below the bar of 0.4

    (tuned,) = tune(store, Oracle(late), 6)
    assert [trial.status for trial in tuned.trials] == ["ok"] * 4 + ["pruned"] * 2
    assert [trial.validation for trial in tuned.trials[4:]] == [None, None]
    assert tuned.best < 4


def test_one_epoch_has_no_half(store):
    oracle = Oracle(by_lr)
    tune(store, oracle, 5, cells(epochs=1))
    assert {bar for _, bar in oracle.bars} == {None}


def test_seeds_of_the_evaluation_and_of_trials_are_never_the_same(store):
    with pytest.raises(
        UserError, match="seeds from 1000 on are reserved for the trials of a tuning, got 1000;"
    ):
        tune(store, Oracle(by_lr), plan=cells(seeds=(*range(3), 1000)))


def test_what_the_user_gave_is_kept_and_makes_another_study(store):
    given, plain = cells(many={"rank": "16"}), cells()
    (tuned,) = tune(store, Oracle(by_lr), plan=given)
    assert tuned.given == {"rank": 16}
    assert all("rank" not in trial.set for trial in tuned.trials)
    assert {asked.rule_options["rank"] for asked in stored(store)[0].values()} == {16}
    tune(store, Oracle(by_lr), plan=plain)
    assert len(records.read(store).tunings) == 2


def test_where_nothing_can_be_searched_there_is_one_trial(store):
    (tuned,) = tune(store, Oracle(by_lr), plan=cells("backprop", backprop={"lr": "0.01"}))
    assert (len(tuned.trials), tuned.ruleset) == (1, "tuned-6")
    assert "for there was nothing to search" in report.summary(tuned)


def test_a_trial_without_a_result_is_not_passed_over(store):
    with pytest.raises(
        UserError, match=r"many on tiny is not complete: seed 1000 .* run the same command again"
    ):
        tune(store, lambda cells, store: None)


def test_winners_are_evaluated_with_the_seeds_of_the_plan(store):
    tuned = tune(store, Oracle(by_lr), plan=cells("many", "backprop"))
    won = study.winners(cells("many", "backprop"), tuned, discover())
    for cell, one in zip(won, tuned, strict=True):
        assert [asked.seed for asked in cell.asked] == [0, 1]
        assert cell.trial is None
        assert {name: cell.asked[0].rule_options[name] for name in one.winner.set} == one.winner.set
        assert msgspec.structs.replace(cell.asked[0], seed=1000) == one.asked


def test_a_default_that_wins_is_not_run_twice(store):
    best = Oracle(lambda options, seed: 1.0 if options["lr"] == 0.01 else 0.2)
    tuned = tune(store, best)
    both = study.distinct([*cells(), *study.winners(cells(), tuned, discover())])
    assert [len(cell.asked) for cell in both] == [2]


# On the board


def results(store, tuned, score, plan=None):
    """The runs of the defaults and of the winners."""
    for cell in study.distinct([*(plan or cells()), *study.winners(plan or cells(), tuned, discover())]):
        for asked in cell.asked:
            record = Oracle(score).record(cell, asked)
            scores = {**record.scores, "test": record.scores["validation"]}
            store.put(msgspec.structs.replace(record, scores=scores, changed=cell.changed))
    return store.read().records


def shown(records, tuned):
    return {row.label: row for row in board.of(grid.arrange(records, tunings=tuned)).rows}


def test_the_board_shows_the_default_against_what_was_tuned(store):
    tuned = tune(store, Oracle(by_lr))
    rows = shown(results(store, tuned, by_lr), tuned)
    assert {label: row.ruleset for label, row in rows.items()} == {
        "many": "default",
        "many tuned-6": "tuned-6",
    }
    assert rows["many tuned-6"].cells[0].mean > rows["many"].cells[0].mean
    assert f"lr={tuned[0].winner.set['lr']}" in rows["many tuned-6"].cells[0].setting
    assert rows["many"].cells[0].setting == ""


def test_what_was_tuned_differently_for_two_tasks_is_one_row(store):
    both = cells(tasks=("tiny", "digits-cnn"))
    tuned = tune(store, Oracle(by_lr), plan=both)
    assert tuned[0].winner.set != tuned[1].winner.set
    rows = shown(results(store, tuned, by_lr, both), tuned)
    assert {*rows} == {"many", "many tuned-6"}
    assert all(None not in row.cells for row in rows.values())
    settings = [cell.setting for cell in rows["many tuned-6"].cells]
    assert len({*settings}) == 2


def test_a_default_that_won_on_every_task_has_one_row(store):
    def flat(options, seed):
        return 0.5

    tuned = tune(store, Oracle(flat))
    rows = shown(results(store, tuned, flat), tuned)
    assert [(row.label, row.rulesets, row.cells[0].n) for row in rows.values()] == [
        ("many", "default tuned-6", 2)
    ]
    made = overview.build(results(store, tuned, flat), tunings=tuned)
    (line,) = made.lines
    assert (line.label, line.kept, line.tuned, line.default.ruleset) == ("many", "tuned-6", None, "default")
    assert "= default: tuning kept the default on every task" in formats.render(made, "md")


def test_a_default_that_won_on_one_task_of_two_stands_in_both_rows(store):
    both = cells(tasks=("tiny", "digits-cnn"))
    tuned = tune(store, Oracle(by_lr), plan=both)
    first = msgspec.structs.replace(tuned[0].trials[0], set={})
    (start,) = (cell.asked[0] for cell in both if cell.task_name == tuned[0].asked.task)
    tuned = [msgspec.structs.replace(tuned[0], asked=start, trials=[first], best=0), tuned[1]]
    rows = shown(results(store, tuned, by_lr, both), tuned)
    assert {*rows} == {"many", "many tuned-6"}
    assert "the default" in [cell.setting for cell in rows["many tuned-6"].cells if cell]


def test_what_the_user_gave_stands_in_the_names(store):
    given = cells(many={"rank": "16"})
    tuned = tune(store, Oracle(by_lr), plan=given)
    rows = shown(results(store, tuned, by_lr, given), tuned)
    assert {label: row.ruleset for label, row in rows.items()} == {
        "many rank=16": "set",
        "many rank=16 tuned-6": "tuned-6",
    }


def test_without_its_conclusion_a_run_is_one_with_options(store):
    tuned = tune(store, Oracle(by_lr))
    rows = shown(results(store, tuned, by_lr), [])
    assert {row.ruleset for row in rows.values()} == {"default", "set"}


def test_a_conclusion_of_another_length_of_training_does_not_count(store):
    tuned = tune(store, Oracle(by_lr))
    other = tune(store, Oracle(by_lr), plan=cells(epochs=2))
    rows = shown(results(store, tuned, by_lr), other)
    assert "tuned-6" not in {row.ruleset for row in rows.values()}


@pytest.mark.parametrize("form", ["table", "md"])
def test_the_table_says_how_it_was_tuned(store, form):
    tuned = tune(store, Oracle(by_lr))
    made = overview.build(results(store, tuned, by_lr), tunings=tuned)
    text = " ".join(formats.render(made, form).split())
    assert "tuned-6: for each rule and task the best of 6 trials on validation data" in text
    assert "best of" not in formats.render(overview.build(store.read().records), form)


# The commands


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["rulezoo", *words])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run


def lines(text, *starts):
    return [line for line in text.splitlines() if line.startswith(starts)]


def test_compare_tunes_first_and_shows_both(command, store):
    words = ("--tasks", "tiny", "--rules", "many,burns", "--seeds", "2", "--jobs", "2", "--out", "results")
    code, out, err = command("compare", "--tune", "3", *words)
    assert code == 0, err
    assert "12 of 12 runs to do" in err
    assert len([line for line in err.splitlines() if "  validation accuracy " in line]) == 4
    trials = records.trials_of(store).read().records
    assert len(trials) == 2 * 3 * 2
    assert {r.asked.seed for r in trials} == {1000, 1001}
    assert all("test" not in r.scores for r in trials)
    assert {r.status for r in trials if r.asked.rule == "burns"} == {"ok", "diverged"}
    assert all("test" in r.scores for r in store.read().records)
    for rule in ("burns", "many"):  # which of its trials wins is not what this is about
        rows = lines(out, f"{rule}  ")
        assert any("= default" in row for row in rows) != any("→" in row for row in rows)
    assert "tiny  burns tuned-3: the default  validation" in out
    assert "(3 trials, 2 diverged)" in out

    again = command("compare", "--tune", "3", *words)
    assert "all 12 runs are stored already" in again[2]
    assert again[1] == out

    code, table, _ = command("leaderboard", "--out", "results")
    assert lines(table, "many  ", "burns  ") == lines(out, "many  ", "burns  ")
    assert "tuned-3: for each rule and task the best of 3 trials on validation data" in " ".join(
        table.split()
    )


@pytest.mark.parametrize("words", [("compare", "--tune", "2"), ("tune", "--trials", "2")])
def test_a_trial_whose_worker_was_killed_ends_with_1_until_it_is_retried(command, store, words):
    """The default of the rule is as it was; only what the tuner tries is killed, and not when it is retried."""
    common = ("--tasks", "tiny", "--rules", "fragile", "--jobs", "2", "--out", "results", "--seeds", "1")
    common = common if words[0] == "compare" else common[:-2]
    code, out, err = command(*words, *common)
    assert code == 1, err
    said = "tuning of fragile on tiny: 1 of 2 trials failed (1 killed) and could not win"
    assert said in err
    assert "killed" in out
    again = command(*words, *common)
    assert again[0] == 1, "it is stored so, and said again"
    assert said in again[2]
    store.root.joinpath("mended").touch()
    code, out, err = command(*words, *common, "--retry", "failed")
    assert code == 0, err
    assert "trials failed" not in err


def test_tune_shows_the_trials_and_reads_no_test_data(command, store):
    words = ("--tasks", "tiny", "--rules", "backprop", "--trials", "2", "--jobs", "2", "--out", "results")
    code, out, err = command("tune", *words)
    assert code == 0, err
    assert store.read().records == []
    assert "the default" in out
    assert "lr=" in out
    assert "* the highest score on validation data; the test data were not read" in out


def test_a_damaged_conclusion_is_named_and_left_out(command, store):
    tuned = tune(store, Oracle(by_lr))
    results(store, tuned, by_lr)
    (path,) = (store.root / "tuning" / "studies").rglob("*.json")
    path.write_bytes(path.read_bytes()[:-20])
    code, out, err = command("leaderboard", "--out", "results")
    assert code == 0
    assert f"left out: {path.relative_to(store.root).as_posix()} is no conclusion of a tuning" in err
    assert "tuned-6" not in out


@pytest.mark.parametrize("words", [("compare", "--tune", "1"), ("tune", "--trials", "0")])
def test_a_tuning_needs_two_trials(command, words):
    code, _, err = command(*words)
    assert code == 2
    assert "x>=2" in err
