"""Realism: measures by closed forms, classifiers that find what differs and nothing else, reading, table, fitting."""

import json
from pathlib import Path

import numpy as np
import pytest

from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layout import load_layout
from seq2seq.swipe.traces import fit, realism
from seq2seq.swipe.traces.realism import MEASURES, RATE, Swipe
from seq2seq.swipe.traces.synthetic import synthetic_traces
from seq2seq.swipe.traces.writer import Writer, fitted_writer

REAL = Path("/work/shared/data/swipes/qwerty_english_800.jsonl")
LAYOUT = load_layout("qwerty")
WORDS = """
the of and to in for is on that by this with you it not or be are from at as your all have new more an was
""".split()  # noqa: SIM905


@pytest.fixture
def blank_pictures() -> None:
    """Pictures are drawn."""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A file of swipes as the public ones are, drawn by the fitted writer, and one that begins on the wrong key."""
    path = tmp_path / "real.jsonl"
    traces = list(synthetic_traces(WORDS * 4, LAYOUT, seed=5))
    rows = [
        {"word": t.word, "x": t.x.tolist(), "y": t.y.tolist(), "t": t.t.tolist(), "keyboard_width": 360} for t in traces
    ]
    rows.append(rows[0] | {"word": "pot"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measured(word: str, points: np.ndarray) -> dict[str, float]:
    return dict(zip(MEASURES, realism.measures([Swipe(word, np.float32(points), LAYOUT)])[0], strict=True))


def centre(letter: str) -> np.ndarray:
    return LAYOUT.boxes[LAYOUT.alphabet.index(letter), :2]


def test_measures_of_a_straight_line_at_one_speed():
    found = measured("qp", np.linspace(centre("q"), centre("p"), 31))
    expected = dict.fromkeys(MEASURES, 0.0) | {"length": 9, "detour": 1, "duration": 30 / RATE, "pace": 15 / RATE}
    expected |= dict.fromkeys(["speed", "top speed", "slow speed"], 9 / 30 * RATE) | {"start speed": 1, "end speed": 1}
    assert found == pytest.approx(expected, abs=1e-3)


def test_measures_of_a_square_corner_a_rest_and_a_miss():
    begin = centre("q") + np.array([0, 0.5])
    path = np.concatenate([begin + [[x, 0] for x in (0, 0, 0, 0, 1, 2, 3)], begin + [[3, y] for y in (1, 2, 2)]])
    found = measured("qr", path)
    assert found["length"] == pytest.approx(5)
    assert found["detour"] == pytest.approx(5 / 3)
    assert found["stillness"] == pytest.approx(3 / 8)  # the last of 9 steps is not counted
    assert found["start speed"] == 0
    assert found["turning"] == pytest.approx(np.pi / 2 / 4)
    assert found["curvature"] == pytest.approx(np.pi / 2 / 5)
    assert found["first error"] == found["letter error"] == found["worst letter error"] == pytest.approx(0.5)
    assert found["last error"] == pytest.approx(2.5)


def test_measures_do_not_depend_on_the_batch():
    swipes = realism.synthetic_like([Swipe(word, np.zeros((2, 2), np.float32), LAYOUT) for word in WORDS])
    together = realism.measures(swipes)
    apart = np.concatenate([realism.measures([swipe]) for swipe in swipes])
    np.testing.assert_allclose(apart, together, rtol=1e-5, atol=1e-6)


def test_swipes_are_read_bad_ones_left_out_and_words_kept_apart(recorded):
    swipes, bad = realism.real_swipes(recorded)
    assert bad >= 1
    assert len(swipes) + bad == 4 * len(WORDS) + 1
    assert "pot" not in {swipe.word for swipe in swipes}
    one, two = realism.halves(swipes)
    assert len(one) + len(two) == len(swipes)
    assert one
    assert two
    assert not {swipe.word for swipe in one} & {swipe.word for swipe in two}


def test_a_wider_keyboard_gives_the_same_swipes(recorded, tmp_path):
    wide = tmp_path / "wide.jsonl"
    rows = [json.loads(line) for line in recorded.read_text().splitlines()]
    wide.write_text(
        "".join(json.dumps(row | {"x": [2 * x for x in row["x"]], "keyboard_width": 720}) + "\n" for row in rows)
    )
    for one, other in zip(realism.real_swipes(recorded)[0], realism.real_swipes(wide)[0], strict=True):
        assert one.word == other.word
        np.testing.assert_allclose(one.points, other.points, atol=1e-5)


def test_a_row_that_breaks_a_rule_is_refused(tmp_path):
    (tmp_path / "real.jsonl").write_text('{"word": "a", "x": [1, 2], "y": [1, 2]}\n')
    with pytest.raises(ConfigurationError, match=r"Key 't' of row 0 of .*real.jsonl is required"):
        realism.real_swipes(tmp_path / "real.jsonl")


def test_classifiers_tell_an_exact_hand_but_not_the_same_hand(recorded):
    swipes, _ = realism.real_swipes(recorded)
    same = realism.told_apart(swipes, realism.synthetic_like(swipes, seed=1))
    exact = realism.told_apart(swipes, realism.synthetic_like(swipes, seed=1, writer=Writer()))
    assert set(same) == {"logistic regression", "gradient boosting"}
    assert max(same.values()) < 0.7
    assert min(exact.values()) > 0.9


def test_the_command_prints_quantiles_and_accuracies_and_draws(recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(realism, "told_apart", lambda real, synthetic: {"gradient boosting": 0.75})
    monkeypatch.setattr("sys.argv", ["realism", str(recorded), "--plot", str(tmp_path / "realism.png")])
    realism.main()
    printed = capsys.readouterr().out
    assert all(f"| {name} | real | " in printed for name in MEASURES)
    assert "gradient boosting tells them apart with accuracy 0.750" in printed
    assert (tmp_path / "realism.png").stat().st_size > 10_000


def test_fitting_comes_nearer_and_repeats(recorded):
    swipes = realism.real_swipes(recorded)[0][:10]
    start = Writer(aim_x=0.1, delay=0.3, slope=0.2)
    writer, mismatch = next(fit.fit(swipes, start, rounds=1))
    before = fit.Mismatch(swipes)(start)
    assert mismatch < 0.7 * before
    assert fit.Mismatch(swipes)(writer) == pytest.approx(mismatch)


@pytest.mark.skipif(not REAL.exists(), reason=f"there are no real swipes at {REAL}")
def test_the_fitted_writer_is_far_nearer_to_real_swipes_than_an_exact_one():
    swipes = realism.halves(realism.real_swipes(REAL)[0])[1]
    mismatch = fit.Mismatch(swipes)
    assert mismatch(fitted_writer()) < 0.3 * mismatch(Writer(delay=0.2, slope=0.1))
