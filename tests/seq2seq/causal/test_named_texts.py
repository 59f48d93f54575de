"""Data sets by name: folders read with ``datasets``, the hub's through a stand-in, and names that nothing has."""

import datasets
import pytest
from datasets import Dataset, DatasetDict

from adapters import ConfigurationError
from seq2seq.causal import named_texts
from seq2seq.causal.corpus import Corpus
from seq2seq.causal.data import load_corpus, load_text, windows_of
from seq2seq.causal.workload import CausalWorkload
from tests.seq2seq.causal_models import byte_tokenizer

ROWS = {"train": ["red", " ", "blue", "green"], "test": ["one", "two words"]}


@pytest.fixture
def stories(tmp_path):
    """A folder of a data set."""
    for split, texts in ROWS.items():
        (tmp_path / "stories" / split).mkdir(parents=True)
        table(texts).to_parquet(tmp_path / "stories" / split / "0.parquet")
    return tmp_path / "stories"


@pytest.fixture
def hub(monkeypatch):
    """What the hub was asked for; it has two splits with the column ``body`` and one without texts."""
    asked = []
    rows = DatasetDict({"train": table(["a", "b"]), "test": table(["c"])})

    def load(*names):
        asked.append(names)
        return rows

    monkeypatch.setattr(named_texts, "load_hub_dataset", load)
    return asked, rows


def table(texts):
    return Dataset.from_dict({"body": texts, "count": list(range(len(texts)))})


def texts(source, split="train", column="body"):
    corpus = Corpus(**{split: source}, column=column)
    corpus.check_files()
    return ["".join(text) for text in corpus.texts(split)]


def refusal_of(source, **options):
    with pytest.raises(ConfigurationError) as refusal:
        texts(source, **options)
    assert "'corpus.train'" in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("suffix", "split", "expected"),
    [
        ("", "train", ["red", "blue", "green"]),
        ("", "test", ["one", "two words"]),
        (":test", "train", ["one", "two words"]),
        (":train[:75%]", "validation", ["red", "blue"]),
        (":train[-1:]", "validation", ["green"]),
        (":test+train[3:]", "train", ["one", "two words", "green"]),
        (":test+train[9:]", "train", ["one", "two words"]),
    ],
)
def test_a_folder_gives_its_splits_and_parts_of_them(stories, suffix, split, expected):
    assert texts(f"dataset:{stories}{suffix}", split) == expected


def test_files_and_data_sets_follow_one_another(stories, tmp_path):
    (tmp_path / "a[1].txt").write_text("first")
    assert texts((str(tmp_path / "a[1].txt"), f"dataset:{stories}:test")) == ["first", "one", "two words"]


def test_a_folder_may_start_at_home(stories, monkeypatch):
    monkeypatch.setenv("HOME", str(stories.parent))
    assert texts("dataset:~/stories", "test") == ["one", "two words"]


def test_text_files_of_a_folder_keep_their_lines(tmp_path):
    (tmp_path / "train.txt").write_text("a\n\nb\n")
    assert texts(f"dataset:{tmp_path}", column="text") == ["a\n\nb\n"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [("o/s", ("o/s", None)), ("o/s/small", ("o/s", "small")), ("squad", ("squad", None))],
)
def test_the_hub_is_asked_for_name_and_configuration(name, asked, hub):
    assert texts(f"dataset:{name}:test") == ["c"]
    assert hub[0] == [asked]


def test_a_configuration_that_is_not_named_is_refused(hub):
    for rows in hub[1].values():
        rows.info.config_name = "small"
    assert "write dataset:o/s/small" in refusal_of("dataset:o/s")
    assert texts("dataset:o/s/small") == ["a", "b"]


def test_lines_of_wikitext_are_one_text(monkeypatch):
    lines = Dataset.from_dict({"text": [" = A = \n", "", " B \n"]})
    monkeypatch.setattr(named_texts, "load_hub_dataset", lambda *names: DatasetDict({"train": lines}))
    assert texts("wiki2") == [" = A = \n B \n"]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("dataset:{}/nowhere", ["a folder that is there", "nowhere"]),
        ("dataset:~nobody/stories", ["a folder that is there", "~nobody"]),
        ("dataset:", ["owner, name and configuration"]),
        ("dataset:a/b/c/d", ["owner, name and configuration", "a/b/c/d"]),
        ("dataset:{}:", ["a split after a second colon"]),
        ("dataset:{}:valid", ["valid", "train"]),
        ("dataset:{}:train[:x]", ["train[:x]"]),
        ("dataset:{}:train[2:2]", ["a split has rows", "train[2:2]"]),
        ("dataset:{}:train[100%:]", ["a split has rows"]),
        ("dataset:{}:train[999:]", ["a split has rows"]),
        ("dataset:{}:train[1:2]", ["has text"]),
    ],
)
def test_a_name_that_no_data_set_has_is_refused(stories, source, parts):
    said = refusal_of(source.format(stories))
    assert all(part in said for part in parts), said


@pytest.mark.parametrize("column", ["text", "count"])
def test_a_column_without_texts_is_refused(stories, column):
    said = refusal_of(f"dataset:{stories}", column=column)
    assert said.endswith(f"the column {column!r}; got none: set corpus.column to one of body.")


def test_rows_that_are_no_texts_are_refused(hub, tmp_path):
    hub[1]["train"] = Dataset.from_dict({"body": ["a", None]})
    assert "got None in row 2" in refusal_of("dataset:o/s")
    (tmp_path / "train.jsonl").write_text('{"body": "a"}\n{"bod')
    assert "JSON" in refusal_of(f"dataset:{tmp_path}")


def test_a_split_decides_what_calibrates_and_what_is_scored(stories, decoder):
    keys = CausalWorkload(model_name_or_path=str(decoder), corpus=Corpus(test="a.txt", column="body"), window=64)
    [calibrating] = windows_of(keys, f"dataset:{stories}", 99)
    assert byte_tokenizer().decode(calibrating[0][:3]) == "red"
    scored = load_text(keys, f"dataset:{stories}", "file").streams["test"].ids
    assert byte_tokenizer().decode(scored[:3].tolist()) == "one"


def test_last_words_are_those_of_a_data_set(stories, decoder):
    source = f"dataset:{stories}"
    corpus = Corpus(test=source, column="body")
    keys = CausalWorkload(model_name_or_path=str(decoder), corpus=corpus, window=64, last_words=f"{source}:test[1:]")
    assert len(load_corpus(keys).last_words) == 1


def test_token_ids_are_made_again_when_the_folder_changes(stories, decoder):
    corpus = Corpus(train=f"dataset:{stories}", column="body")
    keys = CausalWorkload(model_name_or_path=str(decoder), corpus=corpus, window=8)
    first = load_corpus(keys).streams["train"].ids.tolist()
    assert load_corpus(keys).streams["train"].ids.tolist() == first
    table(["another text"]).to_parquet(stories / "train" / "0.parquet")
    assert load_corpus(keys).streams["train"].ids.tolist() != first
    assert (datasets.config.HF_DATASETS_CACHE / "causal_tokens").is_dir()
