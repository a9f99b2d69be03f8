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
            reference="Murray 2019, Local online learning in recurrent networks with random feedback, "
            "doi:10.7554/eLife.43299",
            formula=(
                r"p_{ij}(t) = (1 - a)\, p_{ij}(t-1) + a\, \varphi'(u_i(t))\, h_j(t-1)",
                r"\Delta W_{ij} = -\eta \sum_t (B^\top e_t)_i\; p_{ij}(t)",
                r"B \text{ fixed and random}",
                r"a \text{: leak}",
            ),
            plausibility=_ONLINE,
        ),
        RuleSpec(
            name="e-prop",
            target=f"{_PACKAGE}.online:EProp",
            tags=("rnn",),
            family=_FAMILY,
            summary="Eligibility traces times the error through the weights of the read-out; "
            "in rate networks its traces are those of RFLO.",
            reference="Bellec et al. 2020, A solution to the learning dilemma for recurrent networks of spiking "
            "neurons, doi:10.1038/s41467-020-17236-y",
            formula=(
                r"p_{ij}(t) = (1 - a)\, p_{ij}(t-1) + a\, \varphi'(u_i(t))\, h_j(t-1)",
                r"\Delta W_{ij} = -\eta \sum_t (B^\top e_t)_i\; p_{ij}(t)",
                r"B = V, \text{ the weights of the read-out}",
                r"a \text{: leak}",
            ),
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
            reference="Murray 2019, Local online learning in recurrent networks with random feedback, "
            f"doi:10.7554/eLife.43299; with the feedback of the baseline of {NMNC}",
            formula=(
                r"p_{ij}(t) = (1 - a)\, p_{ij}(t-1) + a\, \varphi'(u_i(t))\, h_j(t-1)",
                r"\Delta W_{ij} = -\eta \sum_t (B^\top e_t)_i\; p_{ij}(t)",
                r"B \leftarrow (1 - r)\, B + \frac{r}{v}\, \overline{\Delta y\, \xi^\top}, \qquad \xi \sim \mathcal{N}(0, v I) \text{ added to the state}",
                r"a \text{: leak}",
            ),
            plausibility=_PERTURBED,
            variants=ONE_PASS,
        ),
        RuleSpec(
            name="rflo-nmnc",
            target=f"{_PACKAGE}.online:LearntManifoldRFLO",
            tags=("rnn",),
            family=_FAMILY,
            summary="RFLO with feedback learnt from kicks restricted to the manifold on which states live.",
            reference="Murray 2019, Local online learning in recurrent networks with random feedback, "
            f"doi:10.7554/eLife.43299; with the feedback of {NMNC}",
            formula=(
                r"p_{ij}(t) = (1 - a)\, p_{ij}(t-1) + a\, \varphi'(u_i(t))\, h_j(t-1)",
                r"\Delta W_{ij} = -\eta \sum_t (B^\top e_t)_i\; p_{ij}(t)",
                r"B \leftarrow (1 - r)\, B + \frac{r}{v}\, \overline{\Delta y\, \xi^\top}, \qquad \xi = U z, \quad z \sim \mathcal{N}(0, v I_d)",
                r"a \text{: leak}",
            ),
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
            formula=(
                r"q_t = \sum_{k=0}^{H} B_k^\top e_{t+k}, \qquad \Delta W = -\eta \sum_t \frac{\partial \langle h_t, q_t \rangle}{\partial W}, \quad h_{t-1} \text{ held fixed}",
                r"B_k \leftarrow (1 - r)\, B_k + \frac{r}{v}\, \overline{\Delta y_{t+k}\, \xi_t^\top}",
                r"\xi \sim \mathcal{N}(0, v I) \text{ added to the state at a random step } t",
                r"H \text{: largest lag}",
            ),
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
            formula=(
                r"q_t = \sum_{k=0}^{H} B_k^\top e_{t+k}, \qquad \Delta W = -\eta \sum_t \frac{\partial \langle h_t, q_t \rangle}{\partial W}, \quad h_{t-1} \text{ held fixed}",
                r"B_k \leftarrow (1 - r)\, B_k + \frac{r}{v}\, \overline{\Delta y_{t+k}\, \xi_t^\top}",
                r"\xi = U z, \quad z \sim \mathcal{N}(0, v I_d), \text{ added to the state at a random step } t",
                r"H \text{: largest lag}",
            ),
            plausibility=_LAGGED,
            variants=(*ONE_PASS, Variant(("horizon=0",), {"past_storage": False})),
        ),
    ]
