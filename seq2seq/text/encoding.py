"""Texts as token ids, unpadded, for DataCollatorForSeq2Seq."""

import logging
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def tokenize(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_source_length: int, max_target_length: int
) -> tuple[Dataset, dict[str, int]]:
    """Token ids of a split, and the number of its texts that were truncated.

    Args:
        dataset: a split with the columns `source` and `target`.
        tokenizer: it ends a text with an end-of-sequence token, which a truncated text keeps.
        max_source_length: limit on the tokens of a source, end of sequence included.
        max_target_length: the same for a target.

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
    too_long = {text: sum(encoded[text]) for text in limits}
    for text, limit in limits.items():
        if too_long[text]:
            logger.warning("%d of %d %ss are truncated to %d tokens.", too_long[text], len(dataset), text, limit)
    return encoded.remove_columns(list(limits)), too_long


def _truncate(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
