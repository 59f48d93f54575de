"""The workload ``in_context``: a looped transformer learns functions of what stands before in a prompt.

keys               the JSON keys                      tasks               what is asked of a function class
function_classes   what is learned, on vectors        token_tasks         what is learned, on tokens
regression         the task of vectors                classification      the task of tokens
data               prompts, drawn and fixed           trainer             the loss over the last loops
curriculum         dims, points and loops that grow   errors              squared error, and bootstrap bands
baselines          what other functions predict       gradient_descent    the baseline that is a network
probe              what each loop's state knows       rows                scores as the rows of a run's folder
plots              those of a run's page              comparison          those of a report of several runs
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from torch.utils.data import default_collate
from transformers import EvalPrediction, TrainerCallback, TrainingArguments

from adapters.acting import unwrapped
from seq2seq.in_context.baselines import FITTED_PROMPTS, NOTES
from seq2seq.in_context.comparison import PLOTS
from seq2seq.in_context.data import InContextData, load_prompts
from seq2seq.in_context.keys import InContextKeys
from seq2seq.in_context.plots import PLOT, draw_scores
from seq2seq.in_context.probe import probe_rows
from seq2seq.in_context.rows import ROWS, read_rows, with_band
from seq2seq.in_context.trainer import InContextTrainer
from seq2seq.workload import Baseline, Evaluation, Prepared
from third_party.models.looped import LoopedModel

SAMPLES = 8
CAPTION = "Bands are 90 % bootstrap intervals over prompts, and the dotted line is the trained number of loops."
OF_ERRORS = " Curves are cut off at twice the largest error of the run."
OF_MARKERS = f" Markers are errors at the last point of the first {FITTED_PROMPTS} prompts."


@dataclass(frozen=True, kw_only=True)
class InContextWorkload(InContextKeys):
    """Functions learned from the examples of a prompt, by a looped transformer.

    ``InContextKeys`` has the keys.
    """

    baseline_notes = NOTES
    report_plots = PLOTS

    def training_arguments(self) -> dict[str, Any]:
        # a curriculum of loops leaves out what later loops have of their own
        return {"remove_unused_columns": False, "label_names": ["labels"], "ddp_find_unused_parameters": True}

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
        """The metrics of predictions (prompts, loops, answers, ...)."""
        return self.task.metrics(output.predictions, output.label_ids, self.num_loops)

    @property
    def num_loops(self) -> int:
        """b."""
        return self.full_sizes.loops

    def evaluate(self, prepared: Prepared, trainer: InContextTrainer, split: str) -> Evaluation:
        task, prompts = self.task, prepared.data.fixed[split]
        output = trainer.predict(prepared.data.rows(split))
        scores = task.scores(output.predictions, output.label_ids)  # (prompts, loops, answers)
        by_predictor = {"this model": scores[:, self.num_loops - 1], **task.baseline_scores(prompts)}
        rows = {
            "by_position": [
                {"predictor": name, "point": k, **cells}
                for name, found in by_predictor.items()
                for k, cells in enumerate(with_band(found, task.measure.key), 1)
            ],
            "by_loop": [
                {"loop": k, **cells, "trained": k <= self.num_loops}
                for k, cells in enumerate(with_band(task.at_end(scores), task.measure.key), 1)
            ],
        }
        if self.probe:
            rows["probe"] = probe_rows(unwrapped(trainer.model), prompts)
        return Evaluation(task.metrics(output.predictions, output.label_ids, self.num_loops), rows)

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        rows = prepared.data.rows("validation")
        return {self.function_class: rows.select(range(min(SAMPLES, len(rows))))}

    def baselines(self) -> Mapping[str, Baseline]:
        return self.task.baselines()

    def table_rows(self, result: Mapping[str, Any]) -> list[list[str]]:
        found = {split: metrics.get("standard_error") for split, metrics in result["metrics"].items()}
        label = f"standard error of the {'accuracy' if self.on_tokens else 'last point error'}"
        return [[f"{split} {label}", f"{value:.4f}"] for split, value in found.items() if value is not None]

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        split = next((split for split in ("test", "validation") if split in result["metrics"]), None)
        positions, loops, probe = (read_rows(directory, split, name) for name in ROWS)
        if not (positions and loops):
            return ""
        fitted = self.task.fitted_errors(result.get("baselines", {}))
        draw_scores(directory / PLOT, positions, loops, probe, fitted)
        caption = CAPTION + (OF_ERRORS if not self.on_tokens else "") + (OF_MARKERS if fitted else "")
        return f"![scores by position and by loop]({PLOT})\n\n{caption}\n\n"
