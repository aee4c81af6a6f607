"""What the registry says if a model, a library or a backend is missing."""

import importlib.util
import re

import pytest

from common.errors import BackendNotInstalledError, ModelNotFoundError
from common.models.stateful_mlp import StatefulMLP
from common.training.building import build


class Mine(StatefulMLP):
    """A spec that no library has a model for."""

    name = "mine"


class Another(StatefulMLP):
    """A class with the name of a spec that has a model."""


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_a_missing_model_names_its_file_and_class(backend, assert_raises):
    assert_raises(
        lambda: build(Mine(), backend=backend),
        ModelNotFoundError,
        rf"model 'mine' in {backend}: got no file "
        rf"impl_{backend}/models/mine\.py, expected one that defines the "
        r"class Mine\. Define `model_class` in the spec, or add that file; "
        r"CONTRIBUTING\.md describes how\.",
    )
    assert_raises(
        lambda: build(Another(), backend=backend),
        ModelNotFoundError,
        rf"model 'stateful_mlp' in {backend}: got no class Another in "
        rf"impl_{backend}/models/stateful_mlp\.py, expected one\. "
        r"CONTRIBUTING\.md describes how to add a model\.",
    )


@pytest.mark.parametrize(
    ("backend", "requirement"),
    [
        ("reference", "jax"),
        ("equinox", "equinox>=0.13.8,<0.14"),
        ("flax", "flax>=0.12.8,<0.12.9"),
        ("nnx", "flax>=0.12.8,<0.12.9"),
    ],
)
def test_a_missing_library_names_its_requirement(
    backend, requirement, assert_raises, monkeypatch
):
    name = "flax" if backend == "nnx" else backend
    library = "jax" if backend == "reference" else name
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = re.escape(requirement)
    assert_raises(
        lambda: build(backend=backend),
        BackendNotInstalledError,
        rf"backend '{name}': got no package '{library}', expected "
        rf'{wanted}\. Run `pip install "{wanted}"`\.',
    )


def test_only_the_backend_in_question_must_be_installed(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "flax" else real(name, *rest),
    )
    assert build(backend="equinox").backend.name == "equinox"
    assert issubclass(BackendNotInstalledError, ImportError)
