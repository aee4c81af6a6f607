"""What the running statistics of one batch norm become in another.

There are four dialects, of which `common.layers.batch_norm` has the
definitions. All of them store a mean and a variance for each channel, and
`"batch"` and `"ema"` also store whether, or how often, they were updated.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from common.layouts import Layout
from common.porting.arithmetic import Divide
from common.porting.sides import Side
from common.registry import find_porting

COUNTER, FIRST = "num_batches_tracked", "first_time"
MANY = 2**30
"""A number of updates after which `1 - momentum**counter` is 1."""
CHOICES = (None, "resume", "serve")


@dataclasses.dataclass
class Conversion:
    """How the batch norms of a source become those of a target.

    Attributes:
        divide: numbers by which canonical arrays of the target are divided.
        derived: the values of target arrays, by their own names.
        dropped: names of source arrays that are not needed.
        notes: what was done.
        problems: why it cannot be done.
    """

    divide: dict[str, float] = dataclasses.field(default_factory=dict)
    derived: dict[str, Any] = dataclasses.field(default_factory=dict)
    dropped: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


def norms(side: Side) -> dict[str, tuple[str, float]]:
    """Returns the dialect and momentum of each batch norm, by its name."""
    found = {}
    for name, layout in side.canonical.items():
        if not name.endswith(".running_var") and name != "running_var":
            continue
        layer = side.layers.get(layout.sources[0].name)
        known = None
        if layer is not None and side.library is not None:
            known = find_porting(side.library).batch_norm(layer)
        if known is not None:
            found[name.removesuffix("running_var")] = known
    return found


def extras(side: Side) -> dict[str, str]:
    """Returns the names of the counters of batch norms.

    Returns:
        Names of the side's arrays, by canonical name.
    """
    known = norms(side)
    found = {}
    for name, layout in side.canonical.items():
        prefix = name[: name.rfind(".") + 1]
        has_sibling = prefix + "running_var" in side.canonical
        is_norm = prefix in known or (side.library is None and has_sibling)
        if is_norm and name[len(prefix) :] in (COUNTER, FIRST):
            found[name] = layout.sources[0].name
    return found


def convert(
    source: Side,
    target: Side,
    arrays: Mapping[str, Any],
    pairs: Mapping[str, str],
    choice: str | None,
    is_state: bool = False,
    served: Collection[str] = (),
) -> Conversion:
    """Decides how the running statistics are carried over.

    Args:
        source: one side.
        target: the other side.
        arrays: of the source, by name.
        pairs: the prefix of each batch norm's canonical names in the source,
            by that in the target.
        choice: `"resume"`, `"serve"` or `None`.
        is_state: whether the source is a State, whose counters count.
        served: the prefixes of the target's batch norms for which the rules
            say that inference is to be identical.

    Raises:
        ValueError: if there is no such choice.
    """
    require_choice(choice)
    found = Conversion()
    ours, theirs = norms(source), norms(target)
    for right, left in pairs.items():
        to = theirs.get(right)
        # In a file of PyTorch, the counter has no effect on the statistics.
        have = ours.get(left, ("torch", 0.0))
        if to is None or (left not in ours and source.library is not None):
            continue
        if is_state and _convert_state(source, target, left, right, found):
            continue
        own = choice or ("serve" if right in served else None)
        _convert_one(
            source, target, arrays, (left, right), (have, to), own, found
        )
    return found


def undivided(
    layouts: Mapping[str, Layout],
    pairs: Mapping[str, str],
    source: Side,
    target: Side,
) -> tuple[dict[str, Layout], set[str]]:
    """Takes the divisions by factors of batch norms out of layouts.

    The rules of a plan hold the factor that the source had when the plan was
    made. The division that inference needs now is added by `convert`.

    Args:
        layouts: of target arrays over source arrays.
        pairs: as for `convert`.
        source: one side.
        target: the other side.

    Returns:
        The layouts without the divisions, and the prefixes of the target's
        batch norms that had some.
    """
    ours, theirs = norms(source), norms(target)
    made, served = dict(layouts), set()
    for right, left in pairs.items():
        dialects = ours.get(left, ("", 0.0))[0], theirs[right][0]
        # Only a counter of one of them makes a factor.
        if not all(dialects) or (dialects[0] == "batch") == (
            dialects[1] == "batch"
        ):
            continue
        for word in ("running_mean", "running_var"):
            layout = target.canonical.get(right + word)
            name = "" if layout is None else layout.sources[0].name
            if name not in made:
                continue
            steps = made[name].steps
            rest = tuple(x for x in steps if not isinstance(x, Divide))
            if len(rest) < len(steps):
                made[name] = dataclasses.replace(made[name], steps=rest)
                served.add(right)
    return made, served


def _convert_one(
    source: Side,
    target: Side,
    arrays: Mapping[str, Any],
    names: tuple[str, str],
    kinds: tuple[tuple[str, float], tuple[str, float]],
    choice: str | None,
    found: Conversion,
) -> None:
    """Decides for one batch norm."""
    left, right = names
    (dialect, momentum), (wanted, _) = have, _ = kinds
    shown = f"`{right.rstrip('.') or 'model'}`"
    if dialect == wanted and have[1]:
        return
    factor = 1.0
    if dialect == "batch":
        factor = _factor(source, arrays, left, momentum)
    if dialect == "ema" and _value(source, arrays, left + FIRST):
        found.problems.append(
            f"batch norm {shown}: got statistics that were never updated, "
            "expected some. Train the source for a step, or ignore and keep "
            "its statistics"
        )
        return
    if factor == 0:
        # The source divides by 1 until its first step of training.
        factor = 1.0
        found.notes.append(
            f"batch norm {shown}: the source was never trained; inference "
            "and training are those of its initial statistics, but after a "
            "step of training inference differs"
        )
    why = _why_not_resume(dialect, wanted)
    if why and choice == "resume" and have[1]:
        found.problems.append(
            f"batch norm {shown}: got batch_norm='resume', expected 'serve', "
            f"because {why}. Pass batch_norm='serve', or construct the target "
            f"with the dialect {dialect!r}"
        )
        return
    if choice is None and have[1] and (why or factor != 1):
        options = "batch_norm='serve' for equal inference"
        if not why:
            options += ", or 'resume' to continue training identically"
            why = (
                "inference of the source divides its statistics by "
                f"{factor:.6g}, and that of the target does not"
            )
        found.problems.append(
            f"batch norm {shown} ({dialect} to {wanted}): got no "
            f"`batch_norm`, expected a choice, because {why}. Pass {options}"
        )
        return
    if factor != 1 and choice == "serve":
        for word in ("running_mean", "running_var"):
            found.divide[right + word] = factor
        found.notes.append(
            f"batch norm {shown}: statistics divided by {factor:.6g}, for "
            "inference"
        )
    elif factor != 1:
        found.notes.append(
            f"batch norm {shown}: statistics copied, so that training "
            f"continues; inference differs by the factor {factor:.6g}"
        )
    _extra(source, left, target, right, wanted, found)


def _convert_state(
    source: Side, target: Side, left: str, right: str, found: Conversion
) -> bool:
    """Tells whether a State's batch norm needs no decision."""
    words = [
        {w for w in (COUNTER, FIRST) if prefix + w in side.canonical}
        for side, prefix in ((source, left), (target, right))
    ]
    if COUNTER in words[0] and words[0] != words[1]:
        found.problems.append(
            f"batch norm `{right.rstrip('.')}`: got a State of the dialect "
            "'batch', expected one of the target's dialect. Port from the "
            "native model, or construct the target with the dialect 'batch'"
        )
    return words[0] == words[1] or COUNTER in words[0]


def _extra(
    source: Side,
    left: str,
    target: Side,
    right: str,
    wanted: str,
    found: Conversion,
) -> None:
    """Drops the source's counters, and derives the target's."""
    dropped = extras(source)
    found.dropped += [
        dropped[left + word]
        for word in (COUNTER, FIRST)
        if left + word in dropped
    ]
    values = {"batch": (COUNTER, MANY), "ema": (FIRST, False)}
    if wanted in values:
        word, value = values[wanted]
        found.derived[extras(target)[right + word]] = value
        found.notes.append(
            f"batch norm `{right.rstrip('.')}`: {word} set to {value}, so "
            "that inference uses the statistics as they are"
        )


def warming(
    source: Side,
    target: Side,
    arrays: Mapping[str, Any],
    pairs: Mapping[str, str],
) -> dict[str, float]:
    """Returns batch norms whose inference differs after training.

    The source divides its statistics by a factor that depends on its counter,
    and the target does not.

    Returns:
        The factor of each, which is 0 before the first step, by the prefix
        of the target's canonical names.
    """
    ours, theirs = norms(source), norms(target)
    found = {}
    for right, left in pairs.items():
        dialect, momentum = ours.get(left, ("torch", 0.0))
        wanted, _ = theirs.get(right, (dialect, 0.0))
        if dialect == "batch" != wanted:
            factor = _factor(source, arrays, left, momentum)
            if factor != 1:
                found[right] = factor
    return found


def _factor(
    source: Side, arrays: Mapping[str, Any], left: str, momentum: float
) -> float:
    count = _value(source, arrays, left + COUNTER)
    return 1 - momentum ** int(count if count is not None else MANY)


def require_choice(choice: str | None) -> None:
    """Checks the argument `batch_norm` of `port`.

    Raises:
        ValueError: if there is no such choice.
    """
    if choice not in CHOICES:
        raise ValueError(
            f"batch_norm: got {choice!r}, expected one of {CHOICES}. Pass "
            "'resume' to continue training, or 'serve' for inference."
        )


def _value(source: Side, arrays: Mapping[str, Any], name: str) -> Any:
    layout = source.canonical.get(name)
    if layout is None or not hasattr(
        arrays[layout.sources[0].name], "__array__"
    ):
        return None
    found = np.unique(np.asarray(layout.apply(arrays)))
    if len(found) > 1:  # of several layers, which have one name
        raise ValueError(
            f"batch norms {name!r}: got the different values {found} in "
            "stacked layers, expected one. Teach the stack with "
            "`common.porting.register_stack`."
        )
    return found.item()


def _why_not_resume(dialect: str, wanted: str) -> str:
    """Tells why training cannot continue identically, or nothing."""
    if dialect == wanted:
        return ""
    if "ema" in (dialect, wanted):
        return (
            "'ema' also normalizes by the running statistics while it trains"
        )
    if "torch" in (dialect, wanted):
        return (
            "'torch' averages the unbiased variance, and the others the "
            "biased one"
        )
    return ""


def scaled(
    canonical: Mapping[str, Layout], found: Conversion
) -> dict[str, Layout]:
    """Returns the layouts with the division that inference needs."""
    return {
        name: layout.then(Divide(found.divide[name]))
        if name in found.divide
        else layout
        for name, layout in canonical.items()
    }
