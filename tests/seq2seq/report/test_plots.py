"""The contents of the plots as matplotlib reports them, and that labels do not overlap."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.image import imread

from seq2seq import drawing
from seq2seq.report import plots, scatter
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []

    def keep(figure, path, *formats):
        figures.append(figure)
        drawing.save(figure, path)

    monkeypatch.setattr(plots, "save", keep)
    monkeypatch.setattr(scatter, "save", keep)
    return figures


@pytest.fixture
def methods(tmp_path):
    """The methods of all runs written so far."""
    return lambda: methods_of(collect_runs(tmp_path / "outputs"))


def test_labels_overlap_neither_points_nor_each_other(write_run, methods, drawn, tmp_path):
    generator = np.random.default_rng(0)
    for number in range(20):
        parameters = int(10 ** generator.uniform(3, 4)) if number % 4 else 2000  # five points are one
        write_run(
            f"run{number}",
            float(generator.uniform(0.6, 0.65)) if number % 4 else 0.62,
            parameters,
            adapter=[{"kind": f"method_{number}"}],
        )
    assert plots.draw_metric_by_parameters(tmp_path / "plot.png", methods())
    (figure,) = drawn
    axes = figure.axes[0]
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = {text.get_text(): super(type(text), text).get_window_extent(renderer) for text in axes.texts}
    assert set(boxes) == {str(number) for number in range(1, 21)}
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == [*(f"{n}  {method.label}" for n, method in enumerate(methods(), 1)), "Pareto front"]
    for first, second in itertools.combinations(boxes.values(), 2):
        assert not first.overlaps(second)
    points = [axes.transData.transform(line.get_xydata())[0] for line in axes.lines if len(line.get_xydata()) == 1]
    assert len(points) == 20
    assert not [point for point in points for box in boxes.values() if box.contains(*point)]
    frame = axes.get_window_extent(renderer)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes.values())
    assert imread(tmp_path / "plot.png").shape[1] == drawing.WIDTH * drawing.DPI


def test_the_pareto_front_is_drawn_through_its_points(write_run, methods, drawn, tmp_path):
    for parameters, value in ((10, 0.2), (100, 0.1), (1000, 0.7)):
        write_run(f"run{parameters}", value, parameters, adapter=[{"kind": f"k{parameters}"}])
    plots.draw_metric_by_parameters(tmp_path / "plot.png", methods())
    axes = drawn[0].axes[0]
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(front.get_xydata(), [(10, 0.2), (1000, 0.7)])


def test_a_learning_curve_is_the_mean_with_a_band_over_seeds(write_run, methods, drawn, tmp_path):
    values = [0.4, 0.6, 0.8]
    for seed, value in enumerate(values):
        write_run(f"run{seed}", value, seed=seed)
    assert plots.draw_learning_curves(tmp_path / "plot.png", methods())
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(10, 0.3), (20, 0.6)])
    band = axes.collections[0].get_paths()[0].vertices
    final = band[band[:, 0] == 20][:, 1]
    np.testing.assert_allclose([final.min(), final.max()], 0.6 + np.array([-1, 1]) * np.std(values, ddof=1))
    assert axes.get_title() == "rte, all training rows"


def test_low_resource_curves_end_at_all_rows(write_run, methods, drawn, tmp_path):
    for rows, seed in itertools.product((100, 400, None), (0, 1)):
        write_run(f"n{rows}-{seed}", (rows or 1000) / 2000 + seed / 10, max_train_samples=rows, seed=seed)
    write_run("other", 0.5, adapter=[{"kind": "bitfit"}])
    assert plots.draw_low_resource(tmp_path / "plot.png", methods())
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(100, 0.1), (400, 0.25), (800, 0.55)])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "400", "all"]
    assert [text.get_text() for text in drawn[0].legends[0].texts] == ["tt_lora r4"]
    assert axes.get_ylabel() == "accuracy"


def test_memory_of_several_methods_is_a_marker_each_in_a_panel_for_each_part(write_run, methods, drawn, tmp_path):
    write_run("run", 0.5)
    write_run("other", 0.4, adapter=[{"kind": "bitfit"}])
    assert plots.draw_memory(tmp_path / "plot.png", methods())
    (figure,) = drawn
    assert [axes.get_title().strip() for axes in figure.axes] == ["parameters", "gradients", "optimizer", "activations"]
    for axes, expected in zip(figure.axes, ((4, 6), (0.25, 0), (0.5, 0), (2, np.nan)), strict=True):
        assert len(axes.lines) == 2
        np.testing.assert_allclose(axes.lines[0].get_xdata(), expected)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["encoder 0", "decoder 0"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["tt_lora r4", "bitfit"]


@pytest.mark.parametrize("name", plots.PLOTS)
def test_missing_measurements_are_not_drawn(name, write_run, methods, tmp_path):
    folder = write_run("run", 0.5)
    (folder / "history.json").unlink()
    result = json.loads((folder / "metrics.json").read_text())
    result |= {"metrics": {"test": {"accuracy": 0.5, "average_metrics": None}}, "costs": None}
    (folder / "metrics.json").write_text(json.dumps(result))
    assert not plots.PLOTS[name][1](tmp_path / "plot.png", methods())
    assert not (tmp_path / "plot.png").exists()


def test_methods_of_one_size_have_an_axis_of_a_decade(write_run, methods, drawn, tmp_path):
    for name in ("phm", "bitfit"):
        write_run(name, 0.5, 10320, adapter=[{"kind": name}])
    assert plots.draw_metric_by_parameters(tmp_path / "plot.png", methods())
    axes = drawn[0].axes[0]
    low, high = axes.get_xlim()
    assert low < 10320 < high
    assert 10 < high / low < 100
    assert {"5,000", "10,000"} <= {label.get_text() for label in axes.get_xticklabels()}


@pytest.mark.parametrize("others", [{}, {"bitfit": 100, "phm": 10000}], ids=["alone", "among others"])
def test_a_method_without_parameters_has_a_column_of_its_own(others, write_run, methods, drawn, tmp_path):
    for name, parameters in {"frozen": 0, **others}.items():
        write_run(name, 0.5, parameters, adapter=[{"kind": name}])
    assert plots.draw_metric_by_parameters(tmp_path / "plot.png", methods())
    axes = drawn[0].axes[0]
    ticks = {label.get_text(): place for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("P", "^", "s")]
    assert ticks["0"] in points
    assert len(points) == 1 + len(others)
    assert all(place > ticks["0"] for place in points if place != ticks["0"])
    assert min(axes.get_xlim()) < ticks["0"] < min([place for text, place in ticks.items() if text != "0"], default=1)


def test_one_evaluation_is_a_point_with_its_deviation(write_run, methods, drawn, tmp_path):
    for seed, value in enumerate((0.4, 0.6)):
        folder = write_run(f"seed-{seed}", value, seed=seed)
        (folder / "history.json").write_text(json.dumps([{"step": 20, "eval_average_metrics": value}]))
    assert plots.draw_learning_curves(tmp_path / "plot.png", methods())
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(20, 0.5)])
    assert axes.lines[0].get_marker() not in ("", "None", None)
    ends = [path.vertices[:, 1] for collection in axes.collections for path in collection.get_paths()]
    np.testing.assert_allclose(np.sort(ends[0]), 0.5 + np.array([-1, 1]) * 0.2 / 2**0.5)


def test_a_plot_is_written_as_png_pdf_and_svg(write_run, methods, tmp_path):
    write_run("run", 0.5)
    assert plots.draw_learning_curves(tmp_path / "plot.png", methods())
    starts = {path.suffix: path.read_bytes()[:5] for path in tmp_path.glob("plot.*")}
    assert starts == {".png": b"\x89PNG\r", ".pdf": b"%PDF-", ".svg": b"<?xml"}


def test_legends_do_not_cover_curves(write_run, methods, drawn, tmp_path):
    for number in range(12):
        write_run(
            f"a{number}", 0.5 + number / 100, 100 * number, adapter=[{"kind": f"a_method_with_a_long_name_{number}"}]
        )
    for draw in (plots.draw_metric_by_parameters, plots.draw_learning_curves, plots.draw_memory):
        assert draw(tmp_path / "plot.png", methods())
    for figure in drawn:
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("tasks", "length", "numbered"),
    [(["rte"], 12, False), (["rte"], 90, True), (["rte", "cola"], 20, False), (["rte", "cola"], 50, True)],
)
def test_a_name_too_wide_for_its_panel_is_in_the_key(tasks, length, numbered, write_run, methods, drawn, tmp_path):
    name = f"{'name_' * 20}"[:length]
    write_run("other", 0.5, 1000, adapter=[{"kind": "other"}])
    for task in tasks:
        write_run(f"long-{task}", 0.6, 1000, task_name=task, adapter=[{"kind": name}])
    assert plots.draw_metric_by_parameters(tmp_path / "plot.png", methods())
    (figure,) = drawn
    shown = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert shown == ({"1", "2"} if numbered else {name, "other"})
    assert all(axes.get_window_extent().width > 0.7 * figure.bbox.width / len(figure.axes) for axes in figure.axes)


@pytest.mark.parametrize("length", [20, 109, 111, 300])
def test_a_legend_fits_into_the_page(length, write_run, methods, drawn, tmp_path):
    for number in range(2):
        write_run(
            f"a{number}",
            0.5 + number / 100,
            100 + number,
            adapter=[{"kind": f"{'a word ' * 99}"[:length] + str(number)}],
        )
    for draw in (plots.draw_metric_by_parameters, plots.draw_learning_curves, plots.draw_memory):
        assert draw(tmp_path / "plot.png", methods())
    for figure in drawn:
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert all(axes.get_window_extent().height > 150 for axes in figure.axes)


@pytest.mark.parametrize("draw", [plots.draw_metric_by_parameters, plots.draw_learning_curves, plots.draw_memory])
@pytest.mark.parametrize("kinds", [["bitfit"], ["bitfit", "phm"]])
@pytest.mark.parametrize(("rows", "words"), [(1234, "1,234 training rows"), (None, "all training rows")])
def test_the_number_of_rows_is_in_the_title(rows, words, kinds, draw, write_run, methods, drawn, tmp_path):
    for kind in kinds:
        write_run(kind, 0.5, max_train_samples=rows, adapter=[{"kind": kind}])
    assert draw(tmp_path / "plot.png", methods())
    titles = [drawn[0].get_suptitle(), *(axes.get_title() for axes in drawn[0].axes)]
    assert any(words in title for title in titles)


def test_markers_at_zero_are_inside_the_memory_plot(write_run, methods, drawn, tmp_path):
    for kind in ("bitfit", "phm"):
        write_run(kind, 0.5, adapter=[{"kind": kind}])
    plots.draw_memory(tmp_path / "plot.png", methods())
    assert all(axes.get_xlim()[0] < 0 for axes in drawn[0].axes)
    assert {line.get_linestyle() for axes in drawn[0].axes for line in axes.lines} == {"None"}


def test_the_memory_of_one_method_has_its_name_as_title(write_run, methods, drawn, tmp_path):
    write_run("run", 0.5)
    plots.draw_memory(tmp_path / "plot.png", methods())
    assert drawn[0].get_suptitle() == "tt_lora r4, all training rows"
    assert not drawn[0].legends
