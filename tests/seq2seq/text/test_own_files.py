"""Files of one's own: any text to any text."""

import pytest
from datasets import Dataset

from seq2seq.tasks.sources import load_files
from tests.seq2seq.tasks.data_files import jsonl, write

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "json", "parquet"])
def test_own_files_in_every_form(tmp_path, suffix):
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


def test_own_files_may_accept_several_answers(tmp_path):
    path = write(tmp_path / "mine.jsonl", jsonl({"source": "a", "target": "x"}, {"source": "b", "target": ["y", "z"]}))
    assert load_files({"test": path})["test"]["answers"][:] == [["x"], ["y", "z"]]
    assert load_files({"test": path})["test"]["target"][:] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.tsv",
            "input\ttarget\nx\ty\n",
            "need the columns source, target; .*a.tsv has input, target and lacks source",
        ),
        ("a.tsv", "", "a.tsv has none. Give data with rows"),
        ("a.tsv", "source\ttarget\n", "has none"),
        ("a.tsv", "source\ttarget\na\tb\nc\n", "1 rows of .*a.tsv lack one"),
        ("a.tsv", "source\ttarget\na\tb\tc\nd\te\n", "too many cells"),
        ("a.jsonl", '{"source": "a", "target": null}\n{"source": "b", "target": "c"}', "lack one"),
        ("a.jsonl", '{"source": "a", "target": []}\n{"source": "b", "target": "c"}', "lack one"),
        ("a.xlsx", "", "ends in one of"),
        ("a.jsonl", "source", "Mend the file"),
    ],
)
def test_bad_own_files_are_answered_in_a_sentence(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said):
        load_files({"train": write(tmp_path / name, text)})
