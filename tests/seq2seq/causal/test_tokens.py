"""Token ids on disk: the same as in memory, made once, resumed after an interruption, checked when opened."""

import json

import datasets
import numpy as np
import pytest

from adapters import ConfigurationError
from seq2seq.causal import file_texts as files
from seq2seq.causal import tokens
from seq2seq.causal.file_texts import file_texts
from seq2seq.causal.tokens import kept_stream, stream_of
from tests.seq2seq.causal_models import byte_tokenizer

TEXTS = ["a line\nanother line\n", "ü", "the last of\nthree texts"]
JOINED = "a line\nanother line\n|ü|the last of\nthree texts"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tokens, "BLOCK", 8)


def spelled(stream):
    tokenizer = byte_tokenizer()
    return tokenizer.decode(stream.ids.tolist()).replace(tokenizer.eos_token, "|")


def folder():
    (found,) = (path for path in (datasets.config.HF_DATASETS_CACHE / "causal_tokens").iterdir())
    return found


def test_texts_are_joined_by_the_end_and_bytes_are_theirs():
    stream = stream_of(TEXTS, byte_tokenizer(), None, "corpus.train")
    assert spelled(stream) == JOINED
    assert stream.byte_count == len("".join(TEXTS).encode())
    assert stream.ids.dtype == np.uint16


@pytest.mark.parametrize("limit", [2, 7, 8, 9, 20, 21, 22, 24, 26, 99])
def test_a_limit_keeps_the_first_tokens_and_their_bytes(limit):
    whole, part = (stream_of(TEXTS, byte_tokenizer(), count, "corpus.train") for count in (None, limit))
    assert part.ids.tolist() == whole.ids[:limit].tolist()
    assert part.byte_count == len(spelled(part).replace("|", "").encode())
    assert kept_stream(TEXTS, "x", byte_tokenizer(), limit, "corpus.train").ids.tolist() == part.ids.tolist()


def test_an_array_is_made_once_and_mapped():
    first = kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train")
    again = kept_stream(iter(()), "one", byte_tokenizer(), None, "corpus.train")
    assert isinstance(again.ids, np.memmap)
    assert spelled(first) == spelled(again) == JOINED
    assert first.byte_count == again.byte_count
    assert spelled(kept_stream(["other texts"], "two", byte_tokenizer(), None, "corpus.train")) == "other texts"


@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize("read", range(6))
def test_an_interrupted_command_goes_on_where_it_was(read, limit, monkeypatch):
    """Killed at each of the batches, with half a batch written after the last complete one."""
    encode, calls = tokens.encode, []

    def interrupted(batch, tokenizer):
        if len(calls) == read:
            raise KeyboardInterrupt
        calls.append(batch)
        return encode(batch, tokenizer)

    monkeypatch.setattr(tokens, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept_stream(TEXTS * 9, "one", byte_tokenizer(), None if limit is None else 400, "corpus.train")
    with (folder() / "tokens.bin").open("ab") as file:
        file.write(b"half a batch")
    again = []
    monkeypatch.setattr(tokens, "encode", lambda batch, tokenizer: again.append(batch) or encode(batch, tokenizer))
    found = kept_stream(TEXTS * 9, "one", byte_tokenizer(), None if limit is None else 400, "corpus.train")
    expected = stream_of(TEXTS * 9, byte_tokenizer(), None if limit is None else 400, "corpus.train")
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.byte_count == expected.byte_count
    assert not any(batch in again[:1] for batch in calls[:1]) or read == 0
    assert json.loads((folder() / "meta.json").read_text())["tokens"] == len(found.ids)
    assert not (folder() / "progress.json").exists()


@pytest.mark.parametrize("name", ["meta.json", "tokens.bin"])
@pytest.mark.parametrize("damage", [None, b"", b'{"tok', b"[]"], ids=str)
def test_an_array_of_which_a_file_is_damaged_is_refused(name, damage):
    kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train")
    path = folder() / name
    path.unlink() if damage is None else path.write_bytes(damage)
    if (name, damage) == ("meta.json", None):  # as after an interruption
        assert len(kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train").ids)
        return
    with pytest.raises(ConfigurationError, match=r"'corpus.train'.*tokens.bin, wh(ich|ose) .*: delete"):
        kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train")


@pytest.mark.parametrize(
    ("name", "damage"), [("progress.json", b'{"pie'), ("progress.json", b"[]"), ("tokens.bin", b"")]
)
def test_an_interrupted_array_that_is_damaged_is_made_anew(name, damage):
    """Not filled up with zeros."""
    expected = kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train").ids.tolist()
    told = json.loads((folder() / "meta.json").read_text())
    (folder() / "meta.json").unlink()
    (folder() / "progress.json").write_text(json.dumps({**told, "pieces": 1, "tokens": 5, "bytes": 5}))
    (folder() / name).write_bytes(damage)
    assert kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train").ids.tolist() == expected


def test_an_array_that_was_changed_is_refused():
    kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train")
    path = folder() / "tokens.bin"
    path.write_bytes(b"\x01" + path.read_bytes()[1:])
    with pytest.raises(ConfigurationError, match=r"'corpus.train'.*checksum differs: delete"):
        kept_stream(TEXTS, "one", byte_tokenizer(), None, "corpus.train")


def test_a_text_of_one_token_is_refused():
    with pytest.raises(ConfigurationError, match=r"'corpus.test'.*at least 2 tokens together; got 1"):
        stream_of(["a"], byte_tokenizer(), None, "corpus.test")


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfred")
    assert ["".join(text) for text in file_texts(path, "text", "corpus.train")] == ["red"]


@pytest.mark.parametrize("size", [1, 3, 8, 50])
def test_a_text_in_parts_has_the_tokens_of_the_whole(size, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PART", size)
    paths = [tmp_path / f"{number}.txt" for number in range(len(TEXTS))]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_text(text, encoding="utf-8")
    parts = [part for path in paths for text in file_texts(path, "text", "corpus.train") for part in text]
    assert max(map(len, parts)) == min(size, max(map(len, TEXTS)))
    texts = (text for path in paths for text in file_texts(path, "text", "corpus.train"))
    found = stream_of(texts, byte_tokenizer(), None, "corpus.train")
    assert list(tokens.pieces_of(TEXTS)) == list(tokens.pieces_of(map(iter, TEXTS)))
    assert spelled(found) == JOINED
    assert found.byte_count == len("".join(TEXTS).encode())
