"""Noise correlation, vanilla and in the neural manifold: feedback learnt from perturbations of activity.

Kang, Richards, Sabatini 2026, "neural manifold noise correlation" (NMNC), arXiv:2601.02636. The paper's code and the
details of its algorithm are not public; this follows its published notation and, where that is silent, the choices
named below. No number produced here is a number of the paper.

At a site with activity x (n units), perturb x by ξ and watch the output change by dy. Because E[ξ ξᵀ] = v P,

    E[dy ξᵀ] / v = J P,        J = ∂y/∂x, averaged over examples,

with P the projection on the subspace that ξ spans: everything for vanilla noise correlation (VNC), the principal
subspace U of recent activity for NMNC. An exponential average B of these estimates carries the output's error e
straight to the site: the teaching signal is Bᵀ e, and the update is that of direct feedback.

Letters: b batch, o outputs, n units of a site, d columns of the basis U (n × d), K perturbed examples.

Choices:
- The size of the noise is set by its energy, E‖ξ‖² = σ² n RMS(x)², whatever the subspace: VNC and NMNC with the same σ
  are matched, and rank = width gives VNC. Inside the subspace the noise is isotropic, of variance v = E‖ξ‖²/d.
- x is the activity behind a site of kind "post", what the next layer sees; a convolution's map is one vector.
- Responses are finite differences (antithetic by default), as a brain could take them; ``response="derivative"``
  takes the limit σ → 0.
- By default every example of a batch is perturbed at one site only, so that one noisy pass serves all sites without
  cross-talk.
- On a recurrent network every time step's visit has a feedback of its own to the whole output (a lagged feedback, and
  causality comes out of the data); the manifold is shared by the visits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, OptionError, State, Step, Task, credit, hp, manifold

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class NoiseCorrelation(LearningRule):
    """Vanilla noise correlation: isotropic perturbations."""

    sigma: float = hp(
        0.1, "size of the perturbation, as a fraction of the site's activity (ratio of RMS values)",
        low=1e-8, search=(0.01, 0.5), log=True,
    )  # fmt: skip
    rate: float = hp(0.1, "weight of the newest estimate in the feedback's running average", low=1e-6, high=1.0,
                     search=(0.01, 0.5), log=True)  # fmt: skip
    every: int = hp(1, "update the feedback every so many steps", low=1)
    perturbations: int | None = hp(
        None, "perturbed examples per site and update; none = the batch, shared among sites perturbed one at a time",
        low=1,
    )  # fmt: skip
    together: bool = hp(False, "perturb all sites in one example, instead of one site in each")
    antithetic: bool = hp(True, "difference of two noisy passes, ±ξ, instead of a noisy and the clean one")
    estimator: str = hp("correlation", "how the response is related to the noise",
                        choices=("correlation", "least-squares"))  # fmt: skip
    response: str = hp("difference", "finite difference, or the derivative along the noise",
                       choices=("difference", "derivative"))  # fmt: skip

    # Below this fraction of the activity a finite difference drowns in rounding: it is of size sigma, its error of
    # size eps, and 100 leaves an error of a percent.
    _ROUNDING_MARGIN: ClassVar[float] = 100.0

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs somewhere to perturb."""
        return (
            None
            if net.keys("post")
            else "noise correlation needs sites of kind 'post', and this network has none"
        )

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Feedback of zeros, ``feedback.<visit>`` of shape ``(o, n)``."""
        smallest = self._ROUNDING_MARGIN * torch.finfo(batch.x.dtype).eps
        if self.response == "difference" and self.sigma < smallest:
            raise OptionError(
                f"sigma={self.sigma:g} drowns in the rounding of {batch.x.dtype}; use at least {smallest:.1g}, or "
                "response=derivative"
            )
        outputs = torch.Size(net.output_shape).numel()
        return State(
            buffers={
                f"feedback.{key}": batch.x.new_zeros(outputs, net.visits[key].width)
                for key in net.keys("post")
            }
        )

    def basis(self, net: Net, state: State, key: str) -> Tensor | None:
        """The basis ``(n, d)`` of the subspace that is perturbed at a visit; ``None`` = all of it."""
        return None

    def remember(self, net: Net, state: State, sites: Tensors, t: int) -> State:
        """Take notice of the activity of step ``t``, before the feedback is updated."""
        return state

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal coordinates, visit → ``(K, d)``; nothing on steps that leave the feedback alone."""
        if t % self.every:
            return {}
        rows = self._perturbed_examples(len(batch.x), len(net.keys("post")))
        drawn = {}
        for key in net.keys("post"):
            basis = self.basis(net, state, key)
            dimensions = net.visits[key].width if basis is None else basis.shape[1]
            drawn[key] = torch.randn(rows, dimensions, generator=gen, dtype=batch.x.dtype, device=gen.device)
        return drawn

    def _perturbed_examples(self, batch: int, visits: int) -> int:
        if self.perturbations is not None:
            return self.perturbations
        return batch if self.together else max(1, batch // visits)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        state = self.remember(net, state, cut.sites, t)
        if t % self.every == 0:
            state = self._learn_feedback(net, params, batch.x, cut, state, noise)
        signals = {
            key: (error.flatten(1) @ state.buffers[f"feedback.{key}"]).view_as(activity)
            for key, activity in cut.sites.items()
        }
        return Step(cut.pull(error, signals), state, mean)

    def _learn_feedback(
        self, net: Net, params: Tensors, x: Tensor, cut: credit.Cut, state: State, noise: Tensors
    ) -> State:
        bases = {key: self.basis(net, state, key) for key in noise}
        scales = {key: self._noise_scale(cut.sites[key], bases[key]) for key in noise}
        xi = {key: scales[key] * _in_space(z, bases[key]) for key, z in noise.items()}
        change = self._responses(net, params, x, cut.output, xi)
        buffers = dict(state.buffers)
        for key, z in noise.items():
            estimate = self._estimate(change[key], z) / scales[key]  # (o, d): J in coordinates of the basis
            buffers[f"feedback.{key}"] = torch.lerp(
                buffers[f"feedback.{key}"], _in_space(estimate, bases[key]), self.rate
            )
        return State(state.params, buffers)

    def _noise_scale(self, activity: Tensor, basis: Tensor | None) -> Tensor:
        """Standard deviation √v of one coordinate of the noise, a scalar."""
        units = activity[0].numel()
        mean_square = activity.square().mean().clamp_min(_SILENT**2)
        dimensions = units if basis is None else manifold.dimensions(basis).clamp_min(1)
        return self.sigma * (units * mean_square / dimensions).sqrt()

    def _responses(self, net: Net, params: Tensors, x: Tensor, clean: Tensor, xi: Tensors) -> Tensors:
        """Change of the output for the noise at every visit: visit → ``(K, o)``."""
        examples = len(next(iter(xi.values())))
        keys = list(xi)
        blocks = 1 if self.together else len(keys)  # one block of rows for each site that is perturbed alone
        rows = blocks * examples
        which = torch.arange(rows, device=x.device) % len(x)
        shift = xi if self.together else {k: _block(xi[k], i, rows) for i, k in enumerate(keys)}

        def output(sign: float | Tensor) -> Tensor:
            def tap(key: str, activity: Tensor) -> Tensor:
                return activity + sign * shift[key].view_as(activity) if key in shift else activity

            return net.run(params, x if rows == len(x) else x[which], tap)

        if self.response == "derivative":
            zero = torch.zeros((), dtype=x.dtype, device=x.device)
            change = torch.func.jvp(output, (zero,), (torch.ones_like(zero),))[1]
        elif self.antithetic:
            change = (output(1.0) - output(-1.0)) / 2
        else:
            change = output(1.0) - (clean if rows == len(x) else clean[which])
        change = change.flatten(1)
        return {
            k: change if self.together else change[i * examples : (i + 1) * examples]
            for i, k in enumerate(keys)
        }

    def _estimate(self, change: Tensor, z: Tensor) -> Tensor:
        """How the output answers to each coordinate of the noise, ``(o, d)``."""
        if self.estimator == "least-squares":
            solved: Tensor = torch.linalg.pinv(z) @ change
            return solved.mT
        return change.mT @ z / len(z)


@dataclass(frozen=True)
class ManifoldNoiseCorrelation(NoiseCorrelation):
    """NMNC: perturbations in the principal subspace of recent activity."""

    rank: int | float = hp(32, "dimensions of the manifold, or (below 1) the fraction of variance it explains",
                           low=1e-6, search=(8, 16, 32, 64, 128))  # fmt: skip
    samples: int = hp(512, "recent activities from which the manifold is found", low=2)
    refresh: int = hp(100, "find the manifold anew every so many steps", low=1)
    centred: bool = hp(True, "subtract the mean activity before finding the manifold")

    def __post_init__(self) -> None:
        """Refuse a rank like 2.5, which is neither a number of dimensions nor a fraction."""
        super().__post_init__()
        if self.rank > 1 and self.rank != int(self.rank):
            raise OptionError(f"rank must be a whole number, or a fraction below 1, got {self.rank!r}")

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Adds ``basis.<site>`` ``(n, d)`` and the recent activity ``recent.<site>.<slot>`` ``(rows, n)``."""
        state = super().init(net, params, batch, gen)
        sites = credit.cut(net, params, batch.x, net.keys("post")).sites
        buffers = dict(state.buffers)
        for site in dict.fromkeys(net.visits[key].site for key in sites):
            rows = _pooled(net, sites, site, self.samples)
            for slot in range(self._slots(len(rows))):
                buffers[f"recent.{site}.{slot}"] = rows
            buffers[f"basis.{site}"] = self._basis_of([rows])
        return State(state.params, buffers)

    def basis(self, net: Net, state: State, key: str) -> Tensor:
        """The site's basis, shared by its visits."""
        return state.buffers[f"basis.{net.visits[key].site}"]

    def remember(self, net: Net, state: State, sites: Tensors, t: int) -> State:
        """Keep the activity of the last steps before a refresh, and find the manifold anew when its time has come.

        A slot holds one step's activity as it is, so nothing is copied; steps that will not be asked for are not kept.
        """
        buffers = dict(state.buffers)
        for site in dict.fromkeys(net.visits[key].site for key in sites):
            slots = [name for name in buffers if name.startswith(f"recent.{site}.")]
            if self._is_due(t, len(slots)):
                buffers[f"basis.{site}"] = self._basis_of([buffers[name] for name in slots])
            slot = self._slot(t, len(slots))
            if slot is not None:
                name = f"recent.{site}.{slot}"
                rows = _pooled(net, sites, site, self.samples)
                buffers[name] = torch.cat([rows, buffers[name][len(rows) :]])[: len(buffers[name])]
        return State(state.params, buffers)

    def _slots(self, rows: int) -> int:
        return min(self.refresh, -(-self.samples // rows))

    def _slot(self, t: int, slots: int) -> int | None:
        """Where step ``t`` is kept: the first steps of all, then the last ones before every refresh."""
        if t < slots:
            return t
        slot = t % self.refresh - (self.refresh - slots)
        return slot if slot >= 0 else None

    def _is_due(self, t: int, slots: int) -> bool:
        return t == slots or (t > slots and t % self.refresh == 0)

    def _basis_of(self, recent: list[Tensor]) -> Tensor:
        rows = torch.cat(recent)
        units = rows.shape[1]
        if self.rank < 1:
            most = min(units, self.samples)
            return manifold.principal_basis(rows, most, variance=self.rank, centred=self.centred)
        return manifold.principal_basis(rows, min(int(self.rank), units), centred=self.centred)


_SILENT = (
    1e-3  # RMS activity below which a site is perturbed as if it had this much, so that it can still be heard
)


def _in_space(coordinates: Tensor, basis: Tensor | None) -> Tensor:
    """Coordinates ``(rows, d)`` in the basis → vectors ``(rows, n)``."""
    return coordinates if basis is None else coordinates @ basis.mT


def _block(xi: Tensor, number: int, rows: int) -> Tensor:
    """The noise of one site on its own block of the rows, zero on the others': ``(rows, n)``."""
    before = number * len(xi)
    return F.pad(xi, (0, 0, before, rows - before - len(xi)))


def _pooled(net: Net, sites: Tensors, site: str, most: int) -> Tensor:
    """Activity pooled over the visits of a site, evenly thinned to at most ``most`` rows: ``(rows, n)``."""
    rows = torch.cat([activity.flatten(1) for key, activity in sites.items() if net.visits[key].site == site])
    return rows[:: -(-len(rows) // most)]
