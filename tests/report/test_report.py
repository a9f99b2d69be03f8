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
from rulezoo.leaderboard import summary
from rulezoo.leaderboard import words as board_words
from rulezoo.leaderboard.formats import render
from rulezoo.leaderboard.overview import build
from rulezoo.report.build import GENERATOR, write
from rulezoo.report.build import report as make
from rulezoo.report.commands import command, commands
from rulezoo.report.serve import HOST, server_of
from rulezoo.report.strips import axis, dots
from rulezoo.results.freshness import stale
from rulezoo.results.groups import cell_key
from rulezoo.results.records import Plugin
from rulezoo.results.store import Store
from rulezoo.specs import Plausibility, RuleSpec

EVIL = "</td><script>alert(1)</script>\x1b[31m\x07 \\input{/etc/passwd} $x$ 100% | **b** <!-- & \" '"


# The same store gives the same bytes


def test_the_same_records_in_another_order_give_the_same_bytes(records, pages):
    again = make(list(reversed(records)), discover())
    assert list(again) == list(pages)
    assert [name for name in pages if again[name] != pages[name]] == []
    assert render(build(records), "md") == render(build(list(reversed(records))), "md")


def test_no_page_names_a_date_of_today_or_an_outside_file(pages):
    for name, content in pages.items():
        if name.endswith(".html"):
            sources = re.findall(rb'(?:src|<link[^>]* href)="([^"]*)"', content)
            assert not [s for s in sources if s.startswith((b"http", b"//"))], name


# What is on the pages


def test_every_link_leads_somewhere(pages):
    check_links(pages)


def test_a_task_of_a_family_has_pages_whose_names_hold_no_colon(runs):
    """Windows allows none, and a link that begins with one names a protocol."""
    made = make(
        [
            *runs("backprop", [0.9, 0.8], task="mazes:Small-v0"),
            *runs("nmnc", [0.7, 0.6], task="mazes:Small-v0"),
        ],
        discover(),
    )
    assert "tasks/mazes+Small-v0.html" in made
    assert not [name for name in made if ":" in name]
    assert ">mazes:Small-v0</a>" in made["index.html"].decode()
    check_links(made)


def check_links(pages):
    for name, content in pages.items():
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
            assert page in pages, f"{name}: {target}"
            assert not fragment or f'id="{fragment}"'.encode() in pages[page], f"{name}: {target}"


def test_the_board_has_a_row_for_each_variant_and_its_numbers(pages, text):
    page = text(pages["index.html"])
    assert "97.0 ± 1.0" in page
    assert "noise-correlation perturbations=8" in page
    assert "needs recurrence" in page
    assert "not ranked: 3 skipped of 6 planned runs" in page
    assert "diverged: not finite at step 4 (1 of 3)" in page


def rankings(page):
    """Name of a ranking → row label → the row, in the order of the page."""
    sections = page.decode().split('<section class="ranking"')[1:]
    line = re.compile(r'class="line[^"]*" data-label="([^"]*)"(.*?)</tr>', re.DOTALL)
    names = [re.search('data-ranking="([^"]*)"', section)[1] for section in sections]
    return {name: dict(line.findall(section)) for name, section in zip(names, sections, strict=True)}


def overview_of(small):
    zoo = discover()
    specs = {"specs": zoo.specs(), "task_specs": zoo.task_specs()}
    return build(small[0], tunings=small[1], **specs, stale=lambda record: stale(record, zoo))


def test_every_rule_has_one_row_in_each_ranking_in_the_order_of_the_overview(small, small_report):
    shown = rankings(small_report["index.html"])
    assert list(shown) == ["tuned-8", "default"], (
        "the one that the sentence of the other forms speaks of is first"
    )
    for ranking in overview_of(small).rankings:
        assert list(shown[ranking.name]) == list(ranking.settings)
    kept = [label for label, row in shown["tuned-8"].items() if "= default</span>" in row]
    assert kept == [line.label for line in overview_of(small).lines if line.kept and line.label in kept]
    assert len(kept) == 6


def test_the_numbers_of_a_row_are_those_of_the_overview(small, small_report, text):
    overview = overview_of(small)
    page = text(small_report["index.html"])
    for line in overview.lines:
        one = line.default
        if one.percent:
            assert " ".join(board_words.estimate(one.percent)) in page
        if test := one.difference:
            value, interval = board_words.estimate(test.points, signed=True)
            sign = board_words.SIGNS[test.sign]
            assert (
                f"{value} {sign} {interval} p = {board_words.p_value(test.p)} ({board_words.p_value(test.smallest_p)})"
                in page
            )
        for cell in one.cells:
            if cell and cell.mean is not None:
                assert " ± ".join(board_words.score(cell)) in page
    assert board_words.cost(overview.lines[1].default) in page


def test_every_seed_has_a_dot_and_a_failed_run_a_cross(small_report):
    rows = rankings(small_report["index.html"])["default"]
    failed = [*discover().rules][7]
    skipped = [*discover().rules][5]
    assert {label: row.count("5h0") for label, row in rows.items()} == {
        **dict.fromkeys(rows, 10), failed: 9, skipped: 5
    }  # fmt: skip
    assert [label for label, row in rows.items() if 'class="failed"' in row] == [failed]


def test_a_rule_that_skips_a_task_is_not_ranked_and_stands_last(small_report, text):
    rows = rankings(small_report["index.html"])
    assert {name: [*of][-1] for name, of in rows.items()} == dict.fromkeys(rows, [*discover().rules][5])
    assert "not ranked: 5 skipped of 10 planned runs" in text(small_report["index.html"])


def test_the_answer_and_its_warning_stand_above_each_ranking(runs, text):
    records = [*runs("backprop", [0.9, 0.91, 0.92]), *runs("usf", [0.3, 0.31, 0.3])]
    page = text(make(records, discover())["index.html"])
    overview = build(records, specs=discover().specs())
    assert summary.answer(overview, overview.rankings[0]) in page
    assert "Warning: no difference to backprop can be significant here" in page
    assert (
        f"{summary.answer(overview, overview.rankings[0])} {summary.warnings(overview)[0]}"
        == summary.sentence(overview)
    )


def test_what_is_downloaded_is_what_the_command_prints(small, small_report):
    overview = overview_of(small)
    assert small_report["leaderboard.csv"].decode() == render(overview, "csv")
    assert small_report["runs.csv"].decode() == render(overview, "csv", long=True)
    assert small_report["leaderboard.json"].decode() == render(overview, "json")


def test_without_scripts_nothing_waits_for_one(small_report):
    page = small_report["index.html"].decode()
    assert re.search(r'<form class="filters" id="filters" hidden>', page)
    assert re.search(r'<section class="comparison"[^>]* hidden>', page)
    assert "<button" not in page.replace(
        re.search(r'<form class="filters" id="filters".*?</form>', page, re.DOTALL)[0], ""
    )


def test_a_task_page_has_a_row_for_each_rule_the_best_first(small_report):
    shown = rankings(small_report["tasks/digits-cnn.html"])
    assert list(shown) == ["tuned-8", "default"]
    for rows in shown.values():
        scores = [float(re.search(r'class="score[^"]*" data-v="([^"]*)"', row)[1]) for row in rows.values()]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 12
        assert "reference" in rows["backprop"]


# The comparison of two rules


def test_the_pairs_are_those_of_the_statistics(small, small_report):
    overview = overview_of(small)
    for ranking in overview.rankings:
        content = pairs_of(small_report, ranking.name)
        place = content["lines"].index("backprop")
        for other, (label, one) in enumerate(ranking.settings.items()):
            if label == "backprop" or not one.difference:
                continue
            low, high = sorted((place, other))
            across, *on_tasks = content["pairs"][low][high - low - 1]
            turn = -1 if place < other else 1
            assert turn * across[0] == pytest.approx(one.difference.points.value, abs=6e-4), label
            assert sorted((turn * across[1], turn * across[2])) == pytest.approx(
                [one.difference.points.low, one.difference.points.high], abs=6e-4
            )
            assert across[5:] == ["0.002", one.difference.pairs]
            for cell, reference, task in zip(
                one.cells, ranking.settings["backprop"].cells, on_tasks, strict=True
            ):
                seeds = {run.seed: run.score for run in reference.runs}
                expected = [
                    100 * ((run.score if run.score is not None else 0.1) - seeds[run.seed])
                    for run in cell.runs
                ]
                assert [turn * d for d in task[4]] == pytest.approx(expected, abs=6e-4)
                assert turn * task[0] == pytest.approx(sum(expected) / len(expected), abs=6e-4)


def test_rules_without_a_common_seed_have_no_difference(runs):
    asked = runs("usf", [0.5, 0.6])
    moved = [
        msgspec.structs.replace(one, asked=msgspec.structs.replace(one.asked, seed=one.asked.seed + 5))
        for one in asked
    ]
    content = pairs_of(make([*runs("backprop", [0.9, 0.8]), *moved], discover()), "default")
    assert content["pairs"][0][0] == [None, None]


def pairs_of(files, ranking):
    text = files[f"pairs-{ranking}.js"].decode()
    return msgspec.json.decode(text.partition(" = ")[2].rstrip(";\n"))


def test_a_rule_page_tells_what_it_is_its_angles_and_what_was_published(pages, text):
    page = text(pages["rules/nmnc.html"])
    assert "arXiv:2601.02636" in page
    assert "Angles to backprop on digits-cnn" in page
    assert "before training, degrees after training, degrees conv1.post 40.0 50.0" in page
    assert "rank" in page
    assert "dimensions of the manifold" in page
    page = text(pages["rules/feedback-alignment.html"])
    assert "LeNet, SGD" in page
    assert "53.31" in page
    assert "not run" in page
    assert b"https://arxiv.org/abs/2108.13446" in pages["rules/feedback-alignment.html"]


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
    assert "mixed hardware" in page
    assert "×" not in page.split("Results")[1].split("measured on different hardware")[0]
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


def test_tasks_that_differ_in_nothing_else_share_a_command(run, replaced):
    asked = Request(
        rules=["nmnc"], tasks=["digits-cnn", "digits-rnn"], device="cpu", epochs=2, budget={"batch": "32", "lr": "0.01"},
        options={"nmnc": {"rank": "7"}, "digits-cnn": {"width": "0.5"}},
    )  # fmt: skip
    cells = plan(discover(), asked)
    stored = [
        [replaced(run("nmnc"), asked=one, changed=cell.changed) for one in cell.asked] for cell in cells
    ]
    (line,) = commands(stored)
    context = cli.get_command(None, "compare").make_context("compare", shlex.split(line)[2:])
    names = ("rules", "tasks", "seeds", "device", "options", "epochs", "budget")
    again = plan(discover(), Request(**{name: context.params[name] for name in names}))
    assert [a.key for cell in again for a in cell.asked] == [r.asked.key for of in stored for r in of]


def test_one_task_with_two_options_needs_two_commands(run):
    cells = [[run("a", asked={"task_options": {"width": width}})] for width in (1.0, 0.5)]
    assert len(commands(cells)) == 2


def test_what_lies_beyond_an_axis_is_drawn_at_its_end():
    on = axis([1e9, -1e9], (0, 100), (-25, 150), 108)
    assert (on.low, on.high) == (-25, 150)
    assert [on.at(value) for value in (-1e9, -25, 150, 1e9)] == ["4", "4", "104", "104"]
    assert axis([0.5], (0.5, 0.5), (0.5, 1.0), 100).at(0.5) == "4", "an axis has a length"
    assert "failed" not in dots(on, [1.0], [])


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


def test_a_foreign_page_is_not_overwritten_and_an_older_site_is(pages, tmp_path):
    from rulezoo.errors import UserError

    write(pages, tmp_path / "new")
    write(pages, tmp_path / "new")
    assert GENERATOR in (tmp_path / "new/index.html").read_bytes()
    (tmp_path / "index.html").write_text("my page")
    with pytest.raises(UserError, match="not a page of rulezoo"):
        write(pages, tmp_path)
    assert (tmp_path / "index.html").read_text() == "my page"


def test_it_is_served_to_this_machine_only(pages, tmp_path):
    write(pages, tmp_path / "s")
    (tmp_path / "secret").write_text("no")
    with server_of(tmp_path / "s", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.server_address[0] == HOST == "127.0.0.1"
        address = f"http://{HOST}:{server.server_address[1]}"
        with urllib.request.urlopen(f"{address}/index.html") as answer:
            assert answer.read() == pages["index.html"]
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
