"""The claim that NMNC beats VNC on an AlexNet, with direct and with layerwise feedback."""

from __future__ import annotations

from rulezoo import claims
from rulezoo_plugins.nmnc_claims.protocol import (
    CIFAR_GRID,
    PAPER,
    THREE,
    forecast,
    lr_grid,
    noise_options,
    untrained,
)

_DIRECT, _LAYERWISE = (2, 8), (1, 16)
_OTHERS = ("backprop", "frozen", "untrained")
_SERIES = {
    "NMNC": ("nmnc", _DIRECT),
    "VNC": ("noise-correlation", _DIRECT),
    "layerwise NMNC": ("nmnc-layerwise", _LAYERWISE),
    "weight mirror": ("weight-mirror", _LAYERWISE),
}


def _alexnets(
    options: claims.OptionTexts,
    epochs: int,
    batch: int,
    grid: tuple[str, ...],
    further: tuple[int, ...] = (),
) -> tuple[tuple[claims.Arm, ...], tuple[claims.Tuning, ...]]:
    """Both pairs of rules at their budgets, and references; tuned at the budgets of the verdict, if there is a grid."""
    task, budget = "tiny-imagenet-alexnet", {"batch": str(batch)}

    def arm(label: str, rule: str, k: int = 0) -> claims.Arm:
        noise = claims.Noise(k, manifold=label == "NMNC") if label in ("NMNC", "VNC") else None
        words = noise_options(rule, k)
        return claims.Arm(
            label, rule, task, THREE, k, words, options, epochs, probes=1, tuned=label if grid else "", noise=noise,
            budget=budget,
        )  # fmt: skip

    arms = [arm(label, rule, k) for label, (rule, ks) in _SERIES.items() for k in (*ks, *further)]
    references = [arm(name, name) for name in ("backprop", "frozen")]
    judged = [arm(label, rule, 8 if ks is _DIRECT else 1) for label, (rule, ks) in _SERIES.items()]
    tunings = tuple(lr_grid(one, grid) for one in (*judged, *references)) if grid else ()
    return (*arms, *references, untrained(task, options, budget=budget)), tunings


_QUICK = _alexnets(
    {"classes": "10", "size": "16", "width": "0.25", "examples": "200", "dropout": "0", "augment": "false"},
    5,
    32,
    (),
)
_STANDARD = _alexnets(
    {"classes": "100", "size": "32", "width": "0.5", "examples": "250", "dropout": "0"}, 4, 128, CIFAR_GRID
)
_FULL = _alexnets({}, 30, 128, CIFAR_GRID, further=(64, 256))

IMAGENET = claims.Claim(
    name="imagenet",
    statement="On an AlexNet on Tiny-ImageNet NMNC beats vanilla noise correlation (VNC) with 8 perturbed examples per site and "
    "step, and layerwise NMNC beats the weight mirror with 1 noise vector per layer and step.",
    source=f"{PAPER}; that its models of ImageNet's scale are AlexNets with a weight mirror is our guess",
    criterion=claims.Every(
        (
            (
                "direct feedback",
                claims.Advantage(
                    "NMNC", "VNC", budget=8, degrees=10, widest=2, rate="rate", references=_OTHERS
                ),
            ),
            (
                "layerwise feedback",
                claims.Advantage(
                    "layerwise NMNC",
                    "weight mirror",
                    budget=1,
                    degrees=10,
                    widest=2,
                    rate="",
                    references=_OTHERS,
                    unit="noise vectors per layer and step",
                ),
            ),
        )
    ),
    studies={
        "quick": claims.Study(
            _QUICK[0],
            "reduced: 10 classes of 180 training images at 16 pixels, AlexNet at a quarter of its width, 5 epochs, learning rates not "
            "tuned",
            "about 10 minutes on one CPU core",
            together=False,
        ),
        "standard": claims.Study(
            _STANDARD[0],
            "100 classes of 225 training images of Tiny-ImageNet at 32 pixels, AlexNet at half its width, 4 epochs, for two CPU "
            "cores",
            forecast(2.0),
            _STANDARD[1],
            together=False,
        ),
        "full": claims.Study(
            _FULL[0], "all of Tiny-ImageNet at 64 pixels, for one GPU", "not timed yet", _FULL[1]
        ),
    },
    remarks="The learning rate of each rule is chosen at the number of perturbations on which the verdict rests, except in the quick "
    "profile, where all rules have the task's. Size of the noise and averaging rate are the author's defaults; noise is two-sided, in "
    "every step, and the rank is 32.\n\n"
    "The quick profile shows that the study can be carried out, and little more: so small an AlexNet learns little in 280 "
    "steps with any rule, and differences of scores are small.",
)
