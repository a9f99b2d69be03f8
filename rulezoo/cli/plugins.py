"""``rulezoo plugins``."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from rulezoo.cli.common import print_table
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.discovery.kinds import KINDS
from rulezoo.discovery.registry import PluginInfo, discover
from rulezoo.errors import unknown
from rulezoo.text import clean_lines


@click.command(
    cls=HelpfulCommand,
    examples=(("Why a plugin failed to load", "rulezoo plugins --traceback my-plugin"),),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--traceback", "name", metavar="NAME", help="Plugin or distribution whose traceback to show.")
def plugins(as_json: bool, name: str | None) -> None:
    """List the plugins and their problems."""
    found = discover().plugins
    if name is not None:
        _print_tracebacks(found, name)
    elif as_json:
        echo(json.dumps([plugin.as_dict() for plugin in found], indent=2))
    else:
        rows = [
            (p.name, p.distribution, p.version, *(p.offers[kind.name] for kind in KINDS), p.reason or "ok")
            for p in found
        ]
        print_table(rows, ("plugin", "distribution", "version", *(kind.plural for kind in KINDS), "state"))


def _print_tracebacks(found: Sequence[PluginInfo], name: str) -> None:
    chosen = [plugin for plugin in found if name in (plugin.name, plugin.distribution)]
    if not chosen:
        known = {word for plugin in found for word in (plugin.name, plugin.distribution)}
        raise unknown("plugin", name, sorted(known), "rulezoo plugins")
    for plugin in chosen:
        said = plugin.traceback or plugin.reason or "It loaded without an error."
        echo(clean_lines(f"{plugin.name} of {plugin.distribution} {plugin.version}\n{said.rstrip()}"))
