"""What a reader of the built pages clicks and types."""

import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from tests.docs.browsing import SITE, WIDTHS, resize

pytestmark = pytest.mark.exhaustive


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
    field = browser.find_element("id", "filter")
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
        form = browser.find_element("css selector", "form.filter")
        assert not form.is_displayed()
    finally:
        browser.execute_cdp_cmd(
            "Emulation.setScriptExecutionDisabled", {"value": False}
        )


def test_a_known_difference_opens_when_it_is_named(site, browser):
    resize(browser, WIDTHS["phone"])
    browser.get(f"{site}/differences.html?q=spectral#dropout-keys")
    shown = "return [...document.querySelectorAll('details.difference')]"
    rows = f"{shown}.filter((row) => !row.hidden).map((row) => row.id)"
    opened = f"{shown}.filter((row) => row.open).map((row) => row.id)"
    assert browser.execute_script(opened) == ["dropout-keys"]
    # The filter of the address does not hide what the address names.
    every = browser.execute_script(rows)
    field = browser.find_element("id", "filter")
    field.send_keys("spectral zero")
    assert "spectral-norm-zero" in browser.execute_script(rows)
    assert len(browser.execute_script(rows)) < len(every) / 4
