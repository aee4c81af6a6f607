"""The built pages in a browser: headless Chromium, at two widths.

Needs Debian's packages `chromium` and `chromium-driver`, or a Chrome with its
driver, and the pages that `python -m sphinx docs docs/_build/html` builds.
"""

import functools
import html.parser
import http.server
import pathlib
import posixpath
import re
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.exhaustive

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SITE = DOCS / "_build" / "html"
CHECKS = (pathlib.Path(__file__).parent / "page_checks.js").read_text()
PAGES = sorted(
    str(path.relative_to(DOCS).with_suffix(".html"))
    for path in DOCS.rglob("*.md")
    if not {"_build", "_generated"} & set(path.relative_to(DOCS).parts)
)
WIDTHS = {"desktop": 1440, "phone": 390}
THEMES = ("light", "dark")


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serves the built pages, and yields their address."""
    if not (SITE / "index.html").exists():
        pytest.skip(
            "the pages are not built: python -m sphinx docs "
            + str(SITE.relative_to(DOCS.parent))
        )
    handler = functools.partial(Server, directory=SITE)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yields a headless Chromium, driven by its own driver."""
    webdriver = pytest.importorskip("selenium.webdriver")
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("neither chromium nor chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (
        "--headless",
        "--no-sandbox",  # root cannot have one
        "--disable-gpu",
        "--disable-quic",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options, service) as driver:
        yield driver


def resize(browser: Any, width: int) -> None:
    """Sets the width of the page, also below that of the smallest window."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": False,
        },
    )
    # The page may be drawn only after the next script has run.
    browser.execute_script("window.dispatchEvent(new Event('resize'))")


def use_theme(browser: Any, theme: str) -> None:
    browser.execute_script(f"document.body.dataset.theme = {theme!r}")


def errors(browser: Any) -> list[str]:
    """Returns what the console has printed as an error since the last call."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE"
    ]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_readable(page, site, browser):
    browser.get(f"{site}/{page}")
    found = [f"console: {message}" for message in errors(browser)]
    for name, width in WIDTHS.items():
        resize(browser, width)
        for theme in THEMES:
            use_theme(browser, theme)
            found += [
                f"{name}, {theme}: {problem}"
                for problem in browser.execute_script(CHECKS)
            ]
    assert not found, "\n".join(found)


PLANTED = {
    "is 2000 px wide|px wide in a window": "<p style='width: 2000px'>wide</p>",
    "a contrast of 1": "<p style='color: #eee; background: #fff'>pale</p>",
    "a pane shows": "<div class='highlight' style='width: 200px'>"
    "<pre>narrow</pre></div>",
    "a table of 900 px in 300 px": "<div style='overflow: auto; width: 300px'>"
    "<table class='docutils' style='width: 900px'><td>wide</table></div>",
}


@pytest.mark.parametrize("problem", PLANTED)
def test_a_planted_problem_is_found(problem, site, browser):
    browser.get(f"{site}/index.html")
    resize(browser, WIDTHS["desktop"])
    use_theme(browser, "light")
    assert browser.execute_script(CHECKS) == []
    browser.execute_script(
        "document.querySelector('article').insertAdjacentHTML("
        "'afterbegin', arguments[0])",
        PLANTED[problem],
    )
    (found,) = browser.execute_script(CHECKS)
    assert re.search(problem, found)


def test_a_console_error_is_found(site, browser):
    browser.get(f"{site}/index.html")
    assert errors(browser) == []
    browser.get(f"{site}/no_such_page.html")
    assert errors(browser)


# --- links ------------------------------------------------------------------

UPSTREAM = re.compile(
    r"https://github\.com/[\w.-]+/[\w.-]+"
    r"(/(issues|pull|discussions)/\d+(#[\w-]+)?|/blob/[\w./-]+(#L\d+)?|/?)"
)
"""The form of a link to an upstream repository, thread or file."""


class Page(html.parser.HTMLParser):
    """The links of a page, and what a link to it may point at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        for name in ("href", "src"):
            if values.get(name):
                self.links.append(values[name])


def broken(pages: dict[str, Page]) -> list[str]:
    """Returns the links that lead nowhere, and from where."""
    found = []
    for name, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme in ("http", "https"):
                if url.netloc == "github.com" and not UPSTREAM.fullmatch(link):
                    found.append(f"{name}: {link}")
                continue
            if url.scheme:  # such as data: or mailto:
                continue
            path = urllib.parse.unquote(url.path)
            target = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), path) if path else name
            )
            known = pages.get(target)
            if known is not None:
                if urllib.parse.unquote(url.fragment) not in known.anchors:
                    found.append(f"{name}: {link}")
            elif not (SITE / target).exists():
                found.append(f"{name}: {link}")
    return found


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return {
        str(path.relative_to(SITE)): Page(path.read_text())
        for path in SITE.rglob("*.html")
        if "_static" not in path.parts
    }


def test_every_link_leads_somewhere(pages):
    assert set(PAGES) <= pages.keys()
    assert not broken(pages)


@pytest.mark.parametrize(
    "link",
    [
        "no_such_page.html",
        "index.html#no-such-section",
        "https://github.com/patrick-kidger/equinox/issues/first",
    ],
)
def test_a_broken_link_is_found(link, pages):
    assert broken(
        pages | {"new.html": Page(f'<a href="{link}">link</a>')}
    ) == [f"new.html: {link}"]


def test_no_page_loads_from_another_site(pages):
    """A link is fine; a script, a style or an image is not."""
    for name in pages:
        text = (SITE / name).read_text()
        loaded = re.findall(
            r"<(?:script|img|source|iframe|link rel=.stylesheet.)[^>]*"
            r"(?:src|href)=[\"'](https?://[^\"']+)",
            text,
        )
        assert not loaded, name


# --- what a reader clicks ---------------------------------------------------


def wait(browser: Any, condition: Callable[[], Any]) -> Any:
    """Waits until a condition holds, and returns its value."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 10).until(lambda _: condition())


def test_a_copy_button_copies(site, browser):
    resize(browser, WIDTHS["desktop"])
    browser.get(f"{site}/index.html")
    button = browser.find_element(
        "css selector", ".highlight-pycon button.copybtn"
    )
    code = browser.execute_script(
        "return document.querySelector(arguments[0].dataset.clipboardTarget)"
        ".innerText",
        button,
    )
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})",
        button,
    )
    button.click()
    # The address is needed to read the clipboard, but not to write to it.
    browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": site, "permissions": ["clipboardReadWrite"]},
    )
    copied = browser.execute_async_script(
        "const [done] = arguments;"
        "navigator.clipboard.readText().then(done, (e) => done(String(e)))"
    )
    lines = [line for line in code.splitlines() if line.startswith(">>> ")]
    assert lines
    assert copied.splitlines()[0] == lines[0].removeprefix(">>> ")


def test_a_click_sorts_a_table(site, browser):
    resize(browser, WIDTHS["desktop"])
    browser.get(f"{site}/index.html")
    heading = browser.find_element(
        "xpath", "//th[contains(., 'largest error')]"
    )
    column = browser.execute_script("return arguments[0].cellIndex", heading)

    def values() -> list[float]:
        cells = browser.execute_script(
            "return [...arguments[0].closest('table').tBodies[0].rows]"
            ".map((row) => row.cells[arguments[1]].textContent)",
            heading,
            column,
        )
        return [float(cell.split()[0]) for cell in cells]

    before = values()
    assert len(before) > 2 and before != sorted(before)
    for reverse in (False, True):
        heading.find_element("css selector", "button").click()
        assert values() == sorted(before, reverse=reverse)


@pytest.mark.parametrize("word", ["BatchNorm", "checkpoint", "state", "vmap"])
def test_the_search_finds(word, site, browser):
    browser.get(f"{site}/search.html?q={word}")
    results = wait(
        browser,
        lambda: browser.find_elements(
            "css selector", "#search-results .search li a"
        ),
    )
    assert results
    link = results[0].get_attribute("href").partition("?")[0]
    path = urllib.parse.urlsplit(link).path.lstrip("/")
    assert word.lower() in (SITE / path).read_text().lower()


def test_the_search_finds_nothing_where_there_is_nothing(site, browser):
    browser.get(f"{site}/search.html?q=xyzzyx")
    wait(
        browser,
        lambda: (
            "did not match"
            in browser.find_element("id", "search-results").text
        ),
    )
    assert not browser.find_elements("css selector", "#search-results li a")


def shown_rows(browser: Any) -> list[str]:
    """Returns the titles of the dictionary's rows that are visible."""
    return browser.execute_script(
        "return [...document.querySelectorAll('article section h3')]"
        ".filter((title) => title.checkVisibility())"
        ".map((title) => title.textContent.slice(0, -1))"  # without its link
    )


def shown_lines(browser: Any) -> list[str]:
    """Returns the titles that the dictionary's table shows."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.dictionary-overview td a')]"
        ".filter((title) => title.checkVisibility())"
        ".map((title) => title.textContent)"
    )


def test_the_dictionary_is_filtered_as_one_types(site, browser):
    resize(browser, WIDTHS["desktop"])
    browser.get(f"{site}/dictionary.html")
    rows = shown_rows(browser)
    field = browser.find_element("id", "dictionary-search")
    field.send_keys("vmap ensemble")
    some = shown_rows(browser)
    assert "Create an ensemble" in some
    assert shown_lines(browser) == some
    assert len(some) < len(rows) / 4
    field.send_keys(" xyzzyx")
    assert shown_rows(browser) == []
    field.clear()
    browser.execute_script(
        "arguments[0].dispatchEvent(new Event('input'))", field
    )
    assert shown_rows(browser) == shown_lines(browser) == rows
    browser.get(f"{site}/dictionary.html?q=vmap+ensemble")
    assert shown_rows(browser) == some
    # The page scrolls smoothly, and a real click may miss what moves.
    link = browser.find_element("link text", "Saving")
    browser.execute_script("arguments[0].click()", link)
    wait(browser, lambda: shown_rows(browser) == rows)


def test_a_line_of_the_table_leads_to_its_row(site, browser):
    browser.get(f"{site}/dictionary.html?q=ensemble")
    link = browser.find_element("link text", "Create an ensemble")
    browser.execute_script("arguments[0].click()", link)
    assert browser.current_url.endswith("#dictionary-create-an-ensemble")


def test_the_dictionary_needs_no_script(site, browser):
    browser.execute_cdp_cmd(
        "Emulation.setScriptExecutionDisabled", {"value": True}
    )
    try:
        browser.get(f"{site}/dictionary.html")
        rows = browser.find_elements("css selector", "article section h3")
        assert rows and all(row.is_displayed() for row in rows)
        form = browser.find_element("css selector", "form.dictionary-search")
        assert not form.is_displayed()
    finally:
        browser.execute_cdp_cmd(
            "Emulation.setScriptExecutionDisabled", {"value": False}
        )
