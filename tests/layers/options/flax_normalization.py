"""Options of Flax's layers that normalize."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from common import layers as definitions
from tests.layers.options.drawing import Draw, mask

EPS = 1e-6


def masks(draw: Draw) -> Any:
    """Excluded elements do not contribute to the statistics."""
    options = {"use_fast_variance": False, "rngs": nnx.Rngs(0)}
    x, where = draw(2, 5, 4), mask(2, 5, 4)
    rms, of_rms = draw.fill(nnx.RMSNorm(4, **options))
    sizes = {"num_groups": None, "group_size": 2}
    group, of_group = draw.fill(nnx.GroupNorm(4, **sizes, **options))
    instance, of_instance = draw.fill(nnx.InstanceNorm(4, **options))
    got = [layer(x, mask=where) for layer in (rms, group, instance)]
    want = [
        definitions.rms_norm(x, **of_rms, shape=(4,), eps=EPS, mask=where),
        definitions.group_norm(x, **of_group, groups=2, eps=EPS, mask=where),
        definitions.instance_norm(x, **of_instance, eps=EPS, mask=where),
    ]
    return got, want


def axes(draw: Draw) -> Any:
    """Other axes are reduced, or have one weight per entry."""
    x = draw(2, 3, 4)
    options = {"num_groups": 2, "reduction_axes": (1, -1)}
    group, of_group = draw.fill(nnx.GroupNorm(4, **options, rngs=nnx.Rngs(0)))
    first, of_first = draw.fill(
        nnx.InstanceNorm(3, feature_axes=1, rngs=nnx.Rngs(0))
    )
    batch, of_batch = draw.fill(nnx.BatchNorm(3, axis=1, rngs=nnx.Rngs(0)))
    turned = jnp.swapaxes(x, 1, 2)
    zeros = jnp.zeros(3)
    normalized, _ = definitions.batch_norm(
        turned,
        of_batch["weight"],
        of_batch["bias"],
        zeros,
        zeros + 1,
        dialect="standard",
        momentum=0.99,
        eps=1e-5,
        training=True,
    )
    want = [
        definitions.group_norm(x, **of_group, groups=2, eps=EPS),
        jnp.swapaxes(
            definitions.instance_norm(turned, **of_first, eps=EPS), 1, 2
        ),
        jnp.swapaxes(normalized, 1, 2),
    ]
    return [group(x), first(x), batch(x)], want


def statistics_of_a_mapped_axis(draw: Draw) -> Any:
    """With `axis_name` the statistics are those of all devices."""
    x = draw(3, 2, 4)  # three parts of two examples
    options = {"axis_name": "parts", "rngs": nnx.Rngs(0)}
    options["use_fast_variance"] = False
    batch, of_batch = draw.fill(nnx.BatchNorm(4, **options))
    layer, of_layer = draw.fill(nnx.LayerNorm(4, **options))
    rms, of_rms = draw.fill(nnx.RMSNorm(4, **options))
    group, of_group = draw.fill(nnx.GroupNorm(4, num_groups=2, **options))
    instance, of_instance = draw.fill(nnx.InstanceNorm(4, **options))
    stateless = layer, rms, group, instance

    def part(x: Any) -> Any:
        # A copy, since the call changes the buffers.
        return nnx.clone(batch)(x), *(layer(x) for layer in stateless)

    got = jax.vmap(part, axis_name="parts")(x)
    # The parts of an example side by side, and those of a sequence.
    features = jnp.concatenate(tuple(x), axis=-1)
    steps = jnp.concatenate(tuple(x[:, :, None]), axis=1)
    thrice = {
        kind: {name: jnp.tile(one, 3) for name, one in params.items()}
        for kind, params in (("layer", of_layer), ("rms", of_rms))
    }

    def parts(y: Any) -> Any:
        return jnp.stack(jnp.split(y, 3, axis=-1))

    normalized, _ = definitions.batch_norm(
        x.reshape(6, 4),
        of_batch["weight"],
        of_batch["bias"],
        jnp.zeros(4),
        jnp.ones(4),
        dialect="standard",
        momentum=0.99,
        eps=1e-5,
        training=True,
    )
    want = (
        normalized.reshape(x.shape),
        parts(
            definitions.layer_norm(
                features, **thrice["layer"], shape=(12,), eps=EPS
            )
        ),
        parts(
            definitions.rms_norm(
                features, **thrice["rms"], shape=(12,), eps=EPS
            )
        ),
        jnp.swapaxes(
            definitions.group_norm(steps, **of_group, groups=2, eps=EPS), 0, 1
        ),
        jnp.swapaxes(
            definitions.instance_norm(steps, **of_instance, eps=EPS), 0, 1
        ),
    )
    return got, want


def running_averages(draw: Draw) -> Any:
    options = {"momentum": 0.9, "rngs": nnx.Rngs(0)}
    always, of_always = draw.fill(
        nnx.BatchNorm(4, use_running_average=True, **options)
    )
    called, of_called = draw.fill(nnx.BatchNorm(4, **options))
    x = draw(2, 4)
    mean, var = jnp.arange(4.0), jnp.arange(1.0, 5.0)
    for layer in (always, called):
        layer.mean.set_value(jnp.asarray(mean))
        layer.var.set_value(jnp.asarray(var))
    got = always(x), called(x, use_running_average=True)
    want = [
        definitions.batch_norm(
            x,
            params["weight"],
            params["bias"],
            mean,
            var,
            dialect="standard",
            momentum=0.9,
            eps=1e-5,
            training=False,
        )[0]
        for params in (of_always, of_called)
    ]
    return got, tuple(want)


COMPARISONS = (masks, axes, statistics_of_a_mapped_axis, running_averages)
