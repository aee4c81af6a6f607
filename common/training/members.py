"""An ensemble: members trained side by side, by `jax.vmap`, in one program.

Every leaf has a leading axis for the member. Member i starts as the trainer
of the seed `seed + i` does, and all members see the same batches.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from common.errors import StateError
from common.protocol import Arrays, Metrics
from common.state import COUNTERS, State
from common.training.leaves import PureFunctions


class EnsembleFunctions(PureFunctions):
    """The methods of a backend for all members, as pure functions of leaves.

    A native object that `rebuild` returns has arrays with the leading axis.
    """

    def __init__(self, one: PureFunctions):
        """Makes the functions from those of one member."""
        self._one = one

    @property
    def paths(self) -> list[str]:
        """The native path of each leaf."""
        return self._one.paths

    def rebuild(self, leaves: Sequence[Any]) -> Any:
        """Returns the native object that holds these leaves."""
        return self._one.rebuild(leaves)

    def flatten(self, native: Any) -> list[Any]:
        """Inverts `rebuild`."""
        return self._one.flatten(native)

    def step(
        self, leaves: Sequence[Any], batch: Any
    ) -> tuple[list[Array], Metrics]:
        """Takes a training step. The metrics have shape (N,)."""
        return jax.vmap(self._one.step, (0, None))(leaves, batch)

    def step_with_gradients(
        self, leaves: Sequence[Any], batch: Any
    ) -> tuple[list[Array], Metrics, Arrays]:
        """Takes a training step and returns its gradients too."""
        step = jax.vmap(self._one.step_with_gradients, (0, None))
        return step(leaves, batch)

    def predict(self, leaves: Sequence[Any], xs: Any) -> Any:
        """Runs the models in inference mode. The outputs are (N, B, ...)."""
        return jax.vmap(self._one.predict, (0, None))(leaves, xs)

    def evaluate(self, leaves: Sequence[Any], batch: Any) -> Metrics:
        """Computes the loss and the metrics in inference mode, as (N,)."""
        return jax.vmap(self._one.evaluate, (0, None))(leaves, batch)

    def state(self, leaves: Sequence[Any]) -> dict[str, Any]:
        """Returns the arrays of the State, as `State.flat` does.

        The step is that of all members.
        """
        flat = jax.vmap(self._one.state)(leaves)
        return {**flat, "step": flat["step"][0]}

    def load(
        self, leaves: Sequence[Any], arrays: Mapping[str, Any]
    ) -> list[Array]:
        """Returns the leaves that hold the arrays of a State."""
        axes = {name: None if name in COUNTERS else 0 for name in arrays}
        return jax.vmap(self._one.load, (0, axes))(leaves, dict(arrays))


def seeds(seed: int, members: int | None) -> list[int]:
    """Returns the seed of each member, or that of the only model."""
    return [seed + i for i in range(members or 1)]


def stack(leaves: Sequence[Sequence[Array]]) -> list[Array]:
    """Returns the leaves of all members with a leading axis."""
    return [jnp.stack(xs) for xs in zip(*leaves, strict=True)]


def take(state: State, member: int) -> State:
    """Returns the State of one member.

    Args:
        state: that of the ensemble.
        member: the number of the member, from 0.
    """
    return State.from_flat(
        {
            name: x if name in COUNTERS else x[member]
            for name, x in state.flat().items()
        }
    )


def trainer_of(trainer: Any, index: Any) -> Any:
    """Returns a trainer of one member, with a copy of its arrays.

    Args:
        trainer: a `Trainer` of the ensemble.
        index: the number of the member, from 0.

    Raises:
        ValueError: if there is no such member.
    """
    index = check_member(index, trainer.settings.ensemble)
    one = type(trainer)(
        trainer.subject.member(index),
        optimizer=trainer.optimizer,
        loss=trainer.backend.loss,
        metrics=trainer.backend.metrics,
        seed=trainer.seed + index,
        settings=dataclasses.replace(trainer.settings, ensemble=None),
    )
    one.load(take(trainer.state(), index))
    one.run_key, one.fitted = trainer.run_key, trainer.fitted
    return one


def check_member(index: Any, members: int | None) -> int:
    """Returns the number of a member as a Python int.

    Raises:
        ValueError: if there is no such member.
    """
    if members is None:
        raise ValueError(
            f"member: got {index!r} of a trainer of one model, expected one "
            "of an ensemble. Pass `ensemble=N` to `build`."
        )
    is_integer = isinstance(index, int | np.integer)
    if not is_integer or not 0 <= index < members:
        raise ValueError(
            f"member: got {index!r}, expected an integer from 0 to "
            f"{members - 1}. Pass the number of one of the {members} members."
        )
    return int(index)


def require_members(state: State, members: int | None, what: str) -> None:
    """Checks that a State is of as many members as a trainer.

    Args:
        state: the State.
        members: those of the trainer, or `None`.
        what: names the State in a message.

    Raises:
        StateError: with both numbers.
    """
    key = np.asarray(state.rng.get("key", np.zeros(2)))
    found = len(key) if key.ndim == 2 else None
    if found != members:
        raise StateError(
            f"{what or 'state'}: got {_name(found)}, expected "
            f"{_name(members)}. Pass `ensemble={found}` to `build`."
        )


def _name(members: int | None) -> str:
    if members is None:
        return "a run of one model"
    return f"a run of an ensemble of {members}"


def order_key(
    state: State, meta: Mapping[str, Any], members: int | None
) -> np.ndarray:
    """Returns the data of the key that determines the order of the data.

    It is the key of the run, and that of the first member of an ensemble. A
    member that continues alone keeps the order of the ensemble.

    Args:
        state: the State of the run.
        meta: what its file records.
        members: the number of members, or `None`.
    """
    if "order" in meta:
        return np.array(meta["order"], np.uint32)
    key = np.array(state.rng["key"])
    return key if members is None else key[0]


def describe(failed: np.ndarray) -> str:
    """Names the members of which something is not finite.

    Args:
        failed: whether something failed, by member.
    """
    numbers = [str(i) for i in np.flatnonzero(failed)]
    plural = "s" if len(numbers) > 1 else ""
    return f" in member{plural} {', '.join(numbers)}"


def no_losses(dtype: str, members: int | None) -> np.ndarray:
    """Returns the losses of no steps.

    Args:
        dtype: the dtype of the model.
        members: the number of members, or `None`.
    """
    shape = (0,) if members is None else (0, members)
    return np.zeros(shape, jnp.promote_types(dtype, "float32"))
