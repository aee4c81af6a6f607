"""Generates the results of `diff` that the documentation shows."""

import collections
import json
import pathlib
import sys
from collections.abc import Mapping

import jax
import numpy as np
from tables import table

from common import diff, environment
from common.divergence import page

DATA = pathlib.Path(__file__).parent / "data"
sys.path.insert(0, str(DATA.parents[1]))


def pages() -> dict[str, str]:
    """Returns the example, the figures of the planted faults and the cost."""
    from docs.port import vit_equinox, vit_nnx

    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    found = diff(
        lambda model, x: jax.vmap(model)(x),
        lambda model, x: model(x),
        vit_equinox.model,
        images,
        right_args=(vit_nnx.model, images),
    )
    repaired = diff(vit_equinox.features, vit_nnx.repaired(), images)
    facts = environment.environment()
    return {
        "diff_case.md": f"```text\n{found}\n```\n",
        "diff_case.svg": f'<div class="plot">{page.plot(found)}</div>',
        "diff_case.json": page.to_json(found, facts),
        "diff_fixed.md": f"```text\n{repaired}\n```\n",
        "diff_fixed.json": page.to_json(repaired, facts),
        "diff_bank.md": _bank(
            json.loads((DATA / "mutations.json").read_text())
        ),
        "diff_unseen.md": _unseen(
            json.loads((DATA / "unseen.json").read_text())
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
        ("planted faults that are found", f"{figures['found']} of {faults}"),
        (
            "faults in pairs whose programs are written differently",
            f"{rewritten}",
        ),
        (
            "faults whose line is named by the first origin",
            share("named by line first"),
        ),
        (
            "faults whose line is named by one of the first two origins",
            share("named by line"),
        ),
        (
            "faults whose line or function is named by one of the first two",
            share("named"),
        ),
        (
            "false alarms in random draws of pairs without a fault",
            f"{figures['false alarms']} of {figures['initializations']}",
        ),
    ]
    return table(("quantity", "value"), rows)


def _unseen(figures: dict) -> str:
    kinds = {
        "used": "used while `diff` was changed",
        "held out": "held out: nothing was tuned on them",
        "independent": "in other pairs, written without reading its code",
        "fresh": "in two more pairs, which no change of `diff` has used",
        "last, at first": "in three more pairs, before any change",
        "last": "the same, after one cause of a miss was fixed",
    }
    rows = []
    total: collections.Counter[str] = collections.Counter()
    for bank, kind in kinds.items():
        found = figures[bank]
        counts = {
            "all": found["faults"],
            "silent": len(found["silent"]),
            "missed": len(found["missed"]),
        }
        rows.append((kind, *_shares(counts)))
        if bank not in ("used", "last"):
            total.update(counts)
    rows.append(("all on which nothing was tuned", *_shares(total)))
    columns = ("faults", "named by the first origin", "not found")
    return table(columns, rows)


def _shares(counts: Mapping[str, int]) -> tuple[str, str]:
    first = counts["all"] - counts["silent"] - counts["missed"]
    share = f"{first} of {counts['all']} ({100 * first / counts['all']:.0f} %)"
    return share, f"{counts['silent']}"


def _cost(stored: dict) -> str:
    rows = [
        (
            run["what"],
            f"{run['values'][0]} and {run['values'][1]}",
            f"{run['elements'] / 1e6:.1f}",
            f"{run['first']:.1f}",
            f"{run['again']:.1f}" if "again" in run else "-",
            f"{run['peak'] / 2**30:.1f}" if "peak" in run else "-",
        )
        for run in stored["runs"]
    ]
    columns = (
        "pair",
        "values",
        "million elements",
        "seconds, first call",
        "second call",
        "peak memory in GiB",
    )
    return table(columns, rows) + f"Measured on {stored['machine']}.\n"
