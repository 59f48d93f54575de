"""A loss that is exact under gradient accumulation: n micro-batches give the gradient of one batch.

    loss = summed loss of this micro-batch / items of the whole accumulated batch

An item is what the loss is averaged over: a target token, a row, a number; ``count_items`` counts them in each
micro-batch of an accumulated batch, before the first one is trained on. The mean that a model computes by itself is
over its micro-batch, which is another loss if micro-batches differ in size.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED_LABEL = -100
"""The label of positions that do not count in a loss."""


class ExactLossMixin:
    """Mixin over transformers' ``Trainer``; a subclass defines ``summed_loss``, and ``count_items`` if needed."""

    loss_is_scaled_for_ga = True

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Run the model on a micro-batch; returns the loss summed over its items (), and the model's outputs."""
        raise NotImplementedError

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        """The number of items in a micro-batch, (): by default that of the labels that are not -100."""
        return (inputs["labels"] != IGNORED_LABEL).sum()

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """transformers' hook: the items of all micro-batches of a step, of all processes if their loss is averaged."""
        if not batch_samples:
            return None
        count = torch.stack([self.count_items(inputs).to(device) for inputs in batch_samples]).sum()
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count

    def around_forward(self) -> contextlib.AbstractContextManager[None]:
        """A context around each forward pass and its summed loss."""
        return contextlib.nullcontext()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The summed loss of a micro-batch over the items of the whole batch.

        Several processes average their gradients, so the loss is multiplied by their number where
        ``num_items_in_batch`` counts the items of all of them.
        """
        with self.around_forward():
            summed, outputs = self.summed_loss(model, inputs)
        if num_items_in_batch is None:
            loss = summed / self.count_items(inputs).clamp(min=1)
        else:
            loss = summed / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def summed_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in float32, summed over the labels that are not -100, ().

    Args:
        logits: (..., classes).
        labels: (...), int64.
        label_smoothing: in [0, 1], as ``torch.nn.functional.cross_entropy`` takes it.
    """
    return F.cross_entropy(
        logits.float().flatten(0, -2),  # (..., classes) -> (items, classes)
        labels.flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
