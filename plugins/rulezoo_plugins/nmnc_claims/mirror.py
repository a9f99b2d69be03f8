"""The claim that a weight mirror restricted to the manifold needs fewer perturbations."""

from __future__ import annotations

from rulezoo import claims
from rulezoo_plugins.nmnc_claims.protocol import (
    AVERAGED,
    CIFAR_GRID,
    EPOCHS,
    HALF,
    PAPER,
    THREE,
    forecast,
    half_cifar_scale,
    lr_grid,
    untrained,
)

_BUDGETS = (1, 4, 16, 64, 256)
_OURS, _THEIRS = "mirror in the manifold", "weight mirror"


def _mirrors(
    task: str, options: claims.OptionTexts, epochs: int | None, grid: tuple[str, ...]
) -> tuple[tuple[claims.Arm, ...], tuple[claims.Tuning, ...]]:
    def arm(label: str, rule: str, budget: int = 0) -> claims.Arm:
        words = {"perturbations": str(budget)} if budget else {}
        return claims.Arm(label, rule, task, THREE, budget, words, options, epochs, probes=1, tuned=label)

    pair = {_OURS: "nmnc-layerwise", _THEIRS: "weight-mirror"}
    references = [arm(name, name) for name in ("backprop", "feedback-alignment", "frozen")]
    arms = [arm(label, rule, k) for k in _BUDGETS for label, rule in pair.items()]
    tuned = [*(arm(label, rule, _BUDGETS[1]) for label, rule in pair.items()), *references]
    return (*arms, *references, untrained(task, options)), tuple(lr_grid(one, grid) for one in tuned)


_QUICK = _mirrors("digits-cnn", {}, None, ("3e-3", "1e-2", "3e-2"))
_STANDARD = _mirrors("cifar10-cnn", HALF, EPOCHS, CIFAR_GRID)
_FULL = _mirrors("cifar10-cnn", {}, 20, CIFAR_GRID)

MIRROR = claims.Claim(
    name="mirror",
    statement="With 1 noise vector per layer and step, a weight mirror that is restricted to the manifold of activity reaches the "
    "angle for which an unrestricted one needs k times as many, with k above 1 for dense and for convolutional layers.",
    source=f"a question of ours; weight mirrors: Akrout et al. 2019, arXiv:1904.05391; restriction to the manifold: {PAPER}",
    criterion=claims.Savings(
        _OURS,
        _THEIRS,
        budget=1,
        kinds={"dense layers": ("fc.post",), "convolutional layers": ("conv1.post",)},
        unit="noise vectors per layer and step",
        rank=32,
        averaged=AVERAGED,
        inputs={
            "digits-cnn conv1.post": 9 / 64,
            "cifar10-cnn conv1.post": 9 / 256,
        },  # 3×3 patches, 8×8 or 16×16 positions
    ),
    studies={
        "quick": claims.Study(
            _QUICK[0],
            "reduced: 8×8 digits (1,257 training examples) in place of CIFAR-10, three seeds",
            "about 5 minutes on one CPU core",
            _QUICK[1],
        ),
        "standard": claims.Study(
            _STANDARD[0], half_cifar_scale(EPOCHS), forecast(1.7), _STANDARD[1], together=False
        ),
        "full": claims.Study(_FULL[0], "all of CIFAR-10, for one GPU", "not timed yet", _FULL[1]),
    },
    remarks="The error signal at fc.post has passed one mirror, that of the dense read-out; the signal at conv1.post has passed "
    "that of the convolution above it and of all layers behind. So the angle at a site is that of all mirrors between it and the "
    "output, and the kind of layer is that of the lowest of them.\n\n"
    "The learning rate of each rule is chosen with 4 noise vectors and used with all numbers of them; rank (32) and averaging "
    "rate are the author's defaults. The running average makes each noise vector worth 19. The rule's default is 1,024 noise "
    "vectors, at which theory predicts that the unrestricted mirror has the smaller angle.",
    changes="2026-11-30, after the quick profile had been run: a kind of layer is also refuted if the angle of the mirror in the manifold is "
    "larger than that of the unrestricted one at the same number. Until then, as the verdict rests on the smallest number that can "
    "be run, no k below 1 could be found, and the claim could not be refuted. By the earlier criterion the quick profile was "
    "inconclusive. No threshold, protocol or run was changed; the other profiles have not been run.",
)
