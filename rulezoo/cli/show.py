"""``rulezoo show``."""

from __future__ import annotations

from typing import Any

import click

from rulezoo.cli.common import print_table, registry
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.discovery.kinds import CLAIM, EVALUATION, KINDS, in_words
from rulezoo.discovery.plugins import foreign
from rulezoo.discovery.registry import Found, Registry
from rulezoo.leaderboard import plausibility
from rulezoo.options import Option, as_text, declared
from rulezoo.specs import EvaluationSpec, RuleSpec, TaskSpec
from rulezoo.task import Task


@click.command(
    cls=HelpfulCommand,
    examples=(("A rule, its paper and its options", "rulezoo show nmnc"),),
)
@click.argument("name")
def show(name: str) -> None:
    """Show a rule, task, evaluation or claim, and its options."""
    zoo = registry()
    name = zoo.current(name)
    kinds = zoo.kinds_of(name)
    if not kinds:
        known = [one for kind in KINDS for one in zoo.all(kind)]
        raise zoo.unknown(in_words(), name, known, "rulezoo list")
    for kind in kinds:
        _SHOWN[kind.name](zoo, name)


def _show_rule(zoo: Registry, name: str) -> None:
    found = zoo.rule(name)
    spec: RuleSpec = found.spec
    _print_facts("rule", found, {"family": spec.family, "paper": spec.reference or "none named"})
    if spec.plausibility is not None:
        echo()
        marks = [(plausibility.name(field), mark) for field, mark in spec.plausibility.marks().items()]
        print_table(marks, ("plausibility", ""))
    if spec.variants:
        print_table([(plausibility.variant(variant),) for variant in spec.variants])
    _print_options(declared(zoo.rule_class(name)))


def _show_task(zoo: Registry, name: str) -> None:
    found = zoo.task(name)
    spec: TaskSpec = found.spec
    download = "none: it comes with rulezoo" if spec.embedded else "needed, unless it is in --data"
    requires = {"requires": spec.requires} if spec.requires else {}
    _print_facts("task", found, {"data": spec.reference or "not named", "download": download} | requires)
    if spec.is_family:
        full = f"{name}:{spec.selects.upper()}"
        echo()
        print_table([("family", f"name one of its tasks as {full}, such as {name}:{spec.example}")])
        _print_options(declared(zoo.task_class(name)))
        return
    task = zoo.make_task(name, {})
    with foreign(f"task {name!r} of {found.origin} cannot be shown"):
        facts = _task_facts(task)
    echo()
    print_table(facts)
    _print_options({option: one for option, one in declared(type(task)).items() if option != spec.selects})


def _show_evaluation(zoo: Registry, name: str) -> None:
    found = zoo.evaluation(name)
    spec: EvaluationSpec = found.spec
    facts = {"reference": spec.reference or "none named", "data": spec.data or "none but the task's"}
    _print_facts("evaluation", found, facts | ({"requires": spec.requires} if spec.requires else {}))
    evaluation = zoo.load(EVALUATION, name)
    echo()
    print_table([("value on the leaderboard", evaluation.headline_in_words())])
    _print_options(declared(evaluation))


def _show_claim(zoo: Registry, name: str) -> None:
    found = zoo.find(CLAIM, name)
    _print_facts("claim", found, {"source": found.spec.reference or "none named"})
    claim = zoo.claim(name)
    echo()
    print_table([("verdict rule", claim.criterion.verdict_rule)])
    echo()
    rows = [(profile, study.runs, study.duration, study.scale) for profile, study in claim.studies.items()]
    print_table(rows, ("profile", "runs", "duration", "scale"))


_SHOWN = {"rule": _show_rule, "task": _show_task, "evaluation": _show_evaluation, "claim": _show_claim}


def _print_facts(kind: str, found: Found[Any], facts: dict[str, str]) -> None:
    spec = found.spec
    echo(f"{spec.name} ({kind})")
    print_table([(spec.summary,)])
    echo()
    tags = {"tags": ", ".join(spec.tags)} if spec.tags else {}
    print_table(
        [*(facts | tags).items(), ("from", found.origin), ("target", spec.target), ("version", spec.version)]
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
    print_table(rows, ("option", "default", "allowed", "meaning"))
