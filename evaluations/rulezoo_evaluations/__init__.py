"""The catalogue of built-in evaluations. It is read by every command, so nothing heavy is imported here."""

from __future__ import annotations

from rulezoo import EvaluationSpec, hookimpl


@hookimpl
def rulezoo_evaluations() -> list[EvaluationSpec]:
    """The evaluations, in the order of listings."""
    return [
        *_brain_data(),
        *_networks(),
    ]


def _brain_data() -> list[EvaluationSpec]:
    """Comparisons with recordings from brains."""
    return []


def _networks() -> list[EvaluationSpec]:
    """Properties of the network itself, and of its answers."""
    return [
        EvaluationSpec(
            "human-confusions",
            "rulezoo_evaluations.human_confusions:HumanConfusions",
            "Agreement with people's answers to the test images of CIFAR-10.",
            tags=("behaviour", "vision"),
            reference="Geirhos, Meding & Wichmann 2020, https://arxiv.org/abs/2006.16736",
            data="CIFAR-10H: Peterson et al. 2019, https://github.com/jcpeterson/cifar-10h (CC BY-NC-SA 4.0)",
        ),
        EvaluationSpec(
            "robustness",
            "rulezoo_evaluations.robustness:Robustness",
            "Accuracy under noise, gradient attacks and corruptions.",
            tags=("behaviour",),
            reference="Madry et al. 2018, https://arxiv.org/abs/1706.06083; Hendrycks & Dietterich 2019, "
            "https://arxiv.org/abs/1903.12261",
            requires="rulezoo[robustness]",
        ),
        EvaluationSpec(
            "ntk",
            "rulezoo_evaluations.ntk:TangentKernel",
            "Spectrum, alignment and change of the empirical neural tangent kernel.",
            tags=("geometry",),
            reference="Jacot, Gabriel & Hongler 2018, https://arxiv.org/abs/1806.07572; Fort et al. 2020, "
            "https://arxiv.org/abs/2010.15110",
        ),
        EvaluationSpec(
            "calibration",
            "rulezoo_evaluations.calibration:Calibration",
            "Whether the confidence of an answer is the probability that it is right.",
            tags=("behaviour",),
            reference="Guo, Pleiss, Sun & Weinberger 2017, https://arxiv.org/abs/1706.04599",
        ),
    ]
