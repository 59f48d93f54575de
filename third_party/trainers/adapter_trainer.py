"""What every trainer of adapters has: the five mixins, costs that are measured, and a progress bar that shows them.

class MyTrainer(AdapterTrainerMixin, transformers.Trainer):
    def summed_loss(self, model, inputs): ...
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from adapters.learning_rates import RateMultipliers
from third_party.trainers.acting_check import ActingCheckMixin
from third_party.trainers.adapter_checkpoints import AdapterCheckpointsMixin
from third_party.trainers.exact_loss import ExactLossMixin
from third_party.trainers.measurement import MeasurementCallback, ProgressLineCallback
from third_party.trainers.merged_evaluation import MergedEvaluationMixin
from third_party.trainers.sharded_training import ShardedTrainingMixin, check_sharding


class AdapterTrainerMixin(
    ActingCheckMixin, ExactLossMixin, ShardedTrainingMixin, MergedEvaluationMixin, AdapterCheckpointsMixin
):
    """Mixin before transformers' ``Trainer`` or a subclass of it; takes the same arguments.

    Raises:
        ValueError: several GPUs in one process, sharding other than by FSDP2, or a ``compute_loss_func`` was given.
    """

    unit = "rows"
    """What ``count_inputs`` counts, for tables."""

    rate_multipliers: RateMultipliers | None = None
    """The parameters whose learning rate is multiplied; None for none."""

    flags: Sequence[str] = ()
    """Metrics that are not results themselves, which the progress bar leaves out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"One process drives one GPU; got {self.args.n_gpu} visible GPUs: start the run with "
                "`torchrun --nproc_per_node N`, or choose one GPU by CUDA_VISIBLE_DEVICES."
            )
        check_sharding(self)
        if self.compute_loss_func is not None:
            raise ValueError(
                "The loss is exact under gradient accumulation; got a compute_loss_func, which would never be called: "
                "override summed_loss in a subclass."
            )
        self.measurement = MeasurementCallback(compiled=self.args.torch_compile, unit=self.unit)
        self.add_callback(self.measurement)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if not self.args.disable_tqdm:
            self.add_callback(ProgressLineCallback(self.measurement, self.flags))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make the optimizer, with groups of their own for parameters whose learning rate is multiplied."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if not is_new or self.rate_multipliers is None:
            return optimizer
        multiples = self.rate_multipliers.of(self.model)
        for group in list(optimizer.param_groups):
            by_multiple: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_multiple.setdefault(multiples.get(parameter, 1.0), []).append(parameter)
            group["params"] = by_multiple.pop(1.0, [])
            for multiple, parameters in by_multiple.items():
                optimizer.add_param_group({**group, "params": parameters, "lr": group["lr"] * multiple})
        return optimizer

    def label_progress(self, label: str) -> None:
        """Say in the progress bar which training this is, if it is not the only one of a run."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ProgressLineCallback):
                callback.label = label

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        """The size of a micro-batch in ``unit``: rows by default."""
        return len(next(iter(inputs.values())))

    def around_forward(self) -> contextlib.AbstractContextManager[None]:
        return self.measurement.forward_pass(self.model)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        self.measurement.count(self.count_inputs(inputs))
        return super().training_step(model, self.model_inputs(inputs), num_items_in_batch)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        return super().prediction_step(model, self.model_inputs(inputs), *args, **kwargs)


def unpadded_tokens(inputs: dict[str, Tensor]) -> int:
    """The tokens of a micro-batch that are not padding."""
    mask = inputs.get("attention_mask")
    return int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
