"""``rulezoo list``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rulezoo.cli.common import print_table, registry
from rulezoo.cli.output import echo
from rulezoo.discovery.registry import Found


@click.command("list")
@click.argument("kind", type=click.Choice(["rules", "tasks"]), required=False)
@click.option("--tag", metavar="WORD", help="Only those with this tag.")
def listing(kind: str | None, tag: str | None) -> None:
    """List the rules and tasks there are."""
    found = registry()
    if kind != "tasks":
        _print("rule", found.rules, tag)
    if kind is None:
        echo()
    if kind != "rules":
        _print("task", found.tasks, tag)


def _print(kind: str, found: Mapping[str, Found[Any]], tag: str | None) -> None:
    shown = [f for f in found.values() if tag is None or tag in f.spec.tags]
    print_table([(f.spec.name, f.origin, f.spec.summary) for f in shown], (kind, "from", "what it is"))
