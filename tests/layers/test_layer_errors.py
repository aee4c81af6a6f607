"""Bad arguments of layers."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from common import layers
from common.layers.table import BatchNorm
from impl_equinox import layers as equinox_layers
from impl_flax import layers as flax_layers
from tests.conftest import FORM


def test_equinox_layer_norm_takes_one_example(assert_raises):
    layer = equinox_layers.LayerNorm(3)
    batch = jnp.ones((4, 3))
    assert_raises(
        lambda: layer(batch),
        ValueError,
        r"LayerNorm example: got shape \(4, 3\), expected \(3,\)\. Map over "
        r"further axes with `jax\.vmap`\.",
    )


def test_a_masked_batch_norm_needs_a_dialect_with_masks(assert_raises):
    assert_raises(
        lambda: BatchNorm(dialect="ema", masked=True),
        ValueError,
        r"masked batch_norm dialect: got 'ema', expected one of 'standard', "
        r"'torch'\. The other dialects do not define a mask; use "
        r"`masked=False`\.",
    )


def test_dropout_needs_a_key(assert_raises):
    layer = equinox_layers.Dropout(0.5, axis_name="batch")
    x = jnp.ones(3)
    assert_raises(
        lambda: layer(x),
        RuntimeError,
        r"Dropout key: got None, expected a PRNG key when not in inference "
        r"mode\. Pass `key=`, or use `eqx\.nn\.inference_mode\(model\)`\.",
    )


WINDOWS = {
    "padding_name": (
        lambda: layers.max_pool(jnp.ones((1, 4, 1)), (2,), padding="HALF"),
        r"padding: got 'HALF', expected one of \('SAME', 'SAME_LOWER', "
        r"'VALID', 'CAUSAL'\), a number or numbers\. [A-Z].+\.",
    ),
    "padding_axes": (
        lambda: layers.max_pool(jnp.ones((1, 4, 1)), (2,), padding=(0, 1)),
        r"padding: got \(0, 1\), expected 1 entries\. Pass one number or "
        r"pair per axis of the window\.",
    ),
    "stride_axes": (
        lambda: layers.max_pool(jnp.ones((1, 4, 1)), (2,), stride=(2, 2)),
        r"spatial axes: got 2 values \(2, 2\), expected 1\. Pass one value "
        r"per axis of the kernel\.",
    ),
    "adaptive_target": (
        lambda: layers.adaptive_avg_pool(jnp.ones((1, 2, 1)), (3,)),
        r"adaptive_pool target_shape: got \(3,\), expected at most "
        r"\(2,\)\. [A-Z].+\.",
    ),
    "output_padding": (
        lambda: flax_layers.ConvTranspose(
            1, 1, (2,), 2, output_padding=2, rngs=nnx.Rngs(0)
        ),
        r"ConvTranspose output_padding: got \(2,\), expected less than the "
        r"strides \(2,\)\. [A-Z].+\.",
    ),
    "transposed_padding_name": (
        lambda: flax_layers.ConvTranspose(
            1, 1, (2,), padding="HALF", rngs=nnx.Rngs(0)
        ),
        r"ConvTranspose padding: got 'HALF', expected 'SAME', .+\. "
        r"[A-Z].+\.",
    ),
    "circular": (
        lambda: flax_layers.ConvTranspose(
            1, 1, (2,), padding_mode="CIRCULAR", rngs=nnx.Rngs(0)
        ),
        r"ConvTranspose circular padding: got 0 with output_padding \(0,\), "
        r"expected 'SAME' or 'SAME_LOWER' .+\. [A-Z].+\.",
    ),
}


@pytest.mark.parametrize("fault", WINDOWS)
def test_bad_windows(fault):
    call, message = WINDOWS[fault]
    with pytest.raises(ValueError, match=f"^{message}$") as caught:
        call()
    assert FORM.fullmatch(str(caught.value))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "message"),
    [
        (4, 3, 8, "num_kv_heads: got 3, expected a divisor of num_heads=4"),
        (4, 2, 9, "query_size: got 9, expected a multiple of num_heads=4"),
    ],
)
def test_the_number_of_heads_must_divide(heads, kv_heads, size, message):
    with pytest.raises(ValueError, match=message):
        equinox_layers.GroupedQueryAttention(
            heads, kv_heads, size, key=jax.random.key(0)
        )
