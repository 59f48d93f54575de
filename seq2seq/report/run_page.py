"""The report of one run: one table, one plot, one page.

result_table    the last thing on the screen
draw_curve      curve.png: training loss, and on the validation split loss and average_metrics, by step
write_report    curve.png, its values in history.json, and README.md with the sections of extras
"""

import shlex
from pathlib import Path
from typing import Any

from adapters.tables import render_table
from seq2seq.drawing import legend_below, new_figure, save
from seq2seq.experiment import Experiment
from seq2seq.report.collect import without_head
from seq2seq.report.footnotes import Footnotes
from seq2seq.run_folder import RunFolder, finite_metrics, write_json, write_text
from seq2seq.tasks.metric_names import mean_name, metric_name

CURVES = {"training loss": "#4477aa", "validation loss": "#e07b00", "metric": "#228833"}
"""Colours."""

INDENT = "  "
"""Before the name of a row that belongs to the one above."""


def result_rows(experiment: Experiment, result: dict[str, Any]) -> list[list[str]]:
    """The rows of the table: what was measured, its value, and for some a footnote."""
    rows = []
    for split, metrics in result["metrics"].items():
        for name, value in experiment.workload.headline(metrics).items():
            note = experiment.workload.note(metrics, name)
            rows.append([f"{split} {metric_name(name)}", value, *([] if note is None else [note])])
    others = [row for extra in experiment.extras for row in extra.table_rows(experiment, result)]
    rows += [row for row in others if row[0].startswith(INDENT)]  # baselines, below the metric
    rows += experiment.workload.table_rows(result)
    rows += [row for row in others if not row[0].startswith(INDENT)]
    parameters = result["parameters"]
    trainable, backbone = without_head(parameters), parameters["base_parameters"]
    rows.append(["trainable parameters", f"{trainable:,} of {backbone:,}"])
    if head := parameters["trainable_parameters"] - trainable:
        rows.append([f"{INDENT}beside these, in the head", f"{head:,}"])
    rows.append(["share of the backbone", f"{trainable / backbone:.3%}"])
    if result["adapter_bytes"] is not None:
        rows.append(["adapter on disk", f"{result['adapter_bytes']:,} bytes"])
    if result["costs"] is not None:
        costs = result["costs"]
        if costs["step_seconds_median"] is not None:
            rows.append(["step time, median", f"{1000 * costs['step_seconds_median']:.1f} ms"])
            unit = costs.get("unit", "source tokens")
            rows.append([f"{unit} per second", f"{costs['tokens_per_second']:,.0f}"])
        rows.append(["peak memory", f"{costs['peak_memory_bytes'] / 2**20:,.0f} MiB"])
    difference = result["merge_difference"]
    unmeasured = "not merged: the adapter is not linear" if parameters.get("cannot_be_merged") else "not measured"
    merged = unmeasured if difference is None else f"{difference:.1e} of the largest logit"
    rows.append(["merged against unmerged", merged])
    return rows


def result_table(experiment: Experiment, result: dict[str, Any]) -> str:
    """The table of a run with its footnotes, and where its files are."""
    kinds = " + ".join(config["kind"] for config in result["adapter"])
    title = f"{run_name(experiment)}: {result['task']}, {kinds}"
    rows, notes = with_footnotes(result_rows(experiment, result))
    below = "\n".join(f"{mark} {note}" for mark, note in notes.items())
    table = render_table(title, ["", "value"], rows)
    return "\n\n".join(filter(None, [table, below, f"Everything is in {experiment.run.directory}"]))


def run_name(experiment: Experiment) -> str:
    """The name of a run, with that of its sweep."""
    return "/".join(filter(None, (experiment.sweep, experiment.run.experiment_name)))


def with_footnotes(rows: list[list[str]]) -> tuple[list[list[str]], dict[str, str]]:
    """The rows with marks in place of their notes, and the notes by mark."""
    footnotes = Footnotes()
    marked = [[name, f"{value}{''.join(map(footnotes.mark, notes))}"] for name, value, *notes in rows]
    return marked, footnotes.by_mark


def curve_name(experiment: Experiment, metrics: dict[str, float | None]) -> str:
    """The name of the metric in the curve: of the task's metrics, or of the mean over several tasks."""
    names = [name for name in metrics if name.rpartition("/")[2] not in experiment.workload.flags]
    several = any("/" in name for name in names)
    return "mean over tasks" if several else experiment.workload.average_name(names) or mean_name(names)


def draw_curve(path: Path, history: list[dict[str, float]], metric: str = "metric") -> None:
    """Losses on the left axis, average_metrics, which is called ``metric``, on the right one, over training steps."""
    figure = new_figure(4.2)
    axes = figure.add_subplot()
    drawn = {}
    for key, label, style in (("loss", "training loss", "-"), ("eval_loss", "validation loss", "--o")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            style = "-o" if len(points) < 3 else style
            (drawn[label],) = axes.plot(*zip(*points, strict=True), style, markersize=4, color=CURVES[label])
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    points = [(entry["step"], entry["eval_average_metrics"]) for entry in history if "eval_average_metrics" in entry]
    if points:
        right = axes.twinx()
        label = f"validation {metric}"
        (drawn[label],) = right.plot(*zip(*points, strict=True), "-s", color=CURVES["metric"], markersize=4)
        values = [value for _, value in points]
        right.set(ylabel=metric, ylim=(min(0, *values), 0 if max(values) < 0 else 1.02))
    axes.set_xlim(0, 1.03 * max(entry["step"] for entry in history))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    legend_below(figure, drawn)
    save(figure, path)


def numeric_values(entry: dict[str, Any]) -> dict[str, float | None]:
    """The numbers logged at a step, as JSON has them: null for one that is not finite."""
    return finite_metrics({key: value for key, value in entry.items() if isinstance(value, int | float)})


def write_report(
    experiment: Experiment, folder: RunFolder, result: dict[str, Any], history: list[dict[str, float]]
) -> None:
    """Write curve.png and history.json, if the run trained, and README.md."""
    trained = any("loss" in entry for entry in history)
    if trained:
        write_json(folder.history, [numeric_values(entry) for entry in history])
        metrics = next(reversed(result["metrics"].values()), {})
        draw_curve(folder.curve, history, curve_name(experiment, metrics))
    cells, notes = with_footnotes(result_rows(experiment, result))
    rows = "\n".join(f"| {name.replace(INDENT, '&emsp;')} | {value} |" for name, value in cells)
    below = "".join(f"{mark} {note}\n\n" for mark, note in notes.items())
    sections = [part.page_section(folder.directory, result) for part in (*experiment.extras, experiment.workload)]
    kinds = ", ".join(f"`{config['kind']}`" for config in result["adapter"])
    command = shlex.join(["python", "-m", "run_seq2seq", str(folder.config), "overwrite=true"])
    page = f"""# {run_name(experiment)}

Task `{result["task"]}`, base model `{result["model"]}`, adapter {kinds}.

| | value |
|---|---|
{rows}

{below}{"![losses and metric by step](curve.png)" if trained else "Nothing was trained in this run."}

{"".join(sections)}
To repeat this run, from the folder in which it was started:

    {command}

| file | contents |
|---|---|
| config.json | the resolved configuration |
| metrics.json | every value above, and more |
| parameters.json | what trains and why, by group, by layer, by parameter |
| adapter/ | `adapters.load(model, "{folder.adapter.name}")` reads it |
| history.json | what was logged at which step |
| predictions_*.jsonl | a record for each row of a split: what went in, what was expected, what came out |
| log.txt | what was logged |
"""
    write_text(folder.readme, page)
