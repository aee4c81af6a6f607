"""The messages of `choose`."""

import pytest

from common.errors import choose

BACKENDS = ("reference", "equinox", "flax")


@pytest.mark.parametrize(
    ("got", "suggestion"),
    [
        ("equinx", "equinox"),
        ("Equinox", "equinox"),
        ("FLAX", "flax"),
        ("refernce", "reference"),
    ],
)
def test_similar_name_is_suggested(got, suggestion):
    error = choose("backend", got, BACKENDS)
    assert str(error) == (
        f"backend: got {got!r}, expected one of 'reference', 'equinox', "
        f"'flax'. Perhaps you meant {suggestion!r}."
    )


@pytest.mark.parametrize("got", ["torch", None, 3, ""])
def test_other_values_get_an_example(got):
    error = choose("backend", got, BACKENDS)
    assert isinstance(error, ValueError)
    assert str(error) == (
        f"backend: got {got!r}, expected one of 'reference', 'equinox', "
        "'flax'. Use one of these values, such as 'reference'."
    )


@pytest.mark.parametrize("got", ["float16", "bfloat16", "int32"])
def test_another_dtype_is_not_taken_for_a_misspelled_one(got):
    error = choose("dtype", got, ("float32", "float64"))
    assert "Perhaps" not in str(error)


def test_choices_need_not_be_strings():
    error = choose("mask", "casual", (None, "causal"))
    assert str(error).endswith("Use one of these values, such as None.")
    error = choose("mask", "none", (None, "causal"))
    assert str(error).endswith("Perhaps you meant None.")


def test_caller_can_give_the_fix():
    error = choose("backend", "torch", BACKENDS, "Write a backend first.")
    assert str(error).endswith("'flax'. Write a backend first.")
