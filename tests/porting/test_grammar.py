"""The text of rules is read as it is written."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.porting.grammar import (
    Call,
    Chain,
    Rule,
    literal,
    parse,
    parse_call,
    parse_rules,
)
from common.porting.patterns import Choice, Pattern, Variable

RULES = (
    "a.weight -> b.kernel",
    "encoder.{i}.qkv -> split -> layer.{i+1}.{q,k,v}_proj",
    "stack.w -> unstack(1) -> transpose(2, 0, 1) -> layers.{i=0..3}.w",
    "[a; b -> transpose] -> concatenate -> c",
    "[[a; b] -> stack; c] -> concatenate(1) -> d",
    "qkv -> split(0, sizes=(64, 16, 16)) -> {q,k,v}",
    "derive([0.5, -1e999]) -> eps",
    '"a name; with -> brackets [0]" -> b',
    'a -> "nothing"',
    "mask -> nothing",
    "nothing -> head.kernel",
)


@pytest.mark.parametrize("text", RULES)
def test_a_rule_is_printed_as_it_was_read(text):
    assert str(parse(text)) == text


def test_what_a_rule_says():
    rule = parse("a.{i} -> split(0, sizes=(1, 2)) -> copy -> b.{i-1}.{q,k}")
    assert rule == Rule(
        Chain(
            Pattern(("a.", Variable("i"))),
            (Call("split", (0,), (("sizes", (1, 2)),)), Call("copy")),
        ),
        Pattern(("b.", Variable("i", -1), ".", Choice(("q", "k")))),
    )
    assert parse("a -> nothing").target is None
    assert parse("nothing -> a").chain.source is None
    assert parse("derive(0.5) -> a").chain.source == Call("derive", (0.5,))


def test_lines_and_dicts_say_the_same():
    text = """
    # how they were ported
    a -> transpose -> b

    derive(0.5) -> eps
    """
    rules = parse_rules(text)
    assert rules == parse_rules({"a": "transpose -> b", "derive(0.5)": "eps"})
    assert rules == parse_rules({"a": "transpose -> b", "eps": "derive(0.5)"})


LITERALS = st.recursive(
    st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(inner),
    max_leaves=5,
)


@settings(max_examples=10)
@given(st.lists(LITERALS, max_size=3))
def test_a_step_is_read_as_it_is_written(arguments):
    call = Call("reshape", tuple(arguments), (("sizes", tuple(arguments)),))
    assert parse_call(str(call)) == call


def test_infinities_are_written_as_numbers():
    assert literal([math.inf, -math.inf]) == "[1e999, -1e999]"


WRONG = {
    "a b": "got no arrow, expected `source -> target`",
    "[a; b -> c": "got brackets that do not match",
    'a -> "b': "got brackets that do not match",
    "[a; ] -> c": "got the source '[a; ]', expected parts",
    "a -> two words -> b": "got the step 'two words', expected a word",
    "a -> split(x) -> b": r"got the step 'split(x)', expected a word",
    "a -> f.g(1) -> b": "got the step 'f.g(1)', expected a word",
    "a,b -> c": "got the characters 'a,b', expected a dotted name",
    "a -> {q,q}": "got the placeholder {q,q}",
    "a -> ": "name: got nothing, expected a dotted name",
    "a -> {i*2}": "got the placeholder {i*2}",
}


@pytest.mark.parametrize("text", WRONG)
def test_text_that_is_no_rule_is_named(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert WRONG[text] in str(caught.value)
    assert str(caught.value).startswith(f"rule {text!r}: ")
