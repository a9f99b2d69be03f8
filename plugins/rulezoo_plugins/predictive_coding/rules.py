r"""Predictive coding: activities relax under prediction errors, and weights learn from the errors that are left.

The activities x_l of the ``post`` sites are free variables with the energy

    F = Σ_l ½ ‖x_l − f_l(x_{l−1}; W_l)‖² + L(f(x_last; W), y),

where f_l is the block in front of site l. Activities descend F, ∂F/∂x_l = e_l − (∂f_{l+1}/∂x_l)ᵀ e_{l+1} with
e_l = x_l − f_l, and so do the weights. The output is clamped by the task's own loss L in place of a squared error.

- `PredictiveCoding`: Whittington & Bogacz 2017 (doi:10.1162/NECO_a_00949), equations 2.16 and 2.18: the weights move
  once the activities have relaxed.
- `FixedPredictionCoding`: Millidge, Tschantz & Buckley 2022 (arXiv:2006.04182): f_l and its derivatives stay those of
  the forward pass. The errors relax to the gradient; with a rate of 1 they are there after as many steps as there are
  sites (Rosenbaum 2022, arXiv:2106.13082, algorithm 2).
- `IncrementalPredictiveCoding`: Salvatori et al. 2024 (arXiv:2212.00720), algorithm 1: the weights move at every step of
  the relaxation.
- `ErrorBasedPredictiveCoding`: Goemaere et al. 2025 (arXiv:2505.20137): descent on the errors e_l with
  x_l = f_l(x_{l−1}) + e_l, so that every error feels the output at once. Its equilibria are those of predictive coding;
  its relaxation is a backward pass through the whole network.

A step of relaxation is stable while it is smaller than 2/(1 + λ), λ the largest eigenvalue of JᵀJ, J the Jacobian of a
block: convolutions share their weights and have a large one. The default of `PredictiveCoding` was chosen on validation data (2 seeds):
on digits-cnn 96.7 % with a rate of 0.01, 95.6 % with 0.02 and 0.03, 53.9 % with 0.05 and 8.1 % with 0.1; on digits-mlp 95.3 %, 95.0 %,
95.0 %, 95.3 % and 94.2 %.

Deviations: activities start from the forward pass in all four. Blocks may hold pooling, normalisation or several layers,
whose derivatives are then part of ∂f_l.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class _Relaxing(LearningRule):
    steps: int = hp(20, "steps of relaxation", low=1)
    rate: float = hp(0.1, "size of a step of relaxation", low=1e-6, search=(0.01, 1), log=True)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs activities that can relax."""
        if net.keys("post"):
            return None
        return (
            "predictive coding needs sites of kind 'post', whose activities relax, and this network has none"
        )


@dataclass(frozen=True)
class PredictiveCoding(_Relaxing):
    """Activities relax to a minimum of the energy; then weights descend it."""

    rate: float = hp(0.01, "size of a step of relaxation", low=1e-6, search=(0.001, 0.1), log=True)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        x, mean = _forward(net, loss, params, batch)
        for _ in range(self.steps):
            _, back, error = _energy_slopes(net, loss, params, batch, x)
            x = _descended(x, back, error, self.rate)
        return Step(_weight_gradients(net, loss, params, batch, x), state, mean)


@dataclass(frozen=True)
class FixedPredictionCoding(_Relaxing):
    """Errors relax while the predictions and their derivatives stay those of the forward pass."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        start, mean = _forward(net, loss, params, batch)
        (predicted, output), pull = credit.value_and_pull(
            lambda at: _predictions(net, at[1], batch, at[0]), (start, params)
        )
        top = len(batch.x) * credit.output_error(loss, output, batch.y)[0]
        errors = {key: torch.zeros_like(h) for key, h in predicted.items()}
        for _ in range(self.steps):
            # From the sites above, of the errors f − x; the gradient of the loss is what they settle at.
            back, _ = pull((errors, top), keep=True)
            errors = {key: e + self.rate * (back[key] - e) for key, e in errors.items()}
        _, grads = pull((errors, top))
        return Step({name: g / len(batch.x) for name, g in grads.items()}, state, mean)


@dataclass(frozen=True)
class IncrementalPredictiveCoding(_Relaxing):
    """Weights move at every step of the relaxation, together with the activities.

    The gradient that the optimiser is given is the sum over the steps, each taken at the weights that the steps before
    it would have led to with ``weight_rate``: under plain SGD with that learning rate this is the published algorithm.
    """

    steps: int = hp(10, "steps of relaxation", low=1)
    weight_rate: float = hp(
        1e-3,
        "step of the weights within the relaxation; 0 = they move after it",
        low=0,
        search=(1e-4, 0.1),
        log=True,
    )

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        x, mean = _forward(net, loss, params, batch)
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        for _ in range(self.steps):
            moved = {name: p - self.weight_rate * total[name] for name, p in params.items()}
            grads, back, error = _energy_slopes(net, loss, moved, batch, x)
            x = _descended(x, back, error, self.rate)
            total = {name: total[name] + g / len(batch.x) for name, g in grads.items()}
        return Step(total, state, mean)


@dataclass(frozen=True)
class ErrorBasedPredictiveCoding(_Relaxing):
    """Errors descend the energy through the whole network; weights then learn from them locally."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        start, mean = _forward(net, loss, params, batch)
        errors = {key: torch.zeros_like(h) for key, h in start.items()}

        def passed(e: Tensors) -> Tensor:
            return loss(net.run(params, batch.x, lambda k, h: h + e[k] if k in e else h), batch.y).sum()

        for _ in range(self.steps):
            slope = credit.grad(passed, errors)
            errors = {key: e - self.rate * (e + slope[key]) for key, e in errors.items()}
        x: Tensors = {}

        def tap(key: str, h: Tensor) -> Tensor:
            if key not in errors:
                return h
            x[key] = h + errors[key]
            return x[key]

        net.run(params, batch.x, tap)
        return Step(_weight_gradients(net, loss, params, batch, x), state, mean)


def _predictions(net: Net, params: Tensors, batch: Batch, x: Tensors) -> tuple[Tensors, Tensor]:
    """What each block predicts from the activity in front of it, and the output."""
    sites, output = credit.blocks(net, params, batch.x, x)
    return {key: sites[key] for key in x}, output


def _forward(net: Net, loss: credit.Loss, params: Tensors, batch: Batch) -> tuple[Tensors, Tensor]:
    """The activities of the forward pass, and the mean loss."""
    sites, output = credit.blocks(net, params, batch.x, {})
    return {key: sites[key] for key in net.keys("post")}, loss(output, batch.y).mean()


def _energy_slopes(
    net: Net, loss: credit.Loss, params: Tensors, batch: Batch, x: Tensors
) -> tuple[Tensors, Tensors, Tensors]:
    """∂F/∂W, summed over the batch; what comes back to each activity from the block behind; the errors f − x."""
    (predicted, output), pull = credit.value_and_pull(
        lambda at: _predictions(net, at[1], batch, at[0]), (x, params)
    )
    error, _ = credit.output_error(loss, output, batch.y)
    errors = {key: h - x[key] for key, h in predicted.items()}
    back, grads = pull((errors, len(batch.x) * error))
    return grads, back, errors


def _descended(x: Tensors, back: Tensors, errors: Tensors, rate: float) -> Tensors:
    return {key: h - rate * (back[key] - errors[key]) for key, h in x.items()}


def _weight_gradients(net: Net, loss: credit.Loss, params: Tensors, batch: Batch, x: Tensors) -> Tensors:
    grads, _, _ = _energy_slopes(net, loss, params, batch, x)
    return {name: g / len(batch.x) for name, g in grads.items()}
