"""Following the manifold: what rules that perturb in the principal subspace of recent activity have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, OptionError, State, Step, credit, hp, manifold
from rulezoo_plugins.shared.state_size import GB

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class InManifold(LearningRule):
    """Mixin of rules that follow the manifolds of some activities, by any names.

    The state holds, for every name, ``basis.<name>`` of shape ``(n, d)`` and recent activity, ``recent.<name>.<slot>``
    of shape ``(rows, n)``. A slot holds one step's activity as it is; steps that no refresh will ask for are not kept.
    """

    rank: int | float = hp(32, "dimensions of the manifold, at most those of the site and of its recent activity; "
                           "or (below 1) the fraction of variance it explains", low=1e-6, search=(8, 16, 32, 64, 128))  # fmt: skip
    samples: int = hp(512, "recent activities from which the manifold is found", low=2)
    refresh: int = hp(100, "find the manifold anew every so many steps", low=1)
    centred: bool = hp(True, "subtract the mean activity before finding the manifold")

    def __post_init__(self) -> None:
        """Refuse a rank like 2.5, which is neither a number of dimensions nor a fraction."""
        super().__post_init__()
        if isinstance(self.rank, float) and self.rank > 1:
            raise OptionError(f"rank must be a whole number, or a fraction below 1, got {self.rank!r}")

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """The step of the rule proper; whenever a manifold may be new, its log tells how many dimensions it has.

        They are fewer than ``rank`` where the site has fewer units, the recent activities are fewer, or they do not
        vary in so many directions.
        """
        return self.with_dimensions(super().step(net, loss, params, state, batch, noise, t), t)

    def with_dimensions(self, step: Step, t: int) -> Step:
        """The same with ``dimensions.<name>`` among its logs, if this is a step at which to tell them."""
        if t % self.refresh:
            return step
        found = {
            key.replace("basis", "dimensions", 1): manifold.dimensions(basis)
            for key, basis in step.state.buffers.items()
            if key.startswith("basis.")
        }
        return step._replace(logs=step.logs | found)

    def first_manifold(self, activity: Tensors) -> Tensors:
        """The buffers to start with, from the activity ``(rows, n)`` of every name."""
        buffers: Tensors = {}
        for name, rows in activity.items():
            thinned = _thinned(rows, self.samples)
            thinned = thinned.to(torch.promote_types(thinned.dtype, torch.float32))
            for slot in range(min(self.refresh, -(-self.samples // len(thinned)))):
                buffers[f"recent.{name}.{slot}"] = thinned
            buffers |= self.found(name, [thinned])
        return buffers

    def found(self, name: str, recent: list[Tensor]) -> Tensors:
        """The buffers that tell of a manifold, from recent activities, a list of ``(rows, n)``."""
        columns, variance = self.columns(recent[0].shape[1])
        basis = manifold.principal_basis(recent, columns, variance=variance, centred=self.centred)
        return {f"basis.{name}": basis}

    def followed_manifold(self, buffers: Tensors, t: int, look: Callable[[], Tensors]) -> Tensors:
        """The buffers after step ``t`` took notice of its activity, which ``look()`` returns if it is asked to."""
        buffers = dict(buffers)
        slots: dict[str, int] = {}
        for name in [key.removeprefix("basis.") for key in buffers if key.startswith("basis.")]:
            recent = [value for key, value in buffers.items() if key.startswith(f"recent.{name}.")]
            if t == len(recent) or (t > len(recent) and t % self.refresh == 0):
                buffers |= self.found(name, recent)
            slot = self._slot(t, len(recent))
            if slot is not None:
                slots[name] = slot
        activity = look() if slots else {}
        for name, slot in slots.items():
            kept = buffers[f"recent.{name}.{slot}"]
            rows = _thinned(activity[name], self.samples)[: len(kept)].to(kept.dtype)
            buffers[f"recent.{name}.{slot}"] = torch.cat([rows, kept[len(rows) :]])
        return buffers

    def _slot(self, t: int, slots: int) -> int | None:
        """Where step ``t`` is kept: the first steps of all, then the last ones before every refresh."""
        if t < slots:
            return t
        slot = t % self.refresh - (self.refresh - slots)
        return slot if slot >= 0 else None

    def manifold_size(self, widths: Mapping[str, tuple[int, torch.dtype]]) -> float:
        """GB of the bases and recent activities of manifolds, by name their units and the type of their activity."""
        numbers = (
            (units * (self.columns(units)[0] + self.samples), dtype) for units, dtype in widths.values()
        )
        return sum(n * torch.empty((), dtype=dtype).element_size() for n, dtype in numbers) / GB

    def columns(self, units: int) -> tuple[int, float]:
        """Columns of the basis of a manifold in ``units`` dimensions, and the share of variance they must explain."""
        if self.rank < 1:
            return min(units, self.samples), self.rank
        return min(int(self.rank), units), 1.0


def spread_rows(rows: int, most: int) -> Tensor:
    """Numbers of at most ``most`` of some rows, spread over all by the golden ratio.

    An even stride would meet one column of an image.
    """
    if rows <= most:
        return torch.arange(rows)
    golden = (5**0.5 - 1) / 2
    spread = torch.arange(most, dtype=torch.float64) * golden % 1
    return (spread * rows).long()


def _thinned(rows: Tensor, most: int) -> Tensor:
    """At most ``most`` rows."""
    return rows if len(rows) <= most else rows[spread_rows(len(rows), most).to(rows.device)]
