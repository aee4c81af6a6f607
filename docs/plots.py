"""The plots of the documentation, which follow the page's color scheme."""

from collections.abc import Iterator, Mapping

from common.benchmark.report import Race
from common.rendering.plots import Axis, Margins, Plot

MARGINS = Margins(right=104)


def lines(
    curves: Mapping[str, Mapping[int, float]],
    *,
    x: str,
    y: str,
    wanted: float,
    log: bool = False,
) -> str:
    """Draws curves over a logarithmic count.

    Args:
        curves: the values by count, for each name. Counts below 1 are left
            out.
        x: what is counted.
        y: what the values are.
        wanted: the value that the curves should have, a dotted line.
        log: whether the vertical axis is logarithmic too.
    """
    shown = {
        name: {count: v for count, v in curve.items() if count >= 1}
        for name, curve in curves.items()
    }
    values = [v for curve in shown.values() for v in curve.values()]
    last = max(max(curve) for curve in shown.values())
    plot = Plot(
        Axis(1, last, log=True),
        _padded(min(*values, wanted), max(*values, wanted), log),
        label=f"{y} over {x}: {', '.join(shown)}",
        margins=MARGINS,
    )
    plot.add_grid("y", plot.y.round_values())
    plot.add_grid("x", plot.x.round_values())
    plot.add_rule("y", wanted, "wanted")
    plot.add_title(x)
    ends: list[float] = []
    for i, (name, curve) in enumerate(shown.items()):
        kind = f"series-{i}"
        plot.add_line(_thin(curve), kind)
        # The names of curves that end near each other are stacked.
        end = plot.at_y(curve[last])
        while any(abs(end - other) < 14 for other in ends):
            end -= 14
        ends.append(end)
        plot.add_pixels(
            plot.right + 4, end, plot.right + 22, end, f"line {kind}"
        )
        plot.add_text(plot.right + 26, end + 4, name, "start")
    return _framed(plot)


def ratios(race: Race, wanted: float) -> str:
    """Draws the ratios of a race to its baseline, with their quartiles."""
    found = [(t.contender, race.ratio(t)) for t in race.timings]
    low = min(0.7, *(ratio.low for _, ratio in found)) / 1.1
    high = max(2.0, *(ratio.high for _, ratio in found)) * 1.1
    margins = Margins(left=190, top=34, bottom=48)
    plot = Plot(
        Axis(low, high, log=True),
        Axis(len(found), 0),
        label=f"{race.title}: ratios to the baseline",
        height=margins.top + 24 * len(found) + margins.bottom,
        margins=margins,
    )
    plot.add_text(0, 16, race.title, "start")
    ticks = (0.5, 1, 2, 5, 10, 20, 50, 100)
    plot.add_grid("x", [tick for tick in ticks if low <= tick <= high])
    plot.add_rule("x", wanted, "wanted")
    plot.add_title("times the baseline, log scale")
    for i, (name, ratio) in enumerate(found):
        y = i + 0.5
        held = "held" if name in race.judged else ""
        plot.add_text(margins.left - 10, plot.at_y(y) + 4, name, "end")
        plot.add_pixels(
            plot.at_x(ratio.low),
            plot.at_y(y),
            plot.at_x(ratio.high),
            plot.at_y(y),
            "whisker",
        )
        plot.add_dot(ratio.median, y, held, radius=4.5)
    return _framed(plot)


def _padded(low: float, high: float, log: bool) -> Axis:
    """Returns an axis with some space above and below the values."""
    if log:
        margin = (high / low) ** 0.06
        return Axis(low / margin, high * margin, log=True)
    margin = 0.06 * (high - low)
    return Axis(low - margin, high + margin)


def _thin(curve: Mapping[int, float]) -> Iterator[tuple[int, float]]:
    """Leaves out points that a logarithmic axis draws onto each other."""
    after, last = 0.0, max(curve)
    for count, value in curve.items():
        if count >= after or count == last:
            after = count * 1.02
            yield count, value


def _framed(plot: Plot) -> str:
    return f'<div class="plot">{plot.svg()}</div>\n'
