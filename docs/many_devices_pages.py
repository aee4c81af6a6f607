"""Generates the figures of the page "More than one device".

What was measured is stored. The plan is computed from the shapes of real
models, by the formulas of `common.benchmark.plan`.
"""

import json
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from flax import nnx
from tables import table

from common.benchmark import plan
from common.benchmark.plan import Assumptions, Model, Plan
from common.benchmark.report import about, ratio, seconds
from common.benchmark.scaling_report import (
    MAX_RATIO,
    Case,
    Cost,
    Scaling,
    bytes_,
    operations,
)
from common.rendering.files import to_json

ROOT = pathlib.Path(__file__).parents[1]
STORED = ROOT / "docs" / "data" / "scaling.json"
DEVICES = (10, 100, 1000)
SHARDS = ("replicated", "fsdp")
MACHINE = Assumptions()


def pages() -> dict[str, str]:
    """Returns the costs that were measured, the plan and the diagrams."""
    stored = Scaling.from_json(json.loads(STORED.read_text()))
    found = models()
    return {
        "many_devices_costs.md": costs(stored),
        "many_devices_assumptions.md": assumptions(found),
        "many_devices_volume.md": volume(found),
        "many_devices_norms.md": norms(found[0]),
        "many_devices_checkpoints.md": checkpoints(found),
        "many_devices.json": to_json(plans(found)),
        "many_devices_layouts.svg": (
            f'<div class="layouts">{"".join(map(diagram, SHARDS))}</div>\n'
        ),
    }


# --- what was measured ------------------------------------------------------


def costs(stored: Scaling) -> str:
    """Writes what a step costs on each number of devices."""
    rows = [
        (
            f"{case.devices}",
            case.shard,
            cost.contender,
            _with_ratio(seconds(cost.first_call), cost, case, _first_call),
            _with_ratio(seconds(cost.step), cost, case, _step),
            _with_ratio(bytes_(_peak(cost)), cost, case, _memory),
            _with_ratio(bytes_(cost.moved), cost, case, _moved),
            case.verdict(cost) or "-",
        )
        for case in stored.cases
        for cost in case.costs
    ]
    columns = (
        "devices",
        "layout",
        "contender",
        "first call",
        "step",
        "memory",
        "moved",
        f"at most {MAX_RATIO} times",
    )
    text = table(columns, rows, text=3)
    (variant,) = stored.variants
    last = stored.cases[-1]
    text += (
        f"The model is `{stored.model}` with {variant}, and "
        f"{stored.settings['batch_size']} examples per step. On "
        f"{last.devices} devices with the layout `{last.shard}`, a step "
        "consists of "
        + "; ".join(
            f"{operations(cost.collectives)} ({cost.contender})"
            for cost in last.costs
        )
        + f". Measured on {about(stored)}\n"
    )
    return text


def _with_ratio(
    shown: str, cost: Cost, case: Case, times: Callable[[Cost, Cost], float]
) -> str:
    base = case.baseline(cost)
    return shown if cost is base else f"{shown} ({times(cost, base):.2f})"


def _peak(cost: Cost) -> float:
    return math.nan if cost.memory is None else cost.memory.peak


def _first_call(cost: Cost, base: Cost) -> float:
    return cost.first_call / base.first_call


def _step(cost: Cost, base: Cost) -> float:
    return ratio(cost.seconds, base.seconds).median


def _memory(cost: Cost, base: Cost) -> float:
    return _peak(cost) / _peak(base)


def _moved(cost: Cost, base: Cost) -> float:
    return cost.moved / base.moved if base.moved else 1.0


# --- what is computed -------------------------------------------------------


def models() -> list[Model]:
    """Returns ResNet-50 and a transformer of a billion parameters."""
    sys.path.insert(0, str(ROOT))
    from docs.port import decoder_nnx, resnet50_nnx

    return [
        read_model("ResNet-50", resnet50_nnx.ResNet),
        read_model("transformer", decoder_nnx.Decoder),
    ]


def read_model(name: str, make: Callable[..., nnx.Module]) -> Model:
    """Reads the shapes of a model, without making its arrays."""
    model = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    parameters = nnx.to_flat_state(nnx.state(model, nnx.Param))
    statistics = nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
    return Model(
        name=name,
        parameters=sum(math.prod(x.shape) for _, x in parameters),
        norms=tuple(
            math.prod(x.shape) for path, x in statistics if path[-1] == "mean"
        ),
    )


def plans(found: list[Model]) -> dict[str, Any]:
    """Returns all figures of the plan, and what they were computed from."""
    return {
        "assumptions": MACHINE,
        "models": found,
        "plans": [
            {
                "model": model.name,
                "devices": n,
                "shard": shard,
                **plan.make_plan(model, n, shard, MACHINE)._asdict(),
            }
            for model in found
            for shard in SHARDS
            for n in DEVICES
        ],
    }


def assumptions(found: list[Model]) -> str:
    """Writes the models and the machine of the plan."""
    resnet, transformer = found
    rows = [
        (
            "ResNet-50",
            f"{resnet.parameters / 1e6:.1f} million parameters, "
            f"{len(resnet.norms)} BatchNorms with {sum(resnet.norms):,} "
            "channels",
        ),
        (
            "transformer",
            f"{transformer.parameters / 1e9:.2f} billion parameters, no "
            "BatchNorm",
        ),
        ("numbers", "float32; Adam keeps two moments of each parameter"),
        (
            "network",
            f"each device sends {bytes_(MACHINE.bandwidth)} per second to the "
            f"next one; a message takes {seconds(MACHINE.latency)}",
        ),
        (
            "processes",
            f"{MACHINE.per_process} devices each; each writes "
            f"{bytes_(MACHINE.disk)} per second",
        ),
    ]
    return table(("what", "assumption"), rows, text=2)


def volume(found: list[Model]) -> str:
    """Writes what a step sends, and what each device keeps."""
    return _rows(
        found,
        ("model", "layout", "devices", "sent", "time", "memory"),
        lambda p: (bytes_(p.moved), seconds(p.seconds), bytes_(p.memory)),
        shards=SHARDS,
    )


def norms(model: Model) -> str:
    """Writes what synchronized BatchNorm costs in a step."""
    rows = []
    for n in DEVICES:
        found = plan.make_plan(model, n, "replicated", MACHINE)
        rows.append(
            (
                f"{n:,}",
                f"{found.norm_messages}",
                bytes_(found.norm_moved),
                seconds(found.norm_seconds),
                seconds(found.seconds),
            )
        )
    columns = (
        "devices",
        "messages",
        "sent for statistics",
        "time of these",
        "time of the gradients",
    )
    return table(columns, rows, text=0)


def checkpoints(found: list[Model]) -> str:
    """Writes the size of a checkpoint, and how long it takes to write."""
    return _rows(
        found,
        ("model", "devices", "processes", "checkpoint", "of each", "time"),
        lambda p: (
            f"{p.processes}",
            bytes_(p.checkpoint),
            bytes_(p.written),
            seconds(p.writing),
        ),
    )


def _rows(
    found: list[Model],
    columns: tuple[str, ...],
    cells: Callable[[Plan], tuple[str, ...]],
    shards: tuple[str, ...] = (),
) -> str:
    rows = [
        (
            model.name,
            *((shard,) if shards else ()),
            f"{n:,}",
            *cells(plan.make_plan(model, n, shard, MACHINE)),
        )
        for model in found
        for shard in shards or SHARDS[:1]
        for n in DEVICES
    ]
    return table(columns, rows, text=2 if shards else 1)


# --- diagrams ---------------------------------------------------------------

PARTS = ("batch", "parameters", "optimizer state", "statistics")
COUNT = 4
LEFT, WIDTH, ROW, GAP = 104, 52, 34, 7


def diagram(shard: str) -> str:
    """Draws which part of each array four devices have.

    Args:
        shard: `"replicated"` or `"fsdp"`.
    """
    split = {"batch"} if shard == "replicated" else set(PARTS[:3])
    right = LEFT + COUNT * (WIDTH + GAP)
    height = 62 + ROW * len(PARTS)
    title = 'shard="fsdp"' if shard == "fsdp" else "shard=None"
    shapes = [
        f'<text x="0" y="14" class="title">{_escape(title)}</text>',
    ]
    for device in range(COUNT):
        x = LEFT + device * (WIDTH + GAP)
        shapes.append(
            f'<text x="{x + WIDTH / 2}" y="40" text-anchor="middle">'
            f"device {device}</text>"
        )
        for i, part in enumerate(PARTS):
            y = 50 + i * ROW
            for piece in range(COUNT):
                has = part not in split or piece == device
                shapes.append(
                    f'<rect x="{x + piece * WIDTH / COUNT}" y="{y}" '
                    f'width="{WIDTH / COUNT}" height="{ROW - 12}" '
                    f'class="{"kept" if has else "absent"}"/>'
                )
    shapes += [
        f'<text x="0" y="{50 + i * ROW + 15}">{part}</text>'
        for i, part in enumerate(PARTS)
    ]
    words = "; ".join(
        f"{part}: {'a quarter' if part in split else 'all'} on each device"
        for part in PARTS
    )
    return (
        f'<svg viewBox="0 0 {right} {height}" role="img" '
        f'aria-label="{_escape(title)}: {words}">{"".join(shapes)}</svg>\n'
    )


def _escape(text: str) -> str:
    return text.replace('"', "&quot;")
