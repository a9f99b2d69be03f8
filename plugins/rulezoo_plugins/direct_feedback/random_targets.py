"""Direct random target projection (DRTP): sites receive the label in place of the error.

Frenkel, Lefebvre & Bol 2021 (doi:10.3389/fnins.2021.629892, arXiv:1909.01311; code:
github.com/ChFrenkel/DirectRandomTargetProjection). With one-hot labels y* the error e = y − y* of an output between 0
and 1 has the sign of −y* at the right class, so the label stands for the error's sign: direct feedback alignment,

    δ_l = −(B_lᵀ y*) ⊙ φ'(s_l),

B_l fixed and random. y* is known before the output is, so a layer learns as soon as it has been evaluated. The read-out
learns from its error.

What a layer receives does not vanish when the output is right: in the paper's networks it stops at the saturation of tanh
units. Rectified units do not saturate: activity grows for as long as they learn. They need a smaller learning rate than the
read-out, ``hidden_rate``; the paper's is the same for all.

Accuracy on validation data (mean of 2 seeds): 88.1 % on digits-mlp, where `frozen` has 84.2 % and ``hidden_rate=1`` 82.5 %;
80.8 % on digits-cnn, where `frozen` has 82.5 %, ``hidden_rate=1`` 67.2 %, and values from 0.3 to 0.003 between 77 and 81 %. All
positions of a convolution share a kernel, and each receives other fixed numbers for the label, so their mean tells the kernel
little. The authors' own command for CIFAR-10 leaves convolutions as they are (``--freeze-conv-layers``).

Choices: B_l is uniform with variance 2 scale² / units, as in the public code (Kaiming), where the sign of the projection is
+: B_l and −B_l are equally probable. In the mean over the batch the label counts as the error of the mean loss does: it
is divided by the number of labels. The visits of a recurrent site share one B; where there is a label at every time step, a
visit receives that of its own step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.direct_feedback.visits import received, visits_by_site

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class DirectRandomTargetProjection(LearningRule):
    """Fixed random weights from the label to every post-activation site."""

    scale: float = hp(
        1.0, "size of the feedback weights, in units of sqrt(2 / units of the site)", low=1e-6, search=(0.01, 10),
        log=True,
    )  # fmt: skip

    hidden_rate: float = hp(
        0.1,
        "learning rate of the hidden layers relative to that of the read-out",
        low=0,
        search=(0.01, 1),
        log=True,
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs somewhere to send the label, labels, and an output for each class."""
        if not net.keys("post"):
            return "direct random target projection needs sites of kind 'post', and this network has none"
        if task.targets != "labels":
            found = "does not declare its targets" if task.targets is None else "has numbers as targets"
            return f"direct random target projection projects the labels of classes, and this task {found}"
        if not net.output_shape or net.output_shape[-1] != task.classes:
            return (
                f"direct random target projection needs an output for each of the {task.classes} classes, and outputs have "
                f"shape {net.output_shape}"
            )
        return None

    def rates(self, net: Net) -> dict[str, float]:
        """Hidden layers have a learning rate of their own: what they receive never vanishes."""
        return {name: self.hidden_rate for name in net.shapes if name not in net.readout}

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Draw one projection ``(numbers received, units)`` for each site."""
        zeros = received(net, torch.zeros(1, *net.output_shape))
        buffers = {}
        for site, (key, *_) in visits_by_site(net).items():
            numbers, units = zeros[key].shape[1], net.visits[key].width
            drawn = torch.rand(numbers, units, generator=gen, dtype=torch.float64, device=gen.device)
            projection = self.scale * math.sqrt(6 / units) * (2 * drawn - 1)
            buffers[f"projection.{site}"] = projection.to(batch.x.device, net.memory_dtype())
        return State(buffers=buffers)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        labels = F.one_hot(batch.y, net.output_shape[-1]).to(net.memory_dtype()) / batch.y.numel()
        signals = {}
        for key, label in received(net, labels).items():
            projection = state.buffers[f"projection.{net.visits[key].site}"]
            signals[key] = -(label @ projection).view_as(cut.sites[key])
        return Step(cut.pull(error, signals), state, mean)
