"""The trainer of a looped transformer: squared error over the last T loops, scored at every loop up to 3 b."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.utils import ModelOutput

from adapters.acting import unwrapped
from seq2seq.in_context.errors import BEYOND
from third_party.trainers import AdapterTrainerMixin


class InContextTrainer(AdapterTrainerMixin, Trainer):
    """Trains on prompts: inputs (batch, 2 points, dims), labels (batch, points)."""

    unit = "points"

    def count_inputs(self, inputs: dict[str, Tensor]) -> int:
        return inputs["labels"].numel()

    def count_items(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.tensor(inputs["labels"].numel())

    def summed_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Squared errors summed over points and averaged over loops; predictions (batch, loops, points)."""
        trained = unwrapped(self.model).config.option("loops").num_loops
        loops = {} if model.training else {"num_loops": BEYOND * trained}
        by_loop = model(inputs=inputs["inputs"], **loops).by_loop  # (loops, batch, 2 points, 1)
        predictions = by_loop[:, :, ::2, 0].transpose(0, 1)  # at the positions of x: (batch, loops, points)
        squares = (predictions.float() - inputs["labels"][:, None].float()).square()  # (batch, loops, points)
        counted = squares if model.training else squares[:, trained - 1 : trained]
        return counted.mean(1).sum(), ModelOutput(logits=predictions)
