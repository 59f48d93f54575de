"""The baseline of a corpus that knows no context: each token by its frequency in the training text."""

import numpy as np

from seq2seq.causal.data import CorpusData
from seq2seq.causal.windows import ScoredWindows, text_metrics
from seq2seq.workload import Prepared
from third_party.trainers import IGNORED_LABEL

PART = 2**22
"""Tokens that are counted at once, as ``bincount`` makes an int64 of each."""


def unigram(prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of p(token) = (count in the training text + 1) / (its tokens + size of the vocabulary)."""
    data: CorpusData = prepared.data
    train, stream = data.streams["train"], data.streams[split]
    size = max(len(data.tokenizer), int(train.ids.max()) + 1, int(stream.ids.max()) + 1)
    parts = (train.ids[start : start + PART] for start in range(0, len(train.ids), PART))
    counts = sum(np.bincount(part, minlength=size) for part in parts) + 1  # (vocabulary,)
    log_p = np.log(counts / counts.sum())
    sums = []
    windows = ScoredWindows(stream, data.reading)
    for index in range(len(windows)):
        labels = np.array(windows[index]["labels"])
        scored = labels[labels != IGNORED_LABEL]
        sums.append((log_p[scored].sum(), len(scored)))
    metrics = text_metrics(np.array(sums), stream)
    return {**metrics, "average_metrics": metrics["log_likelihood"]}
