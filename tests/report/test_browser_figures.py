"""Figures, formulas and pages of rules and claims in a real browser, from disk and without a network."""

import shutil

import pytest

from rulezoo.claims.installed import findings
from rulezoo.discovery.registry import discover
from rulezoo.report.build import report, write

from .boards import board

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install 'rulezoo[browser]'`")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs rulezoo[browser]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs `apt-get install chromium`"),
    pytest.mark.filterwarnings("default"),  # of playwright's own threads
]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Twelve rules on two tasks, default and tuned; claims of which nothing was run."""
    records, tunings = board(run, 12, 2)
    zoo, where = discover(), tmp_path_factory.mktemp("report")
    claims, _ = findings(zoo, tmp_path_factory.mktemp("claims"))
    write(report(records, zoo, tunings=tunings, claims=claims), where)
    return where


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, folder):
    contexts, said = [], []

    def open_(path, **options):
        contexts.append(
            browser.new_context(offline=True, **({"viewport": {"width": 1400, "height": 900}} | options))
        )
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((folder / path).as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []


def first_rule(folder):
    return next(
        path.stem for path in sorted((folder / "rules").iterdir()) if path.stem not in ("backprop", "frozen")
    )


def in_view(page, mark):
    """Scroll to a mark, and wait until the page has come to rest: a page that scrolls hides what it says of a mark."""
    mark.scroll_into_view_if_needed()
    page.evaluate(
        "() => new Promise((done) => { let last; const look = () => "
        "{ if (scrollY === last) return requestAnimationFrame(done); last = scrollY; setTimeout(look, 150); }; look(); })"
    )


def figure(page):
    return page.locator("figure:not([hidden]) svg.figure:visible").first


def test_what_is_pointed_at_says_its_name_and_stands_out_in_every_figure(opened):
    page = opened("index.html")
    mark = figure(page).locator(".tip use").first
    in_view(page, mark)
    mark.hover()
    name = mark.evaluate("one => one.closest('.tip').dataset.name")
    note = page.locator(".tip-note")
    assert note.is_visible()
    assert note.text_content().startswith(f"{name}: ")
    shown = page.locator("svg.figure .on").evaluate_all(
        "all => [...new Set(all.map((one) => one.dataset.name))]"
    )
    assert shown == [name]
    assert page.locator("svg.figure.pointed").count() > 1
    page.keyboard.press("Escape")
    assert note.is_hidden()
    assert page.locator("svg.figure .on").count() == 0


def test_a_touch_says_the_name_on_a_phone(opened):
    page = opened("index.html", **PHONE)
    mark = figure(page).locator(".tip use").first
    in_view(page, mark)
    mark.tap()
    note = page.locator(".tip-note")
    assert note.is_visible()
    box = note.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_wide_pages_have_the_wide_form_and_phones_the_narrow_one(opened):
    for options, kind in (({}, "wide"), (PHONE, "narrow")):
        page = opened("index.html", **options)
        forms = page.locator("figure:not([hidden]) svg.wide, figure:not([hidden]) svg.narrow")
        shown = forms.evaluate_all(
            "all => all.filter((one) => one.getBoundingClientRect().width).map((one) => one.classList[1])"
        )
        assert set(shown) == {kind}


def test_letters_of_a_figure_can_be_read_on_a_phone(opened, folder):
    for path in ("index.html", f"rules/{first_rule(folder)}.html"):
        page = opened(path, **PHONE)
        sizes = page.locator("svg.figure text:visible").evaluate_all(
            "all => all.map((one) => parseFloat(getComputedStyle(one).fontSize) * Math.hypot(one.getScreenCTM().a, one.getScreenCTM().b))"
        )
        assert sizes
        assert min(sizes) >= 9.5


def test_figures_follow_the_theme_that_is_chosen(opened):
    page = opened("index.html", color_scheme="light")
    text, dot = figure(page).locator("text").first, figure(page).locator(".tip use").last
    colours = []
    for theme in ("light", "dark"):
        page.select_option("#theme", theme)
        colours.append([one.evaluate("one => getComputedStyle(one).fill") for one in (text, dot)])
    assert colours[0][0] != colours[1][0]
    assert colours[0][1] != colours[1][1]


def test_the_switch_of_settings_shows_their_figures(opened):
    page = opened("index.html")
    names = page.locator("input[name=ranking]").evaluate_all("all => all.map((one) => one.value)")
    assert len(names) == 2
    for name in names:
        page.locator(f"input[name=ranking][value='{name}']").check(force=True)
        shown = page.locator("figure[data-ranking]:not([hidden])")
        assert set(shown.evaluate_all("all => all.map((one) => one.dataset.ranking)")) == {name}


def test_formulas_are_set_in_lines_and_fit_on_a_phone(opened, folder):
    for path in (folder / "rules").iterdir():
        page = opened(f"rules/{path.name}", **PHONE)
        boxes = page.locator(".formula math").evaluate_all(
            "all => all.map((one) => { const b = one.getBoundingClientRect(); return [b.width, b.height]; })"
        )
        assert boxes
        for width, height in boxes:
            assert width > height / 2, f"{path.name}: a formula is stacked"
            assert height < 90
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_names_of_a_table_stay_in_words_on_a_phone(opened, folder):
    page = opened(f"rules/{first_rule(folder)}.html", **PHONE)
    widths = page.locator("tbody th.first").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().width)"
    )
    assert min(widths) >= 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["rule", "claims.html"])
def test_axe_finds_nothing(opened, folder, path, scheme):
    path = f"rules/{first_rule(folder)}.html" if path == "rule" else path
    page = opened(path, color_scheme=scheme)
    for closed in page.locator("details").all():
        closed.evaluate("one => { one.open = true; }")
    found = axe_module.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found] == []


@pytest.mark.parametrize("path", ["claims.html", "rule"])
def test_a_phone_does_not_scroll_sideways(opened, folder, path):
    path = f"rules/{first_rule(folder)}.html" if path == "rule" else path
    page = opened(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
