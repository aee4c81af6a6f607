"""Sets up JAX for the tests, and defines the axes of the test matrix.

A test that takes `model`, `backend` or `dtype` runs for each value that the
registries list, and its id names the cell: `test_step[deep_mlp-flax-float64]`.
"""

import contextlib
import ctypes
import gc
import os
import pathlib
import re
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import hypothesis
import jax
import numpy as np
import pytest

from common import State, Trainer
from common.comparison import layer_judge
from common.models import find_spec, specs
from common.protocol import Spec
from common.registry import backends
from common.training.building import DTYPES, build
from common.training.checks import predictions_like

CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"

# A shell that starts the tests in the background lets them ignore Control-C,
# and what they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiling takes most of the time of the tests, and with little optimization
# about half as much. `.ci/run` sets XLA_FLAGS to nothing and runs the tests
# marked `optimized` again, compiled as users compile.
QUICK_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"  # a worker has one core
)
os.environ.setdefault("XLA_FLAGS", QUICK_FLAGS)
jax.config.update("jax_enable_x64", True)
# The tests compile many small programs, and few of them change between two
# runs: with all of them cached, the suite runs several times faster.
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# Tracing makes many objects that live on. Python's collector would spend a
# fifth of the time of the tests on looking at them again and again.
gc.freeze()
gc.set_threshold(200_000, 50, 100)
# JAX's strict promotion modes stay off: the definitions add a (C,) bias to a
# (B, C) batch, and optax's Adam raises a float to the power of an integer.

# Hypothesis draws the same examples in every run; the `exhaustive` profile
# draws new ones. Examples are small, and shrinking would compile each attempt.
for name, options in {
    "default": {"max_examples": 20, "derandomize": True},
    "exhaustive": {"max_examples": 500},
}.items():
    hypothesis.settings.register_profile(
        name,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        report_multiple_bugs=False,
        **options,
    )
hypothesis.settings.load_profile("default")

TINY: dict[str, dict[str, Any]] = {
    "stateful_mlp": {"hidden_size": 5},
    "digits_cnn": {"channels": (2, 3)},
    "deep_mlp": {"depth": 1, "size": 3},
}
"""Sizes at which a model still has every kind of array it can have."""


def exhaustive_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Marks all values of a parameter as exhaustive but the given ones."""
    values = list(values)
    missing = [value for value in quick if value not in values]
    assert not missing, f"{missing} are not among the values"
    return [
        value
        if value in quick
        else pytest.param(value, marks=pytest.mark.exhaustive)
        for value in values
    ]


def many_draws(factor: float) -> int:
    """Returns a multiple of the number of examples of Hypothesis's profile."""
    return max(1, int(hypothesis.settings().max_examples * factor))


def one_in(step: int, values: Iterable[Any]) -> list[Any]:
    """Marks all values of a parameter as exhaustive but every `step`-th."""
    values = list(values)
    return exhaustive_but(values, *values[::step])


SHARED = ("cell", "row", "pair_name", "quick", "recording", "rooms", "runs")
"""Parameters and fixtures whose tests share a result that takes long."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Makes one worker run the tests that share a result."""
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                call = getattr(item, "callspec", None)
                index = call.indices.get(name, "") if call else ""
                group = f"{item.path.stem}-{name}-{index}"
                item.add_marker(pytest.mark.xdist_group(group))


class Batch(NamedTuple):
    xs: np.ndarray
    ys: np.ndarray


@pytest.fixture(params=exhaustive_but(specs(), "stateful_mlp"))
def model(request) -> str:
    """The name of a spec."""
    return request.param


@pytest.fixture
def spec(model: str) -> Spec:
    """A tiny instance of the spec called `model`."""
    return find_spec(model, TINY.get(model, {}))


@pytest.fixture(params=backends())
def backend(request) -> str:
    """The name of a backend."""
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request) -> str:
    """The name of a dtype."""
    return request.param


MAX_RESIDENT = 1.2 * 2**30
"""Bytes of memory above which a worker drops the programs it compiled."""


@pytest.fixture(autouse=True, scope="session")
def without_fsync() -> Iterator[None]:
    """Does not wait for the disk, because no file here must survive a crash.

    The tests of `common.files` record its calls instead.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Frees compiled programs after a test when the process has grown large.

    The programs of the layer matrix alone would fill several gigabytes. Those
    that are needed again are read from the persistent cache.
    """
    yield
    bound_memory()


def bound_memory() -> None:
    """Frees compiled programs if the process has grown large."""
    if resident_bytes() > MAX_RESIDENT:
        free_compiled_programs()


def resident_bytes() -> int:
    """Returns the memory that this process holds; 0 where Linux is not."""
    statm = pathlib.Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def free_compiled_programs() -> None:
    """Drops every compiled program, and returns its memory to the system."""
    POOL.clear()
    layer_judge.compiled.cache_clear()
    jax.clear_caches()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


class Lent(NamedTuple):
    """A trainer, and the State it was built with."""

    trainer: Trainer
    state: State


POOL: dict[Any, list[Lent]] = {}


@pytest.fixture
def make() -> Iterator[Callable[..., Trainer]]:
    """Builds a tiny model: `make("deep_mlp", "flax", dtype=...)`.

    Tracing the same step again would take half of the suite's time, so a
    trainer is lent to one test at a time and reset to its first State for the
    next one. It keeps what it has compiled. `fresh=True` builds a new one.
    """
    lent: list[tuple[Any, Lent]] = []

    def make(
        model: str | Spec, backend: str, *, fresh: bool = False, **options
    ) -> Trainer:
        sizes = {} if isinstance(model, Spec) else TINY.get(model, {})
        options = {"dtype": "float64", **sizes, **options}
        if fresh:
            return build(model, backend=backend, **options)
        x64 = getattr(jax.config, "jax_enable_x64")  # noqa: B009
        key = (model, backend, x64, *sorted(options.items(), key=repr))
        try:
            free = POOL.setdefault(key, [])
        except TypeError:  # an option that cannot be a key
            return build(model, backend=backend, **options)
        if free:
            one = free.pop()
            one.trainer.load(one.state)
            one.trainer._loop = None  # its chunks grow as it runs
        else:
            trainer = build(model, backend=backend, **options)
            one = Lent(trainer, trainer.state())
        lent.append((key, one))
        return one.trainer

    yield make
    for key, one in lent:
        POOL.setdefault(key, []).append(one)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Makes random data that a spec takes: `make_batch(spec, size=8)`."""

    def make_batch(
        spec: Spec, *, size: int = 8, dtype: str = "float64", seed: int = 0
    ) -> Batch:
        rng = np.random.default_rng(seed)
        xs = rng.normal(size=(size, *spec.inputs.shape)).astype(dtype)
        shape = predictions_like(spec, xs, dtype).shape
        if spec.loss == "cross_entropy":
            return Batch(xs, rng.integers(0, shape[-1], size, np.int32))
        return Batch(xs, rng.normal(size=shape).astype(dtype))

    return make_batch


@pytest.fixture
def assert_same() -> Callable[[State, State], None]:
    """Asserts that two States are equal, bit for bit, name by name."""

    def assert_same(actual: State, expected: State) -> None:
        got, want = actual.flat(), expected.flat()
        assert got.keys() == want.keys()
        for name, x in want.items():
            y = np.asarray(got[name])
            assert (y.dtype, y.shape) == (x.dtype, x.shape), name
            assert y.tobytes() == np.asarray(x).tobytes(), (
                f"state[{name!r}]: got {y}, expected {x}"
            )

    return assert_same


@pytest.fixture
def fill() -> Callable[..., State]:
    """Fills a State with random values, so that no zero hides an error."""

    def fill(state: State, seed: int = 0) -> State:
        rng = np.random.default_rng(seed)

        def draw(x):
            if np.issubdtype(x.dtype, np.floating):
                return np.asarray(rng.normal(size=x.shape), x.dtype)
            if x.dtype == np.bool_:
                return ~x
            return np.asarray(rng.integers(1, 1000, x.shape), x.dtype)

        return State.from_flat({k: draw(x) for k, x in state.flat().items()})

    return fill


@pytest.fixture
def compiles() -> Callable[[], contextlib.AbstractContextManager[list[str]]]:
    """Lists the functions that compile: `with compiles() as names: ...`."""

    @contextlib.contextmanager
    def compiles() -> Iterator[list[str]]:
        names: list[str] = []

        def listen(
            event: str, duration_secs: float, **kwargs: str | int
        ) -> None:
            del duration_secs
            if event == "/jax/core/compile/backend_compile_duration":
                names.append(str(kwargs.get("fun_name", event)))

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield names
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)

    return compiles


FORM = re.compile(
    r"(?P<what>.+?): got (?P<got>.+?), expected (?P<expected>.+?)\. "
    r"(?P<fix>[A-Z].+)\.",
    re.DOTALL,
)
"""The form of every error message."""


@pytest.fixture
def assert_raises(compiles) -> Callable[..., None]:
    """Asserts that a call raises an error before anything is compiled.

    The whole message must match a pattern, and have the form of all messages:
    `assert_raises(call, ValueError, pattern)`.
    """

    def assert_raises(
        call: Callable[[], Any], error: type[Exception], message: str
    ) -> None:
        with compiles() as compiled, pytest.raises(error) as caught:
            call()
        text = str(caught.value)
        assert re.fullmatch(message, text), text
        assert FORM.fullmatch(text), text
        assert compiled == []

    return assert_raises
