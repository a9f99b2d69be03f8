"""Which of two networks is closer to a brain area: paired bootstraps against simulations, and the verdict."""

import json
import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from rulezoo.claims.evidence import Evidence
from rulezoo.evaluations.records import Evaluated, Question
from rulezoo.evaluations.store import put
from rulezoo.results.records import Plugin
from rulezoo.results.store import Store
from rulezoo_plugins.nmnc_claims.closer import (
    Area,
    Closer,
    spearman,
    spread_over_neurons,
    spread_over_stimuli,
)

SEEDS = (0, 1, 2)
STIMULI, NEURONS = 24, 40


def test_spearman_is_that_of_scipy():
    rng = np.random.default_rng(0)
    rows, others = rng.standard_normal((2, 50)).round(1), rng.standard_normal((3, 50)).round(1)  # with ties
    expected = [[spearmanr(row, other).statistic for other in others] for row in rows]
    assert spearman(rows, others) == pytest.approx(np.array(expected))


def test_the_spread_over_neurons_is_the_standard_error():
    """Of a mean over 400 neurons; 2000 draws have a standard error of 1.6 % of it."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.standard_normal((2, 400))
    expected = (ours - theirs).std(ddof=1) / math.sqrt(400)
    assert spread_over_neurons([(ours, theirs)], 2000, np.random.default_rng(2)) == pytest.approx(
        expected, rel=0.08
    )


def test_what_both_networks_share_has_no_spread():
    rng = np.random.default_rng(3)
    same, brain = rng.random((2, STIMULI * (STIMULI - 1) // 2))
    assert spread_over_stimuli([(same, same)], brain[None], 20, np.random.default_rng(0)) == 0
    assert spread_over_neurons([(same, same)], 20, np.random.default_rng(0)) == 0
    other = rng.random(len(same))
    assert spread_over_stimuli([(same, other)], brain[None], 20, np.random.default_rng(0)) > 0.01


def test_the_spread_over_stimuli_is_that_of_a_loop():
    rng = np.random.default_rng(5)
    n, draws = 7, 6
    networks, brains = rng.random((2, 2, n * (n - 1) // 2)), rng.random((3, n * (n - 1) // 2))
    gen, found = np.random.default_rng(6), []
    for _ in range(draws):
        stimuli, subjects = gen.integers(0, n, n), gen.integers(0, 3, 3)

        def seen(dissimilarities, stimuli=stimuli):
            pairs = [(i, j) for k, i in enumerate(stimuli) for j in stimuli[k + 1 :] if i != j]
            return [squareform(dissimilarities)[pair] for pair in pairs]

        found.append(
            np.mean(
                [
                    spearmanr(seen(ours), seen(brains[subject])).statistic
                    - spearmanr(seen(theirs), seen(brains[subject])).statistic
                    for ours, theirs in networks
                    for subject in subjects
                ]
            )
        )
    fast = spread_over_stimuli([tuple(pair) for pair in networks], brains, draws, np.random.default_rng(6))
    assert fast == pytest.approx(np.std(found, ddof=1), rel=1e-12)


def test_the_spread_over_stimuli_is_that_of_new_stimuli():
    """A naive twin: 300 new sets of stimuli, each with its own brain and networks. The bootstrap is within a factor of 1.5."""

    def experiment(rng):
        patterns = rng.standard_normal((STIMULI, 5))
        brain = pdist(patterns + 0.5 * rng.standard_normal(patterns.shape))
        return pdist(patterns), pdist(rng.standard_normal(patterns.shape)), brain

    rng = np.random.default_rng(4)
    differences = []
    for _ in range(300):
        near, far, brain = experiment(rng)
        differences.append(spearmanr(near, brain).statistic - spearmanr(far, brain).statistic)
    spreads = []
    for _ in range(5):
        near, far, brain = experiment(rng)
        spreads.append(spread_over_stimuli([(near, far)], brain[None], 100, rng))
    assert np.std(differences) / 1.5 < np.mean(spreads) < np.std(differences) * 1.5


AREAS = (Area("IT", "it", "dissimilarities"), Area("V4", "v4", "responses"))
CRITERION = Closer("ours", "theirs", AREAS, ("backprop, 1 epoch", "backprop, 2 epochs"), draws=50)


@pytest.fixture
def measured(arm, record, tmp_path):
    """Evidence in which ours is closer to both areas by so much."""

    def make(gain, below=0.0):
        rng, store = np.random.default_rng(5), Store(tmp_path / f"{gain}-{below}")
        patterns = rng.standard_normal((STIMULI, 5))
        brain, unrelated = pdist(patterns), pdist(rng.standard_normal((STIMULI, 5)))
        common = rng.standard_normal(NEURONS) * 0.05
        runs, evaluated = {}, {"it": {}, "v4": {}}
        for label, closeness, score in (
            ("ours", gain, 0.5), ("theirs", 0.0, 0.4), ("backprop, 1 epoch", 0.1, 0.52), ("backprop, 2 epochs", 0.3, 0.9)
        ):  # fmt: skip
            one = arm(
                label, seeds=SEEDS, rule=label.partition(",")[0].replace("ours", "a").replace("theirs", "b")
            )
            runs[one] = {}
            for seed in SEEDS:
                run = record(one, seed, test=score, probes={"fc": {"angle": 50.0, "units": 9.0, "gradient_norm": 0.25}},
                             budget={"epochs": len(runs)})  # fmt: skip
                runs[one][seed] = run
                part = 0.4 + closeness
                model = part * brain + (1 - part) * unrelated + 0.02 * rng.standard_normal(len(brain))
                scores = 0.3 + closeness + common + 0.01 * rng.standard_normal(NEURONS)
                value = float(spearmanr(model, brain).statistic)
                arrays = {
                    "labels": np.array(["similarity/fc"]),
                    "dissimilarities": model[None],
                    "measured": brain[None],
                }
                evaluated["it"][run.asked.key] = stored(store, run, "rsa", "similarity", value, below, arrays)
                arrays = {"labels": np.array(["r/fc"]), "scores/day": scores[None]}
                evaluated["v4"][run.asked.key] = stored(
                    store, run, "encoding", "r", float(scores.mean()), below, arrays
                )
        total = 3 * len(runs) * len(SEEDS)
        return Evidence(runs, total, total, {}, {}, evaluated, store)

    return make


def stored(store, run, name, prefix, value, below, arrays):
    asked = run.asked
    found = Evaluated(
        asked=Question(run=asked.key, rule=asked.rule, task=asked.task, seed=asked.seed, evaluation=name, version=1, options={}),
        status="ok", headline="above_control", higher_is_better=True, weights="w", plugin=Plugin(distribution="rulezoo"),
        code=None, packages={}, finished="2026-01-01", seconds=1.0,
        values={prefix: value, f"{prefix}/fc": value, "untrained/fc": 0.1, "pixels": 0.1, "luminance": 0.05, "untrained": 0.2,
                "above_control": value - 0.2 - below},
    )  # fmt: skip
    path = put(store, found, arrays)
    body = json.loads(path.read_text())
    return Evaluated(**{**{f: getattr(found, f) for f in found.__struct_fields__}, "arrays": body["arrays"]})


@pytest.mark.parametrize(("gain", "word"), [(0.4, "supported"), (-0.3, "not supported")])
def test_the_verdict_rests_on_every_site_of_every_area(measured, gain, word):
    verdict = CRITERION.judge(measured(gain))
    assert verdict.word == word
    judged = [part for part in verdict.parts if part.judged]
    assert [part.name for part in judged] == [
        "IT, fc, similarity of ours − theirs",
        "V4, fc, similarity of ours − theirs",
    ]


def test_without_a_difference_the_verdict_is_open(measured):
    assert CRITERION.judge(measured(0.0)).word == "inconclusive"


def test_controls_are_reported_and_not_judged(measured):
    near, far = (CRITERION.judge(measured(0.4, below)) for below in (0.0, 2.0))
    assert near.word == far.word == "supported"
    assert "above controls" in near.counts(judged=False)
    states = [[part.state for part in v.parts if part.kind == "above controls"] for v in (near, far)]
    assert "refuted" not in states[0]
    assert set(states[1]) == {"refuted"}


def test_backprop_at_equal_score_is_the_run_with_the_nearest_score(measured):
    evidence = measured(0.4)
    ours = evidence.of("ours")[0]
    assert CRITERION._nearest(evidence, 0, ours) is evidence.of("backprop, 1 epoch")[0]
    by_site, controls = CRITERION.tables(evidence)[:2]
    assert by_site.head[0] == "site"
    assert {row[0] for row in controls.rows} == {"ours", "theirs", "backprop, 1 epoch", "backprop, 2 epochs"}
    assert "size of the true gradient there" in controls.head
    assert len(CRITERION.chart(evidence).panels) == 2


def test_missing_arrays_leave_the_verdict_open(measured):
    """Without them there is no bootstrap, and no interval."""
    evidence = measured(0.4)
    bare = Evidence(evidence.runs, 1, 1, {}, {}, evidence.evaluated, None)
    assert CRITERION.judge(bare).word == "inconclusive"
