"""The launcher of the tests: processes, devices, and what fails in them."""

import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests import topologies


def add_up(size: int) -> dict[str, object]:
    """Sums an array whose rows are on all devices of all processes."""
    mesh = jax.make_mesh(
        (jax.device_count(),), ("data",), axis_types=(AxisType.Auto,)
    )
    xs = np.arange(2.0 * size).reshape(size, 2)
    sharding = NamedSharding(mesh, P("data"))
    rows = jax.make_array_from_callback(xs.shape, sharding, xs.__getitem__)
    total = jax.jit(lambda x: jnp.sum(x, 0))(rows)
    return {
        "process": jax.process_index(),
        "devices": (jax.local_device_count(), jax.device_count()),
        "sum": np.asarray(total.addressable_data(0)),
    }


def fail(how: str) -> int:
    """Fails in process 1, or in the only one."""
    last = jax.process_index() == jax.process_count() - 1
    if how == "raise" and last:
        raise ValueError("planted")
    if how == "kill" and last:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return 0


def test_one_process_has_devices():
    [found] = topologies.run(add_up, 16, devices=8)
    assert found["devices"] == (8, 8)
    assert found["sum"].dtype == np.float64
    assert found["sum"].tolist() == [240, 256]


@pytest.mark.exhaustive
def test_processes_share_their_devices():
    found = topologies.run(add_up, 16, processes=2, devices=2)
    assert [x["process"] for x in found] == [0, 1]
    for x in found:
        assert x["devices"] == (2, 4)
        assert x["sum"].tolist() == [240, 256]


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", ["raise", "kill", "hang"])
def test_what_fails_is_shown_and_leaves_no_process(how):
    began = time.perf_counter()
    options = {"processes": 2, "timeout": 15 if how == "hang" else 60}
    found = topologies.outcomes(fail, how, patience=1, **options)
    assert time.perf_counter() - began < 40
    if how == "hang":
        assert [x.code for x in found] == [None, None]
        assert all("in fail" in x.stderr for x in found)
    elif how == "kill":
        assert found[1].code == -signal.SIGKILL
    else:
        assert found[1].code == 1
        assert "ValueError: planted" in found[1].stderr
    with pytest.raises(AssertionError, match="process 0 of 1"):
        topologies.run(fail, how, timeout=6)
