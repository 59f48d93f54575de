"""The names of metrics."""

import pytest

from seq2seq.tasks.metric_names import mean_name, metric_name


@pytest.mark.parametrize(
    ("key", "name"),
    [("spearman", "Spearman"), ("exact_match", "exact match"), ("rte/f1", "rte F1"), ("average_metrics", "mean")],
)
def test_a_metric_has_a_name(key, name):
    assert metric_name(key) == name


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        (["spearman"], "Spearman"),
        (["accuracy"], "accuracy"),
        (["exact_match"], "exact match"),
        (["f1", "accuracy"], "mean of F1 and accuracy"),
        (["rouge1", "rouge2", "rougeL"], "mean of ROUGE-1, ROUGE-2 and ROUGE-L"),
        ([], "metric"),
    ],
)
def test_a_result_has_the_name_of_its_metrics(metrics, name):
    assert mean_name(metrics) == name
