"""The page "More than one device": its snippets, plan and drawings."""

import importlib
import json
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest

from common.benchmark.scaling_report import Scaling
from docs.several_processes import train
from tests import topologies
from tests.docs.test_docs import DOCS, SEVERAL_DEVICES, failures_of_snippets

PAGE = DOCS / SEVERAL_DEVICES


def test_snippets_run_on_eight_devices():
    [found] = topologies.run(failures_of_snippets, PAGE, devices=8)
    assert not found


def losses_of_a_part() -> np.ndarray:
    xs = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    with jax.enable_x64(False):
        return np.asarray(train(xs, np.sin(xs)))


@pytest.mark.exhaustive
def test_several_processes_train_as_one_device():
    from common.agreement import assert_close

    expected = losses_of_a_part()
    for found in topologies.run(losses_of_a_part, processes=2, devices=2):
        assert_close(
            found, expected, dtype="float32", quantity="trajectory", steps=8
        )


@pytest.fixture(scope="module")
def generated():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("many_devices_pages")


def test_the_stored_costs_are_those_of_a_full_run(generated):
    stored = Scaling.from_json(json.loads(generated.STORED.read_text()))
    assert stored.settings["devices"] == [1, 2, 4, 8]
    assert stored.settings["rounds"] >= 40
    cases = {(case.devices, case.shard) for case in stored.cases}
    assert len(cases) == 8
    text = generated.costs(stored)
    for case in stored.cases:
        for cost in case.costs:
            assert (
                f"| {case.devices} | {case.shard} | {cost.contender} |" in text
            )


@pytest.mark.parametrize("shard", ["replicated", "fsdp"])
def test_a_drawing_shows_what_each_device_has(shard, generated):
    root = ElementTree.fromstring(generated.diagram(shard))
    kinds = [rect.get("class") for rect in root.iter("rect")]
    devices, parts, pieces = 4, 4, 4
    assert len(kinds) == devices * parts * pieces
    # One row of four pieces for the batch, and all rows but the statistics.
    rows = [
        kinds[i : i + pieces].count("kept")
        for i in range(0, len(kinds), pieces)
    ]
    split = [1, 4, 4, 4] if shard == "replicated" else [1, 1, 1, 4]
    assert rows == split * devices


@pytest.mark.exhaustive
def test_the_plan_is_of_real_models(generated):
    resnet, transformer = generated.models()
    assert len(resnet.norms) == 53 and not transformer.norms
    assert resnet.parameters == 25_557_032  # as published for ResNet-50
    assert 1.0e9 < transformer.parameters < 1.02e9
    values = json.loads(json.dumps(generated.pages()["many_devices.json"]))
    plans = json.loads(values)["plans"]
    assert len(plans) == 2 * 2 * 3
    assert {found["devices"] for found in plans} == {10, 100, 1000}
