"""What is said of runs that one command started."""

import re

import pytest

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.configuration.sweep import expand
from seq2seq.running.outcomes import Outcome, cells_table, sentence_of


def result(trainable: int, metrics: dict) -> dict:
    return {"metrics": metrics, "parameters": {"trainable_parameters": trainable}}


def test_an_error_is_said_in_one_line():
    assert sentence_of(ConfigurationError("Key 'x'\nis wrong.")) == "Key 'x' is wrong."
    assert sentence_of(RuntimeError("out of\nmemory")) == "RuntimeError: out of memory"
    assert sentence_of(MemoryError()) == "MemoryError"


def test_the_table_names_every_run_and_why_it_failed(values):
    cells = [read_experiment(cell) for cell in expand({**values, "sweep": {"seed": [0, 1, 2]}})]
    outcomes = [
        Outcome(cells[0], "kept", result(5, {"validation": {"average_metrics": 0.25}})),
        Outcome(cells[1], "finished", result(6000, {}), "", 12.34),
        Outcome(cells[2], "failed", None, "It was too large.", 0.5),
    ]
    lines = cells_table(outcomes).splitlines()
    cell = {line.split()[0]: line.split()[1:] for line in lines if line.strip().startswith("colours/")}
    assert lines[0] == "Runs: 1 finished, 1 kept, 1 failed"
    assert cell["colours/seed-0"] == ["kept", "0.2500", "5", "-"]
    assert cell["colours/seed-1"] == ["finished", "-", "6,000", "12.3"]
    assert lines[-1] == "colours/seed-2: It was too large."


ZERO = {"average_metrics": 0.0, "constant_predictions": 1.0, "invalid": 0.0}


@pytest.mark.parametrize(
    ("metrics", "head"),
    [
        ([{"test": {"spearman": 0.5, "average_metrics": 0.5}}], "test Spearman"),
        ([{"validation": {"accuracy": 0.5, "average_metrics": 0.5}}] * 2, "validation accuracy"),
        ([{"test": {"f1": 0.5, "accuracy": 0.5, "average_metrics": 0.5}}], "test mean of F1 and accuracy"),
        ([{"test": {"rte/f1": 0.5, "cola/f1": 0.5, "average_metrics": 0.5}}], "test mean over tasks"),
        (
            [{"test": {"f1": 0.5, "average_metrics": 0.5}}, {"test": {"accuracy": 0.5, "average_metrics": 0.5}}],
            "metric",
        ),
        ([{}], "metric"),
    ],
)
def test_the_table_names_its_metric(metrics, head, experiment):
    shown = cells_table([Outcome(experiment, "finished", result(5, one)) for one in metrics])
    assert re.search(rf"state +{head} +trainable", shown)


def test_a_zero_has_a_footnote(experiment):
    shown = cells_table([Outcome(experiment, "finished", result(5, {"test": {"spearman": 0.0, **ZERO}}))])
    assert "0.0000†" in shown
    assert shown.endswith("\n\n† all answers are equal; the correlation is then reported as 0")
