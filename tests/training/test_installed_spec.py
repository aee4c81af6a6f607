"""A spec of an installed package, which names its model classes itself."""

import pathlib
import sys
import textwrap
from typing import Any

import numpy as np
import optax
import pytest

from common import build, compare
from common.errors import ModelNotFoundError
from common.layers import linear, linear_variables, named, within
from common.protocol import Shaped, Spec

PACKAGE = {
    "__init__": "",
    "definition": """
        import dataclasses
        from typing import ClassVar

        import optax

        from common import layers
        from common.protocol import Shaped, Spec

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Line(Spec):
            name: ClassVar[str] = "line"
            loss: ClassVar[str] = "mse"
            size: int = 3

            def optimizer(self):
                return optax.adam(0.1)

            @property
            def inputs(self):
                return Shaped((self.size,))

            def model_class(self, library):
                if library == "equinox":
                    from their_package.in_equinox import Line
                else:
                    from their_package.in_flax import Line
                return Line

            def variables(self):
                linear = layers.linear_variables(self.size, 2)
                return layers.named("linear", linear)

            def forward(self, params, buffers, xs, *, key, training):
                linear = layers.within("linear", params)
                return layers.linear(xs, **linear), buffers
    """,
    "in_equinox": """
        import equinox as eqx

        class Line(eqx.Module):
            linear: eqx.nn.Linear

            def __init__(self, *, size, key):
                self.linear = eqx.nn.Linear(size, 2, key=key)

            def __call__(self, x, state, key=None):
                return self.linear(x), state
    """,
    "in_flax": """
        from flax import nnx

        class Line(nnx.Module):
            def __init__(self, *, size, rngs):
                self.linear = nnx.Linear(size, 2, rngs=rngs)

            def __call__(self, x, *, rngs=None):
                return self.linear(x)
    """,
}


@pytest.fixture
def line(tmp_path: pathlib.Path, monkeypatch):
    """The spec of a package outside of this project."""
    package = tmp_path / "their_package"
    package.mkdir()
    for name, source in PACKAGE.items():
        (package / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    from their_package.definition import Line  # pyright: ignore

    yield Line
    for name in [n for n in sys.modules if n.startswith("their_package")]:
        del sys.modules[name]


def test_a_spec_of_an_installed_package_is_built(line, assert_same):
    trainers = [
        build(line(size=4), backend=name, dtype="float64")
        for name in ("reference", "equinox", "flax")
    ]
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(8, 4)), rng.normal(size=(8, 2))
    first, *others = trainers
    for other in others:
        assert_same(other.state(), first.state())
    report = compare(others[0], others[1], xs, ys, steps=3)
    assert report.ok, str(report)
    assert repr(others[0]).startswith("Trainer('line', backend='equinox'")
    changed = build(line(), backend="flax", size=5)
    assert changed.state().params["linear.weight"].shape == (2, 5)


def test_a_backend_imports_only_its_own_class(line):
    build(line(), backend="flax")
    assert "their_package.in_flax" in sys.modules
    assert "their_package.in_equinox" not in sys.modules


class Wrong(Spec):
    name = "wrong"
    loss = "mse"

    def optimizer(self):
        return optax.sgd(0.1)

    @property
    def inputs(self):
        return Shaped((2,))

    def model_class(self, library) -> Any:
        return f"their_package.in_{library}:Line"

    def variables(self):
        return named("linear", linear_variables(2, 2))

    def forward(self, params, buffers, xs, *, key, training):
        return linear(xs, **within("linear", params)), buffers


def test_a_model_class_is_a_class(assert_raises):
    assert_raises(
        lambda: build(Wrong(), backend="nnx"),
        ModelNotFoundError,
        r"model 'wrong' in nnx: got 'their_package\.in_flax:Line' from "
        r"`model_class`, expected a class\. Return the class itself\.",
    )
