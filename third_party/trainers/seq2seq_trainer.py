"""transformers' Seq2SeqTrainer for models with adapters. What differs:

loss          summed cross-entropy / number of target tokens of the whole accumulated batch, so that n micro-steps
              give the gradient of one (T5's forward ignores num_items_in_batch, so its own mean does not)
evaluation    with the adapters merged where all of them are linear, unmerged again afterwards, also after an error
checkpoints   adapter tensors only, as ``adapters.save`` writes them; resuming and the best model read those
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Seq2SeqTrainer as TransformersSeq2SeqTrainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import adapters
from third_party.trainers.measurement import MeasurementCallback, ProgressLineCallback

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100


class Seq2SeqTrainer(TransformersSeq2SeqTrainer):
    """Trains what ``adapters.attach`` left trainable. Takes the arguments of transformers' Seq2SeqTrainer.

    Raises:
        ValueError: several GPUs in one process, FSDP or DeepSpeed, or a ``compute_loss_func`` was given.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"One process drives one GPU; this one sees {self.args.n_gpu}: start the run with "
                "`torchrun --nproc_per_node N`, or choose one GPU by CUDA_VISIBLE_DEVICES."
            )
        if self.is_fsdp_enabled or self.args.fsdp or self.is_deepspeed_enabled:
            raise ValueError(
                "Several processes share the work by DDP, for frozen weights have no gradients and no optimizer state "
                "to shard; given was FSDP or DeepSpeed: leave it out and start the run with "
                "`torchrun --nproc_per_node N`."
            )
        if self.compute_loss_func is not None:
            raise ValueError(
                "The loss is the cross-entropy of the targets, exact under accumulation; given was a "
                "compute_loss_func, which nothing would call: override compute_loss in a subclass."
            )
        self.measurement = MeasurementCallback()
        self.add_callback(self.measurement)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if not self.args.disable_tqdm:
            self.add_callback(ProgressLineCallback(self.measurement))

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        self.measurement.count_tokens(inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy summed over this micro-batch (batch, target) divided by the tokens of the whole batch.

        Under several processes the gradients are averaged, so the loss is multiplied by their number where
        ``num_items_in_batch`` counts the tokens of all of them.
        """
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        if "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels)
        outputs = model(**inputs)
        summed = F.cross_entropy(
            outputs.logits.float().flatten(0, 1),  # (batch, target, vocabulary) -> (batch * target, vocabulary)
            labels.flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
            label_smoothing=self.args.label_smoothing_factor,
        )
        if num_items_in_batch is None:
            loss = summed / (labels != IGNORED_LABEL).sum().clamp(min=1)
        else:
            loss = summed / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.merged_for_evaluation():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self.merged_for_evaluation():
            return super().predict(*args, **kwargs)

    @contextlib.contextmanager
    def merged_for_evaluation(self) -> Iterator[None]:
        """Merge for the body where that is possible; a kind that is not linear is evaluated as it is."""
        not_linear = adapters.unmergeable(self.model)
        if not_linear is not None:
            logger.info("Evaluating unmerged because of %s.", not_linear)
            yield
            return
        with adapters.merged(self.model):
            yield

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            adapters.save(self.model, output_dir or self.args.output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until every process has written its own: trainer_state.json, which comes next, is then the last file."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        adapters.load(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        adapters.load(self.model, self.state.best_model_checkpoint)


def last_complete_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None; a kill may have left a newer, partial one."""
    found = sorted(Path(directory).glob("checkpoint-*"), key=lambda path: _step(path), reverse=True)
    return next((path for path in found if _step(path) >= 0 and _is_complete(path)), None)


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_complete(path: Path) -> bool:
    """trainer_state.json is the last file of a checkpoint to be written."""
    try:
        state = json.loads((path / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "global_step" in state
