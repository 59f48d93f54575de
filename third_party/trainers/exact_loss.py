"""A loss that is exact under gradient accumulation: n micro-batches give the gradient of one batch.

    loss = summed loss of this micro-batch / items of the whole accumulated batch

An item is what the loss is averaged over: a target token, a row, a number. transformers counts the labels of an
accumulated batch that are not -100 and passes the count as ``num_items_in_batch``. The mean that a model computes by
itself is over its micro-batch, which is another loss wherever micro-batches differ in size.
"""

import contextlib
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

IGNORED_LABEL = -100


class ExactLossMixin:
    """Mixin over transformers' ``Trainer``; a subclass defines what is summed, in ``summed_loss``."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # else transformers counts items for some models' forward only

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Any]:
        """Run the model on a micro-batch.

        Returns:
            The loss summed over items (), the number of items (), and the model's outputs.
        """
        raise NotImplementedError

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
            summed, count, outputs = self.summed_loss(model, inputs)
        if num_items_in_batch is None:
            loss = summed / count.clamp(min=1)
        else:
            loss = summed / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def summed_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross-entropy in float32, summed over the labels that are not -100, and their number.

    Args:
        logits: (..., classes).
        labels: (...), int64.
        label_smoothing: in [0, 1], as ``torch.nn.functional.cross_entropy`` takes it.
    """
    summed = F.cross_entropy(
        logits.float().flatten(0, -2),  # (..., classes) -> (items, classes)
        labels.flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return summed, (labels != IGNORED_LABEL).sum()
