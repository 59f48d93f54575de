"""Folders of runs as users have them, of which the report must make sense; each function writes one."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters import AdapterConfig
from tests.seq2seq.report.conftest import write_run_folder

KINDS: tuple[dict[str, Any], ...] = (
    *({"kind": "tt_lora", "rank": rank} for rank in (1, 2, 4, 8, 16)),
    *({"kind": "tt_lora", "rank": 4, "format": form} for form in ("tensor_ring", "cp", "tucker", "tensor_basis")),
    {"kind": "tt_lora", "rank": 4, "shared_cores": [1]},
    *({"kind": kind} for kind in ("tt_single", "tt_adapter", "bottleneck", "low_rank", "phm", "compacter")),
    *({"kind": kind} for kind in ("layer_norm", "tt_layer_norm", "scale_norm", "bitfit", "prompt", "lm_head", "none")),
    {"kind": "intrinsic_said", "dim": 1000},
    {"kind": "layer_norm", "trainable": False},
    *({"kind": f"peft:{name}"} for name in ("LORA", "IA3", "VERA", "LOKR", "LOHA")),
)
"""Thirty adapters."""


def adapter(**fields: Any) -> list[dict[str, Any]]:
    """An adapter with all its fields, as a run writes them; those of PEFT as they are."""
    return [fields if fields["kind"].startswith("peft:") else AdapterConfig.from_dict(fields).to_dict()]


def one_method(root: Path) -> None:
    """One method with two seeds, evaluated once."""
    for seed in (0, 1):
        folder = write_run_folder(root, f"once/seed-{seed}", 0.5 + seed / 20, 10320, seed=seed, metric="spearman")
        (folder / "history.json").write_text(
            f'[{{"step": 1, "loss": 9.5}}, {{"step": 20, "eval_loss": 1.1, "eval_average_metrics": {0.5 + seed / 10}}}]'
        )


def low_resource(root: Path) -> None:
    """Two methods of one sweep on three numbers of rows and on all rows, with two seeds."""
    for kind, parameters, gain in (("tt_lora", 10320, 0.1), ("bitfit", 9412, 0.0)):
        for rows in (50, 200, 800, None):
            for seed in (0, 1):
                value = 0.5 + gain + (rows or 2400) ** 0.5 / 200 + seed / 40
                name = f"low/kind-{kind}__rows-{rows}__seed-{seed}"
                chosen = {"adapter": adapter(kind=kind), "max_train_samples": rows, "seed": seed}
                write_run_folder(root, name, value, parameters, metric="spearman", **chosen)


def own_data(root: Path) -> None:
    """Two custom data sets, the first with and without a shared core and with more training rows."""
    for data, shared, train in (
        ("reviews", [], "train"),
        ("reviews", [1], "train"),
        ("reviews", [], "train_augmented"),
        ("questions", [], "train"),
    ):
        for seed in (0, 1):
            value = (0.9 if data == "questions" else 0.6) - 0.1 * bool(shared) + seed / 50
            files = {split: f"/home/user/data/{data}/{split}.tsv" for split in ("validation", "test")}
            write_run_folder(
                root,
                f"{data}/shared-{shared}__{train}__seed-{seed}",
                value,
                6400 if shared else 10320,
                metric="exact_match",
                task_name=None,
                task="own_files",
                seed=seed,
                adapter=adapter(kind="tt_lora", rank=4, shared_cores=shared),
                train_file=f"/home/user/data/{data}/{train}.tsv",
                validation_file=files["validation"],
                test_file=files["test"],
            )


def thirty_methods(root: Path) -> None:
    """Thirty methods with three seeds on two tasks, many with about 10,000 parameters, one with none."""
    generator = random.Random(0)
    for number, fields in enumerate(KINDS):
        known = {"none": 10**6, "lm_head": 74240, "tt_layer_norm": 680, "scale_norm": 17, "peft:IA3": 3840}
        parameters = known.get(fields["kind"], generator.randint(8500, 10800))
        if fields["kind"] == "tt_lora" and len(fields) == 2:
            parameters = 1000 * fields["rank"]
        parameters = 0 if fields.get("trainable") is False else parameters
        level = generator.uniform(0.55, 0.75) if parameters else 0.0
        for task, metric in (("rte", "accuracy"), ("stsb", "spearman")):
            for seed in range(3):
                value = max(0.0, level + generator.gauss(0, 0.01)) if parameters else 0.0
                write_run_folder(
                    root,
                    f"{task}/{number}__seed-{seed}",
                    value,
                    parameters,
                    metric=metric,
                    constant=not parameters,
                    task_name=task,
                    seed=seed,
                    adapter=adapter(**fields),
                )


SITUATIONS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (one_method, low_resource, own_data, thirty_methods)
}
