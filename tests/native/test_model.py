"""`NativeModel`: a model of either library as a function of its arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import nnx

from common.layouts import Role
from common.native import NativeModel
from tests.training import user_models
from tests.training.user_models import MODELS, XS, inputs_of

each_library = pytest.mark.parametrize("library", ["equinox", "flax"])


@each_library
@pytest.mark.parametrize("name", MODELS)
def test_applying_its_own_arrays_is_calling_it(name, library):
    native = user_models.make(name, library)
    model = NativeModel(native)
    outputs, arrays = model.apply(model.arrays(), inputs_of(name))
    assert arrays.keys() == model.arrays().keys() == model.infos.keys()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), *(
        model.apply(x, inputs_of(name))[0] for x in (arrays, model.arrays())
    ))  # fmt: skip
    assert all(jax.tree.leaves(same))
    assert all(len(x) == 8 for x in jax.tree.leaves(outputs))


def test_names_are_the_dotted_paths():
    assert NativeModel(user_models.make("Mlp", "equinox")).infos.keys() == {
        "layers.0.weight",
        "layers.0.bias",
        "layers.2.weight",
        "layers.2.bias",
    }
    infos = NativeModel(user_models.make("Stateful", "flax")).infos
    assert {name: info.role for name, info in infos.items()} == {
        "norm.bias": Role.PARAMETER,
        "norm.scale": Role.PARAMETER,
        "norm.mean": Role.BUFFER,
        "norm.var": Role.BUFFER,
        "linear.bias": Role.PARAMETER,
        "linear.kernel": Role.PARAMETER,
        "dropout.rngs.count": Role.RANDOM_STATE,
        "dropout.rngs.key": Role.RANDOM_STATE,
    }
    assert infos["linear.kernel"].name == "linear.weight"


@each_library
def test_a_call_in_training_mode_returns_the_updated_arrays(library):
    model = NativeModel(user_models.make("Stateful", library))
    before = model.arrays()
    _, after = model.apply(before, XS, training=True, key=jr.key(0))
    changed = {n for n, x in after.items() if differs(x, before[n])}
    buffers = {n for n, x in model.infos.items() if x.role is Role.BUFFER}
    assert buffers <= changed
    assert not any(model.infos[n].role is Role.PARAMETER for n in changed)
    for name, x in model.arrays().items():  # the model itself stays
        assert not differs(x, before[name])


def differs(x, y):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jr.key_data(x), jr.key_data(y)
    return bool((x != y).any())


@each_library
def test_it_can_be_traced_and_differentiated(library):
    model = NativeModel(user_models.make("Mlp", library))
    arrays = model.arrays()

    @jax.jit
    @jax.grad
    def gradient(arrays):
        return jnp.sum(model.apply(arrays, XS)[0] ** 2)

    assert all(x.any() for x in gradient(arrays).values())
    zeros = jax.tree.map(jnp.zeros_like, arrays)
    assert not model.apply(zeros, XS)[0].any()


@each_library
def test_other_arrays_make_another_native_object(library):
    native = user_models.make("Mlp", library)
    model = NativeModel(native)
    zeros = jax.tree.map(jnp.zeros_like, model.arrays())
    other = model.with_arrays(zeros)
    assert type(other) is type(native)
    assert not any(x.any() for x in model.read(other).values())
    assert any(x.any() for x in model.read(native).values())
    cast = model.copy({n: x.astype("bfloat16") for n, x in zeros.items()})
    assert {x.value.dtype.name for x in cast.infos.values()} == {"bfloat16"}


@each_library
def test_parts(library):
    native = user_models.make("Stateful", library)
    model = NativeModel(native)
    owner = native[0] if library == "equinox" else native
    assert model.part("dropout") is owner.dropout
    assert (
        model.name == ("Eqx" if library == "equinox" else "Nnx") + "Stateful"
    )
    layered = NativeModel(user_models.make("Mlp", "equinox"))
    assert isinstance(layered.part("layers.2"), eqx.nn.Linear)
    named = NativeModel({"a": eqx.nn.Linear(2, 2, key=jr.key(0))})
    assert isinstance(named.part("a"), eqx.nn.Linear)
    for path in ("layers.7", "layers.x", "head"):
        with pytest.raises(
            ValueError,
            match=rf"^part of EqxMlp: got '{path}', expected the dotted path "
            r"of a part, but \w+ has no '\w+'\. Write attributes, ",
        ):
            layered.part(path)


def test_a_tied_array_has_one_name():
    class Tied(nnx.Module):
        def __init__(self):
            self.embed = nnx.Embed(5, 3, rngs=nnx.Rngs(0))
            self.head = self.embed

    names = list(NativeModel(Tied()).infos)
    assert len(names) == 1


def test_two_arrays_of_one_dotted_name():
    linear = eqx.nn.Linear(2, 2, use_bias=False, key=jr.key(0))
    layers = {"a": linear, "a.weight": jnp.ones(3)}
    with pytest.raises(
        ValueError,
        match=r"^(dotted|canonical) name 'a\.weight': got the arrays .+, "
        r"expected one\. Rename one of the attributes",
    ):
        NativeModel(layers)


@each_library
def test_arrays_that_the_model_does_not_have(library):
    model = NativeModel(user_models.make("Mlp", library))
    with pytest.raises(
        ValueError,
        match=r"^arrays: got \['nothing'\], expected names among \[.+\]\. Use "
        r"the dotted path of an array\.$",
    ):
        model.with_arrays({"nothing": XS})


# --- calls ------------------------------------------------------------------


def test_a_call_may_return_only_the_new_state():
    def call(native, xs, *, training, key):
        model, state = native
        outputs, state = jax.vmap(
            model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
        )(xs, state)
        return outputs, state

    native = eqx.nn.inference_mode(user_models.make("Stateful", "equinox"))
    model = NativeModel(native, call)
    usual = NativeModel(native)
    assert model.has_own_call and not usual.has_own_call
    outputs, arrays = model.apply(model.arrays(), XS)
    np.testing.assert_array_equal(outputs, usual.apply(usual.arrays(), XS)[0])
    assert arrays.keys() == usual.infos.keys()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda model: XS,
            r"^call of EqxMlp: got ndarray, expected \(outputs, native\)\. "
            r"Return the outputs, and the model, its new state, or None if "
            r"the call changes nothing\.$",
        ),
        (
            lambda model: (XS, model.layers[0]),
            r"^EqxMlp after a call: got Linear of another structure, expected "
            r"the structure that it had before\. Return the model or pair "
            r"with other arrays only\.$",
        ),
    ],
)
def test_calls_that_return_something_else(result, message):
    model = NativeModel(
        user_models.make("Mlp", "equinox"),
        lambda model, xs, training, key: result(model),
    )
    with pytest.raises(TypeError, match=message):
        model.apply(model.arrays(), XS)
