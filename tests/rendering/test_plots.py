"""SVG plots."""

import math
from xml.etree import ElementTree

import pytest

from common.rendering.plots import Axis, Margins, Plot


@pytest.mark.parametrize("log", [False, True])
def test_axis_maps_its_ends_to_zero_and_one(log):
    axis = Axis(2.0, 50.0, log)
    assert axis.fraction(2.0) == 0
    assert axis.fraction(50.0) == 1
    assert f"{axis.fraction(10.0):.6f}" == ("0.500000" if log else "0.166667")


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 10.0, False, [0, 2, 4, 6, 8, 10]),
        (1.0, 20.0, True, [1, 2, 5, 10, 20]),
        (1e-16, 1.0, True, [1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 1]),
        (0.5, 0.8, True, [0.5, 0.6, 0.7, 0.8]),
    ],
)
def test_tick_labels_are_round_values_in_the_range(low, high, log, expected):
    values = Axis(low, high, log).round_values()
    assert [f"{value:.6g}" for value in values] == [
        f"{value:.6g}" for value in expected
    ]


def make() -> Plot:
    plot = Plot(
        Axis(0, 10),
        Axis(0, 1),
        label="errors <of> x",
        width=120,
        height=70,
        margins=Margins(10, 10, 10, 10),
    )
    plot.add_grid("x", [0, 5, 10])
    plot.add_grid("y", [0.5])
    plot.add_rule("x", 5, "divergence")
    plot.add_line([(0, 0), (10, 1)], "series-0")
    plot.add_dot(5, 0.5, "unmatched", "a & b")
    plot.add_title("steps")
    return plot


def test_plot_is_well_formed_and_places_its_marks():
    root = ElementTree.fromstring(make().svg())
    (line,) = root.findall("polyline")
    assert line.get("points") == "10.0,60.0 110.0,10.0"
    (dot,) = root.findall("circle")
    assert (dot.get("cx"), dot.get("cy")) == ("60.0", "35.0")
    assert dot.get("class") == "dot unmatched"
    assert dot.findtext("title") == "a & b"
    assert root.get("aria-label") == "errors <of> x"
    assert len(root.findall("path")) == 5
    texts = [text.text for text in root.findall("text")]
    assert texts == ["0", "5", "10", "0.5", "steps"]


def test_plot_cannot_draw_what_has_no_logarithm():
    with pytest.raises(ValueError, match="math domain"):
        Axis(1e-3, 1, log=True).fraction(0.0)
    assert math.isfinite(Axis(1e-3, 1, log=True).fraction(1e-9))
