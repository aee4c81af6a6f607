"""Which arrays of the left model make which arrays of the right one."""

import dataclasses
from collections.abc import Mapping as Mapped
from typing import Any

import jax.numpy as jnp

from common.alignment import AlignmentError, align
from common.layouts import Layout, Role, simplify
from common.layouts.composition import compose
from common.native import Call, NativeModel
from common.porting import Plan, plan_port
from common.porting.arithmetic import Divide
from common.porting.batch_norm import convert, require_choice, warming
from common.porting.endpoints import Native
from common.porting.planning import norm_pairs
from common.porting.sides import Side

Models = tuple[NativeModel, NativeModel]


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A mapping between the arrays of two models.

    Attributes:
        layouts: by the dotted name of an array of the right model, the layout
            that makes it from arrays of the left model.
        origin: how the mapping was found.
        notes: what else is known of it.
        left_out: the quantities that differ by design, which are not
            compared.
        derived: the values of arrays of the right model, such as counters of
            batch norms, with which it continues from the left's arrays.
    """

    layouts: dict[str, Layout]
    origin: str
    notes: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    derived: Mapped[str, Any] = dataclasses.field(default_factory=dict)

    def sources(self, name: str) -> tuple[str, ...]:
        """Returns the left arrays that an array of the right is made of."""
        return tuple(x.name for x in self.layouts[name].sources)

    def targets(self, name: str) -> tuple[str, ...]:
        """Returns the right arrays that an array of the left is part of."""
        return tuple(x for x in self.layouts if name in self.sources(x))

    def trained(self, left: NativeModel, right: NativeModel) -> list[str]:
        """Returns the left arrays that both models train."""
        return [
            name
            for name, info in left.infos.items()
            if is_parameter(info)
            and self.targets(name)
            and all(is_parameter(right.infos[n]) for n in self.targets(name))
        ]

    def divides(self, name: str) -> bool:
        """Tells statistics that are carried over for inference only."""
        return any(isinstance(x, Divide) for x in self.layouts[name].steps)

    def label_left(self, name: str) -> str:
        """Names an array of the left, and where it is in the right."""
        return _label((name,), self.targets(name))

    def label_right(self, name: str) -> str:
        """Names an array of the right, and what it is made of."""
        return _label(self.sources(name), (name,))


def is_parameter(info: Any) -> bool:
    """Tells arrays that are trained from others."""
    floating = jnp.issubdtype(info.value.dtype, jnp.floating)
    return info.role is Role.PARAMETER and floating


def _label(left: tuple[str, ...], right: tuple[str, ...]) -> str:
    if left == right:
        return left[0]
    return " ~ ".join(", ".join(names) for names in (left, right) if names)


def by_canonical_name(left: NativeModel, right: NativeModel) -> Mapping:
    """Matches the arrays of two models by equal canonical names.

    Raises:
        ValueError: naming the arrays that only one of the models has.
    """
    roles = Role.PARAMETER, Role.BUFFER
    ours, theirs = (
        {n: x.layouts.shapes[n] for n in x.layouts.names(*roles)}
        for x in (left, right)
    )
    if ours != theirs:
        only = [
            sorted(f"{name} {shape}" for name, shape in a.items() - b.items())
            for a, b in ((ours, theirs), (theirs, ours))
        ]
        raise ValueError(
            f"rules: got the arrays {only[0]} of the left and {only[1]} of "
            "the right, expected equal names and shapes. Pass `rules`: a "
            "plan, an alignment, or text."
        )
    paths = {info.path: name for name, info in left.infos.items()}
    dotted = {
        path: Layout.of(paths[path], info.value.shape)
        for info in left.infos.values()
        for path in (info.path,)
    }
    carried = compose(left.layouts.canonical, right.layouts.native)
    layouts = {
        info.dotted: simplify(carried[info.path].substitute(dotted))
        for info in right.infos.values()
        if info.role in roles
    }
    return Mapping(
        layouts, "equal names, also where no layer type settles the axis order"
    )


def mapping_of(
    natives: tuple[Any, Any],
    calls: tuple[Call | None, Call | None],
    inputs: tuple[Any, Any],
    rules: Any = None,
    batch_norm: str | None = None,
) -> Mapping:
    """Finds the mapping between the arrays of two models.

    Without rules, equal names are matched. If names do not say it, both
    models are run to find the mapping.

    Args:
        natives: the left and the right model.
        calls: how to call them, or `None`.
        inputs: the batch of inputs of each.
        rules: a plan, an alignment, layouts by name, or rules as text.
        batch_norm: as for `port`.

    Raises:
        ValueError: if the arrays do not match.
    """
    require_choice(batch_norm)
    if isinstance(rules, dict) and all(
        isinstance(x, Layout) for x in rules.values()
    ):
        if batch_norm is not None:
            raise ValueError(
                f"batch_norm: got {batch_norm!r} and layouts, expected a plan "
                "or rules as text with it. Leave it out, or pass rules."
            )
        found = Mapping(rules, "the given layouts")
        return _with_derived(found, natives, _sides(natives))
    found = _find(natives, calls, inputs, rules, batch_norm)
    # A plan says by its layouts what its statistics are for.
    resumes = batch_norm == "resume" or isinstance(rules, Plan)
    sides = _sides(natives)
    found = _with_derived(found, natives, sides)
    return _without_inference(found, natives, sides, resumes)


def _find(
    natives: tuple[Any, Any],
    calls: tuple[Call | None, Call | None],
    inputs: tuple[Any, Any],
    rules: Any,
    batch_norm: str | None,
) -> Mapping:
    if rules is not None:
        layouts = getattr(rules, "layouts", None)
        if layouts is None or batch_norm is not None:
            layouts = plan_port(
                *natives, rules=rules, batch_norm=batch_norm
            ).layouts
        return Mapping(dict(layouts), "the given rules")
    try:
        plan = plan_port(*natives, batch_norm=batch_norm)
        return Mapping(dict(plan.layouts), "equal names", plan.notes)
    except ValueError:
        pass
    try:
        found = align(
            *natives,
            left_inputs=inputs[0],
            right_inputs=inputs[1],
            left_call=calls[0],
            right_call=calls[1],
            progress=False,
        )
    except AlignmentError as error:
        # The report says more about two models whose names are all equal.
        try:
            return by_canonical_name(*map(NativeModel, natives))
        except ValueError:
            raise error from None
    layouts = found.layouts
    if batch_norm is not None:
        layouts = plan_port(
            *natives, rules=found, batch_norm=batch_norm
        ).layouts
    return Mapping(dict(layouts), f"`align`, {found.status}")


def _sides(natives: tuple[Any, Any]) -> tuple[Side, Side]:
    left, right = (Native.of(x).side("source") for x in natives)
    return left, right


def _with_derived(
    found: Mapping, natives: tuple[Any, Any], sides: tuple[Side, Side]
) -> Mapping:
    """Adds the values that `port` gives to arrays without a source."""
    source, target = sides
    pairs = norm_pairs(found.layouts, source, target)
    if not pairs:
        return found
    arrays = NativeModel(natives[0]).arrays()
    derived = convert(source, target, arrays, pairs, "serve").derived
    derived = {n: x for n, x in derived.items() if n not in found.layouts}
    return dataclasses.replace(found, derived=derived)


def _without_inference(
    found: Mapping,
    natives: tuple[Any, Any],
    sides: tuple[Side, Side],
    resumes: bool,
) -> Mapping:
    """Leaves out what differs by design between dialects of batch norm.

    Args:
        found: the mapping.
        natives: both models.
        sides: what is known of their arrays.
        resumes: whether statistics that are copied are there for training.
    """
    source, target = sides
    factors = warming(
        source,
        target,
        NativeModel(natives[0]).arrays(),
        norm_pairs(found.layouts, source, target),
    )
    if not factors:
        return found
    served = [n for n in found.layouts if found.divides(n)]
    is_fresh = not any(factors.values())
    why = (
        "the batch norms of the left divide their statistics by "
        "`1 - momentum**counter`, and those of the right do not"
    )
    if not (is_fresh or resumes or served):
        note = f"{why}: pass `batch_norm`, as to `port`"
        return dataclasses.replace(found, notes=(*found.notes, note))
    left_out, what = {"eval"}, "outputs in inference mode after training"
    if served:
        what += f", and the updates of {', '.join(served)}"
        why += ", and `batch_norm='serve'` is for inference before training"
    elif not is_fresh:
        left_out, what = {"forward", "eval"}, "outputs in inference mode"
        why += ", and `batch_norm='resume'` is for training"
    note = f"left out: {what}, because {why}"
    return dataclasses.replace(
        found, notes=(*found.notes, note), left_out=frozenset(left_out)
    )
