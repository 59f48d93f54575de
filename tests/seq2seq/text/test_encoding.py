"""From texts to token ids, by a small tokenizer and by that of T5."""

import pytest
import sentencepiece
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, T5Tokenizer

from seq2seq.text.encoding import tokenize
from tests.seq2seq.tasks.data_files import REAL


@pytest.fixture(scope="module", params=["small", "genuine"])
def tokenizer(request, tmp_path_factory):
    """A sentencepiece tokenizer of 31 pieces, and T5's own."""
    if request.param == "genuine":
        if not REAL.is_dir():
            pytest.skip("the T5 vocabulary is not on this machine")
        return T5Tokenizer.from_pretrained(REAL / "tokenizers" / "t5_32k")
    folder = tmp_path_factory.mktemp("tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["One two three four five six seven.", "yes, no, not at all, by no means"]),
        model_prefix=str(folder / "spiece"),
        vocab_size=31,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return T5Tokenizer.from_pretrained(folder)


def test_token_ids_end_with_end_of_sequence_and_truncations_are_counted(tokenizer, caplog):
    texts = ["One.", "One two three four five six seven.", "One two three four five."]
    split = Dataset.from_dict({"source": texts, "target": ["yes", "no", "not at all, by no means"]})
    targets = split["target"][:]
    lengths = sorted(len(ids) for ids in tokenizer(texts)["input_ids"])
    assert lengths[1] < lengths[2]
    tokenized, too_long = tokenize(split, tokenizer, max_source_length=lengths[1], max_target_length=3)
    assert tokenized["input_ids"][:] == tokenizer(texts, truncation=True, max_length=lengths[1])["input_ids"]
    assert tokenized["labels"][:] == tokenizer(targets, truncation=True, max_length=3)["input_ids"]
    assert all(ids[-1] == tokenizer.eos_token_id for column in tokenized.to_dict().values() for ids in column)
    assert too_long == {"source": 1, "target": sum(len(ids) > 3 for ids in tokenizer(targets)["input_ids"])}
    assert f"1 of 3 sources are truncated to {lengths[1]} tokens" in caplog.text


def test_token_ids_suit_transformers_collator(tokenizer):
    split = Dataset.from_dict({"source": ["One two three.", "One."], "target": ["yes", "not at all"]})
    tokenized, too_long = tokenize(split, tokenizer, 128, 16)
    batch = DataCollatorForSeq2Seq(tokenizer)(tokenized.to_list())
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids in tokenized["input_ids"]]
    assert (batch["labels"] != -100).sum(1).tolist() == [len(ids) for ids in tokenized["labels"]]
    assert tokenizer.decode(batch["labels"][1], skip_special_tokens=True) == "not at all"
    assert too_long == {"source": 0, "target": 0}


@pytest.mark.parametrize(("lengths", "said"), [((0, 8), "max_source_length = 0"), ((8, -1), "max_target_length = -1")])
def test_a_text_has_room_for_a_token(tokenizer, lengths, said):
    with pytest.raises(ValueError, match=said):
        tokenize(Dataset.from_dict({"source": ["One"], "target": ["two"]}), tokenizer, *lengths)
