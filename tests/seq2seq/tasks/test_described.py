"""Tasks described in JSON, and tasks of installed packages."""

import json
import sys
from importlib import metadata

import pyarrow
import pyarrow.parquet
import pytest

from adapters import ConfigurationError
from seq2seq.tasks.described import ENTRY_POINTS, DescribedTask, DescribedTasks
from seq2seq.tasks.metrics import compute_metrics, split_metrics
from seq2seq.tasks.registry import TASKS, get_task
from seq2seq.tasks.sources import load_splits
from tests.seq2seq.tasks.data_files import jsonl, write

pytestmark = pytest.mark.usefixtures("no_network")

LABELLED = {
    "files": {"train": "t.csv"},
    "source": "{a}",
    "target": "{b}",
    "labels": ["no", "yes"],
    "metrics": ["accuracy"],
}
FREE = {"files": {"train": "t.csv"}, "source": "{a}", "target": "{b}", "metrics": ["rougeL"]}
ROWS = [
    {"premise": "A, b.", "hypothesis": "{c}", "label": 1},
    {"premise": 'He said "d".', "hypothesis": "e", "label": 0},
]


def write_rows(path, rows):
    names, cells = list(rows[0]), [[str(cell) for cell in row.values()] for row in rows]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(line) + "\n" for line in [names, *cells]))
    elif path.suffix == ".csv":
        quoted = [['"' + cell.replace('"', '""') + '"' for cell in line] for line in cells]
        path.write_text("".join(",".join(line) + "\n" for line in [names, *quoted]))
    else:
        path.write_text(jsonl(*rows) if path.suffix == ".jsonl" else json.dumps(rows))
    return str(path)


def load(rows, path, **values):
    """The splits of a described task with one file of these rows."""
    spec = DescribedTask.from_dict("mine", {**FREE, "files": {"train": write_rows(path, rows)}, **values}).spec
    return spec, load_splits(spec)["train"]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("labels", [["no", "yes"], {"1": "yes", "0": "no"}], ids=["by index", "by cell"])
def test_every_format_gives_the_same_examples(tmp_path, suffix, labels):
    _, rows = load(
        ROWS,
        tmp_path / f"mine.{suffix}",
        source="premise: {premise} hypothesis: {hypothesis}",
        target="{label}",
        labels=labels,
        metrics=["accuracy"],
    )
    assert rows.to_list() == [
        {"source": "premise: A, b. hypothesis: {c}", "target": "yes", "row": 1},
        {"source": 'premise: He said "d". hypothesis: e', "target": "no", "row": 2},
    ]


@pytest.mark.parametrize(
    ("cell", "labels", "label"),
    [
        ("yes", ["no", "yes"], "yes"),
        ("Yes", ["no", "yes"], "yes"),
        (1.0, ["no", "yes"], "yes"),  # as tables with a missing cell write integers
        (True, ["no", "yes"], "yes"),
        (True, ["true", "false"], "true"),
        ("FALSE", ["true", "false"], "false"),
        (1, ["1", "2", "3"], "1"),  # a name comes before an index
        ("a", ["a", "A"], "a"),
        ("-1", {"-1": "bad", "1": "good"}, "bad"),
        (True, {"true": "good", "false": "bad"}, "good"),
        (4, {"1": "bad", "2": "bad", "4": "good"}, "good"),
    ],
)
def test_a_label_is_given_by_name_by_index_or_by_cell(tmp_path, cell, labels, label):
    _, rows = load([{"a": "x", "b": cell}], tmp_path / "mine.jsonl", labels=labels, metrics=["accuracy"])
    assert rows["target"][:] == [label]


@pytest.mark.parametrize(
    ("labels", "metrics", "predictions", "references", "expected"),
    [
        (["no", "yes"], ["f1", "accuracy"], "yes yes", "yes no", {"f1": 2 / 3, "accuracy": 1 / 2}),
        (["no", "yes"], ["matthews", "exact_match"], "yes no", "yes no", {"matthews": 1, "exact_match": 1}),
        (["1", "2", "3"], ["accuracy", "spearman"], "2 3 3", "1 2 3", {"accuracy": 1 / 3, "spearman": 3**0.5 / 2}),
        (None, ["pearson"], "1 2.5 4", "2 5 8", {"pearson": 1, "invalid": 0}),
        (None, ["pearson", "spearman"], "1 x 3 2", "1 9 3 2", {"pearson": 3 / 4, "spearman": 3 / 4, "invalid": 1 / 4}),
        (None, ["spearman"], "1 nan inf", "1 2 3", {"spearman": 0, "invalid": 2 / 3}),
    ],
)
def test_metrics_compare_classes_numbers_or_texts(labels, metrics, predictions, references, expected):
    spec = DescribedTask.from_dict("mine", {**FREE, "labels": labels, "metrics": metrics}).spec
    results = compute_metrics(spec, predictions.split(), references.split())
    assert {name: results[name] for name in expected} == pytest.approx(expected)


def test_questions_are_grouped_by_a_column(tmp_path):
    rows = [{"a": "x", "b": answer, "q": question} for question, answer in ((1, "yes"), (1, "no"), (2, "no"))]
    values = {"labels": ["no", "yes"], "metrics": ["question_exact_match", "f1"], "group": "{q}"}
    spec, split = load(rows, tmp_path / "mine.jsonl", **values)
    assert split_metrics(spec, ["yes", "yes", "no"], split)["question_exact_match"] == 1 / 2


def test_free_text_may_be_a_list_of_answers_or_made_of_several_columns(tmp_path):
    _, rows = load([{"a": "x", "b": ["y", "z"]}, {"a": "x", "b": ["w"]}], tmp_path / "mine.jsonl")
    assert (rows["target"][:], rows["answers"][:]) == (["y", "w"], [["y", "z"], ["w"]])
    _, rows = load([{"a": 1, "b": "y", "c": True}], tmp_path / "other.jsonl", target="{{{b}}} is {c}", source="{a}")
    assert rows["target"][:] == ["{y} is true"]


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        ([{"a": "x", "c": "y"}], {}, r"need the columns a, b; got a, c in row 1 of .*mine\.jsonl, without b"),
        ([{"a": "x", "b": "y"}, {"a": "x"}], {}, r"need the columns a, b; got a in row 2 of .*mine\.jsonl, without b"),
        ([{"a": "x", "b": "y"}, {"a": "x", "b": None}], {}, r"got 1 rows in .*mine\.jsonl .*\(row 2\)"),
        (
            [{"a": "x", "b": "no"}, {"a": "x", "b": "maybe"}],
            {"labels": ["no", "yes"], "metrics": ["accuracy"]},
            r"the labels no, yes, .*; got 'maybe' in row 2 of .*mine\.jsonl: use files with labels\.",
        ),
        (
            [{"a": "x", "b": "yes"}],
            {"labels": {"0": "no", "1": "yes"}, "metrics": ["accuracy"]},
            r"given for the cells '0', '1'; got 'yes' in row 1 of",
        ),
        (
            [{"a": "x", "b": ["no"]}],
            {"labels": ["no", "yes"], "metrics": ["accuracy"]},
            r"A cell holds text, .*got \['no'\] in row 1 of",
        ),
        ([{"a": "x", "b": "1"}, {"a": "x", "b": "nan"}], {"metrics": ["pearson"]}, r"numbers; got 'nan' in row 2 of"),
        ([{"a": "x", "b": [1, 2]}], {"metrics": ["pearson"]}, r"A cell holds text.*got \[1, 2\] in row 1 of"),
    ],
)
def test_rows_that_do_not_fit_the_description_are_refused_by_number(tmp_path, rows, values, message):
    with pytest.raises(ValueError, match=message):
        load(rows, tmp_path / "mine.jsonl", **values)


@pytest.mark.parametrize(
    ("given", "source", "texts"),
    [
        ({"source": "say {a} {b}"}, "say x y", {"text": "say x y"}),
        ({"source": None, "texts": ["{a}", "{b}"]}, "x y", {"text": "x", "text_pair": "y"}),
        ({"source": "both {a}", "texts": ["{b}"]}, "both x", {"text": "y"}),
    ],
)
def test_source_and_texts_stand_for_each_other(given, source, texts):
    """A text-to-text model reads the source, a classifier the texts; either is made of the other by default."""
    values = {key: value for key, value in {**FREE, "target": "{c}", **given}.items() if value is not None}
    task = DescribedTask.from_dict("mine", values)
    row = {"a": "x", "b": "y", "c": "z"}
    assert task.spec.example(row) == {"source": source, "target": "z"}
    assert task.spec.of_texts().example(row) == {**texts, "target": "z"}
    assert task.to_dict().get("texts", []) == list(values.get("texts", []))
    assert DescribedTask.from_dict("mine", task.to_dict()) == task


# (what is set in an otherwise right description, words that the sentence must have)
REFUSED = {
    "no object": ("mine.tsv", ["'tasks'", "'mine.tsv'", "files, source, target and metrics"]),
    "unknown key": ({**FREE, "metric": ["f1"]}, ["'metric'", "'metrics'"]),
    "a missing key": ({key: FREE[key] for key in FREE if key != "target"}, ["'target'", "required"]),
    "another name": ({**FREE, "name": "theirs"}, ["'name'", "'theirs'"]),
    "unknown split": ({**FREE, "files": {"dev": "t.csv"}}, ["'dev'", "validation"]),
    "no files": ({**FREE, "files": {}}, ["'files'", "train"]),
    "one file for all": ({**FREE, "files": "t.csv"}, ["'files'", "'t.csv'"]),
    "nothing to read": ({key: FREE[key] for key in FREE if key != "source"}, ["'source'", "none", "texts"]),
    "three texts": ({**FREE, "texts": ["{a}", "{b}", "{c}"]}, ["'texts'", "a text and its pair"]),
    "a text without a column": ({**FREE, "texts": ["a"]}, ["'texts'", "'a'", "{a}"]),
    "no column in the target": ({**FREE, "target": "b"}, ["'target'", "'b'", "{b}"]),
    "an open brace": ({**FREE, "source": "a: {a"}, ["'source'", "'a: {a'", "twice"]),
    "a lone brace": ({**FREE, "source": "{a} }"}, ["'source'", "twice"]),
    "no name in the braces": ({**FREE, "source": "{}"}, ["'source'", "'{}'", "rename"]),
    "a position": ({**FREE, "source": "{0}"}, ["'source'", "'{0}'"]),
    "an attribute": ({**FREE, "source": "{a.__class__}"}, ["'source'", "rename"]),
    "a format": ({**FREE, "target": "{b:.1f}"}, ["'target'", "rename"]),
    "a conversion": ({**FREE, "target": "{b!r}"}, ["'target'", "rename"]),
    "no metric": ({**FREE, "metrics": []}, ["'metrics'", "rougeL"]),
    "unknown metric": ({**FREE, "metrics": ["rouge_l"]}, ["'rouge_l'", "did you mean 'rougeL'"]),
    "a metric twice": ({**FREE, "metrics": ["rougeL", "rougeL"]}, ["'rougeL' twice"]),
    "classes without labels": ({**FREE, "metrics": ["f1"]}, ["'f1'", "labels", "exact_match", "rouge1"]),
    "binary F1 of three labels": (
        {**LABELLED, "labels": ["a", "b", "c"], "metrics": ["f1"]},
        ["'f1'", "a, b, c", "macro_f1"],
    ),
    "correlation of words": ({**LABELLED, "metrics": ["pearson"]}, ["'pearson'", "no, yes", "numbers"]),
    "a metric of questions without any": (
        {**LABELLED, "metrics": ["question_exact_match"]},
        ["'group'", "question_exact_match"],
    ),
    "questions without a metric": ({**LABELLED, "group": "{q}"}, ["'group'", "accuracy"]),
    "one label": ({**LABELLED, "labels": ["yes"]}, ["'labels'", "two or more", "free text"]),
    "one label of several cells": ({**LABELLED, "labels": {"0": "yes", "1": "yes"}}, ["'labels'", "two or more"]),
    "a label twice": ({**LABELLED, "labels": ["yes", "no", "yes"]}, ["'yes' twice"]),
    "space around a label": ({**LABELLED, "labels": ["yes ", "no"]}, ["'labels'", "'yes '"]),
    "an empty label": ({**LABELLED, "labels": {"0": "", "1": "yes"}}, ["'labels'", "''"]),
    "labels that are numbers": ({**LABELLED, "labels": [0, 1]}, ["'labels'", "string"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_description_that_does_not_fit_is_refused_in_one_sentence(case):
    values, words = REFUSED[case]
    with pytest.raises(ConfigurationError) as error:
        DescribedTasks.from_dict({"mine": values})
    sentence = str(error.value)
    assert sentence.endswith(".")
    assert [word for word in ["'mine'", *words] if word not in sentence] == []


@pytest.mark.parametrize("name", ["", "a.b", "../x", "a b", "a/b"])
def test_a_name_that_cannot_name_a_file_is_refused(name):
    with pytest.raises(ConfigurationError, match="has a name of letters"):
        DescribedTasks.from_dict({name: FREE})


@pytest.mark.parametrize("values", [FREE, LABELLED, {**LABELLED, "labels": {"0": "no", "1": "yes"}}])
def test_the_json_form_reads_back(values):
    tasks = DescribedTasks.from_dict({"mine": values})
    assert DescribedTasks.from_dict(json.loads(json.dumps(tasks.to_dict()))) == tasks


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function of a module's code, which installs it as a package whose tasks are theirs and rte."""

    def install(code: str) -> None:
        write(tmp_path / "their_tasks.py", code)
        info = tmp_path / "their_tasks-1.0.dist-info"
        write(info / "METADATA", "Metadata-Version: 2.1\nName: their-tasks\nVersion: 1.0\n")
        lines = [f"[{ENTRY_POINTS}]", "theirs = their_tasks:TASK", "rte = their_tasks:TASK"]
        write(info / "entry_points.txt", "\n".join(lines))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "their_tasks", raising=False)
        assert metadata.entry_points(group=ENTRY_POINTS, name="theirs")

    return install


@pytest.mark.parametrize(
    "code",
    [
        f"TASK = {FREE!r}",
        "from seq2seq.tasks.task_spec import TaskSpec\n"
        "TASK = TaskSpec(name='x', source='{a}', target='{b}', metrics=('rougeL',), split='given',"
        " files={'train': 't.csv'})",
    ],
    ids=["object", "TaskSpec"],
)
def test_an_installed_package_offers_tasks(package, code):
    package(code)
    assert get_task("theirs") == DescribedTask.from_dict("theirs", FREE).spec
    assert get_task("rte") is TASKS["rte"]  # a built-in task is not replaced


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", "no attribute|TASK"),
        ("TASK = 3", "its type is int"),
        ("1 / 0", "division"),
        ("TASK = {}", "'files'.*required"),
    ],
)
def test_an_installed_task_that_cannot_be_used_is_refused(package, code, reason):
    package(code)
    with pytest.raises(ConfigurationError, match=rf"got 'their_tasks:TASK' of the entry point 'theirs'.*({reason})"):
        get_task("theirs")


def test_an_unknown_task_suggests_those_of_packages_and_descriptions(package):
    package("")
    with pytest.raises(ConfigurationError, match="did you mean 'theirs'"):
        get_task("thiers")
    described = DescribedTasks.from_dict({"mine": FREE}).specs
    assert get_task("mine", described) == described["mine"]
    with pytest.raises(ConfigurationError, match=r"Key 'mixture\.tasks'.*did you mean 'mine'"):
        get_task("mne", described, "mixture.tasks")
