"""Do the tests of the rules notice when a line of a rule is wrong? A sample of mutated lines, and the tests that fail.

A mutant is a module with one expression or statement changed: an operator or a comparison replaced, a term dropped, a
constant moved by one, two arguments swapped, a condition negated, a statement left out. Only what computes is mutated:
no docstrings, annotations, imports, texts, specs, nor declarations of options (a default is a choice, not a computation).
Mutants are a random sample of all such places, at least one of each module, from a fixed seed, with one mutation of each.
Each is written into a copy of the source tree, where the tests of its family run until one fails. A mutant that every test
passes has survived; if it computes what the original does, ``EQUIVALENT`` gives the reason.

Each outcome is a line of ``mutants.jsonl`` as soon as it is known, and is not computed again. ``--survivors`` runs those
that survived once more, after tests were added, and on the parts of the general suites that concern their rules, too.
``--report`` writes ``mutants.md`` without running anything.

    python benchmarks/mutants.py [--minutes 60] [--survivors] [--module PART]
    python benchmarks/mutants.py --list | --todo | --report
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS, TABLE = HERE / "mutants.jsonl", HERE / "mutants.md"
SEED, SAMPLE, GOAL = 0, 60, 0.9
SECONDS = 600  # a run of tests that takes longer does not end because of the mutant
SOURCES = ("rulezoo", "plugins", "tasks", "evaluations", "tests", "docs", "pyproject.toml", "README.md")
GENERAL = ("tests/test_plausibility.py", "tests/test_conformance.py")  # with -k for the rules of the module


@dataclass(frozen=True)
class Suite:
    """What tests a module.

    Attributes:
        tests: files of tests of the family.
        rules: names of the rules by which the general suites are filtered; empty = they do not run.
    """

    tests: tuple[str, ...]
    rules: tuple[str, ...] = ()


_PLUGINS = "plugins/rulezoo_plugins"
MODULES: dict[str, Suite] = {
    f"{_PLUGINS}/equilibrium/rules.py": Suite(
        ("tests/rules/test_equilibrium.py",), ("equilibrium-propagation", "symmetric-equilibrium-propagation")
    ),
    f"{_PLUGINS}/contrastive/rules.py": Suite(
        ("tests/rules/test_contrastive.py",), ("contrastive-hebbian-learning", "dual-propagation")
    ),
    f"{_PLUGINS}/target_propagation/rules.py": Suite(
        ("tests/rules/test_target_propagation.py",), ("target-propagation",)
    ),
    f"{_PLUGINS}/direct_feedback/direct_kolen_pollack.py": Suite(
        ("tests/rules/direct_feedback/test_variants.py",), ("direct-kolen-pollack",)
    ),
    f"{_PLUGINS}/direct_feedback/conditioned.py": Suite(
        ("tests/rules/direct_feedback/test_variants.py",), ("ndfa",)
    ),
    f"{_PLUGINS}/direct_feedback/random_targets.py": Suite(
        ("tests/rules/direct_feedback/test_variants.py",), ("direct-random-target-projection",)
    ),
    f"{_PLUGINS}/direct_feedback/visits.py": Suite(("tests/rules/direct_feedback/test_variants.py",)),
    f"{_PLUGINS}/forward_only/goodness.py": Suite(
        ("tests/rules/test_forward_only.py",), ("forward-forward", "self-contrastive")
    ),
    f"{_PLUGINS}/forward_only/pepita.py": Suite(("tests/rules/test_forward_only.py",), ("pepita",)),
    f"{_PLUGINS}/hebbian/rules.py": Suite(("tests/rules/test_hebbian.py",), ("softhebb", "oja", "sanger")),
    f"{_PLUGINS}/dendrites/bursts.py": Suite(("tests/rules/test_dendrites.py",), ("burst-ccn",)),
    f"{_PLUGINS}/dendrites/microcircuit.py": Suite(("tests/rules/test_dendrites.py",), ("dendritic",)),
    f"{_PLUGINS}/perturbations/rules.py": Suite(
        ("tests/rules/test_perturbations.py",),
        ("weight-perturbation", "activity-node-perturbation", "decorrelated-node-perturbation"),
    ),
    f"{_PLUGINS}/forward_gradients/rules.py": Suite(
        ("tests/rules/test_forward_gradients.py",), ("forward-gradient",)
    ),
    f"{_PLUGINS}/local_losses/rules.py": Suite(
        ("tests/rules/test_local_losses.py",), ("local-prediction", "local-similarity", "greedy")
    ),
    f"{_PLUGINS}/noise_regression/delta.py": Suite(("tests/rules/test_noise_regression.py",)),
    f"{_PLUGINS}/noise_regression/direct.py": Suite(
        ("tests/rules/test_noise_regression.py",), ("nmnc-regression",)
    ),
    f"{_PLUGINS}/noise_regression/layerwise.py": Suite(
        ("tests/rules/test_noise_regression.py",), ("nmnc-layerwise-regression",)
    ),
    f"{_PLUGINS}/spiking/alignment.py": Suite(("tests/rules/test_spiking.py",), ("spike-timing",)),
    f"{_PLUGINS}/spiking/e_prop.py": Suite(("tests/rules/test_spiking.py",), ("e-prop",)),
    f"{_PLUGINS}/spiking/ottt.py": Suite(("tests/rules/test_spiking.py",), ("ottt",)),
    f"{_PLUGINS}/spiking/structure.py": Suite(("tests/rules/test_spiking.py",)),
    f"{_PLUGINS}/predictive_coding/rules.py": Suite(
        ("tests/rules/test_predictive_coding.py",), ("predictive-coding", "fixed-prediction-coding")
    ),
    "rulezoo/nets/spiking.py": Suite(("tests/test_nets.py", "tests/rules/test_spiking.py")),
}

# (module, before, after) → why no test can tell the mutant from the original.
EQUIVALENT: dict[tuple[str, str, str], str] = {}


# --------------------------------------------------------------------------------------------------------------------
# Mutations: a node of the syntax tree → what may stand in its place

Change = Callable[[], ast.AST]

_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


def mutations(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What kind of mutation a node allows, and what makes it."""
    match node:
        case ast.BinOp(op=op) if type(op) in _OPERATORS or isinstance(op, ast.BitOr | ast.MatMult):
            if type(op) in _OPERATORS:
                yield "operator", lambda: ast.BinOp(node.left, _OPERATORS[type(op)](), node.right)
            yield "term dropped", lambda: node.left
            if not isinstance(op, ast.Pow | ast.FloorDiv | ast.Mod):
                yield "term dropped", lambda: node.right
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield "sign" if isinstance(node.op, ast.USub) else "negation", lambda: node.operand
        case ast.Compare(ops=[op]):
            for other in _COMPARISONS[type(op)]:
                yield "comparison", lambda other=other: ast.Compare(node.left, [other()], node.comparators)
        case ast.BoolOp(op=op):
            other = ast.Or if isinstance(op, ast.And) else ast.And
            yield "and/or", lambda: ast.BoolOp(other(), node.values)
        case ast.Constant(value=bool()):
            yield "constant", lambda: ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield "constant", lambda: ast.Constant(node.value + 1)
            yield "constant", lambda: ast.Constant(node.value - 1)
        case ast.Call(args=[first, second, *_]) if _may_be_swapped(node):
            if ast.dump(first) != ast.dump(second):
                yield (
                    "arguments swapped",
                    lambda: ast.Call(node.func, [second, first, *node.args[2:]], node.keywords),
                )
        case ast.AugAssign() | ast.Expr():
            yield "statement dropped", ast.Pass
        case ast.If(test=test):
            yield "condition negated", lambda: ast.UnaryOp(ast.Not(), test)
        case ast.IfExp():
            yield (
                "condition negated",
                lambda: ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse),
            )


def _may_be_swapped(call: ast.Call) -> bool:
    """Whether swapped arguments can go unnoticed: one of a type of its own cannot, and some functions are symmetric."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    names = {getattr(argument, "id", "") for argument in call.args[:2]}
    return (
        not any(isinstance(argument, ast.Starred) for argument in call.args)
        and not names & {"self", "net", "loss", "state", "gen", "layer"}
        and called not in ("max", "min", "zip", "isinstance", "getattr", "next", "promote_types", "relaxed")
    )


def computing(node: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The nodes of a tree that compute, each with its function, in the order of the source; an f-string is a text."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Yield):
        return
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) in (
        "hp",
        "cast",
        "TypeVar",
        "Variant",
        "Limit",
    ):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    yield function, node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}"
    skipped = {"annotation", "returns", "decorator_list", "type_params"}
    if isinstance(node, ast.Subscript) and _is_type(node.value):
        return
    for field, value in ast.iter_fields(node):
        if field in skipped:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from computing(child, function)


def _is_type(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in (
        "dict",
        "list",
        "tuple",
        "Callable",
        "Mapping",
        "Sequence",
        "Iterator",
    )


# --------------------------------------------------------------------------------------------------------------------
# The sample


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Attributes:
        place: what is changed: module, function, source, and how many equal ones precede it in the function.
        module: path of the module in the source tree.
        line: line of the change.
        kind: kind of mutation.
        before: the source that is replaced.
        after: what stands in its place.
        at: first and last position of it in the module, in bytes.
        source: digest of the function that it is in.
    """

    place: str
    module: str
    line: int
    kind: str
    before: str
    after: str
    at: tuple[int, int]
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What an outcome belongs to; another function around it makes it another mutant."""
        return self.place, self.after, self.source

    def text(self) -> str:
        """The mutated module."""
        text = (ROOT / self.module).read_bytes()
        return (text[: self.at[0]] + self.after.encode() + text[self.at[1] :]).decode()


def digests(tree: ast.AST, function: str = "") -> dict[str, str]:
    """Name of a function or class → digest of its code, of which docstrings and comments are no part."""
    bare = copy.deepcopy(tree)
    for node in ast.walk(bare):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            del node.body[0]
    found = {function: hashlib.sha256(ast.dump(bare).encode()).hexdigest()[:12]}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found |= digests(node, f"{function}.{node.name}")
    return found


def places(module: str) -> dict[str, list[Mutant]]:
    """All places of a module that can be mutated, each with its mutants."""
    data = (ROOT / module).read_bytes()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[str, list[Mutant]] = {}
    equal: Counter[str] = Counter()
    tree = ast.parse(data)
    code = digests(tree)
    for function, node in computing(tree):
        changes = list(mutations(node))
        if not changes:
            continue
        changed = node.test if isinstance(node, ast.If) else node
        at = (
            starts[changed.lineno - 1] + changed.col_offset,
            starts[changed.end_lineno - 1] + changed.end_col_offset,
        )
        before = data[slice(*at)].decode()
        name = f"{module}:{function}:{type(node).__name__}:{one_line(before)}"
        mutants = []
        for kind, change in changes:
            after = ast.unparse(ast.fix_missing_locations(copy.deepcopy(change())))
            after = after if isinstance(changed, ast.stmt) else f"({after})"
            place = f"{name}:{equal[name]}"
            mutants.append(
                Mutant(place, module, changed.lineno, kind, before, after, at, code.get(function, ""))
            )
        found[mutants[0].place] = mutants
        equal[name] += 1
    return found


def sample() -> list[Mutant]:
    """The mutants: one of each module, and the rest at random from all.

    The order at random is that of hashes, so that a change of one line leaves the rest of the sample as it is.
    """
    every = {name: mutants for module in MODULES for name, mutants in places(module).items()}
    ranks = {name: hashlib.sha256(f"{SEED}:{name}".encode()).hexdigest() for name in every}
    by_rank = sorted(every, key=lambda name: ranks[name])
    firsts = {every[name][0].module: name for name in reversed(by_rank)}
    chosen = {*firsts.values(), *[n for n in by_rank if n not in firsts.values()][: SAMPLE - len(firsts)]}
    return [random.Random(ranks[name]).choice(every[name]) for name in by_rank if name in chosen]


# --------------------------------------------------------------------------------------------------------------------
# The tests


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant: ``killed`` by a test, ``timeout`` (killed, too), or ``survived``."""

    place: str
    module: str
    line: int
    kind: str
    before: str
    after: str
    source: str
    status: str
    by: str
    seconds: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies its mutant."""
        return self.place, self.after, self.source


def commands(module: str, *, general: bool) -> Iterator[list[str]]:
    """Arguments of pytest, the narrowest tests first."""
    suite = MODULES[module]
    yield list(suite.tests)
    if general and suite.rules:
        yield [*GENERAL, "-k", " or ".join(suite.rules)]


class _First:
    """A plugin of pytest that writes the first failure into a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.file.exists():
            self.file.write_text(report.nodeid)


def first_failure(tree: Path, arguments: Sequence[str], seconds: float) -> str | None:
    """The first test that fails, or ``timeout``; ``None`` if none does.

    Tests run in a fork of this process, which has imported torch and nothing of rulezoo.
    """
    noted = tree.parent / "first"
    noted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _test(tree, arguments, noted)
    ends = time.monotonic() + seconds
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
        time.sleep(0.05)
    if noted.exists():
        return noted.read_text()
    code = os.waitstatus_to_exitcode(done[1])
    if code in (0, 5):  # 5: the filter left no test
        return None
    raise SystemExit(
        f"pytest ended with {code} and no failed test; run it by hand: pytest {' '.join(arguments)}"
    )


def _test(tree: Path, arguments: Sequence[str], noted: Path) -> NoReturn:
    """Run tests of a tree, and end the process."""
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        os.setsid()
        os.chdir(tree)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.dont_write_bytecode = True
        sys.path[:0] = [str(tree), *(str(tree / part) for part in ("plugins", "tasks", "evaluations"))]
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments], [_First(noted)])
    finally:
        os._exit(code)


def examine(mutant: Mutant, tree: Path, *, general: bool) -> Outcome:
    """Run the tests on a mutant."""
    began = time.monotonic()
    target = tree / mutant.module
    target.write_text(mutant.text())
    try:
        failures = (
            first_failure(tree, arguments, SECONDS) for arguments in commands(mutant.module, general=general)
        )
        by = next((failure for failure in failures if failure), "")
    finally:
        target.write_bytes((ROOT / mutant.module).read_bytes())
    status = {"": "survived", "timeout": "timeout"}.get(by, "killed")
    of_mutant = {name: value for name, value in asdict(mutant).items() if name != "at"}
    took = round(time.monotonic() - began, 1)
    return Outcome(**of_mutant, status=status, by=by, seconds=took)


def copied(folder: Path) -> Path:
    """A copy of the source tree that tests can run in."""
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    return tree


# --------------------------------------------------------------------------------------------------------------------


def recorded() -> list[Outcome]:
    """All outcomes so far, in the order in which they came."""
    if not RESULTS.exists():
        return []
    return [Outcome(**json.loads(line)) for line in RESULTS.read_text().splitlines()]


def stored() -> dict[tuple[str, str, str], Outcome]:
    """The outcomes so far; of equal mutants the last."""
    return {one.key: one for one in recorded()}


def outstanding(part: str, *, survivors: bool) -> list[Mutant]:
    """The mutants that have no outcome yet, or those that survived and are not known to be equivalent."""
    known, mutants = stored(), [mutant for mutant in sample() if part in mutant.module]
    if not survivors:
        return [mutant for mutant in mutants if mutant.key not in known]
    alive = {key for key, one in known.items() if one.status == "survived" and not reason(one)}
    return [mutant for mutant in mutants if mutant.key in alive]


def run(minutes: float, part: str, *, survivors: bool) -> None:
    """Examine the mutants that are outstanding."""
    import torch  # noqa: F401  once, for the tests of all mutants

    ends, sound = time.monotonic() + 60 * minutes, set[tuple[str, ...]]()
    with tempfile.TemporaryDirectory() as folder:
        tree = copied(Path(folder))
        for mutant in outstanding(part, survivors=survivors):
            if time.monotonic() > ends:
                break
            for arguments in commands(mutant.module, general=survivors):
                if tuple(arguments) not in sound and (failure := first_failure(tree, arguments, SECONDS)):
                    raise SystemExit(f"{failure} fails without any mutation; mend it first")
                sound.add(tuple(arguments))
            outcome = examine(mutant, tree, general=survivors)
            with RESULTS.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            print(
                f"{outcome.status:8} {mutant.module}:{mutant.line} {mutant.kind}: {one_line(mutant.before)}",
                flush=True,
            )


def reason(outcome: Outcome) -> str:
    """Why a survivor is equivalent to the original; empty if it is not known to be."""
    return EQUIVALENT.get((outcome.module, one_line(outcome.before), one_line(outcome.after)), "")


def one_line(text: str) -> str:
    return " ".join(text.split())


def table(outcomes: Sequence[Outcome]) -> str:
    """The report, in Markdown."""
    killed = [one for one in outcomes if one.status != "survived"]
    equivalent = [one for one in outcomes if one.status == "survived" and reason(one)]
    left = [one for one in outcomes if one.status == "survived" and not reason(one)]
    counted, modules = len(outcomes) - len(equivalent), {one.module for one in outcomes}
    first = {one.key for one in recorded() if one.status == "survived"} & {one.key for one in killed}
    lines = [
        "# Mutants of the rules",
        "",
        "Written by `python benchmarks/mutants.py --report`; the script says how mutants are made and examined.",
        "",
        f"Seed {SEED}; {len(outcomes)} of {SAMPLE} mutants have run, of {len(modules)} of {len(MODULES)} modules: "
        + f"{len(killed)} killed, {len(equivalent)} equivalent, "
        + f"{len(left)} survived. Killed of those that are not equivalent: {len(killed)} of {counted}, "
        + f"{len(killed) / max(counted, 1):.0%} (goal: {GOAL:.0%}). "
        + f"{len(first)} of them survived before tests were added for them.",
        "",
        "| module | line | mutation | before | after | outcome |",
        "|---|---|---|---|---|---|",
    ]
    for one in sorted(outcomes, key=lambda o: (o.module, o.line)):
        name = one.module.removeprefix(f"{_PLUGINS}/")
        outcome = f"killed by `{one.by}`" if one.status == "killed" else one.status
        if one.status == "survived" and reason(one):
            outcome = f"equivalent: {reason(one)}"
        before, after = (f"`{_cell(text)}`" for text in (one.before, one.after))
        lines.append(f"| {name} | {one.line} | {one.kind} | {before} | {after} | {outcome} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = one_line(text)
    text = text if len(text) <= 80 else text[:77] + "…"
    return text.replace("|", "\\|")


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no mutant after this time")
    parser.add_argument("--module", default="", help="only modules whose path contains this")
    parser.add_argument("--survivors", action="store_true", help="examine those that survived again")
    parser.add_argument("--list", action="store_true", help="print the sample")
    parser.add_argument("--todo", action="store_true", help="print what is outstanding")
    parser.add_argument("--report", action="store_true", help="write the table")
    given = parser.parse_args()
    if given.list or given.todo:
        for m in sample() if given.list else outstanding(given.module, survivors=given.survivors):
            print(f"{m.module}:{m.line} {m.kind}: {one_line(m.before)} → {one_line(m.after)}")
    elif given.report:
        wanted = {m.key for m in sample()}
        TABLE.write_text(table([one for key, one in stored().items() if key in wanted]))
    else:
        run(given.minutes, given.module, survivors=given.survivors)


if __name__ == "__main__":
    main()
