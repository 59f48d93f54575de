"""Data in a directory: GLUE's official layouts, SuperGLUE's and the hub's."""

import json

import pytest
from datasets import Dataset

from seq2seq.tasks import sources
from seq2seq.tasks.registry import TASKS, get_task
from seq2seq.tasks.sources import load_splits
from tests.seq2seq.tasks.data_files import REAL, jsonl, tsv, write

pytestmark = pytest.mark.usefixtures("no_network")
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the real task files are not on this machine")


STSB_HEADER = (
    "index",
    "genre",
    "filename",
    "year",
    "old_index",
    "source1",
    "source2",
    "sentence1",
    "sentence2",
    "score",
)


MNLI_HEADER = ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label")


MULTIRC_FLAT = {"paragraph": "P", "question": "Q?", "answer": "x", "label": 1}


MULTIRC_QUESTION = {"question": "Q?", "idx": 0, "answers": [{"text": "x", "idx": 0, "label": 1}]}


RECORD_QUERY = {"query": "@placeholder ran", "answers": [{"start": 0, "end": 1, "text": "Bo"}], "idx": 0}


SQUAD_ARTICLE = {
    "title": "T",
    "paragraphs": [{"context": "C", "qas": [{"question": "Q?", "answers": [{"text": "b c", "answer_start": 0}]}]}],
}


LAYOUTS = [
    (
        "cola",
        "CoLA/{}.tsv",
        "train dev",
        tsv(("gj04", "0", "*", 'He said "go.'), ("gj04", "1", "", "Go.")),
        "unacceptable",
    ),
    ("sst2", "SST-2/{}.tsv", "train dev", tsv(("sentence", "label"), ("fine ", "1")), "positive"),
    (
        "mrpc",
        "MRPC/{}.tsv",
        "train dev",
        "\ufeff" + tsv(("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), ("0", "7", "8", "A", 'B "c')),
        "not_equivalent",
    ),
    ("stsb", "STS-B/{}.tsv", "train dev", tsv(STSB_HEADER, (*"0123456", 'A "b', "C", "3.500")), "3.6"),
    (
        "qqp",
        "QQP/{}.tsv",
        "train dev",
        tsv(("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), (*"012", "A?", "B?", "1")),
        "duplicate",
    ),
    (
        "mnli",
        "MNLI/{}.tsv",
        "train dev_matched dev_mismatched",
        tsv(MNLI_HEADER, (*"0123", "A", "B", "neutral", "contradiction")),
        "contradiction",
    ),
    (
        "qnli",
        "QNLI/{}.tsv",
        "train dev",
        tsv(("index", "question", "sentence", "label"), ("0", "A?", "B", "entailment")),
        "entailment",
    ),
    (
        "rte",
        "RTE/{}.tsv",
        "train dev",
        tsv(("index", "sentence1", "sentence2", "label"), ("0", "A", "B", "not_entailment")),
        "not_entailment",
    ),
    (
        "wnli",
        "WNLI/{}.tsv",
        "train dev",
        tsv(("index", "sentence1", "sentence2", "label"), ("0", "A", "B", "1")),
        "entailment",
    ),
    ("boolq", "BoolQ/{}.jsonl", "train val", jsonl({"question": "q", "passage": "P", "idx": 0, "label": True}), "True"),
    (
        "cb",
        "CB/{}.jsonl",
        "train val",
        jsonl({"premise": "A", "hypothesis": "B", "label": "neutral", "idx": 0}),
        "neutral",
    ),
    (
        "multirc",
        "MultiRC/{}.jsonl",
        "train val",
        jsonl({"idx": 0, "passage": {"text": "P", "questions": [MULTIRC_QUESTION]}}),
        "True",
    ),
    (
        "record",
        "ReCoRD/{}.jsonl",
        "train val",
        jsonl(
            {"idx": 0, "passage": {"text": "Bo ran", "entities": [{"start": 0, "end": 1}]}, "qas": [RECORD_QUERY] * 2}
        ),
        "Bo",
    ),
    ("squad", "SQuAD/{}-v1.1.json", "train dev", json.dumps({"data": [SQUAD_ARTICLE] * 2, "version": "1.1"}), "b c"),
    (
        "world_sentiment",
        "sentiment/{}.tsv",
        "train validation test",
        tsv(("sentence", "label"), ("A", "0")),
        "bad",
    ),
    ("world_similarity", "similarity/{}.csv", "train validation test", "sentence1,sentence2,score\nA,B,0.4\n", "0.4"),
]


def with_another_row(text):
    """The last row again, of another question, as a validation set needs a row in each half."""
    return text + text.splitlines()[-1].replace('"idx": 0', '"idx": 1') + "\n"


@pytest.mark.parametrize(("task", "pattern", "names", "text", "target"), LAYOUTS, ids=[row[0] for row in LAYOUTS])
@pytest.mark.parametrize("inside", [False, True], ids=["directory of the folder", "the folder itself"])
def test_official_layouts(tmp_path, monkeypatch, task, pattern, names, text, target, inside):
    monkeypatch.setattr("seq2seq.tasks.splits.HELD_OUT_ROWS", 0)
    for name in names.split():
        path = write(tmp_path / pattern.format(name), text if pattern.endswith(".json") else with_another_row(text))
    splits = load_splits(get_task(task), data_dir=path.parent if inside else tmp_path)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"]["target"][0] == target
    assert splits["train"]["source"][0].startswith(f"{task} ")


def test_quotation_marks_in_tsv_have_no_special_meaning(tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "CoLA" / f"{name}.tsv", 'x\t1\t\tHe said "go.\nx\t0\t*\tThe "end.\nx\t1\t\tNA\n')
    splits = load_splits(TASKS["cola"], data_dir=tmp_path)
    assert splits["train"]["source"][:] == [
        'cola sentence: He said "go.',
        'cola sentence: The "end.',
        "cola sentence: NA",
    ]


@pytest.mark.parametrize("files", [("{}.parquet",), ("{}-00000-of-00002.parquet", "{}-00001-of-00002.parquet")])
def test_the_hubs_parquet_layout(tmp_path, files):
    (tmp_path / "rte").mkdir()
    for split in ("train", "validation"):
        for name in files:
            rows = {"sentence1": ["A", "B"], "sentence2": ["C", "D"], "label": [1, 0], "idx": [0, 1]}
            Dataset.from_dict(rows).to_parquet(tmp_path / "rte" / name.format(split))
    splits = load_splits(TASKS["rte"], data_dir=tmp_path)
    assert splits["train"]["target"][:] == ["not_entailment", "entailment"] * len(files)
    assert len(splits["validation"]) + len(splits["test"]) == 2 * len(files)


def test_squad_rows_keep_all_accepted_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.tasks.splits.HELD_OUT_ROWS", 1)
    row = {"question": "Q?", "context": "C", "answers": {"text": ["b c", "c"], "answer_start": [0, 1]}}
    for name in ("train", "validation"):
        write(tmp_path / "SQuAD" / f"{name}.jsonl", jsonl(row, row))
    splits = load_splits(TASKS["squad"], data_dir=tmp_path)
    assert splits["test"].remove_columns("row")[0] == {
        "source": "squad question: Q? context: C",
        "target": "b c",
        "answers": ["b c", "c"],
    }


def test_a_query_without_answers_is_skipped_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("seq2seq.tasks.splits.HELD_OUT_ROWS", 0)
    passage = {"text": "Bo ran", "entities": [{"start": 0, "end": 1}]}
    unlabelled = [{"query": "X", "answers": []}, {"query": "Y"}]
    for name in ("train", "val"):
        write(tmp_path / f"{name}.jsonl", jsonl({"passage": passage, "qas": [RECORD_QUERY, *unlabelled]}))
    assert len(load_splits(TASKS["record"], data_dir=tmp_path)["test"]) == 1
    assert "skipped 2 incomplete rows of split validation" in caplog.text


def test_incomplete_rows_are_skipped_and_counted(tmp_path, caplog):
    header, whole = ("sentence1", "sentence2", "label"), ("A", "B", "entailment")
    for name in ("train", "dev"):
        write(tmp_path / "RTE" / f"{name}.tsv", tsv(header, whole, ("A", "B"), whole, (*whole, "D")))
    assert load_splits(TASKS["rte"], data_dir=tmp_path)["train"]["row"][:] == [1, 3]
    assert "skipped 2 incomplete rows of split train (rows 2 and 4)" in caplog.text


@pytest.mark.parametrize(
    ("task", "files", "message"),
    [
        (
            "rte",
            {"RTE/train.tsv": "x"},
            "needs the splits train, validation; got .*RTE without validation: add validation.*dev",
        ),
        ("mnli", {"MNLI/train.tsv": "x"}, "without validation_mismatched, validation_matched"),
        (
            "rte",
            {"RTE/train.tsv": "a\tlabel\nx\tentailment\n", "RTE/dev.tsv": "a\n"},
            "got a, label in .*, without sentence1, sentence2",
        ),
        (
            "sst2",
            {"SST-2/train.tsv": "sentence\tlabel\n", "SST-2/dev.tsv": ""},
            "got none in split 'train' of task 'sst2'",
        ),
        (
            "sst2",
            {"SST-2/train.tsv": "sentence\tlabel\nA\t7\n", "SST-2/dev.tsv": ""},
            "has the labels negative, positive",
        ),
        (
            "multirc",
            {"MultiRC/train.jsonl": '{"passage": 1}', "MultiRC/val.jsonl": ""},
            "are nested as in the official files",
        ),
        (
            "squad",
            {"SQuAD/train.jsonl": '{"context": 1}', "SQuAD/dev.jsonl": ""},
            r"got context in row 1 of .*, without answers, question",
        ),
        ("multirc", {"MultiRC/train.jsonl": jsonl(MULTIRC_FLAT | {"idx": 3}), "MultiRC/val.jsonl": ""}, "TypeError"),
    ],
)
def test_a_directory_with_invalid_contents_raises_an_error(tmp_path, task, files, message):
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        load_splits(get_task(task), data_dir=tmp_path)


def test_data_dir_must_exist(tmp_path):
    with pytest.raises(ValueError, match="data_dir must be an existing directory"):
        load_splits(TASKS["rte"], data_dir=tmp_path / "nowhere")


def test_the_projects_own_tasks_need_no_data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PROJECT", tmp_path)
    for name in ("train", "validation", "test"):
        write(tmp_path / "assets/small_world/tasks/sentiment" / f"{name}.tsv", f"sentence\tlabel\n{name}\t1\n")
    splits = load_splits(TASKS["world_sentiment"])
    assert [splits[name]["source"][:] for name in splits] == [
        [f"world_sentiment sentence: {name}"] for name in ("train", "validation", "test")
    ]
    with pytest.raises(ValueError, match="'world_paraphrase' ships with the project"):
        load_splits(TASKS["world_paraphrase"])


@needs_real_data
@pytest.mark.parametrize(
    ("task", "sizes"),
    [("cola", (8551, 521, 522)), ("sst2", (66349, 1000, 872)), ("stsb", (5749, 750, 750))],
)
def test_real_glue_folders_give_three_splits(task, sizes):
    splits = load_splits(get_task(task), data_dir=REAL / "glue")
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == sizes


@needs_real_data
def test_no_real_multirc_question_is_in_two_splits(tmp_path):
    for name, real in (("train", "fewglue_train"), ("val", "fewglue_val")):
        write(
            tmp_path / f"{name}.jsonl", (REAL / "super_glue" / "MultiRC" / f"{real}.jsonl").read_text(encoding="utf-8")
        )
    splits = load_splits(TASKS["multirc"], data_dir=tmp_path)
    assert not set(splits["validation"]["group"]) & set(splits["test"]["group"])
    assert len(splits["validation"]) + len(splits["test"]) == 4848


def test_a_label_that_is_nan_is_a_missing_cell(tmp_path, caplog):
    for name in ("train", "validation"):
        text = '{"sentence": "a", "label": NaN}\n' + '{"sentence": "b", "label": 1}\n' * 2
        write(tmp_path / "CoLA" / f"{name}.jsonl", text)
    splits = load_splits(TASKS["cola"], data_dir=tmp_path)
    assert len(splits["train"]) == 2
    assert "skipped 1 incomplete rows of split train" in caplog.text
