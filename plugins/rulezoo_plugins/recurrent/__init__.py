"""Rules for recurrent networks: the light specs; the rules are in `online` and `lagged_noise_correlation`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec, Variant
from rulezoo_plugins.noise_correlation import ONE_PASS
from rulezoo_plugins.shared import NMNC

_FAMILY = "recurrent networks"
_PACKAGE = "rulezoo_plugins.recurrent"
_ONLINE = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="vector",
    perturbation=False,
    past_storage=False,
)
_SYMMETRIC = replace(_ONLINE, weight_transport=True)
_PERTURBED = replace(_ONLINE, perturbation=True, phases=2)
_LAGGED = replace(_PERTURBED, past_storage=True)  # activity waits for errors of later time steps


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="rflo",
            target=f"{_PACKAGE}.online:RFLO",
            tags=("rnn",),
            family=_FAMILY,
            summary="Eligibility traces that fade with the leak, times the error through fixed random weights.",
            reference="Murray 2019, doi:10.7554/eLife.43299",
            plausibility=_ONLINE,
        ),
        RuleSpec(
            name="e-prop",
            target=f"{_PACKAGE}.online:EProp",
            tags=("rnn",),
            family=_FAMILY,
            summary="Eligibility traces times the error through the weights of the read-out; "
            "in rate networks its traces are those of RFLO.",
            reference="Bellec et al. 2020, doi:10.1038/s41467-020-17236-y",
            plausibility=_SYMMETRIC,
            variants=(Variant(("mode=random",), {"weight_transport": False}),),
            limits=(Limit(("mode=random",), "rflo"),),
        ),
        RuleSpec(
            name="rflo-noise-correlation",
            target=f"{_PACKAGE}.online:LearntRFLO",
            tags=("rnn",),
            family=_FAMILY,
            summary="RFLO with feedback learnt from the immediate response to isotropic kicks of the state.",
            reference=f"Murray 2019, doi:10.7554/eLife.43299, with the feedback of the baseline of {NMNC}",
            plausibility=_PERTURBED,
            variants=ONE_PASS,
        ),
        RuleSpec(
            name="rflo-nmnc",
            target=f"{_PACKAGE}.online:LearntManifoldRFLO",
            tags=("rnn",),
            family=_FAMILY,
            summary="RFLO with feedback learnt from kicks restricted to the manifold on which states live.",
            reference=f"Murray 2019, doi:10.7554/eLife.43299, with the feedback of {NMNC}",
            plausibility=_PERTURBED,
            variants=ONE_PASS,
            limits=(Limit(("rank=4096",), "rflo-noise-correlation"),),
        ),
        RuleSpec(
            name="lagged-noise-correlation",
            target=f"{_PACKAGE}.lagged_noise_correlation:LaggedNoiseCorrelation",
            tags=("rnn",),
            family=_FAMILY,
            summary="Feedback for every lag, learnt by kicking the state once and watching the outputs that follow.",
            reference=f"a recurrent form of the baseline of {NMNC}",
            plausibility=_LAGGED,
            variants=(*ONE_PASS, Variant(("horizon=0",), {"past_storage": False})),
        ),
        RuleSpec(
            name="lagged-nmnc",
            target=f"{_PACKAGE}.lagged_noise_correlation:LaggedManifoldNoiseCorrelation",
            tags=("rnn",),
            family=_FAMILY,
            summary="Lagged noise correlation with kicks restricted to the manifold on which states live.",
            reference=f"a recurrent form of {NMNC}",
            plausibility=_LAGGED,
            variants=(*ONE_PASS, Variant(("horizon=0",), {"past_storage": False})),
        ),
    ]
