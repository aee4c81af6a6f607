"""The arrays of a trainer, and the compiled functions over them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array

from common.protocol import Backend, Loss, Metrics, Settings, Spec
from common.state import State, canonical_dtype
from common.training import checks, members, optimizers, part_checks
from common.training.data import Place
from common.training.leaves import PureFunctions, copy_leaves
from common.training.loop import Loop
from common.training.placement import (
    ONE_DEVICE,
    MeshPlacement,
    Placement,
    on_the_host,
)
from common.training.subjects import Subject


class Compiled:
    """A model in training as a flat list of arrays.

    `Trainer` documents the attributes.
    """

    subject: Subject
    settings: Settings
    name: str
    backend: Backend
    optimizer: Any
    dtype: str
    seed: int
    run_key: np.ndarray
    place: Place
    placement: Placement
    steps_taken: int
    fitted: dict[str, Any]
    pure: PureFunctions

    def __init__(
        self,
        subject: Subject,
        *,
        optimizer: Any,
        loss: Loss | None,
        metrics: Mapping[str, Loss],
        seed: int,
        settings: Settings | None = None,
    ):
        self.subject = subject
        self.settings = settings = settings or Settings()
        self.name = subject.name
        self.dtype = subject.dtype
        self.seed = seed
        with self._x64(), on_the_host(settings.mesh):
            self.optimizer = optimizers.require_optimizers(
                subject.optimizer() if optimizer is None else optimizer
            )
            self.backend = subject.backend(
                self.optimizer, loss, metrics, settings
            )
            starts = []
            for member, one in enumerate(
                members.seeds(seed, settings.ensemble)
            ):
                keys = jr.split(jr.key(one))
                starts.append(
                    subject.start(self.backend, keys[0], keys[1], member)
                )
            self.pure = PureFunctions(self.backend, starts[0])
            leaves = copy_leaves(self.pure.flatten(starts[0]))
            if settings.ensemble is not None:
                leaves = members.stack([*map(self.pure.flatten, starts)])
                self.pure = members.EnsembleFunctions(self.pure)
            self.placement = ONE_DEVICE
            if settings.mesh is not None:
                self.placement = MeshPlacement(
                    settings, subject.parameters(), self.pure, leaves
                )
            self._leaves = self.placement.put(leaves)
        self.run_key = np.asarray(jr.key_data(jr.split(jr.key(seed))[1]))
        self.place = Place(0, 0)
        self.steps_taken = 0
        self.fitted = {}
        self._loaded_from = ""

        self._checks = checks.BatchChecks(subject.fit(), loss, metrics)
        jit = self.placement.jit
        one, many = self.placement.replicated, self.placement.leaves
        self._step = jit(self.pure_step, (many, one), donate_argnums=0)
        self._predict = jit(self.pure.predict, self.placement.outputs)
        self._evaluate = jit(self.pure.evaluate, one)
        self._state = jit(self.pure.state, self.placement.state)
        self._load = jit(self.pure.load, many)
        self._loop: Loop | None = None

    @property
    def spec(self) -> Spec:
        """The definition of the model.

        Raises:
            AttributeError: if it is a model of the user, which has none.
        """
        if self.subject.spec is None:
            raise AttributeError(
                f"spec: got a trainer of {self.name}, a model that was "
                "passed to `build(model=...)`, expected one of a spec. Use "
                "`trainer.name`, or `trainer.native` for the model."
            )
        return self.subject.spec

    # --- checks -------------------------------------------------------------

    def check(
        self, xs: Any, ys: Any = checks.NO_TARGETS, *, training: bool = False
    ) -> None:
        """Checks a batch. Each combination of shapes is checked only once.

        Args:
            xs: a batch of inputs.
            ys: the targets, if there are any.
            training: whether the batch is to be trained on.

        Raises:
            BatchError: if the batch does not fit the model.
        """
        if not self._checks.has_seen(xs, ys, training):
            with self._x64():
                self._checks.check(xs, ys, training)

    def check_batch(self, xs: Any, ys: Any) -> None:
        """Checks a batch that a step trains on, and its parts.

        Raises:
            BatchError: if it does not fit the model, or cannot be split as
                `accumulate` and `sync_batch_norm=False` need.
        """
        self.check(xs, ys, training=True)
        part_checks.check_batch(
            (xs, ys),
            self.settings,
            self.subject.min_batch_size,
            self.placement.processes,
        )

    # --- state --------------------------------------------------------------

    def state(self) -> State:
        """Returns a copy of everything that another backend needs to
        continue the run.

        The copy is on the host. Of a run on a mesh, every process gets the
        whole of it, so all of them have to call this method.
        """
        on_host = self.placement.on_host
        if self._stacked:
            leaves = [on_host(x) for x in self._leaves]
            flat = self._completed(self.pure.state, leaves)
            flat = {k: np.asarray(x) for k, x in flat.items()}
            return State.from_flat(flat).numpy()
        flat = {k: on_host(x) for k, x in self.canonical().items()}
        return State.from_flat(flat).numpy()

    @property
    def _stacked(self) -> bool:
        """Whether a State is taken apart and put together on the host.

        A program that does so with the arrays of many stacked layers would
        compile slowly.
        """
        one = self.placement is ONE_DEVICE and self.settings.ensemble is None
        return one and self.pure.stacked

    def _loaded(self, flat: Mapping[str, Any]) -> list[Array]:
        """Returns the leaves that hold the arrays of a State."""
        if self._stacked:
            return self.pure.load([np.asarray(x) for x in self._leaves], flat)
        return self._load(self._leaves, flat)

    def canonical(self) -> dict[str, Any]:
        """Returns the arrays of the State by `group.name`, on the devices
        where they are. Nothing is gathered."""
        return self._completed(self._state, self._leaves)

    def _completed(self, read: Any, leaves: list[Any]) -> dict[str, Any]:
        """Reads the arrays of the State, and adds the place in the data."""
        with self._x64():
            flat = read(leaves)
            for name, x in flat.items():
                dtype = canonical_dtype(name, x.dtype)
                if dtype != x.dtype:
                    flat[name] = x.astype(dtype)
        place = self.place._asdict().items()
        return {**flat, **{f"rng.{k}": np.int32(v) for k, v in place}}

    def described(self) -> State:
        """Returns what `state` returns, with zeros that take no memory."""
        with self._x64():
            flat = jax.eval_shape(self.pure.state, self._leaves)
        place = {
            f"rng.{k}": np.int32(v) for k, v in self.place._asdict().items()
        }
        return State.from_flat({**flat, **place}).hollow()

    @property
    def native(self) -> Any:
        """A copy of the library's own objects.

        `(model, state, opt_state, key, step)` in Equinox, and
        `(module, nnx.Optimizer, nnx.Rngs)` in Flax. Of a model of the user,
        what was passed to `build`, with the current arrays: the model, the
        pair of a model and its state, or the module.
        """
        with self._x64():
            native = self.pure.rebuild(copy_leaves(self._leaves))
            return self.subject.native(native)

    @property
    def carry(self) -> Any:
        """A copy of what the model's own step carries, or `None`."""
        with self._x64():
            native = self.pure.rebuild(copy_leaves(self._leaves))
        return getattr(native, "carry", None)

    # --- pure functions, for custom training loops --------------------------

    @property
    def leaves(self) -> list[Array]:
        """A copy of the arrays that `pure_step` takes."""
        with self._x64():
            return copy_leaves(self._leaves)

    def pure_step(
        self, leaves: list[Array], batch: Any
    ) -> tuple[list[Array], Metrics]:
        """Takes one training step as a pure function of arrays.

        It can be transformed like any JAX function, for example by `jax.jit`
        or `jax.vmap`.

        Args:
            leaves: arrays as `Trainer.leaves` returns them.
            batch: `(xs, ys)`.

        Returns:
            The leaves after the step, in the same order, and the metrics.

        Raises:
            TypeError: if the step changes the shape or dtype of a leaf.
        """
        with self._x64():
            return self.pure.step(leaves, batch)

    def pure_transition(self, arrays: Any, batch: Any) -> dict[str, Any]:
        """Takes one training step as a pure function of a State's arrays.

        Args:
            arrays: arrays as `State.flat` returns them.
            batch: `(xs, ys)`.

        Returns:
            The arrays after the step, and the metrics under `"metrics"`.
        """
        leaves = self.pure.load(self._leaves, arrays)
        leaves, metrics = self.pure_step(leaves, batch)
        return {**self.pure.state(leaves), "metrics": metrics}

    # --- private ------------------------------------------------------------

    def _x64(self):
        # With x64 on, a float32 model would draw its masks in float64.
        return jax.enable_x64(self.dtype == "float64")
