"""``rulezoo new``: a plugin of any kind to start from, as one file or as a distribution, from templates."""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rulezoo.discovery.registry import discover
from rulezoo.errors import UserError
from rulezoo.specs import NAME

Kind = Literal["rule", "task", "evaluation", "claim"]


class ScaffoldError(UserError, ValueError):
    """A name that cannot be used, or a place that is taken; the message says why."""


@dataclass(frozen=True)
class Names:
    """One name in all the forms that are needed: ``my-rule`` → ``my_rule``, ``MyRule``, ``rulezoo-my-rule``.

    Attributes:
        kind: ``"rule"``, ``"task"``, ``"evaluation"`` or ``"claim"``.
        name: lower-case words joined by hyphens.
    """

    kind: Kind
    name: str

    @property
    def file(self) -> str:
        """The module's name."""
        word = self.name.replace("-", "_")
        return f"{word}_{self.kind}" if keyword.iskeyword(word) else word

    @property
    def cls(self) -> str:
        """The name of the class."""
        made = "".join(word.capitalize() for word in self.name.split("-"))
        return f"{made}{self.kind.capitalize()}" if keyword.iskeyword(made) or made in _TAKEN else made

    @property
    def distribution(self) -> str:
        """What pip calls the package."""
        return f"rulezoo-{self.name}"

    @property
    def module(self) -> str:
        """What Python calls the package."""
        return f"rulezoo_{self.name.replace('-', '_')}"

    @property
    def compare(self) -> str:
        """The words of a first use, without the plugin file."""
        compare = "rulezoo compare --rules"
        match self.kind:
            case "rule":
                return f"{compare} {self.name},backprop,frozen --tasks digits-cnn"
            case "task":
                return f"{compare} backprop,feedback-alignment,frozen --tasks {self.name}"
            case "evaluation":
                return f"{compare} backprop,frozen --tasks digits-cnn --evaluate {self.name}"
        return f"rulezoo claims run {self.name} --out claims"


# Names that the templates import: a class called so would hide them.
_TAKEN = {"Batch", "Budget", "Data", "Evaluation", "LearningRule", "Measurement", "Net", "Path", "Plausibility", "Site",
          "Split", "State", "Step", "Task", "Tensor", "Tensors", "TrainedNetwork"}  # fmt: skip


@dataclass(frozen=True)
class Scaffold:
    """What is to be written, and what to do next.

    Attributes:
        files: path → text.
        commands: the next commands, as typed in a shell.
    """

    files: Mapping[Path, str]
    commands: tuple[str, ...]

    def write(self) -> None:
        """Write the files.

        Raises:
            ScaffoldError: if one of them is there already; then nothing is written.
        """
        for path in self.files:
            if path.exists():
                raise ScaffoldError(
                    f"{str(path)!r} is there already; move it, or choose another name or --to"
                )
        for path, text in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def named(kind: Kind, name: str) -> Names:
    """The name, checked.

    Raises:
        ScaffoldError: if it is no slug, or if something of that kind and name exists already.
    """
    if not NAME.fullmatch(name) or not name[0].isalpha():
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f", like {near!r}" if near else ""
        raise ScaffoldError(f"{name!r} must be lower-case words joined by hyphens, a letter first{hint}")
    known = discover().found[kind]
    if name in known:
        raise ScaffoldError(
            f"there is {_article(kind)} {kind} {name!r} already, of {known[name].origin}; choose another name"
        )
    return Names(kind, name)


def _article(kind: str) -> str:
    return "an" if kind[0] in "aeiou" else "a"


def single_file(names: Names, folder: Path) -> Scaffold:
    """One runnable file."""
    path = folder / f"{names.file}.py"
    plugin, verb, rest = shlex.quote(str(path)), *names.compare.split(" ", 1)
    commands = (f"rulezoo verify {plugin}", f"{verb} --plugin {plugin} {rest}")
    return Scaffold({path: _rendered(f"{names.kind}.py", names)}, commands)


def distribution(names: Names, folder: Path) -> Scaffold:
    """A distribution: metadata with the entry point, a package, tests, a workflow, a README."""
    root = folder / names.distribution
    package = root / "src" / names.module
    files = {
        root / "pyproject.toml": _rendered("pyproject.toml", names),
        root / "README.md": _rendered("README.md", names),
        root / ".gitignore": _rendered("gitignore", names),
        root / ".github" / "workflows" / "test.yml": _rendered("test.yml", names),
        package / "__init__.py": _rendered(f"{names.kind}_init.py", names),
        package / f"{names.file}.py": _rendered(f"{names.kind}.py", names, package=True),
        package / "py.typed": "",
        root / "tests" / f"test_{names.file}.py": _rendered("test.py", names),
    }
    into = f"cd {shlex.quote(str(root))}"
    return Scaffold(
        files, (into, "pip install -e '.[test]'", f"rulezoo verify {names.name}", names.compare, "pytest")
    )


def _rendered(template: str, names: Names, *, package: bool = False) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rulezoo.scaffold"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python and TOML, made of a checked name
    )
    fields = ("kind", "name", "file", "cls", "distribution", "module", "compare")
    words = {field: getattr(names, field) for field in fields}
    title = names.name.replace("-", " ").capitalize()
    return environment.get_template(f"{template}.jinja").render(
        **words, title=title, package=package, article=_article(names.kind)
    )
