"""Random small architectures in both libraries, with the true mapping.

`architectures()` draws layers of the layer table, connects them, and builds
the same architecture in both libraries, with names, containers and orders
drawn for each of them. `broken_architectures()` plants a fault in the NNX
module, so that no mapping is right.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flax import nnx
from hypothesis import strategies as st

from common.layouts import Index, Layout, Reshape, Transpose, compose
from common.native import NativeModel
from tests.pairs.bank import Pair, Sources
from tests.pairs.programs import (
    EQUINOX,
    FUNCTIONS,
    Net,
    Path,
    Row,
    Slot,
    Step,
    left_call,
    left_layer,
    left_slots,
    make_left,
    right_layer,
    right_slots,
)

NAMES = (
    "alpha attention block body conv decoder dense encoder fc first head "
    "hidden inner input layer linear main mix norm out proj second stem"
).split()
WIDTHS = st.sampled_from((3, 4, 5))
SMOOTH = st.sampled_from([name for name in FUNCTIONS if name != "identity"])
VOCABULARY, LENGTH, SIZE, BATCH = 6, 3, 4, 3


@st.composite
def features(draw: Any, width: int) -> tuple[Step, int]:
    """Draws a step on features, of a vector or of each token."""
    kinds = ("linear", "norm", "mlp", "lora", "residual", "sum", "gate")
    kind = draw(st.sampled_from((*kinds, "repeat")))
    function = draw(SMOOTH)
    out, bias = draw(WIDTHS), draw(st.booleans())
    one = Row.of("linear", in_features=width, out_features=out, use_bias=bias)
    square = Row.of(
        "linear", in_features=width, out_features=width, use_bias=bias
    )
    if kind == "linear":
        return Step("apply", (one,), function), out
    if kind == "norm":
        name = draw(st.sampled_from(("layer_norm", "rms_norm")))
        made = Row.of(name, shape=(width,), use_bias=bias)
        return Step("apply", (made,)), width
    if kind == "mlp":
        sizes = {"in_size": width, "out_size": out, "width_size": 5}
        made = Row.of(
            "mlp", depth=1, activation="gelu", use_bias=bias, **sizes
        )
        return Step("apply", (made,), function), out
    if kind == "lora":
        sizes = {"in_features": width, "out_features": out, "rank": 2}
        made = Row.of("lora_linear", use_bias=bias, **sizes)
        return Step("apply", (made,), function), out
    if kind == "sum":
        return Step(kind, (one, one), function), out
    if kind == "gate":  # has functions of its own
        return Step(kind, (one, one)), out
    if kind == "residual":
        return Step("residual", (square,), function), width
    count, stacked = draw(st.sampled_from((2, 3))), draw(st.booleans())
    return Step("repeat", (square,), function, count, stacked), width


@st.composite
def vectors(draw: Any) -> tuple[list[Step], Any]:
    """Draws an architecture that takes vectors."""
    width = first = draw(WIDTHS)
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        step, width = draw(features(width))
        steps.append(step)
    head = Row.of("linear", in_features=width, out_features=2)
    return [*steps, Step("apply", (head,))], (first,)


@st.composite
def sequences(draw: Any, tokens: bool) -> tuple[list[Step], Any]:
    """Draws an architecture that takes sequences of vectors or tokens."""
    width, steps = draw(WIDTHS), []
    shape: Any = (LENGTH, width)
    if tokens:
        made = Row.of("embedding", num_embeddings=VOCABULARY, features=width)
        steps.append(Step("apply", (made,)))
        shape = (LENGTH,)
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(("attend", "rnn", "features", "features")))
        if kind == "attend":
            made = Row.of(
                "grouped_query_attention",
                num_heads=4,
                num_kv_heads=draw(st.sampled_from((1, 2, 4))),
                query_size=width,
                kv_size=width,
                output_size=width,
                head_size=draw(st.sampled_from((2, 3))),
                use_bias=draw(st.booleans()),
                normalize_qk=draw(st.booleans()),
            )
            steps.append(Step("attend", (made,)))
        elif kind == "rnn":
            out = draw(WIDTHS)
            made = Row.of(
                "rnn",
                input_size=width,
                hidden_size=out,
                cell=draw(st.sampled_from(("lstm", "gru"))),
                return_carry=False,
            )
            steps.append(Step("apply", (made,)))
            width = out
        else:
            step, width = draw(features(width))
            steps.append(step)
    head = Row.of("linear", in_features=width, out_features=2)
    return [*steps, Step("mean"), Step("apply", (head,), "tanh")], shape


@st.composite
def images(draw: Any) -> tuple[list[Step], Any]:
    """Draws an architecture that takes images, channels last."""
    channels, size, steps = draw(st.sampled_from((1, 3))), SIZE, []
    shape = (SIZE, SIZE, channels)

    def conv(n_in, n_out, stride=1, groups=1):
        return Row.of(
            "conv",
            in_channels=n_in,
            out_channels=n_out,
            kernel_size=(3, 3),
            stride=stride,
            padding=1,
            dilation=1,
            groups=groups,
            use_bias=draw(st.booleans()),
        )

    for _ in range(draw(st.integers(1, 2))):
        out, stride = draw(st.sampled_from((2, 4))), draw(st.integers(1, 2))
        steps.append(
            Step("apply", (conv(channels, out, stride),), draw(SMOOTH))
        )
        channels, size = out, -(-size // stride)
        extra = draw(
            st.sampled_from(("batch", "group", "depthwise", "residual", ""))
        )
        if extra == "batch":
            made = Row.of("batch_norm", features=channels)
            steps.append(Step("apply", (made,)))
        elif extra == "group":
            made = Row.of("group_norm", groups=2, channels=channels)
            steps.append(Step("apply", (made,)))
        elif extra == "depthwise":
            made = conv(channels, channels, groups=channels)
            steps.append(Step("residual", (made,), "tanh"))
        elif extra == "residual":
            made = conv(channels, channels)
            steps.append(Step("residual", (made,), "silu"))
    if draw(st.booleans()):
        width = size * size * channels
        head = Row.of("linear", in_features=width, out_features=3)
        end = [Step("flatten", (head,), shape=(size, size, channels))]
    else:
        head = Row.of("linear", in_features=channels, out_features=3)
        end = [Step("mean"), Step("apply", (head,))]
    return [*steps, *end], shape


@st.composite
def places(draw: Any, slots: Sequence[Slot]) -> dict[Slot, Path]:
    """Draws where layers are kept, in an order of its own."""
    names = iter(draw(st.permutations(NAMES)) + [f"x{i}" for i in range(99)])
    kinds = ("attribute", "list", "dict")
    shared = {kind: next(names) for kind in kinds}
    made: dict[Slot, Path] = {}
    length = 0
    for slot in draw(st.permutations(slots)):
        kind = draw(st.sampled_from(kinds))
        if kind == "attribute":
            made[slot] = (next(names),)
        elif kind == "list":
            made[slot] = (shared[kind], length)
            length += 1
        else:
            made[slot] = (shared[kind], next(names))
    return made


@st.composite
def programs(draw: Any) -> tuple[list[Step], Any, bool]:
    """Draws the steps, and the shape and kind of the inputs."""
    kind = draw(st.sampled_from(("vectors", "sequences", "tokens", "images")))
    if kind == "vectors":
        return *draw(vectors()), False
    if kind == "images":
        return *draw(images()), False
    return *draw(sequences(kind == "tokens")), kind == "tokens"


@st.composite
def architectures(draw: Any) -> Pair:
    """Draws a pair of the same architecture, with the true mapping."""
    return draw(_pairs(broken=False))


@st.composite
def broken_architectures(draw: Any) -> Pair:
    """Draws a pair whose right model computes something else.

    The mapping is that of the pair without the fault.
    """
    return draw(_pairs(broken=True))


@st.composite
def _pairs(draw: Any, broken: bool) -> Pair:
    steps, shape, tokens = draw(programs())
    old = draw(places([slot for slot, _ in left_slots(steps)]))
    new = draw(places([slot for slot, _ in right_slots(steps)]))
    other = list(steps)
    if broken:
        faults = [
            (i, fault)
            for i, step in enumerate(steps)
            for fault in step.faults()
        ] or [(-1, Step("apply", steps[-1].rows, "tanh", shape=()))]
        i, fault = draw(st.sampled_from(faults))
        if steps[i].kind == "flatten" and i == -1:
            fault = Step("flatten", fault.rows, "tanh", shape=steps[i].shape)
        other[i] = fault

    def inputs():
        rng = np.random.default_rng(0)
        if tokens:
            return jnp.asarray(rng.integers(0, VOCABULARY, (BATCH, *shape)))
        return jnp.asarray(rng.normal(size=(BATCH, *shape)))

    return Pair(
        name="; ".join(map(str, other)) + f" | {old} | {new}",
        module=__name__,
        left=functools.partial(make_left, steps, old),
        right=lambda: Net(other, new, rngs=nnx.Rngs(1)),
        inputs=inputs,
        truth=lambda take: mapping(take, steps, old, new),
        faults=(),
        left_call=left_call(steps, old),
    )


def mapping(
    take: Sources,
    steps: Sequence[Step],
    old: Mapping[Slot, Path],
    new: Mapping[Slot, Path],
) -> dict[str, Layout]:
    """Returns the true layouts of an architecture."""
    made = {}
    for (i, j), layer in right_slots(steps):
        step = steps[i]
        source = ".".join(map(str, old[i, 0 if step.stacked else j]))
        target = ".".join(map(str, new[i, j]))
        for name, layout in row_layouts(layer).items():
            parts = {}
            for part in layout.sources:
                x = take(f"{source}.{part.name}")
                if step.stacked:
                    x = x.then(Index(0, j))
                if step.kind == "flatten" and part.name == "weight":
                    h, w, c = step.shape
                    x = x.then(
                        Reshape((x.shape[0], c, h, w)),
                        Transpose((0, 2, 3, 1)),
                        Reshape(x.shape),
                    )
                parts[part.name] = x
            made[f"{target}.{name}"] = layout.substitute(parts)
    return made


@functools.cache
def row_layouts(layer: Row) -> dict[str, Layout]:
    """Returns the layouts between both libraries' layers of a row."""
    options = layer.options()
    make = eqx.nn.make_with_state(EQUINOX[layer.name].make)
    left = NativeModel(
        make(**options, key=jr.key(0))
        if layer.name == "batch_norm"
        else left_layer(layer, 0)
    )
    right = NativeModel(right_layer(layer, 0, nnx.Rngs(0)))
    by_path = {
        info.path: Layout.of(name, info.value.shape)
        for name, info in left.infos.items()
    }
    first = {
        name: layout.substitute(by_path)
        for name, layout in left.layouts.canonical.items()
    }
    dotted = {info.path: name for name, info in right.infos.items()}
    second = {
        dotted[path]: layout
        for path, layout in right.layouts.native.items()
        if all(source.name in first for source in layout.sources)
    }
    return compose(first, second)
