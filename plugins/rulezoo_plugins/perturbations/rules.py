r"""Perturbations of all weights, and node perturbation by measured activity with decorrelated inputs.

- `WeightPerturbation`: Jabri & Flower 1992 (doi:10.1109/72.105429) change one weight at a time and see what becomes of the
  loss; Cauwenberghs 1993 changes all of them at once, at random:

      ĝ = (L(W + ξ) − L(W − ξ)) ξ / (2 σ²),        ξ ~ N(0, σ²),        E ĝ = ∂L/∂W + O(σ²).

  As in these papers an example is presented with noise of its own; a step averages over the examples of its batch. With
  ``noise_per=batch`` all examples share the noise, and L is the mean loss.

- `ActivityNodePerturbation`: Dalm, van Gerven & Ahmad 2023 (arXiv:2310.00965). Noise is added to the pre-activations of all
  layers in the same pass. What is correlated with the change δL of the loss is not the noise but the change δa of all
  pre-activations, which contains what the noise in front has become. δL / ‖δa‖ approximates the derivative of the loss along
  δa / ‖δa‖, where δa is that of all N units together, so

      ĝ_l = N δL δa_l / ‖δa‖²,        ΔW_l ∝ −ĝ_l xᵀ,        with the input x of the layer in the clean pass.

- `DecorrelatedNodePerturbation`: the same paper. Every layer computes a = W x* from x* = R x, and R moves by

      R ← R − ε (x* x*ᵀ − diag(x*²)) R,        averaged over the batch,

  which removes the correlations of its inputs and leaves their sizes (Ahmad, Schrader & van Gerven 2023). W learns from ĝ x*ᵀ.

One number for each example is divided among all units, so estimates are noisy: activity-based node perturbation learns slowly
where there are many units. On digits-cnn (1,408 units) accuracy on validation data is 85.3 % after the 15 epochs of the task,
where `frozen` has 82.5 %, and 90.8 % after 60 (frozen 86.9 %); decorrelated inputs give 92.2 % after 15 (means of 2 seeds, which
differ by up to 7 points). On digits-mlp (256 units) it is 90.8 % after 15, where `frozen` has 84.2 %.

Choices and deviations:
- The read-out is taught by its own exact error, as with all rules here; in the papers it is perturbed, too.
- The papers of weight perturbation use noise of a fixed size or ±σ; here it is normally distributed.
- Dalm et al. scale by √N; with N the mean of ĝ is the gradient where the noise of one layer alone, isotropic, changes the
  activity. It is a factor on the learning rate. In general E[δL δa_l] = E[δa_l δa_lᵀ] ∂L/∂a_l: what arrives from the layers
  in front is no isotropic noise, so the mean of ĝ is not the gradient in deeper layers.
- The size of the noise of pre-activations is relative to their RMS, σ² RMS(a)², as in `node-perturbation`.
- The parameter of the network is the product A = W R. At fixed R, ΔW = −η ĝ x*ᵀ moves A by ΔW R = −η ĝ xᵀ RᵀR, and that is
  the gradient which is returned: the estimate times RᵀR. When R moves, A stays: the paper keeps W, and its network moves with
  R. An optimiser that rescales gradients acts on A.
- A convolution decorrelates the entries of its patches. The centre of x is not subtracted, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, OptionError, State, Step, Task, credit, hp, manifold
from rulezoo_plugins.shared.state_size import gigabytes, why_too_large

Tensors = dict[str, Tensor]

_ROUNDING_MARGIN = 100.0  # a change of a fraction σ is off by rounding of about eps / σ of itself


@dataclass(frozen=True)
class WeightPerturbation(LearningRule):
    """Every weight of the hidden layers moves along its own noise, times one number that all of them receive."""

    LARGEST: ClassVar[int] = 20_000_000  # hidden parameters that may have noise of their own for each example

    sigma: float = hp(0.01, "standard deviation of the noise", low=1e-8, search=(1e-3, 0.1), log=True)
    draws: int = hp(1, "perturbations per example (or batch), whose estimates are averaged", low=1)
    antithetic: bool = hp(True, "difference of two noisy passes, ±ξ, instead of a noisy and the clean one")
    noise_per: str = hp("example", "what has noise of its own", choices=("example", "batch"))

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs hidden parameters, and examples that can be passed through one by one."""
        hidden = {name: torch.Size(shape).numel() for name, shape in _hidden(net).items()}
        if not hidden:
            return (
                "it perturbs the weights in front of the last site of kind 'post', and this network has none"
            )
        if self.noise_per == "batch":
            return None
        if net.statistics or net.drops:
            return (
                "each example is passed through alone, with weights of its own, and this network normalises over the batch "
                "or drops units out; set noise_per=batch"
            )
        if sum(hidden.values()) > self.LARGEST:
            return (
                f"it would draw {sum(hidden.values()):,} random numbers for each example, more than {self.LARGEST:,}; set "
                "noise_per=batch"
            )
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Nothing to remember; refuses a noise that rounding would hide."""
        _check_sigma(self.sigma, net.output_dtype)
        return State()

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal numbers ``(draws, examples, *shape)`` of the hidden parameters; one example if all share them."""
        examples = len(batch.x) if self.noise_per == "example" else 1
        return {name: net.normal((self.draws, examples, *shape), gen) for name, shape in _hidden(net).items()}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        clean = loss(cut.output, batch.y)
        xi = {name: self.sigma * z.to(params[name].dtype) for name, z in noise.items()}

        def noisy(direction: Tensors, x: Tensor, y: Tensor, sign: float) -> Tensor:
            moved = {name: params[name] + sign * d for name, d in direction.items()}
            return loss(net.run({**params, **moved}, x), y).mean()

        def change(direction: Tensors, x: Tensor, y: Tensor, before: Tensor) -> Tensor:
            ahead = noisy(direction, x, y, 1.0)
            return (ahead - noisy(direction, x, y, -1.0)) / 2 if self.antithetic else ahead - before.mean()

        parts = (self._parts(batch.x), self._parts(batch.y), self._parts(clean))
        each = torch.func.vmap(change)
        changes = torch.func.vmap(each, in_dims=(0, None, None, None))(xi, *parts)  # (draws, examples)
        estimates = {name: (_along(changes, d) * d).mean((0, 1)) / self.sigma**2 for name, d in xi.items()}
        return Step(cut.pull(error, {}) | estimates, state, mean)

    def _parts(self, of_batch: Tensor) -> Tensor:
        """What has noise of its own along the first axis: every example, or the batch."""
        return of_batch.unsqueeze(1 if self.noise_per == "example" else 0)


@dataclass(frozen=True)
class ActivityNodePerturbation(LearningRule):
    """Noise in all pre-activations at once; what is correlated with the loss is the change of all pre-activations."""

    sigma: float = hp(
        0.05, "size of the noise, as a fraction of the site's pre-activations (ratio of RMS values)",
        low=1e-8, search=(0.005, 0.5), log=True,
    )  # fmt: skip

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a ``pre`` site behind every hidden layer."""
        perturbed = {name for layer in net.layers if layer.pre for name in layer.parameters}
        left = sorted(_hidden(net).keys() - perturbed)
        if left or not _hidden(net):
            what = f"and {left[0]!r} has none behind it" if left else "and this network has no hidden layer"
            return f"it perturbs pre-activations at sites of kind 'pre', {what}"
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Nothing to remember; refuses a noise that rounding would hide."""
        _check_sigma(self.sigma, net.output_dtype)
        return State()

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal numbers ``(batch, *shape)`` for every ``pre`` site."""
        return {key: net.normal((len(batch.x), *net.visits[key].shape), gen) for key in net.keys("pre")}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, [*net.keys("pre"), *net.keys("post")])
        error, mean = credit.output_error(loss, cut.output, batch.y)
        changed: Tensors = {}

        def tap(key: str, a: Tensor) -> Tensor:
            if key not in noise:
                return a
            scale = manifold.noise_scale(cut.sites[key], self.sigma)
            noisy = (a + scale * noise[key]).to(a.dtype)
            changed[key] = noisy - cut.sites[key]
            return noisy

        response = loss(net.run(params, batch.x, tap), batch.y) - loss(cut.output, batch.y)  # (batch,)
        energy = torch.stack([credit.rows(d).square().sum(1) for d in changed.values()]).sum(0)
        units = sum(net.visits[key].width for key in changed)
        each = units * response / energy / len(batch.x)
        signals = {key: _along(each, d) * d for key, d in changed.items()}
        return Step(cut.pull(error, signals), state, mean)


@dataclass(frozen=True)
class DecorrelatedNodePerturbation(ActivityNodePerturbation):
    """Activity-based node perturbation whose layers learn from decorrelated inputs."""

    decorrelation: float = hp(
        1e-3, "learning rate ε of the decorrelation; 0 = inputs stay as they are", low=0,
        search=(1e-4, 0.03), log=True,
    )  # fmt: skip
    memory: float = hp(2.0, "maximum memory of the decorrelation matrices, in GB", low=0)

    def skip(self, net: Net, task: Task) -> str | None:
        """Adds: weights that are parameters, and matrices that fit into memory."""
        if reason := super().skip(net, task):
            return reason
        decorrelated = _decorrelated(net, net.init_params())
        for layer in net.layers:
            if {*layer.weights} - decorrelated.keys() & net.shapes.keys():
                return (
                    "it decorrelates the inputs of linear and convolution layers whose weight is a trained parameter, and "
                    f"that of {layer.name!r} is none"
                )

        def size(rule: DecorrelatedNodePerturbation) -> float:
            numbers = {
                name: weight.new_empty((n, n), device="meta") for name, (weight, n) in decorrelated.items()
            }
            return gigabytes(numbers)

        return why_too_large(self, self.memory, size, [], "a matrix of inputs × inputs for each layer")

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """R = 1 for every layer, ``decorrelation.<weight>``."""
        super().init(net, params, batch, gen)
        return State(
            buffers={
                f"decorrelation.{name}": torch.eye(
                    n, dtype=torch.promote_types(w.dtype, torch.float32), device=w.device
                )
                for name, (w, n) in _decorrelated(net, params).items()
            }
        )

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        step = super().step(net, loss, params, state, batch, noise, t)
        matrices = {key.removeprefix("decorrelation."): r for key, r in state.buffers.items()}
        grads, buffers = dict(step.grads), {}
        for name, x in credit.layer_inputs(net, params, batch.x, matrices).items():
            r = matrices[name]
            grads[name] = (
                (grads[name].flatten(1).to(r.dtype) @ r.mT @ r).view_as(grads[name]).to(grads[name].dtype)
            )
            decorrelated = x.to(r.dtype) @ r.mT
            correlation = decorrelated.mT @ decorrelated / len(x)
            off_diagonal = correlation - torch.diag_embed(correlation.diagonal())
            buffers[f"decorrelation.{name}"] = r - self.decorrelation * off_diagonal @ r
        return step._replace(grads=grads, state=State(state.params, buffers))


def _hidden(net: Net) -> dict[str, tuple[int, ...]]:
    """Name → shape of the parameters in front of the last site."""
    return {name: shape for name, shape in net.shapes.items() if name not in net.readout}


def _decorrelated(net: Net, params: Tensors) -> dict[str, tuple[Tensor, int]]:
    """Name of a weight → the weight, and the number of its inputs."""
    plain = {name for layer in net.layers if layer.plain for name in layer.weights}
    names = credit.feedback_layers(net, params) & plain & params.keys()
    return {name: (params[name], params[name][0].numel()) for name in sorted(names)}


def _along(factors: Tensor, of: Tensor) -> Tensor:
    """Factors with as many axes as a tensor has."""
    return factors.reshape(factors.shape + (1,) * (of.ndim - factors.ndim))


def _check_sigma(sigma: float, dtype: torch.dtype) -> None:
    smallest = _ROUNDING_MARGIN * torch.finfo(dtype).eps
    if sigma < smallest:
        raise OptionError(f"sigma={sigma:g} drowns in the rounding of {dtype}; use at least {smallest:.1g}")
