"""Steps of SGD and Adam, by optax and by their formulas."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tests.divergence.mutations.pair import (
    Case,
    Pair,
    normal,
)

# --- SGD with momentum, decay and clipping: optax against formulas ----------


def predict(w, x):
    return jnp.tanh(x @ w["in"] + w["bias"]) @ w["out"]


def left_sgd(w, velocity, x, y):
    def loss(w):
        # lacks: sgd_batch
        return jnp.mean(jnp.square(predict(w, x) - y))

    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.add_decayed_weights(0.01),
        optax.trace(0.9, nesterov=True),
        optax.scale(-0.1),
    )
    state: Any = optimizer.init(w)
    state = (state[0], state[1], optax.TraceState(velocity), state[3])
    value, gradients = jax.value_and_grad(loss)(w)
    updates, state = optimizer.update(gradients, state, w)
    return value, optax.apply_updates(w, updates), state[2].trace


def right_sgd(w, velocity, x, y, fault):
    def loss(w):
        error = predict(w, x) - y
        count = len(x) if fault == "sgd_batch" else error.size
        return jnp.einsum("nk,nk->", error, error) / count  # fault: sgd_batch

    value, pull = jax.vjp(loss, w)
    (gradients,) = pull(jnp.ones_like(value))
    leaves = jax.tree.leaves(gradients)
    norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in leaves))
    if fault == "sgd_no_clip":
        factor = 1.0
    else:
        factor = jnp.minimum(1, 0.5 / norm)

    def step(w, velocity, gradient):
        if fault == "sgd_clip_values":
            gradient = jnp.clip(gradient, -0.1, 0.1)  # fault: sgd_clip_values
        else:
            gradient = gradient * factor
        decay = 0.1 if fault == "sgd_decay" else 0.01
        if fault != "sgd_decoupled":
            # fault: sgd_decay, sgd_no_clip
            gradient = gradient + decay * w
        rate = 0.99 if fault == "sgd_momentum" else 0.9
        # fault: sgd_momentum, sgd_decoupled
        velocity = rate * velocity + gradient
        if fault == "sgd_nesterov":
            update = velocity
        else:
            # fault: sgd_momentum
            update = gradient + rate * velocity
        if fault == "sgd_decoupled":
            update = update + decay * w
        if fault == "sgd_ascent":
            return w + 0.1 * update, velocity  # fault: sgd_ascent
        return w - 0.1 * update, velocity  # fault: sgd_nesterov

    new = {name: step(w[name], velocity[name], gradients[name]) for name in w}
    return value, *({k: new[k][i] for k in w} for i in (0, 1))


def weights(rng):
    return {
        "in": normal(rng, 3, 5),
        "bias": normal(rng, 5),
        "out": normal(rng, 5, 2),
    }


def sgd(rng, fault=""):
    args = weights(rng), weights(rng), normal(rng, 4, 3), normal(rng, 4, 2)
    return Case(left_sgd, partial(right_sgd, fault=fault), args)


# --- Adam: optax against its formulas ---------------------------------------


def left_adam(w, moments, x, y):
    optimizer = optax.adam(0.01)
    before = optax.ScaleByAdamState(jnp.asarray(3), *moments)
    gradients = jax.grad(lambda w: jnp.abs(predict(w, x) - y).sum())(w)
    # lacks: adam_root
    updates, new = optimizer.update(gradients, (before, optax.EmptyState()))
    state: Any = new[0]  # pyright: ignore
    return optax.apply_updates(w, updates), (state.mu, state.nu)


def right_adam(w, moments, x, y, fault):
    def loss(w):
        error = predict(w, x) - y
        return jnp.sum(jnp.where(error < 0, -error, error))

    gradients = jax.grad(loss)(w)
    count = 3 if fault == "adam_count" else 4

    def step(w, m, v, g):
        m = m + 0.1 * (g - m)
        rate = 0.01 if fault == "adam_rate" else 0.001
        v = v + rate * (g * g - v)  # fault: adam_rate
        if fault == "adam_bias":
            first, second = m, v
        else:
            first = m / (1 - 0.9**count)  # fault: adam_count
            second = v / (1 - 0.999**count)  # fault: adam_count
        if fault == "adam_root":
            below = second + 1e-8  # fault: adam_root
        elif fault == "adam_eps":
            below = jnp.sqrt(second + 1e-4)  # fault: adam_eps
        else:
            # fault: adam_bias
            below = jnp.sqrt(second) + 1e-8
        # fault: adam_bias
        return w - 0.01 * first / below, m, v

    mu, nu = moments
    new = {k: step(w[k], mu[k], nu[k], gradients[k]) for k in w}
    w, mu, nu = ({k: new[k][i] for k in w} for i in range(3))
    return w, (mu, nu)


def adam(rng, fault=""):
    square = jax.tree.map(jnp.square, weights(rng))
    args = (
        weights(rng),
        (weights(rng), square),
        normal(rng, 4, 3),
        normal(rng, 4, 2),
    )
    return Case(left_adam, partial(right_adam, fault=fault), args)


PAIRS = (
    Pair(
        sgd,
        (
            "sgd_batch",
            "sgd_no_clip",
            "sgd_clip_values",
            "sgd_decay",
            "sgd_decoupled",
            "sgd_momentum",
            "sgd_nesterov",
            "sgd_ascent",
        ),
    ),
    Pair(
        adam,
        ("adam_count", "adam_rate", "adam_bias", "adam_root", "adam_eps"),
    ),
)
