"""Inline SVG that follows the page's colours, light and dark."""

import math
from collections.abc import Iterator, Mapping, Sequence

from common.benchmark.report import Race

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 90, 16, 44


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
        curves: numbers by count, by name; counts below 1 are left out.
        x: name of the count.
        y: name of the number.
        wanted: what the number should be; a dotted line.
        log: whether the numbers have a logarithmic axis too.
    """
    shown = {
        name: {k: v for k, v in curve.items() if k >= 1}
        for name, curve in curves.items()
    }
    values = [v for curve in shown.values() for v in curve.values()]
    last = max(max(curve) for curve in shown.values())
    scale = math.log if log else float
    low, high = scale(min(*values, wanted)), scale(max(*values, wanted))
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin

    def at(count: float) -> float:
        share = math.log(count) / math.log(last)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def height(value: float) -> float:
        share = (scale(value) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = []
    for tick in _powers(low, high) if log else _round_numbers(low, high):
        parts.append(_line(LEFT, height(tick), WIDTH - RIGHT, height(tick)))
        parts.append(_text(LEFT - 8, height(tick) + 4, f"{tick:g}", "end"))
    for count in _counts(last):
        parts.append(_line(at(count), TOP, at(count), HEIGHT - BOTTOM))
        parts.append(_text(at(count), HEIGHT - BOTTOM + 18, f"{count}"))
    here = height(wanted)
    parts.append(_line(LEFT, here, WIDTH - RIGHT, here, "wanted"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x))
    ends: list[float] = []
    for i, (name, curve) in enumerate(shown.items()):
        points = " ".join(
            f"{at(k):.1f},{height(v):.1f}" for k, v in _thin(curve)
        )
        kind = f"line series-{i}"
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        # Names of curves that end together go below each other.
        end = height(curve[last])
        while any(abs(end - other) < 14 for other in ends):
            end -= 14
        ends.append(end)
        right = WIDTH - RIGHT
        parts.append(_line(right + 4, end, right + 22, end, kind))
        parts.append(_text(right + 26, end + 4, name, "start"))
    return _svg(parts, HEIGHT, f"{y} over {x}: {', '.join(shown)}")


def ratios(race: Race, wanted: float) -> str:
    """Draws the ratios of a race to its floor, with their quartiles."""
    found = [(t.contender, race.ratio(t)) for t in race.timings]
    low = min(0.7, *(ratio.low for _, ratio in found)) / 1.1
    high = max(2.0, *(ratio.high for _, ratio in found)) * 1.1
    left, row, top = 190, 24, 34
    height = top + row * len(found) + 40

    def at(value: float) -> float:
        share = math.log(value / low) / math.log(high / low)
        return left + (WIDTH - left - 24) * share

    bottom = top + row * len(found)
    parts = [_text(0, 16, race.title, "start")]
    for tick in (0.5, 1, 2, 5, 10, 20, 50, 100):
        if low <= tick <= high:
            parts.append(_line(at(tick), top, at(tick), bottom))
            parts.append(_text(at(tick), bottom + 16, f"{tick:g}"))
    parts.append(_line(at(wanted), top, at(wanted), bottom, "wanted"))
    parts.append(
        _text((left + WIDTH) / 2, bottom + 34, "times the floor, log scale")
    )
    for i, (name, ratio) in enumerate(found):
        y = top + row * (i + 0.5)
        held = " held" if name in race.held else ""
        parts.append(_text(left - 10, y + 4, name, "end"))
        parts.append(_line(at(ratio.low), y, at(ratio.high), y, "whisker"))
        parts.append(
            f'<circle class="dot{held}" cx="{at(ratio.median):.1f}" '
            f'cy="{y:.1f}" r="4.5"/>'
        )
    return _svg(parts, height, f"{race.title}: ratios to the floor")


def _thin(curve: Mapping[int, float]) -> Iterator[tuple[int, float]]:
    """Leaves out points that a logarithmic axis draws onto each other."""
    after = 0.0
    for count, value in curve.items():
        if count >= after or count == max(curve):
            after = count * 1.02
            yield count, value


def _round_numbers(low: float, high: float) -> Iterator[float]:
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield i * step


def _powers(low: float, high: float) -> Iterator[float]:
    wide = high - low > math.log(1e4)
    digits, step = ((1,), 2) if wide else ((1, 2, 5), 1)
    powers = range(-16, 17, step)
    ticks = (d * 10.0**power for power in powers for d in digits)
    return (tick for tick in ticks if low <= math.log(tick) <= high)


def _counts(last: int) -> Iterator[int]:
    power = 1
    while power <= last:
        for digit in (1, 2, 5):
            if digit * power <= last:
                yield digit * power
        power *= 10


def _line(
    x1: float, y1: float, x2: float, y2: float, kind: str = "grid"
) -> str:
    return (
        f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" '
        f'x2="{x2:.1f}" y2="{y2:.1f}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
    )


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    return (
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-label="{label}">{"".join(parts)}</svg></div>\n'
    )
