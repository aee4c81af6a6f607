"""Tests of the forms of sources, with files written by their libraries."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx, serialization

from common import State, build
from common.porting import port
from tests.porting import pairs
from tests.porting.pairs import arrays, same


@pytest.fixture
def source():
    return pairs.fill_equinox(pairs.EqxMLP())


def state_dict(model):
    return {name: np.array(x) for name, x in arrays(model).items()}


def is_ported(source, target):
    """Tells whether an NNX module has the arrays of the Equinox model."""
    return same(port(target, pairs.EqxMLP()), source)


def test_a_state_dict(source):
    assert is_ported(source, port(state_dict(source), pairs.NnxMLP()))
    assert same(port(state_dict(source), pairs.EqxMLP()), source)


class Tensor:
    """Stands in for a tensor of PyTorch, which refuses `np.asarray`."""

    def __init__(self, x):
        self.x = x

    def detach(self):
        return self

    def cpu(self):
        return self.x


def test_tensors(source):
    tensors = {name: Tensor(x) for name, x in state_dict(source).items()}
    assert is_ported(source, port(tensors, pairs.NnxMLP()))


def test_a_state_dict_with_batch_norm():
    ours = pairs.fill_flax(pairs.NnxCNN())
    model, state = port(
        ours,
        eqx.nn.make_with_state(pairs.EqxCNN)(),
        flatten={"head": (4, 6, 3)},
    )
    up = jnp.flip(jnp.swapaxes(model.up.weight, 0, 1), (2, 3))
    mean, var = state.get(model.norm.batch_state_index)
    torch = {
        "conv.weight": model.conv.weight,
        "conv.bias": model.conv.bias.reshape(-1),
        "norm.weight": model.norm.weight,
        "norm.bias": model.norm.bias,
        "norm.running_mean": mean,
        "norm.running_var": var,
        "norm.num_batches_tracked": np.array(7),
        "up.weight": up,
        "up.bias": model.up.bias.reshape(-1),
        "head.weight": model.head.weight,
        "head.bias": model.head.bias,
    }
    target = eqx.nn.make_with_state(pairs.EqxCNN)()
    assert same(port(torch, target), (model, state))
    again = port(
        torch, pairs.fill_flax(pairs.NnxCNN(), 3), flatten={"head": (4, 6, 3)}
    )
    assert all(
        np.array_equal(x, arrays(ours)[name])
        for name, x in arrays(again).items()
    )


def test_missing_and_extra_arrays(source):
    names = state_dict(source)
    names["extra"] = np.ones(2)
    del names["norm.bias"]
    with pytest.raises(ValueError) as caught:
        port(names, pairs.NnxMLP())
    message = str(caught.value)
    assert "source extra (2,) float64, largest magnitude 1" in message
    assert "target norm.bias (4,) float64" in message
    assert "extra -> nothing" in message and "nothing -> norm.bias" in message


def test_a_wrong_shape(source):
    names = state_dict(source)
    names["norm.bias"] = np.ones(5)
    with pytest.raises(
        ValueError,
        match=r"norm.bias: got the shape \(5,\) in canonical order, "
        r"expected \(4,\)",
    ):
        port(names, pairs.NnxMLP())


def test_a_safetensors_file(source, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(state_dict(source), path)
    assert is_ported(source, port(path, pairs.NnxMLP()))
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="that are not safetensors"):
        port(path, pairs.NnxMLP())
    header = b'{"w":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="with dtypes that NumPy or ml_"):
        port(path, pairs.NnxMLP())


def test_a_safetensors_file_of_native_names(source, tmp_path):
    path = str(tmp_path / "model.safetensors")
    target = port(source, pairs.NnxMLP())
    safetensors.numpy.save_file(state_dict(target), path)
    assert is_ported(source, port(path, pairs.NnxMLP(nnx.Rngs(7))))
    ported = port(path, pairs.EqxMLP(), like=pairs.NnxMLP(nnx.Rngs(7)))
    assert same(ported, source)


@pytest.mark.parametrize("header", [None, {"size": 4}])
def test_an_eqx_file(source, tmp_path, header):
    path = tmp_path / "model.eqx"
    with path.open("wb") as file:
        if header is not None:
            file.write((json.dumps(header) + "\n").encode())
        eqx.tree_serialise_leaves(file, source)
    like = pairs.EqxMLP(jax.random.key(5))
    assert is_ported(source, port(path, pairs.NnxMLP(), like=like))
    abstract = eqx.filter_eval_shape(pairs.EqxMLP)
    assert same(port(path, pairs.EqxMLP(), like=abstract), source)
    with pytest.raises(ValueError, match="got no `like`, expected a model"):
        port(path, pairs.NnxMLP())
    with pytest.raises(ValueError, match="that do not fit `like`"):
        port(path, pairs.NnxMLP(), like=pairs.EqxScan())


@pytest.mark.parametrize("pure", [True, False])
def test_an_orbax_checkpoint(source, tmp_path, pure):
    module = port(source, pairs.NnxMLP())
    state = nnx.state(module)
    tree = nnx.to_pure_dict(state) if pure else state
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", tree)
    target = pairs.NnxMLP(nnx.Rngs(6))
    assert is_ported(source, port(tmp_path / "run", target))
    ported = port(tmp_path / "run", pairs.EqxMLP(), like=target)
    assert same(ported, source)


def test_an_orbax_checkpoint_with_value(source, tmp_path):
    """Older releases of Flax wrote each Variable as `{"value": array}`."""
    module = port(source, pairs.NnxMLP())
    tree = jax.tree.map(_with_value, nnx.to_pure_dict(nnx.state(module)))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", tree)
    target = pairs.NnxMLP(nnx.Rngs(6))
    assert is_ported(source, port(tmp_path / "run", target))


def _with_value(x):
    return {"value": x}


def test_an_orbax_checkpoint_with_random_state(tmp_path):
    class Module(nnx.Module):
        def __init__(self, seed):
            self.dense = nnx.Linear(2, 3, rngs=nnx.Rngs(seed))
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(seed))
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))

    module = Module(0)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", nnx.state(module))
    target = port(tmp_path / "run", Module(1))
    assert np.array_equal(target.dense.kernel[...], module.dense.kernel[...])


def test_flax_msgpack(source, tmp_path):
    module = port(source, pairs.NnxMLP())
    path = tmp_path / "model.msgpack"
    tree = serialization.to_state_dict(nnx.to_pure_dict(nnx.state(module)))
    path.write_bytes(serialization.msgpack_serialize(_text_keys(tree)))
    assert is_ported(source, port(path, pairs.NnxMLP(nnx.Rngs(6))))
    path.write_bytes(b"\xc1")
    with pytest.raises(ValueError, match="got something that cannot be read"):
        port(path, pairs.NnxMLP())


def _text_keys(tree):
    if not isinstance(tree, dict):
        return tree
    return {str(word): _text_keys(x) for word, x in tree.items()}


def test_files_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got no file or directory"):
        port(tmp_path / "none.eqx", pairs.NnxMLP())
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="got a pickle, which can run code"):
        port(tmp_path / "model.pth", pairs.NnxMLP())


def test_names_that_are_not_those_of_like(source):
    with pytest.raises(ValueError, match=r"got nothing for \['layers.0.bias'"):
        port({}, pairs.NnxMLP(), like=source)
    names = state_dict(source)
    names["norm.bias"] = np.ones(5)
    with pytest.raises(ValueError, match=r"norm.bias \(5,\) against \(4,\)"):
        port(names, pairs.NnxMLP(), like=source)


def test_a_state(tmp_path):
    trainer = build(backend="flax", dtype="float64")
    state = trainer.state()
    assert isinstance(state, State)
    native = build(backend="equinox", dtype="float64").native
    pair = port(state, native[:2])
    path = tmp_path / "run.safetensors"
    trainer.save(path)
    assert same(port(path, native[:2]), pair)
    module = port(pair, trainer.native.module)
    assert same(port(module, native[:2]), pair)
