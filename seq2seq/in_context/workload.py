"""The workload ``in_context``: examples of a function and a last x in, y out, by a looped transformer.

keys               the JSON keys                       errors      the metric
function_classes   what is learned from examples       baselines   what other functions of the examples predict
data               prompts as vectors                  plots       error by position and by loop
curriculum         dims, points and loops that grow    trainer     squared error over the last loops
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from torch.utils.data import default_collate
from transformers import EvalPrediction, TrainerCallback, TrainingArguments

from seq2seq.in_context.baselines import BASELINES, measure, predictions_of
from seq2seq.in_context.data import InContextData, load_prompts
from seq2seq.in_context.errors import errors, metrics_of
from seq2seq.in_context.keys import InContextKeys
from seq2seq.in_context.plots import PLOT, draw_errors
from seq2seq.in_context.trainer import InContextTrainer
from seq2seq.workload import Baseline, Evaluation, Prepared
from third_party.models.looped import LoopedModel

SAMPLES = 8
LOOPS, POSITIONS = "predictions_test_by_loop.jsonl", "predictions_test_by_position.jsonl"


@dataclass(frozen=True, kw_only=True)
class InContextWorkload(InContextKeys):
    """Functions learned from the examples of a prompt, by a looped transformer.

    ``InContextKeys`` has the keys.
    """

    def training_arguments(self) -> dict[str, Any]:
        return {"remove_unused_columns": False, "label_names": ["labels"]}

    def load_data(self, arguments: TrainingArguments) -> InContextData:
        return load_prompts(self, arguments.seed)

    def load_model(self, random: bool = False) -> nn.Module:
        return LoopedModel(self.looped)

    def make_trainer(self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> InContextTrainer:
        return InContextTrainer(
            model=prepared.model,
            args=prepared.arguments,
            train_dataset=prepared.data.numbers,
            eval_dataset=prepared.data.rows("validation"),
            data_collator=default_collate,
            data=prepared.data,
            compute_metrics=self.scores,
            callbacks=list(callbacks),
        )

    def scores(self, output: EvalPrediction) -> dict[str, float]:
        """The metrics of predictions (prompts, loops, points)."""
        return metrics_of(errors(output.predictions, output.label_ids, self.full_sizes.dims), self.num_loops)

    @property
    def num_loops(self) -> int:
        """b."""
        return self.full_sizes.loops

    def evaluate(self, prepared: Prepared, trainer: InContextTrainer, split: str) -> Evaluation:
        prompts = prepared.data.fixed[split]
        predictions = trainer.predict(prepared.data.rows(split)).predictions  # (prompts, loops, points)
        found = errors(predictions, prompts.y.numpy(), self.full_sizes.dims)
        others = {
            label: errors(predictions_of(name, prompts), prompts.y.numpy(), self.full_sizes.dims)[0]
            for name, (label, _) in BASELINES.items()
        }
        by_position = [
            {"point": k + 1, "this model": found[self.num_loops - 1, k]} | {name: e[k] for name, e in others.items()}
            for k in range(found.shape[1])
        ]
        by_loop = [{"loop": k + 1, "error": row[-1]} for k, row in enumerate(found)]
        return Evaluation(metrics_of(found, self.num_loops), {"by_position": by_position, "by_loop": by_loop})

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        rows = prepared.data.rows("validation")
        return {self.function_class: rows.select(range(min(SAMPLES, len(rows))))}

    def baselines(self) -> Mapping[str, Baseline]:
        return {name: Baseline(label, partial(measure, name)) for name, (label, _) in BASELINES.items()}

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        paths = [directory / name for name in (POSITIONS, LOOPS)]
        if not all(path.is_file() for path in paths):
            return ""
        positions, loops = (
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths
        )
        names = [name for name in positions[0] if name != "point"]
        by_position = {name: [row[name] for row in positions] for name in names}
        by_loop = [row["error"] for row in loops]
        draw_errors(directory / PLOT, by_position, by_loop, self.num_loops, len(positions))
        return f"![errors by position and by loop]({PLOT})\n\n"
