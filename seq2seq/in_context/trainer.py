"""The trainer of a looped transformer: squared error over the last T loops, scored at every loop up to 3 b.

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
    """Trains on prompts: inputs (batch, 2 points, dims), labels (batch, points).

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
        """Squared errors summed over points and averaged over loops; predictions (batch, loops, points)."""
        trained = unwrapped(self.model).config.option("loops").num_loops
        loops = self.data.keys.sizes_at(self.state.global_step).loops if model.training else BEYOND * trained
        by_loop = model(inputs=inputs["inputs"], num_loops=loops).by_loop  # (loops, batch, 2 points, 1)
        predictions = by_loop[:, :, ::2, 0].transpose(0, 1)  # at the positions of x: (batch, loops, points)
        squares = (predictions.float() - inputs["labels"][:, None].float()).square()  # (batch, loops, points)
        counted = squares if model.training else squares[:, trained - 1 : trained]
        return counted.mean(1).sum(), ModelOutput(logits=predictions)
