import re
import shlex
import threading
import urllib.error
import urllib.request
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from rulezoo.cli import cli
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import Found, discover
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.grid import arrange
from rulezoo.leaderboard.overview import build
from rulezoo.report import words
from rulezoo.report.build import GENERATOR, write
from rulezoo.report.build import report as make
from rulezoo.report.commands import command
from rulezoo.report.serve import HOST, server_of
from rulezoo.results.groups import cell_key
from rulezoo.results.records import Plugin
from rulezoo.results.store import Store
from rulezoo.specs import Plausibility, RuleSpec

EVIL = "</td><script>alert(1)</script>\x1b[31m\x07 \\input{/etc/passwd} $x$ 100% | **b** <!-- & \" '"


# The same store gives the same bytes


def test_the_same_records_in_another_order_give_the_same_bytes(records, site):
    again = make(list(reversed(records)), discover())
    assert list(again) == list(site)
    assert [name for name in site if again[name] != site[name]] == []
    assert render(build(records), "md") == render(build(list(reversed(records))), "md")


def test_no_page_names_a_date_of_today_or_an_outside_file(site):
    for name, content in site.items():
        if name.endswith(".html"):
            sources = re.findall(rb'(?:src|<link[^>]* href)="([^"]*)"', content)
            assert not [s for s in sources if s.startswith((b"http", b"//"))], name


# What is on the pages


def test_every_link_leads_somewhere(site):
    for name, content in site.items():
        if not name.endswith(".html"):
            continue
        folder = name.rpartition("/")[0]
        for target in re.findall(r'(?:href|src)="([^"]*)"', content.decode()):
            path, _, fragment = target.partition("#")
            if path.startswith(("https://", "data:")):
                continue
            where = (
                path.removeprefix("../") if path.startswith("../") else "/".join(filter(None, [folder, path]))
            )
            page = name if not path else where
            assert page in site, f"{name}: {target}"
            assert not fragment or f'id="{fragment}"'.encode() in site[page], f"{name}: {target}"


def test_the_board_has_a_row_for_each_variant_and_its_numbers(site, text):
    page = text(site["index.html"])
    assert "97.0 ± 1.0" in page
    assert "noise-correlation perturbations=8" in page
    assert "needs recurrence" in page
    assert "not ranked: 3 skipped of 6 planned runs" in page
    assert "diverged: not finite at step 4 (1 of 3)" in page


def test_statistics_across_tasks_are_those_of_the_statistics_module(records, site, text):
    from rulezoo.leaderboard import stats

    scores = arrange(records).scores()
    row = next(r for r in stats.summarise(scores).rows if r.rule == "frozen")
    test = stats.compare(scores, "backprop")["frozen"]
    page = text(site["index.html"])
    assert words.estimate(row.iqm) in page
    assert f"{words.difference(test)} {words.probability(test)}" in page


def test_a_rule_page_tells_what_it_is_its_angles_and_what_was_published(site, text):
    page = text(site["rules/nmnc.html"])
    assert "arXiv:2601.02636" in page
    assert "Angles to backprop on digits-cnn" in page
    assert "before training, degrees after training, degrees conv1.post 40.0 50.0" in page
    assert "rank" in page
    assert "dimensions of the manifold" in page
    page = text(site["rules/feedback-alignment.html"])
    assert "LeNet, SGD" in page
    assert "53.31" in page
    assert "not run" in page
    assert b"https://arxiv.org/abs/2108.13446" in site["rules/feedback-alignment.html"]


def test_a_rule_that_is_not_installed_has_a_page_of_its_results(runs):
    files = make(runs("unheard-of", [0.5, 0.6]), discover())
    assert b"not installed" in files["rules/unheard-of.html"]


def test_without_runs_there_is_a_page_that_says_so(text):
    assert "No runs are stored yet" in text(make([], discover())["index.html"])


def test_costs_of_two_machines_are_shown_as_mixed_and_not_averaged(runs, machines, text):
    mine, other = (
        runs("backprop", [0.9], hardware=h, cost=c) for h, c in zip(machines, (1.25, 9.75), strict=True)
    )
    both = [
        *mine,
        *[r for r in runs("backprop", [0.9, 0.9], hardware=machines[1], cost=9.75) if r.asked.seed],
    ]
    page = text(make(both, discover())["rules/backprop.html"])
    assert (
        "measured on different hardware, so not averaged: Laptop (8 cores, 4 threads); Server (64 cores, 1 thread)"
        in page
    )
    assert "×" not in page.split("Results")[1].split("from")[0]
    assert other[0].cost.ratio == 9.75


# The command of a cell


@pytest.mark.parametrize(
    ("rules", "options", "budget"),
    [
        (["nmnc"], {"nmnc": {"rank": "7", "perturbations": "4"}, "digits-cnn": {"width": "0.5"}}, {}),
        (["frozen"], {}, {}),
        (["nmnc"], {"nmnc": {"lr": "0.001", "rank": "auto"}}, {}),
        (["frozen"], {}, {"lr": "0.1", "schedule": "constant", "weight_decay": "0.0001", "batch": "32"}),
        (["nmnc"], {"nmnc": {"lr": "0.001"}}, {"lr": "0.1"}),
        (
            ["frozen"],
            {},
            {"optimizer": "SGD", "optimizer.momentum": "0.9", "optimizer.nesterov": "true", "clip_norm": "1",
             "schedule": "MultiStepLR", "schedule.milestones": "1", "schedule_per": "epoch", "warmup_steps": "5"},
        ),
    ],
)  # fmt: skip
def test_the_command_asks_for_the_same_runs(run, replaced, rules, options, budget):
    asked = Request(rules=rules, tasks=["digits-cnn"], device="cpu", options=options, epochs=2, budget=budget)
    (cell,) = plan(discover(), asked)
    stored = [replaced(run(rules[0]), asked=asked, changed=cell.changed) for asked in cell.asked]
    given = shlex.split(command(stored))
    assert given[:2] == ["rulezoo", "compare"]
    context = cli.get_command(None, "compare").make_context("compare", given[2:])
    p = context.params
    names = ("rules", "tasks", "seeds", "device", "options", "epochs", "budget")
    (again,) = plan(discover(), Request(**{name: p[name] for name in names}))
    assert [a.key for a in again.asked] == [r.asked.key for r in stored]


def test_the_command_names_the_precision_the_compiler_and_the_files_of_plugins(run, replaced):
    one = run("a", asked={"precision": "bfloat16"})
    files = {
        "rule_plugin": Plugin(distribution="my rule.py"),
        "task_plugin": Plugin(distribution="my_task.py"),
    }
    given = shlex.split(
        command([replaced(one, answered=msgspec.structs.replace(one.answered, compiled=True, **files))])
    )
    assert given[given.index("--precision") + 1] == "bfloat16"
    assert "--compile" in given
    assert [given[i + 1] for i, word in enumerate(given) if word == "--plugin"] == [
        "my rule.py",
        "my_task.py",
    ]
    assert not {"--precision", "--compile", "--plugin"} & {*shlex.split(command([run("a")]))}


@pytest.mark.parametrize(("seeds", "word"), [((0, 1, 2), "3"), ((0, 1, 1000), "0-1,1000"), ((5,), "5-5")])
def test_the_command_names_every_seed(run, seeds, word):
    given = shlex.split(command([run("a", seed=seed) for seed in seeds]))
    assert given[given.index("--seeds") + 1] == word


def test_the_command_says_how_many_seeds_were_trained_together_where_that_is_fewer_than_there_are(
    run, replaced
):
    runs = [run("a", seed=seed) for seed in range(3)]
    three = [replaced(one, answered=msgspec.structs.replace(one.answered, seeds_together=3)) for one in runs]
    assert "--together" not in command(three)
    one = [replaced(one, answered=msgspec.structs.replace(one.answered, seeds_together=1)) for one in runs]
    assert "--together 1" in command(one)


def test_the_command_keeps_weights_where_they_were_kept(run, replaced):
    assert "--keep-weights" not in command([run("a")])
    assert "--keep-weights" in command([replaced(run("a"), weights="0" * 64)])


STORED = Path(__file__).resolve().parents[2] / "leaderboard"


@pytest.mark.skipif(not STORED.is_dir(), reason="the stored results are not alongside these tests")
@pytest.mark.parametrize(
    "folder", ["tuned", "tuned/tuning", "digits", "claims/rnn/quick", "claims/gap/quick"]
)
def test_the_command_of_every_stored_cell_asks_for_its_runs(folder):
    zoo, cells = discover(), {}
    for record in Store(STORED / folder).read().records:
        cells.setdefault(cell_key(record.asked), []).append(record)
    reproducible = 0
    for runs in cells.values():
        asked = runs[0].asked
        if (zoo.rule(asked.rule).spec.version, zoo.task(asked.task).spec.version) != (
            asked.rule_version,
            asked.task_version,
        ):
            continue  # of an older version: no command reproduces it
        words = shlex.split(command(runs))[2:]
        context = cli.get_command(None, "compare").make_context("compare", words)
        given = {f.name: context.params[f.name] for f in fields(Request) if f.name in context.params}
        (cell,) = plan(zoo, Request(**given))
        if set(cell.asked[0].rule_options) != set(asked.rule_options):
            continue  # the rule has other options since
        assert sorted(one.key for one in cell.asked) == sorted(run.asked.key for run in runs), words
        reproducible += 1
    assert reproducible >= {"tuned": 37, "tuned/tuning": 208, "digits": 8}.get(folder, 1)


# Words of plugins stay words


@pytest.fixture(scope="module")
def evil(run, runs):
    """A board whose plugin-made words are all hostile, and a registry with its spec."""
    found = discover()
    spec = RuleSpec(
        name="evil", target="nowhere:Evil", summary=EVIL, family=EVIL, tags=(EVIL,), reference=f"{EVIL} https://x.y/{EVIL}; Evil 2020, {EVIL}, arXiv:2601.02636", formula=(EVIL,),
        plausibility=Plausibility(False, False, True, "vector", True),
    )  # fmt: skip
    rules = {**found.rules, "evil": Found(spec, EVIL, EVIL)}
    zoo = replace(found, found={**found.found, "rule": rules})
    asked = {"rule_options": {"lr": None, "word": EVIL}}
    records = [
        *runs("backprop", [0.9, 0.9]),
        *runs("evil", [0.8], asked=asked, changed=["word"], metric=EVIL),
        run(
            "evil",
            seed=1,
            test=None,
            asked=asked,
            changed=["word"],
            status="error",
            reason=EVIL,
            traceback=EVIL,
        ),
    ]
    return records, zoo


def test_words_of_a_plugin_cannot_inject_into_a_page(evil):
    records, zoo = evil
    for name, content in make(records, zoo).items():
        if name.endswith((".html", ".svg")):
            page = content.decode()
            assert "<script>alert" not in page, name
            assert "</td><script" not in page, name
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page), name
    page = make(records, zoo)["rules/evil.html"].decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'href="https://x.y/&lt;/td&gt;' in page


@pytest.mark.parametrize("form", ["table", "md", "latex", "csv", "json"])
def test_words_of_a_plugin_cannot_inject_into_a_terminal(evil, form):
    records, _ = evil
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", render(build(records), form))


def test_words_of_a_plugin_are_no_markdown_and_no_latex(evil):
    records, _ = evil
    board = build(records)
    markdown = render(board, "md")
    assert "<script" not in markdown
    assert "| \\*\\*b\\*\\*" not in markdown.replace("\\|", "")
    heads = {line.count("|") - line.count("\\|") for line in markdown.splitlines() if line.startswith("| ")}
    assert len(heads) == 1, "a pipe in a word makes no cell"
    for line in render(board, "latex").splitlines():
        if not line.startswith("%"):
            assert "\\input" not in line
            assert "\\$x\\$ 100\\%" in line or "evil" not in line


def test_latex_prints_every_special_character():
    from rulezoo.leaderboard.documents import _tex

    assert _tex(r"\a_b{c}^~#$%&") == r"\textbackslash{}a\_b\{c\}\textasciicircum{}\textasciitilde{}\#\$\%\&"


# Writing and serving


def test_a_foreign_page_is_not_overwritten_and_an_older_site_is(site, tmp_path):
    from rulezoo.errors import UserError

    write(site, tmp_path / "new")
    write(site, tmp_path / "new")
    assert GENERATOR in (tmp_path / "new/index.html").read_bytes()
    (tmp_path / "index.html").write_text("my page")
    with pytest.raises(UserError, match="not a page of rulezoo"):
        write(site, tmp_path)
    assert (tmp_path / "index.html").read_text() == "my page"


def test_it_is_served_to_this_machine_only(site, tmp_path):
    write(site, tmp_path / "s")
    (tmp_path / "secret").write_text("no")
    with server_of(tmp_path / "s", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.server_address[0] == HOST == "127.0.0.1"
        address = f"http://{HOST}:{server.server_address[1]}"
        with urllib.request.urlopen(f"{address}/index.html") as answer:
            assert answer.read() == site["index.html"]
        for path in ("/pictures/", "/../secret", "/%2e%2e/secret"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)
        server.shutdown()


def test_the_command_writes_the_site_of_a_store(records, tmp_path):
    store = Store(tmp_path / "results")
    for record in records:
        store.put(record)
    done = CliRunner().invoke(
        cli,
        ["leaderboard", "--out", str(store.root), "--html", str(tmp_path / "s"), "--rules", "nmnc,backprop"],
    )
    assert (done.exit_code, done.output.strip()) == (0, str(tmp_path / "s" / "index.html"))
    assert sorted(p.name for p in (tmp_path / "s/rules").iterdir()) == ["backprop.html", "nmnc.html"]


def test_pages_say_which_runs_are_of_other_data(runs):
    def on(digest, records):
        return [
            msgspec.structs.replace(one, answered=msgspec.structs.replace(one.answered, data=digest))
            for one in records
        ]

    pages = make(
        [*on("1" * 16, runs("backprop", [0.9, 0.8])), *on("2" * 16, runs("frozen", [0.5]))], discover()
    )
    said = f"mixed data: frozen, seed 0: trained on data with digest {'2' * 16}"
    assert said in pages["index.html"].decode()
