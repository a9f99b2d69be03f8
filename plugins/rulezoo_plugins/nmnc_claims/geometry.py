"""Two claims on the geometry of trained networks: alignment of Jacobians, and dimension of the manifold."""

from __future__ import annotations

from rulezoo import claims
from rulezoo_plugins.nmnc_claims.protocol import (
    ALL_CIFAR_SCALE,
    FIVE,
    HALF,
    PAPER,
    THREE,
    forecast,
    half_cifar_scale,
)


def _decays(
    task: str, options: claims.OptionTexts, epochs: int, seeds: tuple[int, ...]
) -> tuple[claims.Arm, ...]:
    words = ("0", "5e-4", "5e-3", "0.05", "0.5")
    return tuple(
        claims.Arm(
            "backprop", "backprop", task, seeds, float(w), {"weight_decay": w}, options, epochs, probes=6
        )
        for w in words
    )


ALIGNMENT = claims.Claim(
    name="alignment",
    statement="In trained networks the row space of the Jacobian aligns with the neural manifold.",
    source=PAPER,
    criterion=claims.Alignment(decays=(0.0, 5e-4, 5e-3)),
    studies={
        "quick": claims.Study(
            _decays("digits-cnn", {}, 30, FIVE),
            "reduced: 8×8 digits (1,257 training examples) in place of CIFAR-10",
            "about 5 minutes on 2 CPU cores",
        ),
        "standard": claims.Study(
            _decays("cifar10-cnn", HALF, 6, THREE), half_cifar_scale(6), forecast(0.6), together=False
        ),
        "full": claims.Study(_decays("cifar10-cnn", {}, 20, FIVE), ALL_CIFAR_SCALE, "not timed yet"),
    },
    remarks="The networks are trained by backprop and probed six times, before training first and after it last. The "
    "manifold has d = 32 dimensions: the principal subspace of activity on 1,024 training examples; Jacobians are "
    "those of 256 validation examples.\n\n"
    "Decay is decoupled (AdamW): a step takes lr × decay of a weight, so that the decays on which the verdict rests, "
    "0 to 0.005, take a few percent at most over the whole training, and differ little. The two larger ones show what "
    "decay does to alignment. For comparison: 0.5 at a learning rate of 0.01 takes 0.5 % of a weight in a step, and "
    "0.005 under SGD with learning rate 0.05 and momentum 0.9 takes 0.25 %.",
)


def _widths(
    task: str,
    options: claims.OptionTexts,
    epochs: int | None,
    seeds: tuple[int, ...],
    words: tuple[str, ...] = ("0.25", "0.5", "1", "2", "4"),
) -> tuple[claims.Arm, ...]:
    return tuple(
        claims.Arm(
            "backprop", "backprop", task, seeds, float(w), {}, {**options, "width": w}, epochs, probes=1
        )
        for w in words
    )


DIMENSION = claims.Claim(
    name="dimension",
    statement="The dimension of the neural manifold grows slowly with the size of the network.",
    source=PAPER,
    criterion=claims.Growth({"d90": "d90", "participation_ratio": "participation ratio", "two_nn": "twoNN"}),
    studies={
        "quick": claims.Study(
            _widths("digits-cnn", {}, None, FIVE),
            "reduced: 8×8 digits (1,257 training examples) in place of CIFAR-10",
            "about 4 minutes on 2 CPU cores",
        ),
        "standard": claims.Study(
            _widths("cifar10-cnn", {}, 4, THREE, ("0.25", "0.5", "1", "2")),
            "all of CIFAR-10 for 4 of 20 epochs at a quarter of the width to twice the width, for two CPU cores",
            forecast(1.3),
            together=False,
        ),
        "full": claims.Study(_widths("cifar10-cnn", {}, 10, THREE), ALL_CIFAR_SCALE, "not timed yet"),
    },
    remarks="All sites of a network have the same factor on their width; networks are trained by backprop. Dimension is that "
    "of activity on 1,024 training examples at every width: d90, principal components that hold 90 % of the "
    "variance; participation ratio, (Σλ)²/Σλ²; twoNN, from the distances to the two nearest neighbours.",
)
