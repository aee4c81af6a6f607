"""Generates what the page of deep_mlp shows of measurements."""

import json
import pathlib

from tables import table

STORED = pathlib.Path(__file__).parent / "data" / "scan_costs.json"
LIBRARIES = {"equinox": "Equinox", "flax": "Flax NNX"}


def pages() -> dict[str, str]:
    """Returns the cost of a first call and of a step in each way."""
    stored = json.loads(STORED.read_text())
    rows = [
        (
            LIBRARIES[cost["backend"]],
            f"{cost['size']} features, {cost['batch_size']} examples",
            cost["way"],
            f"{cost['first_call']:.2f}",
            f"{cost['seconds'] * 1e3:.2f}",
            f"{cost['ratio']:.2f}",
            f"{cost['temporary'] / 2**20:.2f}",
        )
        for cost in stored["costs"]
    ]
    columns = (
        "library",
        "size",
        "blocks",
        "first call, s",
        "step, ms",
        "ratio to a list",
        "temporary memory, MiB",
    )
    text = table(columns, rows, text=3)
    text += (
        f"{stored['depth']} blocks on {stored['machine']}. The ratio is the "
        f"median over {stored['rounds']} rounds, in each of which all four "
        "run in turns. The memory is what the compiled step needs besides "
        "its arguments, by XLA's analysis. The load average was "
        f"{stored['load_before']:.1f} before and {stored['load_after']:.1f} "
        "after.\n"
    )
    return {"scan_costs.md": text}
