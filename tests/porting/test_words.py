"""Tests of the steps of rules as functions."""

from common.porting import ArrayInfo, Plan, words


def plan(source, target, rules):
    ours, theirs = (
        {name: ArrayInfo(shape, "float64") for name, shape in side.items()}
        for side in (source, target)
    )
    return Plan.parse(rules, ours, theirs)


def test_each_word():
    made = plan(
        {
            "b.0.qkv": (6, 4),
            "b.1.qkv": (6, 4),
            "w": (4, 5),
            "s": (2, 3, 4),
            "x.0": (2, 3),
            "x.1": (2, 3),
            "y.l": (2, 3),
            "y.r": (1, 3),
        },
        {
            **{f"l.{i}.{n}": (4, 2) for i in (1, 2) for n in "qkv"},
            "k": (2, 2, 5),
            "u.0": (2, 4),
            "u.1": (2, 4),
            "u.2": (2, 4),
            "z": (2, 2, 3),
            "j": (3, 3),
            "freqs": (2,),
        },
        {
            "b.{i}.qkv": words.split(words.transpose("l.{i+1}.{q,k,v}")),
            "w": words.reshape("k", 2, 2, -1),
            "s": words.unstack("u.{i}", 1),
            "x.{i}": words.stack("z"),
            "y.{l,r}": words.concatenate("j"),
            "freqs": words.derive([0.5, 2.0]),
        },
    )
    assert made.rules.splitlines() == [
        "b.{i}.qkv -> split -> transpose -> l.{i+1}.{q,k,v}",
        "w -> reshape(2, 2, 5) -> k",
        "s -> unstack(1) -> u.{i}",
        "x.{i} -> stack -> z",
        "y.{l,r} -> concatenate -> j",
        "derive([0.5, 2.0]) -> freqs",
    ]


def test_sizes():
    made = plan(
        {"qkv": (8, 4)},
        {"q": (4, 4), "k": (2, 4), "v": (2, 4)},
        {"qkv": words.split("{q,k,v}", sizes=(4, 2, 2))},
    )
    assert made.rules == "qkv -> split(sizes=(4, 2, 2)) -> {q,k,v}"
