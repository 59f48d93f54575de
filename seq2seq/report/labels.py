"""Place labels next to the points of a plot without overlaps.

Greedily, from the lowest point up, each label takes the position around its point that overlaps least with what is
already there: points, lines, the legend, other labels, the edge of the plot. All lengths are pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

LINE_MARGIN = 4
FONT_SIZE = 7.5
"""Points."""

Point = tuple[float, float]


def place_labels(
    axes: Any,
    points: Sequence[Point],
    labels: Sequence[str],
    colours: Sequence[str],
    lines: Sequence[tuple[Point, Point]] = (),
) -> None:
    """Write each label near its point, with a coloured line to it, where it overlaps no other one and few ``lines``."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    centres = axes.transData.transform(points)
    occupied = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in centres]
    occupied += [Bbox(axes.transData.transform(ends)).padded(LINE_MARGIN) for ends in lines]
    if axes.get_legend() is not None:
        occupied.append(axes.get_legend().get_window_extent(renderer))
    for index in np.argsort(centres[:, 1], kind="stable"):
        text = axes.annotate(
            labels[index],
            points[index],
            xytext=(0, 0),
            textcoords="offset pixels",
            fontsize=FONT_SIZE,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={"arrowstyle": "-", "linewidth": 0.7, "color": colours[index], "shrinkA": 0, "shrinkB": 2},
        )
        text.set_in_layout(False)  # names fit into the panel as it is
        size = Text.get_window_extent(text, renderer).size  # of the text alone, without the line to the point
        boxes = {
            tuple(offset): Bbox.from_bounds(*(centres[index] + offset), *size) for offset in candidate_offsets(size)
        }
        best = min(boxes, key=lambda offset: overlap_area(boxes[offset], occupied, frame))
        text.set_position(best)
        occupied.append(boxes[best])


def width_of(text: str) -> float:
    """The width of a label in inches."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=FONT_SIZE).get_extents().width / 72


def candidate_offsets(size: np.ndarray) -> list[np.ndarray]:
    """Return offsets from a point to the lower left corner of a text, on circles around the point, nearest first."""
    width, height = size
    found = []
    for radius in (14, 24, 38, 55, 75, 100, 130, 165, 205):
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            found.append(np.array([x - (width if x < -1e-6 else 0), y - height / 2]))
    return found


def overlap_area(box: Any, occupied: Sequence[Any], frame: Any) -> float:
    """Square pixels of a text that overlap something else or lie outside the frame."""
    covered = 0.0
    for other in occupied:
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        covered += max(width, 0.0) * max(height, 0.0)
    inside_width = min(box.x1, frame.x1) - max(box.x0, frame.x0)
    inside_height = min(box.y1, frame.y1) - max(box.y0, frame.y0)
    return covered + box.width * box.height - max(inside_width, 0.0) * max(inside_height, 0.0)
