"""``rulezoo theory``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import print_table
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.errors import UserError

if TYPE_CHECKING:
    from rulezoo.measures.site_theory import SiteTheory

_BUDGETS = (2.0, 8.0, 32.0, 128.0, 512.0, 2048.0)
_ALL, _WITHIN = "all units (VNC)", "manifold (NMNC)"


class _Question(NamedTuple):
    """What is asked of every site.

    Attributes:
        angle: target in degrees; ``None`` = none.
        budgets: perturbations per update.
        factor: effective perturbations of each.
    """

    angle: float | None
    budgets: tuple[float, ...]
    factor: float


@click.command(
    cls=HelpfulCommand,
    examples=(
        (
            "Perturbations per update for an angle of 60°",
            "rulezoo theory --units 512 --rank 32 --alpha 0.8 --angle 60",
        ),
        (
            "Angles that two budgets reach at the sites of a measured network",
            "rulezoo theory --network cifar10-cnn --perturbations 8,200",
        ),
    ),
)
@click.option("--units", type=float, metavar="N", help="Number of units n of the site.")
@click.option(
    "--rank", "ranks", metavar="D[,D]", help="Dimension d of the manifold; several for the best one."
)
@click.option("--alpha", "alphas", metavar="A[,A]",
              help="Share α of the gradient in the manifold, from 0 to 1; one for each rank.")  # fmt: skip
@click.option(
    "--rho", type=float, metavar="R", help="Spread ρ of gradients over examples, 1 or more.  [default: 1]"
)
@click.option("--ceiling", type=float, metavar="DEGREES",
              help="Angle between the gradient of an example and that through the mean Jacobian.  [default: 0]")  # fmt: skip
@click.option("--network", metavar="TASK",
              help="Task whose stored runs give the measured values of each site, in place of the numbers above.")  # fmt: skip
@click.option("--rule", metavar="RULE", help="With --network: only networks that this rule trained.")
@click.option("--out", type=UserPath(file_okay=False, path_type=Path), metavar="DIR", default=Path("leaderboard/claims"),
              show_default=True, help="With --network: folder of results, or of claims.")  # fmt: skip
@click.option("--angle", type=float, metavar="DEGREES", help="Target angle to the true gradient.")
@click.option("--perturbations", metavar="K[,K]", help="Perturbed examples per site and update.")
@click.option("--rate", type=float, metavar="ETA",
              help="Weight of the newest estimate in the feedback's running average.  [default: no average]")  # fmt: skip
def theory(
    units: float | None,
    ranks: str | None,
    alphas: str | None,
    rho: float | None,
    ceiling: float | None,
    network: str | None,
    rule: str | None,
    out: Path,
    angle: float | None,
    perturbations: str | None,
    rate: float | None,
) -> None:
    """Predict the number of perturbations for an angle.

    Or the angle for a number of perturbations.

    By the closed forms of `rulezoo.measures.theory`, for noise in all units (VNC) and in the manifold (NMNC), with the
    budget at which their order changes. Nothing is trained.
    """
    from rulezoo.measures.site_theory import averaging

    numbers = {"--units": units, "--rank": ranks, "--alpha": alphas, "--rho": rho, "--ceiling": ceiling}
    _check_asked(numbers, network, rule)
    if angle is not None and not 0 < angle < 90:
        raise UserError(f"--angle {angle:g}: the target must be an angle above 0 and below 90 degrees")
    budgets = _numbers("--perturbations", perturbations) if perturbations is not None else _BUDGETS
    if any(not 0 < k < math.inf for k in budgets):
        raise UserError(f"--perturbations {perturbations}: each number must be above 0")
    try:
        asked = _Question(angle, budgets, averaging(rate))
        if network is not None:
            _show_network(network, rule, out, asked)
        else:
            assert units is not None
            given = _numbers("--rank", ranks or ""), _numbers("--alpha", alphas or "")
            _show_site(_sites(units, *given, 1.0 if rho is None else rho, ceiling or 0.0), asked)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(error)) from error


def _check_asked(numbers: Mapping[str, object], network: str | None, rule: str | None) -> None:
    given = [name for name, value in numbers.items() if value is not None]
    if network is not None and given:
        raise UserError(
            f"{given[0]} describes a site, and --network takes the numbers from stored runs; leave one of the two out"
        )
    if network is None and rule is not None:
        raise UserError("--rule chooses among stored runs; give their task with --network, too")
    missing = [name for name in ("--units", "--rank", "--alpha") if numbers[name] is None]
    if network is None and missing:
        raise UserError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; give --units, --rank and --alpha of a site, or "
            "--network with a task whose runs are stored"
        )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UserError(
            f"{option} {text!r}: expected a number, or several joined by commas, like 16,32,64"
        ) from None


def _sites(
    units: float, ranks: Sequence[float], alphas: Sequence[float], rho: float, ceiling: float
) -> list[SiteTheory]:
    from rulezoo.measures.site_theory import SiteTheory

    if len(ranks) != len(alphas):
        raise UserError(
            f"--rank has {len(ranks)} numbers and --alpha has {len(alphas)}; give one alpha for each rank"
        )
    return [SiteTheory(units, rank, alpha, rho, ceiling) for rank, alpha in zip(ranks, alphas, strict=True)]


def _show_site(sites: Sequence[SiteTheory], asked: _Question) -> None:
    if asked.angle is not None:
        print_table(
            [
                (_described(one, manifold=manifold), *_needed(one, asked, manifold=manifold))
                for one, manifold in _each(sites)
            ],
            ("noise in", "smallest possible angle", "perturbations per update", "effective"),
        )
    else:
        print_table(
            [
                (
                    _described(one, manifold=manifold),
                    *(f"{one.angle(k * asked.factor, manifold=manifold):.1f}°" for k in asked.budgets),
                )
                for one, manifold in _each(sites)
            ],
            ("perturbations per update:", *(f"{k:g}" for k in asked.budgets)),
        )
    echo()
    for line in _sentences(sites, asked):
        echo(line)


def _each(sites: Sequence[SiteTheory]) -> Iterator[tuple[SiteTheory, bool]]:
    yield sites[0], False
    yield from ((one, True) for one in sites)


def _described(site: SiteTheory, *, manifold: bool) -> str:
    if not manifold:
        return f"{_ALL}, n = {site.units:,.0f}"
    return f"{_WITHIN}, d = {site.rank:,.0f}, α = {site.alpha:g}"


def _needed(site: SiteTheory, asked: _Question, *, manifold: bool) -> tuple[str, str, str]:
    assert asked.angle is not None
    k = site.perturbations(asked.angle, manifold=manifold)
    smallest = f"{site.smallest_angle(manifold=manifold):.1f}°"
    return smallest, _count(k / asked.factor, "cannot be reached"), _count(k, "—")


def _count(k: float, never: str) -> str:
    if math.isinf(k):
        return never
    return f"{math.ceil(k):,}" if k >= 10 else f"{k:.2g}"


def _sentences(sites: Sequence[SiteTheory], asked: _Question) -> Iterator[str]:
    from rulezoo.measures.site_theory import best_for_budget

    yield f"One perturbation counts as {asked.factor:.3g} by the running average (equation 8)."
    for one in sites:
        yield f"d = {one.rank:g}: {_crossover(one, asked)}"
    if len(sites) > 1 and asked.angle is None:
        for k in asked.budgets:
            best = best_for_budget(sites, k * asked.factor)
            yield f"Best at {k:g} (equation 9): {'all units' if best is None else f'd = {best.rank:g}'}."


def _crossover(site: SiteTheory, asked: _Question) -> str:
    k = site.crossover / asked.factor
    if math.isinf(k):
        return "the manifold has the smaller angle at every number of perturbations."
    if not k:
        return "noise in all units has the smaller angle at every number of perturbations."
    return (
        f"crossover (equation 3): the manifold has the smaller angle below {_count(k, '')} perturbations per update, noise in "
        "all units above."
    )


def _show_network(network: str, rule: str | None, out: Path, asked: _Question) -> None:
    from rulezoo.measures.measured_sites import measured_sites

    found = measured_sites(out, network, rule)
    rows = []
    for one in found:
        site = one.site
        if asked.angle is not None:
            cells = [
                _count(site.perturbations(asked.angle, manifold=manifold) / asked.factor, "cannot be reached")
                for manifold in (False, True)
            ]
        else:
            cells = [
                " → ".join(f"{site.angle(k * asked.factor, manifold=m):.0f}°" for m in (False, True))
                for k in asked.budgets
            ]
        rows.append(
            (
                one.network, one.rule, one.name, f"{site.units:,.0f}", f"{site.rank:.0f}", f"{site.alpha:.2f}", f"{site.rho:.2f}",
                f"{site.ceiling:.0f}°", *cells, _count(site.crossover / asked.factor, "none"), str(one.runs),
            )
        )  # fmt: skip
    columns = (
        ("VNC needs", "NMNC needs") if asked.angle is not None else [f"K = {k:g}" for k in asked.budgets]
    )
    head = ("network", "trained by", "site", "n", "d", "α", "ρ", "ceiling", *columns, "crossover", "runs")
    print_table(rows, head)
    echo()
    what = (
        f"Perturbations per update for an angle of {asked.angle:g}°, by noise in all units (VNC) and in the manifold (NMNC)."
        if asked.angle is not None
        else "Columns K: angle from K perturbations per update, VNC → NMNC."
    )
    echo(
        f"{what} Crossover: perturbations up to which NMNC has the smaller angle. One perturbation counts as {asked.factor:.3g} by "
        "the running average. n, d, α, ρ and the ceiling are means over stored runs after training."
    )
