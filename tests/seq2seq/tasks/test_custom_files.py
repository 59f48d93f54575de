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
    assert splits["validation"].to_list() == [
        {"source": "a b", "target": "x", "row": 1},
        {"source": "c", "target": "y z", "row": 2},
    ]


def test_custom_files_may_list_several_accepted_answers(tmp_path):
    path = write(tmp_path / "mine.jsonl", jsonl({"source": "a", "target": "x"}, {"source": "b", "target": ["y", "z"]}))
    assert load_files({"test": path})["test"]["answers"][:] == [["x"], ["y", "z"]]
    assert load_files({"test": path})["test"]["target"][:] == ["x", "y"]


@pytest.mark.parametrize(
    ("cell", "text"), [(True, "true"), (False, "false"), (3, "3"), (0.5, "0.5"), ("true", "true"), ("NaN", "NaN")]
)
def test_a_cell_becomes_the_text_of_json(tmp_path, cell, text):
    path = write(tmp_path / "mine.jsonl", jsonl({"source": cell, "target": cell}, {"source": "a", "target": [cell]}))
    rows = load_files({"train": path})["train"]
    assert (rows["source"][0], rows["target"][:], rows["answers"][1]) == (text, [text, text], [text])


@pytest.mark.parametrize("column", ["source", "target"])
@pytest.mark.parametrize("cell", ["null", "NaN", "[]"])
def test_a_missing_cell_is_counted(tmp_path, column, cell):
    row = {"source": '"a"', "target": '"b"', column: cell}
    text = f'{{"source": {row["source"]}, "target": {row["target"]}}}\n{{"source": "c", "target": "d"}}\n'
    with pytest.raises(ValueError, match=r"1 rows in .*mine\.jsonl that lack one"):
        load_files({"train": write(tmp_path / "mine.jsonl", text)})


def test_nan_in_parquet_is_a_missing_cell(tmp_path):
    Dataset.from_dict({"source": ["a", "b"], "target": [1.5, float("nan")]}).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match=r"1 rows in .*mine\.parquet that lack one"):
        load_files({"train": tmp_path / "mine.parquet"})


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("target", '[null, "y"]'),
        ("target", "Infinity"),
        ("source", "-Infinity"),
        ("target", "1e400"),
        ("target", '[NaN, "y"]'),
        ("target", '["x", ["y"]]'),
        ("target", '{"text": "y"}'),
        ("source", '["a", "b"]'),
        ("source", '{"text": "a"}'),
    ],
)
def test_a_cell_that_is_no_text_is_refused_with_its_row(tmp_path, column, cell):
    row = {"source": '"a"', "target": '"b"', column: cell}
    text = f'{{"source": "c", "target": "d"}}\n{{"source": {row["source"]}, "target": {row["target"]}}}\n'
    with pytest.raises(ValueError, match=r"A cell holds text.* in row 2 of .*mine\.jsonl: write it as text"):
        load_files({"train": write(tmp_path / "mine.jsonl", text)})


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


def test_empty_texts_are_named_by_their_rows(tmp_path, caplog):
    rows = [{"source": "a", "target": "b"}, {"source": " ", "target": "b"}, *[{"source": "a", "target": ""}] * 7]
    assert len(load_files({"train": write(tmp_path / "mine.jsonl", jsonl(*rows))})["train"]) == 9
    assert "own_files: 1 sources of" in caplog.text
    assert "mine.jsonl are empty (row 2)." in caplog.text
    assert "mine.jsonl are empty (rows 3, 4, 5, 6, 7 and 2 more)." in caplog.text
