"""Memory of one run by layer: its sums, what was not measured, and the bars."""

import pytest

from seq2seq.drawing import draw_layers, new_figure
from seq2seq.extras.memory import draw_memory, memory_cells, memory_table
from seq2seq.report.run_page import write_report
from seq2seq.run_folder import RunFolder

LAYERS = {
    "encoder 0": {"parameters": 4096, "gradients": 64, "optimizer": 128, "activations": 2**20},
    "loss": {"parameters": 0, "gradients": 0, "optimizer": 0, "activations": 512},
}
UNMEASURED = {layer: {**row, "activations": None} for layer, row in LAYERS.items()}


def test_the_last_row_is_the_sum():
    last = memory_table(LAYERS).splitlines()[-1].split()
    assert last == ["all", "4,096", "64", "128", f"{2**20 + 512:,}"]


@pytest.mark.parametrize("layers", [UNMEASURED, {"encoder 0": {"parameters": 1, "gradients": 2, "optimizer": 3}}])
def test_what_was_not_measured_is_a_dash_and_not_a_zero(layers):
    assert {line.split()[-1] for line in memory_table(layers).splitlines()[4:]} == {"-"}
    assert memory_cells(layers)[0][-1] is None


def test_bars_are_mebibytes_on_a_scale_of_their_own():
    figure = new_figure(3)
    draw_layers(figure, {"": LAYERS}, {})
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == list(LAYERS["loss"])
    for axes, sizes in zip(figure.axes, zip(*(row.values() for row in LAYERS.values()), strict=True), strict=True):
        assert [bar.get_width() * 2**20 for bar in axes.patches] == pytest.approx(sizes)
        assert max(bar.get_width() for bar in axes.patches) > 0.8 * axes.get_xlim()[1]


def test_what_was_not_measured_has_no_bar(tmp_path):
    figure = new_figure(3)
    draw_layers(figure, {"": UNMEASURED}, {})
    assert figure.axes[3].get_title() == "activations\nnot measured"
    assert not figure.axes[3].patches
    draw_memory(tmp_path / "memory.png", UNMEASURED)
    assert (tmp_path / "memory.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("layers", "reason", "sentence"),
    [
        (LAYERS, None, None),
        (UNMEASURED, "torch.compile decides what is saved", "not measured: torch.compile decides what is saved."),
        ({}, None, None),
    ],
    ids=["measured", "compiled", "not trained"],
)
def test_the_page_of_a_run_shows_it(experiment, tmp_path, layers, reason, sentence):
    costs = {
        "step_seconds_median": None,
        "peak_memory_bytes": 2**20,
        "memory_by_layer": layers,
        "activations_not_measured": reason,
    }
    counts = {"trainable_parameters": 1, "base_parameters": 2, "share": 0.5}
    result = {
        **{"experiment_name": "x", "task": "t", "model": "m", "adapter": [{"kind": "none"}], "metrics": {}},
        **{"baselines": {}, "parameters": counts, "adapter_bytes": None, "costs": costs, "merge_difference": None},
    }
    write_report(experiment, RunFolder(tmp_path), result, [])
    page = (tmp_path / "README.md").read_text()
    assert ("![memory by layer](memory.png)" in page) is bool(layers)
    assert (tmp_path / "memory.png").is_file() is bool(layers)
    assert ("Activations were not measured" in page) is (sentence is not None)
    assert sentence is None or sentence in page
