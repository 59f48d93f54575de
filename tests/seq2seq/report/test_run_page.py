"""The table, the curve and the page of a run."""

import pytest
from matplotlib.image import imread

from seq2seq.report import draw_curve, result_rows, result_table, write_report
from seq2seq.run_folder import RunFolder

RESULT = {
    "experiment_name": "demo",
    "task": "rte",
    "model": "t5-base",
    "adapter": [{"kind": "tt_lora", "rank": 4}, {"kind": "layer_norm"}],
    "metrics": {"test": {"accuracy": 0.75, "average_metrics": 0.75, "constant_predictions": 0.0, "invalid": 0.125}},
    "parameters": {"trainable_parameters": 3200, "base_parameters": 1_000_000, "share": 0.0032},
    "adapter_bytes": 17648,
    "merge_difference": 3.2e-7,
    "costs": {"step_seconds_median": 0.0125, "tokens_per_second": 1234.5, "peak_memory_bytes": 2**30},
    "baselines": {"majority": {"accuracy": 0.5, "average_metrics": 0.5, "constant_predictions": 1.0, "invalid": 0.0}},
}

HISTORY = [
    {"step": 1, "loss": 2.0},
    {"step": 20, "loss": 1.0},
    {"step": 20, "eval_loss": 1.2, "eval_average_metrics": 0.5},
    {"step": 40, "eval_loss": 0.8, "eval_average_metrics": 0.75},
]

ROWS = {
    "test accuracy": "0.7500",
    "test answers that are not labels": "12.50%",
    "  always the most frequent answer": "accuracy 0.5000",
    "trainable parameters": "3,200 of 1,000,000",
    "share of the backbone": "0.320%",
    "adapter on disk": "17,648 bytes",
    "step time, median": "12.5 ms",
    "source tokens per second": "1,234",
    "peak memory": "1,024 MiB",
    "merged against unmerged": "3.2e-07 of the largest logit",
}


def test_the_table_holds_what_was_measured(experiment):
    assert dict(result_rows(experiment, RESULT)) == ROWS


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"costs": None}, "step time, median"),
        ({"metrics": {}}, "test accuracy"),
        ({"adapter_bytes": None}, "adapter on disk"),
    ],
)
def test_what_was_not_measured_has_no_row(experiment, changes, gone):
    assert gone not in dict(result_rows(experiment, {**RESULT, **changes}))


def test_an_adapter_that_is_not_linear_says_so(experiment):
    assert dict(result_rows(experiment, {**RESULT, "merge_difference": None}))["merged against unmerged"].startswith(
        "not merged"
    )


def test_the_table_on_the_screen_shows_each_row(experiment):
    shown = result_table(experiment, RESULT)
    for name, value in ROWS.items():
        assert any(name.strip() in line and value in line for line in shown.splitlines()), name
    assert str(experiment.run.directory) in shown


def test_the_curve_is_a_picture_with_something_on_it(tmp_path):
    draw_curve(tmp_path / "curve.png", HISTORY)
    picture = imread(tmp_path / "curve.png")
    assert picture.shape[:2] == (600, 1050)
    assert len({tuple(pixel) for row in picture[::5, ::5] for pixel in row}) > 10


def test_the_page_shows_the_table_and_the_curve(experiment, tmp_path):
    folder = RunFolder(tmp_path)
    write_report(experiment, folder, RESULT, HISTORY)
    page = folder.readme.read_text()
    assert folder.curve.is_file()
    assert "![losses and metric by step](curve.png)" in page
    for name, value in ROWS.items():
        assert f"| {name.strip()} | {value} |" in page


def test_a_run_without_training_has_no_curve(experiment, tmp_path):
    folder = RunFolder(tmp_path)
    write_report(experiment, folder, RESULT, [{"step": 0, "eval_loss": 1.0}])
    assert not folder.curve.exists()
    assert "Nothing was trained" in folder.readme.read_text()
