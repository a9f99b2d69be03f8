"""The catalogue of built-in evaluations. It is read by every command, so nothing heavy is imported here."""

from __future__ import annotations

from rulezoo import EvaluationSpec, hookimpl

_BRAIN_DATA = "a folder of brain data in the data folder; docs/brain-data.md describes how to create it"


@hookimpl
def rulezoo_evaluations() -> list[EvaluationSpec]:
    """The evaluations, in the order of listings."""
    return [
        *_brain_data(),
        *_networks(),
    ]


def _brain_data() -> list[EvaluationSpec]:
    """Comparisons with recordings from brains."""
    return [
        EvaluationSpec(
            name="rsa",
            target="rulezoo_evaluations.rsa:RSA",
            summary="Representational similarity of each site to a brain area, compared with controls.",
            tags=("brain", "vision"),
            reference="Kriegeskorte, Mur & Bandettini 2008, https://doi.org/10.3389/neuro.06.004.2008; "
            "Schütt et al. 2023, https://doi.org/10.7554/eLife.82566",
            data=_BRAIN_DATA,
            requires="rulezoo[brain]",
        ),
        EvaluationSpec(
            name="encoding",
            target="rulezoo_evaluations.encoding:Encoding",
            summary="Recorded neural responses predicted linearly from each site, compared with controls.",
            tags=("brain", "vision"),
            reference="Yamins et al. 2014, https://doi.org/10.1073/pnas.1403112111; Schrimpf et al. 2018, "
            "https://doi.org/10.1101/407007",
            data=_BRAIN_DATA,
        ),
    ]


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
