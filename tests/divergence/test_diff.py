"""`diff` names where two programs part, and copes with what may differ.

The bank of planted faults is in `test_mutations.py`; here is what each part
of the answer looks like, and what is said of bad input.
"""

import inspect
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import cli, diff, diff_steps
from common.commands import arguments as named
from common.divergence import page
from common.divergence.fingerprint import fingerprint_error, take_fingerprint
from common.divergence.interpret import Node
from common.divergence.matching import find_axis_order
from common.errors import StateError

pytestmark = pytest.mark.usefixtures("forgets")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
W = RNG.normal(size=(4, 4))
HERE = pathlib.Path(__file__).name


def line_of(function, text):
    """The number of the line of a function that has a text in it."""
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, it in enumerate(lines) if text in it)


def norm(x, eps=1e-5):
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + eps)


def fast_norm(x, eps=1e-5):
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(x * x, -1, keepdims=True) - mean * mean
    return (x - mean) * jax.lax.rsqrt(var + eps)


def first(found) -> tuple[Node, Node]:
    """Both sides of the first origin."""
    origin = found.origins[0]
    assert origin.left is not None and origin.right is not None
    return origin.left, origin.right


def named_lines(found):
    """The lines of the first origin, by side."""
    return tuple(it.frames[0].line for it in first(found))


# --- what it finds ----------------------------------------------------------


def test_the_same_mathematics_agrees():
    found = diff(norm, fast_norm, X)
    assert found.ok and not found.origins
    assert "All outputs agree" in str(found)


def test_eps_is_named_with_both_literals():
    found = diff(norm, lambda x: fast_norm(x, eps=1e-6), X)
    assert not found.ok
    assert named_lines(found) == (
        line_of(norm, "var + eps"),
        line_of(fast_norm, "var + eps"),
    )
    text = str(found)
    assert "add, literal 1e-05, float64[3,1]" in text
    assert "add, literal 1e-06, float64[3,1]" in text
    assert f"{HERE}:{line_of(norm, 'var + eps')} norm" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_iteration_of_a_scan_is_named():
    weights = RNG.normal(size=(3, 4, 4))
    others = weights.copy()
    others[1] *= 1.01

    def scanned(x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(layer, x, jnp.asarray(weights))[0]

    def listed(x):
        for w in others:
            x = jnp.tanh(x @ w)
        return x

    found = diff(scanned, listed, X)
    assert first(found)[0].primitive == "dot_general"
    assert first(found)[0].iterations == (1,)
    assert "iteration 1" in str(found)


def test_loops_and_branches_are_followed():
    def rolled(x):
        x = jax.lax.fori_loop(0, 3, lambda i, x: x * 2, x)
        return jax.lax.cond(x[0, 0] > -1e9, jnp.sin, jnp.cos, x)

    assert diff(rolled, lambda x: jnp.sin(x * 8), X).ok
    found = diff(rolled, lambda x: jnp.cos(x * 8), X)
    assert [first(found)[0].primitive] == ["sin"]
    assert [first(found)[1].primitive] == ["cos"]


def test_other_layouts_are_the_same_values():
    def first(x):
        return jnp.tanh(x.T @ jnp.ones((3, 2)))

    assert diff(first, lambda x: jnp.tanh(jnp.ones((2, 3)) @ x).T, X).ok
    # The order of axes may differ in the outputs, too.
    assert diff(first, lambda x: jnp.tanh(jnp.ones((2, 3)) @ x), X).ok


def test_a_permutation_is_no_agreement():
    """The same numbers in another order: sorted values cannot see it."""
    found = diff(lambda x: x @ W, lambda x: (x @ W)[:, ::-1], X)
    assert not found.ok
    found = diff(
        lambda x: jnp.tanh(x.reshape(2, 6)),
        lambda x: jnp.tanh(x.T.reshape(2, 6)),
        X,
    )
    assert not found.ok
    assert first(found)[1].primitive == "reshape"


def test_a_square_transpose_is_found_at_its_consumer():
    found = diff(lambda x: x @ W, lambda x: x @ W.T, X)
    assert first(found)[0].primitive == "dot_general"


def test_a_backward_fault():
    def loss(x):
        return jnp.sum(norm(x) ** 3)

    def stopped(x):
        mean = jax.lax.stop_gradient(jnp.mean(x, -1, keepdims=True))
        var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
        return jnp.sum(((x - mean) / jnp.sqrt(var + 1e-5)) ** 3)

    assert diff(loss, stopped, X).ok
    found = diff(jax.grad(loss), jax.grad(stopped), X)
    assert not found.ok and found.origins


def test_random_keys():
    key = jax.random.key(0)

    def drop(x, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)

    def split(x, key):
        return drop(x, jax.random.split(key, 1)[0])

    assert diff(drop, drop, X, key).ok
    assert not diff(drop, split, X, key).ok


def test_an_output_that_is_another_value():
    """Statistics that are computed and not returned."""
    found = diff(
        lambda x, m: (x - m, 0.9 * m + 0.1 * jnp.mean(x, 0)),
        lambda x, m: (x - m, (m, 0.9 * m + 0.1 * jnp.mean(x, 0))[0]),
        X,
        np.ones(4),
    )
    assert [it.path for it in found.outputs if not it.ok] == ["[1]"]
    assert found.origins


def test_the_precision_ceiling_is_named():
    def narrow(x):
        return norm(x.astype(jnp.bfloat16).astype(x.dtype))

    found = diff(norm, narrow, X)
    assert not found.ok
    left, right = found.ceilings
    assert left is None and right is not None
    assert right.dtype == "bfloat16"
    assert "precision ceiling of the right: bfloat16" in str(found)
    # Both narrow alike: they agree, as far as that goes.
    both = diff(narrow, narrow, X)
    assert both.ok and both.ceilings[0] is not None
    assert both.ceilings[0].dtype == "bfloat16"


def test_the_first_nan_of_one_side_is_named():
    def root(x):
        y = x - 1
        return jnp.sqrt(y) * 2

    found = diff(lambda x: jnp.sqrt(jnp.abs(x)) * 2, root, X)
    assert found.origins[0].reason == "the first NaN"
    node = found.origins[0].right
    assert node is not None and node.primitive == "sqrt"
    assert node.frames[0].line == line_of(root, "sqrt(y)")


def test_what_is_not_compared_is_said():
    def printing(x):
        jax.debug.print("{}", x[0, 0])
        return x * 2

    found = diff(printing, lambda x: x + x, X)
    assert found.ok
    assert "is not compared" in str(found)


def test_narrow_arguments_are_widened_unless_told():
    x = X.astype(np.float32)
    assert diff(norm, lambda x: norm(x, 1.01e-5), x).ok is False
    assert diff(norm, fast_norm, x, dtype=None).ok
    found = diff(norm, norm, x, dtype=None)
    assert found.outputs[0].left.dtype == "float32"


def test_memory_is_bounded():
    """Beyond the budget only fingerprints are kept."""
    found = diff(norm, lambda x: norm(x, 1e-6), X, kept=100)
    kept = [n for r in found.records for n in r.nodes if n.value is not None]
    assert sum(it.value.nbytes for it in kept) <= 200
    assert first(found)[0].primitive == "add"


def test_a_training_step_of_two_trainers(make, make_batch):
    """The eps of one library's norms: found in a whole step.

    The first step of Adam hides the size of a gradient; its moments do not.
    """
    left = make("deep_mlp", "equinox")
    right = make("deep_mlp", "flax")
    xs, ys = make_batch(left.spec)
    assert diff_steps(left, right, xs, ys).ok
    found = diff_steps(left, make("deep_mlp", "flax", eps=1e-3), xs, ys)
    assert not found.ok
    literals = [float(it.literals[0]) for it in first(found)]
    assert literals == [left.spec.eps, 1e-3]
    assert found.origins[0].error


def test_trainers_of_other_models(make, make_batch):
    left = make("deep_mlp", "equinox")
    xs, ys = make_batch(left.spec)
    with pytest.raises(StateError, match="got nothing, expected"):
        diff_steps(left, make("stateful_mlp", "flax"), xs, ys)


def test_an_input_of_one_side_only_is_named():
    found = diff(jnp.matmul, jnp.matmul, X, W, right_args=(X, 1.5 * W))
    reason = found.origins[0].reason
    assert reason == "only the left has args[1]; only the right has args[1]"
    assert reason in str(found)


def test_other_shapes_of_the_same_values_are_said():
    found = diff(lambda x: x.reshape(4, 3), lambda x: x, X)
    assert found.ok
    assert "has the shape (4, 3) on the left and (3, 4)" in str(found)


# --- parts ------------------------------------------------------------------


def test_fingerprint_does_not_see_the_layout():
    x = RNG.normal(size=(4, 5, 6))
    assert (
        fingerprint_error(
            take_fingerprint(x), take_fingerprint(x.transpose(2, 0, 1))
        )
        < 1e-12
    )
    y = x.copy()
    y[1, 2, 3] += 1e-3
    assert fingerprint_error(take_fingerprint(x), take_fingerprint(y)) > 1e-9


def test_fingerprint_is_bounded_and_sees_one_value_in_many():
    x = RNG.normal(size=100_000)
    y = x.copy()
    y[17] += 0.01
    assert len(take_fingerprint(x).ranks) < 1000
    assert fingerprint_error(take_fingerprint(x), take_fingerprint(y)) > 1e-9


@pytest.mark.parametrize(
    "other",
    [
        np.arange(12.0)[:11],
        np.arange(12),
        np.where(np.arange(12) == 3, np.nan, np.arange(12.0)),
    ],
    ids=["size", "kind", "nan"],
)
def test_fingerprints_of_other_things(other):
    assert (
        fingerprint_error(
            take_fingerprint(np.arange(12.0)), take_fingerprint(other)
        )
        == np.inf
    )


def test_arrangement():
    x = RNG.normal(size=(2, 3, 4))
    assert find_axis_order(x, x.transpose(2, 0, 1), 1e-12) == (2, 0, 1)
    assert find_axis_order(x, x.reshape(6, 4), 1e-12) is not None
    assert find_axis_order(x.transpose(0, 2, 1), x.reshape(2, 12), 1e-12)
    assert find_axis_order(x, x[:, ::-1], 1e-12) is None


# --- bad input --------------------------------------------------------------


def test_outputs_of_other_structure():
    message = r"outputs: got the structure .* on the left and .* on the right"
    with pytest.raises(ValueError, match=message):
        diff(lambda x: x, lambda x: (x, x), X)


def test_a_function_that_does_not_trace():
    def branching(x):
        return x if x[0, 0] > 0 else -x

    message = "right function 'branching': got TracerBoolConversionError"
    with pytest.raises(TypeError, match=message):
        diff(norm, branching, X)


def test_inputs_of_another_shape():
    message = r"got TypeError .* Check the inputs' shapes \(float64\[3,4\]\)"
    with pytest.raises(TypeError, match=message):
        diff(norm, lambda x: x @ x, X)


def test_arguments_that_are_no_tuple():
    with pytest.raises(
        ValueError, match="right_args: got str, expected a tup"
    ):
        diff(norm, norm, X, right_args="x")
    with pytest.raises(ValueError, match="dtype: got 'float65', expected one"):
        diff(norm, norm, X, dtype="float65")


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
        ("numpy:pi", "got float, expected something to call"),
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


# --- command line -----------------------------------------------------------


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


def test_page_shows_matched_values():
    found = diff(norm, lambda x: fast_norm(x, 1e-6), X)
    html = page.render(found, ("a", "b"), {"versions": {}})
    assert html.count("<circle") == len(found.nearest_values()) > 0
