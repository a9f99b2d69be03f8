"""Writes what can be derived: rules.md, tasks.md, cli.md, api.md, drawings, the page of the claims and its figures, parts of README.md.

    python docs/generate.py            # write
    python docs/generate.py --check    # exit 1 if a file is not up to date, and say which

The tests run the check, so none of these can rot.
"""

from __future__ import annotations

import inspect
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import api
import click
import drawings
import repeated

from rulezoo.claims.design import PROFILES
from rulezoo.claims.installed import findings as claims_of
from rulezoo.claims.report import Finding
from rulezoo.claims.report import render as render_claims
from rulezoo.cli import COMMANDS, cli
from rulezoo.discovery.registry import Found, Registry, discover
from rulezoo.leaderboard import formats, overview, plausibility, tables, verified, words
from rulezoo.leaderboard.board import Cell
from rulezoo.leaderboard.grid import arrange
from rulezoo.leaderboard.rows import DEFAULT
from rulezoo.options import as_text, declared
from rulezoo.report.figures import cost
from rulezoo.report.findings import Findings
from rulezoo.report.pictures import style
from rulezoo.results.records import Record
from rulezoo.results.store import Store
from rulezoo.specs import RuleSpec
from rulezoo.tuning import records as tunings

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "leaderboard" / "claims"
BOARDS = (
    "lenet",
    "tiny-imagenet",
    "tuned",
)  # folders of leaderboard/ whose README holds the table of their runs
PUBLISHED = ROOT / "leaderboard" / "published"  # runs in the settings of published numbers
ZOO = ROOT / "leaderboard" / "zoo"  # every rule, on a task or two for each kind of network
NETWORKS = {  # mark in the README of ZOO → tasks whose table it holds
    "feed-forward": ("digits-cnn", "digits-mlp"),
    "recurrent": ("digits-rnn",),
    "spiking": ("digits-snn",),
}
QUESTIONS = {  # claim → what it asks, in the README's table of verdicts
    "alignment": "Does the Jacobian align with the manifold of activity?",
    "dimension": "Does the manifold's dimension grow slowly with the network?",
    "cifar": "Is NMNC more accurate than vanilla noise correlation (VNC) on CIFAR-10, with 8 perturbed examples per site and step?",
    "rnn": "The same on recurrent networks?",
    "imagenet": "The same on an AlexNet, with direct and with layerwise feedback?",
    "primate": "Are NMNC's representations closer to monkey IT and V4 than VNC's?",
    "width": "Does what NMNC saves in perturbations grow with the network's width?",
    "gap": "Is NMNC more accurate than VNC, FA and DFA, each at its best learning rate?",
    "auto": "Is NMNC with a rank that it chooses itself as good as with the best fixed one, and as VNC?",
    "mirror": "Does a weight mirror need fewer perturbations in the manifold?",
}
TUNED = ROOT / "leaderboard" / "tuned"  # the records behind the table and the picture of the README


def pages() -> dict[Path, str]:
    """Path → content of everything that is generated."""
    registry = discover()
    built_in = {name: found for name, found in registry.rules.items() if found.distribution == "rulezoo"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = {
        "board": _short_table(registry, TUNED),
        "claims": _verdicts(claims := _built_in_claims(registry)),
    }
    return {
        ROOT / "README.md": _filled(readme, parts),
        **{path: _board(registry, path) for path in (ROOT / "leaderboard" / n / "README.md" for n in BOARDS)},
        ZOO / "README.md": _zoo(registry),
        PUBLISHED / "README.md": _filled(
            (PUBLISHED / "README.md").read_text(encoding="utf-8"), {"numbers": repeated.table(PUBLISHED)}
        ),
        TUNED / "score-against-cost.svg": _picture(registry, TUNED),
        ROOT / "docs" / "rules.md": "\n".join(_rules(registry, built_in)) + "\n",
        ROOT / "docs" / "tasks.md": "\n".join(_tasks(registry)) + "\n",
        ROOT / "docs" / "decisions" / "README.md": "\n".join(_decisions()) + "\n",
        ROOT / "docs" / "cli.md": "\n".join(_commands()) + "\n",
        ROOT / "docs" / "api.md": "\n".join(api.lines()).rstrip() + "\n",
        **{ROOT / "docs" / "figures" / name: drawn for name, drawn in drawings.drawings().items()},
        **{CLAIMS / name: content.decode() for name, content in render_claims(claims).items()},
    }


def _filled(page: str, parts: dict[str, str]) -> str:
    """A page with what is generated between its marks."""
    for name, content in parts.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", page, flags=re.DOTALL)
    return page


def _board(registry: Registry, page: Path) -> str:
    return _filled(page.read_text(encoding="utf-8"), {"board": _table(registry, page.parent)})


def _zoo(registry: Registry) -> str:
    """The page of the zoo: a table for each kind of network with the rules that serve it, and why the others do not."""
    parts = {mark: _table(registry, ZOO, only) for mark, only in NETWORKS.items()}
    records = Store(ZOO).read().records
    reasons = {(r.asked.task, r.reason or "", r.asked.rule) for r in records if r.status == "skipped"}
    skipped: dict[tuple[str, str], list[str]] = {}
    for task, reason, rule in sorted(reasons):
        skipped.setdefault((task, reason), []).append(f"`{rule}`")
    lines = [f"| {task} | {reason} | {', '.join(rules)} |" for (task, reason), rules in skipped.items()]
    parts["skipped"] = "\n".join(["| task | reason | rules |", "|---|---|---|", *lines])
    parts["floor"] = "\n".join(_below_the_floor(records))
    return _filled((ZOO / "README.md").read_text(encoding="utf-8"), parts)


def _below_the_floor(records: Sequence[Record]) -> Iterator[str]:
    """A line for each task with the rules that, as their authors set them, do worse than a read-out of untrained layers."""
    scores: dict[str, dict[str, list[float]]] = {}
    for r in records:
        if r.status == "ok" and not r.changed and "test" in r.scores:
            scores.setdefault(r.asked.task, {}).setdefault(r.asked.rule, []).append(100 * r.scores["test"])
    for task, found in sorted(scores.items()):
        means = {rule: statistics.mean(values) for rule, values in found.items()}
        below = [
            f"`{rule}` {mean:.1f}"
            for rule, mean in sorted(means.items(), key=lambda item: item[1])
            if mean < means["frozen"]
        ]
        yield f"- `{task}`, where `frozen` has {means['frozen']:.1f} %: {', '.join(below) or 'none'}"


def _table(registry: Registry, folder: Path, tasks: Sequence[str] = ()) -> str:
    """The leaderboard of a folder, or of some of its tasks with the rules that serve one of them."""
    found = _findings(registry, folder, tasks)
    return formats.render(overview.of(found.grid, found.board, registry.specs()), "md").strip()


def _short_table(registry: Registry, folder: Path) -> str:
    """The columns of the leaderboard by which a reader chooses: the settings of the rules' authors, plausibility as a strip."""
    found = _findings(registry, folder)
    board = overview.of(found.grid, found.board, registry.specs())
    columns = {column.head: column for column in tables.columns(board) if not column.group}
    marks = [
        field
        for field in plausibility.columns(line.plausibility for line in board.lines)
        if field != "signal"
    ]
    letters = " ".join(plausibility.feature(field).letter for field in marks)
    heads = [
        "rule",
        "% of backprop",
        "Δ points",
        "cost",
        letters,
        "error signal",
        *(one.label for one in board.columns),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|--:|--:|---|---|" + "--:|" * len(board.columns)]
    for place, line in enumerate(board.lines):
        if line.default is None:
            continue
        strip = [
            plausibility.symbol(line.plausibility, field, words.verified_marks(line))
            for field in (*marks, "signal")
        ]
        numbers = [_written(columns[head].cells[place]) for head in heads[1:4]]
        scores = [_score(cell) for cell in line.default.cells]
        lines.append(f"| {' | '.join([line.label, *numbers, ' '.join(strip[:-1]), strip[-1], *scores])} |")
    named = ", ".join(
        f"{plausibility.feature(field).letter} {plausibility.feature(field).name}" for field in marks
    )
    metrics = ", ".join(dict.fromkeys(column.metric for column in board.columns))
    legend = (
        f"Rules as their authors set them; {metrics} in % on test data, mean ± SD, n = {board.seeds} seeds; intervals are 95 % CIs. "
        "% of backprop: chance = 0, backprop = 100. Δ: difference to backprop, ▲ better, ▼ worse, ≈ the interval contains 0. "
        f"Cost: time of a training step, in multiples of backprop's. ● implausible feature, ○ free of it, ✓ verified: {named}."
    )
    return "\n".join([*lines, "", legend])


def _written(parts: tables.Parts) -> str:
    """Numbers of a cell, without references to footnotes."""
    text = " ".join(
        part.text for part in parts if part.text and (part.is_number or part.text in words.SIGNS.values())
    )
    return text.replace("[", r"\[").replace("]", r"\]")


def _score(cell: Cell | None) -> str:
    mean, sd = words.score(cell)
    text = f"{mean} ± {sd}" if sd else mean
    return f"**{text}**" if cell and cell.best else text


def _picture(registry: Registry, folder: Path) -> str:
    found = _findings(registry, folder)
    ranking = found.overview.rankings[0]
    assert ranking.name == DEFAULT, "the picture shows what the README's table has"
    with style():
        figure = cost(found, ranking)
    assert figure is not None
    return figure.svg.decode()


def _findings(registry: Registry, folder: Path, tasks: Sequence[str] = ()) -> Findings:
    """What is stored in a folder, or of some tasks; results whose code has changed since are marked as such."""
    store = Store(folder)
    records, tuned = store.read().records, tunings.read(store).tunings
    if tasks:
        served = {r.asked.rule for r in records if r.asked.task in tasks and r.status != "skipped"}
        records = [r for r in records if r.asked.task in tasks and r.asked.rule in served]
        tuned = [t for t in tuned if t.asked.task in tasks and t.asked.rule in served]
    grid = arrange(records, tunings=tuned, task_specs=registry.task_specs())
    return Findings(grid, registry, verifications=verified.stored(store, registry)[0])


def _built_in_claims(registry: Registry) -> list[Finding]:
    """What is stored of the claims that come with rulezoo."""
    found, broken = claims_of(registry, CLAIMS, aged=True)
    assert not any(registry.claims[name].distribution == "rulezoo" for name, _ in broken), broken
    return [f for f in found if registry.claims[f.claim.name].distribution == "rulezoo"]


def _verdicts(findings: Sequence[Finding]) -> str:
    """A line for each claim: its question, and its verdict at each scale at which one was run."""
    assert {f.claim.name for f in findings} == set(QUESTIONS), "every claim has a question in the README"
    by_profile = {(f.claim.name, f.profile): f for f in findings}
    run = [p for p in PROFILES if any(f.evidence.done for f in findings if f.profile == p)]
    lines = [
        f"| question | {' | '.join(f'{p} profile' for p in run)} | command |",
        "|---" * (len(run) + 2) + "|",
    ]
    for name, question in QUESTIONS.items():
        states = [_verdict(by_profile[name, profile]) for profile in run]
        lines.append(f"| {question} | {' | '.join(states)} | `rulezoo claims show {name}` |")
    return "\n".join(lines)


def _verdict(finding: Finding) -> str:
    if not finding.verdict:
        return finding.state
    old = f"; {finding.caveat}" if finding.caveat else ""
    return f"{finding.verdict.word} ({finding.verdict.counts()}{old})"


def _rules(registry: Registry, rules: dict[str, Found[RuleSpec]]) -> Iterator[str]:
    yield "# Rules\n\nGenerated by `python docs/generate.py`; `rulezoo show NAME` prints the same.\n"
    families: dict[str, list[str]] = {}
    for name, found in rules.items():
        families.setdefault(found.spec.family, []).append(f"[`{name}`](#{name})")
    yield "| family | rules |\n|---|---|"
    yield from (f"| {family} | {', '.join(links)} |" for family, links in families.items())
    yield ""
    explained: dict[str, str] = {}  # module → the rule below which its text stands
    for name, found in rules.items():
        cls = registry.rule_class(name)
        yield f"## {name}\n\n{found.spec.summary}\n"
        if found.spec.reference:
            yield f"Paper: {found.spec.reference}\n"
        if found.spec.plausibility:
            marks = found.spec.plausibility.marks()
            yield "; ".join(f"{plausibility.name(field)}: {mark}" for field, mark in marks.items()) + "\n"
        if found.spec.variants:
            yield "; ".join(plausibility.variant(one) for one in found.spec.variants) + "\n"
        yield from (f"$$\n{line}\n$$\n" for line in found.spec.formula)
        yield from _formulas(name, cls.__module__, explained)
        yield from _options(cls)


def _formulas(rule: str, module: str, explained: dict[str, str]) -> Iterator[str]:
    """The text at the top of a rule's module: papers, formulas, choices and deviations; once for each module."""
    first = explained.setdefault(module, rule)
    if first != rule:
        yield f"Formulas and deviations: see [{first}](#{first}).\n"
    elif text := inspect.getdoc(sys.modules[module]):
        yield f"{text}\n"


_VALIDATION_FOLDERS = """Tiny-ImageNet is distributed with all validation images in one folder. This moves each into a folder that is called as its
class, as the tasks expect:

```text
from pathlib import Path

val = Path("tiny-imagenet-200/val")
for line in (val / "val_annotations.txt").read_text().splitlines():
    image, label = line.split("\\t")[:2]
    (val / label).mkdir(exist_ok=True)
    (val / "images" / image).rename(val / label / image)
(val / "images").rmdir()
```
"""


def _tasks(registry: Registry) -> Iterator[str]:
    yield "# Tasks\n\nGenerated by `python docs/generate.py`; `rulezoo show NAME` prints the same.\n"
    yield _VALIDATION_FOLDERS
    for name, found in registry.tasks.items():
        if found.distribution != "rulezoo":
            continue
        cls = registry.task_class(name)
        spec, budget = found.spec, cls.budget
        chance = f"chance by the {spec.selects}" if spec.is_family else f"chance {cls().chance:.3g}"
        yield f"## {name}\n\n{spec.summary}\n\nData: {spec.reference}\n"
        if spec.is_family:
            yield f"A family of tasks: name one as `{name}:{spec.selects.upper()}`, such as `{name}:{spec.example}`.\n"
        if spec.requires:
            yield f"Needs `pip install '{spec.requires}'`.\n"
        yield (
            f"{cls.metric}, {chance}; {budget.epochs} epochs of batches of {budget.batch}, "
            f"{budget.optimizer}, learning rate {budget.lr:g}, {budget.schedule}\n"
        )
        yield from _options(cls)


def _decisions() -> Iterator[str]:
    """The list of the decisions, the newest first."""
    yield "# Decisions\n\nWhy rulezoo is built as it is: context, options, choice. Generated by `python docs/generate.py`.\n"
    yield "| date | decision |\n|---|---|"
    for page in sorted((ROOT / "docs" / "decisions").glob("2*.md"), reverse=True):
        date = page.name[:10]
        heading = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        title = heading.removeprefix(f"{date}: ")
        yield f"| {date} | [{title[0].upper()}{title[1:]}]({page.name}) |"


def _options(cls: type) -> Iterator[str]:
    if not declared(cls):
        return
    yield "| option | default | legal | meaning |"
    yield "|---|---|---|---|"
    for option in declared(cls).values():
        yield f"| `{option.name}` | {as_text(option.default)} | {option.bounds} | {option.doc} |"
    yield ""


def _commands() -> Iterator[str]:
    yield "# Commands\n\nGenerated by `python docs/generate.py`.\n"
    context = click.Context(cli, info_name="rulezoo", terminal_width=100, max_content_width=100)
    yield f"```\n{cli.get_help(context)}\n```\n"
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        inner = click.Context(
            command, info_name=name, parent=context, terminal_width=100, max_content_width=100
        )
        yield f"## rulezoo {name}\n\n```\n{command.get_help(inner)}\n```\n"
        for part, sub in getattr(command, "commands", {}).items():
            deeper = click.Context(
                sub, info_name=part, parent=inner, terminal_width=100, max_content_width=100
            )
            yield f"### rulezoo {name} {part}\n\n```\n{sub.get_help(deeper)}\n```\n"


def main() -> None:
    """Write or check."""
    stale = [
        path for path, content in pages().items() if not path.exists() or path.read_text("utf-8") != content
    ]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not up to date: run `python docs/generate.py`")
        sys.exit(bool(stale))
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
