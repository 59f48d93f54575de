"""From points to the vectors that T5's blocks read, and the stack of these blocks.

points, boxes  ->  features (batch, time, size)  ->  read-in (batch, time, d_model)  ->  T5's encoder
"""

import copy

from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5PreTrainedModel, T5Stack

from adapters.validation import refuse
from third_party.models.swipe.configuration import WHERE, SwipeConfig
from third_party.models.swipe.conformer import ConformerStack
from third_party.models.swipe.features import FEATURES

STACKS = {"transformer": T5Stack, "conformer": ConformerStack}


class ReadIn(nn.Module):
    """The features of a trace, mapped to d_model: (batch, time, 2) -> (batch, time, d_model).

    Features are computed in the dtype of the points, float32; the map has that of the model.
    """

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__()
        self.letters = len(config.alphabet)
        self.features = FEATURES[config.features](self.letters, config.rate)
        self.linear = nn.Linear(self.features.size, config.d_model)

    def forward(self, points: Tensor, attention_mask: Tensor, boxes: Tensor) -> Tensor:
        """Embed the points; see ``SwipeForCTC``."""
        check_inputs(points, attention_mask, boxes, self.letters)
        return self.linear(self.features(points, attention_mask, boxes).to(self.linear.weight.dtype))


def check_inputs(points: Tensor | None, attention_mask: Tensor | None, boxes: Tensor | None, letters: int) -> None:
    """Refuse inputs whose shapes do not fit each other or the alphabet."""
    if points is None or points.dim() != 3:
        given = None if points is None else tuple(points.shape)
        refuse("points", "has the shape (batch, time, 2)", given, "pad traces to one length", WHERE)
    batch, time = points.shape[:2]
    for key, value, shape, fix in (
        ("points", points, (batch, time, 2), "give x and y of each point"),
        ("attention_mask", attention_mask, (batch, time), "write 1 for each point and 0 for padding"),
        ("boxes", boxes, (batch, letters, 4), "give x, y, width and height of the key of each letter of the alphabet"),
    ):
        if value is None or value.shape != shape:
            given = None if value is None else tuple(value.shape)
            refuse(key, f"has the shape {shape}", given, fix, WHERE)


def encoder_stack(config: SwipeConfig) -> T5Stack:
    """The encoder for vectors; the embedding of tokens that each T5 stack owns has one row, unused and frozen."""
    config = copy.deepcopy(config)
    config.is_decoder, config.use_cache, config.vocab_size = False, False, 1
    stack = STACKS[config.encoder](config)
    stack.embed_tokens.requires_grad_(False)
    return stack


class SwipePreTrainedModel(T5PreTrainedModel):
    """T5's initialisation for T5's modules, torch's for those that T5 lacks."""

    config_class = SwipeConfig
    config: SwipeConfig
    main_input_name = "points"

    def _init_weights(self, module: nn.Module) -> None:
        if module in (getattr(self, "head", None), getattr(getattr(self, "read_in", None), "linear", None)):
            module.reset_parameters()
        else:
            super()._init_weights(module)
