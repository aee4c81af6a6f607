"""Generates what the documentation shows of `align`, `port` and `compare`."""

import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np
from tables import table

from common import align, compare, diff, environment, port
from common.divergence import page
from common.rendering.files import to_json

DATA = pathlib.Path(__file__).parent / "data"
sys.path.insert(0, str(DATA.parents[1]))


def pages() -> dict[str, str]:
    """Returns the results for the example of the guide, and the cost."""
    from docs.port import classifier_equinox, classifier_nnx

    images = np.random.default_rng(0).normal(size=(4, 1, 8, 8))
    images = images.astype("float32")
    inputs: dict[str, Any] = {
        "left_inputs": images,
        "right_inputs": images.transpose(0, 2, 3, 1),
    }
    with jax.enable_x64(False):  # as most users run it
        return _example(classifier_equinox, classifier_nnx, inputs)


def _example(equinox: Any, nnx: Any, inputs: Any) -> dict[str, str]:
    left, right = equinox.make(), nnx.make()
    wrong = nnx.make(eps=1e-3)
    found = diff(left, wrong, weights="symmetric", **inputs)
    alignment = align(left, right, **inputs, progress=False)
    ported = port(left, right, rules=alignment)
    report = compare(left, ported, rules=alignment, **inputs)
    facts = environment.environment()
    reports = {"environment": facts, "reports": [report.to_json()]}
    return {
        "port_diff.md": f"```text\n{found}\n```\n",
        "port_diff.json": page.to_json(found, facts),
        "port_align.md": f"```text\n{alignment}\n```\n",
        "port_rules.md": f"```text\n{alignment.rules}\n```\n",
        "port_compare.md": f"```text\n{report}\n```\n",
        "port_compare.json": to_json(reports),
        "align_cost.md": _cost(
            json.loads((DATA / "align_cost.json").read_text())
        ),
        "port_cost.md": _filled(
            json.loads((DATA / "port_cost.json").read_text())
        ),
    }


def _cost(stored: dict) -> str:
    rows = [
        (
            run["what"],
            f"{run['arrays'][0]} and {run['arrays'][1]}",
            f"{run['elements'] / 1e6:.1f}",
            f"{run['runs']}",
            f"{run['seconds']:.0f}",
            f"{run['memory'] / 1e9:.1f}",
            f"{run['agreement']:.0e}",
        )
        for run in stored["runs"]
    ]
    columns = (
        "pair",
        "arrays",
        "million elements",
        "runs",
        "seconds",
        "memory in GB",
        "error of the proof",
    )
    return table(columns, rows) + f"Measured on {stored['machine']}.\n"


def _filled(stored: dict) -> str:
    names = {"equinox": "Equinox", "flax": "NNX"}
    rows = []
    for run in stored["runs"]:
        seconds, size = run["seconds"], run["bytes"]
        rows.append(
            (
                names[run["library"]],
                f"{run['devices']}",
                f"{seconds['copy']:.2f}",
                f"{seconds['transpose']:.2f}",
                f"{seconds['port']:.2f}",
                f"{seconds['port'] / seconds['copy']:.2f}",
                f"{seconds['port'] / seconds['transpose']:.2f}",
                f"{run['memory'] / size:.3f}",
            )
        )
    columns = (
        "target",
        "devices",
        "a copy, s",
        "a transposing copy, s",
        "`port`, s",
        "`port` / copy",
        "`port` / transposing copy",
        "peak memory / target",
    )
    first = stored["runs"][0]
    return (
        table(columns, rows)
        + f"{first['parameters'] / 1e9:.2f} billion parameters of bfloat16, "
        f"{first['bytes'] / 1e9:.2f} GB; the largest array has "
        f"{first['largest'] / first['bytes']:.0%} of them. To compute the "
        f"SHA-256 of the file took {first['seconds']['verify']:.1f} s. Each "
        f"time is the shortest of {len(first['all_seconds']['port'])}. "
        f"Measured on {stored['machine']}, with virtual devices of one CPU.\n"
    )
