"""What a person sees of a run: one table, one plot, one page.

result_table    the last thing on the screen
draw_curve      curve.png: training loss, and on the validation split loss and average_metrics, by step
write_report    curve.png, its numbers in history.json, memory.png, ranks.png, and README.md in the run's folder
"""

import math
from pathlib import Path
from typing import Any

from adapters.tables import render_table
from seq2seq.report.memory import draw_memory, memory_table
from seq2seq.report.ranks import draw_ranks, rank_cells, rank_table
from seq2seq.run_folder import RunFolder, read_json, write_json, write_text

FLAGS = ("average_metrics", "constant_predictions", "invalid")
BASELINE_NAMES = {
    "majority": "always the most frequent answer",
    "bag_of_words": "bag of words, linear",
    "frozen_backbone": "frozen backbone, no adapter",
    "random_backbone": "same adapter, random backbone",
}

EXPRESSIVITY = """
How far a curve between two sources is stretched, layer by layer (the numbers are in expressivity.json):

![trajectory lengths](expressivity.png)
"""


def shown_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics without flags; of several tasks, each one's and the mean over them."""
    several = any("/" in name for name in metrics)
    return {
        name: value
        for name, value in metrics.items()
        if name.rpartition("/")[2] not in FLAGS or (several and name == "average_metrics")
    }


def result_rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the table: what was measured, and its value."""
    rows = []
    for split, metrics in result["metrics"].items():
        rows += [[f"{split} {name}", f"{value:.4f}"] for name, value in shown_metrics(metrics).items()]
        for name, value in metrics.items():
            task, _, flag = name.rpartition("/")
            if flag == "invalid" and value:
                rows.append([" ".join(filter(None, (split, task, "answers that are no label"))), f"{value:.2%}"])
    for name, metrics in result["baselines"].items():
        shown = ", ".join(f"{metric} {value:.4f}" for metric, value in shown_metrics(metrics).items())
        rows.append([f"  {BASELINE_NAMES[name]}", shown])
    parameters = result["parameters"]
    rows.append(
        ["trainable parameters", f"{parameters['trainable_parameters']:,} of {parameters['base_parameters']:,}"]
    )
    rows.append(["share of the backbone", f"{parameters['share']:.3%}"])
    if result.get("ranks"):
        rows.append(["ranks in the end", " ".join(rank_cells(result["ranks"])[1:])])
    if result["adapter_bytes"] is not None:
        rows.append(["adapter on disk", f"{result['adapter_bytes']:,} bytes"])
    if result["costs"] is not None:
        costs = result["costs"]
        if costs["step_seconds_median"] is not None:
            rows.append(["step time, median", f"{1000 * costs['step_seconds_median']:.1f} ms"])
            rows.append(["source tokens per second", f"{costs['tokens_per_second']:,.0f}"])
        rows.append(["peak memory", f"{costs['peak_memory_bytes'] / 2**20:,.0f} MiB"])
    for stack, lengths in (result.get("expressivity") or {}).items():
        shown = ", ".join(f"{value:.3f} {moment}" for moment, value in lengths.items() if value is not None)
        rows.append([f"growth of a trajectory, {stack}", f"{shown} training"])
    difference = result["merge_difference"]
    shown = "not merged: the adapter is not linear" if difference is None else f"{difference:.1e} of the largest logit"
    rows.append(["merged against unmerged", shown])
    return rows


def result_table(result: dict[str, Any], directory: Path) -> str:
    """The table of a run, and where everything lies."""
    kinds = " + ".join(config["kind"] for config in result["adapter"])
    title = f"{result['experiment_name']}: {result['task']}, {kinds}"
    return f"{render_table(title, ['', 'value'], result_rows(result))}\n\nEverything is in {directory}"


def draw_curve(path: Path, history: list[dict[str, float]]) -> None:
    """Losses on the left axis, average_metrics on the right one, over training steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, style in (("loss", "training loss", "-"), ("eval_loss", "validation loss", "--o")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="cross-entropy per target token", ylim=(0, None))
    lines, labels = axes.get_legend_handles_labels()
    points = [(entry["step"], entry["eval_average_metrics"]) for entry in history if "eval_average_metrics" in entry]
    if points:
        right = axes.twinx()
        lines += right.plot(
            *zip(*points, strict=True), "-s", color="tab:green", label="validation metric", markersize=4
        )
        labels.append("validation metric")
        right.set(ylabel="average_metrics", ylim=(min(0, *(value for _, value in points)), 1.02))
    axes.legend(lines, labels, loc="center right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def finite_numbers(entry: dict[str, float]) -> dict[str, float | None]:
    """What JSON can hold of the numbers logged at a step: null stands for one that is not finite."""
    return {
        key: value if math.isfinite(value) else None for key, value in entry.items() if isinstance(value, int | float)
    }


def write_report(folder: RunFolder, result: dict[str, Any], history: list[dict[str, float]]) -> None:
    """curve.png, history.json and memory.png, where the run trained, and README.md."""
    trained = any("loss" in entry for entry in history)
    if trained:
        write_json(folder.history, [finite_numbers(entry) for entry in history])
        draw_curve(folder.curve, history)
    layers = (result["costs"] or {}).get("memory_by_layer")
    if layers:
        draw_memory(folder.memory_plot, layers)
    ranks = read_json(folder.ranks) if folder.ranks.is_file() else []
    if ranks:
        draw_ranks(folder.ranks_plot, ranks)
    rows = "\n".join(f"| {name.strip()} | {value} |" for name, value in result_rows(result))
    sections = [
        ranks_section(ranks) if ranks else "",
        memory_section(result["costs"]) if layers else "",
        EXPRESSIVITY if result.get("expressivity") else "",
    ]
    page = f"""# {result["experiment_name"]}

Task `{result["task"]}`, backbone `{result["model"]}`, adapter {", ".join(f"`{c['kind']}`" for c in result["adapter"])}.

| | value |
|---|---|
{rows}

{"![losses and metric by step](curve.png)" if trained else "Nothing was trained in this run."}

{"".join(sections)}
Again, from the project's folder:

    python run_seq2seq.py {folder.config} overwrite=true

| file | what |
|---|---|
| config.json | the resolved configuration |
| metrics.json | every number above, and the memory by layer |
| parameters.json | what trains and why, by group, by layer, by parameter |
| adapter/ | `adapters.load(model, "{folder.adapter.name}")` reads it |
| history.json, ranks.json | what was logged at which step, and the ranks where they changed |
| predictions_*.jsonl | source, target and prediction of each row of a split |
| log.txt | what was logged |
"""
    write_text(folder.readme, page)


def ranks_section(history: list[dict[str, Any]]) -> str:
    """The plot and the numbers of ranks that changed."""
    return f"""![ranks by step](ranks.png)

```
{rank_table(history)}
```

"""


def memory_section(costs: dict[str, Any]) -> str:
    """The table and the plot of memory by layer."""
    missing = costs.get("activations_not_measured")
    note = f"\nActivations were not measured: {missing}.\n" if missing else ""
    return f"""```
{memory_table(costs["memory_by_layer"])}
```
{note}
![memory by layer](memory.png)
"""
