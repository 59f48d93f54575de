"""SwipeForConditionalGeneration: T5 that reads the points of a trace and writes its word letter by letter.

log p(word | trace) = sum over tokens of log p(token | tokens before, trace), the last one the end of the word
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from adapters.validation import refuse
from third_party.models.swipe.configuration import END, IGNORED, PAD, WHERE, SwipeConfig
from third_party.models.swipe.encoder import ReadIn, SwipePreTrainedModel, encoder_stack

MAX_NEW_TOKENS = 33
"""Letters and the end of a word that ``generate`` writes at most."""


class SwipeForConditionalGeneration(SwipePreTrainedModel, T5ForConditionalGeneration):
    """transformers' T5 with a read-in of points in the place of its encoder's embedding.

    Args:
        config: its features and sizes.
    """

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__(config)
        self.read_in = ReadIn(config)
        if config.encoder != "transformer":
            self.encoder = encoder_stack(config)
        self.post_init()

    def encode(self, points: Tensor, attention_mask: Tensor, boxes: Tensor) -> BaseModelOutput:
        """The encoder's states of traces; arguments as of ``SwipeForCTC``."""
        vectors = self.read_in(points, attention_mask, boxes)  # (batch, time, d_model)
        return self.encoder(inputs_embeds=vectors, attention_mask=attention_mask)

    def decode(self, states: Tensor, attention_mask: Tensor, tokens: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of the token after each of ``tokens``.

        Args:
            states: of the encoder, (batch, time, d_model).
            attention_mask: (batch, time), 0 where the states are of padding.
            tokens: (batch, length) int64, which begin with 0.
        """
        encoded = BaseModelOutput(last_hidden_state=states)
        return self(
            attention_mask=attention_mask, encoder_outputs=encoded, decoder_input_ids=tokens, use_cache=False
        ).logits

    def forward(
        self,
        points: Tensor | None = None,
        attention_mask: Tensor | None = None,
        boxes: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        **options: Any,
    ) -> Seq2SeqLMOutput:
        """Logits of each token, and with labels the loss: the mean over rows of -log p(word | trace), in nats.

        Args:
            points, attention_mask, boxes: as of ``SwipeForCTC``; points and boxes are unread with ``encoder_outputs``.
            labels: (batch, longest) int64, 2 + letter, then 1 for the end, padded with -100.
            decoder_input_ids: the tokens before each prediction; by default the labels, shifted.
            encoder_outputs: what ``encode`` returned.
            options: of T5's decoder, such as ``past_key_values`` and ``use_cache``.

        Raises:
            ConfigurationError: a shape does not fit the others or the alphabet, or a label is not a token.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encode(points, attention_mask, boxes)
        if labels is not None:
            check_labels(labels, len(encoder_outputs.last_hidden_state), self.config.vocab_size)
            decoder_input_ids = self._shift_right(labels) if decoder_input_ids is None else decoder_input_ids
        output = super().forward(
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=encoder_outputs,
            **options,
        )
        if labels is not None:
            by_token = output.logits.flatten(0, 1).to(torch.promote_types(output.logits.dtype, torch.float32))
            output.loss = functional.cross_entropy(by_token, labels.flatten(), reduction="sum") / len(labels)
        return output

    @torch.no_grad()
    def generate(
        self,
        points: Tensor,
        attention_mask: Tensor,
        boxes: Tensor,
        max_new_tokens: int = MAX_NEW_TOKENS,
        **options: Any,
    ) -> Any:
        """Words as tokens (batch, length) int64, from the start token 0 on; the traces are encoded once.

        A word ends before its first 1; what follows (0 or 1) is padding.

        Args:
            points, attention_mask, boxes: as of ``SwipeForCTC``.
            max_new_tokens: letters and the end of a word at most.
            options: of transformers' ``generate``, such as ``num_beams`` and ``logits_processor``. Padding is not
                written inside a word unless they say so.
        """
        encoded = self.encode(points, attention_mask, boxes)
        options = {"suppress_tokens": [PAD], **options}
        return super().generate(
            encoder_outputs=encoded, attention_mask=attention_mask, max_new_tokens=max_new_tokens, **options
        )


def check_labels(labels: Tensor, rows: int, tokens: int) -> None:
    """Refuse labels that are no tokens; their values are not read in a compiled graph."""
    if labels.dim() != 2 or len(labels) != rows:
        refuse("labels", f"has the shape ({rows}, longest)", tuple(labels.shape), "pad words with -100", WHERE)
    wrong = (labels != IGNORED) & ((labels < END) | (labels >= tokens))
    if not torch.compiler.is_compiling() and wrong.any():
        given = labels[wrong].unique().tolist()
        refuse("labels", f"are 1 to {tokens - 1}, or -100", given, "write 2 + letter, and 1 for the end", WHERE)
