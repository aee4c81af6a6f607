"""Runs `diff` on the documentation's case, and tells what is stored of it."""

import json
import pathlib
import sys

import numpy as np
from tables import table

from common import diff
from common.divergence import page

DATA = pathlib.Path(__file__).parent / "data"
sys.path.insert(0, str(DATA.parents[1]))


def pages() -> dict[str, str]:
    """Writes the case, and the figures of the bank and of the cost."""
    from docs.port import vit_equinox, vit_nnx

    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    found = diff(vit_equinox.features, vit_nnx.features, images)
    repaired = diff(vit_equinox.features, vit_nnx.repaired(), images)
    return {
        "diff_case.md": f"```text\n{found}\n```\n",
        "diff_case.svg": f'<div class="plot">{page.plot(found)}</div>',
        "diff_fixed.md": f"```text\n{repaired}\n```\n",
        "diff_bank.md": _bank(
            json.loads((DATA / "mutations.json").read_text())
        ),
        "diff_cost.md": _cost(
            json.loads((DATA / "diff_cost.json").read_text())
        ),
    }


def _bank(figures: dict) -> str:
    faults, rewritten = figures["faults"], figures["rewritten"]

    def share(key: str) -> str:
        return f"{100 * figures[key]:.1f} %"

    rows = [
        ("planted faults found", f"{figures['found']} of {faults}"),
        (
            "of them in pairs whose sides are written differently",
            f"{rewritten}",
        ),
        (
            "planted line named by the first origin",
            share("named by line first"),
        ),
        ("by one of the first two", share("named by line")),
        (
            "planted line or function named by one of the first two",
            share("named"),
        ),
        (
            "false alarms on unmutated pairs, over random initialisations",
            f"{figures['false alarms']} of {figures['initialisations']}",
        ),
    ]
    return table(("what", "figure"), rows)


def _cost(stored: dict) -> str:
    rows = [
        (
            it["what"],
            f"{it['values'][0]} and {it['values'][1]}",
            f"{it['elements'] / 1e6:.1f}",
            f"{it['first']:.1f}",
            f"{it['again']:.1f}",
        )
        for it in stored["runs"]
    ]
    columns = (
        "pair",
        "values",
        "million elements",
        "seconds, first time",
        "again",
    )
    return table(columns, rows) + f"On {stored['machine']}.\n"
