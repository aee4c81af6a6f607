"""`compare` and `assert_equivalent`: whether two models are the same."""

from typing import Any

import optax

from common.comparison import lockstep, native, own_steps
from common.comparison.report import Report
from common.native import Call, inputs_of_both
from common.protocol import Loss
from common.training.trainer import Trainer

TRAINER_STEPS, MODEL_STEPS = 100, 10


class EquivalenceError(AssertionError):
    """Two models are not the same function.

    Attributes:
        report: what was compared, and where the models first diverge.
    """

    report: Report

    def __init__(self, report: Report):
        super().__init__(str(report))
        self.report = report


def compare(
    left: Any,
    right: Any,
    xs: Any = None,
    ys: Any = None,
    *,
    left_inputs: Any = None,
    right_inputs: Any = None,
    left_call: Call | None = None,
    right_call: Call | None = None,
    rules: Any = None,
    loss: str | Loss | None = None,
    optimizer: optax.GradientTransformation | None = None,
    steps: int | None = None,
    carry: bool = False,
    batch_norm: str | None = None,
) -> Report:
    """Compares two models, or two trainers, and reports where they diverge.

    Both are trained side by side, on copies, jitted, and with matrix products
    in full precision. Models are compared in float64, where rounding hides no
    other formula, and in their own dtype. Where a model casts to a narrower
    dtype inside, the report states this ceiling of the precision. Both start
    from the arrays of the left model, carried through the mapping, and every
    quantity is judged: the arrays themselves, outputs in inference and in
    training mode, buffers, gradients, the update of the optimizer, the
    training steps, and inference after them.

    Trainers of your models are compared with their own losses and optimizers.
    If one brings its own step, each takes its own, from one State.

    The optimizer acts on the left's arrays on both sides. So an optimizer
    that depends on how arrays are fused, or on the order of their axes, makes
    no difference.

    Rounding is amplified by deep models and by optimizers. A third run, of
    the left model with one more rounding error in each weight, shows by how
    much, and errors of that size are no mismatch.

    Args:
        left: an Equinox model, a pair of a model and its `eqx.nn.State`, an
            NNX module, or a trainer.
        right: another one. Trainers are compared with trainers.
        xs: a batch of inputs: a pytree of arrays.
        ys: the targets; not needed for models.
        left_inputs: the batch of the left model, if it takes the same inputs
            in another form, such as channels first.
        right_inputs: the batch of the right model, likewise.
        left_call: `call(model, xs, *, training, key) -> (outputs, model)`,
            if the left model is not called on a batch as its library's
            examples do. It may also return a new state, or `None`.
        right_call: the same for the right model.
        rules: the mapping from the left's arrays to the right's, if their
            names do not say it: a plan, an alignment, or rules.
        loss: `loss(outputs, ys)`, or the name of a loss. By default it is the
            cross-entropy for integer targets, the mean squared error for
            others, and without targets a fixed random projection of the
            outputs.
        optimizer: an optax transformation; `optax.adam(1e-3)` by default.
        steps: the number of training steps: by default 10 for models and 100
            for trainers.
        carry: whether the right model's own arrays are left out of the
            comparison, for two models that hold different weights.
        batch_norm: as for `port`: `"resume"` if the running statistics were
            carried over for training, or `"serve"` for inference. What then
            differs by design is left out, and the report says so.

    Returns:
        A report. Its `first_divergence` names the quantity, the step, the
        array, the layer and both source lines, with a hint if the difference
        is of a known kind.

    Raises:
        TypeError: if a model cannot be called, or if `left` is a trainer and
            `right` is not.
        ValueError: if the arrays or the outputs do not correspond.
        StateError: if a trainer brings its own step, and the optimizers do
            not correspond.
        BatchError: if a batch does not fit the model of the trainers.
    """
    options = {
        "left_inputs": left_inputs,
        "right_inputs": right_inputs,
        "left_call": left_call,
        "right_call": right_call,
        "rules": rules,
        "loss": loss,
        "optimizer": optimizer,
        "carry": carry or None,
        "batch_norm": batch_norm,
    }
    trainers = [isinstance(x, Trainer) for x in (left, right)]
    if all(trainers) and None in (left.subject.spec, right.subject.spec):
        _require_models(left, right)
        if own_steps.brings_step(left) or own_steps.brings_step(right):
            return _compare_own_steps(left, right, xs, ys, options, steps)
        return _compare_trained(left, right, xs, ys, options, steps)
    if all(trainers):
        _require_none(options)
        return lockstep.compare(
            left,
            right,
            xs,
            ys,
            steps=TRAINER_STEPS if steps is None else steps,
        )
    if any(trainers):
        kinds = [type(x).__name__ for x in (left, right)]
        raise TypeError(
            f"compare: got a {kinds[0]} and a {kinds[1]}, expected two "
            "trainers or two models. Pass the model of the trainer, "
            "`trainer.native`, or build a trainer for the other model."
        )
    return native.compare_models(
        left,
        right,
        inputs_of_both(xs, left_inputs, right_inputs),
        ys,
        calls=(left_call, right_call),
        rules=rules,
        loss=loss,
        optimizer=optimizer,
        steps=MODEL_STEPS if steps is None else steps,
        carry=carry,
        batch_norm=batch_norm,
    )


def assert_equivalent(
    left: Any,
    right: Any,
    xs: Any = None,
    ys: Any = None,
    *,
    left_inputs: Any = None,
    right_inputs: Any = None,
    left_call: Call | None = None,
    right_call: Call | None = None,
    rules: Any = None,
    loss: str | Loss | None = None,
    optimizer: optax.GradientTransformation | None = None,
    steps: int | None = None,
    carry: bool = False,
    batch_norm: str | None = None,
) -> Report:
    """Asserts that two models are the same function; see `compare`.

    Args:
        left: as for `compare`, like all other arguments.
        right: another model.
        xs: a batch of inputs.
        ys: the targets.
        left_inputs: the batch of the left model, if it is not `xs`.
        right_inputs: the batch of the right model, if it is not `xs`.
        left_call: how to call the left model.
        right_call: how to call the right model.
        rules: the mapping between their arrays.
        loss: of outputs and targets.
        optimizer: an optax transformation.
        steps: the number of training steps.
        carry: whether the models' own arrays may differ.
        batch_norm: what the running statistics were carried over for.

    Returns:
        The report, in which everything agrees.

    Raises:
        EquivalenceError: an AssertionError whose text is the report.
    """
    report = compare(
        left,
        right,
        xs,
        ys,
        left_inputs=left_inputs,
        right_inputs=right_inputs,
        left_call=left_call,
        right_call=right_call,
        rules=rules,
        loss=loss,
        optimizer=optimizer,
        steps=steps,
        carry=carry,
        batch_norm=batch_norm,
    )
    if not report.ok:
        raise EquivalenceError(report)
    return report


def _compare_trained(
    left: Trainer,
    right: Trainer,
    xs: Any,
    ys: Any,
    options: dict[str, Any],
    steps: int | None,
) -> Report:
    """Compares the models of two trainers, each with its own loss and
    optimizer."""
    calls = [
        options[f"{side}_call"] or getattr(x.subject.model, "call", None)
        for side, x in (("left", left), ("right", right))
    ]
    loss, optimizer = options["loss"], options["optimizer"]
    return native.compare_models(
        left.native,
        right.native,
        inputs_of_both(xs, options["left_inputs"], options["right_inputs"]),
        ys,
        calls=(calls[0], calls[1]),
        rules=options["rules"],
        loss=loss or left.backend.loss,
        right_loss=loss or right.backend.loss,
        optimizer=optimizer or left.optimizer,
        right_optimizer=optimizer or right.optimizer,
        steps=TRAINER_STEPS if steps is None else steps,
        carry=bool(options["carry"]),
        batch_norm=options["batch_norm"],
    )


def _compare_own_steps(
    left: Trainer,
    right: Trainer,
    xs: Any,
    ys: Any,
    options: dict[str, Any],
    steps: int | None,
) -> Report:
    """Compares two trainers, of which one at least has its own step."""
    named = ("left_call", "right_call", "loss", "optimizer", "batch_norm")
    _require_none({name: options[name] for name in named})
    return own_steps.compare_each_step(
        left,
        right,
        inputs_of_both(xs, options["left_inputs"], options["right_inputs"]),
        ys,
        rules=options["rules"],
        steps=TRAINER_STEPS if steps is None else steps,
        carry=bool(options["carry"]),
    )


def _require_models(left: Trainer, right: Trainer) -> None:
    """Refuses a trainer of a spec beside one of a user's model."""
    specs = [x.name for x in (left, right) if x.subject.spec is not None]
    if specs:
        raise ValueError(
            f"compare, two trainers: got one of the spec {specs[0]!r} and one "
            "of a model of yours, expected two of a kind. Pass two models, "
            "and take that of the spec's trainer from `trainer.native`."
        )


def _require_none(options: dict[str, Any]) -> None:
    given = [name for name, x in options.items() if x is not None]
    if given:
        raise ValueError(
            f"compare, two trainers: got {', '.join(given)}, expected none of "
            "them. A trainer has its own model, loss and optimizer; pass them "
            "to `build`."
        )
