"""Targets that a tokenizer cannot write: refused as labels, counted as free text."""

import json

import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

from adapters import ConfigurationError
from seq2seq import PROJECT
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from seq2seq.tasks.metrics import compute_metrics
from seq2seq.tasks.registry import CUSTOM_FILES, TASKS
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.text.encoding import decode, tokenize
from seq2seq.text.round_trip import check_labels, report_free_text, unwritable
from seq2seq.text.workload import TextWorkload
from tests.seq2seq.tasks.data_files import REAL, tsv, write

LENGTH = TextWorkload(task_name="rte").max_target_length
UNKNOWN_TO_THE_EMBEDDED_BACKBONE = {"boolq", "multirc", "wic", "wsc"}  # their labels are True and False


@pytest.fixture(scope="module")
def embedded():
    return AutoTokenizer.from_pretrained(PROJECT / TextWorkload(task_name="rte").model_name_or_path)


@pytest.fixture(scope="module")
def genuine():
    if not REAL.is_dir():
        pytest.skip("the T5 vocabulary is not on this machine")
    return AutoTokenizer.from_pretrained(REAL / "tokenizers" / "t5_32k")


def perfect_metrics(spec, tokenizer):
    """The metrics of a model that writes the token ids of every target."""
    targets = list(spec.labels or ("the red house", "an old door"))
    rows = Dataset.from_dict({"source": ["x"] * len(targets), "target": targets})
    ids, too_long = tokenize(rows, tokenizer, 8, LENGTH)
    assert too_long["target"] == 0
    answers = decode(tokenizer, ids["labels"])
    return compute_metrics(spec, answers, targets, [str(row) for row in range(len(targets))])


@pytest.mark.parametrize("spec", [*TASKS.values(), CUSTOM_FILES], ids=lambda spec: spec.name)
def test_a_perfect_model_scores_one_on_every_task_or_the_task_is_refused(spec, embedded):
    if spec.name in UNKNOWN_TO_THE_EMBEDDED_BACKBONE:
        sentence = f"can write the labels of task '{spec.name}'; got 'x', which writes 'alse' for 'False', 'rue' for "
        with pytest.raises(ConfigurationError, match=sentence):
            check_labels(spec, embedded, "x", LENGTH)
        return
    check_labels(spec, embedded, "x", LENGTH)
    metrics = perfect_metrics(spec, embedded)
    assert [metrics[name] for name in spec.metrics] == pytest.approx([1.0] * len(spec.metrics))


@pytest.mark.parametrize("spec", TASKS.values(), ids=lambda spec: spec.name)
def test_t5_can_answer_every_task(spec, genuine):
    check_labels(spec, genuine, "x", LENGTH)
    metrics = perfect_metrics(spec, genuine)
    assert [metrics[name] for name in spec.metrics] == pytest.approx([1.0] * len(spec.metrics))


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("a {b}", "a b"),
        ("x < y", "x  y"),
        ("a ~ b", "a  b"),
        ("a\nb", "a b"),
        ("a  b", "a b"),
        ("a\tb", "a b"),
        ("<pad>", ""),
        ("it 's good .", None),
        ("Hello , world", None),
        (" space around ", None),
        ("café “q”", None),
        ("", None),
    ],
)
def test_what_t5_cannot_write(target, written, genuine):
    assert unwritable(CUSTOM_FILES, [target], genuine) == ({} if written is None else {target: written})


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("a<b", "a>b"), ["'ab' for 'a<b'"]),
        (("a  b", "c"), ["'a b' for 'a  b'"]),
        (("A", "a"), ["for 'A'"]),
    ],
)
def test_labels_that_do_not_come_back_are_refused_by_name(labels, words, embedded):
    spec = TaskSpec(name="t", source="{x}", metrics=("accuracy",), labels=labels)
    with pytest.raises(ConfigurationError, match=r"'model_name_or_path'.*of task 't'") as error:
        check_labels(spec, embedded, "x", LENGTH)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_label_longer_than_a_target_is_refused(embedded):
    spec = TaskSpec(name="t", source="{x}", metrics=("accuracy",), labels=("old", "a very old door"))
    needed = len(embedded("a very old door")["input_ids"])
    check_labels(spec, embedded, "x", needed)
    sentence = f"'max_target_length' .*'t'; got {needed - 1}, and 'a very old door' has {needed} tokens"
    with pytest.raises(ConfigurationError, match=sentence):
        check_labels(spec, embedded, "x", needed - 1)


def test_free_text_that_does_not_come_back_is_counted_with_the_best_possible_metric(genuine, caplog):
    train = Dataset.from_dict({"source": ["x"] * 4, "target": ["a {b}", "a {b}", "c", "d  e"]})
    validation = Dataset.from_dict({"source": ["x"] * 4, "target": ["c", "<f>", "d  e", "f"]})
    changed = report_free_text(CUSTOM_FILES, DatasetDict(train=train, validation=validation), genuine)
    assert set(changed) == {"a {b}", "d  e", "<f>"}
    said = "cannot write 3 of 5 distinct targets (5 of 8 rows), for example 'a {b}' becomes 'a b'"
    assert f"{said}; a perfect model scores exact_match 0.5000 on validation." in caplog.text


def test_free_text_that_comes_back_is_not_mentioned(genuine, caplog):
    rows = Dataset.from_dict({"source": ["x"], "target": ["Hello , world"]})
    assert report_free_text(CUSTOM_FILES, DatasetDict(test=rows), genuine) == {}
    assert caplog.text == ""


def test_a_run_tells_of_rows_in_its_log_and_of_targets_on_its_page(values, tmp_path):
    rows = [("red house", "red"), ("blue " * 20, "{blue}"), ("", ""), ("old door", "red")]
    for split in ("train", "validation", "test"):
        values[f"{split}_file"] = str(write(tmp_path / f"{split}.tsv", tsv(("source", "target"), *rows)))
    result = run_experiment(read_experiment({**values, "max_steps": 1, "max_source_length": 8}))
    assert result["metrics"]["test"]["unwritable"] == 1 / 4
    folder = tmp_path / "outputs" / "colours"
    log, page = ((folder / name).read_text() for name in ("log.txt", "README.md"))
    assert "own_files: 1 targets of" in log
    assert "are empty (row 3)." in log
    assert "own_files, split train: 1 of 4 sources are truncated to 8 tokens, max_source_length (row 2)." in log
    assert "cannot write 1 of 3 distinct targets (3 of 12 rows)" in log
    assert "test targets that the tokenizer cannot write" in page
    assert json.loads((folder / "metrics.json").read_text())["metrics"]["test"]["unwritable"] == 1 / 4
