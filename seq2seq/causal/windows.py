"""Texts as token ids, and the windows in which a model reads them.

    scored     windows of at most w tokens, s apart; each token is scored once, in the first window that has it, so that
               after the first window the context of a token is at least w - s tokens
    trained    disjoint windows at a seeded offset, another one in each epoch

The begin-of-sequence token (its end-of-sequence token where a tokenizer has none) comes before the text, so that its
first token is scored too ("text"), at the start of each window ("window"), or nowhere ("none").

    loss               -sum of log p / number of scored tokens, in nats
    perplexity         exp(loss)
    bits per byte      loss * tokens / bytes / log 2, comparable across tokenizers
    standard error     of the loss, from the spread between windows: tokens within a window are not independent
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset, Sampler

from third_party.trainers import IGNORED_LABEL

Bos = Literal["text", "window", "none"]


@dataclass(frozen=True)
class TokenStream:
    """The token ids of one or more texts, (tokens,), and the number of bytes that the texts have in UTF-8."""

    ids: np.ndarray
    byte_count: int


@dataclass(frozen=True)
class Reading:
    """How windows are made of a stream.

    Args:
        window: the most tokens of a window, the begin-of-sequence token included.
        stride: tokens between the starts of two scored windows; None for windows that share one token.
        bos: where the begin-of-sequence token is.
        bos_token_id: the token.
    """

    window: int
    stride: int | None
    bos: Bos
    bos_token_id: int

    @property
    def content(self) -> int:
        """The tokens of the stream in a window."""
        return self.window - (self.bos == "window")

    @property
    def step(self) -> int:
        """The distance at which each token is in one window as a target, and windows share as little as possible."""
        return self.window - 1

    def spans(self, tokens: int) -> list[tuple[int, int, int]]:
        """Each scored window of a stream: its first token, its end, and the first token that it scores."""
        count = tokens + (self.bos == "text")
        spans, scored = [], 0 if self.bos == "window" else 1
        for begin in range(0, count, self.stride or self.step):
            end = min(begin + self.content, count)
            if end > scored:
                spans.append((begin, end, scored))
                scored = end
            if end == count:
                break
        return spans

    def row(self, stream: TokenStream, begin: int, end: int, scored: int) -> dict[str, list[int]]:
        """A window as ``input_ids``, and ``labels`` that are -100 before the first scored token.

        With the policy "text", index 0 is the begin-of-sequence token.
        """
        shift = self.bos == "text"
        has_bos = self.bos == "window" or (shift and begin == 0)
        content = stream.ids[max(begin - shift, 0) : end - shift].tolist()
        ids = [*([self.bos_token_id] if has_bos else []), *content]
        context = len(ids) - (end - scored)
        return {"input_ids": ids, "labels": [IGNORED_LABEL] * context + ids[context:]}


class ScoredWindows(Dataset):
    """The windows of a stream in which each token is scored once."""

    def __init__(self, stream: TokenStream, reading: Reading) -> None:
        self.stream, self.reading = stream, reading
        self.spans = reading.spans(len(stream.ids))

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.reading.row(self.stream, *self.spans[index])


class TrainedWindows(Dataset):
    """The windows of a stream by their first token, which ``WindowSampler`` chooses."""

    def __init__(self, stream: TokenStream, reading: Reading) -> None:
        self.stream = stream
        self.reading = reading if reading.bos == "window" else Reading(reading.window, None, "none", 0)
        self.count = max(1, (len(stream.ids) - self.reading.content + 1) // reading.step)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, begin: int) -> dict[str, list[int]]:
        end = min(begin + self.reading.content, len(self.stream.ids))
        return self.reading.row(self.stream, begin, end, begin + (self.reading.bos != "window"))


class WindowSampler(Sampler[int]):
    """The first tokens of an epoch's windows in random order.

    They depend on the seed and the number of the epoch only, so that a run can resume within an epoch.
    """

    def __init__(self, windows: TrainedWindows, seed: int) -> None:
        self.windows, self.seed, self.epoch = windows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        step, reading = self.windows.reading.step, self.windows.reading
        room = len(self.windows.stream.ids) - ((len(self) - 1) * step + reading.content)
        offset = generator.integers(0, min(max(room, 0), step - 1) + 1)
        yield from (offset + step * generator.permutation(len(self))).tolist()


def text_metrics(sums: np.ndarray, stream: TokenStream) -> dict[str, float]:
    """The metrics of a text.

    Args:
        sums: (windows, 2 or more), float64: log-likelihood in nats and number of the scored tokens of each window.
        stream: the text.
    """
    log_p, count = sums[:, 0], sums[:, 1]
    loss = -log_p.sum() / count.sum()
    metrics: dict[str, Any] = {
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "bits_per_byte": loss * len(stream.ids) / stream.byte_count / math.log(2),
        "log_likelihood": -loss,
    }
    if len(sums) > 1:  # of a ratio estimator, with the windows as clusters
        deviations = -log_p - loss * count
        spread = (deviations**2).sum() * len(sums) / (len(sums) - 1)
        metrics["standard_error"] = math.sqrt(spread) / count.sum()
    return {name: float(value) for name, value in metrics.items()}
