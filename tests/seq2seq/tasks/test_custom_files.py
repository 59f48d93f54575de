"""User-defined files with the columns source and target."""

import pytest
from datasets import Dataset

from seq2seq.tasks.sources import load_files
from tests.seq2seq.tasks.data_files import jsonl, write

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "json", "parquet"])
def test_custom_files_in_every_format(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    rows = Dataset.from_dict({"source": ["a b", "c"], "target": ["x", "y z"], "more": ["1", "2"]})
    if suffix == "parquet":
        rows.to_parquet(path)
    elif suffix in ("json", "jsonl"):
        rows.to_json(path, lines=suffix == "jsonl")
    else:
        rows.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    splits = load_files({"train": path, "validation": str(path)})
    assert list(splits) == ["train", "validation"]
    assert splits["validation"].to_list() == [{"source": "a b", "target": "x"}, {"source": "c", "target": "y z"}]


def test_custom_files_may_list_several_accepted_answers(tmp_path):
    path = write(tmp_path / "mine.jsonl", jsonl({"source": "a", "target": "x"}, {"source": "b", "target": ["y", "z"]}))
    assert load_files({"test": path})["test"]["answers"][:] == [["x"], ["y", "z"]]
    assert load_files({"test": path})["test"]["target"][:] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.tsv",
            "input\ttarget\nx\ty\n",
            "need the columns source, target; got input, target in .*a.tsv, without source",
        ),
        ("a.tsv", "", "got none in .*a.tsv: add rows"),
        ("a.tsv", "source\ttarget\n", "got none"),
        ("a.tsv", "source\ttarget\na\tb\nc\n", "1 rows in .*a.tsv that lack one"),
        ("a.tsv", "source\ttarget\na\tb\tc\nd\te\n", "too many cells"),
        ("a.jsonl", '{"source": "a", "target": null}\n{"source": "b", "target": "c"}', "lack one"),
        ("a.jsonl", '{"source": "a", "target": []}\n{"source": "b", "target": "c"}', "lack one"),
        ("a.xlsx", "", "one of the suffixes"),
        ("a.jsonl", "source", "fix the file"),
    ],
)
def test_invalid_custom_files_raise_an_error(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        load_files({"train": write(tmp_path / name, text)})
