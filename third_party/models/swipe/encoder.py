"""From points to the vectors that T5's blocks read, and the stack of these blocks.

points, boxes  ->  features (batch, time, size)  ->  read-in (batch, time, d_model)  ->  T5's encoder
"""

import copy

from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5PreTrainedModel, T5Stack

from adapters.validation import refuse
from third_party.models.swipe.configuration import WHERE, SwipeConfig
from third_party.models.swipe.features import FEATURES


class ReadIn(nn.Module):
    """The features of a trace, mapped to d_model: (batch, time, 2) -> (batch, time, d_model).

    Features have the dtype of the points, float32; the map has that of the model. It is initialised as torch does.
    """

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__()
        self.letters = len(config.alphabet)
        self.features = FEATURES[config.features](config)
        self.linear = nn.Linear(self.features.size, config.d_model)

    def forward(self, points: Tensor, attention_mask: Tensor, boxes: Tensor) -> Tensor:
        """Embed the points; see ``SwipeForCTC``."""
        check_inputs(points, attention_mask, boxes, self.letters)
        return self.linear(self.features(points, attention_mask, boxes).to(self.linear.weight.dtype))


def check_inputs(points: Tensor, attention_mask: Tensor, boxes: Tensor, letters: int) -> None:
    """Refuse inputs whose shapes do not fit each other or the alphabet."""
    batch, time = points.shape[:2]
    for key, value, shape in (
        ("points", points, (batch, time, 2)),
        ("attention_mask", attention_mask, (batch, time)),
        ("boxes", boxes, (batch, letters, 4)),
    ):
        if value.shape != shape:
            refuse(key, f"has the shape {shape}", tuple(value.shape), "see SwipeForCTC.forward", WHERE)


def encoder_stack(config: SwipeConfig) -> T5Stack:
    """The encoder for vectors; the embedding of tokens that each T5 stack owns has one row, unused and frozen."""
    config = copy.deepcopy(config)
    config.is_decoder, config.use_cache, config.vocab_size = False, False, 1
    stack = T5Stack(config)
    stack.embed_tokens.requires_grad_(False)
    return stack


class SwipePreTrainedModel(T5PreTrainedModel):
    """T5's initialisation for T5's modules, torch's for the read-in and the head."""

    config_class = SwipeConfig
    config: SwipeConfig
    main_input_name = "points"

    def _init_weights(self, module: nn.Module) -> None:
        if module in (getattr(self, "head", None), self.read_in.linear):
            module.reset_parameters()
        else:
            super()._init_weights(module)
