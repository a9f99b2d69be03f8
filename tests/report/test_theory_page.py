"""One site's budgets and angles against a slow simulation of noise correlation in float64, and what ``rulezoo theory`` says.

The simulation is a loop over perturbations, an outer product each. Budgets are effective numbers, so the running average
is simulated in a test of its own.
"""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from rulezoo.cli import main
from rulezoo.measures import theory
from rulezoo.measures.site_theory import SiteTheory, averaging, best_for_budget

REPETITIONS = 400
DEGREES = 1.5  # of a mean of simulated angles: about four standard errors, and what the closed form leaves out at K = 30


def simulated_angle(n, d, alpha, k, *, manifold, seed=0):
    """Mean angle of the estimate to the gradient, over many estimates from k perturbations."""
    rng = np.random.default_rng(seed)
    gradient = np.zeros(n)
    gradient[0], gradient[-1] = math.sqrt(alpha), math.sqrt(1 - alpha)  # the manifold is the first d axes
    perturbed = d if manifold else n
    angles = []
    for _ in range(REPETITIONS):
        estimate = np.zeros(n)
        for _ in range(k):
            xi = np.zeros(n)
            xi[:perturbed] = rng.standard_normal(perturbed)
            estimate += (gradient @ xi) * xi
        cosine = estimate @ gradient / np.linalg.norm(estimate)
        angles.append(math.degrees(math.acos(cosine)))
    return float(np.mean(angles))


@pytest.mark.parametrize("manifold", [False, True])
@pytest.mark.parametrize("target", [50.0, 60.0])
def test_the_budget_for_an_angle_gives_that_angle_in_simulation(manifold, target):
    site = SiteTheory(units=60, rank=10, alpha=0.7)
    k = site.perturbations(target, manifold=manifold)
    low, high = math.floor(k), math.ceil(k)
    found = [simulated_angle(60, 10, 0.7, max(1, each), manifold=manifold) for each in (low, high)]
    tolerance = DEGREES + (6 if k < 16 else 0)  # the ratio of expectations is off at few perturbations
    assert min(found) - tolerance <= target <= max(found) + tolerance


def test_the_order_changes_at_the_crossover_in_simulation():
    """Half of the crossover: the manifold is ahead; twice: all units are."""
    site = SiteTheory(units=40, rank=6, alpha=0.6)
    k = site.crossover
    assert k == pytest.approx((0.6 * 41 - 7) / 0.4)
    for budget, sign in ((round(k / 2), 1), (round(2 * k), -1)):
        lead = simulated_angle(40, 6, 0.6, budget, manifold=False) - simulated_angle(
            40, 6, 0.6, budget, manifold=True
        )
        assert sign * lead > 2


def test_a_running_average_is_worth_its_factor_in_simulation():
    """Estimates of 2 perturbations, averaged at a rate of 0.1, have the angle of 2 × 19 perturbations."""
    rng, n, k = np.random.default_rng(0), 60, 2
    gradient = np.eye(n)[0]
    angles, average = [], np.zeros(n)
    for update in range(6000):
        xi = rng.standard_normal((k, n))
        average = 0.9 * average + 0.1 * ((xi @ gradient) @ xi) / k
        if update > 100 and update % 20 == 0:
            angles.append(math.degrees(math.acos(average[0] / np.linalg.norm(average))))
    assert averaging(0.1) == pytest.approx(19)
    expected = SiteTheory(n, 1, 0.5).angle(k * averaging(0.1), manifold=False)
    assert np.mean(angles) == pytest.approx(expected, abs=DEGREES)


@pytest.mark.parametrize("rho", [1.0, 1.6])
@pytest.mark.parametrize("ceiling", [0.0, 25.0])
@pytest.mark.parametrize("manifold", [False, True])
def test_budget_and_angle_are_inverse(rho, ceiling, manifold):
    site = SiteTheory(512, 32, 0.8, rho, ceiling)
    for target in (55.0, 70.0, 85.0):
        k = site.perturbations(target, manifold=manifold)
        assert site.angle(k, manifold=manifold) == pytest.approx(target)


def test_an_angle_below_the_smallest_possible_one_is_never_reached():
    site = SiteTheory(512, 32, 0.5)
    assert site.smallest_angle(manifold=True) == pytest.approx(45)
    assert math.isinf(site.perturbations(44.9, manifold=True))
    assert math.isfinite(site.perturbations(45.1, manifold=True))
    assert math.isfinite(site.perturbations(44.9, manifold=False))
    assert math.isinf(SiteTheory(512, 32, 1.0, ceiling=50).perturbations(50, manifold=False))


def test_the_crossover_at_its_ends():
    assert SiteTheory(512, 32, 1.0).crossover == math.inf
    assert SiteTheory(32, 32, 1.0).crossover == 0
    assert SiteTheory(512, 32, 32 / 512).crossover == 0  # chance


def test_the_best_rank_is_that_of_equation_9():
    ranks, alphas = (8, 32, 128), (0.3, 0.5, 0.7)
    sites = [SiteTheory(1000, d, a) for d, a in zip(ranks, alphas, strict=True)]
    for k in (4, 64, 400, 50_000):
        best = best_for_budget(sites, k)
        expected = theory.best_rank([*ranks, 1000], [*alphas, 1.0], k)
        assert (1000 if best is None else best.rank) == expected
    assert best_for_budget(sites, 4).rank == 8
    assert best_for_budget(sites, 50_000) is None


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1, 0.5), "the number of units must be 1 or more, got 0"),
        ((64, 65, 0.5), "the rank of the manifold must be from 1 to the number of units, 64, got 65"),
        ((64, 8, 1.5), "alpha, the share of the gradient in the manifold, must be from 0 to 1, got 1.5"),
        ((64, 8, math.nan), "alpha, .* got nan"),
        ((64, 8, 0.5, 0.5), "rho, the spread of gradients over examples, must be 1 or more, got 0.5"),
        ((64, 8, 0.5, 1, 90), "the ceiling must be an angle from 0 to below 90 degrees, got 90"),
    ],
)
def test_impossible_numbers_are_named(numbers, message):
    with pytest.raises(ValueError, match=message):
        SiteTheory(*numbers)


# --------------------------------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def command(monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["rulezoo", "theory", *words])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return command


SITE = ("--units", "8192", "--rank", "32", "--alpha", "0.45")


def test_a_target_angle_gives_perturbations_and_the_crossover(command):
    code, out, _ = command(*SITE, "--angle", "80", "--rate", "0.1")
    assert code == 0
    site = SiteTheory(8192, 32, 0.45)
    needed = {manifold: site.perturbations(80, manifold=manifold) for manifold in (False, True)}
    assert re.search(
        rf"all units \(VNC\), n = 8,192 +0.0° +{math.ceil(needed[False] / 19)} +{math.ceil(needed[False])}\n",
        out,
    )
    assert re.search(
        rf"manifold \(NMNC\), d = 32, α = 0.45 +47.9° +{needed[True] / 19:.2g} +{needed[True]:.2g}\n", out
    )
    assert f"smaller angle below {math.ceil(site.crossover / 19)} perturbations per update" in out


def test_numbers_of_perturbations_give_angles(command):
    code, out, _ = command(*SITE, "--perturbations", "8,128")
    assert code == 0
    site = SiteTheory(8192, 32, 0.45)
    for manifold, label in ((False, r"all units.*"), (True, r"manifold.*")):
        angles = [f"{site.angle(k, manifold=manifold):.1f}°" for k in (8, 128)]
        assert re.search(rf"{label} {angles[0]} +{angles[1]}\n", out)


def test_an_angle_that_cannot_be_reached_is_said_so(command):
    _, out, _ = command(*SITE, "--angle", "40")
    assert re.search(r"manifold .*cannot be reached", out)
    assert not re.search(r"all units .*cannot be reached", out)


def test_several_ranks_give_the_best(command):
    _, out, _ = command(
        "--units", "8192", "--rank", "16,64", "--alpha", "0.3,0.5", "--perturbations", "16,512,1e6"
    )
    assert "Best at 16 (equation 9): d = 16." in out
    assert "Best at 512 (equation 9): d = 64." in out
    assert "Best at 1e+06 (equation 9): all units." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--units and --rank and --alpha are missing; give --units"),
        (("--units", "8"), "--rank and --alpha are missing"),
        ((*SITE, "--angle", "95"), "--angle 95: the target must be an angle above 0 and below 90 degrees"),
        ((*SITE, "--perturbations", "0"), "--perturbations 0: each number must be above 0"),
        (
            (*SITE, "--perturbations", "few"),
            "--perturbations 'few': expected a number, or several joined by commas",
        ),
        ((*SITE, "--rate", "2"), "the rate of the running average must be above 0 and at most 1, got 2"),
        ((*SITE, "--rho", "0.5"), "rho, the spread of gradients over examples, must be 1 or more, got 0.5"),
        (
            ("--units", "8", "--rank", "9", "--alpha", "1"),
            "the rank of the manifold must be from 1 to the number of units, 8, got 9",
        ),
        (
            ("--units", "8", "--rank", "2,4", "--alpha", "1"),
            "--rank has 2 numbers and --alpha has 1; give one alpha for each rank",
        ),
        (
            (*SITE, "--network", "digits-cnn"),
            "--units describes a site, and --network takes the numbers from stored runs",
        ),
        ((*SITE, "--rule", "nmnc"), "--rule chooses among stored runs; give their task with --network, too"),
        (("--network", "digits-cnn", "--out", "nowhere"), "no stored run in nowhere measured its network"),
    ],
)
def test_bad_input_is_a_sentence_on_stderr(command, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"rulezoo: {message}")
    assert err.count("\n") == 1


@pytest.fixture
def stored(tmp_path):
    """A folder of claims with two runs of one network."""
    from rulezoo.results.records import Hardware, Plugin, Probe, Provenance, Record, RunSpec
    from rulezoo.results.store import Store

    plugin = Plugin(distribution="rulezoo", version="0")
    for seed, alpha in enumerate((0.4, 0.6)):
        numbers = {
            "units": 1024.0,
            "rank": 32.0,
            "alpha_mean_gradient": alpha,
            "spread": 1.5,
            "ceiling": 20.0,
        }
        record = Record(
            asked=RunSpec(
                protocol=1, rule="mine", rule_version=1, rule_options={}, task="digits-cnn", task_version=1,
                task_options={"width": 0.5}, budget={"epochs": 1}, seed=seed, device="cpu",
            ),
            answered=Provenance(
                packages={}, rule_plugin=plugin, task_plugin=plugin, hardware=Hardware(cpu="a machine", cores=2, threads=1),
                commit=None, dirty=None, started="2026-01-01", finished="2026-01-01", seeds_together=1, mode="single",
            ),
            status="ok", changed=[], scores={"test": 0.5, "validation": 0.5}, chance=0.1, metric="accuracy",
            probes=[Probe(step=1, epoch=1.0, sites={"conv": numbers, "silent": {"units": 8.0}})],
        )  # fmt: skip
        Store(tmp_path / "a-claim" / "quick").put(record)
    return tmp_path


def test_a_network_by_name_uses_the_mean_of_its_stored_runs(command, stored):
    code, out, _ = command("--network", "digits-cnn", "--out", str(stored), "--angle", "75")
    assert code == 0
    site = SiteTheory(1024, 32, 0.5, 1.5, 20)
    vnc, nmnc = (site.perturbations(75, manifold=manifold) for manifold in (False, True))
    assert re.search(
        rf"digits-cnn, width 0.5 +mine +conv +1,024 +32 +0.50 +1.50 +20° +{math.ceil(vnc)} +{nmnc:.2g} ", out
    )
    assert "silent" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--network", "digits-cn"),
            "no stored run of task 'digits-cn' measured its network; did you mean 'digits-cnn'?",
        ),
        (
            ("--network", "digits-cnn", "--rule", "yours"),
            "no stored run of rule 'yours' measured its network; those are mine",
        ),
    ],
)
def test_names_without_stored_runs_are_named(command, stored, words, message):
    code, _, err = command(*words, "--out", str(stored))
    assert (code, err) == (2, f"rulezoo: {message}\n")


def test_the_command_imports_nothing_heavy():
    words = ["rulezoo", "theory", *SITE, "--angle", "80"]
    code = f"import sys; from rulezoo.cli import main; sys.argv = {words!r}\n"
    code += "try: main()\nexcept SystemExit as left: assert not left.code\n"
    code += (
        "print([name for name in ('torch', 'numpy', 'scipy', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
