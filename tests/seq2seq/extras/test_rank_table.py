"""The ranks of a run by step: their table, their row in the result, their plot."""

import matplotlib.figure
import pytest

from seq2seq.extras.ranks import draw_ranks, rank_cells, rank_table
from seq2seq.report.run_page import result_rows
from tests.seq2seq.report.test_run_page import RESULT

WI, WO = "encoder.block.0.layer.1.DenseReluDense.wi", "decoder.block.1.layer.2.DenseReluDense.wo"
HISTORY = [
    {"step": 0, "numbers": 1200, "error": 0.0, "ranks": {"tt_lora": {WI: [4, 4], WO: [4, 4]}}},
    {"step": 10, "numbers": 800, "error": 0.125, "ranks": {"tt_lora": {WI: [4, 3], WO: [2, 3]}}},
    {"step": 20, "numbers": 500, "error": 0.25, "ranks": {"tt_lora": {WI: [3, 2], WO: [1, 2]}}},
]


def test_the_table_has_a_row_for_each_change_and_for_each_train():
    lines = [line.split() for line in rank_table(HISTORY).splitlines()]
    assert ["10", "800", "3.00", "2", "4", "1.2e-01"] in lines
    assert ["tt_lora", WI, "4,", "4", "3,", "2"] in lines
    assert ["tt_lora", WO, "4,", "4", "1,", "2"] in lines


def test_the_result_has_the_final_ranks(experiment):
    rows = dict(result_rows(experiment, {**RESULT, "ranks": HISTORY[-1]}))
    assert rows["final ranks"] == "mean 2.00, 1 to 3, 500 parameters"
    assert rank_cells(HISTORY[0])[0] == "0"


@pytest.mark.parametrize("ranks", [None, "absent"])
def test_a_run_whose_ranks_never_change_has_no_row(experiment, ranks):
    result = {**RESULT, "ranks": None} if ranks is None else RESULT
    assert "final ranks" not in dict(result_rows(experiment, result))


def test_the_plot_has_a_line_for_each_kind_of_linear_and_the_numbers(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("seq2seq.extras.ranks.save", lambda figure, path: drawn.append(figure))
    draw_ranks(tmp_path / "ranks.png", HISTORY)
    left, right = drawn[0].axes
    assert isinstance(drawn[0], matplotlib.figure.Figure)
    assert [list(line.get_ydata()) for line in left.lines] == [[4, 3.5, 2.5], [4, 2.5, 1.5]]
    assert list(right.lines[0].get_ydata()) == [1200, 800, 500]
    assert [text.get_text() for text in drawn[0].legends[0].texts] == ["tt_lora encoder wi", "tt_lora decoder wo"]
