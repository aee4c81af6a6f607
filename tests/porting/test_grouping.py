"""Rules that differ only in numbers become one, and no more than these."""

from common.porting.grouping import Entry, group, is_writable
from common.porting.patterns import Pattern


def says_its_entries(one):
    """Tells whether the patterns match the names of the entries only."""
    sources = [n for e in one.entries for n in e.sources]
    found = {m.name for m in one.source.matches(NAMES)}
    return found == set(sources)


def always(one):
    return True


NAMES: list[str] = []


def grouped(pairs, confirm=always):
    entries = [Entry((a,), (), (b,)) for a, b in pairs]
    return [
        (str(one.source), str(one.target), len(one.entries))
        for one in group(entries, confirm)
    ]


def test_an_index_with_an_offset():
    pairs = [(f"b.{i}.w", f"l{i + 1}.w") for i in range(3)]
    assert grouped(pairs) == [("b.{i}.w", "l{i+1}.w", 3)]


def test_two_indices_that_run_over_a_product():
    pairs = [(f"b.{i}.{j}", f"l{j}.{i}") for i in range(2) for j in range(3)]
    assert grouped(pairs) == [("b.{i}.{j}", "l{j}.{i}", 6)]


def test_one_name_is_no_pattern():
    assert grouped([("b.0.w", "l1.w")]) == [("b.0.w", "l1.w", 1)]


def test_numbers_in_another_order_are_not_one_rule():
    pairs = [("b.0", "l.1"), ("b.1", "l.0"), ("b.2", "l.2")]
    assert grouped(pairs) == [
        ("b.0", "l.1", 1),
        ("b.1", "l.0", 1),
        ("b.2", "l.2", 1),
    ]


def test_other_steps_are_other_rules():
    entries = [
        Entry((f"b.{i}",), "transpose" if i == 2 else (), (f"l.{i}",))
        for i in range(3)
    ]
    found = group(entries, always)
    assert sorted(len(one.entries) for one in found) == [1, 2]


def test_a_rule_that_says_too_much_is_bounded():
    """`b.3` exists, and is no part of the rule."""
    NAMES[:] = [f"b.{i}" for i in range(4)]
    pairs = [(f"b.{i}", f"l.{i}") for i in range(3)]
    assert grouped(pairs, says_its_entries) == [
        ("b.{i=0..2}", "l.{i=0..2}", 3)
    ]


def test_pieces_have_a_word_or_a_number():
    entries = [
        Entry((f"b.{i}.qkv",), "split", tuple(f"l.{i}.{w}_w" for w in "qkv"))
        for i in range(2)
    ]
    (one,) = group(entries, always)
    assert str(one.target) == "l.{i}.{q,k,v}_w"
    (one,) = group(
        [Entry(("stack",), "unstack", ("s.1.w", "s.2.w", "s.3.w"))], always
    )
    assert str(one.target) == "s.{i+1}.w"


def test_names_that_a_pattern_cannot_hold():
    assert is_writable(Pattern(("a b",)))  # in quotes
    assert is_writable(Pattern.parse("a.{i}"))
    assert not is_writable(Pattern(("a b", *Pattern.parse("{i}").tokens)))
