"""Texts as one stream of token ids, block by block.

Texts are separated by the end-of-sequence token. A text of more than BLOCK characters is encoded in blocks that end
with a line.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from adapters import ConfigurationError
from seq2seq.causal.windows import TokenStream

BLOCK = 2**22
"""Characters that are encoded at once."""


class Block(NamedTuple):
    """Token ids, (tokens,), and the bytes of their text."""

    ids: np.ndarray
    byte_count: int


def stream_of(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, limit: int | None, key: str) -> TokenStream:
    """The token ids of texts.

    Args:
        texts: read one at a time.
        limit: the first tokens that are used; None for all.
        key: what gives the texts, for error messages.

    Raises:
        ConfigurationError: there are fewer than two tokens.
    """
    blocks = [*limited(encoded(texts, tokenizer), tokenizer, limit)]
    ids = np.concatenate([block.ids for block in blocks]) if blocks else np.empty(0)
    if len(ids) < 2:
        raise ConfigurationError(
            f"Key {key!r} names texts of at least 2 tokens together; got {len(ids)}: give longer ones."
        )
    return TokenStream(ids, sum(block.byte_count for block in blocks))


def encoded(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Block]:
    """The token ids of texts, block by block."""
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    for number, text in enumerate(texts):
        if number:
            yield Block(np.array([tokenizer.eos_token_id], dtype), 0)
        for part in blocks_of(text):
            ids = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
            yield Block(np.array(ids, dtype), len(part.encode()))


def blocks_of(text: str) -> Iterator[str]:
    """A text in pieces of at most BLOCK characters that end with a line where there is one."""
    start = 0
    while start < len(text):
        end = start + BLOCK
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def limited(blocks: Iterable[Block], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> Iterator[Block]:
    """The blocks up to a number of tokens; the bytes of the last one are those of the text that its tokens spell."""
    left = limit
    for block in blocks:
        if left is not None and len(block.ids) >= left:
            ids = block.ids[:left]
            text = tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)
            yield Block(ids, len(text.encode()) if block.byte_count else 0)
            return
        yield block
        left = None if left is None else left - len(block.ids)
