"""No recipe uses a random key twice.

JAX finds a key that is consumed twice while a recipe runs; the tests of the
results switch this on. It does not look at keys that `fold_in` derives, as
`nnx.Rngs` does, so the names of keys are counted here as well: each key has a
name of its own, which is used once.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = [
    path
    for library in ("equinox", "flax")
    for path in sorted((ROOT / f"impl_{library}/recipes").glob("[!_]*.py"))
]
KEY = re.compile(r"(\w+_)?keys?|\w*key\d*")
"""The names of keys: `key`, `key1`, `data_key`, `layer_keys`, `mkey`."""
CONSTANT = re.compile(r"\b(?:key|PRNGKey)\(\d+\)")
"""A key that every function can make, and that two may use."""
FUNCTIONS = ast.FunctionDef | ast.Lambda
LOOPS = ast.For | ast.While | ast.ListComp | ast.GeneratorExp | ast.DictComp


def reused_keys(source: str) -> list[str]:
    """Returns the names of the keys that a recipe uses more than once.

    A use in a loop counts twice, unless the loop binds the name.
    """
    found = CONSTANT.findall(source)
    for scope in ast.walk(ast.parse(source)):
        if isinstance(scope, ast.Module | FUNCTIONS):
            names = [name for name in _uses(scope) if name in _bound(scope)]
            found += {name for name in names if names.count(name) > 1}
    return sorted(found)


def _uses(node: ast.AST) -> Iterator[str]:
    """Yields the name of a key for each of its uses."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and KEY.fullmatch(node.id):
            yield node.id
        return
    if isinstance(node, ast.Call) and "eval_shape" in ast.unparse(node.func):
        return  # computes shapes, and draws nothing
    for child in ast.iter_child_nodes(node):
        for name in _uses(child):
            hidden = isinstance(child, FUNCTIONS) and name in _bound(child)
            if not hidden:
                yield name
            # What a loop iterates over is evaluated once.
            once = isinstance(child, ast.comprehension) or (
                isinstance(node, ast.For) and child is node.iter
            )
            if isinstance(node, LOOPS) and not once:
                if name not in _bound(node):
                    yield name


def _bound(scope: ast.AST) -> set[str]:
    """Returns the arguments of a scope, and the names that are assigned."""
    return {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(scope)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }


@pytest.mark.parametrize(
    "path", RECIPES, ids=[f"{p.parts[-3]}-{p.stem}" for p in RECIPES]
)
def test_no_key_is_used_twice(path):
    found = set(reused_keys(path.read_text()))
    # The keys of attention are no random keys.
    assert found <= ({"keys"} if path.stem == "custom_state" else set())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(key): a, b = jr.split(key); return g(a), g(b)", []),
        ("def f(key): return Net(key), jr.normal(key, (3,))", ["key"]),
        ("def f(key): return nnx.Rngs(key), jr.normal(key)", ["key"]),
        ("def f(key): return g(key), jr.fold_in(key, 1)", ["key"]),
        ("def f(key): return g(key)\ndef h(key): return g(key)", []),
        ("def f(key):\n  def g(key): return h(key)\n  return g(key)", []),
        ("def f(key):\n  def g(): return h(key)\n  return key", ["key"]),
        ("data_key, key2 = jr.split(key)\ng(key2)\ng(key2)", ["key2"]),
        ("keys = jr.split(a)\nb = [g(key) for key in keys]", []),
        ("keys = jr.split(key)\na = [g(keys) for _ in range(2)]", ["keys"]),
        ("def f(key):\n  for _ in range(2): g(key)", ["key"]),
        ("def f(key):\n  for k_key in jr.split(key): g(k_key)", []),
        ("def f(key): return eqx.filter_eval_shape(g, key), g(key)", []),
        ("def f(xs): return g(jr.key(0))", ["key(0)"]),
    ],
)
def test_a_key_that_is_used_twice_is_found(source, found):
    assert reused_keys(source) == found
