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
    return []
