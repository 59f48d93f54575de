"""transformers' Trainer for decoder-only models with adapters.

rows          token ids, and labels that are -100 where nothing is predicted, as at the first token of each sequence
loss          cross-entropy summed over the labels of the whole accumulated batch; logits (batch, kept, vocabulary) are
              computed only at the positions before a label, which for short answers is a fraction of them
teacher       loss = (1 - weight) * cross-entropy + weight * T^2 * KL(teacher at T || model at T), summed over the same
              labels (Hinton et al. 2015, arXiv:1503.02531); in training only
predictions   of rows with labels their log-likelihood, of rows without labels a greedy continuation

Batches are padded on the left, so that the ends of sequences are aligned and generation can continue them.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import DataCollatorWithFlattening, GenerationConfig
from transformers import Trainer as TransformersTrainer

from adapters.acting import unwrapped
from third_party.trainers.adapter_trainer import AdapterTrainerMixin
from third_party.trainers.exact_loss import IGNORED_LABEL, summed_cross_entropy
from third_party.trainers.task_adapters import TASK_COLUMN, TaskAdaptersMixin

LOGITS_AT_ONCE = 2**26
"""Logits that evaluation computes at once: 256 MiB in float32."""

Rows = Sequence[dict[str, Any]]


def left_padded(rows: Rows, pad_token_id: int) -> dict[str, Tensor]:
    """A batch (batch, length), padded on the left; positions count from the first token of each row.

    Args:
        rows: ``input_ids``, and ``labels`` of the same length or none; other columns hold one integer each.
        pad_token_id: the token of the padding, which nothing attends to.
    """
    length = max(len(row["input_ids"]) for row in rows)

    def padded(column: str, value: int) -> Tensor:
        return torch.tensor([[value] * (length - len(row[column])) + list(row[column]) for row in rows])

    mask = torch.tensor([[0] * (length - len(row["input_ids"])) + [1] * len(row["input_ids"]) for row in rows])
    batch = {
        "input_ids": padded("input_ids", pad_token_id),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    if "labels" in rows[0]:
        batch["labels"] = padded("labels", IGNORED_LABEL)
    return batch | {name: torch.tensor([row[name] for row in rows]) for name in rows[0].keys() - batch.keys()}


def packed(rows: Rows) -> dict[str, Tensor]:
    """A batch (1, sum of lengths) without padding: positions count from the first token of each row.

    From these positions transformers makes attention that stays within a row, where the architecture has it.
    """
    tasks = {TASK_COLUMN: torch.tensor([row[TASK_COLUMN] for row in rows])} if TASK_COLUMN in rows[0] else {}
    plain = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
    return {**DataCollatorWithFlattening(return_tensors="pt")(plain), **tasks}


class PredictingTrainer(TransformersTrainer):
    """What a decoder-only model predicts: the base below the mixins of ``CausalTrainer``.

    Args:
        generation: how rows without labels are continued; None if there are none.
    """

    def __init__(self, *args: Any, generation: GenerationConfig | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generation = generation

    @torch.no_grad()
    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Log-likelihoods (batch, 3), as ``likelihoods`` has them, or token ids of continuations; no loss."""
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            predict = self.likelihoods if "labels" in inputs else self.continuations
            return None, predict(model, inputs), None

    def likelihoods(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Of each row's labels the log-likelihood, their number, and how many are the most likely token.

        Returns:
            (batch, 3), float64.
        """
        rows = max(
            1,
            LOGITS_AT_ONCE // (unwrapped(self.model).config.get_text_config().vocab_size * len(kept_positions(inputs))),
        )
        parts = []
        for start in range(0, len(inputs["input_ids"]), rows):
            part = {name: tensor[start : start + rows] for name, tensor in inputs.items()}
            logits, targets, _ = self.target_logits(model, part)
            counted = targets != IGNORED_LABEL  # (rows, kept)
            chosen = targets.clamp(min=0).unsqueeze(-1)
            log_p = logits.float().log_softmax(-1).gather(-1, chosen).squeeze(-1)  # (rows, kept)
            right = (logits.argmax(-1) == targets) & counted
            sums = [log_p.double().where(counted, 0.0).sum(1), counted.sum(1).double(), right.sum(1).double()]
            parts.append(torch.stack(sums, dim=1))
        return torch.cat(parts)

    def continuations(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """The new tokens of each row (batch, new)."""
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        model = self.accelerator.unwrap_model(model)
        return model.generate(**inputs, generation_config=self.generation)[:, inputs["input_ids"].shape[1] :]

    def target_logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Any]:
        """Run the model.

        Args:
            inputs: a batch with ``labels`` (batch, length).

        Returns:
            Logits (batch, kept, vocabulary) at the positions before a label of any row, the labels (batch, kept) that
            they predict, and the model's outputs.
        """
        kept = kept_positions(inputs)
        targets = inputs["labels"][:, kept + 1]
        known = inspect.signature(unwrapped(model).forward).parameters
        inputs = {name: tensor for name, tensor in inputs.items() if name in known and name != "labels"}
        if "logits_to_keep" in known:
            outputs = model(**inputs, use_cache=False, logits_to_keep=kept)
            return outputs.logits, targets, outputs
        outputs = model(**inputs, use_cache=False)
        return outputs.logits[:, kept], targets, outputs


class CausalTrainer(TaskAdaptersMixin, AdapterTrainerMixin, PredictingTrainer):
    """Trains what ``adapters.attach`` left trainable; arguments and errors are those of its bases, and

    Args:
        packing: whether the rows of a training batch are one sequence without padding.
        teacher: another model with the same vocabulary, on the same device; None for none.
        teacher_weight: in the loss, in (0, 1].
        temperature: T.
    """

    unit = "tokens"

    def __init__(
        self,
        *args: Any,
        packing: bool = False,
        teacher: nn.Module | None = None,
        teacher_weight: float = 0.5,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self.packing = packing
        self.teacher, self.teacher_weight, self.temperature = teacher, teacher_weight, temperature
        super().__init__(*args, **kwargs)

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        """Tokens that are not padding."""
        mask = inputs.get("attention_mask")
        return int(mask.sum()) if mask is not None else inputs["input_ids"].numel()

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Cross-entropy summed over the labels of a micro-batch; in training with the divergence from a teacher."""
        logits, targets, outputs = self.target_logits(model, inputs)
        loss = summed_cross_entropy(logits, targets, self.args.label_smoothing_factor)
        if self.teacher is None or not model.training:
            return loss, outputs
        with torch.no_grad():
            taught = self.target_logits(self.teacher, inputs)[0]
        divergence = summed_divergence(logits, taught, targets, self.temperature)
        return (1 - self.teacher_weight) * loss + self.teacher_weight * divergence, outputs

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay acts on matrices and larger tensors; transformers leaves out biases and norms by their names.

        It also names parameters that a module reads from another one.
        """
        dimensions = {name: parameter.ndim for name, parameter in model.named_parameters(remove_duplicate=False)}
        return [name for name in super().get_decay_parameter_names(model) if dimensions.get(name, 0) >= 2]

    def get_train_dataloader(self) -> DataLoader:
        padded, self.data_collator = self.data_collator, packed if self.packing else self.data_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = padded


def kept_positions(inputs: dict[str, Tensor]) -> Tensor:
    """The positions (kept,) before a label of any row."""
    return (inputs["labels"][:, 1:] != IGNORED_LABEL).any(0).nonzero().squeeze(1)


def summed_divergence(logits: Tensor, taught: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || model), both at the temperature T, summed over the labels that are not -100, ().

    Args:
        logits, taught: (batch, kept, vocabulary); the teacher may have more padding entries.
        targets: (batch, kept).
    """
    counted = targets != IGNORED_LABEL
    size = logits.shape[-1]
    log_q = (logits[counted].float() / temperature).log_softmax(-1)  # (labels, vocabulary)
    log_p = (taught[counted][..., :size].float() / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="sum", log_target=True)
