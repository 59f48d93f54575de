"""A second workload: vectors in, a number out, a linear model, mean squared error. All of it is in this file.

python -c "from tests.seq2seq.vectors import main; raise SystemExit(main())" config.json dim=8
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import ModelOutput

import run_seq2seq
from seq2seq import SPLITS
from seq2seq.workload import WORKLOADS, Baseline, Evaluation, Prepared, Workload
from third_party.trainers import AdapterTrainerMixin


class VectorConfig(PretrainedConfig):
    model_type = "vectors"

    def __init__(self, dim: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim


class VectorModel(PreTrainedModel):
    """x (batch, dim) -> logits (batch,).

    It takes ``labels`` although it ignores them: transformers keeps the columns that a model's forward takes.
    """

    config_class = VectorConfig

    def __init__(self, config: VectorConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(config.dim, 1)
        self.post_init()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> ModelOutput:
        return ModelOutput(logits=self.linear(x).squeeze(-1))  # (batch, dim) -> (batch,)


class VectorTrainer(AdapterTrainerMixin, Trainer):
    """Mean squared error."""

    unit = "vectors"

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        outputs = model(**inputs)
        errors = outputs.logits - inputs["labels"]  # (batch,)
        return errors.square().sum(), outputs

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tensor(len(inputs["labels"]))


@dataclass(frozen=True, kw_only=True)
class VectorWorkload(Workload):
    """y = w x + noise, with w fixed.

    Args:
        dim: features of a vector.
        rows: vectors of each split.
        noise: standard deviation of the noise.
    """

    name = "vectors"
    reserved_arguments: ClassVar[Mapping[str, str]] = {"label_smoothing_factor": "there are no classes to smooth"}
    other_names: ClassVar[Mapping[str, str]] = {"samples": "rows"}
    metric_names = ("mse", "average_metrics")
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"dim": (1, 1e4), "rows": (2, 1e6), "noise": (0, 1e3)}

    dim: int = 4
    rows: int = 64
    noise: float = 0.1

    @property
    def task_label(self) -> str:
        return f"regression in {self.dim} dimensions"

    @property
    def model_label(self) -> str:
        return "linear"

    def load_data(self, arguments: TrainingArguments) -> DatasetDict:
        generator = torch.Generator().manual_seed(0)
        slope = torch.randn(self.dim, generator=generator)
        splits = {}
        for split in SPLITS:
            x = torch.randn(self.rows, self.dim, generator=generator)
            y = x @ slope + self.noise * torch.randn(self.rows, generator=generator)  # (rows, dim) x (dim,) -> (rows,)
            splits[split] = Dataset.from_dict({"x": x.tolist(), "labels": y.tolist()})
        return DatasetDict(splits)

    def load_model(self, random: bool = False) -> VectorModel:
        return VectorModel(VectorConfig(dim=self.dim))

    def make_trainer(self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> VectorTrainer:
        return VectorTrainer(
            model=prepared.model,
            args=prepared.arguments,
            train_dataset=prepared.data["train"],
            eval_dataset=prepared.data["validation"],
            compute_metrics=lambda output: scores(output.predictions, output.label_ids),
            callbacks=list(callbacks),
        )

    def evaluate(self, prepared: Prepared, trainer: Trainer, split: str) -> Evaluation:
        rows = prepared.data[split]
        predictions = trainer.predict(rows).predictions
        records = [
            {"x": x, "target": y, "prediction": float(p)}
            for x, y, p in zip(rows["x"], rows["labels"], predictions, strict=True)
        ]
        return Evaluation(scores(predictions, rows["labels"][:]), {"vectors": records})

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        return {"vectors": prepared.data["validation"]}

    def baselines(self) -> Mapping[str, Baseline]:
        return {"mean": Baseline("always the mean", mean_baseline)}


def mean_baseline(prepared: Prepared, split: str) -> dict[str, float]:
    """The mean label of the training split, for every row."""
    train, rows = prepared.data["train"]["labels"][:], prepared.data[split]["labels"][:]
    return scores([sum(train) / len(train)] * len(rows), rows)


def scores(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """Mean squared error, and the share of variance explained, R^2 = 1 - MSE / var(y)."""
    y = torch.as_tensor(labels, dtype=torch.float64)
    mse = (torch.as_tensor(predictions, dtype=torch.float64) - y).square().mean()
    return {"mse": float(mse), "average_metrics": float(1 - mse / y.var(correction=0))}


WORKLOADS[VectorWorkload.name] = VectorWorkload


def main(arguments: list[str] | None = None) -> int:
    """``run_seq2seq`` with this workload registered."""
    return run_seq2seq.main(arguments)
