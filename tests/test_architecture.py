"""Who may import whom. The core knows no plugin; the built-in plugins know no more of the core than a stranger does."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

import rulezoo
import rulezoo_plugins
from rulezoo.discovery.kinds import KINDS

CORE = Path(rulezoo.__file__).parent
BUILT_IN = ("rulezoo_plugins", "rulezoo_tasks", "rulezoo_evaluations")
HEAVY = {
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "matplotlib",
    "seaborn",
    "sklearn",
    "scipy",
    "rich",
    "msgspec",
}


# The core's packages, and its single modules, which are what plugins are made of. Each may import what stands before it.
LAYERS = (
    "net",
    "credit",
    "nets",
    "",
    "datasets",
    "discovery",
    "processes",
    "results",
    "measures",
    "training",
    "comparison",
    "executors",
    "evaluations",
    "tuning",
    "leaderboard",
)
SINGLE = (
    "errors",
    "evaluation",
    "inputs",
    "manifold",
    "options",
    "rule",
    "seeding",
    "source",
    "specs",
    "task",
    "text",
    "trained",
)
LAYERS += ("claims", "report", "testing", "scaffold", "api", "cli")


def imports(path):
    """``(module, names)`` of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", tuple(alias.name for alias in node.names)


def taken_from(module, names):
    """The files that names are imported from: those of modules of these names, or else that of the module."""
    top, *inner = module.split(".")
    folder = Path(importlib.import_module(top).__file__).parent.joinpath(*inner)
    for name in names:
        candidates = [folder / f"{name}.py", folder / name / "__init__.py", folder.with_suffix(".py")]
        yield next((path for path in candidates if path.is_file()), folder / "__init__.py")


def files(package):
    return sorted(Path(importlib.import_module(package).__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda p: str(p.relative_to(CORE)))
def test_the_core_imports_no_plugin(path):
    assert not {module for module, _ in imports(path) if module.split(".")[0] in BUILT_IN}


def layer(module):
    """The package that ``rulezoo.package.module`` is in; ``""`` for a single module."""
    _, *inner = module.split(".")
    return inner[0] if inner and (CORE / inner[0]).is_dir() else ""


@pytest.mark.parametrize("package", LAYERS)
def test_packages_import_those_below_them_only(package):
    below = LAYERS[: LAYERS.index(package) + 1]
    paths = (CORE / package).rglob("*.py") if package else (CORE / f"{one}.py" for one in SINGLE)
    for path in paths:
        for module, names in imports(path):
            if module.split(".")[0] == "rulezoo":
                found = (
                    {layer(f"{module}.{name}") for name in names} if module == "rulezoo" else {layer(module)}
                )
                lowest = package == LAYERS[0] and module == "rulezoo.errors"
                assert lowest or found <= set(below), f"{path.relative_to(CORE)} imports {module}"


def test_every_package_has_its_layer():
    assert {path.parent.name for path in CORE.glob("*/__init__.py")} | {""} == set(LAYERS)
    assert {path.stem for path in CORE.glob("*.py")} == {*SINGLE, "__init__", "__main__"}


@pytest.mark.parametrize("package", BUILT_IN)
def test_built_in_plugins_use_public_names_only(package):
    public = {name for name in rulezoo.__all__ if not name.startswith("_")}
    for path in files(package):
        for module, names in imports(path):
            if module.split(".")[0] == "rulezoo":
                assert module == "rulezoo", f"{path.name} imports {module}"
                assert set(names) <= public, f"{path.name} imports {set(names) - public}"
            elif module.startswith("rulezoo_"):
                assert module.split(".")[0] == package, f"{path.name} imports {module}"


@pytest.mark.parametrize("package", BUILT_IN)
def test_a_catalogue_imports_nothing_heavy(package):
    catalogues = [path for path in files(package) if path.name == "__init__.py"]
    assert files(package)[0] in catalogues
    for catalogue in catalogues:
        assert not {module.split(".")[0] for module, _ in imports(catalogue)} & HEAVY
        own = [one for one in imports(catalogue) if one[0].split(".")[0] == package]
        assert {file for module, names in own for file in taken_from(module, names)} <= set(catalogues)


def test_every_family_of_rules_is_a_package_in_the_catalogue_and_has_tests():
    catalogue = Path(rulezoo_plugins.__file__)
    packages = {path.parent.name for path in catalogue.parent.glob("*/__init__.py")}
    families = {family.__name__.rpartition(".")[2] for family in rulezoo_plugins.FAMILIES}
    assert packages - families == {"shared", "nmnc_claims"}
    assert [path.name for path in catalogue.parent.glob("*.py")] == [catalogue.name]
    tests = Path(__file__).parent / "rules"
    tested = {path.stem.removeprefix("test_") for path in tests.glob("test_*.py")}
    tested |= {path.parent.name for path in tests.glob("*/test_*.py")}
    assert tested == families | {"shared"}


def test_the_specs_of_a_package_are_of_one_family():
    for family in rulezoo_plugins.FAMILIES:
        assert len({spec.family for spec in family.specs()}) == 1, family.__name__


def test_every_public_name_is_there():
    for name in rulezoo.__all__:
        assert getattr(rulezoo, name) is not None
    assert len(rulezoo.__all__) <= 41, "the public surface fits on one screen"
    with pytest.raises(AttributeError, match="no attribute 'Nett'"):
        _ = rulezoo.Nett
    assert sys.modules["rulezoo"].__version__


def test_every_kind_of_plugin_has_a_hook_and_a_base_class_that_exist():
    from rulezoo.discovery import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("rulezoo_")}
    assert hooks == {kind.hook for kind in KINDS}
    for kind in KINDS:
        module, _, name = kind.base.partition(":")
        assert isinstance(getattr(importlib.import_module(module), name), type)
