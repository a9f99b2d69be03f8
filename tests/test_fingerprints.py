"""A fingerprint changes with what code does, and not with where it lies; those by the first definition stay comparable."""

import hashlib
import importlib.util
import json
import sys
import textwrap

import pytest

from rulezoo.discovery import former_fingerprints, sources
from rulezoo.discovery.fingerprint import PREFIX, fingerprint
from rulezoo.discovery.former_fingerprints import as_today, extended, first
from rulezoo.discovery.kinds import KINDS
from rulezoo.discovery.registry import discover

FILES = {
    "__init__.py": "",
    "rule.py": '''
        """A rule."""
        from typing import TYPE_CHECKING
        import zoo_x.far
        from . import helper
        from rulezoo import LearningRule

        class Rule(LearningRule):
            """What it does."""
            def step(self):
                return helper.once(f"{1:>3}")
    ''',
    "helper.py": "from .deep.down import twice as t\ndef once(x):\n    return t(x)\n",
    "far.py": "ONE = 1\n",
    "deep/__init__.py": "",
    "deep/down.py": "def twice(x):\n    return 2 * x\n",
    "other.py": "X = 1\n",
}
RULE = FILES["rule.py"]


def forget():
    for cached in (fingerprint, first, former_fingerprints._table):
        cached.cache_clear()
    sources.forget()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package of plugins anew, and returns the fingerprint of the module of its rule."""
    root = tmp_path / "packages"
    monkeypatch.syspath_prepend(root)
    monkeypatch.setattr(sources, "_packages", lambda: frozenset({"zoo_x"}))

    def of(changes=None, files=FILES, module="zoo_x.rule", definition=fingerprint):
        for path in sorted(root.rglob("*.py")):
            path.unlink()
        for name, text in {**files, **(changes or {})}.items():
            path = root / "zoo_x" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        forget()
        return definition(module)

    yield of
    forget()


@pytest.mark.parametrize("definition", [fingerprint, first])
@pytest.mark.parametrize(
    ("name", "text", "changes"),
    [
        ("rule.py", RULE.replace("{1:>3}", "{1:>4}"), True),
        ("helper.py", FILES["helper.py"].replace("t(x)", "t(x) + 1"), True),
        ("far.py", "ONE = 2\n", True),
        ("deep/down.py", FILES["deep/down.py"].replace("2 *", "3 *"), True),
        ("rule.py", RULE.replace("A rule.", "Another text."), False),
        ("rule.py", RULE.replace("What it does.", "What it is."), False),
        ("rule.py", RULE.replace("return helper", "# why\n\n                return   helper"), False),
        ("other.py", "X = 2\n", False),
        ("__init__.py", "X = 2\n", False),
    ],
)
def test_what_changes_a_fingerprint(package, definition, name, text, changes):
    before = package(definition=definition)
    assert package(definition=definition) == before
    assert (package({name: text}, definition=definition) != before) == changes


def test_the_form_of_a_fingerprint_tells_its_definition(package):
    assert package().startswith(PREFIX)
    assert len(package()) == len(PREFIX) + 16
    assert len(package(definition=first)) == 16


# --------------------------------------------------------------------------------------------------------------------
# Moves

LAID_OUT = {
    "rule.py": """
        from zoo_x.helper import once
        from zoo_x.names import NAME, other as another
        from zoo_x import numbers
        import zoo_x.constants as c

        class Rule:
            def step(self):
                from zoo_x.late import late
                return once(NAME) + another(numbers.ONE) + c.TWO + late
    """,
    "helper.py": "import math\nfrom zoo_x.names import NAME\ndef once(x):\n    return x + NAME\n",
    "names.py": "NAME = 'a'\ndef other(x):\n    return x\n",
    "numbers.py": "ONE = 1\n",
    "constants.py": "TWO = 2\n",
    "late.py": "late = 3\n",
}
MOVED = {
    "__init__.py": "SPECS = 1\n",
    "family/__init__.py": "SPECS = 2\n",
    "family/renamed.py": """
        import zoo_x.shared.c as c
        from zoo_x.family.zz_helper import once
        from zoo_x.shared import numbers
        from ..shared.aa_names import other as another, NAME

        class Rule:
            def step(self):
                from .late import late
                return once(NAME) + another(numbers.ONE) + c.TWO + late
    """,
    "family/zz_helper.py": "from zoo_x.shared.aa_names import NAME\nimport math\ndef once(x):\n    return x + NAME\n",
    "family/late.py": "late = 3\n",
    "shared/__init__.py": "",
    "shared/aa_names.py": LAID_OUT["names.py"],
    "shared/numbers.py": LAID_OUT["numbers.py"],
    "shared/c.py": LAID_OUT["constants.py"],
}


def test_a_move_leaves_a_fingerprint_as_it_is(package):
    before = package(files=LAID_OUT)
    assert package(files=MOVED, module="zoo_x.family.renamed") == before


def test_by_the_first_definition_a_move_changed_it(package):
    before = package(files=LAID_OUT, definition=first)
    assert package(files=MOVED, module="zoo_x.family.renamed", definition=first) != before


def swapped(text, one, other):
    return text.replace(one, "\0").replace(other, one).replace("\0", other)


@pytest.mark.parametrize(
    "changes",
    [
        {"shared/aa_names.py": "NAME = 'b'\ndef other(x):\n    return x\n"},
        {"shared/numbers.py": "ONE = 2\n"},
        {"shared/c.py": "TWO = 3\n"},
        {"family/late.py": "late = 4\n"},
        {"family/zz_helper.py": MOVED["family/zz_helper.py"].replace("import math", "import cmath")},
        {"family/zz_helper.py": MOVED["family/zz_helper.py"].replace("import math", "from math import pi")},
        # Another name from the same module, or the same name from another.
        {"family/renamed.py": MOVED["family/renamed.py"].replace("other as another", "NAME as another")},
        {"family/renamed.py": MOVED["family/renamed.py"].replace("from .late", "from .soon"), "family/soon.py": "late = 5\n"},
        # Two modules in each other's place.
        {"family/renamed.py": swapped(MOVED["family/renamed.py"], "shared.c as", "shared.numbers as")},
        # Imported in another place.
        {"family/renamed.py": "from .late import late\n" + textwrap.dedent(MOVED["family/renamed.py"]).replace(
            "        from .late import late\n", "")},
    ],
)  # fmt: skip
def test_what_changes_in_the_course_of_a_move_is_seen(package, changes):
    before = package(files=LAID_OUT)
    assert package(changes, files=MOVED, module="zoo_x.family.renamed") != before


CYCLE = {
    "rule.py": "from zoo_x.a import f\n",
    "a.py": "from zoo_x.b import g\ndef f(x):\n    return g(x)\n",
    "b.py": "def g(x):\n    from zoo_x.a import f\n    return f(x) if x else 1\n",
}


def test_modules_that_import_one_another(package):
    before = package(files=CYCLE)
    renamed = {name: text.replace("zoo_x.a", "zoo_x.last") for name, text in CYCLE.items()}
    renamed["last.py"] = renamed.pop("a.py")
    assert package(files=renamed) == before
    for name, text in CYCLE.items():
        assert package({name: f"{text}ANOTHER = 1\n"}, files=CYCLE) != before, name
    assert package({"b.py": CYCLE["b.py"].replace("x.a", "x.b")}, files=CYCLE) != before, (
        "it imports itself instead"
    )
    assert package({"a.py": CYCLE["a.py"].replace("x.b", "x.a")}, files=CYCLE) != before


def test_a_cycle_of_another_length_is_another_one(package):
    def ring(n):
        files = {"rule.py": "from zoo_x.m0 import f\n"}
        return files | {f"m{i}.py": f"from zoo_x.m{(i + 1) % n} import f\nF = 1\n" for i in range(n)}

    assert len({package(files=ring(n)) for n in range(1, 6)}) == 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("from .a import f\nfrom .b import g\n", "from .b import g\nfrom .a import f\n", True),
        ("from .a import f\nfrom .b import f\n", "from .b import f\nfrom .a import f\n", False),
        ("from .a import *\nfrom .b import *\n", "from .b import *\nfrom .a import *\n", False),
        ("from .a import f\nX = 1\nfrom .b import g\n", "X = 1\nfrom .a import f\nfrom .b import g\n", False),
        ("from .a import f, h\n", "from .a import h\nfrom .a import f\n", True),
        ("from . import a\n", "import zoo_x.a as a\n", True),
        ("from . import a\n", "import zoo_x.a\n", False),
        ("import json\nimport math\n", "import math\nimport json\n", True),
        ("import json\n", "import json as math\n", False),
        ("from json import loads\n", "from json import dumps as loads\n", False),
        ("from json import loads\n", "from pickle import loads\n", False),
    ],
)
def test_the_order_of_imports_counts_where_it_matters(package, one, other, same):
    files = {"a.py": "f = h = 1\n", "b.py": "f = g = 2\n"}
    assert (package(files=files | {"rule.py": one}) == package(files=files | {"rule.py": other})) == same


def test_modules_of_the_same_names_in_each_others_place_are_seen_by_who_takes_them_from_a_third(package):
    files = {
        "rule.py": "from .third import p\nX = p.ONE\n",
        "third.py": "from . import p, q\n",
        "p.py": "ONE = 1\n",
        "q.py": "ONE = 2\n",
    }
    before = package(files=files)
    assert package({"p.py": files["q.py"], "q.py": files["p.py"]}, files=files) != before


def test_a_module_beside_a_plugin_that_is_a_file_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path, helper = tmp_path / "my_file.py", tmp_path / "beside_it.py"
    spec = importlib.util.spec_from_file_location("rulezoo_file_my_file_0", path)

    def of(text, rule="import json, numpy\nfrom beside_it import K\n", beside=helper):
        path.write_text(rule, encoding="utf-8")
        helper.unlink(missing_ok=True)
        beside.write_text(text, encoding="utf-8")
        monkeypatch.setitem(sys.modules, spec.name, importlib.util.module_from_spec(spec))
        forget()
        return fingerprint(spec.name)

    before = of("K = 1\n")
    assert of("K = 1  # a remark\n") == before
    assert of("K = 0\n") != before
    renamed = of("K = 1\n", "import json, numpy\nfrom another import K\n", tmp_path / "another.py")
    assert renamed == before
    alone = "import json, numpy\n"
    assert of("K = 1\n", alone) == of("K = 0\n", alone), "what it does not import is not part of it"
    forget()


def test_nothing_is_imported_for_it(package):
    package()
    assert not [name for name in sys.modules if name.startswith("zoo_x")]


@pytest.mark.parametrize("definition", [fingerprint, first])
def test_a_module_without_a_source_has_none(package, definition):
    package()
    with pytest.raises(LookupError, match=r"the source of zoo_x\.gone is not there"):
        definition("zoo_x.gone")


def test_every_built_in_plugin_has_one():
    zoo = discover()
    specs = [found.spec for found in (*zoo.rules.values(), *zoo.tasks.values(), *zoo.evaluations.values())]
    assert all(fingerprint(spec.module).startswith(PREFIX) for spec in specs)
    assert fingerprint(zoo.rules["backprop"].spec.module) != fingerprint(zoo.rules["nmnc"].spec.module)


# --------------------------------------------------------------------------------------------------------------------
# Fingerprints by the first definition


def test_the_first_definition_is_as_it_was(package):
    """Fingerprints in stored records are by it; this one was computed before there was another."""
    assert package(definition=first) == "562f3c1883deb766"


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes the table of former fingerprints."""
    path = tmp_path / "former.json"
    monkeypatch.setattr(former_fingerprints, "TABLE", path)

    def write(content):
        path.write_text(json.dumps(content), encoding="utf-8")
        former_fingerprints._table.cache_clear()

    write({})
    yield write
    former_fingerprints._table.cache_clear()


def test_a_fingerprint_by_the_first_definition_is_that_of_today_while_the_code_is_the_same(package, table):
    former = package(definition=first)
    assert as_today(former, "zoo_x.rule") == fingerprint("zoo_x.rule")
    assert as_today(former) == former, "of what it is, is not known"
    assert as_today(former, "zoo_x.gone") == former
    assert as_today(package(), "zoo_x.rule") == package()
    package({"far.py": "ONE = 2\n"})
    assert as_today(former, "zoo_x.rule") == former != fingerprint("zoo_x.rule")


def test_one_that_is_in_the_table_is_found_after_a_move_and_tells_a_change(package, table):
    former = package(files=LAID_OUT, definition=first)
    stale = package({"numbers.py": "ONE = 7\n"}, files=LAID_OUT, definition=first)
    package(files=LAID_OUT)
    table(extended({"0" * 16: f"{PREFIX}{'1' * 16}"}, ["zoo_x.rule"]))
    assert as_today("0" * 16) == f"{PREFIX}{'1' * 16}", "what was in the table stays"
    moved = package(files=MOVED, module="zoo_x.family.renamed")
    assert as_today(former, "zoo_x.family.renamed") == moved
    assert as_today(stale, "zoo_x.family.renamed") == stale
    changed = package({"shared/c.py": "TWO = 3\n"}, files=MOVED, module="zoo_x.family.renamed")
    assert as_today(former, "zoo_x.family.renamed") == moved != changed


def test_the_table_is_extended_with_every_plugin_of_rulezoo(table):
    former_fingerprints.main()
    former_fingerprints._table.cache_clear()
    zoo = discover()
    for kind in KINDS:
        for found in zoo.all(kind).values():
            if found.distribution == "rulezoo":
                assert as_today(first(found.spec.module)) == fingerprint(found.spec.module)


def test_the_table_of_rulezoos_own_plugins():
    table = json.loads(former_fingerprints.TABLE.read_text(encoding="utf-8"))
    assert list(table) == sorted(table)
    for code, today in table.items():
        assert len(code) == len(hashlib.sha256().hexdigest()[:16])
        assert today.startswith(PREFIX)
