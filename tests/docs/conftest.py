"""Fixtures: the built pages, served, and a headless Chromium.

They need Debian's packages `chromium` and `chromium-driver`, or a Chrome with
its driver, and the pages that `python -m sphinx docs docs/_build/html` builds.
"""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.browsing import DOCS, SITE


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
