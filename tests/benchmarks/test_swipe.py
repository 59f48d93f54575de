"""The benchmark of decoding with a small lexicon: everything is measured, and the two beams of ``generate`` agree."""

import json

import pytest

from benchmarks import swipe
from benchmarks.swipe_rows import STEP, rows_table
from third_party.models.swipe import FEATURES


@pytest.mark.slow
def test_everything_is_measured_and_written(tmp_path, capsys, monkeypatch):
    pytest.importorskip("wordfreq")
    monkeypatch.setattr(swipe, "BEAMS", (4,))
    monkeypatch.setattr(swipe, "GENERATE_BEAM", 4)
    monkeypatch.setattr(swipe, "GENERATED_WORDS", 2)
    arguments = ["--lexicon", "60", "--words", "3", "--rounds", "1", "--out", str(tmp_path)]
    assert swipe.main(arguments) == 0
    record = json.loads((tmp_path / "swipe.json").read_text())
    assert record["generate"]["equal"]
    assert record["trie"]["words"] == 60
    found = {way["way"]: way["found"] for way in record["ctc"]}
    assert found["beam 32, lexicon"] == found["the whole lexicon exactly"] == 1
    assert found["greedy"] < 1
    training = record["training"]["seconds_per_row"]
    assert {f"features, {name}" for name in FEATURES} < training.keys()
    assert all(0 < low <= median <= high for median, low, high in training.values())
    assert "one hypothesis at a time" in (tmp_path / "swipe.md").read_text()
    out = capsys.readouterr().out
    assert "beam 4, lexicon" in out
    assert "batches of 64 traces" in out


def test_rows_per_second_and_ratios_to_a_training_step():
    record = {"batch": 8, "frames": 5, "seconds_per_row": {STEP: [0.01, 0.005, 0.02], "drawn": [0.001, 0.001, 0.001]}}
    lines = [line.split() for line in rows_table(record).splitlines()]
    assert ["training", "step", "100", "50", "to", "200", "1"] in lines
    assert ["drawn", "1,000", "1,000", "to", "1,000", "0.1"] in lines


def test_results_that_differ_do_not_agree():
    rows = [[swipe.Candidate("ab", -1.0), swipe.Candidate("b", -2.0)]]
    assert swipe.agree(rows, [[swipe.Candidate("ab", -1.00001), swipe.Candidate("b", -2.0)]])
    assert not swipe.agree(rows, [[swipe.Candidate("ab", -1.1), swipe.Candidate("b", -2.0)]])
    assert not swipe.agree(rows, [[*reversed(rows[0])]])
    assert not swipe.agree(rows, [rows[0][:1]])
