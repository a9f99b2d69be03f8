"""Trains one rule on one task for many seeds, together where that goes, and says what came out; see `rulezoo.training.run`."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from rulezoo.inputs import prepared
from rulezoo.training.checkpoints import Parts
from rulezoo.training.errors import in_words, out_of_memory
from rulezoo.training.outcome import Outcome
from rulezoo.training.run import Run, RunRequest
from rulezoo.training.trainer import build


def run(request: RunRequest) -> Iterator[tuple[int, Outcome]]:
    """Train a rule on a task, all seeds together where the rule and the memory allow it.

    No exception of a rule or a task leaves this function: what fails is an `Outcome`. When a group runs out of memory,
    its halves are tried; when it fails in another way, its seeds are tried one by one, so that one bad seed does not
    take the others with it.

    Yields:
        each seed and its outcome, as soon as it is known.
    """
    seeds = tuple(
        sorted(request.seeds)
    )  # a group has one name and one state, in whatever order its seeds are asked for
    yield from _outcomes(replace(request, seeds=seeds), seeds)


def _outcomes(request: RunRequest, wanted: tuple[int, ...], before: int = 0) -> Iterator[tuple[int, Outcome]]:
    """Of some of the seeds, with their numbers; so many were done before."""
    parts = request.checkpoints.divided(wanted)
    if parts is None and len(wanted) > 1 and not request.rule.vmappable:
        parts = _one_by_one(wanted)
    if parts is None:
        # Where only some of a group's records were stored, the others have to come from the same training.
        seeds = request.checkpoints.whole(wanted)
        outcomes, parts = _tried(request, seeds, wanted, before)
        yield from ((seed, outcome) for seed, outcome in outcomes if seed in wanted)
    for part in parts:
        if here := tuple(seed for seed in part if seed in wanted):
            yield from _outcomes(request, here, before)
            before += len(here)


def _tried(
    request: RunRequest, seeds: tuple[int, ...], wanted: tuple[int, ...], before: int
) -> tuple[list[tuple[int, Outcome]], Parts]:
    """Some seeds trained in one: their outcomes; or none and the parts to try, for a reason is found where it is alone."""
    try:
        return list(zip(seeds, _train(request, seeds, wanted, before), strict=True)), []
    except Exception as error:  # noqa: BLE001  foreign code may fail in any way; we record it and go on
        memory = out_of_memory(error)
        if len(seeds) == 1:
            trace = "".join(traceback.format_exception(error))
            return [(seeds[0], Outcome(memory or "error", in_words(error), trace))], []
        parts = halves(seeds) if memory else _one_by_one(seeds)
    request.checkpoints.divide(seeds, parts)
    _let_go(request.device)
    return [], parts


def _let_go(device: torch.device) -> None:
    """Give back what a group held on a GPU, which its parts could not have otherwise."""
    if device.type == "cuda":
        gc.collect()  # a trainer is in a circle of references
        with suppress(RuntimeError):  # an error of the device may last; then the seeds meet it, and record it
            torch.cuda.empty_cache()


def halves(seeds: Sequence[int]) -> Parts:
    """The first half of the seeds, which may be the larger one, and the second."""
    middle = (len(seeds) + 1) // 2
    return [tuple(seeds[:middle]), tuple(seeds[middle:])]


def _one_by_one(seeds: Sequence[int]) -> Parts:
    return [(seed,) for seed in seeds]


def _train(
    request: RunRequest, seeds: tuple[int, ...], wanted: tuple[int, ...], before: int
) -> list[Outcome]:
    """Train from the last state that can be used; where that fails, from the beginning."""
    try:
        return _once(request, seeds, wanted, before)
    except Exception as error:
        if out_of_memory(error) or not request.checkpoints.refuse(seeds, error):
            raise
    return _once(request, seeds, wanted, before)


def _once(request: RunRequest, seeds: tuple[int, ...], wanted: tuple[int, ...], before: int) -> list[Outcome]:
    data = prepared(request.data, request.task, request.device)
    net, values = build(request.task, seeds, data.train.x[:2], request.device)
    reason = request.rule.skip(net, request.task)
    if reason is not None:
        return [Outcome("skipped", reason)] * len(seeds)

    def report_progress(done: int, total: int) -> None:
        """Of all seeds, each of which counts alike."""
        if wanted != tuple(request.seeds):
            done, total = before * total + len(wanted) * done, len(request.seeds) * total
        request.progress(done, total)

    return Run(request, data, net, values, seeds).outcomes(report_progress)
