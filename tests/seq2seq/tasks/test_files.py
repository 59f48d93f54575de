import json

import pyarrow
import pyarrow.parquet
import pytest

from seq2seq.tasks.files import read_rows

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
def test_every_text_form_gives_the_same_rows(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert list(read_rows(path)) == ROWS


def test_parquet_keeps_nesting_and_types(tmp_path):
    rows = [{"label": 1, "answers": {"text": ["x", "y"]}}, {"label": 0, "answers": {"text": []}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet")) == rows


def test_a_given_header_makes_the_first_line_a_row(tmp_path):
    path = write(tmp_path / "a.tsv", "gj04\t1\n")
    assert list(read_rows(path, header=("origin", "label"))) == [{"origin": "gj04", "label": "1"}]


def test_a_table_row_of_wrong_length_has_none_where_cells_are_unknown(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\n1\n1\t2\t3\n1\t2\n")
    assert list(read_rows(path)) == [{"a": "1", "b": None}, {"a": None, "b": None}, {"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"x", "ends in one of .tsv, .csv, .jsonl, .json, .parquet"),
        ("missing.tsv", None, "must exist"),
        ("latin.tsv", "source\ttarget\nü\tx\n".encode("latin-1"), "UTF-8"),
        ("a.jsonl", b'{"source": 1}\n{"source"\n', "Mend the file"),
        ("list.jsonl", b"[1, 2]\n", r"a row is \[1, 2\]"),
        ("a.json", b'{"source": "x"}', "an object with the keys source has no list 'data'"),
        ("data.json", b'{"data": {"source": "x"}}', "has no list 'data'"),
        ("number.json", b"3", "holds rows"),
        ("a.csv", b'source,target\n"a"b,c\n', "holds rows"),
        ("a.parquet", b"PAR1", "holds rows"),
        ("empty.parquet", b"", "holds rows"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        list(read_rows(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.tsv").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        list(read_rows(tmp_path / "a.tsv"))
