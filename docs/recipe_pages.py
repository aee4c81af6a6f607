"""Generates what the pages of the recipes show of measurements."""

import json
import pathlib

from tables import table

STORED = pathlib.Path(__file__).parent / "data" / "recipe_costs.json"


def pages() -> dict[str, str]:
    """Returns the cost of a step in each loop."""
    stored = json.loads(STORED.read_text())
    fastest = {
        (run["library"], run["loop"], run["blocks"]): min(run["seconds"])
        for run in stored["runs"]
    }
    depths = sorted({depth for *_, depth in fastest})
    rows = [
        (library, loop)
        + tuple(f"{fastest[library, loop, d] * 1e6:.0f}" for d in depths)
        for library, loop, depth in fastest
        if depth == depths[0]
    ]
    blocks = [f"{d} block{'s' if d > 1 else ''}" for d in depths]
    columns = ("library", "loop", *(f"{words}, µs" for words in blocks))
    text = table(columns, rows, text=2)
    text += (
        f"The mean of the fastest {stored['chunk']} consecutive steps out of "
        f"{stored['steps']:,}, because other work on the machine only adds "
        f"time. Measured on {stored['machine']}. A block is a BatchNorm and a "
        f"Linear of {stored['size']} features.\n"
    )
    return {"recipe_costs.md": text}
