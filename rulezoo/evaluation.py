"""The contract of an evaluation: what is measured on a trained network, as numbers and arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rulezoo.errors import UserError
from rulezoo.options import Configurable

if TYPE_CHECKING:
    from rulezoo.trained import TrainedNetwork


LARGEST = 1e100  #: size of a value, as of every number that is stored


class MeasurementError(UserError, ValueError):
    """A measurement that breaks the contract; the message says which value and what was expected."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What an evaluation found for one network.

    Attributes:
        values: name → number. A number that could not be determined is NaN, and `notes` gives the reason under the same
            name. Names are for tables: ``"error"``, ``"hidden1/IT"``.
        arrays: name → array, for what one number cannot hold: curves, matrices. Stored, not shown in tables.
        notes: name → sentence: why a value is NaN, or what a reader of it should know.
        data: hash of the data that were read in addition to the task's; empty = none were.

    Raises:
        MeasurementError: if it is not so.
    """

    values: Mapping[str, float]
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    data: str = ""

    def __post_init__(self) -> None:
        for what, mapping in (("values", self.values), ("arrays", self.arrays), ("notes", self.notes)):
            if not isinstance(mapping, Mapping):
                raise MeasurementError(
                    f"{what} of a measurement must be a dict, got a {type(mapping).__name__}"
                )
            if odd := [name for name in mapping if not (isinstance(name, str) and name)]:
                raise MeasurementError(f"names in {what} of a measurement must be texts, got {odd[0]!r}")
        object.__setattr__(
            self, "values", {name: _number(name, value) for name, value in self.values.items()}
        )
        for name, value in self.values.items():
            if abs(value) > LARGEST or (math.isnan(value) and not self.notes.get(name)):
                raise MeasurementError(
                    f"value {name!r} of a measurement must be finite (at most {LARGEST:g} in size), or NaN with the reason in notes[{name!r}], "
                    f"got {value}"
                )
        for name, array in self.arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.hasobject:
                kind = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise MeasurementError(f"array {name!r} of a measurement must be a numpy array, got {kind}")
        for name, note in self.notes.items():
            if not isinstance(note, str):
                raise MeasurementError(f"note {name!r} of a measurement must be a text, got {note!r}")
        if not isinstance(self.data, str):
            raise MeasurementError(f"data of a measurement must be a text, a hash, got {self.data!r}")


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise MeasurementError(f"value {name!r} of a measurement must be a number, got {value!r}") from None


@dataclass(frozen=True)
class Evaluation(Configurable):
    """Base of every evaluation; its dataclass fields, if any, are its options, declared with `rulezoo.hp`.

    An evaluation is pure: the same network and the same data give the same numbers, and the network stays as it is.
    Random numbers come from a seed that is an option.

    Class attributes:
        headline: name of the value that the leaderboard shows; every measurement has it.
        higher_is_better: whether a larger headline is better; ``None`` = neither.
    """

    headline: ClassVar[str]
    higher_is_better: ClassVar[bool | None] = True

    @classmethod
    def headline_in_words(cls) -> str:
        """The headline and which way is better: ``"error, lower is better"``."""
        better = {True: ", higher is better", False: ", lower is better", None: ""}
        return f"{cls.headline}{better[cls.higher_is_better]}"

    def skip(self, network: TrainedNetwork) -> str | None:
        """Why the evaluation does not apply to this network, in a sentence; ``None`` where it does."""
        return None

    def measure(self, network: TrainedNetwork, root: Path | None) -> Measurement:
        """Measure one trained network.

        Args:
            network: its model, its activities, its task; see `rulezoo.TrainedNetwork`.
            root: the folder of ``--data`` or ``$RULEZOO_DATA``, or ``None``.

        Raises:
            DataMissing: if data that it needs are not there.
        """
        raise NotImplementedError(f"{type(self).__name__} must define measure()")
