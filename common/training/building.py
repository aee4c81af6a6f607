"""`build`: makes a `Trainer` of a spec's model or of a model of the user."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from jax.typing import DTypeLike

from common.environment import flag
from common.models import find_spec
from common.native import Call, NativeModel
from common.protocol import Loss, Settings, Spec
from common.registry import find_backend, find_model, resolve
from common.training import (
    losses,
    manifest,
    part_checks,
    processes,
    sharding,
)
from common.training.native_backend import UserStep
from common.training.precision import (
    find_compute_dtype,
    find_name,
    require_parameters,
)
from common.training.subjects import NativeSubject, SpecSubject
from common.training.trainer import Trainer

DTYPES = ("float32", "float64")
DEFAULT = "stateful_mlp"


def find_dtype(dtype: DTypeLike) -> str:
    """Returns the name of a dtype that a model can have.

    Raises:
        ValueError: if a model cannot have this dtype.
    """
    return find_name("dtype", dtype, DTYPES)


def build(
    spec: Any = None,
    *,
    model: Any = None,
    backend: str | None = None,
    optimizer: Any = None,
    loss: str | Loss | None = None,
    metrics: str | Sequence[str] | Mapping[str, str | Loss] | None = None,
    call: Call | None = None,
    step: UserStep | None = None,
    carry: Any = None,
    seed: Any = 0,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
    shard: Any = None,
    accumulate: int = 1,
    sync_batch_norm: bool = True,
    ensemble: int | None = None,
    compute_dtype: DTypeLike | None = None,
    **hyper_parameters: Any,
) -> Trainer:
    """Builds a trainer of a spec's model, or of a model of yours.

    The initial values of a spec's model depend only on the spec and the seed,
    so they are the same in every backend. A model of yours starts from the
    values that it has. It is copied and never changed:

        trainer = build(model=my_model, loss="mse", optimizer=optax.adam(1e-3))

    Args:
        spec: a name from `specs()`, or a spec instance, which may come from
            an installed package. By default the model of Equinox's example.
        model: a model of yours: an Equinox model, a pair of a model and its
            `eqx.nn.State`, or an NNX module. It may also be passed as the
            first argument.
        backend: a name from `backends()`; `"nnx"` means `"flax"`. There is
            no default. A model of yours is trained in its own library.
        optimizer: any optax transformation that takes one gradient of the
            whole batch, including those that require `value`, `grad`,
            `value_fn`, `obj_fn` or `grad_fn`. It sees parameters as a flat
            dict by canonical name, so masks and labels are functions of such
            a dict. The arrays have canonical axis order if the order affects
            the update, and the library's own order otherwise. If `None`, the
            spec's default optimizer. With `step`, also a dict of
            transformations by the dotted path of the part that each trains.
        loss: `"mse"`, `"cross_entropy"` or a callable
            `(predictions, targets) -> scalar`. By default, the spec's loss. A
            model of yours has no default.
        metrics: a name, several names, or a dict from names to callables like
            a loss. By default, the spec's metrics.
        call: how a model of yours is called on a batch:
            `call(native, xs, *, training, key) -> (outputs, native)`. By
            default as the library's own examples do: an Equinox model on
            each example under `jax.vmap`, with its state and a key if it
            takes them, and an NNX module on the whole batch.
        step: a training step of your own, for several optimizers or carried
            state; see `common.training.native_backend.UserStep`.
        carry: what that step carries besides the model, at first: any pytree
            of arrays.
        seed: an integer of 32 bits. It determines the initial values of a
            spec's model, the dropout masks and the data order.
        dtype: the dtype of all floating arrays, `"float32"` or `"float64"`.
            By default, `"float32"` for a spec, and the dtypes that the arrays
            have for a model of yours. A layer that was built with a dtype,
            such as `nnx.Embed`, still computes in that one.
        mesh: the devices to train on, such as
            `jax.make_mesh((8,), ("data",))`. Batches are split over the axis
            called `"data"`, or over the only one. The results are those of
            one device but for rounding. A mesh may span several processes;
            each of them then calls everything with its own part of the data.
        shard: how parameters, and what the optimizer keeps of them, are split
            over the mesh. By default each device has all of them. `"fsdp"`
            splits the largest axis that the devices divide. A function
            `rule(name, shape) -> jax.sharding.PartitionSpec` decides by
            canonical name and shape; `None` stands for no split.
        accumulate: in how many parts each batch is computed, one after the
            other, to save memory. Their gradients and metrics are averaged
            before the only update, so the loss has to be a mean over
            examples. The numbers are those of the whole batch but for
            rounding, dropout masks included, unless the model has batch
            statistics: a part has its own, and updates the running ones.
        sync_batch_norm: whether the devices of a mesh share the statistics
            of a batch. Without it, each device has those of its own examples,
            and the running statistics become their mean. Without a mesh it
            has no effect. Dropout masks are those of the whole batch.
        ensemble: how many members to train side by side in one program.
            Member i is the trainer of the seed `seed + i`, but all see the
            same batches. Metrics and every array of the State get a leading
            axis for the member. All members of a model of yours start from
            its values, unless `model` is a list of one for each.
        compute_dtype: `"bfloat16"` or `"float16"`, for mixed precision: the
            matrix products and convolutions compute in this dtype, and so do
            the operations between them. The parameters, the optimizer state
            and the statistics stay in float32, and so do the arithmetic of
            norms, the loss and the metrics. By default, everything is in the
            dtype of the parameters. The loss is not scaled, so gradients
            below the smallest float16 become zero. In Equinox, the arrays are
            cast inside the loss. In Flax NNX, the layers' `dtype` is set: of
            a model of yours, that of all layers with the attributes `dtype`
            and `param_dtype`.
        **hyper_parameters: fields of the spec to set.

    Returns:
        A trainer at step 0.

    Raises:
        TypeError: for a model that is of neither library.
        ValueError: for an unknown name, arguments that exclude each other, a
            missing optimizer or loss, an optimizer that cannot be traced,
            `"float64"` without x64, a mesh or rule that does not fit, or a
            `compute_dtype` for parameters that are not float32 or for a step
            of your own.
        BatchError: if the processes of a mesh were given different values.
        HyperParameterError: for one that the spec does not have.
        BackendNotInstalledError: if the backend's library is missing.
        ModelNotFoundError: if the backend has no model class for the spec.
    """
    if model is None and not isinstance(spec, str | Spec | None):
        spec, model = None, spec
    settings = Settings(
        mesh=sharding.check_mesh(mesh, shard),
        shard=shard,
        accumulate=part_checks.check_accumulate(accumulate),
        sync_batch_norm=part_checks.check_sync_batch_norm(sync_batch_norm),
        ensemble=part_checks.check_ensemble(ensemble, model, mesh),
        compute_dtype=find_compute_dtype(compute_dtype),
    )
    make = functools.partial(
        _make,
        spec,
        model,
        settings,
        backend=backend,
        optimizer=optimizer,
        loss=loss,
        metrics=metrics,
        call=call,
        step=step,
        carry=carry,
        seed=seed,
        dtype=dtype,
        hyper_parameters=hyper_parameters,
    )
    if settings.mesh is None or not settings.mesh.is_multi_process:
        return make()
    trainer = processes.together(make)
    trainer.placement.require_same(
        {
            **manifest.manifest(trainer),
            "initial values": trainer.placement.digest,
        }
    )
    return trainer


def _make(
    spec: Any,
    model: Any,
    settings: Settings,
    *,
    backend: str | None,
    optimizer: Any,
    loss: str | Loss | None,
    metrics: str | Sequence[str] | Mapping[str, str | Loss] | None,
    call: Call | None,
    step: UserStep | None,
    carry: Any,
    seed: Any,
    dtype: DTypeLike | None,
    hyper_parameters: dict[str, Any],
) -> Trainer:
    if model is None:
        require_unset("a spec", call=call, step=step, carry=carry)
        subject = _subject_of_spec(spec, backend, dtype, hyper_parameters)
        spec = subject.spec
        loss = spec.loss if loss is None else loss
        metrics = spec.metrics if metrics is None else metrics
    else:
        require_unset("a model of yours", spec=spec, **hyper_parameters)
        if step is not None:
            require_unset(
                "a step of yours",
                BY_STEP,
                compute_dtype=settings.compute_dtype,
            )
        subject = _subject_of_model(
            model,
            backend,
            dtype,
            settings.compute_dtype,
            call,
            step,
            carry,
        )
        require_loss(subject.name, loss, optimizer, step)
        if step is not None:
            part_checks.require_no_user_step(subject.name, settings)
    _require_settings(subject.dtype)
    require_parameters(subject.dtype, settings.compute_dtype)
    return Trainer(
        subject,
        optimizer=optimizer,
        loss=None if loss is None else losses.find_loss(loss),
        metrics=losses.find_metrics(() if metrics is None else metrics),
        seed=part_checks.check_seeds(seed, settings.ensemble),
        settings=settings,
    )


def _subject_of_spec(
    spec: str | Spec | None,
    backend: str | None,
    dtype: DTypeLike | None,
    hyper_parameters: dict[str, Any],
) -> SpecSubject:
    make_backend = find_backend(backend)
    spec = find_spec(DEFAULT if spec is None else spec, hyper_parameters)
    model_class = find_model(backend, spec)
    return SpecSubject(
        spec,
        functools.partial(make_backend, spec, model_class),
        "float32" if dtype is None else find_dtype(dtype),
    )


def _subject_of_model(
    model: Any,
    backend: str | None,
    dtype: DTypeLike | None,
    compute_dtype: str | None,
    call: Call | None,
    step: UserStep | None,
    carry: Any,
) -> NativeSubject:
    models = model if isinstance(model, list) else [model]
    members = [NativeModel(one, call, compute_dtype) for one in models]
    native = members[0]
    if backend is not None and resolve(backend) != native.library:
        raise ValueError(
            f"backend: got {backend!r} for {native.name}, expected "
            f"{native.library!r}, the library of the model. Leave `backend` "
            "out."
        )
    name = None if dtype is None else find_dtype(dtype)
    if name is not None:
        _require_settings(name)
    return NativeSubject(
        native,
        dtype=name,
        step=step,
        carry=carry,
        members=members if isinstance(model, list) else (),
    )


BY_CLASS = "Leave it out; a model of yours is built by its own class."
BY_STEP = "Leave it out, and cast the arrays in the loss of your step."


def require_unset(what: str, fix: str = BY_CLASS, **arguments: Any) -> None:
    """Checks that arguments which do not apply have not been passed.

    Args:
        what: what they do not apply to.
        fix: what to do about it.
        **arguments: the values by name, `None` if not passed.

    Raises:
        ValueError: naming those that have.
    """
    found = [name for name, x in arguments.items() if x is not None]
    if found:
        raise ValueError(
            f"build: got {', '.join(found)} with {what}, expected no such "
            f"argument. {fix}"
        )


def require_loss(name: str, loss: Any, optimizer: Any, step: Any) -> None:
    """Checks that a model of the user comes with what it is trained with.

    Raises:
        ValueError: naming the argument that is missing.
    """
    if step is None and loss is None:
        raise ValueError(
            f"loss: got None, expected a loss to train {name} with. Pass "
            '"mse", "cross_entropy" or a function of predictions and targets.'
        )
    if step is None and isinstance(optimizer, Mapping):
        raise ValueError(
            f"optimizer: got a dict, expected one optax transformation to "
            f"train {name} with. Pass `step` to apply several, or join them "
            "with `optax.partition`."
        )


def _require_settings(dtype: str) -> None:
    """Checks the JAX settings that a trainer depends on."""
    if dtype == "float64" and not flag("jax_enable_x64"):
        raise ValueError(
            "dtype: got 'float64' while x64 is off, expected x64 to be on. "
            'Call `jax.config.update("jax_enable_x64", True)` first.'
        )
    if not flag("jax_threefry_partitionable"):
        raise ValueError(
            "jax_threefry_partitionable: got False, expected True, because "
            "the libraries draw different random numbers without it. Call "
            '`jax.config.update("jax_threefry_partitionable", True)`.'
        )
