"""The report in a real browser, from disk and without a network: Debian's chromium, driven by playwright."""

import json
import re
import shutil
import threading

import pytest

from rulezoo.discovery.registry import discover
from rulezoo.report.build import report, write
from rulezoo.report.serve import HOST, server_of

from .boards import board

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install 'rulezoo[browser]'`")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs rulezoo[browser]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs `apt-get install chromium`"),
    pytest.mark.filterwarnings("default"),  # of playwright's own threads
]
SCHEMES = ("light", "dark")
AXE = {"preload": False}  # or it fetches the style sheet once more, which no browser allows from disk
SIZES = {"desktop": {"width": 1400, "height": 900}, "phone": {"width": 390, "height": 844}}
PHONE, DESKTOP = ({"viewport": SIZES[name]} for name in ("phone", "desktop"))
BOARDS = ("small", "big")
PAGES = ("index.html", "rules/feedback-alignment.html", "tasks/digits-cnn.html")


@pytest.fixture(scope="module")
def folders(pages, small_report, run, tmp_path_factory):
    """Name → folder: of a few odd records, of 12 rules × 2 tasks, and, made when it is asked for, of 40 × 12."""
    made = {}

    def folder(name):
        if name not in made:
            files = {"odd": pages, "small": small_report}.get(name)
            if files is None:
                records, tunings = board(run, 40, 12)
                files = report(records, discover(), tunings=tunings)
            made[name] = tmp_path_factory.mktemp(name)
            write(files, made[name])
        return made[name]

    return folder


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, folders):
    """Open a page; at the end nothing was complained of, and nothing asked for outside the folder."""
    contexts, said, asked, allowed = [], [], [], ["data:"]

    def open_(path, of="small", **options):
        folder = folders(of)
        allowed.append(folder.as_uri())
        context = chromium.new_context(offline=True, **{**DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{folder.as_uri()}/{path}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(tuple(allowed))] == []


ROWS = ".ranking:not([hidden]) tr.line:not([hidden])"


def rules(page):
    """The rules whose rows are shown, in order."""
    return page.locator(ROWS).evaluate_all("rows => rows.map((row) => row.dataset.label)")


def head(page, key):
    return page.locator(f".ranking:not([hidden]) thead th[data-key='{key}']")


def row(page, label):
    return page.locator(f".ranking:not([hidden]) tr.line[data-label='{label}']")


def state(page):
    """What the address says."""
    return page.evaluate("[...new URLSearchParams(location.hash.slice(1))]")


def again(page):
    """The same address in a new tab."""
    other = page.context.new_page()
    other.goto(page.url)
    return other


def orders(page, key):
    """The values by which a column is sorted, row by row; None where a row has none."""
    return page.locator(ROWS).evaluate_all(
        """(rows, key) => rows.map((row) => {
            const heads = [...row.closest("table").querySelectorAll("thead th")];
            return row.cells[heads.findIndex((head) => head.dataset.key === key)].dataset.v ?? null;
        })""",
        key,
    )


# Interactions; each is kept in the address


@pytest.mark.parametrize(
    ("key", "is_high"),
    [
        ("aggregate", True),
        ("difference", True),
        ("task.digits-cnn", True),
        ("cost", False),
        ("plausibility", False),
    ],
)
def test_the_first_click_on_a_column_puts_the_best_first(opened, key, is_high):
    page = opened("index.html")
    head(page, key).get_by_role("button").click()
    shown = [float(value) for value in orders(page, key) if value is not None]
    assert shown == sorted(shown, reverse=is_high)
    assert head(page, key).get_attribute("aria-sort") == ("descending" if is_high else "ascending")
    last = orders(page, key)[len(shown) :]
    assert last == [None] * (12 - len(shown)), "rows without a value are last"
    assert state(page) == [["sort", key]]
    assert rules(again(page)) == rules(page)
    head(page, key).get_by_role("button").click()
    assert [float(v) for v in orders(page, key) if v is not None] == sorted(shown, reverse=not is_high)
    assert orders(page, key)[len(shown) :] == last
    assert state(page) == [["sort", f"-{key}"]]


def test_rules_are_sorted_by_name_and_by_keyboard(opened):
    page = opened("index.html")
    head(page, "rule").get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert rules(page) == sorted(rules(page))
    page.keyboard.press("Enter")
    assert rules(page) == sorted(rules(page), reverse=True)


def test_default_and_tuned_are_a_switch(opened):
    page = opened("index.html")
    tuned = rules(page)
    assert len(tuned) == len(set(tuned)) == 12
    answer = page.locator(".answer:not([hidden])").inner_text()
    page.get_by_text("Default", exact=True).click()
    assert rules(page) != tuned
    assert sorted(rules(page)) == sorted(tuned), "one row for each rule, whichever settings are shown"
    assert page.locator(".answer:not([hidden])").inner_text() != answer
    assert state(page) == [["ranking", "default"]]
    assert rules(again(page)) == rules(page)
    page.keyboard.press("ArrowRight")
    assert rules(page) == tuned, "the keyboard switches, too"


def test_it_searches(opened):
    page = opened("index.html")
    page.locator("input[name=q]").fill("kolen")
    assert set(rules(page)) == {"kolen-pollack", "direct-kolen-pollack"}
    assert page.locator("#count").inner_text() == "2 of 12 rules"
    assert state(page) == [["q", "kolen"]]
    assert len(rules(again(page))) == 2
    page.locator("input[name=q]").fill("no such rule")
    assert page.locator("#count").inner_text() == "No rule has these properties."
    page.get_by_role("button", name="Clear").click()
    assert len(rules(page)) == 12
    assert state(page) == []


def test_it_filters_by_family_task_and_plausibility(opened):
    page, zoo = opened("index.html"), discover()
    page.locator("select[name=family]").select_option("feedback weights")
    assert set(rules(page)) <= {
        name for name, found in zoo.rules.items() if found.spec.family == "feedback weights"
    }
    assert len(rules(page)) > 2
    page.locator("select[name=family]").select_option("all")
    page.locator("input[value=weight_transport]").check()
    marks = {name: zoo.rules[name].spec.plausibility.marks() for name in [*zoo.rules][:12]}
    assert set(rules(page)) == {name for name, of in marks.items() if of["weight_transport"] == "no"}
    page.locator("input[value=backward_pass]").check()
    both = {name for name, of in marks.items() if {of["weight_transport"], of["backward_pass"]} == {"no"}}
    assert set(rules(page)) == both
    page.locator("select[name=task]").select_option("digits-cnn")
    assert page.locator(".ranking:not([hidden]) thead th.score:visible").count() == 1
    assert state(page) == [
        ["task", "digits-cnn"],
        ["without", "weight_transport"],
        ["without", "backward_pass"],
    ]
    other = again(page)
    assert set(rules(other)) == both
    assert other.locator(".ranking:not([hidden]) thead th.score:visible").count() == 1


def test_a_row_opens_with_its_results_and_the_command(opened):
    page = opened("index.html")
    detail = page.locator(".ranking:not([hidden]) tr.detail", has_text="Page of frozen")
    assert not detail.is_visible()
    row(page, "frozen").locator("summary").focus()
    page.keyboard.press("Enter")
    assert detail.is_visible()
    assert "rulezoo compare --rules frozen --tasks digits-mlp,digits-cnn --seeds 5" in detail.inner_text()
    assert state(page) == [["open", "frozen"]]
    head(page, "cost").get_by_role("button").click()
    after = row(page, "frozen").evaluate("row => row.nextElementSibling.textContent")
    assert "Page of frozen" in after, "it stays below its row when the rows are sorted"
    other = again(page)
    assert other.locator(".ranking:not([hidden]) tr.detail", has_text="Page of frozen").is_visible()
    row(page, "frozen").locator("summary").click()
    assert not detail.is_visible()
    assert state(page) == [["sort", "cost"]]


def test_two_rules_are_compared(opened):
    page = opened("index.html")
    page.locator("select[name=first]").select_option("usf")
    page.locator("select[name=second]").select_option("backprop")
    found = page.locator("#differences")
    found.locator("table").wait_for()
    shown = row(page, "usf").locator("td.difference").inner_text().split()[0]
    assert f"usf minus backprop: {shown} " in found.inner_text()
    assert "smallest possible 0.002" in found.inner_text()
    assert state(page) == [["compare", "usf,backprop"]]
    assert found.locator("tbody tr").count() == 2
    assert found.locator("svg").count() == 2
    other = opened("index.html?compare=backprop,usf")
    other.locator("#differences table").wait_for()
    turned = {"−": "+", "+": "−"}.get(shown[0], "") + shown[1:]
    assert f"backprop minus usf: {turned} " in other.locator("#differences").inner_text()
    other.get_by_text("Default", exact=True).click()
    assert other.locator("#differences table").is_visible()


@pytest.mark.parametrize(
    "address",
    ["#ranking=no&sort=no&open=no&compare=a,b&without=no", "#notes", "?q=%3Cb%3E", "#compare=usf,usf"],
)
def test_any_address_can_be_opened(opened, address):
    page = opened(f"index.html{address}")
    assert page.locator("section.ranking:visible").count() == 1


def test_a_note_is_found_from_its_number(opened):
    page = opened("index.html#sort=cost")
    number = page.locator(".ranking:not([hidden]) sup a").first
    number.click()
    assert page.locator(f"#note-{number.inner_text()}").is_visible()
    assert orders(page, "cost") == sorted(orders(page, "cost"), key=float), "and the rows stay as they are"


@pytest.mark.parametrize(("name", "file"), [("CSV", "leaderboard.csv"), ("CSV of runs", "runs.csv")])
def test_files_are_downloaded(opened, small_report, name, file):
    page = opened("index.html")
    with page.expect_download() as download:
        page.get_by_role("link", name=name, exact=True).click()
    assert download.value.suggested_filename == file
    assert download.value.path().read_bytes() == small_report[file]


def test_json_is_opened(opened, small_report):
    """Chromium downloads from disk only what it cannot show."""
    page = opened("index.html")
    page.get_by_role("link", name="JSON", exact=True).click()
    page.wait_for_url("**/leaderboard.json")
    assert json.loads(page.locator("pre").inner_text()) == json.loads(small_report["leaderboard.json"])


def test_a_command_and_the_citation_are_copied(opened):
    page = opened("index.html#open=frozen", permissions=["clipboard-read", "clipboard-write"])
    line = page.locator(".ranking:not([hidden]) .detail:visible .command").first
    line.get_by_role("button", name="Copy").click()
    line.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == line.locator("code").inner_text()
    page.locator(".bibtex").get_by_role("button", name="Copy").click()
    page.locator(".bibtex").get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("@software{rulezoo,\n  author")


def test_the_theme_is_chosen_and_remembered(opened):
    page = opened("index.html", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").select_option("dark")
    dark = page.evaluate(background)
    assert dark != light
    page.goto(page.url.replace("index.html", "tasks/digits-cnn.html"))
    assert page.evaluate(background) == dark
    page.locator("#theme").select_option("system")
    assert page.evaluate(background) == light


def test_what_tells_the_rules_apart_stays_while_the_tasks_scroll(opened):
    for size in SIZES.values():
        page = opened("index.html", of="big", viewport=size)
        place = ".ranking:not([hidden]) .board"
        parts = page.locator(f"{ROWS} >> nth=3").locator(
            ".rule, .aggregate, .difference, .cost, .plausibility"
        )
        before = parts.evaluate_all("cells => cells.map((cell) => cell.getBoundingClientRect().x)")
        page.locator(place).evaluate("box => (box.scrollLeft = 400)")
        assert page.locator(place).evaluate("box => box.scrollLeft") == 400
        after = parts.evaluate_all("cells => cells.map((cell) => cell.getBoundingClientRect().x)")
        assert len(before) == 5
        assert after == pytest.approx(before, abs=1)
        page.locator(place).evaluate("box => (box.scrollTop = 900)")
        top = page.locator(f"{place} thead th.rule").evaluate("cell => cell.getBoundingClientRect().y")
        assert top == pytest.approx(
            page.locator(place).evaluate("box => box.getBoundingClientRect().y"), abs=2
        )


def test_at_least_two_tasks_are_seen_next_to_what_stays(opened):
    for size, least in ((SIZES["desktop"], 4), (SIZES["phone"], 1)):
        page = opened("index.html", of="big", viewport=size)
        seen = page.evaluate(
            """() => {
                const box = document.querySelector(".ranking:not([hidden]) .board").getBoundingClientRect();
                const cells = [...document.querySelectorAll(".ranking:not([hidden]) tr.line:first-child td.score")];
                return cells.filter((cell) => cell.getBoundingClientRect().right <= box.right + 1).length;
            }"""
        )
        assert seen >= least


def test_nothing_is_cut_off_or_covered_in_the_columns_that_stay(opened):
    for size in SIZES.values():
        page = opened("index.html", of="big", viewport=size)
        cut = page.locator(f"{ROWS} :is(.aggregate, .difference, .cost, .plausibility)").evaluate_all(
            "cells => cells.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.textContent)"
        )
        assert cut == []


def test_on_paper_there_are_the_numbers_and_no_controls(opened):
    page = opened("index.html", of="big")
    page.emulate_media(media="print")
    assert page.locator(".filters:visible, .top:visible, .copy:visible").count() == 0
    assert page.locator(ROWS).count() == 40
    widths = page.locator(".ranking:not([hidden]) .board").evaluate(
        "box => [box.scrollWidth, box.clientWidth]"
    )
    assert widths[1] > 0


def test_without_scripts_all_rankings_are_plain_tables(opened):
    page = opened("index.html", java_script_enabled=False)
    assert page.locator("section.ranking:visible").count() == 2
    assert page.locator("tr.line:visible").count() == 24
    assert page.locator("button:visible").count() == 0
    page.locator("tr.line summary").first.click()
    assert page.locator("tr.detail:visible").count() == 1, "a row opens without scripts"


def test_a_task_page_is_sorted(opened):
    page = opened("tasks/digits-cnn.html")
    key = page.locator("section.ranking").first.locator("thead th[data-key='cost']")
    key.get_by_role("button").click()
    values = (
        page.locator("section.ranking")
        .first.locator("tr.line td.cost")
        .evaluate_all("cells => cells.map((cell) => Number(cell.dataset.v))")
    )
    assert values == sorted(values)
    assert key.get_attribute("aria-sort") == "ascending"
    key.get_by_role("button").click()
    assert key.get_attribute("aria-sort") == "descending"


# Five questions of a reader, each answered on the first screen or one click from it


def is_on_the_first_screen(page, place):
    box = place.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= SIZES["desktop"]["height"]


def test_which_rule_without_weight_transport_is_the_best(opened):
    page = opened("index.html", of="big")
    page.locator("input[value=weight_transport]").check()
    first = page.locator(ROWS).first
    assert is_on_the_first_screen(page, first)
    label = first.get_attribute("data-label")
    assert discover().rules[label].spec.plausibility.marks()["weight_transport"] == "no"
    best = [float(value) for value in orders(page, "aggregate") if value is not None]
    assert best[0] == max(best)
    assert first.locator("td.aggregate").inner_text().split()[0] == f"{best[0]:.1f}"


def test_how_far_it_is_from_backprop_on_cifar10(opened):
    page = opened("index.html", of="big")
    first = page.locator(ROWS).nth(1)
    first.locator("summary").click()
    label = first.get_attribute("data-label")
    line = page.locator(".ranking:not([hidden]) tr.detail:visible tbody tr", has_text="cifar10-cnn")
    assert label in page.locator(".ranking:not([hidden]) tr.detail:visible").inner_text()
    assert re.search(r"[−+]?\d+\.\d [▲≈▼] \[−?\d+\.\d, −?\d+\.\d\]", line.inner_text())


def test_what_it_costs_and_whether_the_difference_is_sure(opened):
    page = opened("index.html", of="big")
    answer = page.locator(".answer:not([hidden])")
    assert is_on_the_first_screen(page, answer)
    assert re.search(r"takes ×\d\.\d\d the time of backprop's", answer.inner_text())
    second = page.locator(ROWS).nth(1)
    assert is_on_the_first_screen(page, second)
    assert re.fullmatch(r"×\d+\.\d\d", second.locator("td.cost").inner_text())
    difference = second.locator("td.difference").inner_text()
    assert re.search(r"[▲≈▼] \[.*\]\s+p [=<] [\d.]+ \([<\d. ]+\)", difference)
    assert "p (smallest possible)" in head(page, "difference").inner_text()


def test_how_to_get_a_number(opened):
    page = opened("index.html", of="big")
    page.locator(ROWS).nth(1).locator("summary").click()
    detail = page.locator(".ranking:not([hidden]) tr.detail:visible")
    label = page.locator(ROWS).nth(1).get_attribute("data-label")
    assert f"rulezoo compare --rules {label} --tasks " in detail.inner_text()


# For everybody


def test_a_link_leads_to_the_page_of_a_rule_and_back(opened):
    page = opened("index.html", of="odd")
    page.locator(".ranking").get_by_role("link", name="nmnc", exact=True).click()
    assert page.locator("h1").inner_text() == "nmnc"
    page.evaluate("document.querySelectorAll('img').forEach((image) => (image.loading = 'eager'))")
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    page.get_by_role("link", name="Leaderboard").click()
    assert page.locator("section.ranking").is_visible()


def test_the_first_stop_of_the_keyboard_skips_to_the_content(opened):
    page = opened("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"


@pytest.mark.parametrize("of", BOARDS)
@pytest.mark.parametrize("path", PAGES)
def test_a_phone_shows_it_without_scrolling_sideways(opened, of, path):
    page = opened(path, of=of, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", [*PAGES, "index.html#open=frozen&compare=usf,backprop"])
def test_axe_finds_nothing(opened, path, scheme, size):
    assert violations(opened(path, color_scheme=scheme, viewport=SIZES[size])) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing_on_a_large_leaderboard(opened, scheme, size):
    assert violations(opened("index.html", of="big", color_scheme=scheme, viewport=SIZES[size])) == []


def test_axe_finds_nothing_in_a_chosen_theme(opened):
    page = opened("index.html", color_scheme="light")
    page.locator("#theme").select_option("dark")
    assert violations(page) == []


def violations(page):
    found = axe_module.Axe().run(page, options=AXE).response["violations"]
    return [(v["id"], v["impact"], [node["html"][:200] for node in v["nodes"]][:3]) for v in found]


@pytest.mark.parametrize("path", PAGES)
def test_a_served_page_works_as_one_from_disk_and_asks_nobody_else(chromium, folders, path):
    said, asked = [], []
    with server_of(folders("small"), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{HOST}:{server.server_address[1]}/"
        context = chromium.new_context(**DESKTOP)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + path)
        if path == "index.html":
            head(page, "cost").locator("button").click()
            assert state(page) == [["sort", "cost"]]
            costs = [float(value) for value in orders(page, "cost") if value is not None]
            assert len(costs) > 2
            assert costs == sorted(costs)
            assert rules(again(page)) == rules(page)
        context.close()
        server.shutdown()
    assert said == []
    assert len(asked) > 1
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
