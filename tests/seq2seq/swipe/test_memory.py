"""Memory of a model with a lexicon: a process that decodes, what it counts, and the rows of a run's table."""

import sys

import numpy as np
import pytest
import torch

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from seq2seq.swipe import memory, resident
from seq2seq.swipe.decoding.by_model import model_candidates
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.keys import MEMORY_METRICS
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.swipe.rows import load_rows
from seq2seq.swipe.traces.trace import padded

pytest.importorskip("wordfreq")

PARAMETERS = 2651
"""Of the model of ``values``."""
ZEROS = dict.fromkeys(MEMORY_METRICS, 0)


def finished(values: dict, **sizes: int) -> FinishedRun:
    """A random model as if a run had made it."""
    values = {**values, "decoding": {**values["decoding"], "language_weight": 0.3}, "layout": ["qwerty", "dvorak"]}
    keys = read_experiment({**values, "model": {**values["model"], **sizes}}).workload
    torch.manual_seed(0)
    return FinishedRun(keys, keys.load_model(random=True).eval())


def test_the_process_decodes_the_first_traces_of_the_first_layout(values, tmp_path):
    run = finished(values)
    rows = load_rows(run.keys)["test"]
    trie = memory.write_files(tmp_path, run, rows, 300)
    found = resident.measure(tmp_path, beam=4, language_weight=0.3)
    assert len(trie) == 300
    layout = run.keys.layouts["qwerty"]
    points, mask = padded([trace for trace, name in zip(rows.points, rows.layouts, strict=True) if name == "qwerty"])
    boxes = np.stack([layout.boxes] * len(points))
    batch = dict(zip(("points", "attention_mask", "boxes"), map(torch.from_numpy, (points, mask, boxes)), strict=True))
    own = PackedTrie.build(Lexicon.from_wordfreq("en", 300, layout), layout.alphabet)
    expected = model_candidates(run.model, batch, 4, 1, own, 0.3)
    assert found["words"] == [row[0].word if row else "" for row in expected]
    assert any(found["words"])
    assert len(found["words"]) == 6


@pytest.mark.slow
def test_growth_has_the_weights_in_it(values):
    """A fresh process grows by at least the bytes of a large model."""
    run = finished(values, d_ff=200_000)
    metrics = memory.measured_memory(run, load_rows(run.keys)["test"], 300)
    assert set(metrics) == {*MEMORY_METRICS}
    assert metrics["lexicon_words"] == 300
    count = sum(parameter.numel() for parameter in run.model.parameters())
    assert metrics["model_bytes"] == pytest.approx(4 * count, rel=1e-3)
    assert 0.95 * metrics["model_bytes"] < metrics["resident_growth_bytes"] < metrics["model_bytes"] + 120 * 2**20


def test_a_run_measures_its_sizes_and_shows_them(values, tmp_path, monkeypatch):
    seen = {}

    def measured(run, rows, words):
        seen.update(parameters=sum(p.numel() for p in run.model.parameters()), words=words, rows=len(rows))
        return {"model_bytes": 2**20, "lexicon_bytes": 2**21, "lexicon_words": 3000, "resident_growth_bytes": 2**25}

    monkeypatch.setattr("seq2seq.swipe.workload.measured_memory", measured)
    result = run_experiment(read_experiment({**values, "memory_words": 3000}))
    assert seen == {"parameters": PARAMETERS, "words": 3000, "rows": 12}
    page = (tmp_path / "run" / "README.md").read_text()
    for row in ("model | 1.0", "lexicon of 3,000 words | 2.0", "growth of resident memory | 32.0"):
        assert f"| memory, {row} MiB |" in page
    weights = run_experiment(read_experiment({**values, "experiment_name": "without"}))["metrics"]["test"]
    assert weights["accuracy_1"] == result["metrics"]["test"]["accuracy_1"]
    assert not {*MEMORY_METRICS} & weights.keys()


def test_a_run_goes_on_where_memory_cannot_be_measured(values, monkeypatch, caplog):
    monkeypatch.setattr(memory, "PROCESS", (sys.executable, "-c", "raise SystemExit('no such thing')"))
    result = run_experiment(read_experiment({**values, "memory_words": 30}))
    assert "Memory was not measured: The process that measures memory failed: no such thing" in caplog.text
    assert "accuracy_1" in result["metrics"]["test"]
    assert "model_bytes" not in result["metrics"]["test"]


def test_the_command_prints_a_table(values, tmp_path, monkeypatch, capsys):
    run_experiment(read_experiment({**values, "max_steps": 1}))
    monkeypatch.setattr(memory, "measured_memory", lambda *_: {**ZEROS, "resident_growth_bytes": 30 * 2**20})
    assert memory.main([str(tmp_path / "run")]) == 0
    assert "growth of resident memory   30.0" in capsys.readouterr().out
    assert memory.main([str(tmp_path / "nowhere")]) == 2
    assert "Refused: " in capsys.readouterr().err


def test_a_language_without_words_is_refused(values):
    run = finished(values)
    run.keys.layouts["qwerty"].__dict__["language"] = "xx"
    with pytest.raises(ConfigurationError, match="wordfreq has words of; got 'xx'"):
        memory.measured_memory(run, load_rows(run.keys)["test"], 300)
