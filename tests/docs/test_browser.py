"""The built pages in a browser, at two widths, and their links."""

import html.parser
import pathlib
import posixpath
import re
import urllib.parse
from typing import Any

import pytest

from tests.docs.browsing import DOCS, SITE, WIDTHS, resize

pytestmark = pytest.mark.exhaustive

CHECKS = (pathlib.Path(__file__).parent / "page_checks.js").read_text()
PAGES = sorted(
    str(path.relative_to(DOCS).with_suffix(".html"))
    for path in DOCS.rglob("*.md")
    if not {"_build", "_generated"} & set(path.relative_to(DOCS).parts)
)
THEMES = ("light", "dark")


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
