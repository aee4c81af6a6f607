"""`Trainer`: trains, evaluates and saves a model of any backend."""

import contextlib
import functools
import os
from typing import Any

import numpy as np

from common.protocol import Metrics
from common.state import State
from common.training import (
    carrying,
    checkpointing,
    fitting,
    identity,
    manifest,
    members,
    streaming,
)
from common.training import data as data_module
from common.training.compiled import Compiled
from common.training.data import Place
from common.training.following import follow
from common.training.loop import Chunk, Loop
from common.training.manifest import Saved
from common.training.placement import ONE_DEVICE


class Trainer(Compiled):
    """Trains a model of one backend.

    The trainer keeps the arrays of the native object as a flat list. One
    jitted program takes this list, donated, and returns it, so that a step
    costs what hand-written `jax.jit` costs. Arrays are copied in and out, and
    only `step`, `fit` and `load` change the trainer.

    Attributes:
        subject: what the trainer knows of the model.
        settings: how the steps are computed.
        name: the name of the spec, or of the class of the user's model.
        backend: the library that trains it.
        optimizer: the optax transformation that it is trained with, or
            several by the part of the model that each trains.
        dtype: the dtype of all floating arrays, the widest if a model of the
            user has several.
        seed: the seed that it was built with.
        run_key: the data of the PRNG key from which the run draws.
        place: the place in the data order where `fit` continues.
        fitted: the `batch_size` and a description of the `data` of the last
            `fit`, which a file records.
        pure: the backend's methods as pure functions of `leaves`.
    """

    # --- training -----------------------------------------------------------

    def step(self, xs: Any, ys: Any) -> Metrics:
        """Takes one jitted training step.

        Args:
            xs: a batch of inputs, channels last, in the trainer's dtype.
            ys: the targets, one for each input.

        Returns:
            The loss and the metrics of the forward pass, before the update.

        Raises:
            BatchError: if the batch does not fit the model. Nothing is
                compiled in this case.
        """
        self.check_batch(xs, ys)
        with self._x64():
            batch = self.placement.batch((xs, ys), training=True)
            self._leaves, metrics = self._step(self._leaves, batch)
        self.steps_taken += 1
        return metrics

    def fit(
        self,
        inputs: Any,
        targets: Any,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        progress: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int | None = None,
        keep: int | None = None,
        resume: bool = False,
    ) -> np.ndarray:
        """Trains for a number of epochs, in compiled chunks of steps.

        Every epoch shuffles the examples anew, in an order that depends only
        on the seed and the epoch, and leaves out those that do not fill a
        batch. A run that was interrupted, or loaded from a State, first
        completes the epoch that it had started.

        A run that must survive a crash is written like this:

            trainer.fit(xs, ys, epochs=9, checkpoint="run", resume=True)

        The first Control-C stops the run after the current chunk of steps,
        which takes about 0.2 seconds once the loop is compiled. A second
        Control-C ends the process at once, or raises `KeyboardInterrupt` in
        an interactive session.

        Args:
            inputs: all examples, channels last, in the trainer's dtype.
            targets: the targets, one for each example.
            epochs: the number of epochs to complete.
            batch_size: the number of examples in a step. By default that of
                the run that was loaded from a file, or 32.
            progress: whether to show a progress bar, or a line every so
                often where there is no terminal.
            checkpoint: a folder to write checkpoints to while training. A
                process that is killed leaves the one before. `load` and
                `State.read` take the folder, and then read the newest one.
            every: the number of steps from one checkpoint to the next. By
                default those of an epoch. There is also one at the end, and
                after Control-C.
            keep: how many checkpoints to keep, the newest ones. By default
                all.
            resume: whether to continue from the newest checkpoint in that
                folder, if there is one. The call then trains to where it
                would have ended if it had not been interrupted: `epochs`
                counts from the trainer's place before it resumes. So a
                script can be started again as it is.

        Returns:
            The loss of every step that this call took.

        Raises:
            BatchError: if the data does not fit the model. Nothing is
                compiled in this case.
            NonFiniteLossError: naming the first step that produced a NaN or
                an infinity. The trainer holds the state before that step.
            Interrupted: after Control-C. The trainer holds the state after
                the last chunk of steps.
            StateError: if the checkpoints in the folder are of another model,
                are later than the trainer's state and `resume` is not set,
                or were damaged.
            OSError: if a checkpoint cannot be written.

        Warns:
            UserWarning: if the run was loaded from a file or resumed, and had
                another batch size or data set, naming both.
        """
        size, batch_size, folder, found = fitting.check(
            self,
            (inputs, targets),
            epochs,
            batch_size,
            (checkpoint, every, keep, resume),
        )
        end = Place(self.place.epoch + epochs, 0)
        if folder is not None:
            checkpointing.prepare(folder, self.placement)
            if resume and found:
                checkpointing.resume(self, folder)
        fitted = manifest.fitted(inputs, targets, batch_size, self.placement)
        if self._loaded_from:
            identity.warn_of_changes(
                self.fitted, fitted, self._loaded_from, identity.FIT
            )
        self.fitted, self._loaded_from = fitted, ""
        take = functools.partial(
            data_module.take, self.run_key, size=size, batch_size=batch_size
        )
        steps = data_module.count_steps(self.place, end, size, batch_size)
        if self._loop is None:
            self._loop = Loop(
                self.pure_step,
                placement=self.placement,
                members=self.settings.ensemble,
            )
        with self._x64(), contextlib.ExitStack() as stack:
            keep_chunk = self._keep
            if folder is not None:
                each = size // batch_size if every is None else every
                saving = checkpointing.Checkpointing(self, folder, each, keep)
                stack.enter_context(saving)
                take = saving.bounded(take)
                keep_chunk = saving.after(self._keep)
            data = self.placement.data((inputs, targets))
            take = data.found(take)
            return follow(
                self._loop.chunks(
                    self._leaves, self.place, end, data.arrays, take
                ),
                keep_chunk,
                lambda: self.steps_taken,
                lambda pending: self.placement.agree(pending, 0)[0],
                steps=steps,
                empty=members.no_losses(self.dtype, self.settings.ensemble),
                progress=progress and self.placement.process == 0,
            )

    def _keep(self, chunk: Chunk) -> None:
        self._leaves, self.place = chunk.leaves, chunk.place
        if chunk.metrics:
            self.steps_taken += len(chunk.metrics["loss"])

    # --- inference ----------------------------------------------------------

    def predict(self, xs: Any) -> Any:
        """Runs the model in inference mode, which changes no buffer.

        Args:
            xs: a batch of inputs.

        Returns:
            The outputs, one for each input.

        Raises:
            BatchError: if the inputs do not fit the model. Nothing is
                compiled in this case.
        """
        self.check(xs)
        with self._x64():
            xs = self.placement.batch(xs, training=False)
            return self.placement.local(self._predict(self._leaves, xs))

    def evaluate(self, xs: Any, ys: Any) -> Metrics:
        """Computes the loss and the metrics in inference mode.

        Args:
            xs: a batch of inputs.
            ys: the targets, one for each input.

        Returns:
            The values by name, such as `loss`.

        Raises:
            BatchError: if the batch does not fit the model. Nothing is
                compiled in this case.
            ValueError: if there is neither a loss nor a metric, because the
                model has a step of its own.
        """
        if self.backend.loss is None and not self.backend.metrics:
            raise ValueError(
                f"evaluate: got no loss for {self.name}, expected a loss or "
                "a metric. Pass `loss` or `metrics` to `build`."
            )
        self.check(xs, ys, training=False)
        with self._x64():
            batch = self.placement.batch((xs, ys), training=False)
            return self._evaluate(self._leaves, batch)

    # --- state --------------------------------------------------------------

    def load(
        self,
        state: State | Saved | str | os.PathLike[str],
        *,
        rules: Any = None,
        like: Any = None,
    ) -> "Trainer":
        """Continues from a State of this or of another backend.

        Args:
            state: a State, the path of a file that `save` wrote, of a
                checkpoint that `fit` wrote, or of the folder of its
                checkpoints, of which the newest is loaded.
            rules: how the arrays of the State's model become those of this
                one, if it is a model of yours with other names. As for
                `port`: a plan, text, or a dict of text.
            like: the model of that run, if the rules go by its own names
                and axis orders, as a plan of `align` does. Without it, they
                go by the names in the State.

        Returns:
            The trainer itself.

        Raises:
            StateError: naming the entries that are missing, extra or of the
                wrong shape or dtype. Nothing has changed then.

        Warns:
            UserWarning: if the file was saved with another optimizer, loss or
                metrics, naming both, or if it has NaN in it. The next `fit`
                compares the batch size and the data set.
        """
        if isinstance(state, State):
            state = Saved(state, {}, "")
        elif not isinstance(state, Saved):
            to_devices = rules is None and like is None
            where = self.placement if to_devices else ONE_DEVICE
            state = manifest.read(state, where)
        state, meta, source = state
        # The arrays of a large file are read one after the other.
        streams = streaming.is_large(self._leaves) and rules is like is None
        if not (streams and source):
            state = self.placement.to_host(state)
        if rules is not None or like is not None:
            with self._x64():
                state = carrying.carry(
                    state, rules, self.subject, self.state(), like
                )
        members.require_members(state, self.settings.ensemble, source)
        whole = streams or self._stacked
        expected = self.described().flat() if whole else self.canonical()
        state.require_like(State.from_flat(expected))
        if meta:
            identity.warn_of_changes(meta, identity.identify(self), source)
        with self._x64():
            if streams:
                arrays = streaming.Flat(state)
                streaming.load_leaves(
                    self.pure.load, self._leaves, arrays, self.placement
                )
            else:
                flat = self.placement.put_state(state.flat())
                self._leaves = self._loaded(flat)
        self.steps_taken = int(state.step)
        self.run_key = members.order_key(state, meta, self.settings.ensemble)
        self.place = Place(int(state.rng["epoch"]), int(state.rng["position"]))
        self.fitted = {k: meta[k] for k in manifest.FITTED if k in meta}
        self._loaded_from = source
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the State to a safetensors file, atomically.

        The file's header records how to build the trainer again, and which
        optimizer, loss and metrics it had. Of several processes, all have to
        call this method, and the first one writes.

        Args:
            path: the file to write.

        Raises:
            OSError: if the file cannot be written. In the other processes
                it is a `BatchError`.
        """
        state, header = self.state(), manifest.manifest(self)

        def write():
            if self.placement.process == 0:
                state.save(path, header)

        self.placement.together(write)

    def with_optimizer(self, optimizer: Any) -> "Trainer":
        """Returns a new trainer that differs only in its optimizer.

        It starts from the initial values, at step 0.

        Args:
            optimizer: as for `build`.

        Raises:
            ValueError: if it is not an optimizer, or cannot be traced.
        """
        return Trainer(
            self.subject,
            optimizer=optimizer,
            loss=self.backend.loss,
            metrics=self.backend.metrics,
            seed=self.seed,
            settings=self.settings,
        )

    def member(self, index: int) -> "Trainer":
        """Returns a trainer of one member of the ensemble.

        It is a copy, and continues alone. It is the trainer that `build`
        returns for the seed `seed + index`, but sees the examples in the
        order of the ensemble, also after `save`.

        Args:
            index: the number of the member, from 0.

        Raises:
            ValueError: if there is no such member.
        """
        return members.trainer_of(self, index)

    def __repr__(self) -> str:
        return (
            f"Trainer({self.name!r}, backend={self.backend.name!r}, "
            f"dtype={self.dtype!r}, step={self.steps_taken}"
            f"{self.settings.changes()})"
        )
