"""What the studies of the claims have in common: seeds, grids, references, scales.

Claims are judged on seeds 0, 1, …; seeds from 1000 on are for tuning. Rules that are compared get the same grid for the
learning rate, chosen on validation data; all else is the author's default. Quick profiles take minutes on two CPU cores,
standard profiles up to about five hours there, and full profiles are for one GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rulezoo import claims

PAPER = (
    "Kang, Richards, Sabatini 2026, arXiv:2601.02636 (abstract, in our words); the paper's numbers and set-up are not "
    "known to us"
)
FIVE, THREE = tuple(range(5)), tuple(range(3))
TUNING = (1000,)
BUDGETS = (2, 8, 40, 200)
AVERAGED = 19.0  # effective perturbations of each, by the running average with its default rate of 0.1
CIFAR_GRID = ("3e-4", "1e-3", "3e-3")

EPOCHS = 4  # of the standard studies of cifar, mirror, gap and primate: runs that they have in common are made once
HALF: claims.OptionTexts = {"width": "0.5"}
SMALL_CIFAR: claims.OptionTexts = {"width": "0.5", "examples": "5000"}
SMALL_CIFAR_SCALE = (
    "reduced: 5,000 of 45,000 training examples and 6 of 20 epochs of CIFAR-10, at half the width (sites of 8,192, "
    "4,096, 2,048 and 256 units)"
)
ALL_CIFAR_SCALE = "all of CIFAR-10, for one GPU"


def half_cifar_scale(epochs: int) -> str:
    """The scale of a standard profile."""
    return (
        f"all of CIFAR-10 for {epochs} of 20 epochs at half the width (sites of 8,192, 4,096, 2,048 and 256 units), for two "
        "CPU cores"
    )


def forecast(hours: float) -> str:
    """How long a standard profile takes, from the processor time of single steps of each kind of run.

    Probes and evaluations add to it; runs that another claim has made take away from it.
    """
    return f"forecast: {hours:g} {'hour' if hours == 1 else 'hours'} of training steps on 2 CPU cores"


_IN_EVERY_STEP: claims.OptionTexts = {"antithetic": "true", "every": "1"}
_NOISE: dict[str, claims.OptionTexts] = {
    "noise-correlation": _IN_EVERY_STEP,
    "nmnc": {**_IN_EVERY_STEP, "rank": "32"},
    "nmnc-random": {**_IN_EVERY_STEP, "rank": "32"},
}


def noise_options(rule: str, budget: int) -> claims.OptionTexts:
    """Options of a rule with a number of perturbed examples per site in every step; none without a number.

    Claims about a number of perturbations fix the noise, so that they do not change with the author's defaults: two-sided, in every
    step, and for NMNC in 32 dimensions.
    """
    return {**_NOISE.get(rule, {}), "perturbations": str(budget)} if budget else {}


def lr_grid(arm: claims.Arm, values: tuple[str, ...] = CIFAR_GRID) -> claims.Tuning:
    """The choice of an arm's learning rate."""
    bare = replace(arm, seeds=TUNING, probes=0, tuned="", noise=None)
    return claims.Tuning(arm.tuned, bare, "lr", values)


def untrained(
    task: str, options: claims.OptionTexts, at: float = 0.0, budget: claims.OptionTexts | None = None
) -> claims.Arm:
    """A network with its initial weights: a learning rate of 0."""
    return claims.Arm(
        "untrained", "frozen", task, THREE, at, {"lr": "0"}, options, epochs=1, probes=1, budget=budget or {}
    )


def against(
    task: str,
    options: claims.OptionTexts,
    epochs: int | None,
    budgets: Sequence[int],
    tuned_at: int,
    many: int,
    grid: tuple[str, ...],
    pair: tuple[str, str] = ("nmnc", "noise-correlation"),
    controls: Sequence[str] = (),
    *,
    with_untrained: bool = True,
) -> tuple[tuple[claims.Arm, ...], tuple[claims.Tuning, ...]]:
    """NMNC and VNC at every budget, references without perturbations, and each one's tuning.

    Args:
        task: the task.
        options: of the task.
        epochs: of training.
        budgets: perturbed examples per site and update.
        tuned_at: the budget at which the learning rate is chosen.
        many: the budget from which on there are three seeds and not five; most of a study's time goes into these runs.
        grid: learning rates.
        pair: the rules.
        controls: rules that are shown at the budget of the tuning, with NMNC's learning rate.
        with_untrained: show an untrained network, too; the quick profiles were run before there was one.
    """

    def arm(label: str, rule: str, budget: int = 0, tuned: str = "") -> claims.Arm:
        seeds = FIVE if 0 < budget < many else THREE
        words = noise_options(rule, budget)
        tuned = f"{tuned or label} on {task}"
        noise = claims.Noise(budget, manifold=label == "NMNC") if label in ("NMNC", "VNC") else None
        return claims.Arm(
            label, rule, task, seeds, budget, words, options, epochs, probes=1, tuned=tuned, noise=noise
        )

    references = [arm(name, name) for name in ("backprop", "frozen")]
    pairs = dict(zip(("NMNC", "VNC"), pair, strict=True))
    perturbed = [arm(label, rule, budget) for budget in budgets for label, rule in pairs.items()]
    tunings = [lr_grid(arm(label, rule, tuned_at), grid) for label, rule in pairs.items()]
    tunings += [lr_grid(reference, grid) for reference in references]
    random = [arm(f"{name} at {tuned_at}", name, tuned_at, tuned="NMNC") for name in controls]
    shown = [replace(one, at=0.0, seeds=THREE) for one in random] + references
    shown += [untrained(task, options)] * with_untrained
    return (*perturbed, *shown), tuple(tunings)
