"""Tests of rules on two models."""

import pytest

from common.porting import plan_port, port
from tests.porting import pairs

WRONG = {
    "nowhere -> norm": "got 'nowhere', which is no array or module",
    "norm.weight norm.scale": "got no arrow, expected `source -> target`",
    "norm.weight -> turn -> norm.scale": "step: got 'turn', expected one of",
    "norm.weight -> reshape(3) -> norm.scale": r"reshape\(3,\): got the shape",
    "norm.weight -> transpose(x) -> norm.scale": "got the step 'transpose",
    "norm -> norm.scale": "got a module on one side and an array on the other",
    "layers.{i}.bias -> norm.bias": "got 2 sources for",
    "norm.weight -> split -> norm.scale": "got no placeholder that only one",
    "layers.0.bias -> layers.1.bias": r"got the shapes \(4,\) and \(3,\)",
    "layers.{i+9}.bias -> layers.{i}.bias": "which is no array or module",
    "layers.{q}q.bias -> layers.{i,i}.bias": "got the placeholder {i,i}",
    "[norm.weight -> stack -> norm.scale": "got brackets that do not match",
    "norm.weight -> copy(1) -> norm.scale": "step: got 'copy'",
    "norm.weight -> flip(a=1) -> norm.scale": "got arguments that it does not",
    "norm weight -> norm.scale": "got the characters 'norm weight'",
}


@pytest.mark.parametrize("rule", WRONG)
def test_wrong_rules(rule):
    with pytest.raises(ValueError, match=WRONG[rule]):
        port(pairs.EqxMLP(), pairs.NnxMLP(), rules=rule)


def test_rules_of_a_wrong_type():
    with pytest.raises(TypeError, match="rules: got list, expected a plan"):
        port(pairs.EqxMLP(), pairs.NnxMLP(), rules=["a -> b"])


def test_a_plan_of_other_models():
    plan = plan_port(pairs.EqxMLP(), pairs.NnxMLP())
    with pytest.raises(ValueError, match="rules: got a plan with the arrays"):
        port(pairs.EqxScan(), pairs.NnxList(), rules=plan)
