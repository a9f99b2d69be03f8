"""The site in a real browser, from disk and without a network: Debian's chromium, driven by playwright."""

import json
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install 'rulezoo[browser]'`")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs rulezoo[browser]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs `apt-get install chromium`"),
    pytest.mark.filterwarnings("default"),  # of playwright's own threads
]
SCHEMES = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark"}}
AXE = {"preload": False}  # or it fetches the style sheet once more, which no browser allows from disk
PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def folder(site, tmp_path_factory):
    from rulezoo.report.build import write

    folder = tmp_path_factory.mktemp("site")
    write(site, folder)
    return folder


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, folder):
    """Open a page; at the end nothing was complained of, and nothing asked for outside the folder."""
    contexts, said, asked = [], [], []

    def open_(path, **options):
        context = chromium.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / path).as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((folder.as_uri(), "data:"))] == []


def rules(page):
    """The first words of the rows that are shown."""
    return [text.split()[0] for text in page.locator("#table tbody th[scope=row]").all_inner_texts()]


def eventually(page, seen, wanted):
    """The table is sorted and filtered a moment after it was asked for, later on a busy machine."""
    for _ in range(200):
        if seen() == wanted:
            return
        page.wait_for_timeout(50)
    assert seen() == wanted


def test_it_sorts_by_mouse_and_by_keyboard(opened):
    page = opened("index.html")
    assert rules(page)[0] == "backprop"
    head = page.locator("#table thead th", has_text="cost").first
    head.click()
    eventually(page, lambda: head.get_attribute("aria-sort"), "ascending")
    eventually(page, lambda: rules(page)[0], "frozen")  # the cheapest
    head.locator("[tabindex='0']").focus()
    page.keyboard.press("Enter")
    eventually(page, lambda: head.get_attribute("aria-sort"), "descending")
    score = page.locator("#table thead th", has_text="accuracy").first
    score.click()
    eventually(page, lambda: rules(page)[0], "e-prop")  # skipped: it has no score there


def test_it_searches_and_filters(opened):
    page = opened("index.html")
    assert page.locator("#count").inner_text() == "7 of 7 rows"
    page.fill("#search", "noise")
    eventually(page, lambda: set(rules(page)), {"noise-correlation"})
    eventually(page, lambda: page.locator("#count").inner_text(), "2 of 7 rows")
    page.fill("#search", "")
    page.select_option("#family", "feedback weights")
    eventually(page, lambda: rules(page), ["feedback-alignment"])
    page.select_option("#family", "")
    page.check("input[value=perturbation]")
    eventually(page, lambda: "nmnc" in rules(page), False)
    eventually(page, lambda: "backprop" in rules(page), True)
    page.uncheck("input[value=perturbation]")
    page.select_option("#ruleset", "set")
    eventually(page, lambda: set(rules(page)), {"noise-correlation"})
    page.select_option("#ruleset", "")
    before = page.locator("#table thead th:visible").count()
    page.select_option("#task", "digits-rnn")
    heads = page.locator("#table thead th:visible")
    eventually(page, heads.count, before - 3)  # without a head, its scores and its costs
    assert page.locator("#table thead").inner_text().count("digits-cnn") == 0


def test_a_link_leads_to_the_page_of_a_rule_and_back(opened):
    page = opened("index.html")
    page.locator("#table").get_by_role("link", name="nmnc", exact=True).click()
    assert page.locator("h1").inner_text() == "nmnc"
    page.evaluate("document.querySelectorAll('img').forEach((image) => (image.loading = 'eager'))")
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    page.get_by_role("link", name="Board").click()
    assert page.locator("#table").is_visible()


def test_the_first_stop_of_the_keyboard_skips_to_the_content(opened):
    page = opened("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"


@pytest.mark.parametrize("path", ["index.html", "rules/nmnc.html", "tasks/digits-cnn.html"])
def test_a_phone_shows_it_without_scrolling_sideways(opened, path):
    page = opened(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", ["index.html", "rules/feedback-alignment.html", "tasks/digits-cnn.html"])
def test_axe_finds_nothing_serious(opened, path, scheme):
    page = opened(path, **SCHEMES[scheme])
    found = axe_module.Axe().run(page, options=AXE).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    words = [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in serious]
    assert words == [], json.dumps(words, indent=1)
