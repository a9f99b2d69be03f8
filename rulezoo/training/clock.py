"""What a training step costs in wall time: two stopwatches, one for the rule and one for plain backprop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Wall time of the rule's steps and of backprop's, epoch by epoch.

    A GPU is waited for at the ends of an epoch and around the few sampled steps only; the time of a rule's step is
    then that of a stretch of steps, not of each.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rule, self.backprop = Stopwatch(self._wait), Stopwatch(self._wait)
        self._epochs: list[tuple[float, float]] = []
        self._peak = 0  # before the counter of the GPU was last set back
        if device.type == "cuda":  # what others in this process needed is no concern of this training
            torch.cuda.reset_peak_memory_stats(device)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def epoch_ends(self) -> None:
        """Keep this epoch's mean times. The median of the epochs is reported, so that a busy moment does not show."""
        if self.rule.laps and self.backprop.laps:
            self._epochs.append((self.rule.mean(), self.backprop.mean()))
            self.clear()

    def clear(self) -> None:
        """Forget the times since the last epoch's end."""
        self.rule.set(0, 0.0)
        self.backprop.set(0, 0.0)

    def warmed_up(self) -> None:
        """Forget the first step of this process: it sets up what the others use."""
        self.rule.back()
        self.backprop.back()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, from which `load_state_dict` goes on."""
        watches = {name: (watch.laps, watch.seconds) for name, watch in self._watches.items()}
        return {"epochs": list(self._epochs), "watches": watches, "peak": self.peak_bytes() or 0}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from what another clock had measured."""
        self._epochs, self._peak = [(rule, backprop) for rule, backprop in saved["epochs"]], saved["peak"]
        for name, watch in self._watches.items():
            watch.set(*saved["watches"][name])

    @property
    def _watches(self) -> dict[str, Stopwatch]:
        return {"rule": self.rule, "backprop": self.backprop}

    @property
    def rule_seconds(self) -> float | None:
        """Mean seconds of a rule's step in the median epoch (by its ratio to backprop)."""
        return self._median()[0]

    @property
    def backprop_seconds(self) -> float | None:
        """Mean seconds of a step of plain backprop in that epoch."""
        return self._median()[1]

    def _median(self) -> tuple[float | None, float | None]:
        ranked = sorted(self._epochs, key=lambda times: times[0] / times[1])
        return ranked[len(ranked) // 2] if ranked else (None, None)

    def peak_bytes(self) -> int | None:
        """Peak memory of the process on a GPU."""
        if self.device.type != "cuda":
            return None
        return max(self._peak, torch.cuda.max_memory_allocated(self.device))

    def forget_peak(self, before: int | None) -> None:
        """Leave out what was needed for other things than training since the peak was ``before``."""
        if before is not None:
            self._peak = before
            torch.cuda.reset_peak_memory_stats(self.device)


class Stopwatch:
    """Adds up the time between `start` and `stop`; whoever uses it counts the laps."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait
        self.set(0, 0.0)

    def set(self, laps: int, seconds: float) -> None:
        """Begin with so many laps that took so long."""
        self.laps, self.seconds = self._begin = laps, seconds

    def back(self) -> None:
        """Forget what came after the beginning."""
        self.laps, self.seconds = self._begin

    def mean(self) -> float:
        """Seconds of a lap."""
        return self.seconds / self.laps

    def start(self) -> None:
        """Time runs from here."""
        self.wait()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """To here."""
        self.wait()
        self.seconds += time.perf_counter() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block in which it does not run."""
        self.stop()
        yield
        self.start()
