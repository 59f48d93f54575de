"""T5's encoder with a convolution after each block (after the Conformer of Gulati et al. 2020, arXiv:2005.08100).

    block         self-attention, feed-forward, each x + f(norm(x))               as in T5
    convolution   x + out(silu(norm(depthwise(glu(in(norm(x)))))))                x (batch, time, d_model)

Attention has relative positions and sees a whole trace; the convolution sees ``kernel_size`` frames around each. The
norm inside is over features and not over the batch, so that padding and other rows change nothing; the second half of
the Conformer's feed-forward is left out, so that the block stays T5's and adapters know it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.t5.modeling_t5 import T5Block, T5LayerNorm, T5Stack

from third_party.models.swipe.configuration import SwipeConfig


class Convolution(nn.Module):
    """x (batch, time, d_model) -> x + f(x), which reads ``kernel_size`` frames around each.

    Args:
        config: d_model, kernel_size and dropout_rate.
    """

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__()
        size = config.d_model
        self.layer_norm = T5LayerNorm(size, eps=config.layer_norm_epsilon)
        self.expand = nn.Linear(size, 2 * size)
        self.depthwise = nn.Conv1d(size, size, config.kernel_size, padding="same", groups=size)
        self.inner_norm = T5LayerNorm(size, eps=config.layer_norm_epsilon)
        self.project = nn.Linear(size, size)
        self.dropout = nn.Dropout(config.dropout_rate)

    def reset_parameters(self) -> None:
        """Give the maps torch's initialisation."""
        for layer in (self.expand, self.depthwise, self.project):
            layer.reset_parameters()

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Convolve; ``frames`` (batch, time) is 0 where there is padding, which is read as 0."""
        gated = functional.glu(self.expand(self.layer_norm(x)), -1)
        gated = gated.masked_fill(frames[..., None] == 0, 0)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)  # (batch, time, d_model)
        return x + self.dropout(self.project(functional.silu(self.inner_norm(mixed))))


class ConformerBlock(T5Block):
    """T5's block, and a convolution."""

    def __init__(self, config: SwipeConfig, **options: Any) -> None:
        super().__init__(config, **options)
        self.convolution = Convolution(config)

    def forward(self, hidden_states: Tensor, *args: Any, frames: Tensor, **kwargs: Any) -> tuple[Any, ...]:
        """As T5's block; ``frames`` (batch, time) is 0 where there is padding."""
        hidden_states, *rest = super().forward(hidden_states, *args, **kwargs)
        return self.convolution(hidden_states, frames), *rest


class ConformerStack(T5Stack):
    """T5's encoder of ``ConformerBlock``.

    Args:
        config: that of an encoder.
    """

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__(config)
        blocks = [ConformerBlock(config, has_relative_attention_bias=k == 0) for k in range(config.num_layers)]
        self.block = nn.ModuleList(blocks)
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Be initialised as transformers' own classes: in others, it passes over modules without own Parameters.

        T5's attention is such a module, and sets the deviations of its maps; without it all of them would be 1.
        """
        return False

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Convolution):
            module.reset_parameters()

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, input_ids: None = None, **kwargs: Any
    ) -> Any:
        """As T5's encoder, of vectors (batch, time, d_model)."""
        frames = torch.ones_like(inputs_embeds[..., 0]) if attention_mask is None else attention_mask
        return super().forward(inputs_embeds=inputs_embeds, attention_mask=attention_mask, frames=frames, **kwargs)
