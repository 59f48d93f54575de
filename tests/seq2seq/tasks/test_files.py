"""Reading rows from every supported file format."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from seq2seq.tasks.files import Header, read_rows

ROWS = [{"source": 'a "b, c', "target": "NA"}, {"source": "ünd\u2028", "target": "null"}]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", 'source\ttarget\na "b, c\tNA\nünd\u2028\tnull\n'),
        ("windows.tsv", '\ufeffsource\ttarget\r\na "b, c\tNA\r\n\r\nünd\u2028\tnull'),
        ("a.csv", 'source,target\n"a ""b, c",NA\nünd\u2028,null\n'),
        ("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"),
        ("a.json", json.dumps(ROWS)),
        ("object.json", json.dumps({"data": ROWS, "version": "1.1"})),
    ],
)
def test_every_text_format_gives_the_same_rows(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert list(read_rows(path)) == ROWS


@pytest.mark.parametrize("separator", list("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), ids=ascii)
def test_only_a_line_feed_ends_a_row_of_a_tsv(tmp_path, separator):
    path = tmp_path / "a.tsv"
    path.write_bytes(f"source\ttarget\r\nnot{separator}good\t0\nbad\t1\r\n".encode())
    expected = [{"source": f"not{separator}good", "target": "0"}, {"source": "bad", "target": "1"}]
    assert list(read_rows(path)) == expected


def test_a_quoted_cell_of_a_csv_may_have_any_separator(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'source,target\r\n"a\rb\nc\r\nd",0\n')
    assert list(read_rows(path)) == [{"source": "a\rb\nc\r\nd", "target": "0"}]


def test_parquet_keeps_nesting_and_types(tmp_path):
    rows = [{"label": 1, "answers": {"text": ["x", "y"]}}, {"label": 0, "answers": {"text": []}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet")) == rows


def test_with_a_header_the_first_line_is_a_row(tmp_path):
    path = write(tmp_path / "a.tsv", "gj04\t1\n")
    assert list(read_rows(path, Header(("origin", "label"), {"label"}))) == [{"origin": "gj04", "label": "1"}]


def test_a_row_of_the_wrong_length_has_none_for_unknown_cells(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\n1\n1\t2\t3\n1\t2\n")
    assert list(read_rows(path)) == [{"a": "1", "b": None}, {"a": None, "b": None}, {"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", "one of the suffixes .tsv, .csv, .jsonl, .json, .parquet"),
        ("missing.tsv", None, "must exist"),
        ("latin.tsv", "source\ttarget\nü\tx\n".encode("latin-1"), "UTF-8"),
        ("a.csv", b"source,target\na\rb,0\n", "new-line character seen in unquoted field"),
        ("a.jsonl", b'{"source": 1}\n{"source"\n', "fix the file"),
        ("list.jsonl", b"[1, 2]\n", r"found the row \[1, 2\]"),
        ("a.json", b'{"source": "x"}', "an object with the keys source has no list under 'data'"),
        ("data.json", b'{"data": {"source": "x"}}', "has no list under 'data'"),
        ("number.json", b"3", "holds rows"),
        ("a.csv", b'source,target\n"a"b,c\n', "holds rows"),
        ("a.parquet", b"PAR1", "holds rows"),
        ("empty.parquet", b"", "holds rows"),
    ],
)
def test_an_unreadable_file_raises_an_error_with_its_path(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(read_rows(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)


def test_a_directory_is_not_a_file(tmp_path):
    (tmp_path / "a.tsv").mkdir()
    with pytest.raises(ValueError, match="is a directory"):
        list(read_rows(tmp_path / "a.tsv"))
