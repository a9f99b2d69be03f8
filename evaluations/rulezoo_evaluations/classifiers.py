"""What the evaluations of classifiers share: whether they apply, and the outputs for a part of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rulezoo import LearningRule, MeasurementError

if TYPE_CHECKING:
    import torch

    from rulezoo import TrainedNetwork

Array = np.ndarray[Any, Any]


def not_a_classifier(network: TrainedNetwork) -> str | None:
    """Why a network does not answer with one number for each class, in a sentence; ``None`` where it does."""
    task = network.made_task
    if task.targets != "labels" or task.classes is None:
        return f"the task {network.task} is not a classification: it declares no labels and classes"
    if network.net.output_shape != (task.classes,):
        return (
            f"the network of the task {network.task} has outputs of shape {network.net.output_shape}, not one for each of "
            f"{task.classes} classes"
        )
    return None


def without_memory(network: TrainedNetwork) -> str | None:
    """Why a rule's answers are not known, in a sentence; ``None`` where they are."""
    if network.state is None and type(network.made_rule).predict is not LearningRule.predict:
        return f"the rule {network.rule} reads its answer with its memory, which was not kept; run again with --keep-memory"
    return None


def outputs(network: TrainedNetwork, x: Any) -> Array:  # noqa: ANN401  a tensor, or the inputs of a task
    """The rule's outputs for all examples, float64 ``(examples, classes)``.

    Raises:
        MeasurementError: if they are not finite.
    """
    found: Array = network.predict(x).double().cpu().numpy()
    if bad := int((~np.isfinite(found).all(-1)).sum()):
        raise MeasurementError(
            f"the network of rule {network.rule} on task {network.task}, seed {network.seed}, has outputs that are not "
            f"finite for {bad} of {len(found)} examples; it has probably diverged"
        )
    return found


def some(number: int, examples: int, seed: int) -> torch.Tensor:
    """Indices of ``examples`` of ``number`` examples, drawn without replacement, in ascending order; all if there are fewer."""
    import torch

    chosen = np.random.default_rng(seed).permutation(number)[:examples]
    return torch.from_numpy(np.sort(chosen))
