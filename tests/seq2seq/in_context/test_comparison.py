"""The plots that the workload adds to a report: what is drawn, and what replaces the plots of every workload."""

import json

import numpy as np
import pytest

import adapters
from seq2seq.configuration.reading import read_experiment
from seq2seq.in_context import comparison
from seq2seq.in_context.comparison import (
    block_parameters,
    draw_loss_curves,
    draw_metric_by_loop,
    draw_metric_by_parameters,
)
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.page import write_comparison
from seq2seq.running.runner import run_experiment
from third_party.models.looped import LoopedConfig, LoopedModel

SIZES = {"hidden_size": 16, "num_heads": 2, "input_size": 2, "output_size": 1}
"""Of the runs that train."""


@pytest.fixture
def write_run(tmp_path):
    def write(name, layers=1, loops=4, error=0.5, seed=0, by_loop=True, accuracy=None):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        keys = {"workload": "in_context", "adapter": [{"kind": "none"}], "seed": seed}
        keys |= {"model": {"n_layer": layers, "loops": {"num_loops": loops}}}
        counts = {"read_in": 7, "stack": 5, "read_out": 3, **{f"h {index}": 1000 for index in range(layers)}}
        sizes = {layer: {"parameters": count, "trainable": count} for layer, count in counts.items()}
        total = sum(counts.values())
        metrics = {"error": 1.0, "last_point_error": error, "average_metrics": -error}
        if accuracy is not None:
            metrics = {"accuracy": accuracy, "average_metrics": accuracy}
        result = {
            "task": "linear in 3 dims",
            "model": "looped transformer",
            "metrics": {"test": metrics},
            "parameters": {"trainable_parameters": total, "base_parameters": total, "share": 1.0, "layers": sizes},
            "baselines": {"zero": {"average_metrics": -1.0}, "lasso": {"average_metrics": -0.25}},
        }
        history = [{"step": step, "loss": error + 1 / step, "eval_loss": error} for step in (10, 20)]
        (folder / "config.json").write_text(json.dumps({**keys, "experiment_name": name}))
        (folder / "metrics.json").write_text(json.dumps(result))
        (folder / "history.json").write_text(json.dumps(history))
        key, best = ("error", error) if accuracy is None else ("accuracy", accuracy)
        away = 1 if accuracy is None else -0.01
        rows = [{"loop": k, key: best + away * abs(k - loops), "trained": k <= loops} for k in range(1, 3 * loops + 1)]
        if by_loop:
            path = folder / "predictions_test_by_loop.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write


@pytest.fixture
def methods(tmp_path):
    return lambda: methods_of(collect_runs(tmp_path / "runs"))


@pytest.fixture
def figures(monkeypatch):
    """The figures that would be written."""
    kept = []
    monkeypatch.setattr(comparison, "save", lambda figure, path, *formats: kept.append(figure))
    return kept


def test_block_parameters_are_those_of_the_blocks(write_run, methods):
    write_run("deep", layers=3)
    [method] = methods()
    assert block_parameters(method.groups["linear in 3 dims"].runs[0]) == 3000


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_a_models_layers_have_the_names_that_block_parameters_reads(block):
    sizes = {"hidden_size": 16, "num_heads": 2, "n_layer": 2, "input_size": 3, "output_size": 1}
    model = adapters.attach(LoopedModel(LoopedConfig(block=block, **sizes)), {"kind": "none"})
    layers = adapters.summary(model).to_dict()["layers"]
    blocks = sum(row["parameters"] for name, row in layers.items() if name not in comparison.OUTSIDE)
    stack = model.stack.h if block == "gpt2" else model.stack.layers
    assert blocks == sum(parameter.numel() for parameter in stack.parameters())


@pytest.mark.parametrize("rank", [1, 2])
def test_block_parameters_count_deltas_and_scales_of_loops(rank, values, tmp_path):
    """A tensor of all loops has r (in + out) + b r^2, a scale per loop b E."""
    size, loops = 16, 3
    model = {**values["model"], "loops": {"num_loops": loops}, "injection": {"scale_per_loop": True}}
    delta = {"kind": "tt_lora", "modes": ["in", "loop", "out"], "rank": rank, "target_modules": ["attn.c_attn"]}
    for name, changes in (("plain", {}), ("delta", {"model": model, "adapter": [delta, {"kind": "none"}]})):
        run_experiment(read_experiment({**values, "experiment_name": name, "max_steps": 2, **changes}))
    plain, of_delta = (next(run for run in collect_runs(tmp_path) if run.name == name) for name in ("plain", "delta"))
    added = rank * (size + 3 * size) + loops * rank**2 + loops * size
    assert block_parameters(of_delta) - block_parameters(plain) == added
    assert block_parameters(plain) == sum(p.numel() for p in LoopedModel(LoopedConfig(**SIZES)).stack.h.parameters())


def test_error_by_loop_is_the_mean_over_seeds_with_the_trained_loop_marked(write_run, methods, figures, tmp_path):
    for seed, error in ((0, 0.25), (1, 0.75)):
        write_run(f"one-{seed}", loops=4, error=error, seed=seed)
    assert draw_metric_by_loop(tmp_path / "plot.png", methods())
    [axes] = figures[0].axes
    curve, mark = (line.get_xydata() for line in axes.lines)
    np.testing.assert_allclose(curve[:, 0], range(1, 13))
    np.testing.assert_allclose(curve[:, 1], [0.5 + abs(k - 4) for k in range(1, 13)])
    np.testing.assert_allclose(mark, [[4, 0.5]])


def test_the_front_has_the_methods_that_no_other_beats(write_run, methods, figures, tmp_path):
    for name, layers, loops, error in (("a", 1, 8, 0.5), ("b", 2, 4, 0.6), ("c", 4, 1, 0.2), ("d", 8, 1, 0.3)):
        write_run(name, layers, loops, error)
    assert draw_metric_by_parameters(tmp_path / "plot.png", methods())
    [axes] = figures[0].axes
    front = next(line for line in axes.lines if line.get_color() == comparison.FRONT)
    np.testing.assert_allclose(front.get_xydata(), [[1000, 0.5], [4000, 0.2]])
    texts = {text.get_text() for text in axes.texts}
    assert texts == {
        f"from scratch, {name}" for name in ("L = 1, b = 8", "L = 2, b = 4", "L = 4, b = 1", "L = 8, b = 1")
    }


def test_the_front_of_accuracies_goes_up(write_run, methods, figures, tmp_path):
    for name, layers, accuracy in (("a", 1, 0.5), ("b", 2, 0.4), ("c", 4, 0.9), ("d", 8, 0.8)):
        write_run(name, layers, accuracy=accuracy, by_loop=False)
    assert draw_metric_by_parameters(tmp_path / "plot.png", methods())
    [axes] = figures[0].axes
    front = next(line for line in axes.lines if line.get_color() == comparison.FRONT)
    np.testing.assert_allclose(front.get_xydata(), [[1000, 0.5], [4000, 0.9]])
    assert axes.get_ylabel() == "exact match"


def test_no_title_of_accuracies_speaks_of_errors(write_run, methods, figures, tmp_path):
    for name, loops, accuracy in (("a", 4, 0.5), ("b", 1, 0.4)):
        write_run(name, loops=loops, accuracy=accuracy)
    for draw in (draw_metric_by_loop, draw_metric_by_parameters):
        assert draw(tmp_path / "plot.png", methods())
        [axes] = figures[-1].axes
        assert axes.get_ylabel() == "exact match"
        assert axes.get_title().startswith("linear in 3 dims")
        assert "last point" not in axes.get_title()
    assert not any("error" in title.lower() for title, _ in comparison.PLOTS.values())


def test_loss_curves_have_the_training_loss_and_dots_of_validation(write_run, methods, figures, tmp_path):
    write_run("one", error=0.5)
    assert draw_loss_curves(tmp_path / "plot.png", methods())
    [axes] = figures[0].axes
    curve, dots = (line.get_xydata() for line in axes.lines)
    np.testing.assert_allclose(curve, [[10, 0.6], [20, 0.55]])
    np.testing.assert_allclose(dots, [[10, 0.5], [20, 0.5]])


def test_many_methods_have_numbers_and_a_key(write_run, methods, figures, tmp_path):
    for loops in range(1, 15):
        write_run(f"run-{loops}", loops=loops, error=0.1 * loops)
    assert draw_metric_by_parameters(tmp_path / "plot.png", methods())
    assert {text.get_text() for text in figures[0].axes[0].texts} == {str(n) for n in range(1, 15)}
    assert len(figures[0].legends[0].texts) == 14


def test_a_report_has_the_plots_and_words_of_the_workload(write_run, tmp_path):
    write_run("looped", 1, 8, 0.25)
    write_run("plain", 8, 1, 0.125)
    write_comparison(tmp_path / "runs", tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text()
    for title in ("Metric against block parameters", "Metric by loop", "Loss curves"):
        assert f"### {title}\n" in page
    assert "Metric against trainable parameters" not in page
    assert "from scratch, L = 1, b = 8" in page
    assert "(negative error at the last point)" in page
    assert "| lasso† | -0.2500 |" in page
    assert "† Measured at the last point of the first 256 prompts." in page
    assert (tmp_path / "report" / "metric_by_loop.pdf").is_file()


def test_runs_without_rows_have_no_plot_of_loops(write_run, methods, tmp_path):
    write_run("old", by_loop=False)
    assert not draw_metric_by_loop(tmp_path / "plot.png", methods())
    assert not (tmp_path / "plot.png").exists()
