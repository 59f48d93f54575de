"""The tasks as a classifier has them: texts, labels, numbers, and several tasks under one head."""

import numpy as np
import pytest
import torch

import adapters
from seq2seq.classification.labels import label_map
from seq2seq.classification.workload import ClassificationWorkload
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.predicting import predict
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment
from seq2seq.tasks.registry import TASKS, get_task
from seq2seq.tasks.task_spec import columns_of

PAIR = ["world_sentiment", "world_entailment"]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.texts])
def test_texts_have_the_columns_of_the_source_and_no_word_of_the_task(name):
    spec = TASKS[name]
    classified = spec.of_texts()
    assert classified.input_columns == columns_of(spec.source)
    row = {column: f"<{column}>" for column in spec.columns} | {"idx": {"paragraph": 0, "question": 1}}
    answers = {"target": "0"} if spec.labels is None else {spec.target_column: "1"}
    example = classified.example({**row, **answers, "label": "1", "score": "1"})
    assert "source" not in example
    text = " ".join(example[column] for column in classified.inputs)
    assert name not in text.replace("<", " <").split()
    assert ":" not in text


def test_similarity_is_a_number_that_is_not_rounded():
    spec = get_task("stsb").of_texts()
    assert spec.target_of({"label": 3.1, "sentence1": "a", "sentence2": "b"}) == "3.1"
    assert get_task("stsb").target_of({"label": 3.1, "sentence1": "a", "sentence2": "b"}) == "3.2"
    assert spec.parse("4.987") == 4.987


def test_one_map_has_each_label_of_all_tasks_once():
    specs = [get_task(name).of_texts() for name in ("rte", "mnli", "wnli")]
    assert label_map(specs) == ("entailment", "not_entailment", "neutral", "contradiction")
    assert label_map([get_task("stsb").of_texts()]) == ()


def test_your_own_labels_are_sorted_as_numbers_or_as_texts(tmp_path):
    for labels, expected in ((["10", "9", "2"], ("2", "9", "10")), (["b", "a", "10"], ("10", "a", "b"))):
        path = tmp_path / f"{labels[0]}.tsv"
        path.write_text("text\tlabel\n" + "".join(f"x\t{label}\n" for label in labels))
        assert ClassificationWorkload(train_file=str(path)).with_labels().labels == expected


def test_a_missing_label_is_none_and_the_text_nan_is_one(tmp_path):
    path = tmp_path / "labels.jsonl"
    cells = ['"eng"', '"nan"', "NaN", "null", "[]", '""', "true"]
    path.write_text("".join(f'{{"text": "x", "label": {cell}}}\n' for cell in cells))
    assert ClassificationWorkload(train_file=str(path)).with_labels().labels == ("eng", "nan", "true")


@pytest.fixture
def several(values):
    for key in ("train_file", "validation_file", "test_file"):
        del values[key]
    values |= {f"max_{split}_samples": 32 for split in ("train", "validation", "test")}
    return values | {"model_name_or_path": "assets/small_world/backbone", "max_length": 64, "max_steps": 2}


def test_tasks_share_a_head_and_have_their_own_adapters(several, tmp_path):
    mixture = {"tasks": ["world_paraphrase", "world_entailment"], "adapters": "per_task", "batches": "one_task"}
    several |= {"mixture": mixture, "eval_strategy": "no", "do_eval": False}
    result = run_experiment(read_experiment(several))
    attached = {entry["kind"] for entry in result["adapter"]}
    assert attached == {"tt_lora"}
    folder = tmp_path / "outputs" / "pairs"
    saved = adapters.saved.checkpoint.read_checkpoint(folder / "adapter")
    assert [task for task, _ in saved.adapters] == [*mixture["tasks"], None]
    assert saved.labels == ["different", "same", "true", "false"]
    (tmp_path / "new.tsv").write_text("sentence1\tsentence2\nthe dog saw the cat .\tthe cat was seen .\n")
    rows = predict(folder, tmp_path / "new.tsv", "world_entailment").evaluation.rows
    assert {row["prediction"] for row in rows["world_entailment"]} <= {"true", "false"}


def test_a_row_is_predicted_among_the_labels_of_its_task(several):
    experiment = read_experiment({**several, "mixture": {"tasks": ["world_paraphrase", "world_entailment"]}})
    prepared = prepare(experiment, None)
    trainer = experiment.workload.make_trainer(prepared)
    logits = np.array([[9.0, 1.0, 2.0, 3.0], [1.0, 2.0, 9.0, 3.0], [np.nan, 0.0, 0.0, 0.0]], dtype=np.float32)
    first, second = prepared.data.tasks.values()
    assert trainer.answers_of(first, logits) == ["different", "same", "not finite"]
    assert trainer.answers_of(second, logits) == ["false", "true", "not finite"]
    labels = {label for task in (first, second) for label in task.encoded["train"]["labels"]}
    assert labels == {0, 1, 2, 3}


def test_the_rows_of_a_split_are_those_of_the_text_workload(several):
    """The policy and the seed decide, not the workload."""
    keys = {**several, "task_name": "world_sentiment", "data_seed": 7}
    texts = prepare(read_experiment(keys), None).data.tasks["world_sentiment"].splits
    del keys["max_length"], keys["workload"]
    sources = prepare(read_experiment(keys), None).data.tasks["world_sentiment"].splits
    for split in sources:
        assert sources[split]["row"][:] == texts[split]["row"][:]
        assert sources[split]["target"][:] == texts[split]["target"][:]


def test_truncated_rows_are_counted_and_named(values, caplog, tmp_path):
    prepared = prepare(read_experiment({**values, "max_length": 8}), None)
    rows = prepared.data.samples()["own_files"]
    assert {len(ids) for ids in rows["input_ids"]} == {8}
    assert (
        "split train: 96 of 96 rows are truncated to 8 tokens, max_length (rows 1, 2, 3, 4, 5 and 91 more)"
        in caplog.text
    )
    assert torch.tensor(rows["labels"]).max() == 2
