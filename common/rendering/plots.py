"""Plots as SVG, without scripts.

The marks of a plot have CSS classes, so that one drawing follows the colors
of the page that it is in. `templates/plot.css` is the style sheet of our own
pages; the documentation has its own.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from common.rendering.pages import find_template

# Run-time type checks do not accept an int where a float is annotated.
Real = int | float


class Margins(NamedTuple):
    """Space around the plotting area, in pixels."""

    left: Real = 60
    right: Real = 24
    top: Real = 16
    bottom: Real = 44


MARGINS = Margins()


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values along one side of a plot.

    Attributes:
        low: the value at the left or lower end.
        high: the value at the other end.
        log: whether equal distances are equal ratios.
    """

    low: Real
    high: Real
    log: bool = False

    def fraction(self, value: Real) -> float:
        """Returns where a value is: 0 at the low end, 1 at the high end."""
        low, high = self.scaled
        return (self._scale(value) - low) / (high - low)

    def round_values(self) -> list[float]:
        """Returns values in the range that are good tick labels."""
        low, high = self.scaled
        if not self.log:
            rough = (high - low) / 5
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
            first, last = math.ceil(low / step), math.floor(high / step)
            return [i * step for i in range(first, last + 1)]
        decades = (high - low) / math.log(10)
        step = max(1, round(decades / 5))
        digits = (1, 2, 5) if decades <= 4 else (1,)
        first = math.floor(low / math.log(10))
        last = math.ceil(high / math.log(10))
        values = [
            digit * 10.0**power
            for power in range(first - first % step, last + 1, step)
            for digit in digits
        ]
        slack = 1e-9
        values = [
            value
            for value in values
            if low - slack <= math.log(value) <= high + slack
        ]
        if len(values) < 3:  # less than a decade
            return Axis(self.low, self.high).round_values()
        return values

    @property
    def scaled(self) -> tuple[float, float]:
        """The ends, as logarithms if the axis is logarithmic."""
        return self._scale(self.low), self._scale(self.high)

    def _scale(self, value: Real) -> float:
        return math.log(value) if self.log else float(value)


class Plot:
    """A plot that is drawn mark by mark.

    Points of the `add_` methods are values on the axes, except where a
    method says pixels.

    Args:
        x: the horizontal axis.
        y: the vertical axis.
        label: says what the plot shows to readers who cannot see it.
        width: of the drawing, in pixels.
        height: of the drawing, in pixels.
        margins: space around the plotting area.
    """

    def __init__(
        self,
        x: Axis,
        y: Axis,
        *,
        label: str,
        width: Real = 720,
        height: Real = 300,
        margins: Margins = MARGINS,
    ):
        self.x, self.y = x, y
        self.label = label
        self.width, self.height = width, height
        self.margins = margins
        self.right = width - margins.right
        self.bottom = height - margins.bottom
        self.marks: list[dict[str, Any]] = []

    def at_x(self, value: Real) -> float:
        """Returns the horizontal position of a value, in pixels."""
        left = self.margins.left
        return left + (self.right - left) * self.x.fraction(value)

    def at_y(self, value: Real) -> float:
        """Returns the vertical position of a value, in pixels."""
        top = self.margins.top
        return self.bottom - (self.bottom - top) * self.y.fraction(value)

    def add_grid(
        self, axis: Literal["x", "y"], values: Iterable[Real]
    ) -> None:
        """Adds grid lines with their values beside them."""
        for value in values:
            text = f"{value:g}"
            if axis == "x":
                self.add_rule("x", value, "grid")
                self.add_text(self.at_x(value), self.bottom + 18, text)
            else:
                self.add_rule("y", value, "grid")
                left, y = self.margins.left - 8, self.at_y(value) + 4
                self.add_text(left, y, text, "end")

    def add_rule(
        self, axis: Literal["x", "y"], value: Real, kind: str
    ) -> None:
        """Adds a line across the plot where an axis has some value."""
        if axis == "x":
            x = self.at_x(value)
            self.add_pixels(x, self.margins.top, x, self.bottom, kind)
        else:
            y = self.at_y(value)
            self.add_pixels(self.margins.left, y, self.right, y, kind)

    def add_line(self, points: Iterable[tuple[Real, Real]], kind: str) -> None:
        """Adds straight lines through some points."""
        text = " ".join(
            f"{self.at_x(x):.1f},{self.at_y(y):.1f}" for x, y in points
        )
        self.marks.append({"type": "line", "points": text, "kind": kind})

    def add_dot(
        self, x: Real, y: Real, kind: str, title: str = "", radius: Real = 3
    ) -> None:
        """Adds a dot, with a title that is shown when it is pointed at."""
        mark = {"x": f"{self.at_x(x):.1f}", "y": f"{self.at_y(y):.1f}"}
        self.marks.append(
            {"type": "dot", "radius": radius, "title": title, "kind": kind}
            | mark
        )

    def add_pixels(
        self, x1: Real, y1: Real, x2: Real, y2: Real, kind: str
    ) -> None:
        """Adds a line between two points, in pixels."""
        points = f"{x1:.1f},{y1:.1f} {x2:.1f},{y2:.1f}"
        self.marks.append({"type": "rule", "points": points, "kind": kind})

    def add_text(
        self,
        x: Real,
        y: Real,
        text: str,
        anchor: Literal["start", "middle", "end"] = "middle",
    ) -> None:
        """Adds a text at a point, in pixels."""
        mark = {"x": f"{x:.1f}", "y": f"{y:.1f}", "anchor": anchor}
        self.marks.append({"type": "text", "text": text} | mark)

    def add_title(self, text: str) -> None:
        """Adds the name of the horizontal axis below it."""
        middle = (self.margins.left + self.right) / 2
        self.add_text(middle, self.height - 8, text)

    def svg(self) -> str:
        """Returns the plot as an `<svg>` element."""
        return find_template("plot.svg.jinja").render(plot=self)
