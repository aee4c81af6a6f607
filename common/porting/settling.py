"""Which axis order two arrays have, as far as their layers settle that."""

from common.layouts import Layout, compose
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


def _whole(side: Side, name: str) -> str | None:
    """Returns the canonical name of an array that is not cut or joined."""
    sources = side.native[name].sources if name in side.native else ()
    if len(sources) != 1:
        return None
    (canonical,) = sources
    made_of = side.canonical[canonical.name].sources
    return canonical.name if len(made_of) == 1 else None
