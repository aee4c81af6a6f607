"""The `diff` command."""

import json
import pathlib

import numpy as np
import pytest

from common import cli
from common.commands import arguments as named
from tests.divergence.programs import (
    X,
)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "got an import of 'no_such_library'"),
        ("1 / 0", "got ZeroDivisionError while importing broken"),
    ],
)
def test_a_module_that_does_not_import(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pathlib.Path("broken.py").write_text(source)
    with pytest.raises(ImportError, match=message):
        named.function("broken:f")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("numpy.tanh", "got 'numpy.tanh', expected package.module:name"),
        ("numpy:tangent", "got no 'tangent' in numpy"),
        ("numpy:pi", "got float, expected a callable"),
    ],
)
def test_names_of_functions(name, message):
    with pytest.raises(ValueError, match=message):
        named.function(name)


def test_a_module_that_is_not_there():
    with pytest.raises(ImportError, match="got no module named 'nowhere'"):
        named.function("nowhere:f")


@pytest.mark.parametrize("word", ["x.npy", "8,32", "shape=a"])
def test_inputs_that_are_none(word):
    with pytest.raises(ValueError, match="--inputs: got"):
        named.inputs([word], seed=0)


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("batch.npz", x=X)
    pathlib.Path("ported.py").write_text(
        "import jax.numpy as jnp\n"
        "def ours(x):\n    return jnp.tanh(x) + 1\n"
        "def theirs(x):\n    return jnp.tanh(x) + 2\n"
    )
    words = ["diff", "ported:ours", "ported:theirs", "--inputs", "batch.npz"]
    files = ["--json", "d.json", "--html", "d.html"]
    assert cli.main([*words, *files]) == 1
    assert "ported.py:3 ours" in capsys.readouterr().out
    stored = json.loads(pathlib.Path("d.json").read_text())
    assert not stored["ok"] and stored["origins"][0]["left"]["frames"]
    html = pathlib.Path("d.html").read_text()
    assert "return jnp.tanh(x) + 2" in html and "<script" not in html
    same = ["diff", "ported:ours", "ported:ours", "--inputs", "shape=2,3"]
    assert cli.main(same) == 0


PORT = """
import equinox as eqx
import jax
from flax import nnx

ours = eqx.nn.Linear(4, 3, key=jax.random.key(0))
port = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
port.kernel[...] = ours.weight.T
port.bias[...] = ours.bias


def f(x):
    return jax.vmap(ours)(x)


def g(x):
    return port(x)
"""


def test_models_are_made_as_their_user_makes_them(
    tmp_path, capsys, monkeypatch
):
    """In float32: in float64 the port's weights would be rounded ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pathlib.Path("made.py").write_text(PORT)
    words = ["diff", "made:f", "made:g", "--inputs", "shape=2,4"]
    for dtype in ("float64", "none"):
        assert cli.main([*words, "--dtype", dtype]) == 0, capsys.readouterr()
    assert cli.main([*words[:-1], "shape=2,5"]) == 2
    assert "Check the inputs' shapes" in capsys.readouterr().err
