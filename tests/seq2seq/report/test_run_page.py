"""The table, the curve and the page of a run."""

import shlex
from dataclasses import replace

import pytest
from matplotlib.image import imread

from seq2seq.report import draw_curve, result_rows, result_table, run_page, write_report
from seq2seq.report.run_page import curve_name
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


def test_a_head_is_no_part_of_the_backbone(experiment):
    parameters = {"trainable_parameters": 1_000_300, "base_parameters": 1_000_000, "share": 1.0003}
    parameters["groups"] = {"head": {"trainable": 300}}
    rows = dict(result_rows(experiment, {**RESULT, "parameters": parameters}))
    assert rows["trainable parameters"] == "1,000,000 of 1,000,000"
    assert rows["  beside these, in the head"] == "300"
    assert rows["share of the backbone"] == "100.000%"


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


@pytest.mark.parametrize(
    ("not_linear", "said"), [(["tt_lora"], "not merged: the adapter is not linear"), ([], "not measured")]
)
def test_an_adapter_that_was_not_merged_says_why(experiment, not_linear, said):
    parameters = {**RESULT["parameters"], "cannot_be_merged": not_linear}
    rows = dict(result_rows(experiment, {**RESULT, "parameters": parameters, "merge_difference": None}))
    assert rows["merged against unmerged"] == said


def test_the_table_on_the_screen_shows_each_row(experiment):
    shown = result_table(experiment, RESULT)
    for name, value in ROWS.items():
        assert any(name.strip() in line and value in line for line in shown.splitlines()), name
    assert str(experiment.run.directory) in shown


CONSTANT = {"spearman": 0.0, "average_metrics": 0.0, "constant_predictions": 1.0, "invalid": 0.0}
NO_LABEL = {**CONSTANT, "invalid": 1.0}


def test_zeros_that_are_no_correlation_have_footnotes(experiment, tmp_path):
    baselines = {"majority": CONSTANT, "frozen_backbone": NO_LABEL, "random_backbone": CONSTANT}
    metrics = {"test": {"spearman": 0.0, "average_metrics": 0.0, "constant_predictions": 0.0, "invalid": 0.0}}
    result = {**RESULT, "metrics": metrics, "baselines": baselines}
    shown = result_table(experiment, result)
    rows = {name: next(line for line in shown.splitlines() if name in line).split() for name in ("frozen", "random")}
    assert rows["frozen"][-1] == "0.0000‡"
    assert rows["random"][-1] == "0.0000†"
    assert "test Spearman" in shown
    assert shown.count("0.0000†") == 2
    assert (
        "\n† all answers are equal; the correlation is then reported as 0\n‡ no answer is one of the labels\n" in shown
    )
    write_report(experiment, RunFolder(tmp_path), result, HISTORY)
    page = RunFolder(tmp_path).readme.read_text()
    assert "| &emsp;same adapter, random backbone | Spearman 0.0000† |" in page
    assert "\n\n‡ no answer is one of the labels\n\n" in page


def test_the_axis_of_a_curve_has_the_name_of_its_metric(experiment):
    named = {"f1": 0.5, "accuracy": 0.5, "average_metrics": 0.5, "invalid": 0.0}
    assert curve_name(experiment, named) == "mean of F1 and accuracy"
    assert curve_name(experiment, {"a/f1": 0.5, "b/f1": 0.5, "average_metrics": 0.5}) == "mean over tasks"


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_a_curve_with_few_evaluations_is_visible(steps, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(run_page, "save", lambda figure, path: figures.append(figure))
    history = [{"step": step, "loss": 2.0} for step in range(1, steps + 1)]
    draw_curve(tmp_path / "curve.png", [*history, {"step": steps, "eval_loss": 1.0, "eval_average_metrics": 0.5}], "F1")
    left, right = figures[0].axes
    assert right.get_ylabel() == "F1"
    assert all(line.get_marker() == "o" for line in left.lines if len(line.get_xdata()) < 3)
    assert right.lines[0].get_marker() == "s"
    low, high = left.get_xlim()
    assert low == 0 < steps < high < 1.1 * steps


def test_the_curve_is_a_picture_with_something_on_it(tmp_path):
    draw_curve(tmp_path / "curve.png", HISTORY)
    picture = imread(tmp_path / "curve.png")
    assert picture.shape[:2] == (630, 1350)
    assert len({tuple(pixel) for row in picture[::5, ::5] for pixel in row}) > 10


def test_the_page_shows_the_table_and_the_curve(experiment, tmp_path):
    folder = RunFolder(tmp_path)
    write_report(experiment, folder, RESULT, HISTORY)
    page = folder.readme.read_text()
    assert folder.curve.is_file()
    assert "![losses and metric by step](curve.png)" in page
    for name, value in ROWS.items():
        assert f"| {name.replace('  ', '&emsp;')} | {value} |" in page


def test_baselines_are_below_the_metric(experiment):
    names = [name for name, _ in result_rows(experiment, RESULT)]
    assert names[:3] == ["test accuracy", "  always the most frequent answer", "test answers that are not labels"]


@pytest.mark.parametrize(("sweep", "name"), [(None, "{}"), ("two", "two/{}")])
def test_a_cell_is_named_with_its_sweep(sweep, name, experiment, tmp_path):
    folder, name = RunFolder(tmp_path), name.format(experiment.run.experiment_name)
    cell = replace(experiment, sweep=sweep)
    write_report(cell, folder, RESULT, HISTORY)
    assert folder.readme.read_text().startswith(f"# {name}\n")
    assert result_table(cell, RESULT).startswith(f"{name}: rte")


def test_the_command_that_repeats_a_run_is_quoted(experiment, tmp_path):
    folder = RunFolder(tmp_path / "my $HOME's runs")
    folder.directory.mkdir()
    write_report(experiment, folder, RESULT, HISTORY)
    (line,) = [line for line in folder.readme.read_text().splitlines() if "overwrite=true" in line]
    assert shlex.split(line) == ["python", "-m", "run_seq2seq", str(folder.config), "overwrite=true"]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
def test_steps_are_whole_numbers(steps, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(run_page, "save", lambda figure, path: figures.append(figure))
    history = [{"step": step, "loss": 2.0} for step in range(1, steps + 1)]
    draw_curve(tmp_path / "curve.png", [*history, {"step": steps, "eval_loss": 1.0, "eval_average_metrics": 0.5}], "F1")
    assert all(tick == round(tick) for axes in figures[0].axes for tick in axes.get_xticks())


def test_a_run_without_training_has_no_curve(experiment, tmp_path):
    folder = RunFolder(tmp_path)
    write_report(experiment, folder, RESULT, [{"step": 0, "eval_loss": 1.0}])
    assert not folder.curve.exists()
    assert "Nothing was trained" in folder.readme.read_text()
