"""Texts as token ids, unpadded, for DataCollatorForSeq2Seq, and generated token ids as texts."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from seq2seq.tasks.files import list_rows

logger = logging.getLogger(__name__)


def tokenize(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_source_length: int,
    max_target_length: int,
    name: str = "the split",
) -> tuple[Dataset, dict[str, int]]:
    """Token ids of a split, and the number of its texts that were truncated.

    Args:
        dataset: a split with the columns `source` and `target`, and `row` if warnings shall name rows of the file.
        tokenizer: it ends a text with an end-of-sequence token, which a truncated text keeps.
        max_source_length: limit on the tokens of a source, end of sequence included.
        max_target_length: the same for a target.
        name: what warnings call the split.

    Returns:
        The split's `input_ids` and `labels`, unpadded, and the counts of truncated texts by column,
        {"source": ..., "target": ...}.

    Raises:
        ValueError: a length below 1.
    """
    limits = {"source": max_source_length, "target": max_target_length}
    for text, limit in limits.items():
        if limit < 1:
            raise ValueError(f"A text has at least 1 token; got max_{text}_length = {limit}: raise it.")

    def encode(batch: Mapping[str, list[str]]) -> dict[str, list[Any]]:
        sources = tokenizer(batch["source"], verbose=False)["input_ids"]
        targets = tokenizer(text_target=batch["target"], verbose=False)["input_ids"]
        return {
            "input_ids": [_truncate(ids, max_source_length) for ids in sources],
            "labels": [_truncate(ids, max_target_length) for ids in targets],
            "source": [len(ids) > max_source_length for ids in sources],
            "target": [len(ids) > max_target_length for ids in targets],
        }

    encoded = dataset.map(
        encode, batched=True, remove_columns=dataset.column_names, load_from_cache_file=False, desc="tokenize"
    )
    numbers = np.asarray(dataset["row"] if "row" in dataset.column_names else range(1, len(dataset) + 1))
    too_long = {text: numbers[np.asarray(encoded[text], dtype=bool)] for text in limits}
    for text, limit in limits.items():
        if len(too_long[text]):
            logger.warning(
                "%s: %d of %d %ss are truncated to %d tokens, max_%s_length (%s).",
                name,
                len(too_long[text]),
                len(dataset),
                text,
                limit,
                text,
                list_rows(too_long[text]),
            )
    return encoded.remove_columns(list(limits)), {text: len(rows) for text, rows in too_long.items()}


def decode(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray | Sequence[Sequence[int]]) -> list[str]:
    """Texts of generated token ids, as they are written: rows of unequal lengths, or padded with -100."""
    ids = [np.where(row < 0, tokenizer.pad_token_id, row) for row in map(np.asarray, ids)]
    # clean-up would remove the space of "it 's" and "good ." from answers that have it
    return tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _truncate(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
