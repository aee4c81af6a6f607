"""The one handle on a model in training, written once over any backend."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

from common import environment
from common.errors import NonFiniteLossError
from common.protocol import Backend, Loss, Metrics, Spec
from common.state import State
from common.training import checks, identity, optimizers
from common.training import leaves as leaf
from common.training.data import Place
from common.training.loop import Loop
from common.training.progress import Progress

NO_TARGETS = object()


class Trainer:
    """A model of one backend, its optimizer and its place in the data.

    It keeps the native object as a flat list of arrays, which one jitted
    program takes, donated, and returns: a step costs what hand-written
    `jax.jit` costs, whatever the library's own transforms do. Arrays are
    copied in and out; `load` is the only way to change them.

    Attributes:
        spec: what the model means.
        backend: the library that trains it.
        dtype: of all its floating arrays.
        seed: what it was built with.
        run_key: the data of the key that all randomness of the run is from.
        place: where in the data order `fit` goes on.
    """

    def __init__(
        self,
        spec: Spec,
        make_backend: Callable[..., Backend],
        *,
        optimizer: optax.GradientTransformation | None,
        loss: Loss,
        metrics: Mapping[str, Loss],
        seed: int,
        dtype: str,
    ):
        self.spec = spec
        self.dtype = dtype
        self.seed = seed
        self._make_backend = make_backend
        with self._x64():
            self.optimizer = self._check_optimizer(optimizer)
            self.backend: Backend = make_backend(self.optimizer, loss, metrics)
            init_key, run_key = jr.split(jr.key(seed))
            params, buffers = jax.tree.map(
                lambda x: jnp.asarray(
                    x, dtype if x.dtype == np.float32 else None
                ),
                leaf.initial_values(spec, init_key),
            )
            native = self.backend.init(params, buffers, run_key)
            arrays, rebuild = self.backend.split(native)
        self._names = list(arrays)
        self._leaves = leaf.own(leaf.unwrap(arrays))
        self.rebuild = functools.partial(
            leaf.rebuild_from,
            rebuild,
            [leaf.is_key(x) for x in arrays.values()],
        )
        self._signature = [(x.shape, x.dtype) for x in self._leaves]
        self.run_key = np.asarray(jr.key_data(run_key))
        self.place = Place(0, 0)

        self._checked: set[Any] = set()
        self._step = jax.jit(self.pure_step, donate_argnums=0)
        self._predict = jax.jit(self._pure_predict)
        self._evaluate = jax.jit(self._pure_evaluate)
        self._state = jax.jit(self._pure_state)
        self._load = jax.jit(self._pure_load)
        self._loop: Loop | None = None

    # --- training -----------------------------------------------------------

    def step(self, xs: Any, ys: Any) -> Metrics:
        """Takes one jitted training step.

        Args:
            xs: a batch of inputs, channels last, of the trainer's dtype.
            ys: as many targets.

        Returns:
            The loss and the metrics of the forward pass, before the update.

        Raises:
            BatchError: if the batch does not fit, before anything compiles.
        """
        self.check(xs, ys, training=True)
        with self._x64():
            self._leaves, metrics = self._step(self._leaves, (xs, ys))
        return metrics

    def fit(
        self,
        inputs: Any,
        targets: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        progress: bool = True,
    ) -> np.ndarray:
        """Trains for some epochs in one compiled loop.

        Every epoch sees the examples in a new order, a pure function of the
        seed and the epoch; those that do not fill a last batch are left out
        of it. A run that was interrupted, or loaded from a State, first ends
        the epoch that it was in.

        Args:
            inputs: all examples, channels last, of the trainer's dtype.
            targets: as many targets.
            epochs: how many epochs to end.
            batch_size: examples a step.
            progress: shows a progress bar on a terminal.

        Returns:
            The loss of every step.

        Raises:
            BatchError: if the data does not fit, before anything compiles.
            NonFiniteLossError: naming the first step that met a NaN or an
                infinity; the trainer then holds the state before that step,
                and the error's `losses` are those of the steps before it. A
                KeyboardInterrupt has them too.
        """
        self.check(inputs, targets, training=True)
        size = checks.batch_size_of(inputs)
        checks.check_fit(self.spec, size, epochs, batch_size)
        with self._x64():
            data = jax.tree.map(jnp.asarray, (inputs, targets))
            if self._loop is None:
                self._loop = Loop(self.pure_step)
            runs = self._loop.fit(self, data, size, epochs, batch_size)
            each = size // batch_size
            seen = min(self.place.position // batch_size, each)
            steps = max(epochs * each - seen, 0)
            losses = [np.zeros(0, self.dtype)]
            try:
                with Progress(steps, enabled=progress) as bar:
                    for run in runs:
                        losses.append(run["loss"])
                        bar.advance(self.place.epoch, run)
            except (NonFiniteLossError, KeyboardInterrupt) as error:
                vars(error)["losses"] = np.concatenate(losses)
                raise
        return np.concatenate(losses)

    # --- inference ----------------------------------------------------------

    def predict(self, xs: Any) -> Any:
        """Runs the model in inference mode; its buffers stay as they are.

        Raises:
            BatchError: if the inputs do not fit, before anything compiles.
        """
        self.check(xs)
        with self._x64():
            return self._predict(self._leaves, xs)

    def evaluate(self, xs: Any, ys: Any) -> Metrics:
        """Returns the loss and the metrics in inference mode.

        Raises:
            BatchError: if the batch does not fit, before anything compiles.
        """
        self.check(xs, ys, training=False)
        with self._x64():
            return self._evaluate(self._leaves, (xs, ys))

    def check(
        self, xs: Any, ys: Any = NO_TARGETS, *, training: bool = False
    ) -> None:
        """Checks a batch, once for each shape and dtype.

        Raises:
            BatchError: if it does not fit, before anything compiles.
        """
        try:
            seen = (xs.shape, xs.dtype, training)
            seen += () if ys is NO_TARGETS else (ys.shape, ys.dtype)
        except AttributeError:  # a pytree, or no array at all
            seen = None
        if seen is not None and seen in self._checked:
            return
        with self._x64():
            if ys is NO_TARGETS:
                checks.check_inputs(xs, self.spec, self.dtype)
            else:
                checks.check_batch(
                    self.spec,
                    self.backend.loss,
                    xs,
                    ys,
                    self.dtype,
                    training=training,
                    metrics=self.backend.metrics,
                )
        if seen is not None:
            self._checked.add(seen)

    # --- state --------------------------------------------------------------

    def state(self) -> State:
        """Returns a copy of all that another backend needs to go on."""
        with self._x64():
            state = State.from_flat(self._state(self._leaves))
        place = {k: np.int32(v) for k, v in self.place._asdict().items()}
        rng = {**state.rng, **place}
        return dataclasses.replace(state, rng=rng).numpy()

    def load(self, state: State | str | os.PathLike[str]) -> "Trainer":
        """Continues from a State, of this or of another backend.

        Args:
            state: a State, or a file that `save` wrote.

        Returns:
            The trainer itself.

        Raises:
            StateError: naming the entries that are missing, extra or of the
                wrong shape or dtype. Nothing has changed then.

        Warns:
            UserWarning: if the file was saved with another optimizer, loss or
                metrics, naming both.
        """
        meta, source = {}, ""
        if not isinstance(state, State):
            source = f"state file {os.fspath(state)!r}"
            state, meta = State.read(state)
        state = state.numpy()
        state.require_like(self.state())
        if meta:
            identity.warn_of_changes(meta, identity.identify(self), source)
        with self._x64():
            self._leaves = self._load(self._leaves, state.flat())
        self.run_key = np.array(state.rng["key"])
        self.place = Place(int(state.rng["epoch"]), int(state.rng["position"]))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the State to a safetensors file, whole or not at all.

        The header records how to build the trainer again, and which
        optimizer, loss and metrics it had.
        """
        meta = {
            "spec": self.spec.name,
            "hyper_parameters": dataclasses.asdict(self.spec),
            "dtype": self.dtype,
            "seed": self.seed,
            "versions": environment.versions(),
            **identity.identify(self),
        }
        self.state().save(path, meta)

    @property
    def native(self) -> Any:
        """A copy of the library's own objects.

        `(model, state, opt_state, key, step)` in Equinox,
        `(module, nnx.Optimizer, nnx.Rngs)` in Flax.
        """
        with self._x64():
            return self.rebuild(leaf.own(self._leaves))

    # --- for people who compose their own loops -----------------------------

    @property
    def leaves(self) -> list[Array]:
        """A copy of the arrays that `pure_step` takes."""
        with self._x64():
            return leaf.own(self._leaves)

    def pure_step(
        self, leaves: list[Array], batch: Any
    ) -> tuple[list[Array], Metrics]:
        """Takes one step as a pure function of arrays: jit it, vmap it, ...

        Args:
            leaves: as `Trainer.leaves` returns them.
            batch: `(xs, ys)`.

        Returns:
            The leaves after the step, in the same order, and the metrics.

        Raises:
            TypeError: if a step would change the shape or dtype of a leaf.
        """
        with self._x64():
            batch = jax.tree.map(jnp.asarray, batch)
            native, metrics = self.backend.step(self.rebuild(leaves), batch)
            leaves = leaf.unwrap(self.backend.split(native)[0])
        for name, (shape, dtype), x in zip(
            self._names, self._signature, leaves, strict=True
        ):
            if (x.shape, x.dtype) != (shape, dtype):
                raise TypeError(
                    f"leaf {name!r} after a step: got {x.dtype}{x.shape}, "
                    f"expected {dtype}{shape}. Keep the dtype in the loss "
                    "and the optimizer."
                )
        return leaves, metrics

    def with_optimizer(
        self, optimizer: optax.GradientTransformation
    ) -> "Trainer":
        """Returns a new trainer like this one, but for its optimizer.

        It starts from the initial values, at step 0.

        Raises:
            ValueError: if it is not an optimizer, or cannot be traced.
        """
        return Trainer(
            self.spec,
            self._make_backend,
            optimizer=optimizer,
            loss=self.backend.loss,
            metrics=self.backend.metrics,
            seed=self.seed,
            dtype=self.dtype,
        )

    def __repr__(self) -> str:
        return (
            f"Trainer({self.spec.name!r}, backend={self.backend.name!r}, "
            f"dtype={self.dtype!r}, step={int(self.state().step)})"
        )

    # --- private ------------------------------------------------------------

    def _check_optimizer(
        self, optimizer: optax.GradientTransformation | None
    ) -> optax.GradientTransformation:
        if optimizer is None:
            optimizer = self.spec.optimizer()
        optimizers.require_optimizer(optimizer)
        return optimizer

    def _pure_predict(self, leaves, xs):
        xs = jax.tree.map(jnp.asarray, xs)
        return self.backend.predict(self.rebuild(leaves), xs)

    def _pure_evaluate(self, leaves, batch):
        xs, ys = jax.tree.map(jnp.asarray, batch)
        predictions = self._pure_predict(leaves, xs)
        metrics = {"loss": self.backend.loss, **self.backend.metrics}
        return {name: f(predictions, ys) for name, f in metrics.items()}

    def pure_transition(self, arrays: Any, batch: Any) -> dict[str, Any]:
        """Takes one step as a pure function of a State's arrays.

        Args:
            arrays: as `State.flat` returns them.
            batch: `(xs, ys)`.

        Returns:
            The arrays after the step, and `"metrics"`.
        """
        leaves = self._pure_load(self._leaves, arrays)
        leaves, metrics = self.pure_step(leaves, batch)
        return {**self._pure_state(leaves), "metrics": metrics}

    def _pure_state(self, leaves):
        return self.backend.state(self.rebuild(leaves)).flat()

    def _pure_load(self, leaves, arrays):
        state = State.from_flat(arrays)
        native = self.backend.load(self.rebuild(leaves), state)
        # Copies, or an array that passes through would stay the caller's.
        return list(map(jnp.copy, leaf.unwrap(self.backend.split(native)[0])))

    def _x64(self):
        # With x64 on, a float32 model would draw its masks in float64.
        return jax.enable_x64(self.dtype == "float64")
