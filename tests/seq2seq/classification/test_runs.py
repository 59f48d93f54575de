"""Runs of the workload classification: what they learn, save, resume and predict, on tiny models made here."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import adapters
from adapters import CheckpointError
from run_seq2seq import main
from seq2seq import export
from seq2seq.classification.workload import ClassificationWorkload
from seq2seq.configuration.reading import read_experiment
from seq2seq.configuration.sweep import load_cells
from seq2seq.report.__main__ import main as report
from seq2seq.report.collect import collect_runs
from seq2seq.running.predicting import predict
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment
from tests.processes import torchrun
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run

LABELS = ["blue", "green", "red"]


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(models, colours, tmp_path_factory):
    """A finished run, its configuration and its result."""
    values = {
        "experiment_name": "pairs",
        "workload": "classification",
        "output_root": str(tmp_path_factory.mktemp("outputs")),
        "model_name_or_path": str(models["bert"]),
        **{f"{split}_file": str(colours / f"{split}.tsv") for split in ("train", "validation", "test")},
        "max_length": 16,
        "adapter": {"kind": "tt_lora", "rank": 4, "scaling": 8.0},
        "baselines": ["majority", "bag_of_words", "frozen_backbone", "random_backbone"],
        "per_device_train_batch_size": 16,
        "num_train_epochs": 10,
        "learning_rate": 0.02,
        "disable_tqdm": True,
    }
    experiment = read_experiment(values)
    return experiment.run.directory, values, run_experiment(experiment)


def test_a_run_learns_and_its_rows_give_its_metrics(trained):
    folder, _, result = trained
    assert result["metrics"]["test"]["accuracy"] > 0.9
    assert set(result["baselines"]) == {"majority", "bag_of_words", "frozen_backbone", "random_backbone"}
    assert result["baselines"]["majority"]["accuracy"] < 0.6
    assert result["baselines"]["bag_of_words"]["accuracy"] == 1.0
    records = rows_of(folder / "predictions_test.jsonl")
    assert list(records[0]) == ["text", "text_pair", "target", "prediction"]
    assert (
        sum(row["target"] == row["prediction"] for row in records) / len(records)
        == result["metrics"]["test"]["accuracy"]
    )
    assert "mrpc" not in records[0]["text"]
    assert (folder / "curve.png").is_file()


def test_the_head_is_counted_apart_from_the_adapter(trained):
    folder, _, result = trained
    head = 16 * 3 + 3
    groups = result["parameters"]["groups"]
    assert groups["head"]["trainable"] == head
    assert result["parameters"]["trainable_parameters"] == groups["tt_lora"]["trainable"] + head
    assert f"| &emsp;beside these, in the head | {head} |" in (folder / "README.md").read_text()


def test_the_labels_are_saved_with_the_adapter_and_checked(trained, models, tmp_path):
    folder, _, _ = trained
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["labels"] == LABELS
    fresh = AutoModelForSequenceClassification.from_pretrained(models["bert"], num_labels=3)
    adapters.load(fresh, folder / "adapter")
    assert fresh.config.id2label == dict(enumerate(LABELS))
    other = {"id2label": dict(enumerate(reversed(LABELS))), "label2id": {}}
    swapped = AutoModelForSequenceClassification.from_pretrained(models["bert"], num_labels=3, **other)
    with pytest.raises(CheckpointError, match=r"keeps the label .* \['blue', 'green', 'red'\]"):
        adapters.load(swapped, folder / "adapter")


def test_plain_transformers_predict_the_same_with_the_saved_adapter(trained, models, colours):
    """The oracle: one row at a time, without padding, in the model that adapters.load gives."""
    folder, _, _ = trained
    model = AutoModelForSequenceClassification.from_pretrained(models["bert"], num_labels=3)
    adapters.load(model, folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(models["bert"])
    for row in rows_of(folder / "predictions_test.jsonl"):
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], row["text_pair"], return_tensors="pt")).logits
        assert model.config.id2label[logits.argmax().item()] == row["prediction"]


@pytest.mark.parametrize("what", ["run", "adapter"])
def test_an_exported_run_is_a_plain_classifier(what, trained, models, tmp_path):
    folder, _, _ = trained
    source = folder if what == "run" else folder / "adapter"
    assert (
        export.main([str(source), str(tmp_path / "plain"), *(["--base", str(models["bert"])] * (what != "run"))]) == 0
    )
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    rows = rows_of(folder / "predictions_test.jsonl")
    batch = tokenizer(
        [row["text"] for row in rows], [row["text_pair"] for row in rows], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        found = [model.config.id2label[index] for index in model.eval()(**batch).logits.argmax(1).tolist()]
    assert found == [row["prediction"] for row in rows]


def test_a_file_is_predicted_without_the_data_of_the_run(trained, tmp_path):
    """The labels are those of the adapter; a file without the column label gets predictions only."""
    folder, _, result = trained
    copy = tmp_path / "pairs"
    shutil.copytree(folder, copy)
    gone = [f"{split}_file=nowhere.tsv" for split in ("train", "validation", "test")]
    tested = rows_of(folder / "predictions_test.jsonl")
    lines = ["text\ttext_pair\tlabel", *(f"{row['text']}\t{row['text_pair']}\t{row['target']}" for row in tested)]
    (tmp_path / "all.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "new.tsv").write_text("\n".join(line.rpartition("\t")[0] for line in lines) + "\n")
    predicted = predict(copy, tmp_path / "all.tsv", overrides=gone).evaluation
    assert predicted.metrics == result["metrics"]["test"]
    unlabelled = predict(copy, tmp_path / "new.tsv", overrides=gone).evaluation
    assert unlabelled.metrics == {}
    assert [row["prediction"] for row in unlabelled.rows["own_files"]] == [row["prediction"] for row in tested]


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "t5"])
def test_every_architecture_starts_from_its_base_and_is_deterministic(name, values, models):
    """At step 0 the logits are those of the base with the new head, bit for bit; so is a second preparation."""
    experiment = read_experiment({**values, "model_name_or_path": str(models[name])})
    base = experiment.load_model().eval()
    one, two = (prepare(experiment, None) for _ in range(2))
    trainer = experiment.workload.make_trainer(one)
    batch = trainer.data_collator(list(trainer._remove_unused_columns(one.data.samples()["own_files"].take(8))))
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = [model.eval()(**batch).logits for model in (base, one.model, two.model)]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    assert logits[0].shape == (8, 3)
    assert labels.tolist() == [
        LABELS.index(target) for target in one.data.tasks["own_files"].splits["validation"]["target"][:8]
    ]
    assert one.model.config.pad_token_id == trainer.processing_class.pad_token_id


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_padding_changes_nothing_in_a_decoder(name, values, models):
    """The head of a decoder reads the last token that is not padding."""
    experiment = read_experiment({**values, "model_name_or_path": str(models[name])})
    prepared = prepare(experiment, None)
    trainer = experiment.workload.make_trainer(prepared)
    rows = list(trainer._remove_unused_columns(prepared.data.samples()["own_files"].take(4)))
    rows[1] = {key: value[:5] if isinstance(value, list) else value for key, value in rows[1].items()}
    together = trainer.data_collator(rows)
    model = prepared.model.eval()
    with torch.no_grad():
        padded = model(**{key: value for key, value in together.items() if key != "labels"}).logits
        for row, logits in zip(rows, padded, strict=True):
            alone = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            assert torch.allclose(alone, logits, atol=1e-5)


def test_numbers_are_regressed_against_a_float64_oracle(values, tmp_path):
    """One step of SGD on the head alone: the gradient of the mean squared error over 16 rows."""
    lines = [
        f"the {noun} is {colour}\t{1 + 0.25 * i + 0.5 * j}"
        for i, noun in enumerate(["house", "door", "cat", "dog"])
        for j, colour in enumerate(["red", "blue", "green", "old"])
    ]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tscore", *lines]) + "\n")
    task = {
        "files": {split: str(tmp_path / "train.tsv") for split in ("train", "validation", "test")},
        "texts": ["{text}"],
        "target": "{score}",
        "metrics": ["pearson", "spearman"],
    }
    for key in ("train_file", "validation_file", "test_file"):
        del values[key]
    values |= {"tasks": {"scores": task}, "task_name": "scores", "max_steps": 1, "optim": "sgd", "learning_rate": 0.5}
    values |= {"lr_scheduler_type": "constant", "max_grad_norm": 0, "load_best_model_at_end": False}
    values |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "adapter": {"kind": "head"}}
    experiment = read_experiment({**values, "experiment_name": "oracle"})
    prepared = prepare(experiment, None)
    model = prepared.model.double().eval()
    rows = prepared.data.samples()["scores"]
    trainer = experiment.workload.make_trainer(prepared)
    batch = trainer.data_collator(list(trainer._remove_unused_columns(rows)))
    labels = batch.pop("labels").double()
    pooled = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].detach()))
    errors = model(**batch).logits.squeeze(-1).detach() - labels
    weight = model.classifier.weight.detach() - 0.5 * 2 * (errors @ pooled[0]) / 16  # (16,) x (16, hidden)
    result = run_experiment(experiment := read_experiment(values))
    saved = adapters.saved.folder.read_tensors(experiment.run.directory / "adapter")[0]["classifier.weight"]
    assert torch.allclose(saved.double(), weight, atol=1e-5)
    assert set(result["metrics"]["test"]) >= {"pearson", "spearman"}
    assert math.isfinite(float(rows_of(experiment.run.directory / "predictions_test.jsonl")[0]["prediction"]))


def test_a_head_is_frozen_and_the_same_in_prediction(values, tmp_path):
    """It is not saved: the seed gives it again."""
    experiment = read_experiment({**values, "head": "frozen"})
    result = run_experiment(experiment)
    assert result["parameters"]["groups"]["head"]["trainable"] == 0
    folder = experiment.run.directory
    predicted = predict(folder, Path(values["test_file"])).evaluation.rows["own_files"]
    assert [row["prediction"] for row in predicted] == [
        row["prediction"] for row in rows_of(folder / "predictions_test.jsonl")
    ]


def test_an_interrupted_run_resumes_to_the_same_curve(values, tmp_path, config_file):
    values |= {"logging_steps": 1, "save_total_limit": 9}
    config_file.write_text(json.dumps(values))
    with stopping_at(8, ClassificationWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    assert main([str(config_file)]) == 0
    assert main([str(config_file), "experiment_name=whole"]) == 0
    assert_same_run(tmp_path / "outputs" / "whole", tmp_path / "outputs" / "pairs")


def test_a_sweep_and_its_report_count_adapters_without_the_head(values, tmp_path, config_file):
    small = {"num_train_epochs": 1, "sweep": {"adapter": [{"kind": "tt_lora", "rank": 2}, {"kind": "head"}]}}
    config_file.write_text(json.dumps({**values, **small}))
    for cell in load_cells([config_file]):
        run_experiment(cell)
    assert report([str(tmp_path / "outputs")]) == 0
    runs = collect_runs(tmp_path / "outputs")
    assert [run.state for run in runs] == ["finished"] * 2
    counts = {run.config["adapter"][0]["kind"]: run.result.parameters.without_head for run in runs}
    assert counts["head"] == 0
    groups = next(run.result.parameters.groups for run in runs if run.config["adapter"][0]["kind"] == "tt_lora")
    assert counts["tt_lora"] == groups["tt_lora"]["trainable"] > 0
    assert "2 finished" in (tmp_path / "outputs" / "report" / "report.md").read_text()


@pytest.mark.slow
def test_two_processes_train_as_one(values, tmp_path):
    """The sum over rows is exact: two processes with half the batch give the same curve."""
    values |= {"logging_steps": 1, "use_cpu": True, "num_train_epochs": 1, "baselines": ["frozen_backbone"]}
    for name, size in (("one", 16), ("two", 8)):
        keys = {**values, "experiment_name": name, "per_device_train_batch_size": size}
        (tmp_path / f"{name}.json").write_text(json.dumps(keys))
    assert main([str(tmp_path / "one.json")]) == 0
    assert torchrun(main, [str(tmp_path / "two.json")]) == [0, 0]
    one, two = (json.loads((tmp_path / "outputs" / name / "history.json").read_text()) for name in ("one", "two"))
    losses = [[entry["loss"] for entry in history if "loss" in entry] for history in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    found = [json.loads((tmp_path / "outputs" / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert found[1]["metrics"]["test"] == pytest.approx(found[0]["metrics"]["test"])
    assert set(found[1]["baselines"]) == {"frozen_backbone"}
