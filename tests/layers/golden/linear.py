"""Linear maps, compositions of them, and embeddings in NumPy.

PyTorch: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear and
    torch.nn.Embedding; Hu et al., arXiv:2106.09685 (LoRA).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.layers.golden.case import Case


def linear(x, weight, bias=None, **_):
    """y_o = sum_i weight_oi x_i + bias_o."""
    y = np.zeros((*x.shape[:-1], len(weight)), np.result_type(x, weight))
    for o, row in enumerate(weight):
        y[..., o] = np.sum(x * row, axis=-1)
    return y if bias is None else y + bias


def scalars(layer, x, before, after):
    """Applies a layer of vectors; a `"scalar"` is a vector of one element."""
    y = layer(x[..., None] if before == "scalar" else x)
    return y[..., 0] if after == "scalar" else y


def linear_of_scalars(x, *, in_features, out_features, use_bias, **arrays):
    """A linear map whose input or output may be a scalar."""
    return scalars(lambda x: linear(x, **arrays), x, in_features, out_features)


def of(name, arrays):
    """Selects the arrays with a prefix."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): x
        for key, x in arrays.items()
        if key.startswith(prefix)
    }


def sequential(x, *, sizes, use_bias, **arrays):
    """Linear maps with tanh between them; each is one layer."""
    for i in range(len(sizes) - 1):
        x = np.tanh(x) if i else x
        x = linear(x, **of(f"layers.{2 * i}", arrays))
    return x


def relu(x):
    """max(x, 0), by the real part."""
    return np.where(x.real > 0, x, 0)


FUNCTIONS = {"relu": relu, "tanh": np.tanh, "identity": lambda x: x}


def mlp(
    x, *, in_size, out_size, depth, activation, final_activation, **arrays
):
    """Linear maps with an activation after each, as in Equinox's MLP."""

    def layers(x):
        for i in range(depth + 1):
            x = linear(x, **of(f"layers.{i}", arrays))
            last = final_activation if depth else "identity"
            x = FUNCTIONS[last if i == depth else activation](x)
        return x

    return scalars(layers, x, in_size, out_size)


def linear_general(
    x, weight, bias=None, *, in_features, out_features, axis, groups, **_
):
    """Flattens the mapped axes, applies a matrix, and puts new axes last."""
    lead = 1 + len(groups)
    results = []
    for index in np.ndindex(x.shape[:lead]):
        group = index[1:]
        one = np.moveaxis(x[index], axis, range(-len(axis), 0))
        rest = one.shape[: one.ndim - len(axis)]
        y = linear(
            one.reshape(*rest, -1),
            weight[group],
            None if bias is None else bias[group],
        )
        results.append(y.reshape(*rest, *out_features))
    return np.stack(results).reshape(*x.shape[:lead], *results[0].shape)


def einsum(x, weight, bias=None, *, equation, **_):
    """An einsum, plus a bias along the axes of the weight."""
    y = np.einsum(equation, x, weight)
    if bias is None:
        return y
    operands, result = equation.split("->")
    letters = operands.split(",")[1]
    sizes = dict(zip(letters, weight.shape, strict=True))
    return y + bias.reshape(
        [sizes.get(axis, 1) for axis in result.replace("...", "")]
    )


def lora(x, lora_a, lora_b, **arrays):
    """x a b, added to a linear map of x if there is one."""
    y = linear(linear(x, lora_a.T), lora_b.T)
    base = of("base_module", arrays)
    return y + linear(x, **base) if base else y


def lora_linear(x, weight, bias=None, **arrays):
    """A linear map plus x a b."""
    return linear(x, weight, bias) + lora(x, **of("lora", arrays))


def embedding(indices, weight, **_):
    """Row `i` of the weight for index `i`; row -1 is the last."""
    rows = [weight[i] for i in indices.reshape(-1)]
    return np.stack(rows).reshape(*indices.shape, weight.shape[1])


def embedding_attend(query, weight, **_):
    """The inner products of a query with every row."""
    return linear(query, weight)


# --- cases -------------------------------------------------------------------


def matrix(i: int, o: int, bias: bool = True, prefix: str = ""):
    """The shapes of the arrays of a linear map."""
    shapes: dict[str, Any] = {f"{prefix}weight": (o, i)}
    return shapes | ({f"{prefix}bias": (o,)} if bias else {})


def _linear() -> Iterator[Case]:
    for i, o, shape, params in (
        (4, 3, (4,), matrix(4, 3)),
        (4, 3, (4,), matrix(4, 3, False)),
        ("scalar", "scalar", (), matrix(1, 1)),
    ):
        bias = "bias" in params
        yield Case(
            layer="linear",
            fields={"in_features": i, "out_features": o, "use_bias": bias},
            define=linear_of_scalars,
            inputs=(shape,),
            params=params,
        )


def _stacks() -> Iterator[Case]:
    yield Case(
        layer="identity",
        fields={"size": (3,)},
        define=lambda x, size: x,
        inputs=((3,),),
    )
    for function, define in (("tanh", np.tanh), ("square", np.square)):
        yield Case(
            layer="function",
            fields={"function": function, "size": (3,)},
            define=lambda x, define=define, **_: define(x),
            inputs=((3,),),
        )
    for bias in (True, False):
        yield Case(
            layer="sequential",
            fields={"sizes": (2, 4, 3), "use_bias": bias},
            define=sequential,
            inputs=((2,),),
            params={
                **matrix(2, 4, bias, "layers.0."),
                **matrix(4, 3, bias, "layers.2."),
            },
        )
    for depth, scan, out in (
        (2, False, 3),
        (3, True, "scalar"),
        (0, False, 3),
    ):
        sizes = [2, *(4,) * depth, 1 if out == "scalar" else out]
        params = {}
        for i in range(depth + 1):
            params |= matrix(sizes[i], sizes[i + 1], prefix=f"layers.{i}.")
        yield Case(
            layer="mlp",
            fields={
                "in_size": 2,
                "out_size": out,
                "width_size": 4,
                "depth": depth,
                "activation": "tanh" if scan else "relu",
                "final_activation": "tanh",
                "use_bias": True,
                "use_final_bias": True,
                "scan": scan,
            },
            define=mlp,
            inputs=((2,),),
            params=params,
        )


def _general() -> Iterator[Case]:
    for axis, inputs, new, groups, shape in (
        ((-2, -1), (2, 3), (2, 2), (), (2, 2, 3)),
        ((-3, -1), (2, 3), (4,), (2,), (2, 2, 2, 3)),
    ):
        o, i = int(np.prod(new)), int(np.prod(inputs))
        yield Case(
            layer="linear_general",
            fields={
                "in_features": inputs,
                "out_features": new,
                "axis": axis,
                "groups": groups,
                "use_bias": True,
                "rest": (2,),
            },
            define=linear_general,
            inputs=(shape,),
            params={"weight": (*groups, o, i), "bias": (*groups, o)},
        )
    for equation, shape, bias, size in (
        ("...ta,hab->...thb", (3, 2, 2), (3, 2), (2, 2)),
        ("...i,io->...o", (3, 2), None, (3,)),
    ):
        yield Case(
            layer="einsum",
            fields={
                "equation": equation,
                "shape": shape,
                "bias_shape": bias,
                "size": size,
            },
            define=einsum,
            inputs=(size,),
            params={"weight": shape} | ({"bias": bias} if bias else {}),
        )


def _lora() -> Iterator[Case]:
    update = {"lora_a": (4, 2), "lora_b": (2, 3)}
    for has_base in (True, False):
        base = matrix(4, 3, True, "base_module.") if has_base else {}
        yield Case(
            layer="lora",
            fields={
                "in_features": 4,
                "rank": 2,
                "out_features": 3,
                "has_base": has_base,
            },
            define=lora,
            inputs=((4,),),
            params=update
            | (matrix(4, 3, True, "base_module.") if base else {}),
        )
    yield Case(
        layer="lora_linear",
        fields={
            "in_features": 4,
            "out_features": 3,
            "rank": 2,
            "use_bias": True,
        },
        define=lora_linear,
        inputs=((4,),),
        params={
            **matrix(4, 3),
            **{f"lora.{name}": shape for name, shape in update.items()},
        },
    )


def _embedding() -> Iterator[Case]:
    fields = {"num_embeddings": 4, "features": 3}
    yield Case(
        layer="embedding",
        fields={**fields, "size": (3,)},
        define=embedding,
        inputs=(np.array([[0, 2, 2], [3, -1, 1]]),),
        params={"weight": (4, 3)},
    )
    yield Case(
        layer="embedding_attend",
        fields={**fields, "size": (2,)},
        define=embedding_attend,
        inputs=((2, 3),),
        params={"weight": (4, 3)},
    )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _linear()
    yield from _stacks()
    yield from _general()
    yield from _lora()
    yield from _embedding()
