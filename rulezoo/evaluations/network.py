"""The trained network of a stored run, made from its kept weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rulezoo.options import as_text
from rulezoo.results import weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulezoo.discovery.registry import Registry
    from rulezoo.options import Value
    from rulezoo.results.records import Device, Record
    from rulezoo.results.store import Store
    from rulezoo.trained import TrainedNetwork


def network_of(
    store: Store, record: Record, registry: Registry, device: Device = "cpu", others: Iterable[Record] = ()
) -> TrainedNetwork:
    """The network of a stored run.

    Args:
        store: where the record is.
        record: of the run.
        registry: the rules and tasks there are.
        device: where to compute.
        others: further records; those of the same runs but for the seed tell how long they took.

    Raises:
        WeightsError: if the weights were not kept, cannot be read or are those of another network.
        UnknownName: if the rule or the task is not installed.
        PluginError: if its code fails.
    """
    kept = weights.read(store, record, "weights", others)
    from rulezoo.trained import TrainedNetwork, state_of

    asked = record.asked
    memory = weights.read(store, record, "memory").tensors if record.memory else None
    return TrainedNetwork.from_state_dict(
        kept.tensors,
        weights.example_of(kept.about).to(device),
        rule=asked.rule,
        task=asked.task,
        seed=asked.seed,
        made_rule=registry.make_rule(asked.rule, _words(asked.rule_options)),
        made_task=registry.make_task(asked.task, _words(asked.task_options)),
        scores={name: score for name, score in record.scores.items() if score is not None},
        state=None if memory is None else state_of(memory),
        precision=asked.precision,
    )


def _words(options: Mapping[str, Value]) -> dict[str, str]:
    return {name: as_text(value) for name, value in options.items()}
