"""A finished run predicts the rows of a file, with and without targets."""

import json

import pytest

from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.predicting import Predicted, metric_lines, predict
from seq2seq.running.runner import run_experiment
from seq2seq.tasks.prediction import has_target
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.rows import to_dataset
from seq2seq.workload import Evaluation

PAIR = ["world_sentiment", "world_entailment"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """The folder of a finished run, its result, and its rows; the files it was trained on are gone."""
    root, colours = tmp_path_factory.mktemp("finished"), request.getfixturevalue("colours")
    files = {}
    for split in ("train", "validation", "test"):
        files[split] = root / f"{split}.tsv"
        files[split].write_text((colours / f"{split}.tsv").read_text())
    values = {
        "experiment_name": "colours",
        "output_root": str(root),
        "model_name_or_path": str(request.getfixturevalue("backbone")),
        **{f"{split}_file": str(path) for split, path in files.items()},
        "max_target_length": 4,
        "adapter": {"kind": "tt_lora", "rank": 4, "scaling": 4.0},
        "learning_rate": 0.02,
        "num_train_epochs": 6,
        "per_device_train_batch_size": 16,
        "disable_tqdm": True,
    }
    result = run_experiment(read_experiment(values))
    assert result["metrics"]["test"]["exact_match"] > 0  # which the base alone does not reach
    for path in files.values():
        path.unlink()
    return root / "colours", result, (colours / "test.tsv").read_text()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_predictions_of_the_test_file_are_those_of_the_run(finished, tmp_path):
    folder, result, text = finished
    (tmp_path / "new.tsv").write_text(text)
    predicted = predict(folder, tmp_path / "new.tsv")
    assert predicted.output == folder / "predictions" / "new.jsonl"
    assert lines(predicted.output) == lines(folder / "predictions_test.jsonl")
    assert predicted.evaluation.metrics == result["metrics"]["test"]


def test_rows_without_targets_get_the_same_predictions_and_no_metric(finished, tmp_path, capsys):
    folder, _, text = finished
    sources = [line.split("\t")[0] for line in text.splitlines()]
    (tmp_path / "new.csv").write_text("\n".join(sources) + "\n")
    assert main(["predict", str(folder), str(tmp_path / "new.csv"), "--output", str(tmp_path / "out" / "a.jsonl")]) == 0
    expected = [{key: row[key] for key in ("source", "prediction")} for row in lines(folder / "predictions_test.jsonl")]
    assert lines(tmp_path / "out" / "a.jsonl") == expected
    shown = capsys.readouterr().out
    assert "24 rows, the first 5" in shown
    assert "exact_match" not in shown


METRIC_LINES = [
    ({}, []),
    ({"spearman": 0.5, "average_metrics": 0.5}, ["Spearman 0.5000"]),
    (
        {"accuracy": 0.0, "f1": 0.0, "average_metrics": 0.0, "invalid": 1.0},
        ["accuracy 0.0000†, F1 0.0000†", "† no answer is one of the labels"],
    ),
    (
        {"pearson": 0.0, "spearman": None, "average_metrics": 0.0, "constant_predictions": 1.0},
        ["Pearson 0.0000†, Spearman not finite", "† all answers are equal; the correlation is then reported as 0"],
    ),
]


@pytest.mark.parametrize(("metrics", "expected"), METRIC_LINES)
def test_metrics_have_names_and_footnotes(metrics, expected, values):
    assert metric_lines(Predicted(read_experiment(values), Evaluation(metrics, {}), None)) == expected


@pytest.mark.parametrize("cell", [None, "", float("nan"), []])
def test_a_metric_needs_the_target_of_every_row(cell, finished, tmp_path, caplog):
    rows = [{"source": "the house is red", "target": "red"}, {"source": "the door is blue", "target": cell}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = predict(finished[0], tmp_path / "new.jsonl").evaluation
    assert evaluation.metrics == {}
    assert [row.keys() for rows in evaluation.rows.values() for row in rows] == [{"source", "prediction"}] * 2
    assert "1 of 2 rows have no target (row 2)" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("new.tsv", "sentence\nthe house is red\n", ["new.tsv", "source"]),
        ("new.tsv", "source\ttarget\n", ["new.tsv", "at least one"]),
        ("new.jsonl", '{"source": "the house"}\n{"source": null}\n', ["row 2", "complete or remove"]),
        ("new.jsonl", '{"source": "the house"}\n{"source"\n', ["new.jsonl", "line 2"]),
        ("new.xls", "source\n", ["new.xls", ".tsv"]),
        ("missing.tsv", None, ["missing.tsv", "check the path"]),
    ],
)
def test_a_file_that_cannot_be_predicted_is_refused_in_one_sentence(name, text, words, finished, tmp_path, capsys):
    if text is not None:
        (tmp_path / name).write_text(text)
    output = tmp_path / "out.jsonl"
    assert main(["predict", str(finished[0]), str(tmp_path / name), "--output", str(output)]) == 2
    *_, sentence = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith("Refused: ")
    assert all(word in sentence for word in words), sentence
    assert not output.exists()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("per_device_eval_batch_size=0", "per_device_eval_batch_size"),
        ("generation_num_beams=0", "generation_num_beams"),
        ("dataloader_num_workers=-1", "dataloader_num_workers"),
        ("max_target_length=1", "max_target_length"),
        ("dataloader_prefetch_factor=2", "prefetch"),
        ("dataloader_persistent_workers=true", "dataloader_persistent_workers"),
        ("seed=-4", "seed"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(override, word, finished, tmp_path, capsys):
    (tmp_path / "new.tsv").write_text(finished[2])
    assert main(["predict", str(finished[0]), str(tmp_path / "new.tsv"), override]) == 2
    *_, sentence = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith("Refused: ")
    assert word in sentence


def test_keys_of_training_do_not_matter(finished, tmp_path):
    (tmp_path / "new.tsv").write_text(finished[2])
    overrides = ["dataloader_drop_last=true", "torch_compile=true", "torch_compile_backend=nope", "eval_strategy=steps"]
    predicted = predict(finished[0], tmp_path / "new.tsv", output=tmp_path / "out.jsonl", overrides=overrides)
    assert predicted.evaluation.metrics == finished[1]["metrics"]["test"]


def test_a_folder_without_a_finished_run_is_refused(finished, tmp_path):
    (tmp_path / "new.tsv").write_text(finished[2])
    with pytest.raises(ConfigurationError, match=r"folder of a finished run; got .* without config\.json"):
        predict(tmp_path, tmp_path / "new.tsv")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="without an adapter: let the run finish"):
        predict(tmp_path, tmp_path / "new.tsv")
    for output in (tmp_path, tmp_path / "new.tsv"):
        with pytest.raises(ConfigurationError, match="--output"):
            predict(finished[0], tmp_path / "new.tsv", output=output)


def test_a_run_of_several_tasks_predicts_each_with_its_adapters(values, tmp_path):
    for key in ("train_file", "validation_file", "test_file"):
        values[key] = None
    values |= {
        "mixture": {"tasks": PAIR, "adapters": "per_task", "batches": "one_task"},
        "model_name_or_path": "assets/small_world/backbone",
    }
    values |= {f"max_{split}_samples": 32 for split in ("train", "validation", "test")}
    values |= {"max_steps": 2, "eval_strategy": "no", "do_eval": False}
    run_experiment(read_experiment(values))
    folder = tmp_path / "outputs" / "colours"
    rows = [
        {"sentence1": "the dog saw the cat .", "sentence2": "the cat was seen ."},
        {"sentence1": "the robber mended a sofa .", "sentence2": "the robber mended a table ."},
    ]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigurationError, match=r"--task must name .* world_sentiment, world_entailment"):
        predict(folder, tmp_path / "new.jsonl")
    with pytest.raises(ConfigurationError, match="'world_entailmen': did you mean 'world_entailment'"):
        predict(folder, tmp_path / "new.jsonl", "world_entailmen")
    assert list(predict(folder, tmp_path / "new.jsonl", "world_entailment").evaluation.rows) == ["world_entailment"]


# raw rows without an answer, as the official files or the hub have them
UNANSWERED = {
    "cola": {"sentence": "The house is red.", "label": -1, "idx": 0},
    "rte": {"sentence1": "It rains.", "sentence2": "It is wet."},
    "wsc": {
        "text": "Mark told Pete he won .",
        "target": {"span1_text": "Mark", "span1_index": 0, "span2_text": "he", "span2_index": 3},
    },
    "squad": {"question": "Who?", "context": "Ann came.", "title": "x"},
    "record": {"passage": "Ann came.", "query": "@placeholder came.", "entities": ["Ann"]},
    "world_entailment": {"sentence1": "it rains .", "sentence2": "it is wet ."},
}


@pytest.mark.parametrize("name", UNANSWERED)
def test_rows_without_an_answer_are_recognised(name):
    assert not has_target(TASKS[name], UNANSWERED[name])


def test_rows_with_an_answer_are_recognised():
    assert has_target(TASKS["cola"], {"sentence": "The house is red.", "label": 0})
    assert has_target(TASKS["squad"], {"question": "Who?", "context": "Ann came.", "answers": {"text": ["Ann"]}})
    assert len(to_dataset(TASKS["cola"], [{"sentence": "a", "label": 0}], "here").examples) == 1
