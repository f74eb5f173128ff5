"""Charts without a plotting library: axes, curves, filled steps and a legend, as pixels or as SVG."""

from __future__ import annotations

import html
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

COLORS = ("#d1495b", "#00798c", "#edae49", "#30638e", "#6a994e", "#8d5a97", "#5c5c5c", "#bc6c25")
TEXT, GRID = "#333333", "#dddddd"
FONT_SIZE = 15

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class Canvas(ABC):
    """Something to draw on; places in pixels from the upper left corner.

    The anchor of a text has two letters: l, m or r across, and a (top), m (middle) or s (bottom) down.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height

    @abstractmethod
    def line(self, points: Sequence[Point], color: str, width: int = 1) -> None:
        """A line through two points or more."""

    @abstractmethod
    def area(self, points: Sequence[Point], color: str) -> None:
        """A polygon through which what lies below shows."""

    @abstractmethod
    def text(self, place: Point, text: str, anchor: str = "la") -> None:
        """A line of text."""


class Raster(Canvas):
    """A canvas of pixels."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw, ImageFont

        super().__init__(width, height)
        self._picture = Image.new("RGB", (width, height), "white")
        self._draw, self._font = ImageDraw.Draw(self._picture, "RGBA"), ImageFont.load_default(FONT_SIZE)

    def line(self, points: Sequence[Point], color: str, width: int = 1) -> None:
        """As `Canvas.line`."""
        self._draw.line(list(points), fill=color, width=width, joint="curve" if len(points) > 2 else None)

    def area(self, points: Sequence[Point], color: str) -> None:
        """As `Canvas.area`."""
        self._draw.polygon(list(points), fill=color + "66")

    def text(self, place: Point, text: str, anchor: str = "la") -> None:
        """As `Canvas.text`."""
        self._draw.text(place, text, fill=TEXT, font=self._font, anchor=anchor)

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, RGB (height, width, 3)."""
        return np.asarray(self._picture)


class Svg(Canvas):
    """A canvas that becomes the text of an SVG file."""

    _ACROSS: ClassVar = {"l": "start", "m": "middle", "r": "end"}
    _DOWN: ClassVar = {"a": 0.8, "m": 0.35, "s": -0.2}  # of the font's size, from the anchor down to the base line

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self._parts: list[str] = []

    def line(self, points: Sequence[Point], color: str, width: int = 1) -> None:
        """As `Canvas.line`."""
        self._parts.append(
            f'<polyline points="{_places(points)}" fill="none" stroke="{color}" stroke-width="{width}" '
            'stroke-linejoin="round"/>'
        )

    def area(self, points: Sequence[Point], color: str) -> None:
        """As `Canvas.area`."""
        self._parts.append(f'<polygon points="{_places(points)}" fill="{color}" fill-opacity="0.4"/>')

    def text(self, place: Point, text: str, anchor: str = "la") -> None:
        """As `Canvas.text`."""
        y = place[1] + self._DOWN[anchor[1]] * FONT_SIZE
        self._parts.append(
            f'<text x="{place[0]:.1f}" y="{y:.1f}" text-anchor="{self._ACROSS[anchor[0]]}">{html.escape(text)}</text>'
        )

    def document(self) -> str:
        """The whole file."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}"'
        style = (
            f' viewBox="0 0 {self.width} {self.height}" font-family="sans-serif" font-size="{FONT_SIZE}" fill="{TEXT}">'
        )
        white = f'<rect width="{self.width}" height="{self.height}" fill="white"/>'
        return "\n".join([head + style, white, *self._parts, "</svg>", ""])


@dataclass(frozen=True)
class Axis:
    """From a value to a part of the way between two ends; `logarithmic` takes powers of ten as ends' exponents do."""

    low: float
    high: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.0

    def ticks(self) -> list[tuple[float, str]]:
        """At most nine values to label, and their labels."""
        if self.logarithmic:
            low, high = round(math.log10(self.low)), round(math.log10(self.high))
            return [(10.0**power, f"1e{power}") for power in range(low, high + 1, max(1, (high - low) // 8))]
        return [(value, f"{value:g}") for value in ticks(self.low, self.high)]


def decades(values: Sequence[float]) -> Axis:
    """A logarithmic axis over whole powers of ten around all values, which are above 0."""
    low = math.floor(math.log10(min(values)))
    return Axis(10.0**low, 10.0 ** max(low + 1, math.ceil(math.log10(max(values)))), logarithmic=True)


def ticks(first: float, last: float) -> list[float]:
    """At most eight values to label, evenly spaced: multiples of 1, 2 or 5 times a power of ten.

    >>> ticks(1, 200), ticks(0.0, 1.0)
    ([50, 100, 150, 200], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    """
    smallest = (
        0 if isinstance(first, int) and isinstance(last, int) else math.floor(math.log10((last - first) or 1)) - 2
    )
    for power in range(smallest, 40):
        for factor in (1, 2, 5):
            every = factor * 10**power if power >= 0 else factor / 10**-power
            start, end = -math.floor(-(first / every) + 1e-9), math.floor(last / every + 1e-9)
            if end - start < 8:
                return [round(i * every, 12) for i in range(start, end + 1)]
    raise AssertionError("the spacings grow beyond every range")


@dataclass(frozen=True)
class Panel:
    """A frame in a canvas with two axes. box: left, top, right, bottom."""

    canvas: Canvas
    box: Box
    across: Axis
    up: Axis

    def place(self, x: float, y: float) -> Point:
        """Where a point lies on the canvas."""
        left, top, right, bottom = self.box
        return left + self.across(x) * (right - left), bottom - self.up(y) * (bottom - top)

    def frame(self, title: str, label: str) -> None:
        """Lines and labels of the axes; the title stands above and says what goes up, the label below."""
        left, top, right, bottom = self.box
        for value, text in self.up.ticks():
            y = self.place(self.across.low, value)[1]
            self.canvas.line([(left, y), (right, y)], GRID)
            self.canvas.text((left - 12, y), text, "rm")
        for value, text in self.across.ticks():
            x = self.place(value, self.up.low)[0]
            self.canvas.line([(x, bottom), (x, bottom + 6)], TEXT)
            self.canvas.text((x, bottom + 10), text, "ma")
        self.canvas.text(((left + right) / 2, bottom + 36), label, "ma")
        self.canvas.text((left, top - 26), title)

    def curve(self, points: Sequence[Point], color: str, width: int = 2) -> None:
        """A line through points; one point alone is a dot."""
        places = [self.place(*point) for point in points]
        self.canvas.line(places if len(places) > 1 else places * 2, color, width)

    def steps(self, edges: Sequence[float], heights: Sequence[float], color: str) -> None:
        """A filled histogram: n + 1 edges and n heights."""
        corners = [(edges[0], self.up.low)]
        for i, height in enumerate(heights):
            corners += [(edges[i], height), (edges[i + 1], height)]
        corners.append((edges[-1], self.up.low))
        places = [self.place(*corner) for corner in corners]
        self.canvas.area(places, color)
        self.canvas.line(places, color, 2)

    def legend(self, entries: Sequence[tuple[str, str, int]], place: Point, spacing: float = 24) -> None:
        """Name, colour and width of lines, one below the other."""
        for i, (name, color, width) in enumerate(entries):
            x, y = place[0], place[1] + spacing * i
            self.canvas.line([(x, y + 9), (x + 24, y + 9)], color, width)
            self.canvas.text((x + 32, y), name)


def _places(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
