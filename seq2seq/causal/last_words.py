"""The last word of each text, predicted from all that comes before it (LAMBADA, Paperno et al. 2016, arXiv:1606.06031).

    accuracy      the share of texts in which each token of the last word is the most likely one
    perplexity    exp(-mean over texts of log p(last word)): of words, not of tokens

The texts are read as lm-evaluation-harness does: the last word is what follows the last space, and the space belongs to
it. A text that is longer than the window loses its beginning.
"""

import math
from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedTokenizerBase

from adapters import ConfigurationError
from seq2seq.causal.windows import Reading
from third_party.trainers import IGNORED_LABEL


def last_word_rows(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, reading: Reading, key: str
) -> list[dict[str, list[int]]]:
    """Each text as ``input_ids``, and ``labels`` that are -100 before its last word.

    Args:
        reading: the longest text, and whether the begin-of-sequence token comes first.
        key: what gives the texts, for error messages.

    Raises:
        ConfigurationError: a text has only one word.
    """
    rows = []
    for number, text in enumerate(texts, 1):
        context, space, word = text.strip().rpartition(" ")
        if not space:
            raise ConfigurationError(
                f"Key {key!r} names texts of several words each, the last of which is predicted; got {text!r} as text "
                f"{number}: remove it."
            )
        before, target = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (context, space + word))
        bos = [] if reading.bos == "none" else [reading.bos_token_id]
        room = reading.window - len(bos) - len(target)
        before = [*bos, *before[max(0, len(before) - room) :]]
        rows.append({"input_ids": before + target, "labels": [IGNORED_LABEL] * len(before) + target})
    return rows


def last_word_metrics(sums: np.ndarray) -> dict[str, float]:
    """The metrics of last words.

    Args:
        sums: (texts, 3), float64: log-likelihood, number of tokens and of those that are the most likely.
    """
    loss = -sums[:, 0].mean()
    return {
        "last_word_accuracy": float((sums[:, 2] == sums[:, 1]).mean()),
        "last_word_perplexity": math.exp(loss) if loss < 700 else math.inf,
    }
