"""The claim that NMNC's advantage grows with the width of the network."""

from __future__ import annotations

from rulezoo import claims
from rulezoo_plugins.nmnc_claims.protocol import (
    AVERAGED,
    CIFAR_GRID,
    PAPER,
    THREE,
    forecast,
    lr_grid,
    noise_options,
    untrained,
)

_BUDGET = 8
_QUICK_BUDGETS = (2, 8, 40, 200)


def _widths(
    task: str,
    words: tuple[str, ...],
    budgets: tuple[int, ...],
    epochs: int | None,
    grid: tuple[str, ...],
    tuned_width: str,
) -> tuple[tuple[claims.Arm, ...], tuple[claims.Tuning, ...]]:
    """At every width NMNC at one budget, VNC at several, backprop, frozen and untrained networks."""

    def arm(label: str, rule: str, width: str, budget: int = 0) -> claims.Arm:
        noise = claims.Noise(budget, manifold=rule == "nmnc") if budget else None
        tuned = "VNC" if label.startswith("VNC") else label
        options = noise_options(rule, budget)
        return claims.Arm(
            label,
            rule,
            task,
            THREE,
            float(width),
            options,
            {"width": width},
            epochs,
            probes=1,
            tuned=tuned,
            noise=noise,
        )

    def of_width(width: str) -> list[claims.Arm]:
        return [
            arm("NMNC", "nmnc", width, _BUDGET),
            *(arm(f"VNC at {k}", "noise-correlation", width, k) for k in budgets),
            *(arm(name, name, width) for name in ("backprop", "frozen")),
            untrained(task, {"width": width}, float(width)),
        ]

    arms = tuple(one for width in words for one in of_width(width))
    tuned = {one.tuned: one for one in of_width(tuned_width) if one.tuned and one.at}
    at_budget = {**tuned, "VNC": arm(f"VNC at {_BUDGET}", "noise-correlation", tuned_width, _BUDGET)}
    return arms, tuple(lr_grid(one, grid) for one in at_budget.values())


_QUICK = _widths("digits-cnn", ("0.5", "1", "2", "4"), _QUICK_BUDGETS, None, ("3e-3", "1e-2", "3e-2"), "1")
_STANDARD = _widths("cifar10-cnn", ("0.25", "0.5", "1"), _QUICK_BUDGETS[:3], 2, CIFAR_GRID, "0.5")
_FULL = _widths("cifar10-cnn", ("0.25", "0.5", "1", "2"), _QUICK_BUDGETS, 10, CIFAR_GRID, "1")

WIDTH = claims.Claim(
    name="width",
    statement="At a fixed number of perturbations, 8 perturbed examples per site and step, the number of perturbations that NMNC "
    "saves against vanilla noise correlation (VNC) for the same angle grows with the width of the network.",
    source=f"{PAPER}; it says that accurate estimates of Jacobians need a number of perturbations that grows with the size of the "
    "network, and that the dimension of the manifold grows slowly; this form of it is ours",
    criterion=claims.GrowingSavings(
        "NMNC",
        _BUDGET,
        {k: f"VNC at {k}" for k in _QUICK_BUDGETS},
        "perturbed examples per site and step",
        AVERAGED,
    ),
    studies={
        "quick": claims.Study(
            _QUICK[0],
            "reduced: 8×8 digits (1,257 training examples) in place of CIFAR-10, three seeds",
            "about 10 minutes on one CPU core",
            _QUICK[1],
        ),
        "standard": claims.Study(
            _STANDARD[0],
            "all of CIFAR-10 for 2 of 20 epochs at a quarter of the width to the full width, VNC at up to 40 perturbed examples, "
            "for two CPU cores",
            forecast(1.5),
            _STANDARD[1],
            together=False,
        ),
        "full": claims.Study(_FULL[0], "all of CIFAR-10, for one GPU", "not timed yet", _FULL[1]),
    },
    remarks="All sites of a network have the same factor on their width. The learning rate of each rule is chosen at one width, "
    "with 8 perturbed examples, and used at all. The rank of the manifold is 32 at every width, and so is that of the "
    "manifold on which α is measured. The predicted k takes α, n, d and ρ from the networks that NMNC trained.",
)
