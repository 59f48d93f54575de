"""Data sets by name: a folder read with ``datasets``, the hub's through a stand-in, and names that nothing has."""

import datasets
import pytest

from adapters import ConfigurationError
from seq2seq.causal import named_texts
from seq2seq.causal.corpus import Corpus
from seq2seq.causal.data import load_corpus
from seq2seq.causal.workload import CausalWorkload

ROWS = {"train": ["red", "", "blue", "green"], "test": ["one", "two"]}


@pytest.fixture
def stories(tmp_path):
    """A folder of a data set."""
    for split, texts in ROWS.items():
        (tmp_path / "stories" / split).mkdir(parents=True)
        rows = datasets.Dataset.from_dict({"body": texts, "count": list(range(len(texts)))})
        rows.to_parquet(tmp_path / "stories" / split / "0.parquet")
    return tmp_path / "stories"


def texts(source, split="train", column="body"):
    corpus = Corpus(**{split: source}, column=column)
    corpus.check_files()
    return ["".join(text) for text in corpus.texts(split)]


@pytest.mark.parametrize(
    ("suffix", "split", "expected"),
    [
        ("", "train", ["red", "blue", "green"]),
        ("", "test", ["one", "two"]),
        (":test", "train", ["one", "two"]),
        (":train[:75%]", "validation", ["red", "blue"]),
        (":train[-1:]", "validation", ["green"]),
    ],
)
def test_a_folder_gives_its_splits_and_parts_of_them(stories, suffix, split, expected):
    assert texts(f"dataset:{stories}{suffix}", split) == expected


def test_files_and_data_sets_follow_one_another(stories, tmp_path):
    (tmp_path / "a.txt").write_text("first")
    assert texts((str(tmp_path / "a.txt"), f"dataset:{stories}:test")) == ["first", "one", "two"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("o/stories", ("o/stories", None, "train")),
        ("o/stories/small:test[:1%]", ("o/stories", "small", "test[:1%]")),
        ("stories", ("stories", None, "train")),
    ],
)
def test_the_hub_is_asked_for_one_split(name, asked, monkeypatch):
    calls = []

    def load(*given):
        calls.append(given)
        return datasets.Dataset.from_dict({"body": ["a", "b"]})

    monkeypatch.setattr(named_texts, "load_hub_dataset", load)
    assert texts(f"dataset:{name}") == ["a", "b"]
    assert calls == [asked]


def test_lines_of_wikitext_are_one_text(monkeypatch):
    lines = datasets.Dataset.from_dict({"text": [" = A = \n", "", " B \n"]})
    monkeypatch.setattr(named_texts, "load_hub_dataset", lambda *given: lines)
    assert texts("wiki2") == [" = A = \n B \n"]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("dataset:{}/nowhere", ["a folder that is there", "nowhere"]),
        ("dataset:", ["owner, name and configuration"]),
        ("dataset:a/b/c/d", ["owner, name and configuration", "a/b/c/d"]),
        ("dataset:{}:valid", ["valid", "train"]),
        ("dataset:{}:train[:x]", ["train[:x]"]),
    ],
)
def test_a_name_that_no_data_set_has_is_refused(stories, source, parts):
    with pytest.raises(ConfigurationError) as refusal:
        texts(source.format(stories))
    assert all(part in str(refusal.value) for part in ["'corpus.train'", *parts]), refusal.value


@pytest.mark.parametrize("column", ["text", "count"])
def test_a_column_without_texts_is_refused(stories, column):
    with pytest.raises(ConfigurationError, match=f"the column '{column}'; got none: set corpus.column to one of body"):
        texts(f"dataset:{stories}", column=column)


def test_token_ids_are_made_again_when_the_folder_changes(stories, decoder):
    keys = CausalWorkload(
        model_name_or_path=str(decoder), corpus=Corpus(train=f"dataset:{stories}", column="body"), window=8
    )
    first = load_corpus(keys).streams["train"].ids.tolist()
    assert load_corpus(keys).streams["train"].ids.tolist() == first
    datasets.Dataset.from_dict({"body": ["another text"], "count": [0]}).to_parquet(stories / "train" / "0.parquet")
    assert load_corpus(keys).streams["train"].ids.tolist() != first
