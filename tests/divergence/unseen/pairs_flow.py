"""A flow of splines: codes and bits per dimension of labeled points.

The Equinox side takes one point, scans over stacked steps, and evaluates one
spline at a time. The right side is plain functions of a batch, loops over the
steps, and selects the bin of each value by a product with a one-hot vector.
"""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import norm

from tests.divergence.mutations.pair import KEY, Case, Pair, filled

SIZE, LABELS, HIDDEN, BINS, DEPTH, BATCH = 6, 4, 6, 5, 3, 5
HALF = SIZE // 2
COUNT = 3 * BINS - 1
ALPHA, BOUND, LEAST = 0.05, 3.0, 1e-2


# --- Equinox: one point -----------------------------------------------------


class Conditioner(eqx.Module):
    inner: eqx.nn.Linear
    labels: eqx.nn.Embedding
    middle: eqx.nn.Linear
    gate: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self):
        self.inner = eqx.nn.Linear(HALF, HIDDEN, key=KEY)
        self.labels = eqx.nn.Embedding(LABELS, HIDDEN, key=KEY)
        self.middle = eqx.nn.Linear(HIDDEN, HIDDEN, key=KEY)
        self.gate = eqx.nn.Linear(HIDDEN, HIDDEN, key=KEY)
        self.outer = eqx.nn.Linear(HIDDEN, HALF * COUNT, key=KEY)

    def __call__(self, x, label):
        label = self.labels(label)
        x = self.inner(x)
        y = self.middle(jax.nn.gelu(x, approximate=False))
        # lacks: fl_gate
        y = y * jax.nn.sigmoid(self.gate(label))
        x = x + y  # lacks: fl_residual
        return self.outer(jax.nn.gelu(x, approximate=False))


def spline(x, params):
    """Returns a monotonic function of a number, and its log slope."""
    widths, heights, slopes = jnp.split(params, [BINS, 2 * BINS])
    # lacks: fl_least
    widths = LEAST + (1 - BINS * LEAST) * jax.nn.softmax(widths)
    heights = LEAST + (1 - BINS * LEAST) * jax.nn.softmax(heights)
    lefts = 2 * BOUND * jnp.cumsum(jnp.pad(widths, (1, 0))) - BOUND
    lows = 2 * BOUND * jnp.cumsum(jnp.pad(heights, (1, 0))) - BOUND
    slopes = jax.nn.softplus(slopes) + LEAST  # lacks: fl_least_slope
    slopes = jnp.pad(slopes, 1, constant_values=1.0)
    k = jnp.clip(jnp.searchsorted(lefts, x, side="right") - 1, 0, BINS - 1)
    width, height = lefts[k + 1] - lefts[k], lows[k + 1] - lows[k]
    ratio = height / width
    where = (x - lefts[k]) / width
    cross = where * (1 - where)
    bend = slopes[k + 1] + slopes[k] - 2 * ratio  # lacks: fl_bend
    bottom = ratio + bend * cross
    y = lows[k] + height * (ratio * where**2 + slopes[k] * cross) / bottom
    top = slopes[k + 1] * where**2 + 2 * ratio * cross
    top = ratio**2 * (top + slopes[k] * (1 - where) ** 2)
    slope = jnp.log(top) - 2 * jnp.log(bottom)  # lacks: fl_slope
    inside = (x > -BOUND) & (x < BOUND)
    return jnp.where(inside, y, x), jnp.where(inside, slope, 0.0)


class Step(eqx.Module):
    log_scale: jax.Array
    shift: jax.Array
    lower: jax.Array
    upper: jax.Array
    log_diagonal: jax.Array
    net: Conditioner

    def __init__(self):
        self.log_scale = jnp.zeros(SIZE)
        self.shift = jnp.zeros(SIZE)
        self.lower = jnp.zeros((SIZE, SIZE))
        self.upper = jnp.zeros((SIZE, SIZE))
        self.log_diagonal = jnp.zeros(SIZE)
        self.net = Conditioner()

    def __call__(self, x, label):
        x = (x + self.shift) * jnp.exp(self.log_scale)
        lower = jnp.tril(self.lower, -1) + jnp.eye(SIZE)  # lacks: fl_unit
        diagonal = jnp.diag(jnp.exp(self.log_diagonal))
        upper = jnp.triu(self.upper, 1) + diagonal
        x = lower @ (upper @ x)
        kept, moved = jnp.split(x, 2)
        params = self.net(kept, label).reshape(HALF, COUNT)
        moved, slopes = jax.vmap(spline)(moved, params)
        volume = jnp.sum(self.log_scale) + jnp.sum(slopes)
        volume = volume + jnp.sum(self.log_diagonal)  # lacks: fl_lu_volume
        return jnp.concatenate([moved, kept]), volume


class Flow(eqx.Module):
    steps: Step

    def __init__(self):
        steps = [Step() for _ in range(DEPTH)]
        self.steps = jax.tree.map(lambda *x: jnp.stack(x), *steps)

    def __call__(self, x, label):
        y = ALPHA + (1 - 2 * ALPHA) * x
        slopes = math.log(1 - 2 * ALPHA) - jnp.log(y) - jnp.log1p(-y)
        x = jnp.log(y) - jnp.log1p(-y)

        def body(x, step):
            return step(x, label)

        x, volumes = lax.scan(body, x, self.steps)
        # lacks: fl_logit_volume
        volume = jnp.sum(volumes) + jnp.sum(slopes)
        # lacks: fl_prior
        return x, jnp.sum(norm.logpdf(x)) + volume


def left_bits(model, points, labels):
    codes, scores = jax.vmap(model)(points, labels)
    return codes, -scores / (SIZE * math.log(2))  # lacks: fl_bits


# --- plain functions: a batch -----------------------------------------------


def dense(layer, x):
    return jnp.einsum("...i,oi->...o", x, layer.weight) + layer.bias


def condition(net, x, labels, fault):
    rough = fault == "fl_gelu"
    x = dense(net.inner, x)  # consumer: fl_halves
    # fault: fl_gelu
    y = dense(net.middle, jax.nn.gelu(x, approximate=rough))
    gate = dense(net.gate, net.labels.weight[labels])
    if fault != "fl_gate":
        gate = 1 / (1 + jnp.exp(-gate))
    y = y * gate  # consumer: fl_gate
    if fault != "fl_residual":
        y = y + x
    # consumer: fl_residual
    found = dense(net.outer, jax.nn.gelu(y, approximate=rough))
    if fault == "fl_layout":
        # fault: fl_layout
        return found.reshape(-1, COUNT, HALF).swapaxes(1, 2)
    return found.reshape(-1, HALF, COUNT)


def edges(sizes, fault):
    """Returns the ends of the bins, from logits of their sizes."""
    sizes = jax.nn.softmax(sizes)  # consumer: fl_layout
    if fault == "fl_least":
        sizes = LEAST + sizes  # fault: fl_least
    else:
        sizes = LEAST + sizes * (1 - BINS * LEAST)
    ends = jnp.cumsum(2 * BOUND * sizes, -1)  # consumer: fl_least
    ends = ends - BOUND
    return jnp.concatenate([jnp.full_like(ends[..., :1], -BOUND), ends], -1)


def bend_values(x, params, fault):
    first, second = params[..., :BINS], params[..., BINS : 2 * BINS]
    if fault == "fl_axes":
        first, second = second, first
    # fault: fl_axes
    xs = edges(first, fault)
    ys = edges(second, fault)  # fault: fl_axes
    slopes = jax.nn.softplus(params[..., 2 * BINS :])
    if fault != "fl_least_slope":
        slopes = slopes + LEAST
    outer = 0.0 if fault == "fl_ends" else 1.0
    # fault: fl_ends
    # consumer: fl_least_slope
    slopes = jnp.pad(slopes, ((0, 0), (0, 0), (1, 1)), constant_values=outer)
    # The bin is chosen by how many inner ends are not above the value.
    index = jnp.sum(x[..., None] >= xs[..., 1:-1], -1)
    chosen = jax.nn.one_hot(index, BINS, dtype=x.dtype)

    def select(values):
        return jnp.einsum("bdk,bdk->bd", values, chosen)

    left, low = select(xs[..., :-1]), select(ys[..., :-1])
    width, height = select(jnp.diff(xs)), select(jnp.diff(ys))
    # consumer: fl_ends
    here, there = select(slopes[..., :-1]), select(slopes[..., 1:])
    ratio = height / width
    t = (x - left) / width
    s = 1 - t
    if fault == "fl_bend":
        bottom = ratio + (here + there - ratio) * t * s  # fault: fl_bend
    else:
        bottom = ratio + (here + there - 2 * ratio) * t * s
    # consumer: fl_bend
    y = low + height * (ratio * t * t + here * t * s) / bottom
    top = here * s * s + 2 * ratio * t * s + there * t * t
    slope = jnp.log(top) + 2 * jnp.log(ratio)
    if fault == "fl_slope":
        slope = slope - jnp.log(bottom)  # fault: fl_slope
    else:
        slope = slope - 2 * jnp.log(bottom)
    bound = 1.0 if fault == "fl_bound" else BOUND
    outside = jnp.abs(x) >= bound  # fault: fl_bound
    # consumer: fl_bound
    y = jnp.where(outside, x, y)
    return y, jnp.where(outside, 0.0, slope)  # consumer: fl_bound, fl_slope


def mix(step, x, fault):
    """Multiplies by a matrix that is given by its LU decomposition."""
    lower = jnp.tril(step.lower, k=-1)
    if fault != "fl_unit":
        lower = lower + jnp.eye(SIZE)
    upper = jnp.triu(step.upper, k=1)
    upper = upper + jnp.eye(SIZE) * jnp.exp(step.log_diagonal)
    if fault == "fl_factors":
        weight = upper @ lower  # fault: fl_factors
    else:
        weight = lower @ upper  # consumer: fl_unit
    if fault == "fl_mix":
        return x @ weight  # fault: fl_mix
    return x @ weight.T  # consumer: fl_factors


def apply_step(step, x, labels, fault):
    if fault == "fl_order":
        # fault: fl_order
        x = x * jnp.exp(step.log_scale) + step.shift
    else:
        # consumer: fl_shared, fl_reverse, fl_swap
        x = (x + step.shift) * jnp.exp(step.log_scale)
    x = mix(step, x, fault)
    first, second = x[:, :HALF], x[:, HALF:]
    if fault == "fl_halves":
        first, second = second, first  # fault: fl_halves
    # fault: fl_halves
    params = condition(step.net, first, labels, fault)
    second, slopes = bend_values(second, params, fault)  # fault: fl_halves
    sign = -1 if fault == "fl_scale_volume" else 1
    volume = sign * step.log_scale.sum()  # fault: fl_scale_volume
    if fault != "fl_lu_volume":
        volume = volume + step.log_diagonal.sum()
    if fault == "fl_mean":
        slopes = slopes.mean(1)  # fault: fl_mean
    else:
        slopes = slopes.sum(1)
    # consumer: fl_mean, fl_scale_volume, fl_lu_volume
    volume = volume + slopes
    halves = [first, second] if fault == "fl_swap" else [second, first]
    return jnp.concatenate(halves, 1), volume  # fault: fl_swap


def right_bits(flow, points, labels, fault):
    y = points * (1 - 2 * ALPHA) + ALPHA
    x = jnp.log(y / (1 - y))
    slopes = jax.nn.softplus(x) + jax.nn.softplus(-x) + math.log(1 - 2 * ALPHA)
    volume = jnp.zeros(len(x), x.dtype)
    if fault != "fl_logit_volume":
        volume = slopes.sum(1)
    indices = range(DEPTH)
    if fault == "fl_reverse":
        indices = reversed(indices)
    for i in indices:
        chosen = 0 if fault == "fl_shared" else i
        # fault: fl_shared, fl_reverse
        step = jax.tree.map(lambda x, i=chosen: x[i], flow.steps)
        # consumer: fl_shared, fl_reverse, fl_swap
        x, slopes = apply_step(step, x, labels, fault)
        if fault == "fl_cast":
            x = x.astype("bfloat16").astype("float32")  # fault: fl_cast
        volume = volume + slopes  # consumer: fl_logit_volume
    if fault == "fl_prior":
        prior = -0.5 * x * x  # consumer: fl_prior
    else:
        prior = -0.5 * (x * x + math.log(2 * math.pi))
    bits = (prior.sum(1) + volume) / -SIZE  # consumer: fl_prior, fl_bits
    if fault != "fl_bits":
        bits = bits / math.log(2)
    return x, bits


def flow(rng, fault=""):
    left = filled(rng, Flow())
    small = jax.tree.map(lambda x: 0.3 * x, left)
    net = left.steps.net
    left = eqx.tree_at(lambda flow: flow.steps.net, small, net)
    points = jnp.asarray(rng.uniform(size=(BATCH, SIZE)), "float32")
    labels = jnp.asarray(rng.integers(0, LABELS, BATCH), "int32")
    right = partial(right_bits, fault=fault)
    return Case(left_bits, right, (left, points, labels))


FAULTS = """
gelu gate residual layout least axes least_slope ends bend slope bound unit
factors mix order halves scale_volume lu_volume mean swap logit_volume reverse
shared cast prior bits
"""
PAIRS = (Pair(flow, tuple(f"fl_{one}" for one in FAULTS.split())),)
