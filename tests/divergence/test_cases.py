"""Small cases that `diff` did not decide well, in the floats of their users.

Each is what a user of float32 runs: arrays and models in JAX's default dtype.
"""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import diff
from tests.divergence.programs import first, line_of

RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def default_floats():
    """Runs a test with 64-bit types disabled, as JAX does by default."""
    with jax.enable_x64(False):
        yield


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), "float32")


def lines(found, index=0):
    """The user's lines of an origin, by side."""
    origin = found.origins[index]
    return tuple(
        node.frames[0].line if node is not None and node.frames else None
        for node in (origin.left, origin.right)
    )


# --- code that runs in the user's own dtypes --------------------


def test_a_closure_over_float32_weights():
    kernel = draw(4, 3, 3, 3)

    def convolve(x):
        return jax.lax.conv(x[None], kernel, (1, 1), "SAME")[0]

    assert diff(convolve, convolve, draw(3, 5, 5)).ok
    with jax.enable_x64(True):
        assert diff(convolve, convolve, draw(3, 5, 5)).ok
    found = diff(convolve, lambda x: convolve(x) * 1.001, draw(3, 5, 5))
    assert not found.ok and found.origins


def test_a_model_that_is_partitioned_and_combined():
    model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    arrays, rest = eqx.partition(model, eqx.is_array)

    def call(arrays, x):
        return eqx.combine(arrays, rest)(x)

    assert diff(call, call, arrays, draw(3)).ok
    found = diff(call, lambda a, x: call(a, x) + 1, arrays, draw(3))
    assert not found.ok


def test_batch_statistics_with_their_counter():
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        2, "batch", mode="batch"
    )

    def call(norm, state, x):
        return jax.vmap(
            norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
        )(x, state)[0]

    assert diff(call, call, norm, state, draw(3, 2)).ok


class OnTheHost(eqx.Module):
    scale: jax.Array

    def __call__(self, x):
        return x * np.asarray(self.scale)


def test_numpy_applied_to_a_field():
    model = OnTheHost(draw(4))
    line = line_of(OnTheHost.__call__, "np.asarray")
    message = (
        "left function 'OnTheHost': got NumPy applied to module.scale at "
        rf"test_cases.py:{line} .*, expected JAX only.* Use `jax.numpy` there"
    )
    with pytest.raises(TypeError, match=message):
        diff(model, model, draw(4))


# --- casts inside ----


def rotated(x, base=10000.0):
    size, width = x.shape
    rates = 1 / base ** (jnp.arange(0, width, 2) / width)
    angles = jnp.arange(size)[:, None] * rates
    cos, sin = (jnp.tile(f(angles), 2) for f in (jnp.cos, jnp.sin))
    half = width // 2
    return x * cos + jnp.concatenate([-x[:, half:], x[:, :half]], -1) * sin


def test_a_library_with_tables_in_float32():
    """The tables of the library's layer are rounded when it is traced."""
    rope = eqx.nn.RotaryPositionalEmbedding(8)
    x = draw(5, 8)
    assert diff(rope.__call__, rotated, x).ok
    assert not diff(rope.__call__, lambda x: rotated(x, 9990.0), x).ok
    with jax.enable_x64(True):  # then the program's own floats are float64
        found = diff(rope.__call__, rotated, x.astype("float64"))
    if not found.ok:
        assert "rounding to float32 on the left" in found.origins[0].reason


def normalized(eps, dtype):
    def norm(x):
        x = x.astype(dtype)
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(var + eps)  # the sum with eps

    return norm


@pytest.mark.parametrize("x64", [False, True])
def test_eps_behind_the_same_cast_on_both_sides(x64):
    with jax.enable_x64(x64):
        left, right = (
            normalized(eps, dtype="float32") for eps in (1e-5, 1e-6)
        )
        x = RNG.normal(size=(3, 8))
        assert diff(left, left, x).ok
        found = diff(left, right, x)
    assert not found.ok
    assert found.origins[0].reason == "literal 1e-05 against 1e-06"
    line = line_of(normalized, "the sum with eps")
    assert lines(found) == (line, line)


@pytest.mark.parametrize("x64", [False, True])
def test_an_activation_behind_a_cast_on_one_side(x64):
    def left(x):
        return jax.nn.gelu(normalized(1e-5, "float32")(x), approximate=True)

    def right(x):
        return jax.nn.gelu(normalized(1e-5, x.dtype)(x), approximate=False)

    with jax.enable_x64(x64):
        found = diff(left, right, RNG.normal(size=(3, 8)))
    assert not found.ok
    assert line_of(left, "jax.nn.gelu") in {
        node.frames[-1].line
        for origin in found.origins[:1]
        for node in (origin.left, origin.right)
        if node
    } | {
        frame.line
        for node in (found.origins[0].left, found.origins[0].right)
        if node
        for frame in node.frames
    }


def test_casts_at_other_places_agree_to_their_ceiling():
    scale = draw(8)

    def before(x):
        return (x.astype("bfloat16") * scale.astype("bfloat16")).astype(
            x.dtype
        )

    def after(x):
        return (x * scale).astype("bfloat16").astype(x.dtype)

    found = diff(before, after, draw(3, 8))
    assert found.ok and not found.origins
    assert found.hidden is not None and found.hidden < 0.1
    assert "agree to the precision ceiling set at test_cases.py" in str(found)
    assert "dtype=None" in str(found)
    assert not diff(before, lambda x: 1.5 * after(x), draw(3, 8)).ok


def test_a_cast_on_one_side_is_named_with_its_dtype():
    def narrow(x):
        return jnp.tanh(x.astype("bfloat16").astype("float32"))  # the cast

    found = diff(jnp.tanh, narrow, draw(3, 8))
    assert not found.ok
    reason = found.origins[0].reason
    assert reason == "rounding to bfloat16 on the right"
    assert 0 < found.outputs[0].error < 0.01


# --- values that confirm too little ----


def test_a_router_does_not_confirm_a_wrong_value():
    weight, gate, experts = draw(6, 6), draw(6, 4), draw(4, 6, 6)

    def routed(scale):
        def mixture(x):
            x = x @ weight * scale  # the scale
            _, chosen = jax.lax.top_k(x @ gate, 2)
            return jnp.einsum("tkhi,ti->th", experts[chosen], x)

        return mixture

    found = diff(routed(1.0), routed(1.01), draw(5, 6))
    assert lines(found)[1] == line_of(routed, "the scale")


def test_a_strided_convolution_does_not_confirm_its_input():
    kernel = draw(2, 3, 1, 1)
    x = draw(1, 3, 4, 4).at[0, 0, 1, 1].set(9.0)

    def network(largest):
        def run(x):
            x = jnp.minimum(x, largest)  # the bound
            read = jax.lax.conv(x, kernel, (2, 2), "VALID")
            rest = jnp.sin(jax.nn.relu(x))
            return jnp.concatenate([read.ravel(), rest.ravel()])

        return run

    found = diff(network(100.0), network(6.0), x)
    assert lines(found)[1] == line_of(network, "the bound")


# --- the same numbers in another order ----


def attention(q, k):
    return jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k))  # scores


def test_swapped_queries_and_keys():
    found = diff(attention, lambda q, k: attention(k, q), *draw(2, 2, 5, 4))
    assert [node.primitive for node in first(found)] == ["dot_general"] * 2
    assert (
        found.origins[0].reason
        == "the same numbers with axes (1, 2) exchanged"
    )


def test_swapped_queries_and_keys_below_a_mask():
    mask = np.tril(np.ones((5, 5), bool))

    def masked(q, k):
        scores = jnp.einsum("bqd,bkd->bqk", q, k)
        return jax.nn.softmax(jnp.where(mask, scores, -1e9))

    def other(q, k):
        scores = k @ q.swapaxes(1, 2)
        return jax.nn.softmax(scores + jnp.where(mask, 0, -1e9))

    found = diff(masked, other, *draw(2, 2, 5, 4))
    assert "axes (1, 2) exchanged" in found.origins[0].reason
    assert first(found)[1].primitive == "dot_general"


def loss(weight, x):
    return jnp.mean((jnp.tanh(jax.nn.gelu(x @ weight / 4.0)) - 1) ** 2)


def test_a_halved_loss_seen_through_its_gradient():
    def halved(weight, x):
        return 0.5 * loss(weight, x)  # half

    found = diff(jax.grad(loss), jax.grad(halved), draw(4, 4), draw(5, 4))
    assert line_of(halved, "# half") in lines(found)
    assert found.origins[0].reason == "literal 0.5 only on the right"


def test_a_gradient_that_is_returned_transposed():
    found = diff(
        lambda weight, x: jax.grad(loss)(weight, x).T,
        jax.grad(loss),
        draw(4, 4),
        draw(5, 4),
    )
    assert not found.ok
    reason = found.origins[0].reason
    assert reason == "the same numbers with axes (0, 1) exchanged"


def test_reordered_rows_are_named():
    weight = draw(6, 4)
    found = diff(
        lambda x: jnp.tanh(x @ weight.T),
        lambda x: jnp.tanh(x @ jnp.concatenate([weight[3:], weight[:3]]).T),
        draw(2, 4),
    )
    reasons = " ".join(origin.reason for origin in found.origins)
    assert "in the order (1, 0) of blocks of 3" in reasons


def test_a_flipped_kernel_is_named():
    found = diff(
        lambda x, w: jnp.tanh(jax.lax.conv(x, w, (1, 1), "SAME")),
        lambda x, w: jnp.tanh(
            jax.lax.conv(x, w[..., ::-1, ::-1], (1, 1), "SAME")
        ),
        draw(1, 2, 4, 4),
        draw(2, 2, 3, 3),
    )
    reasons = " ".join(origin.reason for origin in found.origins)
    assert "axes (2, 3) reversed" in reasons


# --- reciprocals, masks ----


def test_a_wrong_argument_behind_a_reciprocal():
    def divided(x, scale):
        return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5) * scale

    def multiplied(x, scale):
        return (x - x.mean(0)) * (jax.lax.rsqrt(x.var(0) + 1e-5) * scale)

    x, scale = draw(7, 4), draw(4)
    assert diff(divided, multiplied, x, scale).ok
    wrong = (x, scale.at[0].set(5.0))
    found = diff(divided, multiplied, x, scale, right_args=wrong)
    assert "args[1]" in found.origins[0].reason
    for origin in found.origins:
        for node in (origin.left, origin.right):
            assert node is None or node.primitive not in ("sqrt", "rsqrt")


def test_masks_of_the_lowest_float_are_silent():
    seen = jnp.tril(jnp.ones((4, 4), bool))

    def masked(value):
        return lambda x: jax.nn.softmax(jnp.where(seen, x, value)) @ x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lowest = float(jnp.finfo("float32").min)
        assert diff(masked(lowest), masked(-1e9), draw(4, 4)).ok


# --- outputs ----


def test_the_printed_size_is_the_documented_measure():
    x = jnp.asarray([1.0, 2.0, 10.0])
    found = diff(lambda x: x * 1.0, lambda x: 1.1 * x, x)
    assert round(found.outputs[0].error, 3) == 0.091
    assert "relative error 0.0909" in str(found)


def test_a_gradient_that_only_one_side_has():
    def affine(weights, x):
        return jnp.sum(x @ weights["kernel"] + weights.get("bias", 0))

    weights = {"kernel": draw(4, 3), "bias": draw(3)}
    found = diff(
        jax.grad(affine),
        jax.grad(affine),
        weights,
        draw(2, 4),
        right_args=({"kernel": weights["kernel"]}, draw(2, 4)),
    )
    assert not found.ok
    assert "output['bias'] is returned on the left only" in str(found)
    assert [output.path for output in found.outputs] == ["['kernel']"]


def test_a_given_tolerance():
    x = draw(3, 4)
    assert not diff(jnp.sin, lambda x: 1.001 * jnp.sin(x), x).ok
    assert diff(jnp.sin, lambda x: 1.001 * jnp.sin(x), x, tolerance=0.01).ok
    with pytest.raises(ValueError, match="tolerance: got 2, expected"):
        diff(jnp.sin, jnp.sin, x, tolerance=2)


def test_the_text_has_the_source_lines_of_both_sides():
    def left(x):
        return jnp.sin(x)  # on the left

    def right(x):
        return jnp.cos(x)  # on the right

    text = str(diff(left, right, draw(3)))
    assert "| return jnp.sin(x)  # on the left" in text
    assert "| return jnp.cos(x)  # on the right" in text
