"""`as_nnx` and `as_equinox`: live views of a model in the other library."""

from typing import Any

from common.registry import find_views, library_of

NAMES = {"equinox": "an Equinox model", "flax": "an NNX module"}
FUNCTIONS = {"equinox": "as_nnx", "flax": "as_equinox"}


def as_nnx(model: Any, state: Any = None, *, trainable: Any = None) -> Any:
    """Returns an Equinox model as a live NNX module.

    The module's attributes, lists and dicts are those of the model, and each
    array is a Variable of its own: a trainable array is an `nnx.Param`, and
    an array of the state is an `nnx.BatchStat`. Integer and boolean arrays,
    keys, and arrays that are not trained are plain attributes, which no
    filter for a type of Variable selects. Everything else, such as an
    activation function, is a static attribute. A tied array is one Variable.

    Every method of the model is a method of the module, and so is that of
    each layer. A method with a parameter `state` is called without this
    argument. The module passes the state that its Variables hold, writes the
    new state that the method returns back into them, and returns the rest:
    `view(x)` returns `y` where the model returns `(y, state)`. To handle a
    state yourself, pass it; then the method returns what it returns in
    Equinox, and the Variables keep their values.

    `view.eval()`, `view.train()` and `nnx.view` set the `inference` of all
    layers: a layer with state answers to `use_running_average`, and the
    others to `deterministic`. `view.original()` returns the Equinox model
    with the current values, and so does `as_equinox(view)`.

    Args:
        model: an `eqx.Module`, or a pair of a model and its state. What
            `as_equinox` returned becomes an NNX module of the original class.
        state: the model's `eqx.nn.State`, if it has one.
        trainable: a filter as `eqx.partition` takes one: a function of a
            leaf, or a tree of booleans of the model's structure. By default
            `eqx.is_inexact_array`, except below a module of a class
            `NonTrainable`, as paramax and flowjax define it.

    Raises:
        TypeError: if `model` is not an Equinox model, or `state` is not its
            state.
        ValueError: if the state is missing or is that of another model, or if
            an array is where `jax.tree` does not find it.
    """
    return _view(model, state, "equinox", "flax", trainable)


def as_equinox(module: Any, *, trainable: Any = None) -> Any:
    """Returns an NNX module as a live Equinox model.

    The model's attributes, lists and dicts are those of the module. Each
    trainable array is a leaf, as `eqx.is_inexact_array` finds it. The values
    of all other Variables, such as batch statistics, caches, counters and
    keys, are in an `eqx.nn.State`, and so are floating arrays that are not in
    a Variable, because `eqx.filter_grad` would train them as leaves. Integer
    and boolean arrays that are not in a Variable are leaves.

    Every method of the module is a method of the model, and so is that of
    each layer. If the model has state, pass it as an argument in any place;
    the method then returns a pair of its outputs and the new state:
    `y, state = view(x, state)`. As in NNX, the module is called on a whole
    batch.

    A module with an attribute `deterministic` or `use_running_average` is a
    module with an attribute `inference` here, which `eqx.nn.inference_mode`
    sets. `view.original(state)` returns an NNX module with the current
    values, and so does `as_nnx(view, state)`.

    Args:
        module: an `nnx.Module`; it is never changed. What `as_nnx` returned
            becomes an Equinox model of the original class.
        trainable: an NNX filter of the Variables to train, `nnx.Param` by
            default.

    Returns:
        The model, or a pair of the model and its `eqx.nn.State` if it has
        any, as `eqx.nn.make_with_state` would return it.

    Raises:
        TypeError: if `module` is not an NNX module.
        ValueError: if a Variable has a value that is not an array.
    """
    return _view(module, None, "flax", "equinox", trainable)


def _view(
    native: Any, state: Any, source: str, target: str, trainable: Any
) -> Any:
    """Makes a view, or takes the original out of one."""
    library = library_of(native)
    views = find_views(library)
    if state is None and isinstance(native, tuple) and len(native) == 2:
        native, state = native
    view: Any = native
    if isinstance(view, views.view) and library == source:
        if trainable is not None:
            raise TypeError(
                f"trainable: got {trainable!r}, expected None, because "
                f"`{FUNCTIONS[source]}` takes the original out of a view. "
                "Leave the argument out."
            )
        return view.original(*(() if state is None else (state,)))
    if library != source:
        raise TypeError(
            f"{FUNCTIONS[source]}: got {NAMES[library]}, "
            f"{type(native).__name__}, expected {NAMES[source]}. It needs no "
            f"view in its own library; `{FUNCTIONS[library]}` makes one in "
            "the other."
        )
    part, values = views.part(native, state, trainable)
    return find_views(target).make(part, values)
