"""Special inputs, for the definitions and for both libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import layers
from common.comparison import layer_judge as judge
from common.layers import ACTIVATIONS
from common.layers.table import LAYERS
from common.registry import find_counterpart
from tests.conftest import exhaustive_but
from tests.layers.numeric import assert_agrees, normal

SIDES = ("reference", "equinox", "flax")


def make(name, **fields):
    return LAYERS[name](**fields)


def run(layer, side, case):
    """Calls a layer in training in float64, and differentiates it."""
    buffers = {
        name: x.astype("float64") if np.issubdtype(x.dtype, np.floating) else x
        for name, x in case.buffers.items()
    }
    call = judge.compiled(layer, side, "float64", True, True)
    return jax.device_get(call(case.params, buffers, *case.calls[0]))


# --- elements that a mask excludes ------------------------------------------


MASKED = {
    "layer_norm": {},
    "batch_norm-standard": {},
    "batch_norm-torch": {"dialect": "torch"},
}
# The stock layers that the catalogue of known differences names.
STOCK = (("layer_norm", "flax"), ("batch_norm-standard", "flax"))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", MASKED)
def test_nan_in_an_excluded_element_leaves_the_gradient_alone(name, side):
    layer = make(name.split("-")[0], masked=True, **MASKED[name])
    case = judge.draw(layer, 3, seed=0)
    (x, mask), weights, key = case.calls[0]
    weights = np.where(mask, weights, 0)
    results = []
    for value in (0, np.nan, np.inf):
        inputs = np.where(mask, x, value), mask
        call = judge.Call(inputs, weights, key)
        results.append(run(layer, side, case._replace(calls=(call,))))
    expected, *others = results
    for got in others:
        finite = [np.isfinite(g).all() for g in got["gradients"].values()]
        if (name, side) in STOCK:
            assert not all(finite)
            continue
        assert all(finite)
        assert jax.tree.all(
            jax.tree.map(
                np.array_equal, got["gradients"], expected["gradients"]
            )
        )
        shown = np.broadcast_to(mask, x.shape)
        assert np.array_equal(got["output"][shown], expected["output"][shown])
        assert not np.isfinite(got["output"][~shown]).any()


def test_nan_under_a_mask_leaves_the_gradients_of_all_norms_finite():
    mask = np.ones((2, 3, 4), bool)
    mask[1, 2, 3] = mask[0, 0, 1] = False
    x = np.where(mask, normal(2, 3, 4), np.nan)
    weight, bias = normal(4, seed=1), normal(4, seed=2)
    norms = {
        "layer": functools.partial(layers.layer_norm, shape=(4,)),
        "rms": functools.partial(layers.rms_norm, shape=(4,)),
        "group": functools.partial(layers.group_norm, groups=2),
        "instance": layers.instance_norm,
    }

    @jax.jit
    @jax.grad
    def gradients(arrays):
        kept = (
            jnp.where(mask, norm(*arrays[name], mask=mask, eps=1e-3), 0)
            for name, norm in norms.items()
        )
        return sum(jnp.sum(jnp.square(y)) for y in kept)

    got = gradients(dict.fromkeys(norms, (x, weight, bias)))
    for name, arrays in got.items():
        assert all(np.isfinite(g).all() for g in arrays), name


# --- empty batches and sequences --------------------------------------------


def forward(layer, side):
    """Returns the function of a row, or of its counterpart."""
    one = layer if side == "reference" else find_counterpart(side, layer)
    return functools.partial(one.forward, key=jax.random.key(0))


EMPTY = (
    "linear_general",
    "group_norm",
    "multihead_attention",
    "unequal_attention",
    "grouped_query_attention",
    "rotary_attention",
    "dropout",
)


@pytest.mark.parametrize("name", EMPTY)
def test_a_batch_may_be_empty(name):
    layer = LAYERS[name]()
    case = judge.draw(layer, 1, seed=0)
    inputs = [x[:0] for x in case.calls[0].inputs]
    arrays = case.params, case.buffers, *inputs
    shapes = {
        jax.eval_shape(
            functools.partial(forward(layer, side), training=True), *arrays
        )[0].shape
        for side in SIDES
    }
    ((examples, *_),) = shapes
    assert examples == 0


@pytest.mark.parametrize("options", [{}, {"seq_lengths": True}], ids=str)
def test_the_carry_after_no_steps_is_the_initial_one(options):
    layer = make("rnn", cell="gru", steps=1, initial_carry=True, **options)
    case = judge.draw(layer, 1, seed=0)
    xs, *lengths, carry = case.calls[0].inputs
    inputs = xs[:, :0], *(x * 0 for x in lengths), carry
    # The stock Flax layer cannot take lengths of 0.
    for side in SIDES[: 2 if options else 3]:
        (last, ys), _ = forward(layer, side)(
            case.params, {}, *inputs, training=True
        )
        assert np.array_equal(jax.tree.leaves(last)[0], carry)
        assert ys.shape == (1, 0, 4)


# --- paddings ----------------------------------------------------------------

PADDINGS = {
    "conv-number": dict(padding=1, padding_mode="REFLECT"),
    "conv-causal": dict(padding="CAUSAL"),
    "conv_transpose-number": dict(padding=1, output_padding=(0, 0), groups=1),
    "conv_transpose-causal": dict(padding="CAUSAL", groups=1),
    "max_pool-number": dict(padding=1),
    "avg_pool-numbers": dict(padding=(1, 0), use_ceil=True),
    "pool-causal": dict(padding="CAUSAL"),
}


# The layer matrix draws these as well.
@pytest.mark.parametrize(
    "name", exhaustive_but(PADDINGS, "conv-causal", "max_pool-number")
)
def test_all_sides_take_a_padding(name):
    layer = make(name.split("-")[0], **PADDINGS[name])
    case = judge.draw(layer, 2, seed=0)
    expected, *others = (
        forward(layer, side)(
            case.params, case.buffers, *case.calls[0].inputs, training=True
        )[0]
        for side in SIDES
    )
    for got in others:
        assert_agrees(got, expected)


# The results of PyTorch 2.13 for the inputs 0, 1, 2, ...
CEIL = {
    "max_pool": (dict(window=(2,), stride=(3,), size=(6,)), [1, 4]),
    "avg_pool": (dict(window=(3,), stride=(2,), size=(4,)), [1, 2.5]),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CEIL)
def test_windows_of_leftover_entries_are_those_of_pytorch(name, side):
    options, expected = CEIL[name]
    layer = make(name, **options, padding=0, use_ceil=True, channels=1)
    x = np.arange(options["size"][0] * 1.0)[None, :, None]
    y, _ = forward(layer, side)({}, {}, x, training=True)
    assert np.ravel(y).tolist() == expected


REFUSED = {
    "max_pool": dict(padding=((1, 0), (0, 2))),
    "avg_pool": dict(padding=3),
    "conv_transpose": dict(padding=1, padding_mode="CIRCULAR"),
    "adaptive_avg_pool": dict(target_shape=(2, 5)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_refuses_what_a_library_cannot_do(name, assert_raises):
    assert_raises(
        lambda: make(name, **REFUSED[name]),
        ValueError,
        r".*(padding|target_shape): got .+, expected .+\. [A-Z].+\.",
    )


def test_flax_refuses_more_blocks_than_entries():
    call = forward(LAYERS["adaptive_avg_pool"](), "flax")
    with pytest.raises(ValueError, match=r"^adaptive_pool target_shape: got"):
        call({}, {}, np.ones((1, 1, 3, 1)), training=True)


# --- NaN and infinity --------------------------------------------------------

POINTS = [np.nan, np.inf, -np.inf, 0.0]
ROWS = [
    [np.inf, 0, 1, 2],
    [-np.inf] * 4,
    [np.nan, 0, 1, 2],
    [-np.inf, 0, 1, 2],
    [-np.inf, np.inf, 0, 1],
]
REDUCING = ("glu", "logsumexp", "log_softmax", "softmax", "standardize")


def test_activations_agree_at_special_values():
    """The functions of both libraries are those of JAX."""
    names = sorted(ACTIVATIONS.keys() - {"one_hot"})

    def values(side, name, x):
        layer = make("activation", function=name, size=(4,))
        call = forward(layer, side)

        def total(x):
            y, _ = call({}, {}, x, training=True)
            return jnp.sum(jnp.sum(y, 0)), y

        return jax.grad(total, has_aux=True)(x)

    @jax.jit
    def every(points, rows):
        return {
            side: {
                name: values(side, name, rows if name in REDUCING else points)
                for name in names
            }
            for side in SIDES
        }

    got = every(jnp.array([POINTS]), jnp.array(ROWS))
    for side in ("equinox", "flax"):
        for name in names:
            for ours, theirs in zip(
                got["reference"][name], got[side][name], strict=True
            ):
                assert_agrees(ours, theirs, what=name)


def test_logsumexp_of_infinities_is_infinite():
    y = ACTIVATIONS["logsumexp"](jnp.array(ROWS))
    assert_agrees(y[jnp.array([0, 1, 4])], np.array([1, -1, 1]) * np.inf)


# --- dropout of everything ---------------------------------------------------


@pytest.mark.parametrize("mask", ["batch", "example"])
@pytest.mark.parametrize("side", SIDES)
def test_the_gradient_of_dropping_everything_is_zero(side, mask):
    layer = make("dropout", p=1.0, mask=mask)
    call = forward(layer, side)

    def loss(x):
        y, _ = call({}, {}, x, training=True)
        return jnp.sum(y)

    value, gradient = jax.value_and_grad(loss)(jnp.ones((2, 3, 4)))
    assert value == 0
    if (side, mask) == ("equinox", "example"):  # the stock layer
        assert np.isnan(gradient).all()
    else:
        assert not gradient.any()
