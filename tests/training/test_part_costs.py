"""What steps in parts and of ensembles cost, beside hand-written JAX.

The counts of the compiled programs are compared, which do not depend on what
else the machine does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from common import build

COUNT = 4
SIZES: dict[str, Any] = {"depth": 2, "size": 64}
XS, YS = np.random.default_rng(0).normal(size=(2, 128, 64)).astype("float32")
MOST = 1.05


def take_step(spec, optimizer, run, batch, parts):
    """Takes a training step as one writes it by hand."""
    params, buffers, opt_state, key, step = run
    key_of_step = jr.fold_in(key, step)

    def compute_loss(params, buffers, xs, ys):
        predictions, buffers = spec.forward(
            params, buffers, xs, key=key_of_step, training=True
        )
        return jnp.mean((predictions - ys) ** 2), buffers

    grad = jax.value_and_grad(compute_loss, has_aux=True)

    def add_part(carry, part):
        buffers, sums = carry
        (loss, buffers), grads = grad(params, buffers, *part)
        return (buffers, jax.tree.map(jnp.add, sums, (loss, grads))), None

    if parts == 1:
        (loss, buffers), grads = grad(params, buffers, *batch)
    else:
        rows = jax.tree.map(
            lambda x: x.reshape(-1, parts, x.shape[1]).swapaxes(0, 1), batch
        )
        zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        (buffers, sums), _ = jax.lax.scan(add_part, (buffers, zeros), rows)
        loss, grads = jax.tree.map(lambda x: x / parts, sums)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, buffers, opt_state, key, step + 1), loss


def counts(jitted, *args):
    """Returns the operations and the bytes of a compiled program."""
    compiled = jitted.lower(*args).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    return np.array([compiled.cost_analysis()["flops"], memory])


@pytest.mark.exhaustive
@pytest.mark.parametrize("setting", ["accumulate", "ensemble"])
def test_a_step_costs_what_hand_written_jax_costs(setting):
    spec = build("deep_mlp", backend="reference", **SIZES).spec
    optimizer = spec.optimizer()
    params, buffers = spec.init(jr.key(0))
    run = params, buffers, optimizer.init(params), jr.key(0), jnp.int32(0)
    parts = COUNT if setting == "accumulate" else 1

    def step(run, batch):
        return take_step(spec, optimizer, run, batch, parts)

    if setting == "ensemble":
        run = jax.tree.map(lambda x: jnp.stack([x] * COUNT), run)
        step = jax.vmap(step, (0, None))
    expected = counts(jax.jit(step, donate_argnums=0), run, (XS, YS))
    for backend in ("reference", "equinox", "flax"):
        options = {setting: COUNT, **SIZES}
        trainer = build("deep_mlp", backend=backend, **options)
        found = counts(trainer._step, trainer.leaves, (XS, YS))
        assert (found <= MOST * expected).all(), (backend, found / expected)
