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
- Where outputs × units do not fit into memory there are two smaller forms: ``patch`` sees a map in patches of positions
  that share a coordinate (`rulezoo_plugins.noise_correlation.patches`; one patch per channel is a channel form, ``patch=1`` the full one),
  and ``feedback=subspace`` keeps B U in place of B, ``(o, d)`` in place of ``(o, n)``. In a subspace that stays as it is
  the two are the same. When a manifold is found anew, the feedback is carried over, B U_old (U_oldᵀ U_new): what lies
  outside of the new manifold is forgotten at once, where the full form forgets it at ``rate``.
- Responses are finite differences, as a brain could take them: by default of one noisy pass and the clean one, with
  ``antithetic`` of two noisy ones. ``response="derivative"`` takes the limit σ → 0.
- One noisy pass in every second step, and a manifold of a quarter of the units of a site, at most 128, are our defaults, chosen by
  accuracy on validation data at equal cost (``benchmarks/nmnc_cost.md``). VNC has the same noise.
- By default every example of a batch is perturbed at one site only, so that one noisy pass serves all sites without
  cross-talk.
- On a recurrent network every time step's visit has a feedback of its own to the whole output (a lagged feedback, and
  causality comes out of the data); the manifold is shared by the visits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, OptionError, State, Step, Task, credit, hp, manifold
from rulezoo_plugins.noise_correlation import automatic_rank
from rulezoo_plugins.noise_correlation.automatic_rank import Adaptive, Regions
from rulezoo_plugins.noise_correlation.patches import Patches, patches_of
from rulezoo_plugins.shared.in_manifold import InManifold
from rulezoo_plugins.shared.state_size import gigabytes, why_too_large
from rulezoo_plugins.shared.subspaces import Everywhere, Span, Subspace

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
    every: int = hp(2, "update the feedback every N steps", low=1)
    perturbations: int | None = hp(
        None, "perturbed examples per site and update; none = the batch, shared among sites perturbed one at a time",
        low=1,
    )  # fmt: skip
    together: bool = hp(False, "perturb all sites in one example, instead of one site in each")
    antithetic: bool = hp(False, "difference of two noisy passes, ±ξ, instead of a noisy and the clean one")
    estimator: str = hp("correlation", "how the response is related to the noise",
                        choices=("correlation", "least-squares"))  # fmt: skip
    response: str = hp("difference", "finite difference, or the derivative along the noise",
                       choices=("difference", "derivative"))  # fmt: skip
    patch: int = hp(
        1, "side of the square of positions of a convolutional map that share one feedback, which saves its square in "
        "memory; 1 = every unit has its own, the side of the map or more = every channel has its own", low=1,
    )  # fmt: skip
    memory: float = hp(2.0, "most memory that feedback, bases and recent activity may take, in GB", low=0)

    in_subspace: ClassVar[bool] = False  # whether the feedback is kept in the coordinates of a subspace

    # Below this fraction of the activity a finite difference drowns in rounding: it is of size sigma, its error of
    # size eps, and 100 leaves an error of a percent.
    _ROUNDING_MARGIN: ClassVar[float] = 100.0

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs somewhere to perturb, and memory for the feedback."""
        return self.why_unsuited(net) or self._why_too_large(net)

    def why_unsuited(self, net: Net) -> str | None:
        """A sentence if the network has not what the rule needs."""
        if net.keys("post"):
            return None
        return "noise correlation needs sites of kind 'post', and this network has none"

    def _why_too_large(self, net: Net) -> str | None:
        widest = max(net.keys("post"), key=lambda key: net.visits[key].width)
        what = (
            f"{torch.Size(net.output_shape).numel()} outputs × {sum(net.visits[k].width for k in net.keys('post'))} "
            f"units, {net.visits[widest].width} of them at site {widest!r}"
        )
        return why_too_large(self, self.memory, lambda rule: rule.state_size(net), self.smaller_forms(), what)

    def smaller_forms(self) -> list[dict[str, object]]:
        """Options that make the state smaller, those that cost least first."""
        return [{"patch": side * self.patch} for side in (2, 4, 8)]

    def state_size(self, net: Net) -> float:
        """GB of what the rule keeps between two steps."""
        return gigabytes(self.first_feedback(net, "meta"))

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Feedback of zeros, see `first_feedback`."""
        coarsest = coarsest_dtype(net)
        smallest = self._ROUNDING_MARGIN * torch.finfo(coarsest).eps
        if self.response == "difference" and self.sigma < smallest:
            raise OptionError(
                f"sigma={self.sigma:g} drowns in the rounding of {coarsest}; use at least {smallest:.1g}, or "
                "response=derivative"
            )
        return State(buffers=self.first_feedback(net, batch.x.device))

    def first_feedback(self, net: Net, device: torch.device | str) -> Tensors:
        """Zeros ``feedback.<visit>`` of shape ``(o, n)``; ``(o, d)`` where it is kept in a subspace."""
        outputs = torch.Size(net.output_shape).numel()
        return {
            f"feedback.{key}": torch.zeros(
                outputs, self.feedback_width(net, key), dtype=net.memory_dtype(key), device=device
            )
            for key in net.keys("post")
        }

    def feedback_width(self, net: Net, key: str) -> int:
        """How many numbers the feedback of one output to a visit has."""
        return self.seen(net, key).units

    def seen(self, net: Net, key: str) -> Patches:
        """The coordinates in which a visit of a site is perturbed and taught."""
        return patches_of(net, key, self.patch)

    def basis(self, net: Net, state: State, key: str) -> Tensor | None:
        """The basis ``(n, d)`` of the subspace that is perturbed at a visit; ``None`` = all of it."""
        return None

    def subspace(self, net: Net, state: State, key: str, rows: int, t: int) -> Subspace:
        """Where a visit of a site is perturbed in ``rows`` examples at step ``t``."""
        basis = self.basis(net, state, key)
        return Everywhere(self.seen(net, key).units) if basis is None else Span(basis)

    def remember(self, net: Net, state: State, sites: Tensors, t: int) -> State:
        """Take notice of the activity of step ``t``, before the feedback is updated."""
        return state

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal coordinates, visit → ``(K, d)``; nothing on steps that leave the feedback alone."""
        if t % self.every:
            return {}
        if not self.together:
            credit.examine_sites(net, net.keys("post"))  # the step may be compiled
        rows = self._perturbed_examples(len(batch.x), len(net.keys("post")))
        return {
            key: torch.randn(
                rows,
                self.subspace(net, state, key, rows, t).coordinates,
                generator=gen,
                dtype=net.memory_dtype(key),
                device=gen.device,
            )
            for key in net.keys("post")
        }

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
            state = self._learn_feedback(net, params, batch.x, cut, state, noise, t)
        signals = {key: self._signal(net, state, key, error) for key in cut.sites}
        return Step(cut.pull(error, signals), state, mean)

    def _signal(self, net: Net, state: State, key: str, error: Tensor) -> Tensor:
        """What a visit of a site is taught, ``(b, *shape)``."""
        signal = credit.rows(error) @ state.buffers[f"feedback.{key}"]
        basis = self.basis(net, state, key) if self.in_subspace else None
        return self.seen(net, key).expand(signal if basis is None else signal @ basis.mT)

    def _learn_feedback(
        self, net: Net, params: Tensors, x: Tensor, cut: credit.Cut, state: State, noise: Tensors, t: int
    ) -> State:
        spaces = {key: self.subspace(net, state, key, len(z), t) for key, z in noise.items()}
        energies = {key: manifold.noise_energy(cut.sites[key], self.sigma) for key in noise}
        xi = {
            key: self.seen(net, key).expand(spaces[key].perturbation(z, energies[key]))
            for key, z in noise.items()
        }
        if self.together:
            changes = self._responses(net, params, x, cut.output, xi)
        else:
            changes = self._responses_from_sites(net, params, x, cut, xi)
        buffers = dict(state.buffers)
        for key, z in noise.items():
            space = spaces[key]
            jacobian = space.coefficients if self.in_subspace and isinstance(space, Span) else space.jacobian
            estimate = jacobian(z, changes[key], energies[key], self.estimator)
            feedback = buffers[f"feedback.{key}"]
            buffers[f"feedback.{key}"] = feedback + self.rate * spaces[key].told * (estimate - feedback)
        return self.reckon(net, State(state.params, buffers), spaces, energies, changes)

    def reckon(
        self,
        net: Net,
        state: State,
        spaces: dict[str, Subspace],
        energies: Tensors,
        changes: Tensors,
    ) -> State:
        """Learn from the responses what else there is to learn from them; each argument by visit."""
        return state

    def _responses(self, net: Net, params: Tensors, x: Tensor, clean: Tensor, xi: Tensors) -> Tensors:
        """Change of the output for the noise ``(K, *shape)`` at all visits at once: visit → ``(K, o)``."""
        examples = len(next(iter(xi.values())))
        which = torch.arange(examples, device=x.device) % len(x)
        whole = examples == len(x)

        def output(sign: float | Tensor) -> Tensor:
            def tap(key: str, activity: Tensor) -> Tensor:
                return (activity + sign * xi[key]).to(activity.dtype) if key in xi else activity

            return net.run(params, x if whole else x[which], tap)

        change = credit.rows(self._change(output, clean if whole else clean[which]))
        return dict.fromkeys(xi, change)

    def _responses_from_sites(
        self, net: Net, params: Tensors, x: Tensor, cut: credit.Cut, xi: Tensors
    ) -> Tensors:
        """The same for noise at one visit in each example, which starts there: its clean activity is known."""
        examples = len(next(iter(xi.values())))
        which = torch.arange(len(xi) * examples, device=x.device) % len(x)
        own = dict(zip(xi, which.view(len(xi), -1).unbind(), strict=True))
        whole = len(which) == len(x)

        def output(sign: float | Tensor) -> Tensor:
            noisy = {k: cut.sites[k][own[k]] + sign * noise for k, noise in xi.items()}
            return credit.from_sites(net, params, noisy, x if whole else x[which])

        change = credit.rows(self._change(output, cut.output if whole else cut.output[which]))
        return dict(zip(xi, change.view(len(xi), examples, -1).unbind(), strict=True))

    def _change(self, output: Callable[[float | Tensor], Tensor], clean: Tensor) -> Tensor:
        """Response to the noise: outputs with it, by its sign and size, related to those without it, ``clean``."""
        if self.response == "derivative":
            dtype = torch.promote_types(clean.dtype, torch.float32)
            return _derivative(output, torch.zeros((), dtype=dtype, device=clean.device))
        if self.antithetic:
            return (output(1.0) - output(-1.0)) / 2
        return output(1.0) - clean


@dataclass(frozen=True)
class ManifoldNoiseCorrelation(InManifold, NoiseCorrelation):
    """NMNC: perturbations in the principal subspace of recent activity."""

    rank: int | float | str | None = hp(  # type: ignore[assignment]  # more than the mixin knows
        None, "dimensions of the manifold, or (below 1) the fraction of variance it explains, or the best at the budget; none = a "
        "quarter of the units of a site, at most 128", low=1e-6, choices=("auto",), search=(16, 32, 64, 128, 256, "auto"),
    )  # fmt: skip

    feedback: str = hp("units", "what the feedback is kept for: every unit, or every dimension of the manifold, which "
                       "takes outputs × rank numbers for a site instead of outputs × units",
                       choices=("units", "subspace"))  # fmt: skip

    def __post_init__(self) -> None:
        """An automatic rank listens to one site at a time, and may leave the manifold."""
        super().__post_init__()
        if self.rank == "auto" and self.in_subspace:
            raise OptionError(
                "feedback must be 'units' with rank=auto, which may perturb all units, got 'subspace'"
            )
        if self.rank == "auto" and self.together:
            raise OptionError(
                "together must be false with rank=auto: it needs to know whose response it hears, got True"
            )

    @property
    def in_subspace(self) -> bool:  # type: ignore[override]  # a constant of the base
        """Whether the feedback is kept in the coordinates of the manifold."""
        return self.feedback == "subspace"

    def feedback_width(self, net: Net, key: str) -> int:
        """See `NoiseCorrelation.feedback_width`."""
        units = super().feedback_width(net, key)
        return self.columns(units)[0] if self.in_subspace else units

    def smaller_forms(self) -> list[dict[str, object]]:
        """See `NoiseCorrelation.smaller_forms`."""
        samples: dict[str, object] = {"samples": max(self.samples // 4, 2)}
        subspace: dict[str, object] = {"feedback": "subspace"}
        return [subspace, samples, *super().smaller_forms(), {**subspace, **samples, "patch": 2 * self.patch}]

    def state_size(self, net: Net) -> float:
        """See `NoiseCorrelation.state_size`; adds bases and recent activity."""
        keys = {net.visits[key].site: key for key in net.keys("post")}
        widths = {site: (self.seen(net, key).units, net.memory_dtype(key)) for site, key in keys.items()}
        return super().state_size(net) + self.manifold_size(widths)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Adds the manifold of every site, shared by its visits, and for an automatic rank ``energy.<site>``."""
        state = super().init(net, params, batch, gen)
        sites = credit.cut(net, params, batch.x, net.keys("post")).sites
        buffers = {**state.buffers, **self.first_manifold(self._by_site(net, sites))}
        if self.rank == "auto":
            for site in _sites(net):
                buffers[f"energy.{site}"] = _regions(buffers, site).no_evidence()
        return State(state.params, buffers)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `InManifold.step`; an automatic rank is logged as ``rank.<site>``: that of all units is their number."""
        step = super().step(net, loss, params, state, batch, noise, t)
        if self.rank != "auto" or t % self.refresh:
            return step
        rows = self._perturbed_examples(len(batch.x), len(net.keys("post")))
        spaces = {net.visits[k].site: self.subspace(net, step.state, k, rows, t) for k in net.keys("post")}
        chosen = {f"rank.{site}": space.rank for site, space in spaces.items() if isinstance(space, Adaptive)}
        return step._replace(logs=step.logs | chosen)

    def columns(self, units: int) -> tuple[int, float]:
        """See `InManifold`."""
        if self.rank is None:
            return rank_by_size(units), 1.0
        return (min(units, self.samples, _MOST), 1.0) if self.rank == "auto" else super().columns(units)

    def found(self, name: str, recent: list[Tensor]) -> Tensors:
        """See `InManifold`; for an automatic rank also ``varying.<site>``, 1 for the units that vary, ``(n,)``."""
        found = super().found(name, recent)
        if self.rank == "auto":
            found[f"varying.{name}"] = automatic_rank.varying(_extremes(recent))
        return found

    def remember(self, net: Net, state: State, sites: Tensors, t: int) -> State:
        """Follow the manifold; feedback in its coordinates is carried over to a new one."""
        buffers = self.followed_manifold(state.buffers, t, lambda: self._by_site(net, sites))
        for key in net.keys("post") if self.in_subspace else ():
            name = f"basis.{net.visits[key].site}"
            if (before := state.buffers[name]) is not buffers[name]:
                buffers[f"feedback.{key}"] = buffers[f"feedback.{key}"] @ (before.mT @ buffers[name])
        return State(state.params, buffers)

    def _by_site(self, net: Net, sites: Tensors) -> Tensors:
        """Activity pooled over the visits of each site: site → ``(rows, n)``."""
        pooled: dict[str, list[Tensor]] = {site: [] for site in _sites(net)}
        for key, activity in sites.items():
            pooled[net.visits[key].site].append(self.seen(net, key).reduce(activity))
        return {site: visits[0] if len(visits) == 1 else torch.cat(visits) for site, visits in pooled.items()}

    def basis(self, net: Net, state: State, key: str) -> Tensor:
        """The site's basis, shared by its visits."""
        return state.buffers[f"basis.{net.visits[key].site}"]

    def subspace(self, net: Net, state: State, key: str, rows: int, t: int) -> Subspace:
        """The span of the site's basis; with an automatic rank, of as many of its columns as pay, or of all units."""
        if self.rank != "auto":
            return super().subspace(net, state, key, rows, t)
        site = net.visits[key].site
        regions = _regions(state.buffers, site)
        k = (1 - automatic_rank.EXPLORING) * rows * self._memory
        columns, isotropic = regions.best(state.buffers[f"energy.{site}"], k)
        explorers = automatic_rank.explorers(rows, t // self.every, regions.count)
        return Adaptive(regions, columns, isotropic, explorers, rows)

    @property
    def _memory(self) -> float:
        """Updates whose errors average out: in the feedback, equation (8), and in the weights as long as it stays.

        An error by chance is another one in the next updates, and the weights average over them; what lies outside of
        the manifold is lost to all of them, until the manifold is found anew.
        """
        return max((2 - self.rate) / self.rate, self.refresh / self.every)

    def reckon(
        self,
        net: Net,
        state: State,
        spaces: dict[str, Subspace],
        energies: Tensors,
        changes: Tensors,
    ) -> State:
        """With an automatic rank: update the energies of the regions from the responses of the explorers."""
        buffers = dict(state.buffers)
        for key, space in spaces.items():
            if isinstance(space, Adaptive):
                name = f"energy.{net.visits[key].site}"
                buffers[name] = space.with_responses(buffers[name], changes[key], energies[key])
        return State(state.params, buffers)


@dataclass(frozen=True)
class RandomSubspaceNoiseCorrelation(NoiseCorrelation):
    """The control of NMNC: perturbations in a random subspace of the same dimension, drawn once."""

    rank: int | None = hp(
        None, "dimensions of the subspace; none = a quarter of the units of a site, at most 128", low=1,
        search=(16, 32, 64, 128, 256),
    )  # fmt: skip
    feedback: str = hp("units", "what the feedback is kept for: every unit, or every dimension of the subspace",
                       choices=("units", "subspace"))  # fmt: skip

    @property
    def in_subspace(self) -> bool:  # type: ignore[override]  # a constant of the base
        """Whether the feedback is kept in the coordinates of the subspace."""
        return self.feedback == "subspace"

    def feedback_width(self, net: Net, key: str) -> int:
        """See `NoiseCorrelation.feedback_width`."""
        units = super().feedback_width(net, key)
        return self._dimensions(units) if self.in_subspace else units

    def _dimensions(self, units: int) -> int:
        return rank_by_size(units) if self.rank is None else min(self.rank, units)

    def smaller_forms(self) -> list[dict[str, object]]:
        """See `NoiseCorrelation.smaller_forms`."""
        return [{"feedback": "subspace"}, *super().smaller_forms()]

    def state_size(self, net: Net) -> float:
        """See `NoiseCorrelation.state_size`; adds bases."""
        bases = {
            net.visits[k].site: torch.empty(
                self.seen(net, k).units,
                self._dimensions(self.seen(net, k).units),
                dtype=net.memory_dtype(k),
                device="meta",
            )
            for k in net.keys("post")
        }
        return super().state_size(net) + gigabytes(bases)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Adds ``basis.<site>``, orthonormal ``(n, d)``."""
        state = super().init(net, params, batch, gen)
        buffers = dict(state.buffers)
        for key in net.keys("post"):
            site, units = net.visits[key].site, self.seen(net, key).units
            if f"basis.{site}" not in buffers:
                drawn = torch.randn(
                    units,
                    self._dimensions(units),
                    generator=gen,
                    dtype=net.memory_dtype(key),
                    device=gen.device,
                )
                buffers[f"basis.{site}"] = torch.linalg.qr(drawn).Q.to(batch.x.device)
        return State(state.params, buffers)

    def basis(self, net: Net, state: State, key: str) -> Tensor:
        """The drawn basis, shared by the visits."""
        return state.buffers[f"basis.{net.visits[key].site}"]


_LARGEST_RANK = 128  # by default; larger ones took longer and learned no better


def rank_by_size(units: int) -> int:
    """Dimensions of the manifold of a site by default: a quarter of its units, at most 128."""
    return min(max(units // 4, 1), _LARGEST_RANK)


_MOST = 256  # columns that an automatic rank can choose from


def _derivative(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The derivative of ``f`` at a scalar, by forward-mode differentiation."""
    with (
        warnings.catch_warnings()
    ):  # torch loads its forward-mode formulas through a deprecated part of itself
        warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
        slope: Tensor = torch.func.jvp(f, (at,), (torch.ones_like(at),))[1]
    return slope


def coarsest_dtype(net: Net) -> torch.dtype:
    """The type, of those of all post-activation sites and the output, that rounds most."""
    dtypes = {net.visits[key].dtype for key in net.keys("post")} | {net.output_dtype}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def _sites(net: Net) -> list[str]:
    """Names of the sites that are perturbed, without their visits."""
    return list(dict.fromkeys(net.visits[key].site for key in net.keys("post")))


def _regions(buffers: Tensors, site: str) -> Regions:
    """Where a site can be perturbed with an automatic rank."""
    return Regions(buffers[f"basis.{site}"], buffers[f"varying.{site}"])


def _extremes(parts: list[Tensor]) -> Tensor:
    """Activities ``(2 · parts, n)`` between which the same units vary as between all rows of some parts."""
    return torch.stack([extreme for part in parts for extreme in (part.amin(0), part.amax(0))])
