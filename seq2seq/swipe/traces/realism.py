"""How realistic synthetic traces are: quantiles beside those of real ones, and whether a classifier tells them apart.

    python -m seq2seq.swipe.traces.realism REAL.jsonl [--plot realism.png]

Each real swipe has one synthetic trace of the same word on the same keyboard. Only the half of the words on which the
writer was not fitted is used (see ``halves``). The classifiers see the measures below and not the points, are
cross-validated in folds that share no word, and guess right half of the time if nothing tells the two kinds apart.

Shapes: n traces, m points of the longest, k letters of the longest word.
"""

import argparse
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adapters.validation import refuse
from seq2seq.drawing import COLOURS, legend_below, new_figure, save
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.traces.reading import read_traces
from seq2seq.swipe.traces.statistics import distances_to_path
from seq2seq.swipe.traces.synthetic import synthetic_traces
from seq2seq.swipe.traces.trace import padded, resampled
from seq2seq.swipe.traces.writer import Writer

RATE = 30.0
"""Points per second at which traces are compared."""

WORST_END = 1.5
"""Key widths. A trace that begins or ends farther from its letter is a bad swipe, and is not compared."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

MEASURES = {
    "length": "of the path, in key widths",
    "detour": "its length / the length of the straight path through the centres of the keys",
    "duration": "seconds",
    "pace": "duration / letters",
    "speed": "mean, in key widths a second",
    "top speed": "the 90th percentile",
    "slow speed": "the 25th percentile",
    "stillness": "share of the time in which the finger moves less than a key width a second",
    "start speed": "in the first tenth of a second, as a share of the mean",
    "end speed": "in the last tenth of a second, as a share of the mean",
    "acceleration": "root mean square, in key widths a second squared",
    "turning": "mean angle between steps, in radians",
    "curvature": "total angle / length, in radians a key width",
    "letter error": "mean distance of the letters' centres from the path, in key widths",
    "worst letter error": "the largest of these distances",
    "first error": "distance of the first point from the first letter's centre",
    "last error": "the same at the end",
}
"""What is measured of each trace."""


class Swipe(NamedTuple):
    """A trace at ``RATE``.

    Args:
        points: (time, 2) float32, in key widths.
    """

    word: str
    points: np.ndarray
    layout: Layout


def real_swipes(path: Path) -> tuple[list[Swipe], int]:
    """The swipes of a file of traces, see ``seq2seq.swipe.traces.reading``, on qwerty if rows name no other layout.

    Returns:
        The swipes, and the number of bad ones that were left out.
    """
    layouts = Layouts()
    swipes, bad = [], 0
    for _, trace in read_traces(path, layouts, "qwerty"):
        layout = layouts[trace.layout]
        points = resampled(trace, layout, RATE)
        ends = layout.boxes[[layout.numbers[trace.word[place]] for place in (0, -1)], :2]
        if np.linalg.norm(points[[0, -1]] - ends, axis=1).max() > WORST_END:
            bad += 1
        else:
            swipes.append(Swipe(trace.word, points, layout))
    return swipes, bad


def halves(swipes: Sequence[Swipe]) -> tuple[list[Swipe], list[Swipe]]:
    """The swipes to fit the writer on, and those to judge it on, which share no word."""
    parts: tuple[list[Swipe], list[Swipe]] = [], []
    for swipe in swipes:
        parts[zlib.crc32(swipe.word.encode()) % 2].append(swipe)
    return parts


def synthetic_like(swipes: Sequence[Swipe], seed: int = 0, writer: Writer | None = None) -> list[Swipe]:
    """A synthetic trace for each swipe, of its word, on its keyboard, and in pixels and ms as it is."""
    found: dict[int, Swipe] = {}
    for name in dict.fromkeys(swipe.layout.name for swipe in swipes):
        places = [place for place, swipe in enumerate(swipes) if swipe.layout.name == name]
        layout = swipes[places[0]].layout
        words = (swipes[place].word for place in places)
        traces = synthetic_traces(words, layout, seed, first=places[0] * len(swipes), writer=writer)
        found |= {p: Swipe(t.word, resampled(t, layout, RATE), layout) for p, t in zip(places, traces, strict=True)}
    return [found[place] for place in range(len(swipes))]


def measures(swipes: Sequence[Swipe]) -> np.ndarray:
    """What ``MEASURES`` says of each trace: (n, measures) float64."""
    points, mask = padded([swipe.points for swipe in swipes])
    counts = mask.sum(1)  # (n,)
    letters = max(len(swipe.word) for swipe in swipes)
    centres = np.stack(
        [s.layout.boxes[[s.layout.numbers[c] for c in s.word.ljust(letters, s.word[-1])], :2] for s in swipes]
    )  # (n, k, 2)
    known = np.arange(letters) < np.array([len(swipe.word) for swipe in swipes])[:, None]  # (n, k)

    steps = np.diff(points, axis=1) * mask[:, 1:, None]  # (n, m - 1, 2)
    whole = np.arange(steps.shape[1]) < np.maximum(counts - 2, 1)[:, None]  # the last step is shorter in time
    moved = np.linalg.norm(steps, axis=2)  # (n, m - 1)
    length, ideal = moved.sum(1), np.linalg.norm(np.diff(centres, axis=1), axis=2).sum(1)
    number = whole.sum(1)
    speed = (moved * whole).sum(1) / number * RATE
    ordered = np.sort(np.where(whole, moved, np.inf), 1) * RATE
    row = np.arange(len(swipes))
    slow, top = (ordered[row, (share * (number - 1)).astype(int)] for share in (0.25, 0.9))
    still = (whole & (moved * RATE < 1)).sum(1) / number
    start = moved[:, :3].mean(1) * RATE / np.maximum(speed, 0.1)
    late = np.maximum(number[:, None] - np.arange(1, 4), 0)
    end = moved[row[:, None], late].mean(1) * RATE / np.maximum(speed, 0.1)
    changes = np.linalg.norm(np.diff(steps, axis=1), axis=2) * whole[:, 1:] * RATE**2
    acceleration = np.sqrt((changes**2).sum(1) / np.maximum(number - 1, 1))

    one, two = steps[:, :-1], steps[:, 1:]
    angles = np.abs(np.arctan2(one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0], (one * two).sum(2)))
    moving = whole[:, 1:] & (np.minimum(moved[:, :-1], moved[:, 1:]) > 0.05)
    turned = (angles * moving).sum(1)
    errors = np.zeros(known.shape)  # (n, k)
    for place, swipe in enumerate(swipes):
        size = len(swipe.word)
        errors[place, :size] = distances_to_path(swipe.points[None], centres[place, None, :size])[0]
    size = known.sum(1)
    found = {
        "length": length,
        "detour": np.where(ideal > 0, length / np.maximum(ideal, 0.1), 1),
        "duration": (counts - 1) / RATE,
        "pace": (counts - 1) / RATE / size,
        "speed": speed,
        "top speed": top,
        "slow speed": slow,
        "stillness": still,
        "start speed": start,
        "end speed": end,
        "acceleration": acceleration,
        "turning": turned / np.maximum(moving.sum(1), 1),
        "curvature": turned / np.maximum(length, 0.5),
        "letter error": errors.sum(1) / size,
        "worst letter error": errors.max(1),
        "first error": np.linalg.norm(points[:, 0] - centres[:, 0], axis=1),
        "last error": np.linalg.norm(points[row, counts - 1] - centres[row, size - 1], axis=1),
    }
    return np.stack([found[name] for name in MEASURES], 1).astype(np.float64)


def told_apart(real: Sequence[Swipe], synthetic: Sequence[Swipe], folds: int = 5) -> dict[str, float]:
    """Cross-validated accuracy of two classifiers at telling the two kinds apart; 0.5 is chance."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    given = np.concatenate([measures(real), measures(synthetic)])
    kind = np.repeat([0, 1], [len(real), len(synthetic)])
    words = [swipe.word for swipe in (*real, *synthetic)]
    if len(set(words)) < folds:
        refuse("real", f"must have {folds} words to judge on", f"{len(set(words))}", "give more swipes", "realism")
    scaled = QuantileTransformer(n_quantiles=min(100, len(given) // 2), output_distribution="normal")
    classifiers = {
        "logistic regression": make_pipeline(scaled, LogisticRegression(max_iter=1000)),
        "gradient boosting": HistGradientBoostingClassifier(max_iter=100, random_state=0),
    }
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    return {
        name: float(cross_val_score(model, given, kind, groups=words, cv=split).mean())
        for name, model in classifiers.items()
    }


def table(real: Sequence[Swipe], synthetic: Sequence[Swipe]) -> str:
    """The quantiles of each measure, real ones above synthetic ones, as Markdown."""
    given = {"real": measures(real), "synthetic": measures(synthetic)}
    lines = ["| measure | traces | " + " | ".join(f"{share:.0%}" for share in QUANTILES) + " |"]
    lines.append("|---|---|" + "---:|" * len(QUANTILES))
    for column, name in enumerate(MEASURES):
        for kind, found in given.items():
            values = " | ".join(f"{value:.2f}" for value in np.quantile(found[:, column], QUANTILES))
            lines.append(f"| {name if kind == 'real' else ''} | {kind} | {values} |")
    return "\n".join(lines)


def draw(path: Path, real: Sequence[Swipe], synthetic: Sequence[Swipe], examples: int = 6) -> None:
    """Draw traces of both kinds of the same words, and the distribution of each measure."""
    kinds = {"real": (real, COLOURS[0]), "synthetic": (synthetic, COLOURS[1])}
    given = {kind: measures(swipes) for kind, (swipes, _) in kinds.items()}
    rows = -(-examples // 3), -(-len(MEASURES) // 3)
    figure = new_figure(2.0 * sum(rows))
    axes = figure.subplots(sum(rows), 3, squeeze=False).flatten()
    shown = [place for place, swipe in enumerate(real) if len(swipe.word) > 3][:examples]
    drawn = {}
    for axis, place in zip(axes, shown, strict=False):
        layout = real[place].layout
        for letter, (x, y, _, _) in zip(layout.alphabet, layout.boxes, strict=True):
            axis.text(x, y, letter, ha="center", va="center", color="#bbbbbb", fontsize=7)
        for swipes, colour in kinds.values():
            axis.plot(*swipes[place].points.T, color=colour, marker=".", markersize=3, linewidth=1)
        axis.set(title=real[place].word, xlim=(0, 10), ylim=(5, 0), xticks=[], yticks=[], aspect="equal")
    for column, (axis, name) in enumerate(zip(axes[3 * rows[0] :], MEASURES, strict=False)):
        high = np.quantile(given["real"][:, column], 0.98)
        for kind, (_, colour) in kinds.items():
            values = np.clip(given[kind][:, column], 0, high)
            drawn[kind] = axis.hist(values, 30, range=(0, high), histtype="step", color=colour)[2][0]
        axis.set(title=name, yticks=[])
    for axis in (*axes[len(shown) : 3 * rows[0]], *axes[3 * rows[0] + len(MEASURES) :]):
        axis.remove()
    legend_below(figure, drawn)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path, help="jsonl of real swipes")
    parser.add_argument("--plot", type=Path, help="a PNG of traces and distributions")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    swipes, bad = real_swipes(given.real)
    _, real = halves(swipes)
    synthetic = synthetic_like(real, given.seed)
    print(f"{len(real)} real swipes of words on which the writer was not fitted; {bad} bad swipes left out of all\n")
    print(table(real, synthetic), "\n")
    for name, accuracy in told_apart(real, synthetic).items():
        print(f"{name} tells them apart with accuracy {accuracy:.3f} (chance is 0.5)")
    if given.plot:
        draw(given.plot, real, synthetic)


if __name__ == "__main__":
    main()
