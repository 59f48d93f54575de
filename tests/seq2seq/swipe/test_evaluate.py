"""The tables of ``python -m seq2seq.swipe.evaluate``, and what it refuses."""

import pytest

from seq2seq.swipe.evaluate import main
from seq2seq.swipe.predictions import write_predictions


def rows_of(hits: str, layouts: str = "q") -> list[dict]:
    """A row for each letter of ``hits``, right if it is "1"."""
    return [
        {
            "index": i,
            "word": "a",
            "layout": layouts[i % len(layouts)],
            "candidates": [("a" if hit == "1" else "b", 0.0)],
        }
        for i, hit in enumerate(hits)
    ]


@pytest.fixture
def folders(tmp_path):
    for name, hits in {"good": "1" * 19 + "0", "bad": "01" + "0" * 18}.items():
        write_predictions(tmp_path / name, "test", {"experiment_name": name}, rows_of(hits, "qd"))
    write_predictions(tmp_path / "good", "validation", {"experiment_name": "good"}, rows_of("10"))
    return tmp_path


def cells_of(text: str, *begin: str) -> list[str]:
    """The cells of the only line that begins so."""
    (found,) = [line.split() for line in text.splitlines() if line.split()[: len(begin)] == [*begin]]
    return found[len(begin) :]


def test_metrics_by_run_split_and_layout(folders, capsys):
    assert main([str(folders / "good"), str(folders / "bad")]) == 0
    text = capsys.readouterr().out
    assert cells_of(text, "good", "test", "all")[:5] == ["20", ".950", "±.050", ".950", "±.050"]
    assert cells_of(text, "good", "test", "d")[:3] == ["10", ".900", "±.100"]
    assert cells_of(text, "good", "test", "q")[:3] == ["10", "1.000", "±.000"]
    assert cells_of(text, "good", "validation", "q")[:3] == ["2", ".500", "±.500"]
    assert cells_of(text, "bad", "test", "all")[:3] == ["20", ".050", "±.050"]


def test_paired_differences(folders, capsys):
    assert main([str(folders / "good"), "--split", "test", "--against", str(folders / "bad")]) == 0
    text = capsys.readouterr().out
    assert "validation" not in text
    cells = cells_of(text, "good", "bad", "test", "top", "1")
    assert cells[0] == "+0.900"
    assert cells[-1] == "better"
    assert cells_of(text, "good", "bad", "test", "CER")[0] == "-0.900"
    assert cells_of(text, "good", "bad", "test", "CER")[-1] == "better"


def test_no_verdict_if_the_interval_contains_zero(folders, capsys):
    good = str(folders / "good")
    assert main([good, "--against", good]) == 0
    assert "better" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no such file"),
        (["good", "--split", "dev"], "got 'dev': there are test, validation"),
        (["good", "--against", "bad"], "got none for split 'validation'"),
        (["good/predictions_validation.jsonl", "--against", "bad"], "got none for split 'validation'"),
        (["good", "--split", "test", "--against", "bad", "good"], "got bad, good for split 'test'"),
    ],
)
def test_refusals(folders, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(folders)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Refused: ")
    assert sentence in error
