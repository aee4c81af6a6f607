"""What a trainer trains: the model of a spec, or a model of the user."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from common.layouts import Role
from common.native import NativeModel
from common.protocol import Backend, Loss, Settings, Spec
from common.training import checks
from common.training.leaves import NARROWED, initial_values
from common.training.native_backend import NativeBackend, UserStep
from common.training.native_checks import NativeFit


@runtime_checkable
class Subject(Protocol):
    """What a trainer must know of the model that it trains.

    Attributes:
        spec: the definition of the model, or `None` for a model of the user.
        model: the model of the user, or `None` for that of a spec.
        name: the name of the model.
        dtype: the dtype of its floating arrays; the widest if there are
            several.
        hyper_parameters: the arguments that the model was built with.
        min_batch_size: the smallest batch that it can be trained on.
    """

    @property
    def spec(self) -> Spec | None: ...

    @property
    def model(self) -> NativeModel | None: ...

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def hyper_parameters(self) -> dict[str, Any]: ...

    @property
    def min_batch_size(self) -> int: ...

    def optimizer(self) -> Any:
        """Returns the default optimizer.

        Raises:
            ValueError: if there is none.
        """
        ...

    def backend(
        self,
        optimizer: Any,
        loss: Loss | None,
        metrics: Mapping[str, Loss],
        settings: Settings,
    ) -> Backend:
        """Returns the backend that trains the model."""
        ...

    def start(
        self,
        backend: Backend,
        init_key: PRNGKeyArray,
        run_key: PRNGKeyArray,
        member: int = 0,
    ) -> Any:
        """Returns the backend's native object at step 0.

        Args:
            backend: as `backend` returned it.
            init_key: determines the initial values of a spec's model.
            run_key: the key of the run.
            member: the number of the member of an ensemble.
        """
        ...

    def member(self, member: int) -> "Subject":
        """Returns the model of one member of an ensemble."""
        ...

    def fit(self) -> checks.Fit:
        """Returns the checks of the inputs."""
        ...

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each parameter by canonical name."""
        ...

    def native(self, native: Any) -> Any:
        """Returns the user's view of the backend's native object."""
        ...


@dataclasses.dataclass(frozen=True)
class SpecSubject:
    """The model of a spec, in one backend.

    Attributes:
        spec: the definition of the model.
        make_backend: `(optimizer, loss, metrics, settings) -> Backend`.
        dtype: the dtype of all floating arrays.
    """

    spec: Spec
    make_backend: Callable[..., Backend]
    dtype: str

    @property
    def model(self) -> None:
        return None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self.spec)

    @property
    def min_batch_size(self) -> int:
        return self.spec.min_batch_size

    def optimizer(self):
        return self.spec.optimizer()

    def backend(self, optimizer, loss, metrics, settings):
        return self.make_backend(optimizer, loss, metrics, settings)

    def start(self, backend, init_key, run_key, member=0):
        del member  # it has keys of its own
        params, buffers = jax.tree.map(
            lambda x: jnp.asarray(
                x, self.dtype if x.dtype == np.float32 else None
            ),
            initial_values(self.spec, init_key),
        )
        return backend.init(params, buffers, run_key)

    def member(self, member):
        del member  # all are of this spec
        return self

    def fit(self):
        return checks.SpecFit(self.spec, self.dtype)

    def parameters(self):
        return {
            name: variable.shape
            for name, variable in self.spec.variables().items()
            if variable.trainable
        }

    def native(self, native):
        return native


class NativeSubject:
    """A model of the user, in the library that it is written in.

    The model is copied, so that a later change of an NNX module does not
    reach the trainer.
    """

    spec = None
    min_batch_size = 1

    def __init__(
        self,
        model: NativeModel,
        *,
        dtype: str | None,
        step: UserStep | None = None,
        carry: Any = None,
        members: Sequence[NativeModel] = (),
    ):
        """Makes the subject.

        Args:
            model: the model, with its initial values.
            dtype: the dtype to cast all floating arrays to. If `None`, each
                keeps its own.
            step: the model's own training step, if it has one.
            carry: what that step carries besides the model.
            members: the models of an ensemble, which differ in the values of
                their arrays. If there are none, all start from `model`.

        Raises:
            ValueError: if a parameter is not a floating array, or if the
                members have different arrays.
        """
        self.model = _converted(model, dtype)
        self.members = [_converted(one, dtype) for one in members]
        for i, one in enumerate(self.members):
            _require_arrays_of(self.model, one, i)
        self.name = self.model.name
        self.dtype = dtype or _widest(self.model)
        self.hyper_parameters: dict[str, Any] = {}
        self._step = step
        self._carry = carry

    def optimizer(self):
        raise ValueError(
            f"optimizer: got None, expected an optax.GradientTransformation "
            f"to train {self.name}, which has no default. Pass one, as in "
            "`optimizer=optax.adam(1e-3)`."
        )

    def backend(self, optimizer, loss, metrics, settings):
        return NativeBackend(
            self.model,
            optimizer,
            loss,
            metrics,
            settings,
            self._step,
            self._carry,
        )

    def start(self, backend, init_key, run_key, member=0):
        del init_key  # the model has its initial values
        model = self.members[member] if self.members else self.model
        return backend.init(model.arrays(), {}, run_key)

    def member(self, member):
        if not self.members:
            return self
        return NativeSubject(
            self.members[member],
            dtype=None,  # they have been converted
            step=self._step,
            carry=self._carry,
        )

    def fit(self):
        own_step = self._step is not None
        return NativeFit(self.model, self.dtype, own_step)

    def parameters(self):
        layouts = self.model.layouts
        return {n: layouts.shapes[n] for n in layouts.names(Role.PARAMETER)}

    def native(self, native):
        return self.model.with_arrays(native.arrays)


def _converted(model: NativeModel, dtype: str | None) -> NativeModel:
    """Returns a copy of a model whose arrays have the dtypes to train in.

    Without 64-bit floats, the model is trained without 64-bit integers too,
    as JAX does by default.
    """
    name = dtype or _widest(model)
    new = {}
    for path, info in model.infos.items():
        x = info.value
        is_number = jnp.issubdtype(x.dtype, jnp.inexact)
        if info.role is Role.PARAMETER and not is_number:
            raise ValueError(
                f"parameter {path!r} of {model.name}: got {x.dtype}, expected "
                "a floating dtype, because it is trained. Keep the array in "
                "an `nnx.Variable` of another type."
            )
        if jnp.issubdtype(x.dtype, jnp.floating) and dtype is not None:
            new[path] = jnp.asarray(x, dtype)
        elif x.dtype in NARROWED and name != "float64":
            new[path] = jnp.asarray(x, NARROWED[x.dtype])
    return model.copy(new)


def _require_arrays_of(
    model: NativeModel, member: NativeModel, number: int
) -> None:
    """Checks that a member has arrays of the same names and types."""
    types = [
        {name: (x.value.shape, x.value.dtype) for name, x in m.infos.items()}
        for m in (model, member)
    ]
    for name in sorted(types[0].keys() | types[1].keys()):
        want, got = (x.get(name) for x in types)
        if got != want:
            raise ValueError(
                f"array {name!r} of member {number}: got {got}, expected "
                f"{want} as in member 0. Pass models that differ only in the "
                "values of their arrays."
            )


def _widest(model: NativeModel) -> str:
    """Returns the widest floating dtype of a model's arrays."""
    dtypes = [
        jnp.finfo(x.value.dtype).dtype
        for x in model.infos.values()
        if jnp.issubdtype(x.value.dtype, jnp.inexact)
    ]
    widest = max(dtypes, key=_bits, default=np.dtype("float32"))
    return widest.name


def _bits(dtype: np.dtype) -> int:
    return jnp.finfo(dtype).bits
