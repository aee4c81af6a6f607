"""The cost of scanned and rematerialized blocks."""

import pytest

from common.benchmark import scanning
from common.benchmark.report import MAX_RATIO
from common.benchmark.scanning import WAYS, scan_costs

LIST, SCAN, REMAT, BOTH = WAYS


@pytest.mark.exhaustive
def test_each_way_is_measured():
    ticks = []
    found = scan_costs(
        "equinox",
        depth=2,
        size=3,
        batch_size=4,
        rounds=2,
        ways=(LIST, BOTH),
        tick=lambda: ticks.append(1),
    )
    assert [cost.way for cost in found] == [LIST, BOTH]
    assert len(ticks) == 2
    assert found[0].ratio == 1
    for cost in found:
        assert (cost.backend, cost.size, cost.batch_size) == ("equinox", 3, 4)
        assert cost.first_call > cost.seconds > 0
        assert cost.temporary > 0


def test_the_list_is_the_baseline():
    assert scanning.WAYS[LIST] == {}
    assert scanning.WAYS[BOTH] == {"scan": True, "remat": True}


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_a_hundred_blocks_compile_and_step_fast(backend):
    """Ratios, because a test may run on a machine that is not idle."""
    plain, scanned = scan_costs(
        backend, depth=100, size=8, batch_size=32, rounds=10, ways=(LIST, SCAN)
    )
    assert scanned.first_call < plain.first_call / 3
    assert scanned.ratio <= MAX_RATIO
    assert scanned.seconds <= MAX_RATIO * plain.seconds
