"""``rulezoo show``."""

from __future__ import annotations

from typing import Any

import click

from rulezoo.cli.common import print_table, registry
from rulezoo.cli.output import echo
from rulezoo.discovery.plugins import foreign
from rulezoo.discovery.registry import Found, Registry
from rulezoo.options import Option, as_text, declared
from rulezoo.specs import RuleSpec, TaskSpec
from rulezoo.task import Task


@click.command()
@click.argument("name")
def show(name: str) -> None:
    """Show what a rule or task is, and its options."""
    zoo = registry()
    rules = {known for kind, known in zoo.clashes if kind == "rule"} | {*zoo.rules}
    tasks = {known for kind, known in zoo.clashes if kind == "task"} | {*zoo.tasks}
    name = name if name in rules | tasks else zoo.current(name)
    if name not in rules | tasks:
        raise zoo.unknown("rule or task", name, [*zoo.rules, *zoo.tasks], "rulezoo list")
    if name in rules:
        _show_rule(zoo, name)
    if name in tasks:
        _show_task(zoo, name)


def _show_rule(zoo: Registry, name: str) -> None:
    found = zoo.rule(name)
    spec: RuleSpec = found.spec
    _print_facts("rule", found, {"family": spec.family, "paper": spec.reference or "none named"})
    if spec.plausibility is not None:
        echo()
        marks = [(name.replace("_", " "), mark) for name, mark in spec.plausibility.marks().items()]
        print_table(marks, ("plausibility", ""))
    if spec.variants:
        print_table([(variant.words(),) for variant in spec.variants])
    _print_options(declared(zoo.rule_class(name)))


def _show_task(zoo: Registry, name: str) -> None:
    found = zoo.task(name)
    spec: TaskSpec = found.spec
    download = "none: it comes with rulezoo" if spec.embedded else "needed, unless it is in --data"
    _print_facts("task", found, {"data": spec.reference or "not named", "download": download})
    task = zoo.make_task(name, {})
    with foreign(f"task {name!r} of {found.origin} cannot be shown"):
        facts = _task_facts(task)
    echo()
    print_table(facts)
    _print_options(declared(type(task)))


def _print_facts(kind: str, found: Found[Any], facts: dict[str, str]) -> None:
    spec = found.spec
    echo(f"{spec.name} ({kind})")
    print_table([(spec.summary,)])
    echo()
    tags = {"tags": ", ".join(spec.tags)} if spec.tags else {}
    print_table(
        [*(facts | tags).items(), ("from", found.origin), ("class", spec.target), ("version", spec.version)]
    )


def _task_facts(task: Task) -> list[tuple[str, str]]:
    budget = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in task.budget.resolved().items())
    facts = [("metric", f"{task.metric}, {task.chance:g} by chance"), ("budget", budget)]
    return [*facts, ("sites", ", ".join(_sites(task)) or "not known")]


def _sites(task: Task) -> list[str]:
    import torch

    from rulezoo.net import Site

    try:
        with torch.device("meta"):  # shapes without numbers: no time, no memory, no random draw
            network = task.network()
    except Exception:  # noqa: BLE001  a network that needs real numbers is not worth its time here
        return []
    return [f"{name} ({module.kind})" for name, module in network.named_modules() if isinstance(module, Site)]


def _print_options(options: dict[str, Option]) -> None:
    if not options:
        echo("\nno options")
        return
    echo()
    rows = [(o.name, as_text(o.default), o.bounds, o.doc) for o in options.values()]
    print_table(rows, ("option", "default", "legal", "meaning"))
