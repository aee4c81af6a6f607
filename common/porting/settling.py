"""Which axis order two arrays have, as far as their layers settle that."""

from collections.abc import Sequence

from common.layouts import Layout, Shape, compose
from common.porting.sides import Side


def settle(source: Side, left: str, target: Side, right: str) -> Layout:
    """Returns the layout between two arrays that layer types settle.

    Raises:
        ValueError: if they do not.
    """
    shape, wanted = source.infos[left].shape, target.infos[right].shape
    both = left in source.settled and right in target.settled
    ours, theirs = _whole(source, left), _whole(target, right)
    if both and ours and theirs:
        layout = compose(
            {theirs: source.canonical[ours]}, {right: target.native[right]}
        )[right]
        if source.canonical[ours].shape == target.canonical[theirs].shape:
            return layout
    if shape == wanted:
        sizes = [size for size in shape if size > 1]
        same_type = type(source.layers.get(left)) is type(
            target.layers.get(right)
        )
        alike = same_type and left in source.layers
        if alike or (len(set(sizes)) == len(sizes) and not both):
            return Layout.of(left, shape)
        if both and len(shape) < 2:
            return Layout.of(left, shape)
        raise ValueError(
            f"{left} {shape} -> {right} {wanted}: got an axis order that no "
            "layer type settles, expected a rule with the order. Write "
            f"`{left} -> transpose -> {right}`, or `copy` in place of "
            "`transpose`, or teach the layer with `register_layer`."
        )
    raise ValueError(
        f"{left} -> {right}: got the shapes {shape} and {wanted}, expected "
        "equal ones. Add the steps that lead from one to the other, such as "
        "`transpose`."
    )


def unsettled(
    source: Side,
    lefts: Sequence[str],
    target: Side,
    rights: Sequence[str],
    shape: Shape,
    has_steps: bool = False,
) -> str | None:
    """Tells why layer types do not settle the axis order, if they do not.

    Args:
        source: one side.
        lefts: names of the source arrays that hold a canonical array.
        target: the other side.
        rights: names of the target arrays that hold it.
        shape: of the canonical array.
        has_steps: whether a rule has steps for it.
    """
    settled = (
        all(name in source.settled for name in lefts),
        all(name in target.settled for name in rights),
    )
    if all(settled) or len(shape) < 2:
        return None
    shown = f"{lefts[0]} -> {rights[0]}"
    if any(settled):
        bare = (rights if settled[0] else lefts)[0]
        return (
            f"{shown} {shape}: got a layer's weight on one side, and "
            f"{bare!r}, an array of which no layer type settles the axis "
            f"order, on the other, expected a rule. Write `{shown}` with "
            "`-> transpose` or `-> copy` in between, or teach the layer with "
            "`register_layer`"
        )
    if has_steps:
        return None
    try:
        settle(source, lefts[0], target, rights[0])
    except ValueError as error:
        return str(error).rstrip(".")
    return None


def _whole(side: Side, name: str) -> str | None:
    """Returns the canonical name of an array that is not cut or joined."""
    sources = side.native[name].sources if name in side.native else ()
    if len(sources) != 1:
        return None
    (canonical,) = sources
    made_of = side.canonical[canonical.name].sources
    return canonical.name if len(made_of) == 1 else None
