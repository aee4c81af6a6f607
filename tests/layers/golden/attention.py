"""Attention and rotary positional embedding in NumPy.

Vaswani et al., arXiv:1706.03762; Ainslie et al., arXiv:2305.13245 (query
heads that share a key); Su et al., arXiv:2104.09864 (rotary embedding).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.layers.golden.case import Case
from tests.layers.golden.linear import linear, matrix, of


def softmax(x):
    """exp(x) / sum(exp(x)) along the last axis."""
    e = np.exp(x - np.max(x.real, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def attend(query, key, value, mask=None):
    """softmax(q k / sqrt(d)) v, for (B, T, H, D) and (B, S, G, D).

    Query head h uses the key and value head h // (H / G). Keys that the mask
    (B, H, T, S) excludes have weight 0, but if it excludes all keys of a
    query, their weights are equal.
    """
    batch, length, heads, size = query.shape
    shared = heads // key.shape[2]
    kind = np.result_type(query, key, value)
    out = np.zeros((batch, length, heads, value.shape[-1]), kind)
    for b, t, h in np.ndindex(batch, length, heads):
        q, g = query[b, t, h], h // shared
        scores = np.sum(key[b, :, g] * q, axis=-1) / np.sqrt(size)
        if mask is not None and not mask[b, h, t].any():
            scores = np.zeros_like(scores)
        elif mask is not None:
            scores = np.where(mask[b, h, t], scores, -np.inf)
        out[b, t, h] = np.sum(
            softmax(scores)[:, None] * value[b, :, g], axis=0
        )
    return out


def rotary(x, theta):
    """Rotates (x_i, x_{i + d/2}) at position t by t theta^(-2i/d).

    Positions are the second axis, and features the last one.
    """
    length, size = x.shape[1], x.shape[-1]
    half = size // 2
    y = np.zeros_like(x)
    for t in range(length):
        for i in range(half):
            angle = t * theta ** (-2 * i / size)
            a, b = x[:, t, ..., i], x[:, t, ..., i + half]
            y[:, t, ..., i] = a * np.cos(angle) - b * np.sin(angle)
            y[:, t, ..., i + half] = b * np.cos(angle) + a * np.sin(angle)
    return y


def normalized(x, weight):
    """LayerNorm over the features of a head, without bias."""
    mean = np.mean(x, axis=-1, keepdims=True)
    var = np.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * weight


def multi_head_attention(
    query,
    key,
    value,
    mask=None,
    *,
    num_heads,
    num_kv_heads=None,
    theta=None,
    **arrays,
):
    """Projects, attends in each head, and projects the concatenated heads."""
    shared = num_heads if num_kv_heads is None else num_kv_heads

    def project(x, name, heads):
        y = linear(x, **of(f"{name}_proj", arrays))
        y = y.reshape(*y.shape[:-1], heads, -1)
        if f"{name}_norm.weight" in arrays:
            y = normalized(y, arrays[f"{name}_norm.weight"])
        if theta is not None and name != "value":
            y = rotary(y, theta)
        return y

    if not isinstance(mask, np.ndarray):
        mask = None
    elif mask.ndim == 3:
        mask = np.repeat(mask[:, None], num_heads, axis=1)
    out = attend(
        project(query, "query", num_heads),
        project(key, "key", shared),
        project(value, "value", shared),
        mask,
    )
    out = out.reshape(*out.shape[:-2], -1)
    return linear(out, **of("output_proj", arrays))


# --- cases -------------------------------------------------------------------

MASKS = {
    "shared": [[[1, 0, 1], [0, 1, 1]], [[1, 1, 1], [0, 0, 1]]],
    "blank": [[[0, 0, 0], [0, 1, 1]], [[0, 0, 0], [1, 0, 1]]],
    "heads": [
        [[[1, 0, 1], [0, 1, 1]], [[1, 1, 0], [1, 0, 0]]],
        [[[0, 1, 1], [1, 1, 1]], [[0, 1, 0], [1, 0, 1]]],
    ],
    "causal": [[[1, 0, 0], [1, 1, 0]]] * 2,
}


def projections(query, key, value, output, qk, vo, heads, shared, biases):
    """The shapes of the arrays of the four projections."""
    shapes: dict[str, Any] = {}
    for name, i, o, bias in (
        ("query", query, heads * qk, biases[0]),
        ("key", key, shared * qk, biases[1]),
        ("value", value, shared * vo, biases[2]),
        ("output", heads * vo, output, biases[3]),
    ):
        shapes |= matrix(i, o, bias, f"{name}_proj.")
    return shapes


def one(layer, mask, sizes, params, **fields) -> Case:
    """Returns a case of two queries and three keys, with a call per mask."""
    masks = [np.array(MASKS[kind], bool) for kind in mask if kind != "none"]
    return Case(
        layer=layer,
        fields={**fields, "q_len": 2, "kv_len": 3, "mask": mask[0]},
        define=lambda *inputs, mask, **rest: multi_head_attention(
            *inputs, **rest
        ),
        inputs=(
            *zip((2, 3, 3), sizes, strict=True),
            *([masks] if masks else []),
        ),
        params=params,
        calls=(False,) * len(mask),
    )


def _attention() -> Iterator[Case]:
    for mask, bias in (
        (("shared", "causal", "blank"), False),
        (("heads",), True),
    ):
        yield one(
            "multihead_attention",
            mask,
            (2, 3, 3),
            projections(2, 3, 3, 2, 2, 2, 2, 2, (bias,) * 4),
            num_heads=2,
            query_size=2,
            kv_size=3,
            output_size=2,
            head_size=2,
            use_bias=bias,
        )
    biases = (True, False, True, False)
    yield one(
        "unequal_attention",
        ("shared",),
        (2, 3, 1),
        projections(2, 3, 1, 3, 2, 1, 2, 2, biases),
        num_heads=2,
        query_size=2,
        key_size=3,
        value_size=1,
        output_size=3,
        qk_size=2,
        vo_size=1,
        use_query_bias=True,
        use_key_bias=False,
        use_value_bias=True,
        use_output_bias=False,
    )
    for mask, shared, norm in ((("causal",), 2, False), (("none",), 1, True)):
        size = 3 if norm else 1
        norms = {f"{name}_norm.weight": (size,) for name in ("query", "key")}
        yield one(
            "grouped_query_attention",
            mask,
            (2, 3, 3),
            projections(2, 3, 3, 2, size, size, 4, shared, (norm,) * 4)
            | (norms if norm else {}),
            num_heads=4,
            num_kv_heads=shared,
            query_size=2,
            kv_size=3,
            output_size=2,
            head_size=size,
            use_bias=norm,
            normalize_qk=norm,
        )
    yield one(
        "rotary_attention",
        ("causal",),
        (2, 2, 2),
        projections(2, 2, 2, 2, 4, 4, 2, 1, (False,) * 4),
        num_heads=2,
        num_kv_heads=1,
        size=2,
        head_size=4,
        theta=100.0,
    )


def _positions() -> Iterator[Case]:
    for theta, size in ((10000.0, (3,)), (50.0, (3, 2))):
        yield Case(
            layer="rotary_positional_embedding",
            fields={"embedding_size": 4, "theta": theta, "size": size},
            define=lambda x, theta, **_: rotary(x, theta),
            inputs=((*size, 4),),
        )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _attention()
    yield from _positions()
