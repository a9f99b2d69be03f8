"""``rulezoo evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import count, going_on_later, log, names, out_option, registry
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.leaderboard import check_stored, read
from rulezoo.cli.output import echo
from rulezoo.cli.request import options_of, seeds_of
from rulezoo.comparison.request import DEVICES
from rulezoo.errors import UserError, WeightsError
from rulezoo.evaluations.running import LIMIT, RETRY

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.request import Requested
    from rulezoo.results.records import Device, Record
    from rulezoo.results.store import Store


def _retry(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[str]:
    words = names(ctx, param, values)
    for word in words:
        if word not in RETRY:
            raise click.BadParameter(f"{word!r} is none of {', '.join(RETRY)}")
    return words


@click.command(
    cls=HelpfulCommand,
    examples=(
        ("Calibration of all networks whose weights were kept", "rulezoo evaluate --with calibration"),
        (
            "Robustness of the networks of two rules",
            "rulezoo evaluate --with robustness --rules nmnc,backprop",
        ),
    ),
)
@click.option("--with", "evaluations", metavar="A,B", multiple=True, callback=names, required=True,
              help="Evaluations to carry out, or 'all'; `rulezoo list evaluations` lists them.")  # fmt: skip
@click.option("-o", "options", metavar="NAME.OPTION=VALUE", multiple=True, callback=options_of,
              help="Option of an evaluation, such as robustness.epsilon=0.1; `rulezoo show NAME` lists them.")  # fmt: skip
@click.option("--rules", metavar="A,B", multiple=True, callback=names, help="Only runs of these rules.")
@click.option("--tasks", metavar="A,B", multiple=True, callback=names, help="Only runs on these tasks.")
@click.option("--seeds", callback=seeds_of, metavar="N|A-B|A,B", help="Only runs with these seeds: 5 = seeds 0 to 4, "
              "5-9 = seeds 5 to 9, 0,3,7 = these.")  # fmt: skip
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True,
              help="Device to compute on; auto is the GPU if there is one.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=1), default=LIMIT, show_default=True, metavar="SECONDS",
              help="Maximum wall time per evaluation of one network, in seconds.")  # fmt: skip
@click.option("--retry", metavar="WHICH", multiple=True, callback=_retry,
              help="Stored evaluations to carry out again: failed, stale (the code of the evaluation has changed), or all.")  # fmt: skip
@click.option("--data", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets.")  # fmt: skip
@out_option
def evaluate(
    evaluations: list[str],
    options: dict[str, dict[str, str]],
    rules: list[str],
    tasks: list[str],
    seeds: tuple[int, ...] | None,
    device: str,
    timeout: float,
    retry: list[str],
    data: Path | None,
    out: Path,
) -> None:
    """Evaluate trained networks whose weights were kept.

    Results are stored alongside the runs, and the leaderboard shows them. What is stored already is not evaluated again,
    so the same command resumes where it was stopped. Exits with 1 when an evaluation failed.
    """
    from rulezoo.evaluations.request import requested
    from rulezoo.results.store import Store

    with going_on_later():
        zoo = registry()
        asked = requested(zoo, evaluations, options)
        records = _chosen(read(out, curves=False), zoo, rules, tasks, seeds)
        failed = carry_out(
            Store(out), records, asked, zoo, data=data, device=device, retry=retry, timeout=timeout
        )
    echo(f"\nResults: {out.resolve()}  (`rulezoo leaderboard --out {out}` shows them)")
    if failed:
        sys.exit(1)


def _chosen(
    records: Sequence[Record],
    zoo: Registry,
    rules: Sequence[str],
    tasks: Sequence[str],
    seeds: Sequence[int] | None,
) -> list[Record]:
    rules = [zoo.current(name) for name in rules]
    check_stored("task", tasks, {record.asked.task for record in records})
    check_stored("rule", rules, {record.asked.rule for record in records})
    return [
        record
        for record in records
        if (not rules or record.asked.rule in rules)
        and (not tasks or record.asked.task in tasks)
        and (seeds is None or record.asked.seed in seeds)
    ]


def carry_out(
    store: Store,
    records: Sequence[Record],
    asked: Sequence[Requested],
    zoo: Registry,
    *,
    data: Path | None,
    device: str,
    retry: Sequence[str] = (),
    timeout: float = LIMIT,
) -> bool:
    """Evaluate the networks of these runs, with progress on stderr, and name what failed.

    Args:
        store: the folder of results.
        records: of runs; those that did not end well are left out.
        asked: the evaluations.
        zoo: the registry.
        data: the folder of data sets.
        device: where to compute, as on the command line.
        retry: which stored results are replaced; words of `rulezoo.evaluations.running.RETRY`.
        timeout: time limit of each measurement, in seconds.

    Returns:
        whether an evaluation failed.

    Raises:
        WeightsError: if no weights of these runs were kept.
        DataMissing: if data that an evaluation needs are missing.
    """
    from rulezoo.cli.evaluation_progress import name_failed_of, progress
    from rulezoo.comparison.plan import choose_device
    from rulezoo.evaluations import running
    from rulezoo.task import DataMissing

    kept = _with_weights(store, records)
    chosen: Device = choose_device(device)
    with progress(sys.stderr) as listener:
        not_made = running.evaluate(
            store,
            kept,
            asked,
            listener,
            data=data,
            device=chosen,
            again=running.wanted_again(retry, zoo),
            limit=timeout,
        )
    for sentence in not_made.unusable:
        log(f"not evaluated: {sentence}")
    failed = name_failed_of(store, kept, asked, retried=bool(retry))
    if not_made.missing:
        raise DataMissing("; ".join(not_made.missing))
    return failed or bool(not_made.unusable)


def _with_weights(store: Store, records: Sequence[Record]) -> list[Record]:
    """The runs whose weights were kept; the others are counted on stderr.

    Raises:
        WeightsError: if there is none; the message says how to get them.
    """
    from rulezoo.results import weights

    ended_well = [record for record in records if record.status == "ok"]
    kept = [record for record in ended_well if record.weights]
    without = [record for record in ended_well if not record.weights]
    if not records:
        raise UserError(
            f"no stored run in {store.root} has the rules, tasks and seeds that were asked for; `rulezoo status --out "
            f"{store.root}` shows what is stored"
        )
    if not ended_well:
        raise UserError("no run that was asked for ended well, so there is no trained network to evaluate")
    if without:
        advice = weights.advice(without)
        if not kept:
            raise WeightsError(f"no trained weights of these runs were kept: {advice}")
        log(f"{count(len(without), 'run')} left out, whose weights were not kept: {advice}")
    return kept
