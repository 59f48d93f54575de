"""Files of every built-in task with the hub's columns or the official ones, as csv and tsv with a header line."""

import csv
import io

import pytest

from seq2seq.tasks.files import Header, read_rows
from seq2seq.tasks.registry import TASKS, get_task
from seq2seq.tasks.sources import load_splits
from seq2seq.tasks.splits import SPLIT_POLICIES
from tests.seq2seq.tasks.data_files import jsonl, write

pytestmark = pytest.mark.usefixtures("no_network")

PAIR = {"sentence1": "A, b.", "sentence2": "C d."}
SPANS = {"span1_text": "A", "span1_index": "0", "span2_text": "c", "span2_index": "2"}

# (task, columns and cells of a row, its target): the hub's columns, then the official ones where they differ
FLAT = [
    ("cola", {"sentence": "Go, now.", "label": "0", "idx": "7"}, "unacceptable"),
    ("cola", {"label": "1", "sentence": "Go."}, "acceptable"),
    ("cola", {"Sentence": "Go.", "LABEL": "1"}, "acceptable"),
    ("cola", {"origin": "gj04", "label": "0", "mark": "*", "sentence": "Go."}, "unacceptable"),
    ("sst2", {"sentence": "fine ", "label": "1", "idx": "7"}, "positive"),
    ("mrpc", {**PAIR, "label": "1", "idx": "7"}, "equivalent"),
    ("mrpc", {"Quality": "0", "#1 ID": "7", "#2 ID": "8", "#1 String": "A", "#2 String": "B"}, "not_equivalent"),
    ("qqp", {"question1": "A?", "question2": "B?", "label": "1", "idx": "7"}, "duplicate"),
    ("qqp", {"id": "0", "question1": "A?", "question2": "B?", "is_duplicate": "0"}, "not_duplicate"),
    ("stsb", {**PAIR, "label": "3.799999952316284", "idx": "7"}, "3.8"),
    ("stsb", {"index": "0", **PAIR, "score": "5.000"}, "5.0"),
    ("mnli", {"premise": "A", "hypothesis": "B", "label": "1", "idx": "7"}, "neutral"),
    ("mnli", {"index": "0", **PAIR, "label1": "neutral", "gold_label": "entailment"}, "entailment"),
    ("qnli", {"question": "A?", "sentence": "B", "label": "1", "idx": "7"}, "not_entailment"),
    ("qnli", {"index": "0", "question": "A?", "sentence": "B", "label": "entailment"}, "entailment"),
    ("rte", {**PAIR, "label": "0", "idx": "7"}, "entailment"),
    ("rte", {"index": "0", **PAIR, "label": "not_entailment"}, "not_entailment"),
    ("wnli", {**PAIR, "label": "0", "idx": "7"}, "not_entailment"),
    ("boolq", {"question": "a", "passage": "B.", "idx": "7", "label": "1"}, "True"),
    ("boolq", {"question": "a", "passage": "B.", "label": "true"}, "True"),
    ("boolq", {"question": "a", "passage": "B.", "answer": "False"}, "False"),
    ("cb", {"premise": "A", "hypothesis": "B", "idx": "7", "label": "2"}, "neutral"),
    ("cb", {"premise": "A", "hypothesis": "B", "label": "contradiction"}, "contradiction"),
    ("copa", {"premise": "A", "choice1": "B", "choice2": "C", "question": "cause", "label": "0"}, "choice1"),
    ("wic", {"word": "b", **PAIR, "start1": "0", "label": "0"}, "False"),
    ("wsc", {"text": "A b c", **SPANS, "idx": "7", "label": "1"}, "True"),
    ("world_acceptability", {"sentence": "A", "label": "1"}, "right"),
    ("world_sentiment", {"sentence": "A", "label": "0"}, "bad"),
    ("world_paraphrase", {**PAIR, "label": "1"}, "same"),
    ("world_entailment", {**PAIR, "label": "not_entailment"}, "false"),
    ("world_similarity", {**PAIR, "score": "0.4"}, "0.4"),
]
NESTED = [
    (
        "multirc",
        {"paragraph": "P", "question": "Q?", "answer": "x", "idx": {"paragraph": 0, "question": 0}, "label": 1},
        "True",
    ),
    ("record", {"passage": "Bo ran", "query": "@placeholder ran", "entities": ["Bo"], "answers": ["Bo"]}, "Bo"),
    ("squad", {"context": "C", "question": "Q?", "answers": {"text": ["b"], "answer_start": [0]}}, "b"),
]


@pytest.fixture(autouse=True)
def small_held_out(monkeypatch):
    monkeypatch.setattr("seq2seq.tasks.splits.HELD_OUT_ROWS", 1)


def load(task, suffix, text, folder):
    for part in SPLIT_POLICIES[TASKS[task].split][0]:
        write(folder / f"{part}.{suffix}", text)
    return load_splits(get_task(task), data_dir=folder)


def table_text(row, separator, rows=2):
    lines = io.StringIO()
    writer = csv.writer(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE)
    writer.writerows([row, *[row.values()] * rows])
    return "\ufeff" + lines.getvalue()  # with a byte order mark, and CRLF line ends, as spreadsheets write


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize(("task", "row", "target"), FLAT, ids=[f"{task}:{next(iter(row))}" for task, row, _ in FLAT])
def test_a_header_line_of_either_kind_is_read(tmp_path, task, row, target, suffix):
    splits = load(task, suffix, table_text(row, {"csv": ",", "tsv": "\t"}[suffix]), tmp_path)
    assert len(splits["train"]) + len(splits["validation"]) + len(splits["test"]) in (4, 6)
    assert set(splits["train"]["target"]) == {target}


@pytest.mark.parametrize(("task", "row", "target"), NESTED, ids=[row[0] for row in NESTED])
def test_nested_columns_need_a_format_that_has_them(tmp_path, task, row, target):
    twin = {**row, "idx": {"paragraph": 0, "question": 1}}
    assert load(task, "jsonl", jsonl(row, twin), tmp_path / "jsonl")["train"]["target"][0] == target
    with pytest.raises(
        ValueError, match=rf"Rows of task '{task}' are nested .* in row 1 of split 'train'.*official files"
    ):
        load(task, "csv", table_text({key: str(value) for key, value in row.items()}, ","), tmp_path / "csv")


def test_every_task_is_in_a_table():
    assert {row[0] for row in (*FLAT, *NESTED)} == set(TASKS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Labels,Sentence\n1,Go\n",
            r"got none in .*rows 1 and 2 lack a cell.*name the columns label, sentence in a header",
        ),
        ("id,label,x,text\n1,1,,Go\n", "got 'label' in row 1 of split 'train'"),
        ("sentence,label,sentence\nGo,1,Go\n", "the column 'sentence' more than once"),
    ],
)
def test_another_header_of_cola_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load("cola", "csv", text, tmp_path)


def test_a_first_row_is_a_header_line_only_if_it_has_every_needed_column(tmp_path):
    header = Header(("origin", "label"), {"label", "sentence"})
    path = write(tmp_path / "a.tsv", "label\tx\n")
    assert list(read_rows(path, header)) == [{"origin": "label", "label": "x"}]
    assert list(read_rows(write(tmp_path / "b.tsv", "sentence\tlabel\n"), header)) == []
    assert list(read_rows(write(tmp_path / "empty.tsv", ""), header)) == []


def test_a_long_cell_of_a_csv_is_read(tmp_path):
    long = "word " * 40_000  # 200,000 characters; Python's reader stops at 131,072 by default
    path = write(tmp_path / "a.csv", f'source,target\n"{long}",x\n')
    assert [row["source"] for row in read_rows(path)] == [long]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2\n', r"\(line 3: Expecting ',' delimiter at character \d+\)"),
        (
            "a.jsonl",
            '{"a": 1}\nx\n[1]\n{"a": 3}\nnull\n',
            r"line 2: Expecting value .*; in all 3 .* lines 2, 3 and 5\)",
        ),
        ("a.jsonl", "x\n" * 9, "in all 9 such lines, lines 1, 2, 3, 4, 5 and 4 more"),
        ("a.jsonl", '{"a": ' * 100_000, "line 1: "),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.csv", 'a,b\n1,2\n3,"4\n', "line 3: unexpected end of data"),
        ("a.tsv", "a\tb\ta\n1\t2\t3\n", "the column 'a' more than once"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_line(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        list(read_rows(path))
