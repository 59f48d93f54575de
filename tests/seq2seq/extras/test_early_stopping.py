"""Early stopping: the same decisions as transformers' own callback, also after a run was stopped and resumed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback as TransformersCallback
from transformers import TrainerState, TrainingArguments

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.extras.early_stopping import EarlyStoppingCallback, evaluations_without_improvement
from seq2seq.running.runner import run_experiment

STILL = {"learning_rate": 0.0, "num_train_epochs": 9, "early_stopping_patience": 2, "logging_steps": 1}


@given(st.lists(st.floats(-1, 1), max_size=12), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_count_is_that_of_transformers(values, threshold):
    theirs = TransformersCallback(early_stopping_threshold=threshold)
    args = TrainingArguments(greater_is_better=True, report_to="none")
    state = TrainerState()
    for value in values:
        theirs.check_metric_value(args, state, None, value)
        state.best_metric = value if state.best_metric is None else max(value, state.best_metric)
    assert evaluations_without_improvement(values, threshold) == theirs.early_stopping_patience_counter


@pytest.mark.parametrize(
    ("values", "threshold", "count"),
    [
        ([], 0.0, 0),
        ([0.5], 0.0, 0),
        ([0.5, 0.5, 0.4], 0.0, 2),
        ([0.5, 0.55, 0.58], 0.1, 2),
        ([0.5, 0.4, 0.6], 0.0, 0),
        ([0.5, float("nan"), 0.6, float("nan")], 0.0, 1),
    ],
)
def test_counts(values, threshold, count):
    assert evaluations_without_improvement(values, threshold) == count


@pytest.mark.parametrize("greater", [True, False])
def test_a_loss_improves_downwards(greater):
    args = TrainingArguments(metric_for_best_model="loss", greater_is_better=greater, report_to="none")
    history = [{"eval_loss": 3.0}, {"loss": 9.0}, {"eval_loss": 2.0}, {"eval_loss": 1.0}]
    assert EarlyStoppingCallback(2, 0.0, None)._has_stopped(args, history) is greater


def evaluations(tmp_path, name="colours"):
    history = json.loads((tmp_path / "outputs" / name / "history.json").read_text())
    return [entry["step"] for entry in history if "eval_loss" in entry]


def test_a_run_ends_when_the_metric_stands_still(values, tmp_path):
    run_experiment(read_experiment({**values, **STILL}))
    assert evaluations(tmp_path) == [6, 12, 18]


@pytest.mark.parametrize("step", [8, 13, 18])
def test_a_resumed_run_ends_at_the_same_step(step, values, tmp_path, stop_at, monkeypatch):
    stop_at(step)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment({**values, **STILL}))
    monkeypatch.undo()
    run_experiment(read_experiment({**values, **STILL}))
    assert evaluations(tmp_path) == [6, 12, 18]


def test_a_run_killed_after_its_last_checkpoint_takes_no_further_step(values, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("seq2seq.running.runner.evaluate", fail)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment({**values, **STILL}))
    monkeypatch.undo()
    run_experiment(read_experiment({**values, **STILL}))
    assert evaluations(tmp_path) == [6, 12, 18]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"early_stopping_patience": 0}, "'early_stopping_patience' of the run must be at least 1; got 0"),
        ({"early_stopping_threshold": 0.1}, "needs early_stopping_patience; got 0.1 alone"),
        ({"early_stopping_patience": 2, "early_stopping_threshold": -0.1}, "'early_stopping_threshold' .* at least 0"),
        (
            {"early_stopping_patience": 2, "metric_for_best_model": None, "load_best_model_at_end": False},
            "needs a metric",
        ),
        ({"early_stopping_patience": 2, "eval_strategy": "no"}, "needs evaluation; got eval_strategy 'no'"),
        (
            {"early_stopping_patience": 2, "rank_schedule": {"start": 1, "every": 2, "end": 9, "rel_tol": 0.1}},
            "excludes a rank_schedule",
        ),
    ],
)
def test_what_early_stopping_cannot_do_is_refused(keys, words, values):
    with pytest.raises(ConfigurationError, match=words):
        read_experiment({**values, **keys})
