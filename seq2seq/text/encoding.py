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
    """Token ids of a split, and how many of its texts were too long.

    Args:
        dataset: a split with the columns `source` and `target`.
        tokenizer: one that ends a text with an end-of-sequence token, which a cut text keeps.
        max_source_length: the most tokens of a source, end of sequence included.
        max_target_length: the same of a target.

    Returns:
        The split's `input_ids` and `labels`, unpadded, and the counts of cut texts, {"source": ..., "target": ...}.

    Raises:
        ValueError: a length below 1.
    """
    limits = {"source": max_source_length, "target": max_target_length}
    for text, limit in limits.items():
        if limit < 1:
            raise ValueError(f"A text has at least 1 token; max_{text}_length = {limit} was given. Raise it.")

    def encode(batch: Mapping[str, list[str]]) -> dict[str, list[Any]]:
        sources = tokenizer(batch["source"], verbose=False)["input_ids"]
        targets = tokenizer(text_target=batch["target"], verbose=False)["input_ids"]
        return {
            "input_ids": [_cut(ids, max_source_length) for ids in sources],
            "labels": [_cut(ids, max_target_length) for ids in targets],
            "source": [len(ids) > max_source_length for ids in sources],
            "target": [len(ids) > max_target_length for ids in targets],
        }

    encoded = dataset.map(
        encode, batched=True, remove_columns=dataset.column_names, load_from_cache_file=False, desc="tokenize"
    )
    too_long = {text: sum(encoded[text]) for text in limits}
    for text, limit in limits.items():
        if too_long[text]:
            logger.warning("%d of %d %ss are cut to %d tokens.", too_long[text], len(dataset), text, limit)
    return encoded.remove_columns(list(limits)), too_long


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
