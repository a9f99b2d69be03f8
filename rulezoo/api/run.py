"""One run: its record, and its trained network where it was kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.results.exporting import curve_lines, probe_lines, table

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from rulezoo.inputs import Inputs
    from rulezoo.results.records import Record
    from rulezoo.trained import TrainedNetwork


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One run of a rule on a task.

    Attributes:
        record: what was asked, what computed it, and what came out: scores, learning curve, cost.
        load: makes the trained network; called when it is first needed.
    """

    record: Record
    load: Callable[[], TrainedNetwork] = field(repr=False)

    def __repr__(self) -> str:
        asked, test = self.record.asked, self.record.scores.get("test")
        ended = (
            f"test {self.record.metric} {test:.3f}" if test is not None else f"status {self.record.status}"
        )
        return f"<Run of {asked.rule} on {asked.task}, seed {asked.seed}: {ended}>"

    @property
    def curve(self) -> pd.DataFrame:
        """The learning curve, one line for each point, with what the rule logged as ``log.NAME``."""
        return table(list(curve_lines([self.record])))

    @property
    def probes(self) -> pd.DataFrame:
        """What was probed in training, one line for each quantity at a site or of a parameter."""
        return table(list(probe_lines([self.record])))

    @cached_property
    def network(self) -> TrainedNetwork:
        """The trained network.

        Raises:
            WeightsError: if its weights were not kept, or cannot be used.
        """
        return self.load()

    def model(self) -> nn.Module:
        """A new plain module with the trained weights, see `TrainedNetwork.model`."""
        return self.network.model()

    def activities(self, x: Tensor | Inputs) -> dict[str, Tensor]:
        """The activity at every site for inputs, see `TrainedNetwork.activities`."""
        return self.network.activities(x)

    def predict(self, x: Tensor | Inputs) -> Tensor:
        """The rule's output for inputs, see `TrainedNetwork.predict`."""
        return self.network.predict(x)

    def export(self, to: str | Path) -> None:
        """Write the network into a new folder, for programs without rulezoo: weights, loader, record, README.

        Raises:
            UserError: if its weights were not kept, or the folder holds something or cannot be written.
        """
        from rulezoo.api.export import export

        export(self, Path(to))
