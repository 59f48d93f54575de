"""The plots of a run's page: error by position against the baselines, and error by loop with the trained b marked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from seq2seq.drawing import legend_below, new_figure, panels, save

PLOT = "errors.png"
COLOURS = ("#4477aa", "#e07b00", "#228833", "#aa3377", "#777777")


def draw_errors(
    path: Path, by_position: Mapping[str, Sequence[float]], by_loop: Sequence[float], trained: int, last: int
) -> None:
    """Draw both panels.

    Args:
        by_position: errors at each point, by the name of what predicts; the run comes first.
        by_loop: errors of the last point after each loop.
        trained: b.
        last: the number of the last point.
    """
    figure = new_figure(4.2)
    first, second = panels(figure, 2)
    lines = {}
    for (name, values), colour in zip(by_position.items(), COLOURS, strict=False):
        (lines[name],) = first.plot(range(1, len(values) + 1), values, color=colour, marker="o", markersize=3)
    first.set(title="error by position", xlabel="point", ylabel="squared error / dims", ylim=(0, None))
    second.plot(range(1, len(by_loop) + 1), by_loop, color=COLOURS[0], marker="o", markersize=3)
    second.axvline(trained, color="#777777", linestyle=":")
    second.set(title=f"error by loop at point {last}, trained with {trained}", xlabel="loop", yscale="log")
    for axes in (first, second):
        axes.grid(alpha=0.25)
    legend_below(figure, lines)
    save(figure, path)
