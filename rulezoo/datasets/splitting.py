"""Splits drawn from a fixed seed."""

from __future__ import annotations

import torch
from torch import Tensor

from rulezoo.errors import UserError
from rulezoo.source import Source
from rulezoo.task import Split


class TooFew(UserError, ValueError):
    """A part that would be left without examples."""


def held_out(split: Split[Source], *shares: float) -> list[Split[Source]]:
    """Disjoint parts of a split in a fixed shuffled order: first what is left, then one part for each share.

    Args:
        split: inputs and targets.
        shares: of the examples, for each part that is held out.
    """
    order = torch.randperm(len(split.y), generator=torch.Generator().manual_seed(0))
    sizes = [round(share * len(order)) for share in shares]
    if min(sizes, default=1) < 1 or sum(sizes) >= len(order):
        raise TooFew(
            f"{len(order)} examples are too few to hold out {' and '.join(map(str, shares))} of them; use more examples"
        )
    parts = torch.split(order, [len(order) - sum(sizes), *sizes])
    return [_part(split, part.sort().values) for part in parts]


def _part(split: Split[Source], index: Tensor) -> Split[Source]:
    return Split(split.x.subset(index), split.y[index])
