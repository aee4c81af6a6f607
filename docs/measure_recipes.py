"""Measures what a step costs in each loop of the recipe low_overhead_loop.

    python docs/measure_recipes.py

Writes docs/data/recipe_costs.json. This takes some minutes, during which the
machine should be idle.
"""

import pathlib
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
STORED = ROOT / "docs" / "data" / "recipe_costs.json"
DEPTHS = (1, 10)
"""How many blocks of a BatchNorm and a Linear a model has."""
SIZE = 8
REPEATS, WARM, CHUNKS, STEPS = 4, 100, 5, 200
"""Each loop runs this often, and times chunks of steps after some others.

JAX runs ahead of the device by some tens of steps, so a chunk must be longer.
"""


def equinox_objects(depth):
    """Returns a model, its state and the state of its optimizer."""
    from impl_equinox.recipes import low_overhead_loop as recipe

    layers = []
    for key in jax.random.split(jax.random.key(0), depth):
        layers.append(eqx.nn.BatchNorm(SIZE, "batch", mode="batch"))
        layers.append(eqx.nn.Linear(SIZE, SIZE, key=key))
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)(layers)
    opt_state = recipe.optim.init(eqx.filter(model, eqx.is_inexact_array))
    return model, state, opt_state


def nnx_objects(depth):
    """Returns a model and its optimizer."""
    rngs, layers = nnx.Rngs(0), []
    for _ in range(depth):
        layers.append(nnx.BatchNorm(SIZE, rngs=rngs))
        layers.append(nnx.Linear(SIZE, SIZE, rngs=rngs))
    model = nnx.Sequential(*layers)
    return model, nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)


def loops():
    """Returns the loops by library and name: objects, batches -> losses."""
    from impl_equinox.recipes import low_overhead_loop as equinox
    from impl_flax.recipes import low_overhead_loop as flax

    def filter_jit(carry, batches):
        step, losses = eqx.filter_jit(equinox.update), []
        for batch in batches:
            *carry, loss = step(*carry, *batch)
            losses.append(loss)
        return losses

    def equinox_flat(carry, batches):
        return equinox.flat_loop(carry, batches)[1]

    def jit(objects, batches):
        step = nnx.jit(flax.update)
        return [step(*objects, *batch) for batch in batches]

    def cached_partial(objects, batches):
        step = nnx.cached_partial(nnx.jit(flax.update), *objects)
        return [step(*batch) for batch in batches]

    return {
        ("Equinox", "`eqx.filter_jit`"): filter_jit,
        ("Equinox", "`flat_loop`"): equinox_flat,
        ("Flax NNX", "`nnx.jit`"): jit,
        ("Flax NNX", "`nnx.cached_partial`"): cached_partial,
        ("Flax NNX", "`flat_loop`"): flax.flat_loop,
    }


def timed(batch, seconds):
    """Yields the batch, and appends the seconds per step of each chunk."""
    for _ in range(WARM):
        yield batch
    for _ in range(CHUNKS):
        start = time.perf_counter()
        for _ in range(STEPS):
            yield batch
        seconds.append((time.perf_counter() - start) / STEPS)


def check(depth, batch):
    """Raises an error if two loops of a library get different losses."""
    from common.agreement import assert_close

    found = {}
    for (library, name), loop in loops().items():
        losses = jnp.array(loop(OBJECTS[library](depth), [batch] * 5))
        assert_close(
            losses,
            found.setdefault(library, losses),
            dtype="float32",
            quantity="trajectory",
            what=f"{library} {name}",
        )


OBJECTS = {"Equinox": equinox_objects, "Flax NNX": nnx_objects}


def main():
    """Times every loop, in an order that changes between the repeats."""
    from common import environment
    from common.rendering.files import write_json

    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(16, SIZE)), jnp.float32)
    batch = xs, jnp.sin(xs)
    names = list(loops())
    runs = []
    for depth in DEPTHS:
        check(depth, batch)
        seconds = {name: [] for name in names}
        for repeat in range(REPEATS):
            for library, name in names[repeat:] + names[:repeat]:
                objects = OBJECTS[library](depth)
                chunks = seconds[library, name]
                loops()[library, name](objects, timed(batch, chunks))
        for library, name in names:
            run = {"library": library, "loop": name, "blocks": depth}
            runs.append(run | {"seconds": seconds[library, name]})
            print(run, min(seconds[library, name]), flush=True)
    facts = environment.environment()
    stored = {
        "machine": facts["machine"],
        "environment": facts,
        "steps": REPEATS * CHUNKS * STEPS,
        "chunk": STEPS,
        "size": SIZE,
        "runs": runs,
    }
    write_json(STORED, stored)


if __name__ == "__main__":
    main()
