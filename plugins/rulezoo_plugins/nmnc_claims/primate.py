"""The claim that NMNC's representations are closer to the primate visual system than VNC's."""

from __future__ import annotations

from rulezoo import claims
from rulezoo_plugins.nmnc_claims.closer import Area, Closer
from rulezoo_plugins.nmnc_claims.protocol import (
    CIFAR_GRID,
    EPOCHS,
    HALF,
    PAPER,
    THREE,
    forecast,
    half_cifar_scale,
    lr_grid,
    noise_options,
)

_AREAS = (
    Area("monkey IT", "monkey IT", "dissimilarities"),
    Area("monkey V4", "monkey V4", "responses"),
)


def _networks(
    options: claims.OptionTexts, epochs: int, fewer: tuple[int, ...], grid: tuple[str, ...]
) -> tuple[tuple[claims.Arm, ...], tuple[claims.Tuning, ...]]:
    """NMNC and VNC at 8 perturbed examples, frozen, and backprop for several numbers of epochs."""

    def arm(label: str, rule: str, many: int, budget: int = 0) -> claims.Arm:
        noise = claims.Noise(budget, manifold=rule == "nmnc") if budget else None
        words = noise_options(rule, budget)
        tuned = {"backprop": "backprop"}.get(rule, label) if grid else ""
        return claims.Arm(
            label,
            rule,
            "cifar10-cnn",
            THREE,
            budget,
            words,
            options,
            many,
            probes=1,
            tuned=tuned,
            noise=noise,
        )

    learning = [
        arm("NMNC", "nmnc", epochs, 8),
        arm("VNC", "noise-correlation", epochs, 8),
        arm("frozen", "frozen", epochs),
    ]
    backprop = [arm(backprop_of(many), "backprop", many) for many in (*fewer, epochs)]
    tunings = tuple(lr_grid(one, grid) for one in (*learning, backprop[-1])) if grid else ()
    return (*learning, *backprop), tunings


def backprop_of(epochs: int) -> str:
    """Label of backprop for a number of epochs."""
    return f"backprop, {epochs} epoch{'s' * (epochs > 1)}"


def _evaluations(rsa: claims.OptionTexts, encoding: claims.OptionTexts) -> tuple[claims.Evaluate, ...]:
    return (
        claims.Evaluate("monkey IT", "rsa", {"data": "kriegeskorte92", "area": "monkey-it", **rsa}),
        claims.Evaluate("monkey V4", "encoding", {"data": "v4-cowley", "area": "v4", **encoding}),
    )


_QUICK = _networks({"width": "0.25", "examples": "5000"}, 4, (1,), ())
_STANDARD = _networks(HALF, EPOCHS, (1, 2), CIFAR_GRID)
_FULL = _networks({}, 20, (1, 2, 5), CIFAR_GRID)

PRIMATE = claims.Claim(
    name="primate",
    statement="The representations of a network trained by NMNC are closer to monkey IT and V4 than those of one trained by "
    "vanilla noise correlation (VNC), at every site, both with 8 perturbed examples per site and step.",
    source=f"{PAPER}; it does not say which areas, measurements and sites: these are ours",
    criterion=Closer("NMNC", "VNC", _AREAS, tuple(map(backprop_of, (1, 2, 4, 5, 20)))),
    studies={
        "quick": claims.Study(
            _QUICK[0],
            "reduced: 5,000 of 45,000 training examples and 4 of 20 epochs of CIFAR-10 at a quarter of the width, learning rates not "
            "tuned; one recording of V4",
            "about 10 minutes on one CPU core",
            together=False,
            evaluations=_evaluations(
                {"draws": "20", "splits": "20"}, {"recordings": "210325", "draws": "20", "units": "1024"}
            ),
        ),
        "standard": claims.Study(
            _STANDARD[0],
            half_cifar_scale(EPOCHS),
            forecast(0.7),
            _STANDARD[1],
            together=False,
            evaluations=_evaluations({"draws": "100"}, {"units": "4096"}),
        ),
        "full": claims.Study(
            _FULL[0],
            "all of CIFAR-10, for one GPU",
            "not timed yet",
            _FULL[1],
            evaluations=_evaluations({}, {}),
        ),
    },
    remarks="Monkey IT: dissimilarities of 92 object images from 674 neurons of two monkeys, published as one matrix "
    "(Kriegeskorte et al. 2008), so that subjects cannot be resampled. Monkey V4: responses to natural images (Cowley et al. "
    "2023), predicted by ridge regression from every site. Both need brain data in the folder of data sets (docs/brain-data.md).\n\n"
    "Random weights reach much of the similarity, so the tables show pixels, luminance and the untrained network, and backprop "
    "after fewer epochs, whose test score is nearer to that of the perturbing rules.",
)
