"""Texts as one stream of token ids: in memory, or kept as an array on disk that is mapped, not read.

    <datasets' cache>/causal_tokens/<digest>/tokens.bin     token ids, uint16 or uint32
                                             progress.json  {"pieces", "tokens", "bytes"}: how far they are written
                                             meta.json      the same when all are, with their SHA-256

The digest is of the tokenizer, the files with their sizes and times, and the limit. Texts are separated by the
end-of-sequence token and encoded in batches of pieces of at most BLOCK characters, which end with a line; memory holds
one batch. An interrupted command goes on after the last complete batch.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from adapters import ConfigurationError
from adapters.saved.files import replace_file
from seq2seq.causal.file_texts import Text
from seq2seq.causal.windows import TokenStream

logger = logging.getLogger(__name__)

BLOCK = 2**22
"""Characters that are encoded at once."""


class Batch(NamedTuple):
    """Token ids, (tokens,), the bytes of their text, and the number of pieces."""

    ids: np.ndarray
    byte_count: int
    pieces: int


def stream_of(texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, limit: int | None, key: str) -> TokenStream:
    """The token ids of texts, in memory.

    Args:
        texts: read one at a time, and in parts where they come so.
        limit: the first tokens that are used; None for all.
        key: what gives the texts, for error messages.

    Raises:
        ConfigurationError: there are fewer than two tokens.
    """
    found = [*limited(encoded(pieces_of(texts), tokenizer), tokenizer, limit)]
    ids = np.concatenate([batch.ids for batch in found]) if found else np.empty(0)
    return checked(TokenStream(ids, sum(batch.byte_count for batch in found)), key)


def kept_stream(
    texts: Iterable[Text], identity: Any, tokenizer: PreTrainedTokenizerBase, limit: int | None, key: str
) -> TokenStream:
    """The token ids of texts, from the array on disk, which is made if it is not there.

    Args:
        identity: what the texts are, as JSON.
        texts, tokenizer, limit, key: as in ``stream_of``.

    Raises:
        ConfigurationError: there are fewer than two tokens, or the array was changed since.
    """
    directory = Path(datasets.config.HF_DATASETS_CACHE) / "causal_tokens" / digest_of(identity, tokenizer, limit)
    directory.mkdir(parents=True, exist_ok=True)
    tokens, meta = directory / "tokens.bin", directory / "meta.json"
    with FileLock(directory / "lock"):  # another process may be writing it
        if not meta.is_file():
            write_tokens(directory, texts, tokenizer, limit)
        try:
            told = json.loads(meta.read_text())
            problem = None if sha256_of(tokens) == told["sha256"] else "whose checksum differs"
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            problem = f"which or whose {meta.name} cannot be read"
        if problem is not None:
            raise ConfigurationError(
                f"The token ids of {key!r} are as they were written; got {tokens}, {problem}: delete {directory}, and "
                "they are made again."
            )
    size = tokens.stat().st_size
    logger.info("%s: %s tokens, %s MB in %s.", key, f"{told['tokens']:,}", f"{size / 1e6:,.1f}", tokens)
    ids = np.memmap(tokens, dtype_of(tokenizer), mode="r") if size else np.empty(0)
    return checked(TokenStream(ids, told["bytes"]), key)


def checked(stream: TokenStream, key: str) -> TokenStream:
    """Refuse a stream in which nothing can be predicted."""
    if len(stream.ids) < 2:
        raise ConfigurationError(
            f"Key {key!r} names texts of at least 2 tokens together; got {len(stream.ids)}: give longer ones."
        )
    return stream


def write_tokens(directory: Path, texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> None:
    """Write the array of texts, from where an earlier command was interrupted."""
    tokens, progress = directory / "tokens.bin", directory / "progress.json"
    done = earlier_progress(progress, tokens, dtype_of(tokenizer)().itemsize)
    left = None if limit is None else limit - done["tokens"]
    with tokens.open("ab") as file:
        file.truncate(done["tokens"] * dtype_of(tokenizer)().itemsize)
        remaining = islice(pieces_of(texts), done["pieces"], None)
        for batch in limited(encoded(remaining, tokenizer), tokenizer, left):
            file.write(batch.ids.tobytes())
            file.flush()
            os.fsync(file.fileno())
            added = (("pieces", batch.pieces), ("tokens", len(batch.ids)), ("bytes", batch.byte_count))
            done = {name: done[name] + more for name, more in added}
            write_json(progress, done)
    write_json(directory / "meta.json", {**done, "sha256": sha256_of(tokens)})
    progress.unlink(missing_ok=True)


def earlier_progress(progress: Path, tokens: Path, itemsize: int) -> dict[str, int]:
    """How far an interrupted command came; from the start if what it wrote is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
        done = {name: int(json.loads(progress.read_text())[name]) for name in ("pieces", "tokens", "bytes")}
        if tokens.stat().st_size >= done["tokens"] * itemsize:
            return done
    return {"pieces": 0, "tokens": 0, "bytes": 0}


def pieces_of(texts: Iterable[Text]) -> Iterator[str | None]:
    """The texts in pieces, None between two texts."""
    for number, text in enumerate(texts):
        if number:
            yield None
        left = ""
        for part in [text] if isinstance(text, str) else text:
            left += part
            while len(left) > BLOCK:
                end = left.rfind("\n", 0, BLOCK) + 1 or BLOCK
                yield left[:end]
                left = left[end:]
        if left:
            yield left


def encoded(pieces: Iterable[str | None], tokenizer: PreTrainedTokenizerBase) -> Iterator[Batch]:
    """Pieces as token ids, about BLOCK characters at a time."""
    batch: list[str | None] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece or "")
        if characters >= BLOCK:
            yield encode(batch, tokenizer)
            batch, characters = [], 0
    if batch:
        yield encode(batch, tokenizer)


def encode(batch: Sequence[str | None], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """The token ids of a batch of pieces, which has at least one text."""
    texts = [piece for piece in batch if piece is not None]
    found = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else [])
    parts = [[tokenizer.eos_token_id] if piece is None else next(found) for piece in batch]
    ids = np.concatenate([np.array(part, dtype_of(tokenizer)) for part in parts])
    return Batch(ids, sum(len(text.encode()) for text in texts), len(batch))


def limited(batches: Iterable[Batch], tokenizer: PreTrainedTokenizerBase, limit: int | None) -> Iterator[Batch]:
    """The batches up to a number of tokens; the bytes of a cut one are those of the text that its tokens spell."""
    left = limit
    for batch in batches:
        if left is not None and len(batch.ids) >= left:
            if left > 0:
                ids = batch.ids[:left]
                text = tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
                yield Batch(ids, len(text.encode()), batch.pieces)
            return
        yield batch
        left = None if left is None else left - len(batch.ids)


def dtype_of(tokenizer: PreTrainedTokenizerBase) -> type[np.unsignedinteger]:
    """The smallest type of numpy that holds every token."""
    return np.uint16 if len(tokenizer) <= 2**16 else np.uint32


def digest_of(identity: Any, tokenizer: PreTrainedTokenizerBase, limit: int | None) -> str:
    """A name for the token ids of these texts by this tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    described = json.dumps([identity, vocabulary, tokenizer.eos_token_id, limit], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:32]


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all."""
    text = json.dumps(value) + "\n"
    replace_file(path, lambda partial: partial.write_text(text))
