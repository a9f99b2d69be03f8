"""``rulezoo list``."""

from __future__ import annotations

import click

from rulezoo.cli.common import print_table, registry
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.discovery.kinds import KINDS


@click.command(
    "list",
    cls=HelpfulCommand,
    examples=(
        ("All rules", "rulezoo list rules"),
        ("Tasks on images", "rulezoo list tasks --tag vision"),
    ),
)
@click.argument("kind", type=click.Choice([kind.plural for kind in KINDS]), required=False)
@click.option("--tag", metavar="WORD", help="Only those with this tag.")
def listing(kind: str | None, tag: str | None) -> None:
    """List rules, tasks, evaluations and claims."""
    found = registry()
    chosen = [one for one in KINDS if kind in (None, one.plural)]
    for place, one in enumerate(chosen):
        echo("\n" * bool(place), nl=False)
        shown = [f for f in found.all(one).values() if tag is None or tag in f.spec.tags]
        print_table(
            [(f.spec.name, f.origin, f.spec.summary) for f in shown], (one.name, "from", "what it is")
        )
