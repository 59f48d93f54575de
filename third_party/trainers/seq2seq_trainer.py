"""transformers' Seq2SeqTrainer for models with adapters. What differs:

loss          summed cross-entropy / number of target tokens of the whole accumulated batch, so that n micro-steps
              give the gradient of one (T5's forward ignores num_items_in_batch, so its own mean does not)
evaluation    with the adapters merged where all of them are linear, unmerged again afterwards, also after an error; a
              row counts once, however many processes share the rows
checkpoints   adapter tensors only, as ``adapters.save`` writes them; resuming and the best model read those, also where
              a ``RankScheduleCallback`` has changed the ranks since
tasks         a batch's column ``task`` says whose adapters act on it
order         that of a sampler of one's own, which learns the epoch's number also when a run resumes within an epoch
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Seq2SeqTrainer as TransformersSeq2SeqTrainer
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import PrinterCallback, ProgressCallback

import adapters
from adapters.merging import non_linear_adapters
from third_party.trainers.measurement import MeasurementCallback, ProgressLineCallback
from third_party.trainers.rank_schedule import RankScheduleCallback

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100
TASK_COLUMN = "task"


class Seq2SeqTrainer(TransformersSeq2SeqTrainer):
    """Trains what ``adapters.attach`` left trainable. Takes the arguments of transformers' Seq2SeqTrainer and two more.

    Args:
        task_names: the tasks of adapters attached by task. Rows then have a column ``task``, the number of theirs in
            this sequence, batches (batch,) of one task, and its adapters act on them, in training and in evaluation.
        train_sampler: gives the order of the training rows instead of transformers' own sampler; it has a method
            ``set_epoch``, as that one has.

    Raises:
        ValueError: several GPUs in one process, FSDP or DeepSpeed, or a ``compute_loss_func`` was given.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self, *args: Any, task_names: Sequence[str] = (), train_sampler: Sampler[int] | None = None, **kwargs: Any
    ) -> None:
        self.task_names = tuple(task_names)
        self.train_sampler = train_sampler
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"One process drives one GPU; this one sees {self.args.n_gpu}: start the run with "
                "`torchrun --nproc_per_node N`, or choose one GPU by CUDA_VISIBLE_DEVICES."
            )
        if self.is_fsdp_enabled or self.args.fsdp or self.is_deepspeed_enabled:
            raise ValueError(
                "Several processes share the work by DDP, for frozen weights have no gradients and no optimizer state "
                "to shard; got FSDP or DeepSpeed: leave it out and start the run with "
                "`torchrun --nproc_per_node N`."
            )
        if self.compute_loss_func is not None:
            raise ValueError(
                "The loss is the cross-entropy of the targets, exact under accumulation; got a "
                "compute_loss_func, which nothing would call: override compute_loss in a subclass."
            )
        self.measurement = MeasurementCallback(compiled=self.args.torch_compile)
        self.add_callback(self.measurement)
        if train_sampler is not None:
            self.add_callback(EpochCallback(train_sampler))
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if not self.args.disable_tqdm:
            self.add_callback(ProgressLineCallback(self.measurement))

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        self.measurement.count_tokens(inputs)
        return super().training_step(model, self.act_on_task(inputs), num_items_in_batch)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        return super().prediction_step(model, self.act_on_task(inputs), *args, **kwargs)

    def act_on_task(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Let the adapters of a batch's task act, and give the batch without its column ``task``.

        Raises:
            ValueError: the batch has no such column, or rows of several tasks.
        """
        if not self.task_names:
            return inputs
        inputs = dict(inputs)
        numbers = inputs.pop(TASK_COLUMN, None)
        found = [] if numbers is None else sorted({self.task_names[number] for number in numbers.tolist()})
        if len(found) != 1:
            raise ValueError(
                f"A batch is of one task where adapters are attached by task; got one of {found or 'none'}: "
                f"give each row a column {TASK_COLUMN!r} and order the rows with a train_sampler."
            )
        if adapters.attachments(self.model):
            adapters.set_active_task(self.model, found[0])
        return inputs

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
        with self.measurement.forward_pass(self.model):
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

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, without the rows by which several processes fill up their last batch."""
        self.gather_function = self.accelerator.gather_for_metrics
        return super().evaluation_loop(*args, **kwargs)

    @contextlib.contextmanager
    def merged_for_evaluation(self) -> Iterator[None]:
        """Merge for the body where that is possible; a kind that is not linear is evaluated as it is.

        Where the body's batches are of several tasks, each switch merges the next task's adapters.
        """
        not_linear = non_linear_adapters(self.model)
        if not_linear:
            logger.info("Evaluating unmerged because of %s.", ", ".join(not_linear))
            yield
            return
        with adapters.merged(self.model):
            yield

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return super()._get_train_sampler(train_dataset) if self.train_sampler is None else self.train_sampler

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.task_names and TASK_COLUMN not in self._signature_columns:
            self._signature_columns.append(TASK_COLUMN)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            adapters.save(self.model, output_dir or self.args.output_dir, model_card=False)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until every process has written its own: trainer_state.json, which comes next, is then the last file."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_adapters(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_adapters(self.state.best_model_checkpoint)

    def _load_adapters(self, directory: str) -> None:
        if any(isinstance(callback, RankScheduleCallback) for callback in self.callback_handler.callbacks):
            adapters.fit_ranks(self.model, directory)
        adapters.load(self.model, directory)


class EpochCallback(TrainerCallback):
    """Tells a sampler the number of the epoch.

    A run that resumes within an epoch reads from a loader that skips the batches already seen; under several processes
    that one does not pass the number on to a sampler that is not transformers' own.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch))


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
