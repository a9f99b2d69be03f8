r"""Forward-forward learning: each layer learns by itself to tell positive from negative data by its goodness.

The goodness G of a layer is computed from the squares of its activities y. Its objective, summed over positive (+) and
negative (−) examples, is

    softplus(θ − G⁺) + softplus(G⁻ − θ),

the negative log-likelihood of "positive" with probability σ(G − θ). The next layer sees the normalised activity, so that it
cannot read the goodness of the layer in front, and no gradient crosses a site.

- `ForwardForward`: Hinton 2022 (arXiv:2212.13345), the supervised form: a label is put into the input, the true one in
  positive and a wrong one in negative data. G is the sum of y² over the units of a layer, or the mean, and y/‖y‖ goes on to
  the next layer. The answer is the label with the largest goodness, summed over layers (``counted``: Hinton leaves out the
  first), or that of a softmax read-out of the pass with a neutral label (``answer``).
- `SelfContrastive`: SCFF, Chen, Liu, Laydevant & Grollier 2025 (doi:10.1038/s41467-025-61037-0, arXiv:2409.11593): a positive
  example is an input together with itself, a negative one an input together with another input of the batch. G is the mean
  of relu(y)²; ``penalty`` times G⁺ is added to the objective; inputs and activities are standardised, example by example.
  No label reaches a hidden layer; the read-out is trained by the gradient of the loss.

How a label is put into an input (``label``): ``pixels`` is Hinton's: the first numbers of the input are overwritten by the
one-hot label, with ``size`` in place of 1. ``pattern``, the default, adds a fixed random pattern for each class, of standard
deviation ``size``: no input is overwritten, and every position of a convolutional layer sees the label. The neutral label is
the mean of all labels.

Deviations: a layer is what lies in front of a ``post`` site, with the network's own nonlinearity and pooling, and goodness is
measured at that site (SCFF's code measures it in front of the pooling). All layers learn at the same time, not one after the
other. In convolutional layers goodness is that of the channels at one position, and the objective is averaged over positions,
as in SCFF; Hinton has no weight sharing. In forward-forward: activities are divided by their root mean square instead of their
length, a constant factor; wrong labels are drawn uniformly, not by how probable the network finds them; the softmax read-out
sees the last hidden layer instead of all but the first. In SCFF: the two inputs are averaged rather than presented together to
the same weights, which gives half the drive; there is one pair of thresholds for all layers; the read-out sees the last hidden
layer instead of several, and learns together with the hidden layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]
_TINY = 1e-4  # added to a root mean square, so that a silent layer does not divide by zero


@dataclass(frozen=True)
class _LayerByLayer(LearningRule):
    def skip(self, net: Net, task: Task) -> str | None:
        """Needs layers in series, and inputs that are numbers."""
        if not net.keys("post"):
            return "it needs sites of kind 'post', whose goodness layers learn, and this network has none"
        if net.keys("recurrent"):
            return "the activity between layers is normalised, and in this recurrent network it would be the state"
        if not net.example.is_floating_point():
            return f"it changes inputs, which must be real numbers, and here they are {net.example.dtype}"
        return None

    def _pass(self, net: Net, params: Tensors, x: Tensor) -> tuple[Tensors, Tensor]:
        """The activity at every ``post`` site, from which the next layer sees the normalised activity only; the output."""
        sites: Tensors = {}

        def tap(key: str, h: Tensor) -> Tensor:
            if net.visits[key].kind != "post":
                return h
            sites[key] = h
            return self._normalised(h.detach())

        output = net.run(params, x, tap)
        return sites, output

    def _normalised(self, h: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class ForwardForward(_LayerByLayer):
    """Goodness is high for inputs with their true label, low for inputs with a wrong one."""

    lr: float | None = hp(1e-3, "learning rate; none = the task's", low=0)
    threshold: float = hp(
        0.05, "θ; times the number of channels where goodness is a sum", low=0, search=(0.01, 1), log=True
    )
    goodness: str = hp("sum", "sum or mean of the squared activities of a layer", choices=("sum", "mean"))
    label: str = hp("pattern", "how a label is put into the input", choices=("pattern", "pixels"))
    size: float = hp(0.5, "size of a label in the input", low=1e-6, search=(0.1, 10), log=True)
    counted: str = hp("all", "layers whose goodness counts for the answer", choices=("all", "all-but-first"))
    answer: str = hp(
        "goodness",
        "answer by the goodness of each label, or by a softmax read-out of the pass with a neutral label",
        choices=("goodness", "readout"),
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs class labels that can be put into the input."""
        if task.targets != "labels" or net.output_shape != (task.classes,):
            return "it puts the class label into the input, and this task does not have one label for each example"
        if self.label == "pixels" and net.example[0].numel() < net.output_width:
            return f"{net.output_width} labels do not fit in the {net.example[0].numel()} numbers of an input"
        if self.answer == "readout" and (reason := _without_readout(net)):
            return reason
        return super().skip(net, task)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """What is added to an input for each label, and the factor on the input, 0 where the label overwrites it."""
        classes, shape = net.output_width, batch.x.shape[1:]
        if self.label == "pattern":
            labels = self.size * net.normal((classes, *shape), gen)
            return State(buffers={"labels": labels, "keep": torch.ones_like(labels[0])})
        flat = torch.eye(classes, shape.numel(), dtype=net.memory_dtype(), device=net.example.device)
        keep = 1 - flat.sum(0)
        return State(buffers={"labels": self.size * flat.view(classes, *shape), "keep": keep.view(shape)})

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """How many labels further the wrong label of each example is."""
        return {"wrong": torch.randint(1, net.output_width, batch.y.shape, generator=gen, device=gen.device)}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        labels = state.buffers["labels"]
        wrong = (batch.y + noise["wrong"]) % net.output_width
        true, false = (self._embedded(state, batch.x, labels[y]) for y in (batch.y, wrong))

        def local(p: Tensors) -> Tensor:
            positive, negative = (self._goodness(net, {**params, **p}, x) for x in (true, false))
            return _contrast(positive, negative, self._thresholds(net), self._thresholds(net))

        grads = credit.grad(local, {n: p for n, p in params.items() if n not in net.readout})
        if self.answer == "goodness":
            return Step(grads, state, None)

        def answer(readout: Tensors) -> Tensor:
            return loss(self._neutral(net, {**params, **readout}, state, batch.x), batch.y).mean()

        mean, pull = credit.value_and_pull(answer, {n: params[n] for n in params if n in net.readout})
        return Step(grads | pull(torch.ones_like(mean)), state, mean)

    def predict(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The goodness of each label, summed over layers; or the read-out's output."""
        if self.answer == "readout":
            return self._neutral(net, params, state, x)
        labels = state.buffers["labels"]
        every = self._embedded(state, x.unsqueeze(1), labels).flatten(0, 1)
        good = [credit.rows(g).mean(1) for g in self._goodness(net, params, every).values()]
        if self.counted == "all-but-first":
            good = good[1:] or good
        return torch.stack(good).sum(0).view(len(x), len(labels))

    def _embedded(self, state: State, x: Tensor, label: Tensor) -> Tensor:
        return (x * state.buffers["keep"] + label).to(x.dtype)

    def _neutral(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        return self._pass(net, params, self._embedded(state, x, state.buffers["labels"].mean(0)))[1]

    def _goodness(self, net: Net, params: Tensors, x: Tensor) -> Tensors:
        """Key → goodness of every position, ``(batch, *positions)``: channels are the first axis of an activity."""
        sites, _ = self._pass(net, params, x)
        squares = {key: h.square() for key, h in sites.items()}
        return {key: s.sum(1) if self.goodness == "sum" else s.mean(1) for key, s in squares.items()}

    def _thresholds(self, net: Net) -> dict[str, float]:
        units = {key: net.visits[key].shape[0] if self.goodness == "sum" else 1 for key in net.keys("post")}
        return {key: n * self.threshold for key, n in units.items()}

    def _normalised(self, h: Tensor) -> Tensor:
        flat = credit.rows(h)
        return (flat / (flat.square().mean(1, keepdim=True).sqrt() + _TINY)).view_as(h)


@dataclass(frozen=True)
class SelfContrastive(_LayerByLayer):
    """Goodness is high for an input together with itself, low for an input together with another one."""

    positive: float = hp(1.0, "threshold θ⁺ of positive examples", low=0, search=(0.1, 10), log=True)
    negative: float = hp(1.0, "threshold θ⁻ of negative examples", low=0, search=(0.1, 10), log=True)
    penalty: float = hp(0.0, "weight of the goodness of positive examples in the objective", low=0)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a read-out, too: hidden layers learn no answers."""
        return super().skip(net, task) or _without_readout(net)

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """How many examples further the partner of each example is; of a batch of one it is the example itself."""
        size = len(batch.x)
        return {"partner": torch.randint(1, max(size, 2), (size,), generator=gen, device=gen.device)}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        x, size = _standardised(batch.x), len(batch.x)
        other = x[(torch.arange(size, device=x.device) + noise["partner"]) % size]

        def objectives(p: Tensors) -> tuple[Tensor, Tensor]:
            sites, output = self._pass(net, p, x)
            positive = self._goodness(sites)
            negative = self._goodness(self._pass(net, p, (x + other) / 2)[0])
            local = _contrast(positive, negative, *self._thresholds(net))
            local = local + self.penalty * sum(g.mean() for g in positive.values())
            return local, loss(output, batch.y).mean()

        (local, mean), pull = credit.value_and_pull(objectives, params)
        return Step(pull((torch.ones_like(local), torch.ones_like(mean))), state, mean)

    def predict(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The read-out's output for the input as a positive example."""
        return self._pass(net, params, _standardised(x))[1]

    def _goodness(self, sites: Tensors) -> Tensors:
        """Key → goodness of every position, ``(batch, *positions)``: channels are the first axis of an activity."""
        return {key: F.relu(h).square().mean(1) for key, h in sites.items()}

    def _thresholds(self, net: Net) -> tuple[dict[str, float], dict[str, float]]:
        return dict.fromkeys(net.keys("post"), self.positive), dict.fromkeys(net.keys("post"), self.negative)

    def _normalised(self, h: Tensor) -> Tensor:
        return _standardised(h)


def _without_readout(net: Net) -> str | None:
    if net.readout:
        return None
    return "it answers by a trained read-out, and this network has no parameters behind the last site"


def _contrast(positive: Tensors, negative: Tensors, low: dict[str, float], high: dict[str, float]) -> Tensor:
    """The objective of all layers: goodness of positive examples above ``low``, of negative ones below ``high``."""
    each = [
        F.softplus(low[k] - g).mean() + F.softplus(negative[k] - high[k]).mean() for k, g in positive.items()
    ]
    return torch.stack(each).sum()


def _standardised(x: Tensor) -> Tensor:
    """Each example with mean 0 and standard deviation 1 over all of its numbers."""
    flat = credit.rows(x)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred / (centred.square().mean(1, keepdim=True).sqrt() + _TINY)).view_as(x)
