"""The order of the examples, and the steps between two places in it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.training import data as data_module
from tests.training.runs import SIZE

keys = st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2).map(
    lambda words: np.array(words, np.uint32)
)


@given(key=keys, epoch=st.integers(0, 1000), size=st.integers(1, 200))
def test_the_order_is_a_permutation_that_depends_on_key_and_epoch(
    key, epoch, size
):
    order = data_module.order(key, epoch, size)
    assert order.dtype == np.int32
    assert sorted(order) == list(range(size))
    assert np.array_equal(order, data_module.order(key, epoch, size))


def test_the_order_changes_with_the_seed_and_the_epoch(make):
    first, second = (
        make("deep_mlp", "reference", seed=seed).state().rng["key"]
        for seed in (0, 1)
    )
    orders = {
        tuple(data_module.order(key, epoch, SIZE))
        for key in (first, second)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_the_order_is_the_same_in_every_backend(backend, make):
    key = make("deep_mlp", backend, seed=3).state().rng["key"]
    reference = make("deep_mlp", "reference", seed=3).state().rng["key"]
    assert np.array_equal(key, reference)


@given(
    start=st.tuples(st.integers(0, 3), st.integers(0, 12)),
    epochs=st.integers(0, 3),
    size=st.integers(1, 12),
    batch_size=st.integers(1, 5),
)
def test_the_number_of_steps_is_that_of_the_rows(
    start, epochs, size, batch_size
):
    start = data_module.Place(start[0], min(start[1], size))
    end = data_module.Place(start.epoch + epochs, 0)
    key = np.zeros(2, np.uint32)
    if batch_size > size:
        return  # `fit` refuses it
    rows, place = data_module.take(
        key, start, end, size, batch_size, count=1000
    )
    assert len(rows) == data_module.count_steps(start, end, size, batch_size)
    assert place == (end if epochs else start)
