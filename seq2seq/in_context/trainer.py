"""The trainer of a looped transformer: the loss of the task over the last T loops, scored at every loop up to 3 b.

It draws the prompts of each step at the sizes of the curriculum, see ``seq2seq.in_context.curriculum``.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.utils import ModelOutput

from adapters.acting import unwrapped
from seq2seq.in_context.data import InContextData
from seq2seq.in_context.errors import BEYOND
from third_party.trainers import AdapterTrainerMixin


class InContextTrainer(AdapterTrainerMixin, Trainer):
    """Trains on prompts: inputs (batch, length, ...), labels (batch, answers).

    Args:
        data: what draws the prompts of a batch of numbers, the rows of training.
    """

    unit = "points"

    def __init__(self, *args: Any, data: InContextData, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data = data

    def get_batch_samples(self, epoch_iterator: Iterator[Tensor], *args: Any) -> Any:
        """transformers' hook: the micro-batches of the next step."""
        return super().get_batch_samples(map(self.drawn, epoch_iterator), *args)

    def drawn(self, numbers: Tensor) -> dict[str, Tensor]:
        """The prompts (batch, ...) of numbers (batch,) at the step that comes next."""
        return self.data.batch(numbers.tolist(), self.state.global_step)

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        return inputs["labels"].numel()

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tensor(inputs["labels"].numel())

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Losses summed over answers and averaged over loops; predictions (batch, loops, answers, ...)."""
        task, labels = self.data.keys.task, inputs["labels"]
        trained = unwrapped(self.model).config.option("loops").num_loops
        loops = self.data.keys.sizes_at(self.state.global_step).loops if model.training else BEYOND * trained
        by_loop = model(inputs=inputs["inputs"], num_loops=loops).by_loop  # (loops, batch, length, out)
        predictions = task.read(by_loop, labels.shape[1])
        counted = predictions if model.training else predictions[:, trained - 1 : trained]
        return task.losses(counted, labels).mean(1).sum(), ModelOutput(logits=predictions)
