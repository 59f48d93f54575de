"""prompt: trainable vectors before the encoder's input (Lester et al. 2021, arXiv:2104.08691, section 2).

    X (batch, length, d_model)  ->  [P; X] (batch, n + length, d_model)        P (n, d_model), the same for every row

The padding masks of the encoder and of the cross-attention are extended by n ones, and the encoder's output is n
positions longer. Pad texts on the right, as T5 does: positions are relative, and the prompt comes before the text.

Step 0 differs from the base model, because the input does. A prompt changes no weight, so it cannot be merged.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from adapters.configuration import AdapterConfig

SPECIAL_PIECES = 3
"""Padding, end of sequence and unknown, the first entries of T5's vocabulary."""
COMMON_PIECES = 5_000
"""The paper draws from the first 5,000 pieces after them, which are sorted by frequency (section 3.2)."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig(AdapterConfig, kind="prompt"):
    """Trainable vectors before the input of the encoder.

    Args:
        stacks: the encoder; prompts in the decoder are not supported.
        num_tokens: n above.
        init: "vocabulary" copies the embeddings of n of the 5,000 most common pieces, drawn with torch's seed, without
            replacement if there are enough; "random" draws uniformly from [-0.5, 0.5]. Both as in section 3.2 of the
            paper.
    """

    position = "before"

    stacks: tuple[Literal["encoder"], ...] = ("encoder",)
    num_tokens: int = 100
    init: Literal["vocabulary", "random"] = "vocabulary"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            rule = "is not supported, as a prompt comes before the first layer"
            self.refuse("layers", rule, list(self.layers), "leave it out")
        self.check_positive("num_tokens", "100")

    def build(self, embedding: Tensor) -> "Prompt":
        if self.init == "vocabulary" and len(embedding) <= SPECIAL_PIECES:
            given = f"an encoder with {len(embedding)} embeddings"
            self.refuse("init", "copies the embeddings of a vocabulary", given, 'write "random"')
        prompt = Prompt(self.num_tokens, embedding.shape[1], self.init == "vocabulary")
        prompt.start_from(embedding)
        return prompt


class Prompt(nn.Module):
    """x (batch, length, d_model) -> [P; x] (batch, n + length, d_model) in the dtype of x; P is float32."""

    is_linear = False
    not_linear_because = "lengthens the input and does not change a weight"

    def __init__(self, num_tokens: int, d_model: int, from_vocabulary: bool) -> None:
        super().__init__()
        self.from_vocabulary = from_vocabulary
        self.embeddings = nn.Parameter(torch.empty(num_tokens, d_model, dtype=torch.float32))

    @torch.no_grad()
    def start_from(self, embedding: Tensor) -> None:
        """Set P to rows of ``embedding`` (vocabulary, d_model), or to random values."""
        if embedding.is_meta:
            return
        if not self.from_vocabulary:
            nn.init.uniform_(self.embeddings, -0.5, 0.5)
            return
        common = embedding[SPECIAL_PIECES:][:COMMON_PIECES]
        equal = torch.ones(len(common), device="cpu")
        drawn = torch.multinomial(equal, len(self.embeddings), replacement=len(common) < len(self.embeddings))
        self.embeddings.copy_(common[drawn.to(common.device)])

    def forward(self, x: Tensor) -> Tensor:
        prompt = self.embeddings.to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([prompt, x], dim=1)

    def extra_repr(self) -> str:
        return f"{len(self.embeddings)} tokens, {self.embeddings.shape[1]} features"
