r"""Target propagation: targets for activities travel down through learned feedback maps, and layers learn to meet them.

Letters: h_l the activity at the site l of a chain, F_l the block that computes it from h_{l−1}, t_l its target, G_l the
feedback map from l down to l − 1, e the gradient of an example's loss, n the examples of a batch. Both rules correct
the feedback map by what it makes of the activity itself,

    t_{l−1} = h_{l−1} + G_l(t_l) − G_l(h_l),

and every block descends ‖F_l(h_{l−1}) − t_l‖² / 2, in which h_{l−1} and t_l are constants.

- `DifferenceTargetPropagation`: Lee, Zhang, Fischer & Bengio 2015 (arXiv:1412.7525). G_l(h) = s(V_l h + c_l)
  learns to invert F_l around the activity, by ‖G_l(F_l(h_{l−1} + ε)) − (h_{l−1} + ε)‖², ε ~ N(0, σ²). The target of the
  last hidden layer is h − η e. On a linear network with exact inverses t_l − h_l = −η J_l⁻¹ e with J_l the Jacobian of
  the output with respect to h_l: Gauss-Newton targets (Meulemans et al. 2020, arXiv:2006.14331).
- `LocalDifferenceReconstruction`: Ernoult et al. 2022 (arXiv:2201.13415). G_l(h) = V_l s(h) + c_l learns by the local
  difference reconstruction loss (L-DRL) −2 ⟨ε, G_l(F_l(h_{l−1} + ε)) − G_l(h_l)⟩ + ‖G_l(h_l + ν) − G_l(h_l)‖², ε and ν of the
  same variance. For small noise its mean is σ² ‖∂G_l − (∂F_l)ᵀ‖² up to a constant, so the feedback map's Jacobian becomes
  the transpose of the block's; then the updates are those of backprop for a small step β of the output, t_L = h_L − β e.

Deviations, of both: the read-out descends its true gradient, and the differences h_l − t_l are divided by η (or β), so
that hidden layers and the read-out learn at one rate whatever the step of the first target; feedback maps are
affine maps between whole flattened maps, also around convolutions, where Ernoult et al. transpose convolutions and undo
pooling; they take one optimiser step for each step of the forward weights, at a learning rate of ``feedback_rate``
times theirs, where Lee et al. alternate and Ernoult et al. take some dozen steps for each; σ is in units of the activity's
root mean square in the batch, and the L-DRL loss is divided by its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, NetError, State, Step, Task, credit, hp
from rulezoo_plugins.shared.state_size import GB, why_too_large

Tensors = dict[str, Tensor]
Key = str | None  # of a site, or None for the output
Rows = dict[Key, Tensor]

_SMALLEST = 1e-6  # of an activity's root mean square, where a layer is silent


@dataclass(frozen=True)
class _TargetPropagation(LearningRule):
    sigma: float = hp(
        0.1, "size of the noise with which feedback maps are trained, as a fraction of the activity (ratio of RMS values)",
        low=1e-6, search=(0.01, 0.5), log=True,
    )  # fmt: skip
    feedback_rate: float = hp(
        1.0, "learning rate of the feedback maps relative to that of the forward weights", low=0,
        search=(0.1, 10), log=True,
    )  # fmt: skip
    memory: float = hp(2.0, "maximum memory of the feedback maps, in GB", low=0)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a chain of sites, and memory for a map back along each of its links."""
        return _why_no_chain(net) or self._why_unsuited(net) or self._why_too_large(net)

    def _why_unsuited(self, net: Net) -> str | None:
        return None

    def _why_too_large(self, net: Net) -> str | None:
        def size(rule: _TargetPropagation) -> float:
            numbers = sum(rows * columns for rows, columns in rule._sizes(net).values())
            return numbers * net.memory_dtype().itemsize / GB

        widths = " ← ".join(str(_width(net, key)) for key in [*net.keys("post"), None])
        return why_too_large(self, self.memory, size, [], f"feedback maps between layers of {widths} units")

    def rates(self, net: Net) -> dict[str, float]:
        """Feedback maps have a learning rate of their own."""
        return {f"rule.feedback.{key}": self.feedback_rate for key in self._links(net)}

    def _links(self, net: Net) -> dict[str, Key]:
        """Site → what lies above it, from the input on, for every link that a target travels down."""
        keys = net.keys("post")
        return dict(zip(keys, [*keys[1:], None], strict=True))

    def _first(self, net: Net) -> Key:
        """Where targets begin."""
        return list(self._links(net).values())[-1]

    def _sizes(self, net: Net) -> dict[str, tuple[int, int]]:
        return {k: (1 + _width(net, above), _width(net, k)) for k, above in self._links(net).items()}

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Random feedback maps ``feedback.<site>``, from what lies above the site to the site; row 0 is the bias."""
        drawn = {
            f"feedback.{key}": net.normal(size, gen) / (size[0] - 1) ** 0.5
            for key, size in self._sizes(net).items()
        }
        return State(params=drawn)

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal noise ``(batch, units)`` at every site to which a target travels."""
        return {key: net.normal((len(batch.x), _width(net, key)), gen) for key in self._links(net)}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        h: Rows = {key: _rows(net, one) for key, one in cut.sites.items()}
        h[None] = _rows(net, cut.output)
        scale = {key: self.sigma * _rms(h[key]) for key in self._links(net)}
        noisy = {key: (h[key] + scale[key] * noise[key]).view_as(cut.sites[key]) for key in scale}
        answers, slope = self._second_pass(net, params, batch, cut, noisy, error)
        learned = credit.grad(lambda g: self._feedback_loss(net, g, h, answers, scale, noise), state.params)
        changes = self._changes(net, state, h, -self._step_size() * len(batch.x) * slope)
        per_target = -1 / (self._step_size() * len(batch.x))
        signals = {key: per_target * changes[key].view_as(site) for key, site in cut.sites.items()}
        return Step(
            cut.pull(error, signals) | {f"rule.{name}": g for name, g in learned.items()}, state, mean
        )

    def _second_pass(
        self, net: Net, params: Tensors, batch: Batch, cut: credit.Cut, noisy: Tensors, error: Tensor
    ) -> tuple[Rows, Tensor]:
        """What every block makes of noisy activity; the gradient of the mean loss where targets begin, as rows."""
        first = self._first(net)
        clean = {} if first is None else {first: cut.sites[first]}

        def passed(at: Tensors) -> tuple[Tensors, Tensor]:
            given = {key: h.to(cut.sites[key].dtype) for key, h in {**noisy, **at}.items()}
            sites, output = credit.blocks(net, params, batch.x, given)
            return {key: sites[key] for key in cut.sites}, output

        (sites, output), pull = credit.value_and_pull(passed, clean)
        answers: Rows = {key: _rows(net, one) for key, one in sites.items()}
        answers[None] = _rows(net, output)
        if first is None:
            return answers, _rows(net, error)
        zeros = {key: torch.zeros_like(h) for key, h in sites.items()}
        return answers, _rows(net, pull((zeros, error.to(output.dtype)))[first])

    def _changes(self, net: Net, state: State, h: Rows, change: Tensor) -> Rows:
        """The difference t − h of every site, for that at the place where targets begin."""
        changes = {self._first(net): change}
        for key, above in reversed(self._links(net).items()):
            feedback = state.params[f"feedback.{key}"]
            changes[key] = self._difference(feedback, h[above] + changes[above], h[above], above)
        return changes

    def _step_size(self) -> float:
        raise NotImplementedError

    def _difference(self, feedback: Tensor, there: Tensor, here: Tensor, above: Key) -> Tensor:
        """G(there) − G(here) of a feedback map, for activities ``(batch, units above)``: ``(batch, units)``."""
        raise NotImplementedError

    def _feedback_loss(
        self, net: Net, feedback: Tensors, h: Rows, answers: Rows, scale: Tensors, noise: Tensors
    ) -> Tensor:
        """The loss of all feedback maps, of the mean over examples."""
        raise NotImplementedError


@dataclass(frozen=True)
class DifferenceTargetPropagation(_TargetPropagation):
    """Feedback maps learn to invert the blocks."""

    size: float = hp(
        0.1, "step from an activity to the first target, in units of its loss's gradient", low=1e-6
    )
    top: str = hp(
        "site", "where targets begin: at the last hidden site, by the transposed weights of the read-out, or at the "
        "output, with an inverse of the read-out", choices=("site", "output"),
    )  # fmt: skip
    decoder: str = hp(
        "affine", "what follows the affine map of an inverse", choices=("affine", "relu", "tanh")
    )

    def _why_unsuited(self, net: Net) -> str | None:
        if self.top == "site" and len(net.keys("post")) == 1:
            return (
                "with one hidden site, whose target is a step along the gradient of the loss, target propagation is "
                "backprop; set top=output, which propagates the target of the output"
            )
        return None

    def _links(self, net: Net) -> dict[str, Key]:
        links = super()._links(net)
        if self.top == "site":
            links.pop(net.keys("post")[-1])
        return links

    def _step_size(self) -> float:
        return self.size

    def _inverse(self, feedback: Tensor, rows: Tensor) -> Tensor:
        """Row 0 of the feedback map is its bias."""
        return _NONLINEARITIES[self.decoder](rows @ feedback[1:] + feedback[0])

    def _difference(self, feedback: Tensor, there: Tensor, here: Tensor, above: Key) -> Tensor:
        return self._inverse(feedback, there) - self._inverse(feedback, here)

    def _feedback_loss(
        self, net: Net, feedback: Tensors, h: Rows, answers: Rows, scale: Tensors, noise: Tensors
    ) -> Tensor:
        losses = []
        for key, above in self._links(net).items():
            recovered = self._inverse(feedback[f"feedback.{key}"], answers[above])
            losses.append((recovered - (h[key] + scale[key] * noise[key])).square().sum(1).mean())
        return torch.stack(losses).sum()


@dataclass(frozen=True)
class LocalDifferenceReconstruction(_TargetPropagation):
    """Feedback maps learn to have the transposed Jacobians of the blocks."""

    beta: float = hp(0.1, "step from the output to its target, in units of its loss's gradient", low=1e-6)
    encoder: str = hp("affine", "what the affine feedback map of a hidden activity is applied to",
                      choices=("affine", "relu", "tanh"))  # fmt: skip

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Adds noise ``above.<site>`` of what lies above each site."""
        own = super().noise(net, state, batch, gen, t)
        above = {
            f"above.{key}": net.normal((len(batch.x), _width(net, above)), gen)
            for key, above in self._links(net).items()
        }
        return own | above

    def _step_size(self) -> float:
        return self.beta

    def _difference(self, feedback: Tensor, there: Tensor, here: Tensor, above: Key) -> Tensor:
        kind = "affine" if above is None else self.encoder  # outputs have no nonlinearity to undo
        s = _NONLINEARITIES[kind]
        return (s(there) - s(here)) @ feedback[1:]  # the bias, row 0, cancels

    def _feedback_loss(
        self, net: Net, feedback: Tensors, h: Rows, answers: Rows, scale: Tensors, noise: Tensors
    ) -> Tensor:
        losses = []
        for key, above in self._links(net).items():
            weight = feedback[f"feedback.{key}"]
            response = self._difference(weight, answers[above], h[above], above)  # to noise at the site
            noisy = h[above] + scale[key] * noise[f"above.{key}"]
            spread = self._difference(weight, noisy, h[above], above)
            match = (noise[key] * response).sum(1).mean() / scale[key]
            losses.append(spread.square().sum(1).mean() / scale[key].square() - 2 * match)
        return torch.stack(losses).sum()


_NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": lambda rows: rows,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


def _rows(net: Net, h: Tensor) -> Tensor:
    """Activity as ``(batch, units)``, as precise as a rule's memory."""
    return credit.rows(h).to(net.memory_dtype())


def _rms(rows: Tensor) -> Tensor:
    return rows.square().mean().sqrt().clamp(min=_SMALLEST)


def _width(net: Net, key: Key) -> int:
    return net.output_width if key is None else net.visits[key].width


def _why_no_chain(net: Net) -> str | None:
    """A sentence if the sites do not lie one after the other."""
    keys = net.keys("post")
    if not keys:
        return "target propagation needs sites of kind 'post', and this network has none"
    if net.keys("recurrent"):
        return "target propagation goes from layer to layer, and this network is recurrent"
    net = net.evaluation()
    for key, above in zip(keys, [*keys[1:], None], strict=True):
        try:
            credit.between(net, net.init_params(), key, above, net.zeros(key, 1))
        except NetError:
            what = "the output" if above is None else f"site {above!r}"
            return (
                f"targets travel down a chain of sites, and {what} depends on more than the activity at site {key!r}, the "
                "one in front; place sites so that no connection passes one of them by"
            )
    return None
