"""Rows as token ids: where the answer begins, which tokens it has, how a long source is cut."""

import numpy as np
import pytest
from datasets import Dataset

from adapters import ConfigurationError
from seq2seq.causal.encoding import Encoder, prompt_of
from tests.seq2seq.causal_models import CHAT, END, byte_tokenizer


def encoder(template=None, source=100, target=20, **options):
    return Encoder(byte_tokenizer(pad_token=END, **options), template, source, target)


def rows(*pairs):
    return Dataset.from_list([{"source": source, "target": target} for source, target in pairs])


@pytest.mark.parametrize(
    ("template", "options", "prompt", "answer"),
    [
        (None, {}, "red ?\nAnswer:", " yes"),
        ("{source} => {target}", {}, "red ? =>", " yes"),
        ("Q: {source}\nA:  {target}", {}, "Q: red ?\nA:", "  yes"),
        ("{source}|{target}", {}, "red ?|", "yes"),
        (None, {"chat_template": CHAT}, "<user>red ?<assistant>", "yes"),
        ("{source}|{target}", {"chat_template": CHAT}, "red ?|", "yes"),
    ],
)
def test_a_row_is_a_prompt_and_an_answer_with_its_end(template, options, prompt, answer):
    one = encoder(template, **options)
    (row,) = one.rows(rows(("red ?", "yes")))
    tokens = row["input_ids"]
    assert one.tokenizer.decode(prompt_of(row)) == prompt
    assert one.tokenizer.decode(tokens[len(prompt_of(row)) :]) == answer + END
    assert row["labels"] == [-100] * len(prompt) + tokens[len(prompt) :]


def test_braces_in_a_source_are_text():
    (row,) = encoder().rows(rows(("{target} {source} {}", "a")))
    assert encoder().tokenizer.decode(prompt_of(row)) == "{target} {source} {}\nAnswer:"


@pytest.mark.parametrize("options", [{}, {"chat_template": CHAT}], ids=["plain", "chat"])
def test_a_long_source_is_cut_and_its_template_is_whole(options, caplog):
    one = encoder(source=25, **options)
    row, other = one.rows(rows(("a" * 40 + "b" * 40, "yes"), ("short", "no")), "the test")
    text = one.tokenizer.decode(prompt_of(row))
    whole = one.prompt_text("")
    assert len(prompt_of(row)) == 25
    assert text.replace("a", "") == whole.replace("a", "")
    assert one.tokenizer.decode(prompt_of(other)) == one.prompt_text("short")
    assert "the test: 1 of 2 sources" in caplog.text


def test_a_template_that_is_longer_than_the_prompt_is_refused():
    with pytest.raises(ConfigurationError, match=r"'max_source_length'.*the template alone has 8"):
        encoder(source=5).rows(rows(("a long one", "yes")))


def test_a_long_answer_is_cut_and_keeps_its_end():
    one = encoder(target=4)
    assert one.tokenizer.decode(one.answer("abcdef")) == " ab" + END


def test_continuations_are_read_up_to_their_end():
    one = encoder()
    ids = [one.answer("not so"), one.answer("ü")]
    padded = np.array([row + [-100] * (9 - len(row)) for row in ids])
    assert one.decode(padded) == ["not so", "ü"]
