"""Losses and what sits before them."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax

from tests.divergence.mutations.pair import Case, Pair, normal

# --- a language model's loss: lookups against one-hot products --------------


def left_language(w, tokens):
    x = w["embedding"][tokens[:, :-1]] * 2.0 + w["positions"]
    x = jnp.tanh(x @ w["mix"])
    logits = x @ w["embedding"].T
    labels = tokens[:, 1:]
    # consumer: lm_shift
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    kept = labels != 0  # consumer: lm_shift
    return jnp.sum(losses * kept) / jnp.sum(kept)  # lacks: lm_sum


def right_language(w, tokens, fault):
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    if fault == "lm_shift":
        labels = inputs
    x = right_embedded(w, inputs, fault)
    mix = w["mix"].T if fault == "lm_transposed" else w["mix"]
    x = jnp.einsum("nti,io->nto", x, mix)  # fault: lm_transposed
    x = jnp.tanh(x)
    head = w["embedding"]
    if fault == "lm_untied":
        norms = jnp.linalg.norm(head, axis=1)  # fault: lm_untied
        head = head / norms[:, None]  # fault: lm_untied
    logits = jnp.einsum("nti,vi->ntv", x, head)  # consumer: lm_untied
    losses = right_entropy(logits, labels, fault)
    return right_mean(losses, labels, fault)


def right_embedded(w, inputs, fault):
    x = jax.nn.one_hot(inputs, 7, dtype=w["embedding"].dtype)
    x = x @ w["embedding"]
    if fault != "lm_scale":
        x = 2 * x
    if fault == "lm_positions":
        return x + w["positions"][::-1]  # fault: lm_positions
    return x + w["positions"]  # fault: lm_scale


def right_entropy(logits, labels, fault):
    axis = 1 if fault == "lm_axis" else -1
    # fault: lm_axis
    logits = logits - jnp.log(jnp.exp(logits).sum(axis, keepdims=True))
    hot = labels[..., None] == jnp.arange(7)
    if fault == "lm_smoothed":
        hot = 0.9 * hot + 0.1 / 7  # fault: lm_smoothed
    # consumer: lm_smoothed, lm_shift
    return -jnp.sum(logits * hot, -1)


def right_mean(losses, labels, fault):
    if fault == "lm_padding":
        return losses.mean()  # fault: lm_padding
    kept = labels > 0  # consumer: lm_shift
    total = jnp.einsum("nt,nt->", losses, kept.astype(losses.dtype))
    if fault == "lm_sum":
        return total  # fault: lm_sum
    if fault == "lm_examples":
        counts = kept.sum(1)
        return (losses * kept).sum(1) @ (1 / counts) / 3  # fault: lm_examples
    return total / kept.sum()


def language(rng, fault=""):
    tokens = jnp.asarray(rng.integers(1, 7, (3, 6)))
    tokens = tokens.at[0, 4:].set(0).at[1, 5:].set(0)
    weights = {
        "embedding": normal(rng, 7, 4),
        "positions": normal(rng, 5, 4),
        "mix": normal(rng, 4, 4),
    }
    return Case(
        left_language,
        partial(right_language, fault=fault),
        (weights, tokens),
    )


# --- a variational autoencoder ----------------------------------------------


def left_vae(w, x, key):
    def one(x, key):
        mean, log_variance = jnp.split(w["encoder"] @ x, 2)
        noise = jax.random.normal(key, mean.shape, x.dtype)
        # consumer: vae_swapped
        z = mean + jnp.exp(0.5 * log_variance) * noise
        logits = w["decoder"] @ z
        target = jax.nn.sigmoid(x)
        error = optax.sigmoid_binary_cross_entropy(logits, target).sum()
        kl = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance)
        return error + kl

    return jax.vmap(one)(x, jax.random.split(key, len(x))).mean()


def right_vae(w, x, key, fault):
    keys = jax.random.split(key, x.shape[0])
    both = x @ w["encoder"].T
    mean, log_variance = both[:, :3], both[:, 3:]
    if fault == "vae_swapped":
        mean, log_variance = log_variance, mean
    variance = jnp.exp(log_variance)  # fault: vae_swapped
    if fault == "vae_noise":
        noise = jax.random.normal(key, mean.shape, x.dtype)  # fault: vae_noise
    else:
        draw = jax.vmap(lambda key: jax.random.normal(key, (3,), x.dtype))
        noise = draw(keys)
    if fault == "vae_deviation":
        deviation = variance
    else:
        deviation = jnp.sqrt(variance)
    # fault: vae_deviation
    # consumer: vae_noise, vae_swapped
    z = mean + noise * deviation
    logits = jnp.einsum("nz,xz->nx", z, w["decoder"])
    target = 1 / (1 + jnp.exp(-x))
    errors = jnp.logaddexp(logits, 0) - target * logits
    # fault: vae_mean
    errors = errors.mean(1) if fault == "vae_mean" else errors.sum(1)
    sign = -1 if fault == "vae_sign" else 1
    # fault: vae_sign
    # consumer: vae_swapped
    terms = variance + mean * mean - (1 + sign * log_variance)
    kl = terms.sum(1)
    if fault != "vae_half":
        kl = kl / 2
    if fault == "vae_beta":
        kl = 4 * kl  # fault: vae_beta
    # fault: vae_half
    # consumer: vae_beta
    return jnp.mean(errors + kl)


def vae(rng, fault=""):
    weights = {"encoder": normal(rng, 6, 5), "decoder": normal(rng, 5, 3)}
    key = jax.random.key(int(rng.integers(1000)))
    return Case(
        left_vae,
        partial(right_vae, fault=fault),
        (weights, normal(rng, 4, 5), key),
    )


# --- a contrastive loss -----------------------------------------------------


def left_contrastive(w, a, b):
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    logits = a @ b.T * jnp.exp(w)
    labels = jnp.arange(len(a))
    rows = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # lacks: clip_one_way
    columns = optax.softmax_cross_entropy_with_integer_labels(logits.T, labels)
    return (rows.mean() + columns.mean()) / 2


def right_contrastive(w, a, b, fault):
    a, b = a * unit(a, fault), b * unit(b, fault)
    # fault: clip_temperature
    power = -w if fault == "clip_temperature" else w
    a = a * jnp.exp(power)  # fault: clip_temperature
    logits = jnp.einsum("ni,mi->nm", a, b)
    positive = jnp.diagonal(logits)
    if fault == "clip_no_positive":
        # fault: clip_no_positive
        logits = jnp.where(jnp.eye(len(a), dtype=bool), -jnp.inf, logits)
    # consumer: clip_no_positive
    rows = jax.nn.logsumexp(logits, 1) - positive
    if fault == "clip_one_way":
        return rows.mean()  # fault: clip_one_way
    # consumer: clip_no_positive
    columns = jax.nn.logsumexp(logits, 0) - positive
    return (rows + columns).mean() / 2


def unit(x, fault):
    square = jnp.einsum("ni,ni->n", x, x)
    if fault == "clip_norm":
        return 1 / square[:, None]  # fault: clip_norm
    return lax.rsqrt(square)[:, None]


def contrastive(rng, fault=""):
    return Case(
        left_contrastive,
        partial(right_contrastive, fault=fault),
        (jnp.float32(0.5), normal(rng, 4, 3), normal(rng, 4, 3)),
    )


# --- a graph layer: segment sums against an adjacency matrix ----------------


def left_graph(w, x, edges):
    senders, receivers = edges
    ones = jnp.ones(len(senders), x.dtype)
    # lacks: graph_loops
    degrees = 1 + jax.ops.segment_sum(ones, receivers, len(x))
    scale = 1 / jnp.sqrt(degrees)
    messages = (x * scale[:, None])[senders]
    total = jax.ops.segment_sum(messages, receivers, len(x))
    total = total + x * scale[:, None]
    return jax.nn.relu((total * scale[:, None]) @ w)


def right_graph(w, x, edges, fault):
    senders, receivers = edges
    if fault == "graph_direction":
        senders, receivers = receivers, senders
    size = x.shape[0]
    adjacency = jnp.zeros((size, size), x.dtype)
    # fault: graph_direction
    adjacency = adjacency.at[receivers, senders].add(1)
    if fault != "graph_loops":
        adjacency = adjacency + jnp.eye(size, dtype=x.dtype)
    # fault: graph_loops
    # consumer: graph_direction
    degrees = adjacency.sum(1)
    if fault == "graph_degrees":
        adjacency = adjacency / degrees[:, None]  # fault: graph_degrees
    else:
        root = lax.rsqrt(degrees)
        adjacency = root[:, None] * adjacency * root
    # consumer: graph_degrees
    return jnp.maximum(adjacency @ (x @ w), 0)


def graph(rng, fault=""):
    edges = jnp.asarray([[0, 1, 2, 3, 4, 0, 2], [1, 2, 0, 4, 1, 3, 3]])
    return Case(
        left_graph,
        partial(right_graph, fault=fault),
        (normal(rng, 3, 4), normal(rng, 5, 3), edges),
    )


# --- a physics-informed loss: a Hessian against nested derivatives ----------


def field(w, x):
    return w[1] @ jnp.tanh(w[0] @ x)


def left_physics(w, xs):
    def residual(x):
        second = jax.hessian(field, 1)(w, x)  # lacks: pinn_axis
        first = jax.grad(field, 1)(w, x)
        return jnp.trace(second) + first[0] * field(w, x)

    return jnp.mean(jax.vmap(residual)(xs) ** 2)


def right_physics(w, xs, fault):
    def residual(x):
        basis = jnp.eye(2, dtype=x.dtype)
        u, first = jax.value_and_grad(field, 1)(w, x)

        def second(v):
            gradient = jax.grad(field, 1)
            push = jax.jvp(lambda x: gradient(w, x), (x,), (v,))[1]
            return v @ push

        laplacian = second(basis[0])
        if fault != "pinn_axis":
            laplacian = laplacian + second(basis[1])
        # fault: pinn_direction
        along = first[1] if fault == "pinn_direction" else first[0]
        # fault: pinn_direction
        drift = u * along
        sign = -1 if fault == "pinn_sign" else 1
        # fault: pinn_sign, pinn_axis
        return laplacian + sign * drift

    found = jnp.stack([residual(x) for x in xs])
    if fault == "pinn_absolute":
        return jnp.abs(found).mean()  # fault: pinn_absolute
    return found @ found / len(found)


def physics(rng, fault=""):
    return Case(
        left_physics,
        partial(right_physics, fault=fault),
        ((normal(rng, 4, 2), normal(rng, 4)), normal(rng, 3, 2)),
    )


PAIRS = (
    Pair(
        language,
        (
            "lm_shift",
            "lm_scale",
            "lm_positions",
            "lm_transposed",
            "lm_untied",
            "lm_axis",
            "lm_smoothed",
            "lm_padding",
            "lm_sum",
            "lm_examples",
        ),
    ),
    Pair(
        vae,
        (
            "vae_swapped",
            "vae_noise",
            "vae_deviation",
            "vae_mean",
            "vae_sign",
            "vae_half",
            "vae_beta",
        ),
    ),
    Pair(
        contrastive,
        (
            "clip_temperature",
            "clip_no_positive",
            "clip_one_way",
            "clip_norm",
        ),
    ),
    Pair(graph, ("graph_direction", "graph_loops", "graph_degrees")),
    Pair(
        physics,
        ("pinn_axis", "pinn_direction", "pinn_sign", "pinn_absolute"),
    ),
)
