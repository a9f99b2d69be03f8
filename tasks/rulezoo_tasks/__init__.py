"""The built-in tasks: a catalogue that imports nothing heavy."""

from __future__ import annotations

from rulezoo import TaskSpec, hookimpl

_DIGITS = (
    "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, "
    "https://doi.org/10.24432/C50P49; the 1,797 images that scikit-learn brings"
)
_MNIST = "LeCun, Bottou, Bengio & Haffner 1998, https://doi.org/10.1109/5.726791"
_FASHION = "Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747"
_CIFAR = "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf"
_FLIP_FLOP = "Sussillo & Barak 2013, https://doi.org/10.1162/NECO_a_00409"


@hookimpl
def rulezoo_tasks() -> list[TaskSpec]:
    """Six tasks; the two on digits are the default of a comparison, because nothing is downloaded."""
    return [
        TaskSpec(
            name="digits-cnn",
            target="rulezoo_tasks.digits:DigitsCNN",
            summary="Handwritten digits of 8×8 pixels, seen at once by two convolutions and a dense layer.",
            tags=("cnn", "vision", "default"),
            reference=_DIGITS,
            embedded=True,
        ),
        TaskSpec(
            name="digits-rnn",
            target="rulezoo_tasks.digits:DigitsRNN",
            summary="The same digits, read row by row by a leaky recurrent network that answers at the end.",
            tags=("rnn", "vision", "default"),
            reference=_DIGITS,
            embedded=True,
        ),
        TaskSpec(
            name="flip-flop-rnn",
            target="rulezoo_tasks.flip_flop:FlipFlopRNN",
            summary="Hold the sign of the last pulse on each of three channels, at every step.",
            tags=("rnn", "memory"),
            reference=_FLIP_FLOP,
            embedded=True,
        ),
        TaskSpec(
            name="mnist-mlp",
            target="rulezoo_tasks.vision:MNISTMLP",
            summary="Handwritten digits of 28×28 pixels, two dense hidden layers.",
            tags=("mlp", "vision"),
            reference=_MNIST,
        ),
        TaskSpec(
            name="fashion-cnn",
            target="rulezoo_tasks.vision:FashionCNN",
            summary="Pieces of clothing, 28×28 grey pixels, two convolutions and a dense layer.",
            tags=("cnn", "vision"),
            reference=_FASHION,
        ),
        TaskSpec(
            name="cifar10-cnn",
            target="rulezoo_tasks.vision:CIFAR10CNN",
            summary="Small colour photographs in ten classes, three convolutions and a dense layer.",
            tags=("cnn", "vision"),
            reference=_CIFAR,
        ),
    ]
