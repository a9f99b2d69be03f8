r"""Local losses: every site has a loss of its own, and no error leaves the block in front of it.

Nøkland & Eidnes 2019 (arXiv:1901.06656):

- prediction (equation 2): the task's loss of a linear head at the site, which is trained along with it;
- similarity (equation 1): ‖S(g(h)) − S(y)‖² / n², where S holds the cosine similarities of all pairs of the n examples of
  the batch, each centred over its units, and g is a trained linear map;
- both: (1 − β) prediction + β similarity, β = 0.99 in the paper.

Belilovsky, Eickenberg & Oyallon 2019 (arXiv:1812.11446): greedy layerwise training. The layers in front of a site learn from the
prediction loss of its head for a number of steps, then they stay as they are and those behind it learn.

The read-out, behind the last site, learns from the task's loss. Deviations: a head sees all units of a map without the
paper's pooling; g is linear on maps too, where the paper has a convolution; targets that are no labels enter S(y) as
they are. Heads of greedy training are linear, where the paper has up to two convolutions in front; the read-out learns at all
times, so that the network always has an answer; and learning rates follow the schedule of the run, which the paper starts anew for
every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class _LocalLoss(LearningRule):
    def skip(self, net: Net, task: Task) -> str | None:
        """Needs sites, and an output that the activity of one site can determine."""
        if not net.keys("post"):
            return "local losses need sites of kind 'post', and this network has none"
        if net.keys("recurrent") and len(net.output_shape) > 1:
            return "a local head predicts the outputs of all time steps, which the activity of one does not determine"
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Heads of the local losses, one for all visits of a site; row 0 is the bias."""
        widths = {net.visits[key].site: net.visits[key].width for key in net.keys("post")}
        return State(
            {
                f"{kind}.{site}": net.normal((units + 1, self._outputs(kind, net, units)), gen) / units**0.5
                for site, units in widths.items()
                for kind in self._heads()
            }
        )

    def _heads(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _outputs(self, kind: str, net: Net, units: int) -> int:
        return net.output_width if kind == "prediction" else units

    def _loss(
        self, heads: dict[str, Tensor], h: Tensor, batch: Batch, loss: credit.Loss, output: Tensor
    ) -> Tensor:
        raise NotImplementedError

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)

        def local(at: tuple[Tensors, Tensors]) -> Tensor:
            heads, sites = at
            total = torch.zeros((), dtype=cut.output.dtype, device=cut.output.device)
            for key, h in sites.items():
                own = {kind: heads[f"{kind}.{net.visits[key].site}"] for kind in self._heads()}
                total = total + self._loss(own, credit.rows(h), batch, loss, cut.output)
            return total

        heads, signals = credit.grad(local, (state.params, cut.sites))
        return Step(cut.pull(error, signals) | {f"rule.{name}": g for name, g in heads.items()}, state, mean)


@dataclass(frozen=True)
class LocalPrediction(_LocalLoss):
    """The task's own loss of a linear head at every site."""

    def _heads(self) -> tuple[str, ...]:
        return ("prediction",)

    def _loss(
        self, heads: dict[str, Tensor], h: Tensor, batch: Batch, loss: credit.Loss, output: Tensor
    ) -> Tensor:
        return self.head_losses(heads, h, batch, loss, output).mean()

    def head_losses(
        self, heads: dict[str, Tensor], h: Tensor, batch: Batch, loss: credit.Loss, output: Tensor
    ) -> Tensor:
        """The loss of each example by the head, ``(batch,)``, of activity ``(batch, n)``."""
        return loss(_affine(heads["prediction"], h).view_as(output), batch.y)


@dataclass(frozen=True)
class GreedyPrediction(LocalPrediction):
    """Sites take turns, from the first to the last: only the layers in front of one site learn at a time."""

    stage: int = hp(
        50, "steps for which the layers in front of each site learn", low=1, search=(25, 50, 100, 200)
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Adds: hidden parameters that belong to a layer in front of a site, and to one stage."""
        sites = _layers_in_front(net)
        names = [name for of_site in sites.values() for name in of_site]
        left = sorted(net.shapes.keys() - net.readout - {*names})
        if net.keys("post") and (left or len(names) > len({*names})):
            which = left[0] if left else next(name for name in names if names.count(name) > 1)
            return (
                f"layers take turns, and {which!r} does not belong to the layers in front of exactly one site"
            )
        return super().skip(net, task)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`; what does not learn at this stage gets no gradient."""
        step = super().step(net, loss, params, state, batch, noise, t)
        turns = _layers_in_front(net)
        site = [*turns, None][min(t // self.stage, len(turns))]
        learning = {*net.readout} if site is None else {*net.readout, *turns[site], f"rule.prediction.{site}"}
        return step._replace(grads={name: g for name, g in step.grads.items() if name in learning})


@dataclass(frozen=True)
class LocalSimilarity(_LocalLoss):
    """Similarities of the activity of pairs of examples should be those of their targets."""

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs one target for each example."""
        if len(net.output_shape) > 1:
            return (
                "similarities compare one target for each example, and here every example has several outputs"
            )
        return super().skip(net, task)

    def _heads(self) -> tuple[str, ...]:
        return ("similarity",)

    def _loss(
        self, heads: dict[str, Tensor], h: Tensor, batch: Batch, loss: credit.Loss, output: Tensor
    ) -> Tensor:
        targets = credit.rows(batch.y)
        if not batch.y.is_floating_point():
            targets = torch.eye(output.shape[-1], device=output.device)[batch.y]
        mapped = _similarities(_affine(heads["similarity"], h))
        return (mapped - _similarities(targets.to(mapped.dtype))).square().mean()


@dataclass(frozen=True)
class LocalPredictionSimilarity(LocalSimilarity, LocalPrediction):
    """The weighted sum of both local losses."""

    beta: float = hp(0.99, "weight of the similarity; the prediction has the rest", low=0, high=1)

    def _heads(self) -> tuple[str, ...]:
        return ("prediction", "similarity")

    def _loss(
        self, heads: dict[str, Tensor], h: Tensor, batch: Batch, loss: credit.Loss, output: Tensor
    ) -> Tensor:
        prediction = LocalPrediction._loss(self, heads, h, batch, loss, output)
        return (1 - self.beta) * prediction + self.beta * LocalSimilarity._loss(
            self, heads, h, batch, loss, output
        )


def _affine(head: Tensor, h: Tensor) -> Tensor:
    return h @ head[1:] + head[0]


def _similarities(rows: Tensor) -> Tensor:
    """Cosine similarities of all pairs of rows, each centred, ``(batch, batch)``."""
    centred = rows - rows.mean(1, keepdim=True)
    unit = F.normalize(centred, dim=1, eps=1e-8)
    return unit @ unit.T


def _layers_in_front(net: Net) -> dict[str, list[str]]:
    """Site → the parameters of the layers right in front of it, in the order of the forward pass."""
    found: dict[str, list[str]] = {net.visits[key].site: [] for key in net.keys("post")}
    for layer in net.layers:
        for site in dict.fromkeys(net.visits[key].site for key in layer.post):
            found[site] += [name for name in layer.parameters if name not in net.readout]
    return found
