"""Rules for splitting parameters over a mesh, and what is wrong with them."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from common import build
from common.training import sharding

EIGHT = AbstractMesh((8,), ("data",))
PLANE = AbstractMesh((2, 4), ("data", "model"))
SHAPES = {"linear.weight": (24, 16), "linear.bias": (24,), "odd": (3, 5)}


def spec_of(key, shape, shard, mesh=EIGHT):
    flat = {key: jax.ShapeDtypeStruct(shape, "float32")}
    found = sharding.canonical_shardings(flat, SHAPES, mesh, shard)
    return found[key].spec


@pytest.mark.parametrize(
    "key, shape, expected",
    [
        ("params.linear.weight", (24, 16), P("data")),
        ("params.linear.bias", (24,), P("data")),
        ("params.odd", (3, 5), P()),
        ("opt.optimizer.0.mu.linear.weight", (24, 16), P("data")),
        ("opt.optimizer.0.v_row.linear.weight", (24,), P()),
        ("opt.optimizer.0.count", (), P()),
        ("opt.head.0.nu.linear.bias", (24,), P("data")),
        ("buffers.norm.running_mean", (24,), P()),
        ("rng.key", (2,), P()),
        # The members of an ensemble come first.
        ("params.linear.weight", (3, 24, 16), P(None, "data")),
    ],
)
def test_fsdp_splits_the_largest_axis_that_divides(key, shape, expected):
    assert spec_of(key, shape, "fsdp") == expected
    assert spec_of(key, shape, None) == P()


def test_largest_axis_is_the_first_of_equals():
    assert sharding.largest_axis((8, 16, 16), EIGHT) == P(None, "data")
    assert sharding.largest_axis((8, 17), EIGHT) == P("data")
    assert sharding.largest_axis((), EIGHT) == P()
    assert sharding.largest_axis((0, 8), EIGHT) == P(None, "data")


def test_a_rule_sees_canonical_names_and_shapes():
    seen = {}

    def rule(name, shape):
        seen[name] = shape
        return P(None, "model") if name == "linear.weight" else None

    key = "opt.optimizer.0.mu.linear.weight"
    assert spec_of(key, (24, 16), rule, PLANE) == P(None, "model")
    assert spec_of("params.linear.bias", (24,), rule, PLANE) == P()
    assert seen == SHAPES


@pytest.mark.parametrize(
    "returned, message",
    [
        (
            "data",
            r"shard of 'odd' with shape \(3, 5\): got 'data', expected a "
            r"jax\.sharding\.PartitionSpec\. Return one, or None for an "
            r"array that is on every device\.",
        ),
        (
            P("data"),
            r"shard of 'odd' with shape \(3, 5\): got P\('data',?\), "
            r"expected an axis 0 that 2 devices divide, not 3\. Split "
            r"another axis, or return None\.",
        ),
        (
            P(None, ("data", "model")),
            r".*expected an axis 1 that 8 devices divide, not 5\..*",
        ),
        (
            P("date"),
            r"shard of 'odd' .* expected axes of the mesh, 'data', 'model'\. "
            r"Use these names\.",
        ),
        (
            P(None, None, "data"),
            r"shard of 'odd' .* expected at most 2 entries\. Return one for "
            r"each axis of the array\.",
        ),
    ],
    ids=["no spec", "uneven", "uneven pair", "unknown axis", "rank"],
)
def test_a_rule_that_does_not_fit_is_refused(assert_raises, returned, message):
    def rule(name, shape):
        del shape
        return returned if name == "odd" else None

    def call():
        spec_of("params.odd", (3, 5), rule, PLANE)

    assert_raises(call, ValueError, message)


def one_device(*names):
    devices = np.array(jax.devices()[:1]).reshape([1] * len(names))
    return Mesh(devices, names)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"mesh": 8},
            r"mesh: got 8 of type int, expected a jax\.sharding\.Mesh\. Make "
            r"one, as in `jax\.make_mesh\(\(n,\), \(\"data\",\)\)`\.",
        ),
        (
            {"shard": "fsdp"},
            r"shard: got 'fsdp' without a mesh, expected one to shard over\. "
            r"Pass `mesh=jax\.make_mesh\(\(n,\), \(\"data\",\)\)`\.",
        ),
        (
            {"mesh": one_device("data"), "shard": "zero"},
            r"shard: got 'zero', expected None, 'fsdp' or a function\. Pass "
            r"`rule\(name, shape\) -> jax\.sharding\.PartitionSpec`\.",
        ),
        (
            {"mesh": one_device("batch", "model")},
            r"mesh: got the axes 'batch', 'model', expected one called "
            r"'data', over which batches are split\. Rename an axis\.",
        ),
    ],
    ids=["no mesh", "no mesh to shard over", "shard", "axes"],
)
def test_build_refuses(assert_raises, options, message):
    def call():
        build(backend="equinox", **options)

    assert_raises(call, ValueError, message)


def test_batches_are_split_over_the_axis_called_data_or_the_only_one():
    assert sharding.data_axis(one_device("devices")) == "devices"
    assert sharding.data_axis(one_device("model", "data")) == "data"


def test_axes_become_automatic():
    explicit = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    mesh = sharding.check_mesh(explicit, None)
    assert mesh is not None
    assert mesh.axis_types == (AxisType.Auto,)
    assert (mesh.devices == explicit.devices).all()
