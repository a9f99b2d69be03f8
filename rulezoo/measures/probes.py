"""Probes: what a rule's teaching signal is worth, measured from outside while the rule trains.

The runner probes every rule alike, untimed, with a fixed sample of the data and random numbers of its own; the rule
does not know of it and its training is the same, bit for bit, with and without. See `QUANTITIES` for what is measured.

How the teaching signal of any rule is seen. Behind every ``post`` site an offset of zeros is added to the activity,
and these offsets are handed to the rule among the parameters. Whatever a rule pulls back through the network, its
"gradient" with respect to the offset of a site is the signal that arrives there: the true gradient for backprop, the
fed-back error for direct feedback, nothing for a layer that is frozen. A rule that does not pull back through the
network (it computes its updates by hand) has no signal to be seen, and is measured in weight space alone.

Signals and updates are those of a training step at that moment: the rule takes it, with a batch of the size that it
is trained with, and what it gives back is looked at and thrown away.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rulezoo import credit, manifold
from rulezoo.inputs import Inputs
from rulezoo.measures import dimension
from rulezoo.measures.geometry import Alignment, angles, jacobians, visits_of_sites
from rulezoo.measures.precision import at_least_single
from rulezoo.net import Net, Tap, Tensors
from rulezoo.results.records import Probe
from rulezoo.rule import Batch, LearningRule, State, directions
from rulezoo.seeding import generator
from rulezoo.task import Data

QUANTITIES = {
    "angle": "degrees between the rule's direction and backprop's: of the teaching signal at a site, over all its "
    "visits, as the mean over examples; of the gradient of a parameter, as the mean over batches",
    "step_ratio": "<g, ĝ>/‖g‖², progress along the true gradient g in units of what backprop makes",
    "norm_ratio": "‖ĝ‖/‖g‖, size of the rule's direction in units of backprop's",
    "units": "n, units of the site",
    "rank": "d, dimensions of the manifold U of activity that the shares below refer to",
    "alpha": "E‖JU‖²/E‖J‖², share of the Jacobian's energy in the manifold",
    "chance": "d/n, alpha of a random subspace",
    "margin": "alpha − chance",
    "alpha_random": "the control: alpha measured in a random subspace of the same dimension",
    "gradient_norm": "√E‖g‖², size of the true gradient of an example's loss with respect to the activity, over all visits of "
    "the site",
    "alpha_gradient": "E‖Uᵀg‖²/E‖g‖², share of the true gradient's energy in the manifold",
    "alpha_mean_gradient": "participation of J̄ᵀe, the gradient through the mean Jacobian J̄",
    "ceiling": "degrees between J(x)ᵀe and J̄ᵀe, mean over examples: what direct feedback has left at best",
    "spread": "ρ = E‖J(x)ᵀe‖²/‖J̄ᵀe‖², over independent examples x and errors e",
    "row_angle_smallest": "smallest principal angle, in degrees, between the manifold and the leading row space of "
    "Jacobians (10 dimensions, or d where d is less)",
    "row_angle_median": "the median principal angle",
    "row_angle_largest": "the largest principal angle",
    "samples": "activities, of examples and visits, that the dimensions below are estimated from",
    "participation_ratio": "(Σλ)²/Σλ² of the variances λ of activity along its principal components",
    "d90": "principal components that hold 90 % of the variance",
    "d95": "principal components that hold 95 % of the variance",
    "d99": "principal components that hold 99 % of the variance",
    "two_nn": "twoNN, intrinsic dimension from the distances to the two nearest neighbours",
    "two_nn_2": "twoNN in each half of the samples, the mean; how far it depends on the scale (block analysis)",
    "two_nn_4": "twoNN in each quarter of the samples",
    "two_nn_8": "twoNN in each eighth of the samples",
}
"""What is measured at a site (the first three also of every parameter): name → meaning and unit."""

ALL = (
    "*"  #: among the parameters: all of them as one vector, those that the rule leaves alone counting as zero
)

_OFFSET = "@"  # before the key of a visit: no parameter of a module is called so
_CHUNK = 2**24  # numbers in the Jacobians that are held at once
_BLOCK = 32  # twoNN is not estimated from fewer samples


def probe_steps(number: int, steps: int) -> list[int]:
    """The steps at which to probe: ``number`` steps from 0 to ``steps``, evenly spaced; one alone is at the end.

    >>> probe_steps(3, 100), probe_steps(1, 100)
    ([0, 50, 100], [100])
    """
    if number == 1:
        return [steps]
    return sorted({round(i * steps / (number - 1)) for i in range(number)})


class Prober:
    """Measures one network under any rule, always with the same examples.

    Args:
        net: the network.
        loss: per example.
        data: on the device; signals, updates and Jacobians are measured on validation data, the manifold of activity
            is found from training data.
        batch: examples in a minibatch of training.
        examples: how many are measured, at most; but one batch at least.
        samples: how many examples the manifold is found from, at most.
        rank: dimensions of the manifold, at most the units of a site.
    """

    def __init__(
        self,
        net: Net,
        loss: credit.Loss,
        data: Data[Tensor | Inputs],
        batch: int,
        *,
        examples: int = 256,
        samples: int = 1024,
        rank: int = 32,
    ) -> None:
        self.net, self.loss, self.rank, self.samples = net, loss, rank, samples
        self.sites = visits_of_sites(net)
        order = torch.randperm(len(data.validation.y), generator=generator(0, "probe", "examples"))
        chosen = order[:examples].to(data.validation.y.device)
        self.examples = Batch(data.validation.x[chosen], data.validation.y[chosen])
        self.batches = _batches(self.examples, batch)
        order = torch.randperm(len(data.train.y), generator=generator(0, "probe", "samples"))
        self.sample = data.train.x[order[:samples].to(data.train.y.device)]

    def probe(
        self,
        rule: LearningRule,
        params: Tensors,
        state: State,
        t: int,
        seed: int,
        epoch: float = 0.0,
        *,
        geometry: bool = True,
    ) -> Probe:
        """Measure a rule at step ``t`` of its training. Nothing is changed, and no generator but an own one drawn from.

        Args:
            rule: the rule.
            params: the network's parameters.
            state: the rule's memory.
            t: the number of the step that is next.
            seed: of the training.
            epoch: passes through the training data so far.
            geometry: measure the network too, its Jacobians and manifolds, and not the rule's direction alone.
        """
        if not all(p.isfinite().all() for p in params.values()):
            return Probe(step=t, epoch=epoch, reason="the parameters are not finite")
        noise = generator(seed, type(rule).__name__, "probe", t, device=self.examples.x.device)
        taken = [
            observed_step(self.net, self.loss, rule, params, state, batch, noise, t) for batch in self.batches
        ]
        sites = {site: self._signals(site, taken) for site in self.sites}
        if geometry:
            for site, numbers in self.geometry(params).items():
                sites[site] |= numbers
        return Probe(
            step=t,
            epoch=epoch,
            sites={site: _stored(numbers) for site, numbers in sites.items()},
            weights={name: _stored(numbers) for name, numbers in self._updates(taken).items()},
            reason=next((one.reason for one in taken if one.reason), None),
        )

    def _signals(self, site: str, taken: Sequence[ObservedStep]) -> dict[str, float]:
        keys = [_OFFSET + key for key in self.sites[site]]
        if not all(key in one.grads for one in taken for key in keys):
            return {}

        def rows(grads: Tensors) -> Tensor:
            return torch.cat([credit.rows(grads[key]) for key in keys], 1)

        return _against_backprop([rows(one.grads) for one in taken], [rows(one.truth) for one in taken])

    def _updates(self, taken: Sequence[ObservedStep]) -> dict[str, dict[str, float]]:
        def vector(grads: Tensors, names: Sequence[str]) -> Tensor:
            none = taken[0].truth
            return torch.cat([grads.get(n, torch.zeros_like(none[n])).flatten() for n in names])[None]

        every = list(self.net.shapes)
        groups = {ALL: every} | {name: [name] for name in every if name in taken[0].grads}
        return {
            group: _against_backprop(
                [vector(one.grads, names) for one in taken], [vector(one.truth, names) for one in taken]
            )
            for group, names in groups.items()
        }

    def of(self, net: Net) -> Prober:
        """The same measurements of the same network with what another seed has of it."""
        other = copy.copy(self)
        other.net = net
        return other

    def geometry(self, params: Tensors) -> dict[str, dict[str, float]]:
        """What does not depend on the rule's step: Jacobians and manifolds of the network, site → name → number."""
        gen, net = generator(0, "probe", "control"), self.net.evaluation()
        activity = self._activity(params)
        alignments = {
            site: Alignment(self._manifold(at_least_single(rows)).to(self.examples.x.device), gen)
            for site, rows in activity.items()
        }
        width = sum(self.net.visits[key].width for visits in self.sites.values() for key in visits)
        chunk = max(1, _CHUNK // (width * torch.Size(self.net.output_shape).numel()))
        for x, y in zip(*(torch.split(part, chunk) for part in self.examples), strict=True):
            error = credit.rows(credit.output_error(self.loss, net.run(params, x), y)[0]) * len(x)
            for site, jacobian in jacobians(net, params, x, self.sites).items():
                alignments[site].add(jacobian, error)
        return {
            site: alignment.numbers() | _dimensions(activity[site]) for site, alignment in alignments.items()
        }

    def _manifold(self, rows: Tensor) -> Tensor:
        return manifold.principal_basis(rows, min(self.rank, rows.shape[1]))

    def _activity(self, params: Tensors) -> Tensors:
        """Activity at every site, pooled over its visits and evenly thinned: site → ``(samples at most, n)``."""
        device = self.sample.device if self.sample.device.type != "mps" else "cpu"  # which knows no float64
        seen: dict[str, list[Tensor]] = {site: [] for site in self.sites}
        for x in torch.split(self.sample, 256):

            def note(key: str, h: Tensor) -> Tensor:
                if self.net.visits[key].site in seen:
                    seen[self.net.visits[key].site].append(credit.rows(h.detach()).to(device))
                return h

            with torch.no_grad():
                self.net.evaluation().run(params, x, note)
        return {site: _thinned(torch.cat(rows), self.samples) for site, rows in seen.items()}


class ObservedStep(NamedTuple):
    """One step of the rule and of backprop: directions of parameters, and of the offsets where the rule gives them.

    Attributes:
        grads: the rule's directions.
        truth: backprop's.
        reason: why the signals cannot be seen, if they cannot.
    """

    grads: Tensors
    truth: Tensors
    reason: str | None

    def signals(self) -> Tensors:
        """The rule's teaching signals: visit of a ``post`` site → ``(batch, *shape)``."""
        return {name.removeprefix(_OFFSET): g for name, g in self.grads.items() if name.startswith(_OFFSET)}


def observed_step(
    net: Net,
    loss: credit.Loss,
    rule: LearningRule,
    params: Tensors,
    state: State,
    batch: Batch,
    gen: torch.Generator,
    t: int,
) -> ObservedStep:
    """One step of the rule and one of backprop, with the signals that arrive at ``post`` sites; nothing is changed.

    Args:
        net: the network.
        loss: per example.
        rule: the rule.
        params: the network's parameters.
        state: the rule's memory.
        batch: the minibatch.
        gen: draws the rule's noise.
        t: the number of the step.
    """
    noise = rule.noise(net, state, batch, gen, t)
    listening = _Listening(net)
    offsets = {_OFFSET + key: net.zeros(key, len(batch.x)) for key in net.keys("post")}
    truth, _ = credit.backprop(listening, loss, params | offsets, batch.x, batch.y)
    try:
        step = rule.step(listening, loss, params | offsets, state, batch, noise, t)
    except Exception as error:  # noqa: BLE001  a rule may count on knowing all parameters; then we ask for less
        step = rule.step(net, loss, params, state, batch, noise, t)
        reason = f"the signals at sites cannot be seen: {type(error).__name__}: {error}"
        return ObservedStep(directions(step), truth, reason)
    return ObservedStep(directions(step), truth, None)


class _Listening(Net):
    """The same network, with offsets at its sites that are found among the parameters."""

    def __init__(self, net: Net) -> None:
        self.__dict__.update(net.__dict__)

    def run(self, params: Mapping[str, Tensor], x: Tensor, tap: Tap | None = None) -> Tensor:
        """See `Net.run`. A pass with another number of examples, such as a perturbed one, is left as it is."""
        own = {name: p for name, p in params.items() if not name.startswith(_OFFSET)}

        def shifted(key: str, h: Tensor) -> Tensor:
            offset = params.get(_OFFSET + key)
            h = h + offset if offset is not None and offset.shape == h.shape else h
            return h if tap is None else tap(key, h)

        return super().run(own, x, shifted)


def _against_backprop(ours: Sequence[Tensor], true: Sequence[Tensor]) -> dict[str, float]:
    """Angle, mean over all rows; and ratios of sums over all of them. Lists of ``(rows, n)``, one for each batch."""
    each = torch.cat([angles(a, b) for a, b in zip(ours, true, strict=True)])
    along = sum(_inner(a, b) for a, b in zip(ours, true, strict=True))
    energy = sum(_inner(b, b) for b in true)
    size = sum(_inner(a, a) for a in ours)
    nothing = not energy
    return {
        "angle": each.nanmean().item(),
        "step_ratio": torch.nan if nothing else along / energy,
        "norm_ratio": torch.nan if nothing else (size / energy) ** 0.5,
    }


def _inner(a: Tensor, b: Tensor) -> float:
    return float(a.flatten().cpu().double() @ b.flatten().cpu().double())


def _batches(examples: Batch, size: int) -> list[Batch]:
    """As many whole batches as there are examples for; if not even one, examples come twice."""
    number = max(1, len(examples.x) // size)
    which = torch.arange(number * size, device=examples.x.device) % len(examples.x)
    return [Batch(examples.x[i], examples.y[i]) for i in which.view(number, size)]


def _dimensions(activity: Tensor) -> dict[str, float]:
    """How many dimensions activity ``(samples, n)`` has; what is undefined for a silent site is left out."""
    rows = at_least_single(activity).cpu().numpy()
    numbers: dict[str, float] = {"samples": len(rows)}
    with suppress(ValueError):  # no variance
        numbers |= asdict(dimension.linear_dimension(rows))
    with suppress(ValueError):  # no variance, too few samples, or too many that are equal
        rng = np.random.default_rng(0)
        for level, block in enumerate(
            dimension.two_nn_blocks(rows, rng, smallest=max(_BLOCK, len(rows) // 8))
        ):
            numbers["two_nn" if not level else f"two_nn_{2**level}"] = block.mean
    return numbers


def _thinned(rows: Tensor, most: int) -> Tensor:
    return rows[:: -(-len(rows) // most)]


def _stored(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Six digits, more than any of them is worth, as records are kept for long."""
    return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in numbers.items()}
