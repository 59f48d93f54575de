"""The plots of a run's page: what is drawn, read back from the figure."""

import numpy as np
import pytest

from seq2seq.in_context import plots
from seq2seq.in_context.errors import bootstrap_band
from seq2seq.in_context.plots import draw_scores
from seq2seq.in_context.rows import with_band

TRAINED = 2


@pytest.fixture
def axes(monkeypatch, tmp_path):
    """The axes of the figure of scores (prompts, loops, points) of this measure, which is not written."""

    def drawn(scores, key):
        kept = []
        monkeypatch.setattr(plots, "save", lambda figure, path: kept.append(figure))
        positions = [
            {"predictor": "this model", "point": k, **cells}
            for k, cells in enumerate(with_band(scores[:, TRAINED - 1], key), 1)
        ]
        at_end = scores[:, :, -1] if key == "error" else scores.prod(-1)
        loops = [{"loop": k, **cells, "trained": k <= TRAINED} for k, cells in enumerate(with_band(at_end, key), 1)]
        draw_scores(tmp_path / "plot.png", positions, loops)
        return kept[0].axes

    return drawn


def limits(axes):
    """The lower and the upper edge of the only band, by x."""
    [band] = axes.collections
    corners = band.get_paths()[0].vertices
    places = sorted({x for x, _ in corners})
    return np.array([[pick(y for x, y in corners if x == place) for place in places] for pick in (min, max)])


@pytest.mark.parametrize("key", ["error", "accuracy"])
def test_bands_are_bootstrap_intervals_over_prompts(key, axes):
    scores = np.random.default_rng(0).exponential(size=(40, 6, 3))  # (prompts, loops, points)
    if key == "accuracy":
        scores = (scores < 1).astype(np.float64)
    by_position, by_loop = axes(scores, key)
    at_end = scores[:, :, -1] if key == "error" else scores.prod(-1)
    for panel, values in ((by_position, scores[:, TRAINED - 1]), (by_loop, at_end)):
        expected = bootstrap_band(values)
        np.testing.assert_allclose(limits(panel), expected)
        assert (expected[1] > expected[0]).all()
        curve = panel.lines[0].get_ydata()
        np.testing.assert_allclose(curve, values.mean(0))
        assert key in panel.get_title()


def test_the_trained_number_of_loops_is_a_dotted_line(axes):
    *_, by_loop = axes(np.ones((5, 6, 3)), "error")
    assert [*by_loop.lines[-1].get_xdata()] == [TRAINED, TRAINED]
