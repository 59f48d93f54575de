"""The latest loss in a run's log."""

import pytest

from seq2seq.running.progress import TAIL, latest_loss


def line(step, **values):
    numbers = ", ".join(f'"{name.replace("_", "/", 1)}": {value}' for name, value in values.items())
    return f"2026-01-01 00:00:00,000 INFO seq2seq.running.tracking: step {step}: {{{numbers}}}\n"


@pytest.mark.parametrize(
    ("log", "latest"),
    [
        (line(1, train_loss=2.0) + line(20, train_loss=0.5), (20, 0.5)),
        (line(20, train_loss=0.5) + line(20, validation_loss=0.7), (20, 0.5)),
        (line(20, train_loss=0.5) + "something else\n", (20, 0.5)),
        ("x" * 2 * TAIL + "\n" + line(3, train_loss=1.5), (3, 1.5)),
        (line(3, train_loss=1.5) + "x" * 2 * TAIL, None),
        ("step 3: half a li", None),
        ("", None),
    ],
    ids=["two", "an evaluation", "another line", "a long log", "far above", "half a line", "empty"],
)
def test_the_latest_loss(log, latest, tmp_path):
    (tmp_path / "log.txt").write_text(log)
    assert latest_loss(tmp_path / "log.txt") == latest


def test_a_run_without_a_log_has_none(tmp_path):
    assert latest_loss(tmp_path / "log.txt") is None
