"""SwipeForCTC: an encoder whose every frame names a letter or nothing (Graves et al. 2006, CTC).

    log p(word | trace) = log sum over alignments of prod over frames of p(class | frame)

An alignment gives each frame a class, the blank or a letter of the word in order; a letter may last several frames, and
a blank separates two equal ones. A word of n letters, r of which equal the one before, needs at least n + r frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from adapters.validation import refuse
from third_party.models.swipe.configuration import BLANK, FIRST_LETTER, IGNORED, WHERE, SwipeConfig
from third_party.models.swipe.encoder import ReadIn, SwipePreTrainedModel, encoder_stack


@dataclass
class SwipeCTCOutput(ModelOutput):
    """What the model returns.

    Args:
        loss: the mean of -log p(word | trace) over all rows, in nats; rows that cannot be aligned count as 0.
        logits: (batch, time, 1 + letters); those behind the end of a trace mean nothing.
        unaligned: how many rows have fewer frames than their word needs, int64; they have no gradient.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    unaligned: Tensor | None = None


class SwipeForCTC(SwipePreTrainedModel):
    """T5's encoder on the points of a trace, and a linear head over the blank and the letters.

    Args:
        config: its features and sizes; those of a decoder are unused.
    """

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__(config)
        self.read_in = ReadIn(config)
        self.encoder = encoder_stack(config)
        self.head = nn.Linear(config.d_model, FIRST_LETTER + len(config.alphabet))
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.head

    def forward(
        self, points: Tensor, attention_mask: Tensor, boxes: Tensor, labels: Tensor | None = None
    ) -> SwipeCTCOutput:
        """Logits of each frame, and with labels the loss.

        Args:
            points: (batch, time, 2) float32, x and y in key widths, at ``config.rate`` points per second.
            attention_mask: (batch, time) int64, 1 up to the end of a trace and 0 behind it.
            boxes: (batch, letters, 4) float32, of the key of each letter: x and y of the centre, width and height, in
                key widths; (1e3, 1e3, 1, 1) for a letter without a key.
            labels: (batch, longest) int64, 1 + letter, padded with -100.

        Raises:
            ConfigurationError: a shape does not fit the others or the alphabet, or a label is not a letter.
        """
        vectors = self.read_in(points, attention_mask, boxes)  # (batch, time, d_model)
        states = self.encoder(inputs_embeds=vectors, attention_mask=attention_mask).last_hidden_state
        logits = self.head(states[:, -points.shape[1] :])  # adapters may prepend states
        if labels is None:
            return SwipeCTCOutput(logits=logits)
        loss, unaligned = ctc_loss(logits, attention_mask.sum(1), labels)
        return SwipeCTCOutput(loss, logits, unaligned)


@torch.compiler.disable  # torch's ctc_loss reads the values of lengths
def ctc_loss(logits: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over rows of -log p(word | trace), in float32 or wider, and how many rows could not be aligned.

    Args:
        logits: (batch, time, classes).
        lengths: frames of each row, (batch,) int64.
        labels: (batch, longest) int64, padded with -100.
    """
    check_labels(labels, len(logits), logits.shape[-1] - FIRST_LETTER)
    valid = labels != IGNORED
    repeats = (labels[:, 1:] == labels[:, :-1]) & valid[:, 1:]
    count = valid.sum(1)
    unaligned = (lengths < count + repeats.sum(1)).sum()
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).transpose(0, 1)
    rows = functional.ctc_loss(
        log_probs, labels.clamp(min=0), lengths, count, BLANK, reduction="none", zero_infinity=True
    )
    return rows.mean(), unaligned


def check_labels(labels: Tensor, rows: int, letters: int) -> None:
    """Refuse labels that are no letters."""
    if labels.dim() != 2 or len(labels) != rows:
        refuse("labels", f"has the shape ({rows}, longest)", tuple(labels.shape), "pad words with -100", WHERE)
    wrong = (labels != IGNORED) & ((labels < FIRST_LETTER) | (labels > letters))
    if wrong.any():
        refuse("labels", f"are 1 to {letters}, or -100", labels[wrong].unique().tolist(), "write 1 + letter", WHERE)
