"""The two contracts: how a model is defined, and what a library does with it.

A `Spec` defines a model, and a `Backend` is a library that builds and trains
it. Everything else in `common` is written once, over these two.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    overload,
    runtime_checkable,
)

import jax
import optax
from jaxtyping import Array, PRNGKeyArray

from common.state import State

Arrays = dict[str, Array]
"""Arrays by canonical name."""

Metrics = dict[str, Array]
"""Scalars by name. One of them is `"loss"`."""

Loss = Callable[[Any, Any], Array]
"""`(predictions, targets) -> scalar`."""


class Shaped(NamedTuple):
    """The shape and kind of one example of a batch.

    Attributes:
        shape: the shape of one example, without the batch axis.
        kind: `"float"` for the model's dtype, `"int"` for any integer dtype,
            or `"bool"` for a mask (layers only).
    """

    shape: tuple[int, ...]
    kind: str = "float"


class Variable(NamedTuple):
    """The declaration of one canonical array of a model.

    Attributes:
        shape: the canonical shape, in PyTorch's axis order.
        init: `(key, shape) -> value`. Floating values are drawn in float32.
        trainable: whether the array is a parameter; otherwise it is a buffer.
        wide: whether a parameter stays in float32 where the model computes in
            a narrower dtype, as those of norms do. Buffers always do.
    """

    shape: tuple[int, ...]
    init: Callable[[PRNGKeyArray, tuple[int, ...]], Array]
    trainable: bool = True
    wide: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec(abc.ABC):
    """The definition of a model: hyper-parameters, variables and a forward.

    A subclass is a frozen dataclass whose fields are the hyper-parameters.
    The model classes of both libraries take the same fields as keyword
    arguments. `model_class` returns them; the classes of this project's own
    specs are in `impl_<library>/models/<name>.py` under the name of the
    spec's class.

    Attributes:
        name: the name that `build` takes.
        loss: the name of the default loss.
        metrics: the names of the default metrics.
        data: the name of the data set that the command line trains it on.
        program_fields: the hyper-parameters that change how a step is
            compiled, and nothing that it computes.
    """

    name: ClassVar[str]
    loss: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    data: ClassVar[str] = "waves"
    program_fields: ClassVar[tuple[str, ...]] = ()

    def same_model(self) -> "Spec":
        """Returns the spec with the defaults of `program_fields`.

        Two specs for which it is equal train the same model.
        """
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(self)
            if field.name in self.program_fields
        }
        return dataclasses.replace(self, **defaults)

    @abc.abstractmethod
    def optimizer(self) -> optax.GradientTransformation:
        """Returns the default optimizer."""

    @property
    @abc.abstractmethod
    def inputs(self) -> Shaped:
        """One example of the input, channels last."""

    def model_class(self, library: str) -> type | None:
        """Returns the model's class in a library.

        A spec of an installed package defines this method. It can import the
        class here, so that only the library that is in use is imported:

            def model_class(self, library):
                if library == "equinox":
                    from my_package.in_equinox import MyModel
                else:
                    from my_package.in_flax import MyModel
                return MyModel

        Args:
            library: `"equinox"` or `"flax"`.

        Returns:
            A class whose constructor takes the spec's fields as keyword
            arguments, and `key` in Equinox or `rngs` in Flax. A class of Flax
            may also take `dtype`, the dtype that its layers compute in;
            otherwise `build(compute_dtype=...)` sets that of each layer. If
            `None`, the class is looked up in this project.
        """
        del library
        return None

    @property
    def min_batch_size(self) -> int:
        """The smallest batch on which a training step is meaningful."""
        return 1

    @property
    def zero_gradient(self) -> frozenset[str]:
        """Parameters with elements whose true gradient is zero in training.

        Their computed gradient is round-off. Adam amplifies this round-off to
        a full step, so `compare` zeroes it.
        """
        return frozenset()

    @abc.abstractmethod
    def variables(self) -> dict[str, Variable]:
        """Returns every parameter and buffer by canonical name."""

    @abc.abstractmethod
    def forward(
        self,
        params: Arrays,
        buffers: Arrays,
        xs: Array,
        *,
        key: PRNGKeyArray | None,
        training: bool,
    ) -> tuple[Array, Arrays]:
        """Computes the predictions for a batch and the updated buffers.

        Args:
            params: trainable arrays by canonical name.
            buffers: the other arrays by canonical name.
            xs: a batch, channels last.
            key: the key of this step. It is not used in inference mode.
            training: whether to use batch statistics and dropout.
        """

    def init(self, key: PRNGKeyArray) -> tuple[Arrays, Arrays]:
        """Draws the initial parameters and buffers in float32.

        Every backend starts from these values, so the same seed gives the
        same model in all of them.
        """
        variables = self.variables()
        keys = jax.random.split(key, len(variables))
        values = {
            name: variable.init(key, variable.shape)
            for key, (name, variable) in zip(
                keys, variables.items(), strict=True
            )
        }
        params = {n: x for n, x in values.items() if variables[n].trainable}
        buffers = {
            n: x for n, x in values.items() if not variables[n].trainable
        }
        return params, buffers


@runtime_checkable
class Counterpart(Protocol):
    """The layer of one library for a row of the layer table."""

    def forward(
        self,
        params: Arrays,
        buffers: Arrays,
        *inputs: Any,
        key: PRNGKeyArray,
        training: bool,
    ) -> tuple[Any, Arrays]:
        """Calls the library's layer as a pure function.

        Args:
            params: trainable arrays by canonical name. The layer computes in
                their dtype.
            buffers: the other arrays by canonical name.
            inputs: a batch of each input, channels last.
            key: the key that the call draws from.
            training: whether to use batch statistics and dropout.

        Returns:
            The outputs, and the updated buffers by canonical name.
        """
        ...

    def write(self, params: Any, buffers: Any) -> Any:
        """Returns the library's own object that holds these arrays."""
        ...

    def read(self, native: Any) -> tuple[Any, Any]:
        """Returns the parameters and buffers of a library's object.

        It is the inverse of `write`.
        """
        ...

    def initial(self, seed: int) -> tuple[Any, Any]:
        """Returns the parameters and buffers of a newly constructed layer."""
        ...

    def native_arrays(self) -> dict[str, Any]:
        """Returns how each canonical array is made of the library's own.

        The values are layouts, whose sources have dotted names.
        """
        ...


NUMERICAL = ("accumulate", "sync_batch_norm", "ensemble", "compute_dtype")
"""The settings that change the numbers of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a trainer computes its steps: on which devices, and in which parts.

    `build` documents each setting, under the same name.
    """

    mesh: jax.sharding.Mesh | None = None
    shard: Any = None
    accumulate: int = 1
    sync_batch_norm: bool = True
    ensemble: int | None = None
    compute_dtype: str | None = None

    def numerical(self) -> dict[str, Any]:
        """The settings that change the numbers, which a file records."""
        return {name: getattr(self, name) for name in NUMERICAL}

    def changes(self) -> str:
        """Shows the settings that change the numbers, if they do."""
        return "".join(
            f", {name}={x!r}"
            for name, x in self.numerical().items()
            if x != getattr(Settings, name)
        )

    @property
    def groups(self) -> int:
        """The number of groups in which batch statistics are computed."""
        if self.sync_batch_norm or self.mesh is None:
            return 1
        return self.mesh.shape.get("data", self.mesh.size)


Native = TypeVar("Native")
Rebuild = Callable[[Sequence[Any]], Any]
"""Rebuilds a native object from the arrays that `Backend.split` returns."""


@runtime_checkable
class Backend(Protocol[Native]):
    """A library that builds and trains one model.

    A backend works on a *native* object: a pytree or a tuple of the library's
    own objects (the model, the optimizer state, the random state and the step
    count), never wrappers of them. The `Trainer` calls all methods inside
    `jax.jit`, so each must be traceable and a pure function of its arguments.
    A method may mutate `native`, as Flax does; the caller does not use the
    argument again.

    The constructor of a library's backend takes the spec, the library's model
    class (`None` for the reference, which runs the spec itself), an optax
    optimizer, a loss, metrics by name, and the settings of the steps.

    Attributes:
        name: the name that `build` takes.
        spec: the definition of the model, or `None` for a model of the user.
        optimizer: the optimizer, as the library's own tree of parameters
            needs it.
        loss: the loss.
        metrics: the metrics by name.
    """

    name: str
    spec: Spec
    optimizer: optax.GradientTransformation
    loss: Loss
    metrics: Mapping[str, Loss]

    def init(
        self, params: Arrays, buffers: Arrays, key: PRNGKeyArray
    ) -> Native:
        """Builds the native object at step 0 from canonical values.

        Args:
            params: trainable arrays by canonical name. Their floating dtype
                is that of the model.
            buffers: the other arrays by canonical name.
            key: the key of the run. The key of a step is
                `fold_in(key, step)`.
        """
        ...

    @overload
    def step(
        self, native: Native, batch: Any, *, gradients: Literal[False] = False
    ) -> tuple[Native, Metrics]: ...

    @overload
    def step(
        self, native: Native, batch: Any, *, gradients: Literal[True]
    ) -> tuple[Native, Metrics, Arrays]: ...

    def step(
        self, native: Native, batch: Any, *, gradients: bool = False
    ) -> Any:
        """Takes one training step, written as users of the library would.

        The step is not jitted.

        Args:
            native: the run before the step.
            batch: `(xs, ys)`.
            gradients: whether to return the gradients too.

        Returns:
            The run after the step, and the metrics of the training forward
            pass, before the update. With `gradients`, also the gradients that
            the optimizer received: arrays in canonical axis order, by
            canonical name.
        """
        ...

    def predict(self, native: Native, xs: Any) -> Any:
        """Runs the model in inference mode, which changes no buffer."""
        ...

    def split(self, native: Native) -> tuple[dict[str, Array], Rebuild]:
        """Splits the native object into its arrays and everything else.

        Returns:
            The arrays by native path, and a function that takes them in the
            same order, or tracers in their place, and returns the native
            object.
        """
        ...

    def state(self, native: Native) -> State:
        """Returns the canonical State. Its arrays may alias those of
        `native`."""
        ...

    def load(self, native: Native, state: State) -> Native:
        """Returns the native object that holds the values of a State.

        Args:
            native: an object with the structure and the dtypes to return.
            state: a State whose names and shapes the caller has checked.
        """
        ...
