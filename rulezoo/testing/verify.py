"""``rulezoo verify``: the conformance suites on rules and tasks by name or by file, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rulezoo.discovery.kinds import CLAIM, EVALUATION, KINDS, TASK, in_words
from rulezoo.discovery.plugins import foreign
from rulezoo.discovery.registry import Found, discover
from rulezoo.errors import PluginError, UserError
from rulezoo.specs import EVERY, RuleSpec

if TYPE_CHECKING:
    from rulezoo.options import Value
    from rulezoo.specs import Plausibility
    from rulezoo.testing import CheckResult, TaskNet

PASSED, FAILED, NOT_EXAMINED = 0, 1, 3  #: exit codes; 2 is that of a `rulezoo.errors.UserError`
_MARKS = {"passed": "✓", "failed": "✗", "skipped": "–", "expected failure": "–", "not examined": "!"}


@dataclass(frozen=True)
class Subject:
    """What is to be verified: ``kind`` is ``"rule"``, ``"task"``, …; ``file`` is where it is, if it was named by that."""

    kind: str
    name: str
    found: Found[Any]
    file: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files by which it is found."""
        return [] if self.file is None else [self.file]


@dataclass(frozen=True)
class Report:
    """What the conformance suite says of a rule or task.

    Attributes:
        subject: the rule or task.
        results: of every check, in order.
        options: of the rule or task, defaults included; empty where it could not be made.
        seed: of the networks that were drawn for a rule.
        on: names of the tasks whose networks a rule was checked on, too.
    """

    subject: Subject
    results: tuple[CheckResult, ...]
    options: Mapping[str, Value] = field(default_factory=dict)
    seed: int = 0
    on: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was examined, and no check failed."""
        return self.exit_code == PASSED

    @property
    def examined(self) -> bool:
        """Whether what was to be checked could be looked at: a rule that skips every network was not."""
        return not any(result.outcome == "not examined" for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 = passed, 1 = a check failed, 3 = not examined, and no check failed."""
        if any(result.outcome == "failed" for result in self.results):
            return FAILED
        return PASSED if self.examined else NOT_EXAMINED

    @property
    def counts(self) -> Counter[str]:
        """Outcome → number of checks."""
        return Counter(result.outcome for result in self.results)

    @property
    def plausibility(self) -> Plausibility | None:
        """What a rule declares with these options."""
        spec = self.subject.found.spec
        return spec.plausibility_with(self.options) if isinstance(spec, RuleSpec) else None

    def as_dict(self) -> dict[str, object]:
        """For JSON: the subject, the verdict, and each check with what was measured or went wrong."""
        import msgspec

        from rulezoo.testing.advice import NEXT_STEP
        from rulezoo.testing.verification import marks

        def row(result: CheckResult) -> dict[str, object]:
            common = {
                "check": result.check,
                "net": result.net,
                "promise": result.promise,
                "outcome": result.outcome,
            }
            open_ = result.outcome in ("failed", "not examined")
            failed = {"next_step": NEXT_STEP.get(result.check)} if open_ else {}
            return {**common, "measured": result.measured, "message": result.message, **failed}

        head: dict[str, object] = {
            "kind": self.subject.kind,
            "name": self.subject.name,
            "from": self.subject.found.origin,
        }
        if self.subject.kind == "rule":
            found = {name: msgspec.to_builtins(mark) for name, mark in marks(self).items()}
            head |= {"seed": self.seed, "on": list(self.on), "plausibility": found}
        return {
            **head,
            "ok": self.ok,
            "examined": self.examined,
            "checks": [row(result) for result in self.results],
        }


def subjects(target: str, files: Sequence[Path] = ()) -> list[Subject]:
    """What ``target`` names: one thing by its name, every rule by ``all``, or all of a Python file.

    Args:
        target: a name, ``all``, or the path of a single-file plugin.
        files: other single-file plugins.

    Raises:
        UnknownName: if nothing is called so.
        PluginError: if the file cannot be loaded, or offers nothing.
    """
    path = Path(target)
    if path.suffix == ".py":
        return _of_file(path, files)
    zoo = discover(files)
    if target == EVERY:
        return [Subject("rule", name, found) for name, found in zoo.rules.items()]
    found = [Subject(kind.name, target, zoo.find(kind, target)) for kind in zoo.kinds_of(target)]
    if not found:
        known = [name for kind in KINDS for name in zoo.all(kind)]
        raise zoo.unknown(in_words(), target, known, "rulezoo list, or give a file.py")
    return found


def _of_file(path: Path, files: Sequence[Path]) -> list[Subject]:
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}; give a Python file, or the name of a {in_words()}")
    zoo = discover([*files, path])
    (info,) = [plugin for plugin in zoo.plugins if plugin.distribution == path.name][-1:]
    if not info.ok:
        raise PluginError(f"{path.name}: {info.reason}")
    mine = [
        Subject(kind.name, name, found, path)
        for kind in KINDS
        for name, found in zoo.all(kind).items()
        if (found.distribution, found.version) == (info.distribution, info.version)
    ]
    if not mine:
        raise PluginError(f"{path.name} offers nothing; its hook must return a list of specs")
    return mine


def exit_code(reports: Sequence[Report]) -> int:
    """The code for several subjects: that of a failure, else that of what was not examined, else 0."""
    codes = {report.exit_code for report in reports}
    return next((code for code in (FAILED, NOT_EXAMINED) if code in codes), PASSED)


def verify(
    subject: Subject,
    options: Mapping[str, str],
    root: Path | None = None,
    *,
    seed: int = 0,
    on: Sequence[TaskNet] = (),
    report: Callable[[int, int, str], None] | None = None,
    download: bool = False,
) -> Report:
    """Run the conformance suite.

    Args:
        subject: what is to be verified.
        options: as on the command line; the rest keep their defaults.
        root: the folder of data sets, for a task or an evaluation.
        seed: of the sizes, names and data of networks that are drawn for a rule.
        on: networks of tasks to check a rule or an evaluation on, too; see `rulezoo.testing.task_net`.
        report: called before each check with the number of those done, that of all, and the check's ``id``.
        download: whether missing data sets of a task may be downloaded into ``root``.

    Raises:
        OptionError: if an option does not exist or its value is not allowed.
    """
    from rulezoo.options import configure

    spec, made = subject.found.spec, None
    if options and subject.kind == CLAIM.name:
        raise UserError(f"claim {subject.name!r} has no options; leave -o out")
    if words := spec.words(options):
        with foreign(f"{subject.kind} {subject.name!r} cannot be made", hint=spec.advice):
            made = configure(spec.load(), subject.name, words)
    results = _results(subject, made, options, root, seed, on, report, download=download)
    names = tuple(task.name for task in on) if subject.kind != TASK.name else ()
    return Report(subject, tuple(results), _resolved(subject, made), seed, names)


def _results(
    subject: Subject,
    made: Any,  # noqa: ANN401  what was made with options, if any were given
    options: Mapping[str, str],
    root: Path | None,
    seed: int,
    on: Sequence[TaskNet],
    report: Callable[[int, int, str], None] | None,
    *,
    download: bool,
) -> list[CheckResult]:
    from rulezoo.testing import check_claim, check_evaluation, check_rule, check_task

    spec = subject.found.spec
    match subject.kind:
        case TASK.name:
            from rulezoo.comparison.inspection import inspect

            (found,) = inspect([(subject.name, options)], root, download=download, files=subject.files)
            return check_task(made or spec, spec=spec, root=root, found=found, report=report)
        case EVALUATION.name:
            return check_evaluation(made or spec, spec=spec, root=root, on=on, report=report)
        case CLAIM.name:
            return check_claim(spec, zoo=discover(subject.files), report=report)
    return check_rule(made or spec, spec=spec, seed=seed, on=on, report=report)


def _resolved(subject: Subject, made: Any) -> dict[str, Value]:  # noqa: ANN401  a rule
    """Every option of a rule with its value; none where it cannot be made, as the checks then say."""
    with suppress(Exception):
        return dict((made or subject.found.spec.load()()).resolved())
    return {}


def lines(report: Report) -> Iterator[str]:
    """The report as text: a line for each check and outcome, below a failure its reason and the next step."""
    from rulezoo.testing import verification
    from rulezoo.testing.advice import NEXT_STEP
    from rulezoo.text import clean

    subject = report.subject
    drawn = f"; networks of seed {report.seed}" if subject.kind == "rule" else ""
    yield clean(f"{subject.name} ({subject.kind}, {subject.found.origin}{drawn})")
    everywhere = Counter(result.check for result in report.results)
    for group in _alike(report.results):
        first = group[0]
        nets = "" if len(group) == everywhere[first.check] else f" [{', '.join(r.net or '' for r in group)}]"
        yield f"{_MARKS[first.outcome]} {first.check}{nets}: {clean(_message(group))}"
        if first.outcome in ("failed", "not examined"):
            yield f"    why: {clean(first.message)}"
            yield f"    next: {NEXT_STEP.get(first.check, 'see the check in rulezoo.testing')}"
    yield from verification.lines(report)
    yield _verdict(report)


def _message(group: Sequence[CheckResult]) -> str:
    """What was measured, net by net where it differs; else why the check was skipped, or what was promised."""
    if group[0].outcome in ("skipped", "expected failure"):
        return group[0].message
    measured = [result.measured for result in group]
    if group[0].outcome in ("failed", "not examined") or not any(measured):
        return group[0].promise
    return measured[0] if len(set(measured)) == 1 else "; ".join(f"{r.net} {r.measured}" for r in group)


def _alike(results: Sequence[CheckResult]) -> list[list[CheckResult]]:
    """Results of one check that say the same on several networks, together."""
    groups: dict[tuple[str, ...], list[CheckResult]] = {}
    for result in results:
        groups.setdefault((result.check, result.outcome, result.message), []).append(result)
    order = list(dict.fromkeys(result.check for result in results))
    return sorted(groups.values(), key=lambda group: order.index(group[0].check))


def _verdict(report: Report) -> str:
    failed = list(dict.fromkeys(r.check for r in report.results if r.outcome == "failed"))
    counts = ", ".join(f"{report.counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
    name = report.subject.name
    if failed:
        return f"{name} fails {', '.join(failed)}: {counts}"
    return (
        f"{name} keeps every promise: {counts}" if report.examined else f"{name} was not examined: {counts}"
    )
