"""The two contracts: what a model means, and what a library must do with it.

A `Spec` is the meaning of a model, a `Backend` is a library that can build
that meaning and train it. Everything else is written once, over these two.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Any,
    ClassVar,
    NamedTuple,
    Protocol,
    TypeVar,
    runtime_checkable,
)

import jax
import optax
from jaxtyping import Array, PRNGKeyArray

from common.state import State

Arrays = dict[str, Array]
"""Arrays by canonical name."""

Metrics = dict[str, Array]
"""Scalars by name; `"loss"` is always one of them."""

Loss = Callable[[Any, Any], Array]
"""`(predictions, targets) -> scalar`."""


class Shaped(NamedTuple):
    """What a batch must look like, without its leading batch axis.

    Attributes:
        shape: the shape of one example.
        kind: `"float"` for the model's own dtype, `"int"` for any integer, or
            `"bool"` for a mask (of a layer only).
    """

    shape: tuple[int, ...]
    kind: str = "float"


class Variable(NamedTuple):
    """One canonical array of a model.

    Attributes:
        shape: its canonical shape (PyTorch's axis order).
        init: `(key, shape) -> value`; floats are drawn in float32.
        trainable: a parameter if true, else a buffer.
    """

    shape: tuple[int, ...]
    init: Callable[[PRNGKeyArray, tuple[int, ...]], Array]
    trainable: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec(abc.ABC):
    """What a model means: hyper-parameters, variables and a plain forward.

    A subclass is a frozen dataclass whose fields are the hyper-parameters.
    The model classes of both libraries take the same fields as keywords, and
    live in `impl_<library>/models/<name>.py` under the spec's class name.

    Attributes:
        name: what it goes by.
        loss: the name of its loss.
        metrics: names of its metrics.
        data: the data set that the command line trains it on.
    """

    name: ClassVar[str]
    loss: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    data: ClassVar[str] = "waves"

    @abc.abstractmethod
    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer that `build` uses unless told otherwise."""

    @property
    @abc.abstractmethod
    def inputs(self) -> Shaped:
        """One example of the input, channels last."""

    @property
    def min_batch_size(self) -> int:
        """The smallest batch on which a training step is meaningful."""
        return 1

    @property
    def zero_gradient(self) -> frozenset[str]:
        """Parameters with elements whose true gradient is zero in training.

        What is left of it is round-off, of which Adam makes a full-sized
        step, so `compare` takes it off.
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
        """Computes the batch's predictions and the updated buffers.

        Args:
            params: trainable arrays by canonical name.
            buffers: the other arrays by canonical name.
            xs: a batch, channels last.
            key: the key of this step; unused when not training.
            training: batch statistics and dropout if true.
        """

    def init(self, key: PRNGKeyArray) -> tuple[Arrays, Arrays]:
        """Draws the initial parameters and buffers, in float32.

        Every backend starts from these values, so that the same seed means
        the same model everywhere.
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
    """A row of the layer table in one library."""

    def forward(
        self,
        params: Arrays,
        buffers: Arrays,
        *inputs: Any,
        key: PRNGKeyArray,
        training: bool,
    ) -> tuple[Any, Arrays]:
        """Calls the library's layer, as a pure function.

        Args:
            params: trainable arrays by canonical name; the layer computes in
                their dtype.
            buffers: the other arrays by canonical name.
            inputs: a batch of each input, channels last.
            key: for what the call draws.
            training: batch statistics and dropout if true.

        Returns:
            The outputs, and the updated buffers by canonical name.
        """
        ...

    def write(self, params: Any, buffers: Any) -> Any:
        """Returns the library's own object that holds these arrays."""
        ...

    def read(self, native: Any) -> tuple[Any, Any]:
        """Inverts `write`."""
        ...


Native = TypeVar("Native")
Rebuild = Callable[[Sequence[Any]], Any]


class Backend(Protocol[Native]):
    """A library that trains one spec, on its own real objects.

    Made from the spec, the library's class of the model (`None` for the
    reference, where the spec is the model), an optax optimizer, a loss and
    named metrics. All methods are pure in their arguments: a library that
    mutates its objects (Flax) may mutate `native`, and the caller does not
    use what it passed in again.
    """

    name: str
    spec: Spec
    optimizer: optax.GradientTransformation
    loss: Loss
    metrics: Mapping[str, Loss]

    def __init__(
        self,
        spec: Spec,
        model_class: Any,
        optimizer: optax.GradientTransformation,
        loss: Loss,
        metrics: Mapping[str, Loss],
    ) -> None: ...

    def init(
        self, params: Arrays, buffers: Arrays, key: PRNGKeyArray
    ) -> Native:
        """Builds the native object at step 0 from canonical values.

        Its floating dtype is that of `params`. `key` is the run's base key:
        the key of a step is `fold_in(key, step)`.
        """
        ...

    def step(self, native: Native, batch: Any) -> tuple[Native, Metrics]:
        """Takes one training step on `batch = (xs, ys)`.

        Un-jitted and in the library's own idiom. The metrics are those of
        the training forward pass.
        """
        ...

    def predict(self, native: Native, xs: Any) -> Any:
        """Runs the model in inference mode, leaving its buffers alone."""
        ...

    def split(self, native: Native) -> tuple[dict[str, Array], Rebuild]:
        """Splits into arrays by native path, and the way back from them.

        The inverse takes the arrays in the same order and may be called on
        tracers.
        """
        ...

    def state(self, native: Native) -> State:
        """Reads the canonical State; its arrays are native ones, in canonical
        layout."""
        ...

    def load(self, native: Native, state: State) -> Native:
        """Returns the native object that holds the values of `state`.

        Args:
            native: gives the structure and the dtypes.
            state: complete and of the right shapes; the Trainer has checked.
        """
        ...
