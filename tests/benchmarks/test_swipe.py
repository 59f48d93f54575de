"""The benchmark of decoding with a small lexicon: everything is measured, and the two beams of ``generate`` agree."""

import json

import pytest

from benchmarks import swipe


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
    assert "one hypothesis at a time" in (tmp_path / "swipe.md").read_text()
    assert "beam 4, lexicon" in capsys.readouterr().out


def test_results_that_differ_do_not_agree():
    rows = [[swipe.Candidate("ab", -1.0), swipe.Candidate("b", -2.0)]]
    assert swipe.agree(rows, [[swipe.Candidate("ab", -1.00001), swipe.Candidate("b", -2.0)]])
    assert not swipe.agree(rows, [[swipe.Candidate("ab", -1.1), swipe.Candidate("b", -2.0)]])
    assert not swipe.agree(rows, [[*reversed(rows[0])]])
    assert not swipe.agree(rows, [rows[0][:1]])
