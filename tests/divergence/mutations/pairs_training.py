"""Whole training steps, and functions with gradients of their own."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from tests.divergence.mutations.pair import (
    KEY,
    RNGS,
    Case,
    Pair,
    filled,
    given,
    linear_of,
    normal,
)
from tests.divergence.mutations.pairs_optimizers import predict, weights

# --- a step with batch norm: Equinox per example against nnx ----------------


class LeftNet(eqx.Module):
    first: eqx.nn.Linear
    scale: jax.Array
    shift: jax.Array
    head: eqx.nn.Linear

    def __init__(self):
        self.first = eqx.nn.Linear(3, 4, key=KEY)
        self.scale = jnp.zeros(4, "float32")
        self.shift = jnp.zeros(4, "float32")
        self.head = eqx.nn.Linear(4, 3, key=KEY)

    def __call__(self, x, running):
        x = self.first(x)
        mean = lax.pmean(x, "batch")  # lacks: step_eval
        variance = lax.pmean((x - mean) ** 2, "batch")
        x = (x - mean) * lax.rsqrt(variance + 1e-5)
        x = jax.nn.relu(x * self.scale + self.shift)  # lacks: step_stopped
        # lacks: step_eval
        new = [
            0.9 * running[0] + 0.1 * mean,
            0.9 * running[1] + 0.1 * variance,
        ]
        return self.head(x), new  # lacks: step_stopped


def left_step(model, running, x, labels):
    def loss(model):
        over = jax.vmap(
            model,
            axis_name="batch",
            in_axes=(0, None),
            out_axes=(0, None),
        )
        logits, new = over(x, running)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        )
        return losses.mean(), new  # lacks: step_sum

    (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(model)
    # lacks: step_frozen
    model = jax.tree.map(lambda w, g: w - 0.1 * g, model, gradients)
    # Zero, up to rounding: the bias is before a batch norm.
    return value, new, jax.tree.leaves(model), gradients.first.bias


class RightNet(nnx.Module):
    def __init__(self, left, running, fault):
        self.first = linear_of(left.first)
        self.norm = nnx.BatchNorm(
            4,
            use_running_average=fault == "step_eval",
            momentum=0.99 if fault == "step_momentum" else 0.9,
            epsilon=1e-3 if fault == "step_eps" else 1e-5,
            scale_init=given(left.scale),
            bias_init=given(left.shift),
            rngs=RNGS,
        )
        self.norm.mean = nnx.BatchStat(running[0])
        self.norm.var = nnx.BatchStat(running[1])
        self.head = linear_of(left.head)
        self.fault = fault

    def __call__(self, x):
        x = self.first(x)
        if self.fault == "step_order":
            x = self.norm(nnx.relu(x))  # fault: step_order
            return self.head(x)
        # fault: step_eval, step_momentum, step_eps
        x = self.norm(x)
        if self.fault == "step_stopped":
            x = lax.stop_gradient(x)  # fault: step_stopped
        return self.head(nnx.relu(x))


def right_step(model, x, labels, fault):
    def loss(model):
        logits = model(x)
        hot = jax.nn.one_hot(labels, 3, dtype=x.dtype)
        losses = -(jax.nn.log_softmax(logits) * hot).sum(-1)
        if fault == "step_sum":
            return losses.sum()  # fault: step_sum
        return losses.mean()

    wrt = nnx.DiffState(0, nnx.Param)
    value, gradients = nnx.value_and_grad(loss, argnums=wrt)(model)
    rate = 0.01 if fault == "step_rate" else 0.1
    if fault == "step_frozen":
        gradients["norm"] = jax.tree.map(jnp.zeros_like, gradients["norm"])
    optimizer = nnx.Optimizer(model, optax.sgd(rate), wrt=nnx.Param)
    # fault: step_rate
    # consumer: step_frozen
    optimizer.update(model, gradients)
    norm = model.norm
    params = [
        model.first.kernel[...].T,
        model.first.bias[...],
        norm.scale[...],
        norm.bias[...],
        model.head.kernel[...].T,
        model.head.bias[...],
    ]
    bias = gradients["first"]["bias"][...]
    return value, [norm.mean[...], norm.var[...]], params, bias


def step(rng, fault=""):
    left = filled(rng, LeftNet())
    running = [normal(rng, 4), normal(rng, 4) ** 2]
    x, labels = normal(rng, 6, 3), jnp.asarray(rng.integers(0, 3, 6))
    return Case(
        left_step,
        partial(right_step, fault=fault),
        (left, running, x, labels),
        (RightNet(left, running, fault), x, labels),
    )


# --- temporal differences: what must not be differentiated ------------------


def left_target(w, old, x, after, reward):
    def loss(w):
        value = predict(w, x)[:, 0]
        best = jnp.max(predict(w, after), -1)
        goal = reward + 0.9 * lax.stop_gradient(best)
        # lacks: target_huber
        return jnp.mean(optax.huber_loss(value, goal))

    gradients = jax.grad(loss)(w)
    # lacks: target_average
    new = jax.tree.map(lambda a, b: 0.95 * a + 0.05 * b, old, w)
    return gradients, new


def right_target(w, old, x, after, reward, fault):
    frozen = jax.tree.map(lax.stop_gradient, w)

    def loss(w):
        value = predict(w, x)[:, 0]
        # consumer: target_stopped
        choices = predict(w if fault == "target_stopped" else frozen, after)
        if fault == "target_sum":
            best = choices.sum(-1)  # fault: target_sum
        else:
            # consumer: target_stopped
            best = jnp.maximum(choices[:, 0], choices[:, 1])
        rate = 0.99 if fault == "target_discount" else 0.9
        # fault: target_discount
        # consumer: target_stopped
        goal = best * rate + reward
        # consumer: target_stopped
        error = goal - value
        size = jnp.abs(error)
        small = 0.5 * error * error
        if fault == "target_huber":
            return jnp.mean(small)  # fault: target_huber
        return jnp.where(size <= 1, small, size - 0.5).mean()

    gradients = jax.grad(loss)(w)
    rate = 0.95 if fault == "target_rate" else 0.05
    new = {}
    for name in w:
        # fault: target_rate
        new[name] = old[name] + rate * (w[name] - old[name])
    return gradients, new


def target(rng, fault=""):
    args = (
        weights(rng),
        weights(rng),
        normal(rng, 4, 3),
        normal(rng, 4, 3),
        normal(rng, 4),
    )
    return Case(left_target, partial(right_target, fault=fault), args)


# --- rules of one's own: a straight-through estimate, remat, jit ------------


@jax.custom_vjp
def rounded(x):
    return jnp.round(x)


rounded.defvjp(
    lambda x: (jnp.round(x), None),
    lambda _, g: (g,),
)


def left_through(w, x):
    @jax.checkpoint
    def hidden(w, x):
        # lacks: through_stopped
        return jax.jit(jax.nn.softplus)(rounded(3 * x @ w["in"]) / 3)

    def loss(w):
        return jnp.sum(jnp.sin(hidden(w, x) @ w["out"]))

    return jax.value_and_grad(loss)(w)


def right_through(w, x, fault):
    def loss(w):
        h = x @ (3 * w["in"])
        if fault == "through_stopped":
            h = jnp.round(h)  # fault: through_stopped
        else:
            h = h + lax.stop_gradient(jnp.round(h) - h)
        h = h / 3
        h = stable(h, fault)
        return jnp.sin(jnp.einsum("ni,io->no", h, w["out"])).sum()

    return jax.value_and_grad(loss)(w)


def stable(x, fault):
    @jax.custom_vjp
    def softplus(x):
        return jnp.log1p(jnp.exp(x))

    def backward(x, g):
        slope = -x if fault == "through_backward" else x
        return (g / (1 + jnp.exp(-slope)),)

    softplus.defvjp(lambda x: (softplus(x), x), backward)
    if fault == "through_relu":
        return jnp.maximum(x, 0)  # fault: through_relu
    # JAX says of a backward rule's equations where its function was called.
    return softplus(x)  # fault: through_backward


def through(rng, fault=""):
    both = {"in": normal(rng, 3, 5), "out": normal(rng, 5, 2)}
    return Case(
        left_through,
        partial(right_through, fault=fault),
        (both, normal(rng, 4, 3)),
    )


PAIRS = (
    Pair(
        step,
        (
            "step_eval",
            "step_momentum",
            "step_eps",
            "step_order",
            "step_stopped",
            "step_sum",
            "step_rate",
            "step_frozen",
        ),
    ),
    Pair(
        target,
        (
            "target_stopped",
            "target_sum",
            "target_discount",
            "target_huber",
            "target_rate",
        ),
    ),
    Pair(through, ("through_stopped", "through_backward", "through_relu")),
)
