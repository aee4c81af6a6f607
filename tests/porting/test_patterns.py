"""Names with placeholders, and the arithmetic of their indices."""

import pytest

from common.porting.patterns import Pattern, pair_keys, quote

NAMES = ["b.0.w", "b.1.w", "b.2.w", "b.01.w", "b.10.w", "c.0.w", "b.0.w.x"]


def matched(pattern: str, names=NAMES):
    """Returns the values by name."""
    parsed = Pattern.parse(pattern)
    assert str(parsed) == pattern
    return {x.name: dict(x.values) for x in parsed.matches(names)}


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        ("b.{i}.w", {"b.0.w": 0, "b.1.w": 1, "b.2.w": 2, "b.10.w": 10}),
        ("b.{i+1}.w", {"b.1.w": 0, "b.2.w": 1, "b.10.w": 9}),
        (
            "b.{i-1}.w",
            {"b.0.w": 1, "b.1.w": 2, "b.2.w": 3, "b.10.w": 11},
        ),
        ("b.{i=1..2}.w", {"b.1.w": 1, "b.2.w": 2}),
        ("b.{i+1=1..2}.w", {"b.2.w": 1}),
        ("x.{i}", {}),
    ],
)
def test_an_index_is_the_number_less_the_offset(pattern, values):
    found = matched(pattern)
    assert found == {name: {"i": i} for name, i in values.items()}


def test_a_variable_has_one_value_in_a_name():
    names = ["a.0.b.0", "a.0.b.1", "a.1.b.2"]
    assert list(matched("a.{i}.b.{i}", names)) == ["a.0.b.0"]
    assert list(matched("a.{i}.b.{i+1}", names)) == ["a.0.b.1", "a.1.b.2"]
    assert len(matched("a.{i}.b.{j}", names)) == 3


def test_the_longest_word_of_a_choice_matches():
    found = matched("{q,qk}_w", ["q_w", "qk_w", "k_w"])
    key = (0, ("q", "qk"))
    assert found == {"q_w": {key: 0}, "qk_w": {key: 1}}


def test_text_is_no_regular_expression():
    assert matched("b.0.w", ["b.0.w", "bx0xw"]) == {"b.0.w": {}}
    assert matched("w+", ["w+", "ww"]) == {"w+": {}}


@pytest.mark.parametrize(
    "name", ["a b", "a[0]", "a{0}", "nothing", 'a"b', "a;b", "a,b", "a->b"]
)
def test_a_quoted_name_has_no_placeholders(name):
    assert quote(name) != name
    parsed = Pattern.parse(quote(name))
    assert parsed.tokens == (name,)
    assert str(parsed) == quote(name)


def test_quotes_that_do_not_match():
    with pytest.raises(ValueError, match='name "a: got quotes that do not'):
        Pattern.parse('"a')


def test_placeholders_pair_by_name_then_by_words_then_in_order():
    left = Pattern.parse("{i}.{j}.{q,k}.{a,b}").keys
    right = Pattern.parse("{i+1}.{x,y}.{q,k}.{l}{m}").keys
    pairs, ours, theirs = pair_keys(left, right)
    assert pairs == {
        "i": "i",
        (0, ("q", "k")): (1, ("q", "k")),
        (1, ("a", "b")): (0, ("x", "y")),
    }
    assert (ours, theirs) == (["j"], ["l", "m"])


def test_choices_of_other_sizes_do_not_pair():
    left = Pattern.parse("{q,k,v}").keys
    right = Pattern.parse("{x,y}").keys
    assert pair_keys(left, right) == ({}, list(left), list(right))
