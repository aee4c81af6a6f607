"""The built pages, and a browser to open them in."""

import pathlib
from typing import Any

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SITE = DOCS / "_build" / "html"
WIDTHS = {"desktop": 1440, "phone": 390}


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
