"""The cost of a step on several devices, and the formulas of a plan.

No test asserts a time.
"""

import dataclasses
import functools
import io
import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import rich.console
from jax.sharding import NamedSharding, PartitionSpec

from common.benchmark import plan, scaling, scaling_report, sharded
from common.benchmark.collectives import (
    Collective,
    moved_bytes,
    read_collectives,
)
from common.benchmark.scaling_report import Case, Cost, Memory, Scaling
from common.models import find_spec
from common.training.building import build
from common.training.sharding import FSDP
from tests import topologies

SIZE, BATCH = 8, 64


# --- compiled programs ------------------------------------------------------


def compiled(
    devices, shard, change=None, *, donate=True, **hyper
) -> tuple[Any, dict]:
    """Returns a spec, and figures of its hand-written or changed step."""
    spec: Any = find_spec("deep_mlp", {"size": SIZE, "depth": 1, **hyper})
    native = build(spec, backend="reference", dtype="float32").native
    mesh = sharded.make_mesh(devices)
    leaves, step = sharded.make_step(spec, native, mesh, shard)
    if change is not None:
        step = jax.jit(
            functools.partial(change, step, mesh),
            donate_argnums=0 if donate else (),
        )
    xs = sharded.put_batch(jnp.ones((BATCH, spec.size), "float32"), mesh)
    program = step.lower(leaves, xs, xs).compile()
    memory = scaling.read_memory(program)
    assert memory is not None
    found = read_collectives(program.as_text() or "")
    return spec, {
        "moved": moved_bytes(found),
        "operations": scaling_report.operations(found),
        "memory": memory.peak,
    }


def gathers(step, mesh, leaves, xs, ys):
    """Sends the whole batch to every device, and uses it."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = jax.lax.with_sharding_constraint(xs, everywhere)
    leaves, loss = step(leaves, xs, ys)
    return leaves, loss + jnp.max(whole @ whole.T)


def copies(step, mesh, leaves, xs, ys):
    """Returns what it was given as well."""
    return leaves, *step(leaves, xs, ys)


def predict(spec, devices, shard) -> tuple[float, float, float]:
    """Returns what a plan says of a spec, in bytes.

    The last is what a compiler may add to it: it gathers vectors again where
    that is cheaper than to keep them.
    """
    variables = [v for v in spec.variables().values() if v.trainable]
    shapes = [v.shape for v in variables]
    size = 4 * sum(int(jnp.prod(jnp.array(shape))) for shape in shapes)
    vectors = 4 * sum(shape[0] for shape in shapes if len(shape) == 1)
    volume = plan.fsdp_bytes if shard == FSDP else plan.replicated_bytes
    # The loss is summed with the gradients.
    loss = plan.replicated_bytes(4, devices)
    norms = plan.norm_bytes([spec.size] * spec.depth, devices)
    extra = plan.replicated_bytes(vectors, devices) * (shard == FSDP)
    return volume(size, devices) + loss, norms, extra


def read(devices, shard, **hyper) -> dict:
    spec, figures = compiled(devices, shard, **hyper)
    return figures | {"predicted": predict(spec, devices, shard)}


def on_eight_devices() -> dict:
    """Compiles everything that the tests below look at."""
    with jax.enable_x64(False):
        found: dict[Any, dict] = {
            (n, shard): read(n, shard)
            for n, shard in ((2, None), (8, None), (8, FSDP))
        }
        for name, change, options in (
            ("gathers", gathers, {}),
            ("copies", copies, {"donate": False}),
        ):
            _, found[name] = compiled(2, None, change, **options)
    return found


@pytest.fixture(scope="module")
def runs() -> dict:
    [found] = topologies.run(on_eight_devices, devices=8)
    return found


def assert_predicted(figures: dict) -> None:
    volume, norms, extra = figures["predicted"]
    least = volume + norms
    assert least <= figures["moved"] <= least + extra, figures


def test_the_plan_is_what_the_compiled_programs_send(runs):
    for key in ((2, None), (8, None), (8, FSDP)):
        assert_predicted(runs[key])
    volume, norms, _ = runs[8, None]["predicted"]
    assert norms and runs[8, None]["moved"] == volume + norms
    assert runs[8, None]["operations"] == "5 all-reduce"


def test_a_planted_gather_moves_more_bytes(runs):
    batch = BATCH * SIZE * 4
    more = runs["gathers"]["moved"] - runs[2, None]["moved"]
    assert more >= batch / 2


def test_a_planted_copy_takes_more_memory(runs):
    spec = find_spec("deep_mlp", {"size": SIZE, "depth": 1})
    values = sum(
        int(jnp.prod(jnp.array(v.shape)))
        for v in spec.variables().values()
        if v.trainable
    )
    more = runs["copies"]["memory"] - runs[2, None]["memory"]
    assert more >= 3 * 4 * values  # parameters, and Adam's two moments


def test_a_share_of_the_arrays_takes_less_memory(runs):
    assert runs[8, FSDP]["memory"] < runs[8, None]["memory"]


def larger() -> dict:
    with jax.enable_x64(False):
        return {
            (n, shard): read(n, shard, size=32, depth=3)
            for n in (2, 4, 8)
            for shard in (None, FSDP)
        }


def costs_on_two_devices() -> list[dict]:
    cases = scaling.measure_cases(
        2,
        model="deep_mlp",
        variants=[{"depth": 1, "size": SIZE}],
        shards=["replicated", FSDP],
        batch_size=BATCH,
        rounds=2,
        first_calls=1,
    )
    return [dataclasses.asdict(case) for case in cases]


@pytest.mark.exhaustive
def test_the_plan_of_larger_models_on_two_to_eight_devices():
    [found] = topologies.run(larger, devices=8)
    for figures in found.values():
        assert_predicted(figures)


@pytest.mark.exhaustive
def test_every_contender_is_measured_on_two_devices():
    [values] = topologies.run(costs_on_two_devices, devices=2)
    replicated, fsdp = map(Case.from_json, values)
    for case in (replicated, fsdp):
        assert [cost.contender for cost in case.costs] == [
            "plain JAX", "Equinox", "Flax",
        ]  # fmt: skip
        for cost in case.costs:
            assert min(*cost.seconds, *cost.first_calls) > 0
            assert cost.memory is not None and cost.memory.peak > 0
            assert cost.moved > 0
    plain, *trainers = replicated.costs
    for cost in trainers:
        assert cost.moved <= 1.5 * plain.moved


@pytest.mark.exhaustive
def test_a_number_of_devices_is_measured_in_a_new_process():
    found = scaling.run(
        "deep_mlp",
        [{"depth": 1, "size": SIZE}],
        devices=[2],
        quick=True,
        progress=False,
    )
    (case,) = found.cases
    assert case.devices == 2 and found.settings["devices"] == [2]
    assert all(cost.moved > 0 for cost in case.costs)


# --- tables -----------------------------------------------------------------


def make_cost(contender="plain JAX", variant="", **changes) -> Cost:
    cost = Cost(
        contender=contender,
        variant=variant,
        first_calls=(1.0, 2.0, 9.0),
        seconds=(1.0, 2.0, 4.0, 8.0),
        memory=Memory(
            arguments=600, outputs=500, temporaries=400, aliased=500
        ),
        collectives=(
            Collective(kind="all-reduce", size=1e9, devices=4, calls=3),
        ),
    )
    return dataclasses.replace(cost, **changes)


def make_scaling(*costs: Cost) -> Scaling:
    return Scaling(
        model="deep_mlp",
        cases=(Case(devices=4, shard="fsdp", costs=costs),),
        versions={"jax": "0.10.2"},
        device="cpu (cpu)",
        cpu_count=2,
        date="2026-01-01T00:00:00+00:00",
        settings={"rounds": 4},
        command="eqx-vs-nnx bench --devices 4",
    )


LARGE = Memory(arguments=700, outputs=500, temporaries=400, aliased=500)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "within"),
        ({"seconds": (1.06, 2.12, 4.24, 8.48)}, "time"),
        # A quarter of the rounds is not slower.
        ({"seconds": (1.0, 2.0, 8.0, 16.0)}, "within"),
        ({"memory": LARGE}, "memory"),
        ({"memory": LARGE, "seconds": (2.0, 4.0, 8.0, 16.0)}, "both"),
        ({"memory": None}, "within"),
    ],
)
def test_the_verdict_names_what_is_too_large(changes, verdict):
    costs = make_cost(), make_cost("Flax", **changes)
    (case,) = make_scaling(*costs).cases
    assert [case.verdict(cost) for cost in costs] == ["", verdict]


def test_json_round_trip():
    found = make_scaling(make_cost(), make_cost("Flax", memory=None))
    assert Scaling.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_tables_fit_80_columns_and_cut_nothing():
    variants = "depth=100", "depth=100, scan=True"
    found = make_scaling(
        *(
            make_cost(contender, variant, memory=memory)
            for variant in variants
            for contender, memory in (
                ("plain JAX", LARGE),
                ("Equinox", LARGE),
                ("Flax", None),
            )
        )
    )
    console = rich.console.Console(
        width=80, file=io.StringIO(), record=True, force_terminal=False
    )
    for renderable in scaling_report.render(found):
        console.print(renderable)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for words in (
        "4 devices, fsdp: deep_mlp depth=100, scan=True",
        "depth=100, scan=True relative to depth=100",
        "4.50 GB (1.00)",
        "3 all-reduce",
        "within",
        "2.00 s",
    ):
        assert words in " ".join(text.split()), words
    shown = scaling_report.markdown(found)
    for table in scaling_report.tables(found):
        for row in table.rows:
            assert f"| {' | '.join(map(str, row))} |" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1234, "1.23 kB"),
        (12345678, "12.3 MB"),
        (5e9, "5.00 GB"),
        (4e12, "4.00 TB"),
        (float("nan"), "-"),
    ],
)
def test_bytes(value, text):
    assert scaling_report.bytes_(value) == text


# --- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": [3]}, "batch size: got 64, expected .*--batch-size 66.*"),
        ({"devices": [0]}, "devices: got 0, expected 1 to .*"),
        ({"shards": ["fdsp"]}, "shard: got 'fdsp', .*Use one of .*"),
        ({"batch_size": 0}, "batch size: got 0, expected at least 1. .*"),
        ({"model": "mlp"}, "spec: got 'mlp', expected .*"),
    ],
)
def test_bad_input_is_refused_before_measuring(
    options, message, assert_raises
):
    assert_raises(
        functools.partial(scaling.run, progress=False, **options),
        ValueError,
        message,
    )


# --- the plan ---------------------------------------------------------------

RESNET = plan.Model(name="net", parameters=25, norms=(64, 256))


def test_a_plan_of_few_bytes_is_right():
    machine = plan.Assumptions(
        bandwidth=10.0, latency=0.5, per_process=2, disk=5.0
    )
    model = plan.Model(name="net", parameters=25, norms=(3,))
    found = plan.make_plan(model, 4, "replicated", machine)
    assert found.moved == 2 * 3 / 4 * 100
    # Twice around a ring of four, three messages each time.
    assert found.seconds == found.moved / 10 + 2 * 3 * 0.5
    assert found.norm_messages == 4
    assert found.norm_moved == 2 * 3 / 4 * 5 * 3 * 4
    # Up and down a tree of two levels, for each of four messages.
    assert found.norm_seconds == 4 * 2 * 2 * 0.5 + found.norm_moved / 10
    # Parameters, gradients, two moments, and the statistics.
    assert found.memory == 400 + 24
    assert (found.processes, found.checkpoint) == (2, 324)
    assert (found.written, found.writing) == (162, 162 / 5)


def test_fsdp_sends_more_and_keeps_less():
    machine = plan.Assumptions()
    whole = plan.make_plan(RESNET, 8, "replicated", machine)
    parts = plan.make_plan(RESNET, 8, "fsdp", machine)
    assert parts.moved == 1.5 * whole.moved
    split = (whole.memory - RESNET.statistics) / 8
    assert parts.memory == RESNET.statistics + split
    assert parts[2:5] == whole[2:5] and parts[6:] == whole[6:]


def test_one_device_sends_nothing():
    for shard in ("replicated", "fsdp"):
        found = plan.make_plan(RESNET, 1, shard, plan.Assumptions())
        assert found.moved == found.norm_moved == 0
        assert found.seconds == found.norm_seconds == 0
