"""The numerics of credit assignment: where the graph is cut, and what is pulled back through the pieces.

Conventions. ``params``, ``sites``, ``signals`` and ``grads`` are ``dict[str, Tensor]``. The activity at a site is
``(batch, *shape)``; an output is ``(batch, *out)``. The **error** is the gradient of the *mean* loss with respect to
the output, so it carries the factor 1/batch, and every pull-back sums over the batch: this is the only place where a
mean over examples is taken. A **teaching signal** of a site is what a rule puts in place of the gradient of the mean
loss with respect to that site's activity; it has the activity's shape.

With the true site gradients as signals, `cut` gives backprop; with the forward weights as feedback, `through_feedback`
gives backprop. Both are tested to be exact in float64 on a multilayer perceptron, a convolutional network with pooling
and a skip connection, and a recurrent network.

- `derivatives`: the value of a function with its pull-back, or its derivative along a direction, inside and outside of torch's
  transforms.
- `passes`: backprop, the cut, the error at the output.
- `blocks`: blocks of a network on given activity.
- `drives`: the same without their activation functions.
- `feedback`: backward passes through feedback weights.
"""

from rulezoo.credit.blocks import Blocks, between, blocks, examine_sites, from_sites
from rulezoo.credit.derivatives import Pull, grad, value_and_derivative, value_and_pull
from rulezoo.credit.drives import Drives, drives, not_of_drives
from rulezoo.credit.feedback import (
    LayerInputs,
    backward_layers,
    feedback_layers,
    layer_inputs,
    run_with_inputs,
    through_feedback,
    true_weights,
    with_feedback,
)
from rulezoo.credit.passes import Cut, Loss, backprop, cut, output_error, rows, site_gradients

__all__ = [
    "Blocks",
    "Cut",
    "Drives",
    "LayerInputs",
    "Loss",
    "Pull",
    "backprop",
    "backward_layers",
    "between",
    "blocks",
    "cut",
    "drives",
    "examine_sites",
    "feedback_layers",
    "from_sites",
    "grad",
    "layer_inputs",
    "not_of_drives",
    "output_error",
    "rows",
    "run_with_inputs",
    "site_gradients",
    "through_feedback",
    "true_weights",
    "value_and_derivative",
    "value_and_pull",
    "with_feedback",
]
