"""The batches that two models are called on."""

from typing import Any


def inputs_of_both(xs: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """Returns the batch of inputs of each of two models.

    Args:
        xs: the batch of both, or `None`.
        left: the batch of the left model, if it is not `xs`.
        right: the batch of the right model, if it is not `xs`.

    Raises:
        ValueError: if a model has no batch.
    """
    found = (xs if left is None else left, xs if right is None else right)
    for side, batch in zip(("left", "right"), found, strict=True):
        if batch is None:
            raise ValueError(
                f"inputs of the {side} model: got None, expected a batch. "
                f"Pass the inputs of both, or `{side}_inputs`."
            )
    return found
