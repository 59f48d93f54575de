"""Rows per second of training on synthetic swipes: drawing traces, making batches, features, and a training step.

The model and the batches are those of configs/swipe/demo.json; ratios are times per row to that of a training step.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapters.tables import render_table
from benchmarks.timing import interleaved
from seq2seq.configuration.reading import load_values, read_experiment
from seq2seq.swipe.data import SwipeData
from seq2seq.swipe.traces.synthetic import synthetic_points
from third_party.models.swipe import FEATURES

DEMO = Path(__file__).parents[1] / "configs" / "swipe" / "demo.json"
STEP = "training step"
DRAWN = 1024
"""Traces that are drawn at once."""


def measure_rows(rounds: int) -> dict[str, Any]:
    """Return seconds per row (median and quartiles) by what is done, and the batch size."""
    experiment = read_experiment(load_values(DEMO))
    keys, size = experiment.workload, experiment.training["per_device_train_batch_size"]
    data = SwipeData(keys, 0, {})
    (name, layout), rate = next(iter(keys.layouts.items())), keys.config.rate
    words = data.training_words[name][:DRAWN].tolist()
    batch = data.drawn(range(size))
    inputs = [batch[key] for key in ("points", "attention_mask", "boxes")]
    torch.manual_seed(0)
    model = keys.load_model(random=True).train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    @torch.no_grad()
    def forward() -> None:
        model(*inputs)

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        STEP: (size, step),
        "forward pass": (size, forward),
        "traces drawn": (len(words), lambda: synthetic_points(words, layout, rate, 0)),
        "training batches drawn": (size, lambda: data.drawn(range(size))),
    }
    for features, make in FEATURES.items():
        module = make(len(keys.config.alphabet), rate).requires_grad_(False)
        ways[f"features, {features}"] = size, lambda module=module: module(*inputs)
    times = interleaved({name: run for name, (_, run) in ways.items()}, rounds, torch.device("cpu"))
    seconds = {name: [t / count for t in times[name][:3]] for name, (count, _) in ways.items()}
    return {"batch": size, "frames": inputs[0].shape[1], "seconds_per_row": seconds}


def rows_table(record: dict[str, Any]) -> str:
    """The table of rows per second."""
    seconds = record["seconds_per_row"]
    rows = [
        [name, f"{1 / median:,.0f}", f"{1 / high:,.0f} to {1 / low:,.0f}", f"{median / seconds[STEP][0]:.3g}"]
        for name, (median, low, high) in seconds.items()
    ]
    title = f"Training of the demo: batches of {record['batch']} traces of {record['frames']} frames"
    return render_table(title, ["what", "rows per second", "quartiles", "ratio"], rows)
