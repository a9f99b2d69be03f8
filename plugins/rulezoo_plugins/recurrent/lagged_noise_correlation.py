"""Noise correlation in time: kick a recurrent state at one moment, and watch the outputs that follow.

The recurrent form of noise correlation and of NMNC (Kang, Richards, Sabatini 2026, arXiv:2601.02636, show that both
work in recurrent networks; how they set it up is not public, so this set-up is ours). A state h_t that is kicked by ξ
at a random step t changes the output k steps later by dy_{t+k}, and

    E[dy_{t+k} ξᵀ] / v = J_k P,        J_k = ∂y_{t+k}/∂h_t, averaged over examples and over t.

One kicked trial thus informs all lags. The running averages B_k of these estimates, k = 0 … H, carry the errors to
the state that caused them: q_t = Σ_k B_kᵀ e_{t+k}, and the update is local to one step,
∂⟨h_t, q_t⟩/∂W with h_{t-1} held fixed. Nothing travels back through the network.

Letters: b batch, T steps, o numbers in one answer, n units, d columns of the basis, K kicked examples, L = H + 1 lags.

Choices, beside those of `rulezoo_plugins.noise_correlation.rules`:
- B_k is shared by all steps, where `NoiseCorrelation` on the same network learns a feedback for each pair of steps. The
  response to a kick at one step is averaged with that at others: fewer numbers to learn, from more kicks, at the price
  of a Jacobian averaged over time as well as over examples.
- A lag that no kick of a batch has reached keeps its feedback. Kicks whose answers would all come later than H are not
  made: with one answer at the end, only the last L steps are kicked.
- The size of the kick is set by the activity over all steps, so that it does not depend on when it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, Net, State, Step, credit, hp, manifold
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation, NoiseCorrelation
from rulezoo_plugins.shared.subspaces import Subspace
from rulezoo_plugins.shared.unrolled import Course, course, why_no_course

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class KickedNoiseCorrelation(NoiseCorrelation):
    """Base of rules that learn a feedback ``(L, o, n)``, one for each lag, from kicks at one moment of a trial."""

    every: int = hp(1, "update the feedback every N steps", low=1)
    antithetic: bool = hp(True, "difference of two noisy passes, ±ξ, instead of a noisy and the clean one")
    # A kick is alone in its example, so there is nothing to share among sites, and no option for it.
    together: ClassVar[bool] = False  # type: ignore[misc]  # an option of the base becomes a constant
    patch: ClassVar[int] = 1  # type: ignore[misc]  # likewise: a state is a vector of units

    def lags(self, steps: int) -> int:
        """L: how many lags are learnt, on trials of ``steps`` steps."""
        raise NotImplementedError(f"{type(self).__name__} must define lags()")

    def signals(self, net: Net, error: Tensor, state: State) -> Tensors:
        """What each visit of the state is taught, ``(b, n)``, by the error ``(b, *net.output_shape)``."""
        raise NotImplementedError(f"{type(self).__name__} must define signals()")

    def why_unsuited(self, net: Net) -> str | None:
        """Needs a state that is visited at every time step."""
        return super().why_unsuited(net) or why_no_course(net)

    def first_feedback(self, net: Net, device: torch.device | str) -> Tensors:
        """Zeros ``feedback.<site>`` of shape ``(L, o, n)``."""
        trial = course(net)
        shape = self.lags(trial.steps), trial.outputs, net.visits[trial.visits[0]].width
        dtype = net.memory_dtype(*trial.visits)
        return {f"feedback.{trial.site}": torch.zeros(shape, dtype=dtype, device=device)}

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """``kick``, standard normal coordinates ``(K, d)``, and ``when``, uniform in [0, 1) ``(K,)``."""
        if t % self.every:
            return {}
        visit = course(net).visits[0]
        kicks = self._perturbed_examples(len(batch.x), visits=1)
        dimensions = self.subspace(net, state, visit, kicks, t).coordinates
        dtype, device = net.memory_dtype(visit), gen.device
        return {
            "kick": torch.randn(kicks, dimensions, generator=gen, dtype=dtype, device=device),
            "when": torch.rand(kicks, generator=gen, dtype=dtype, device=device),
        }

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, course(net).visits)
        error, mean = credit.output_error(loss, cut.output, batch.y)
        state = self.remember(net, state, cut.sites, t)
        if t % self.every == 0:
            state = self._learn_feedback(net, params, batch.x, cut, state, noise, t)
        return Step(cut.pull(error, self.signals(net, error, state)), state, mean)

    def _learn_feedback(
        self, net: Net, params: Tensors, x: Tensor, cut: credit.Cut, state: State, noise: Tensors, t: int
    ) -> State:
        trial, z = course(net), noise["kick"]
        visit, name = trial.visits[0], f"feedback.{trial.site}"
        when = self._steps_of(noise["when"], trial)
        space = self.subspace(net, state, visit, len(z), t)
        energy = manifold.noise_energy(torch.cat([cut.sites[key] for key in trial.visits]), self.sigma)
        kick = {visit: self.seen(net, visit).expand(space.perturbation(z, energy))}
        change = self._responses(AtOneStep(net, when), params, x, cut.output, kick)[visit]
        answers = trial.in_time(change.view(-1, *net.output_shape))  # (K, T, o)

        feedback = state.buffers[name]
        after, heard = following(answers, trial.answered(x.device), when, len(feedback))
        estimate = self._lagged_jacobians(space, z, after, heard, energy)
        rate = self.rate * heard.any(0).to(feedback.dtype).view(-1, 1, 1)  # (L, 1, 1)
        return State(state.params, {**state.buffers, name: feedback + rate * (estimate - feedback)})

    def _steps_of(self, when: Tensor, trial: Course) -> Tensor:
        """Numbers in [0, 1) → the steps at which to kick, ``(K,)``: only those that an answer within L lags follows."""
        first = 0 if trial.every_step else trial.steps - self.lags(trial.steps)
        return first + (when * (trial.steps - first)).long()

    def _lagged_jacobians(
        self, space: Subspace, z: Tensor, after: Tensor, heard: Tensor, energy: Tensor
    ) -> Tensor:
        """Estimates of the mean Jacobian at every lag, ``(L, o, n)``, each from the kicks that were heard at that lag.

        Args:
            space: where the state was kicked.
            z: coordinates of the kicks, ``(K, d)``.
            after: the change of the answer at each lag, ``(K, L, o)``; zero where there was none.
            heard: whether there was one, ``(K, L)``.
            energy: of a kick, a scalar.
        """
        known = z * heard.mT.unsqueeze(-1)  # (L, K, d): what was not heard of is as if it had not been
        one_lag = partial(space.jacobian, energy=energy, estimator=self.estimator)
        estimate: Tensor = torch.func.vmap(one_lag)(known, after.transpose(0, 1))
        if self.estimator == "least-squares":
            return estimate
        return (
            estimate * len(z) / heard.sum(0).clamp_min(1).view(-1, 1, 1)
        )  # a mean over K, of which some are zeros


@dataclass(frozen=True)
class LaggedNoiseCorrelation(KickedNoiseCorrelation):
    """Lagged feedback from isotropic kicks."""

    horizon: int | None = hp(
        None, "longest lag in steps, beyond which no credit is given; none = the whole trial", low=0,
        search=(None, 2, 5, 10, 20),
    )  # fmt: skip

    def lags(self, steps: int) -> int:
        """H + 1, or as many as there are steps."""
        return steps if self.horizon is None else min(steps, self.horizon + 1)

    def signals(self, net: Net, error: Tensor, state: State) -> Tensors:
        """See `KickedNoiseCorrelation.signals`."""
        trial = course(net)
        taught = teaching_signals(trial.in_time(error), state.buffers[f"feedback.{trial.site}"])
        return dict(zip(trial.visits, taught.unbind(1), strict=True))


@dataclass(frozen=True)
class KickedInManifold(ManifoldNoiseCorrelation):
    """What a rule with kicks inherits, beside its isotropic form, for its kicks to stay in the manifold."""

    # Without the automatic rank: its budget is one for all lags, and lags hear different numbers of kicks.
    rank: int | float = hp(
        32, "dimensions of the manifold, or (below 1) the fraction of variance it explains",
        low=1e-6, search=(8, 16, 32, 64),
    )  # fmt: skip
    feedback: ClassVar[str] = "units"  # type: ignore[misc]  # an option of the base becomes a constant


@dataclass(frozen=True)
class LaggedManifoldNoiseCorrelation(LaggedNoiseCorrelation, KickedInManifold):
    """Lagged feedback from kicks in the principal subspace of recent states, pooled over the steps."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `InManifold.step`, which the lagged step stands before."""
        return self.with_dimensions(super().step(net, loss, params, state, batch, noise, t), t)


def teaching_signals(errors: Tensor, feedback: Tensor) -> Tensor:
    """Each step's share in the errors that follow it, q_t = Σ_k B_kᵀ e_{t+k}, ``(b, T, n)``.

    Args:
        errors: e, ``(b, T, o)``.
        feedback: B, ``(L, o, n)``.
    """
    lags = len(feedback)
    following = F.pad(errors, (0, 0, 0, lags - 1)).unfold(1, lags, 1)  # (b, T, o, L)
    return torch.einsum("btol,lon->btn", following, feedback)


def following(answers: Tensor, answered: Tensor, when: Tensor, lags: int) -> tuple[Tensor, Tensor]:
    """The answers that follow each kick, ``(K, L, o)``, and whether there were any, ``(K, L)``.

    Args:
        answers: ``(K, T, o)``; zero at steps without one.
        answered: whether there is an answer at each step, ``(T,)``.
        when: step of each kick, ``(K,)``.
        lags: L.
    """
    steps = when.unsqueeze(1) + torch.arange(lags, device=when.device)  # (K, L)
    beyond = F.pad(answers, (0, 0, 0, lags))
    after = beyond.gather(1, steps.unsqueeze(-1).expand(-1, -1, answers.shape[-1]))
    return after, F.pad(answered, (0, lags))[steps]


class AtOneStep(Net):
    """A network that lets a tap see each example at one step only, where it calls the state by its first visit.

    Args:
        net: the network.
        when: the step of each example, ``(b,)``.
    """

    def __init__(self, net: Net, when: Tensor) -> None:
        vars(self).update(vars(net))
        self._net = net
        self._step = {key: t for t, key in enumerate(course(net).visits)}
        self._first = course(net).visits[0]
        self._when = when.unsqueeze(1)

    def run(
        self, params: Mapping[str, Tensor], x: Tensor, tap: Callable[[str, Tensor], Tensor] | None = None
    ) -> Tensor:
        """See `Net.run`."""

        def once(key: str, activity: Tensor) -> Tensor:
            if tap is None or key not in self._step:
                return activity
            return torch.where(self._when == self._step[key], tap(self._first, activity), activity)

        return self._net.run(params, x, once)
