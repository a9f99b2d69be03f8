"""How well noise can estimate a gradient: closed forms for choosing budgets and for testing the rules.

A site of ``n`` units is perturbed by Gaussian noise ξ and the change of the output is correlated with ξ. Vanilla noise
correlation perturbs all ``n`` dimensions, manifold noise correlation only the ``d`` of a subspace with projector P:

    ĝ = (1/K) Σ_k ξ_k (ξ_k · g) / v,      ξ ~ N(0, v P),      E ĝ = P g,

where g is the true gradient at the site (a row of the Jacobian J of the output, or Jᵀe). The equations are our own
derivations, numbered (1) to (9) in the order of this module; each is held to a simulation in the tests. The method is
that of Kang, Richards, Sabatini, "NMNC", https://arxiv.org/abs/2601.02636; no number here is taken from the paper.

Letters and allowed values (anything else is a ValueError):
    n      units of the site, n ≥ 1
    d      dimensions that are perturbed, d ≥ 1; **vanilla is the case d = n, alpha = 1**
    k      K, independent perturbations that the estimate averages, k > 0, an antithetic pair
           counts once; need not be whole: see `effective_perturbations` for a running average
    alpha  share of the gradient's energy in the subspace, ‖Pg‖²/‖g‖², in [0, 1]
    rho    E‖g(x)‖²/‖E g(x)‖² ≥ 1, how much the gradient varies over the examples that are perturbed; 1 = not at all;
           see `jacobian_spread`

Conventions: an estimate is divided by v, the noise's variance per perturbed coordinate, so the size of the noise drops
out of every equation but (5) and (6); the response is linear in ξ (antithetic differences of small noise). Comparisons
of vanilla and manifold noise are at equal E‖ξ‖², see `matched_sigma`. Cosines are pure numbers, angles degrees.

All functions but `best_rank`, `needed_perturbations` and the two on Jacobians are elementwise and broadcast: they take floats mixed with numpy
arrays or with torch tensors, and floats give a float. They run inside ``torch.func.vmap``, where values cannot be looked at and are therefore not checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "best_rank",
    "ceiling_angle",
    "cosine",
    "covariance_progress",
    "cross_talk",
    "crossover_alpha",
    "crossover_budget",
    "effective_perturbations",
    "error_crossover_budget",
    "jacobian_spread",
    "matched_sigma",
    "mean_squared_cosine",
    "needed_perturbations",
    "predicted_angle",
    "relative_error",
    "squared_cosine",
]

N = TypeVar("N", float, "NDArray[np.float64]", "Tensor")
A = TypeVar("A", "NDArray[np.float64]", "Tensor")

_ROUNDING = 1e-6  # a share measured in float32 may come out this much above its bound; that is no error


def relative_error(d: N | float, k: N | float, alpha: N | float = 1.0, rho: N | float = 1.0) -> N:
    """Expected squared error E‖ĝ − ḡ‖²/‖ḡ‖² about the mean gradient ḡ: equations (1), (2) and (7).

    (1) vanilla: ``(n+1)/K``.  (2) manifold: ``(1−α) + α(d+1)/K``.  (7) examples that differ: ``(d+2)ρ−1`` in the place
    of ``d+1``. Exact for every K, if each perturbation meets an example of its own, drawn independently.

    >>> round(relative_error(d=64, k=1024, alpha=0.7), 3)
    0.344
    """
    alpha = _share(alpha)
    return (1 - alpha) + alpha * _noise(d, rho) / _count(k)


def squared_cosine(d: N | float, k: N | float, alpha: N | float = 1.0, rho: N | float = 1.0) -> N:
    """Squared cosine of ĝ with the mean gradient, ``α/(1+(d+1)/K)``; also what (9) maximises over ranks.

    The ratio of expectations (E ĝ·ḡ)²/(‖ḡ‖² E‖ĝ‖²), not the mean of the ratio: see `cosine`.
    """
    return _share(alpha) / (1 + _noise(d, rho) / _count(k))


def cosine(d: N | float, k: N | float, alpha: N | float = 1.0, rho: N | float = 1.0) -> N:
    """Expected cosine of ĝ with the mean gradient, equations (1) and (2): ``√(α/(1+(d+1)/K))``.

    Vanilla: ``1/√(1+(n+1)/K)``. To leading order: for ρ = 1 and whole K the true mean lies between ``1 − 1/(4K)`` and
    ``1 + 1/(K+d−1)`` times this. `mean_squared_cosine` is exact.
    """
    return _apply("sqrt", squared_cosine(d, k, alpha, rho))


def mean_squared_cosine(d: N | float, k: N | float, alpha: N | float = 1.0) -> N:
    """Exact mean of the squared cosine, ``αK/(K+d−1)``, for whole K and examples that do not differ.

    With g along the first of the d axes the estimate's part along g is a = χ²_K/K and the rest, given a, is
    N(0, a/K) on d−1 axes; so cos²/α follows the Beta(K/2, (d−1)/2) distribution, for every K.
    """
    return _share(alpha) / (1 + (_units("d", d) - 1) / _count(k))


def crossover_alpha(k: N | float, d: N | float, n: N | float, rho: N | float = 1.0) -> N:
    """α* of equation (3): manifold noise has the smaller angle iff α > α* = ``(K+d+1)/(K+n+1)``.

    Tends to d/n, the share of a random subspace, for K ≪ d, and to 1 for K ≫ n.

    Args:
        k: perturbations.
        d: rank of the manifold, at most n.
        n: units of the site.
        rho: spread of the gradient, taken to be the same inside the manifold and outside.
    """
    k, d = _count(k), _rank(d, n)
    return (1 + _noise(d, rho) / k) / (1 + _noise(n, rho) / k)


def crossover_budget(alpha: N | float, d: N | float, n: N | float, rho: N | float = 1.0) -> N:
    """K* of equation (3): manifold noise has the smaller angle iff K < K* = ``[α(n+1) − (d+1)]/(1−α)``.

    Zero or negative: vanilla wins at every budget. alpha must be below 1: at 1 the manifold wins at every budget.

    >>> round(crossover_budget(alpha=0.3, d=32, n=512))
    173
    """
    alpha = _partial_share(alpha)
    return (alpha * _noise(n, rho) - _noise(_rank(d, n), rho)) / (1 - alpha)


def error_crossover_budget(alpha: N | float, d: N | float, n: N | float, rho: N | float = 1.0) -> N:
    """The K of equation (4): manifold noise has the smaller squared error iff K < ``[(n+1) − α(d+1)]/(1−α)``.

    Larger than `crossover_budget`: a bias that shrinks the estimate costs angle sooner than error. alpha < 1.
    """
    alpha = _partial_share(alpha)
    return (_noise(n, rho) - alpha * _noise(_rank(d, n), rho)) / (1 - alpha)


def matched_sigma(sigma: N | float, d: N | float, n: N | float) -> N:
    """Standard deviation per unit of vanilla noise with the energy of manifold noise: ``σ√(d/n)``.

    Args:
        sigma: standard deviation per manifold coordinate, σ ≥ 0, in units of activity; E‖ξ‖² = σ²d for both.
        d: rank of the manifold, at most n.
        n: units of the site.
    """
    return _nonnegative("sigma", sigma) * _apply("sqrt", _rank(d, n) / n)


def covariance_progress(variance: N | float, alpha: N | float = 1.0) -> N:
    """Equation (5): expected step along the gradient, E ĝ·g/‖g‖² = ``vα``, of an estimate not divided by v.

    At matched energy this is σ²α for manifold and σ²d/n for vanilla noise: the manifold helps iff α > d/n.

    Args:
        variance: v ≥ 0, noise variance per perturbed coordinate, in squared units of activity.
        alpha: share of the gradient in the manifold.
    """
    return _nonnegative("variance", variance) * _share(alpha)


def cross_talk(d: N | float, k: N | float, own: N | float, others: N | float) -> N:
    """Equation (6): what is added to `relative_error` when all sites are perturbed at once, ``(d/K)·others/own``.

    Exact where the output is linear in the noise of all sites together.

    Args:
        d: dimensions perturbed at this site.
        k: perturbations.
        own: v‖g‖² > 0 of this site: noise variance per coordinate times energy of the whole gradient.
        others: the sum of v_m‖P_m g_m‖² ≥ 0 over the other sites m: what their noise does to the output.
    """
    _require("own", own, own > 0, "a positive energy")
    return _units("d", d) / _count(k) * _nonnegative("others", others) / own


def jacobian_spread(jacobians: A, errors: A) -> A:
    """ρ of equation (7) for each error: E_x‖J(x)ᵀe‖²/‖J̄ᵀe‖², with J̄ = E_x J(x); at least 1.

    For one row of the Jacobian take a row of the identity as the error. For manifold noise give J(x)U, the Jacobians
    in the coordinates of the basis U.

    Args:
        jacobians: J(x), derivative of the output by the site, of shape ``(examples, out, n)``.
        errors: e, derivative of the loss by the output, of shape ``(m, out)``.

    Returns:
        ρ of shape ``(m,)``.

    Raises:
        ValueError: if a mean gradient J̄ᵀe is zero, since no ratio to it exists.
    """
    mean_gradients = errors @ jacobians.mean(0)
    energy = (mean_gradients**2).sum(-1)
    _require("errors", energy, energy > 0, "errors whose mean gradient is not zero (squared norms are shown)")
    second_moment = (jacobians @ jacobians.swapaxes(-1, -2)).mean(0)  # E J Jᵀ, (out, out)
    spread: A = ((errors @ second_moment) * errors).sum(-1) / energy
    return spread


def ceiling_angle(jacobians: A, errors: A) -> A:
    """Ceiling of equation (7): angle of J(x)ᵀe with J̄ᵀe, in degrees, what direct feedback has left at K = ∞.

    A feedback matrix that correlates noise with the output learns the mean Jacobian J̄, not that of each example.

    Args:
        jacobians: J(x), derivative of the output by the site, of shape ``(examples, out, n)``.
        errors: e of the same examples, of shape ``(examples, out)``.

    Returns:
        One angle per example, of shape ``(examples,)``.

    Raises:
        ValueError: if a gradient is zero, since it has no angle: leave such examples out.
    """
    gradients = (errors[:, None, :] @ jacobians)[:, 0]
    mean_gradients = errors @ jacobians.mean(0)
    norms = ((gradients**2).sum(-1) * (mean_gradients**2).sum(-1)) ** 0.5
    _require("errors", norms, norms > 0, "errors whose gradients are not zero (products of norms are shown)")
    return _degrees((gradients * mean_gradients).sum(-1) / norms)


def effective_perturbations(k_step: N | float, rate: N | float, updates: N | float = math.inf) -> N:
    """K_eff of equation (8): perturbations that a running average B ← (1−η)B + ηĴ is worth.

    Steady state: ``K_step(2−η)/η``. After t updates from zero, times ``(1−qᵗ)/(1+qᵗ)`` with q = 1−η, the size of B
    (a factor 1−qᵗ) put right; t = 1 gives K_step. The lag of 1/η updates behind a network that learns is not counted.

    Args:
        k_step: perturbations in each Ĵ, > 0.
        rate: η per update, in (0, 1].
        updates: t ≥ 1 since B was zero; the default is the steady state.

    >>> round(effective_perturbations(128, 0.05))
    4992
    """
    _require("rate", rate, (rate > 0) & (rate <= 1), "in (0, 1]")
    _require("updates", updates, updates >= 1, "at least 1")
    residual: N = (1 - rate) ** updates
    return _count(k_step) * (2 - rate) / rate * (1 - residual) / (1 + residual)


def best_rank(ranks: Iterable[float], alphas: Iterable[float], k: float, rho: float = 1.0) -> int:
    """Equation (9): the rank that maximises ``α(d)/(1+(d+1)/K)``; the first of equals.

    Append n with alpha 1 and vanilla noise is among the candidates. Where a number cannot be taken out of a tensor
    (inside vmap), take the argmax of `squared_cosine` instead.

    Args:
        ranks: candidates d.
        alphas: α(d) of each.
        k: (effective) perturbations.
        rho: spread of the gradient.

    Raises:
        ValueError: if there is no candidate, or ranks and alphas differ in number.
    """
    candidates = list(zip(ranks, alphas, strict=True))
    if not candidates:
        raise ValueError("ranks is empty; give at least one rank and its alpha")
    return int(max(candidates, key=lambda c: squared_cosine(c[0], k, c[1], rho))[0])


def predicted_angle(
    d: N | float, k: N | float, alpha: N | float = 1.0, ceiling: N | float = 0.0, rho: N | float = 1.0
) -> N:
    """Predicted angle in degrees of the estimate Bᵀe with the gradient J(x)ᵀe of an example.

    ``arccos(cos(ceiling)·√(α/(1+((d+2)ρ−1)/K)))``: the cosines of (7) and of (1)/(2) multiply. That needs

    - noise of the estimate that is independent of the example at hand: B averages over many others;
    - a deviation J(x)ᵀe − c·J̄ᵀe of the example (c makes it orthogonal to the mean) that is also orthogonal to PJ̄ᵀe:
      nothing to assume for vanilla noise; for manifold noise it holds on average if what is special to an example
      is unrelated to the part of the mean that the manifold holds.

    α is the share of the *mean* gradient J̄ᵀe in the manifold. Not counted: the lag of a running average, noise so
    large that the response bends, and cross-talk. The mean over examples of the result for each one's ceiling is what
    to hold against a mean of measured angles.

    Args:
        d: dimensions that are perturbed.
        k: (effective) perturbations.
        alpha: share of the mean gradient in the manifold.
        ceiling: `ceiling_angle`, degrees in [0, 90].
        rho: `jacobian_spread`.

    >>> round(predicted_angle(d=512, k=1024)), round(predicted_angle(d=64, k=1024, alpha=0.7))
    (35, 36)
    """
    ceiling = _require("ceiling", ceiling, (ceiling >= 0) & (ceiling <= 90), "an angle in [0, 90] degrees")
    return _degrees(_apply("cos", ceiling * (math.pi / 180)) * cosine(d, k, alpha, rho))


def needed_perturbations(
    angle: float, d: float, alpha: float = 1.0, ceiling: float = 0.0, rho: float = 1.0
) -> float:
    """The K at which `predicted_angle` is a given angle: equations (1), (2) and (7) solved for K.

    ``K = ((d+2)ρ−1) / (α cos²(ceiling)/cos²(angle) − 1)``; infinite for an angle that no number of perturbations reaches,
    because of the part of the gradient outside of the manifold, or of the ceiling.

    Args:
        angle: target, degrees in (0, 90).
        d: dimensions that are perturbed.
        alpha: share of the mean gradient in the manifold.
        ceiling: `ceiling_angle`, degrees in [0, 90].
        rho: `jacobian_spread`.

    >>> round(needed_perturbations(35, d=512)), needed_perturbations(35, d=64, alpha=0.5)
    (1046, inf)
    """
    _require("angle", angle, 0 < angle < 90, "an angle between 0 and 90 degrees, without the two")
    _require("ceiling", ceiling, 0 <= ceiling <= 90, "an angle in [0, 90] degrees")
    attainable = _share(alpha) * math.cos(math.radians(ceiling)) ** 2
    excess = attainable / math.cos(math.radians(angle)) ** 2 - 1
    return _noise(d, rho) / excess if excess > 0 else math.inf


def _noise(d: N | float, rho: N | float) -> N:
    """Variance of one perturbation's estimate in units of ‖Pg‖²: d+1, or (d+2)ρ−1 where examples differ."""
    _require("rho", rho, rho >= 1 - _ROUNDING, "at least 1")
    return (_units("d", d) + 2) * rho - 1


def _units(name: str, value: N | float) -> N:
    return _require(name, value, value >= 1, "at least 1")


def _rank(d: N | float, n: N | float) -> N:
    _units("n", n)
    return _require("d", d, d <= n, "at most n = ", n)


def _count(k: N | float) -> N:
    return _require("k", k, k > 0, "a positive number of perturbations")


def _share(alpha: N | float) -> N:
    return _require("alpha", alpha, (alpha >= 0) & (alpha <= 1 + _ROUNDING), "a share in [0, 1]")


def _partial_share(alpha: N | float) -> N:
    expected = "a share in [0, 1): with the whole gradient inside, the manifold wins at every budget"
    return _require("alpha", alpha, (alpha >= 0) & (alpha < 1), expected)


def _nonnegative(name: str, value: N | float) -> N:
    return _require(name, value, value >= 0, "zero or more")


def _require(name: str, value: N | float, legal: Any, expected: str, bound: object = "") -> N:  # noqa: ANN401
    """``value``, if it is allowed (a bool or an array of them) throughout; what is not a number (nan) never is."""
    try:
        legal = bool(legal if isinstance(legal, bool) else legal.all())
    except RuntimeError:  # inside torch.func.vmap a value cannot be looked at
        legal = True
    if not legal:
        raise ValueError(f"{name} must be {expected}{bound}, got {value}")
    return value  # type: ignore[return-value]  # a float among arrays broadcasts, so it may stand for one


_MATH = {"arccos": math.acos, "cos": math.cos, "sqrt": math.sqrt}


def _apply(function: str, x: N) -> N:
    """``math``'s, torch's or numpy's function of that name, by what ``x`` is."""
    result: Any
    if isinstance(x, float | int):
        result = _MATH[function](x)
    elif hasattr(x, function):  # a torch tensor
        result = getattr(x, function)()
    else:
        import numpy as np

        result = getattr(np, function)(x)
    value: N = result
    return value


def _degrees(cosine: N) -> N:
    """The angle of a cosine, in degrees; rounding may have carried the cosine past ±1."""
    inside: Any = max(-1.0, min(1.0, cosine)) if isinstance(cosine, float | int) else cosine.clip(-1, 1)
    angle: N = _apply("arccos", inside) * (180 / math.pi)
    return angle
