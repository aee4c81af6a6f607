"""A mixture of experts: one loops over experts, the other gathers them."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from tests.divergence.mutations.pair import Case, Pair, normal

WIDTH, EXPERTS, CHOSEN, SIZE = 6, 4, 2, 7


class Experts(eqx.Module):
    router: jax.Array
    bias: jax.Array
    gate: jax.Array
    up: jax.Array
    down: jax.Array
    shared: jax.Array
    scale: jax.Array

    def expert(self, i, x):
        return (jax.nn.silu(x @ self.gate[i]) * (x @ self.up[i])) @ self.down[
            i
        ]

    def __call__(self, x):
        y = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)
        y = y * self.scale
        logits = y @ self.router + self.bias  # lacks: moe_router_bias
        shares = jax.nn.softmax(logits)
        order = jnp.argsort(-shares, -1)[:, :CHOSEN]
        chosen = jax.nn.one_hot(order, EXPERTS).sum(1)
        weights = shares * chosen
        # lacks: moe_unnormalized
        weights = weights / weights.sum(-1, keepdims=True)
        mixed = sum(
            weights[:, i : i + 1] * self.expert(i, y) for i in range(EXPERTS)
        )
        mixed = mixed + jnp.tanh(y @ self.shared)  # lacks: moe_unshared
        used = chosen.mean(0)
        # lacks: moe_unbalanced
        balance = 0.01 * EXPERTS * jnp.sum(used * shares.mean(0))
        return x + mixed, balance


def route(model, x, y, fault):
    source = x if fault == "moe_router_input" else y
    logits = source @ model.router  # fault: moe_router_input
    if fault != "moe_router_bias":
        logits = logits + model.bias
    if fault == "moe_temperature":
        logits = logits / 1.1  # fault: moe_temperature
    if fault == "moe_softmax_after":
        top, chosen = jax.lax.top_k(logits, CHOSEN)
        top = jax.nn.sigmoid(top)  # fault: moe_softmax_after
        return jax.nn.softmax(logits), top, chosen
    axis = 0 if fault == "moe_softmax_axis" else -1
    # consumer: moe_router_bias, moe_temperature
    shares = jax.nn.softmax(logits, axis)  # fault: moe_softmax_axis
    count = CHOSEN - 1 if fault == "moe_count" else CHOSEN
    top, chosen = jax.lax.top_k(shares, count)  # fault: moe_count
    return shares, top, chosen


def gathered(model, y, chosen, fault):
    gate, up = model.gate, model.up
    if fault == "moe_gate":
        gate, up = up, gate
    if fault == "moe_expert_order":
        gate = gate[::-1]  # fault: moe_expert_order
    a = jnp.einsum("td,tkdf->tkf", y, gate[chosen])  # fault: moe_expert_order
    b = jnp.einsum("td,tkdf->tkf", y, up[chosen])
    if fault == "moe_act":
        a = jax.nn.relu(a)  # fault: moe_act
    else:
        a = jax.nn.silu(a)  # fault: moe_gate
    down = model.down
    if fault == "moe_down":
        down = down.swapaxes(1, 2)  # fault: moe_down
    # consumer: moe_act, moe_gate
    return jnp.einsum("tkf,tkfd->tkd", a * b, down[chosen])  # fault: moe_down


def right(model, x, fault):
    eps = 1e-3 if fault == "moe_eps" else 1e-5
    power = jnp.mean(jnp.square(x), -1, keepdims=True)
    y = x * jax.lax.rsqrt(power + eps) * model.scale  # fault: moe_eps
    shares, top, chosen = route(model, x, y, fault)
    if fault != "moe_unnormalized":
        top = top / top.sum(-1, keepdims=True)  # consumer: moe_softmax_after
    outs = gathered(model, y, chosen, fault)
    # consumer: moe_unnormalized, moe_count
    mixed = jnp.sum(top[..., None] * outs, 1)
    if fault == "moe_shared_input":
        mixed = mixed + jnp.tanh(x @ model.shared)  # fault: moe_shared_input
    elif fault != "moe_unshared":
        mixed = mixed + jnp.tanh(y @ model.shared)
    counts = (
        jnp.zeros((len(x), EXPERTS))
        .at[jnp.arange(len(x))[:, None], chosen]
        .set(1)
    )
    used = counts.mean(0)
    if fault == "moe_balance":
        used = used / CHOSEN  # fault: moe_balance
    # fault: moe_balance
    balance = 0.01 * EXPERTS * jnp.dot(used, shares.mean(0))
    return x + mixed, balance  # consumer: moe_unshared


def experts(rng, fault=""):
    leaves = [
        normal(rng, WIDTH, EXPERTS),
        normal(rng, EXPERTS),
        *(0.5 * normal(rng, EXPERTS, WIDTH, WIDTH) for _ in range(3)),
        normal(rng, WIDTH, WIDTH),
        normal(rng, WIDTH),
    ]
    model = Experts(*leaves)
    return Case(
        lambda model, x: model(x),
        partial(right, fault=fault),
        (model, normal(rng, SIZE, WIDTH)),
    )


PAIRS = (
    Pair(
        experts,
        (
            "moe_router_input",
            "moe_router_bias",
            "moe_temperature",
            "moe_softmax_after",
            "moe_softmax_axis",
            "moe_count",
            "moe_gate",
            "moe_expert_order",
            "moe_act",
            "moe_down",
            "moe_eps",
            "moe_unnormalized",
            "moe_shared_input",
            "moe_unshared",
            "moe_balance",
        ),
    ),
)
