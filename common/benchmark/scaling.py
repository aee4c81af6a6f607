"""Measures what a training step costs on several devices.

The trainer of each library is measured beside hand-written JAX with the same
shardings, in the same process and in turns: the first call, a step, the
memory of the compiled program, and the bytes that devices send.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from common.benchmark import sharded, suite
from common.benchmark.collectives import read_collectives
from common.benchmark.measure import (
    BURST_SECONDS,
    DTYPE,
    MAX_BURST,
    SEED,
    Contender,
    UnverifiedContenderError,
    cold,
    first_call,
    measure,
    verify,
)
from common.benchmark.scaling_report import (
    BASELINE,
    REPLICATED,
    Case,
    Cost,
    Memory,
    Scaling,
)
from common.errors import choose
from common.models import find_spec
from common.protocol import Spec
from common.rendering.progress import ProgressBar
from common.training import data as data_module
from common.training.sharding import FSDP

MODEL = "deep_mlp"
HYPER_PARAMETERS: Mapping[str, Any] = {"depth": 4, "size": 256}
"""Those of `MODEL` if none are given."""

BATCH_SIZE = 64
ROUNDS = 40
FIRST_CALLS = 3
SHARDS = {REPLICATED: None, FSDP: FSDP}
COUNT_FLAG = "--xla_force_host_platform_device_count"


class Contest(NamedTuple):
    """A contender that has not taken a step yet.

    Attributes:
        call: takes a step and returns the loss.
        compile: returns the compiled program of a step.
    """

    call: Callable[[], Any]
    compile: Callable[[], Any]


def run(
    model: str | None = None,
    variants: Sequence[Mapping[str, Any]] = (),
    *,
    devices: Sequence[int] = (1,),
    shards: Sequence[str] = (REPLICATED,),
    batch_size: int = BATCH_SIZE,
    quick: bool = False,
    progress: bool = True,
    command: str = suite.COMMAND,
) -> Scaling:
    """Measures a training step on several numbers of devices.

    A number for which this process has too few devices is measured in a
    process of its own, with virtual devices, if the platform is the CPU.

    Args:
        model: the name of the spec; by default a `deep_mlp` of a size at
            which arrays rather than calls take the time.
        variants: hyper-parameters, or several of them that are compared.
        devices: the numbers of devices.
        shards: the layouts, `"replicated"` or `"fsdp"`.
        batch_size: the examples of a step, over all devices.
        quick: whether to take few samples.
        progress: whether to show a progress bar on a terminal.
        command: the command that reproduces the run.

    Raises:
        ValueError: for an unknown layout, or a number of devices that there
            are not, or that does not divide the batch.
        UnverifiedContenderError: if the losses of a contender are not those
            of the baseline. They are not timed.
    """
    for shard in shards:
        if shard not in SHARDS:
            raise choose("shard", shard, SHARDS)
    if not variants:
        variants = [{} if model else HYPER_PARAMETERS]
    options = {
        "model": MODEL if model is None else model,
        "variants": [dict(variant) for variant in variants],
        "shards": list(shards),
        "batch_size": batch_size,
        "rounds": 3 if quick else ROUNDS,
        "first_calls": 1 if quick else FIRST_CALLS,
    }
    for variant in variants:
        find_spec(options["model"], dict(variant))
    for count in devices:
        _check_count(count, batch_size)
    cases: list[Case] = []
    load = suite.load()
    with ProgressBar(len(devices), "benchmark", enabled=progress) as bar:
        for count in devices:
            bar.describe(f"{count} device(s)")
            here = count <= len(jax.devices())
            measured = measure_cases if here else _measure_elsewhere
            cases += measured(count, **options)
            bar.advance()
    return Scaling(
        model=options["model"],
        cases=tuple(cases),
        settings={
            "dtype": DTYPE,
            "devices": list(devices),
            **options,
            "check_steps": suite.CHECK_STEPS,
            "burst_seconds": BURST_SECONDS,
            "max_burst": MAX_BURST,
            "seed": SEED,
            "xla_flags": os.environ.get("XLA_FLAGS"),
            "load_before": load,
            "load_after": suite.load(),
        },
        command=command,
        **suite.environment(),
    )


def _check_count(count: int, batch_size: int) -> None:
    found = jax.devices()
    if count < 1 or (count > len(found) and found[0].platform != "cpu"):
        raise ValueError(
            f"devices: got {count}, expected 1 to {len(found)}, the "
            f"{found[0].platform} devices of this process. Pass these."
        )
    if batch_size < 1:
        raise ValueError(
            f"batch size: got {batch_size}, expected at least 1. Pass "
            f"`--batch-size {BATCH_SIZE}`."
        )
    if batch_size % count:
        raise ValueError(
            f"batch size: got {batch_size}, expected one that {count} devices "
            f"divide. Pass `--batch-size {count * (batch_size // count + 1)}`."
        )


def measure_cases(
    devices: int,
    *,
    model: str,
    variants: Sequence[Mapping[str, Any]],
    shards: Sequence[str],
    batch_size: int,
    rounds: int,
    first_calls: int,
) -> list[Case]:
    """Measures every layout on a number of devices that this process has.

    Args:
        devices: the number of devices.
        model: the name of the spec.
        variants: hyper-parameters that are compared.
        shards: keys of `SHARDS`.
        batch_size: the examples of a step.
        rounds: the number of samples of each step.
        first_calls: the number of samples of each first call.
    """
    mesh = sharded.make_mesh(devices)
    specs = {
        ", ".join(f"{k}={v}" for k, v in variant.items()): _spec(
            model, variant
        )
        for variant in variants
    }
    # The models are float32 with JAX's defaults, whatever the caller set.
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), cold():
        return [
            Case(
                devices=devices,
                shard=shard,
                costs=_costs(
                    specs, mesh, shard, batch_size, rounds, first_calls
                ),
            )
            for shard in shards
        ]


def _spec(model: str, variant: Mapping[str, Any]) -> Spec:
    # With the default dialect of stateful_mlp a gradient is only round-off,
    # which Adam amplifies.
    return find_spec(model, {"batch_norm": "standard", **variant})


def _costs(
    specs: Mapping[str, Spec],
    mesh: Mesh,
    shard: str,
    batch_size: int,
    rounds: int,
    first_calls: int,
) -> tuple[Cost, ...]:
    names = (BASELINE, *suite.LIBRARIES)
    keys = [(variant, name) for variant in specs for name in names]

    def start(variant: str, name: str) -> Contest:
        spec = specs[variant]
        batch = sharded.put_batch(_batch(spec, batch_size), mesh)
        if name == BASELINE:
            return _plain(spec, mesh, SHARDS[shard], batch)
        return _trainer(spec, name, mesh, SHARDS[shard], batch)

    contests = {key: start(*key) for key in keys}
    compiled = {key: contest.compile() for key, contest in contests.items()}
    contenders = {
        key: Contender(_label(*key), contest.call)
        for key, contest in contests.items()
    }
    for variant in specs:
        chosen = [contenders[variant, name] for name in names]
        verify(chosen, _label(variant, BASELINE), suite.CHECK_STEPS)
    firsts: dict[tuple[str, str], list[float]] = {key: [] for key in keys}
    for _ in range(first_calls):
        for key, contest in contests.items():
            firsts[key].append(first_call(contest.call))
    timings = measure(
        list(contenders.values()),
        dict.fromkeys((c.name for c in contenders.values()), 0.0),
        rounds,
    )
    return tuple(
        Cost(
            contender=suite.LIBRARIES.get(name, name),
            variant=variant,
            first_calls=tuple(firsts[variant, name]),
            seconds=timing.seconds,
            memory=read_memory(compiled[variant, name]),
            collectives=read_collectives(compiled[variant, name].as_text()),
        )
        for (variant, name), timing in zip(keys, timings, strict=True)
    )


def _label(variant: str, name: str) -> str:
    return f"{suite.LIBRARIES.get(name, name)} {variant}".strip()


def _batch(spec: Spec, batch_size: int) -> tuple[Any, Any]:
    dataset = data_module.dataset(spec, dtype=DTYPE)
    xs, ys = dataset.train_xs, dataset.train_ys
    rows = np.arange(batch_size) % len(xs)
    return xs[rows], ys[rows]


def _plain(spec: Spec, mesh: Mesh, shard: str | None, batch: Any) -> Contest:
    """Returns hand-written JAX."""
    native = suite.build_calm(spec, "reference").native
    leaves, step = sharded.make_step(spec, native, mesh, shard)
    # On several CPU devices two programs at a time can deadlock, so a trainer
    # waits for each step there, and this must.
    waits = mesh.size > 1 and jax.default_backend() == "cpu"

    def call() -> Any:
        nonlocal leaves
        leaves, loss = step(leaves, *batch)
        if waits:
            jax.block_until_ready((leaves, loss))
        return loss

    return Contest(call, lambda: step.lower(leaves, *batch).compile())


def _trainer(
    spec: Spec, backend: str, mesh: Mesh, shard: str | None, batch: Any
) -> Contest:
    """Returns what `build` returns for a backend."""
    trainer = suite.build_calm(spec, backend, mesh=mesh, shard=shard)
    return Contest(
        lambda: trainer.step(*batch)["loss"],
        lambda: trainer._step.lower(trainer._leaves, batch).compile(),
    )


def read_memory(compiled: Any) -> Memory | None:
    """Reads the memory analysis of a program, if the platform has one."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        aliased=found.alias_size_in_bytes,
    )


# --- virtual devices, which a process must have from its start --------------


def _measure_elsewhere(devices: int, **options: Any) -> list[Case]:
    """Calls `measure_cases` in a process with virtual devices."""
    flags = re.sub(rf"{COUNT_FLAG}=\d+", "", os.environ.get("XLA_FLAGS", ""))
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} {COUNT_FLAG}={devices}".strip(),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with tempfile.TemporaryDirectory() as folder:
        job = pathlib.Path(folder) / "job.json"
        job.write_text(json.dumps({"devices": devices, **options}))
        child = subprocess.run(
            [sys.executable, "-m", __name__, str(job)],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            raise RuntimeError(
                f"process with {devices} devices: got exit status "
                f"{child.returncode}, expected 0. It printed:\n{child.stderr}"
            )
        found = json.loads(job.read_text())
    if isinstance(found, str):
        raise UnverifiedContenderError(found)
    return [Case.from_json(values) for values in found]


def _serve(job: pathlib.Path) -> None:
    """Measures what a file says, and writes the cases or an error to it."""
    try:
        cases = measure_cases(**json.loads(job.read_text()))
        found: Any = [dataclasses.asdict(case) for case in cases]
    except UnverifiedContenderError as error:
        found = str(error)
    job.write_text(json.dumps(found))


if __name__ == "__main__":
    _serve(pathlib.Path(sys.argv[1]))
