"""Causal runs from JSON to result: rows of tasks and texts, with what every run can do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from run_seq2seq import main
from seq2seq.causal import baselines
from seq2seq.causal.decoder import load_decoder_tokenizer
from seq2seq.causal.perplexity import main as perplexity
from seq2seq.causal.workload import CausalWorkload
from seq2seq.configuration.reading import read_experiment
from seq2seq.report.__main__ import main as report
from seq2seq.running.predicting import predict
from seq2seq.running.runner import run_experiment
from tests.processes import torchrun
from tests.seq2seq.causal_models import save_model
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run
from tests.versions import CHECKPOINTING

COLOURS = ("red", "blue", "green")


def records(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"predictions_{name}.jsonl").read_text().splitlines()]


def folder_of(values):
    return Path(values["output_root"]) / values["experiment_name"]


def untrained(values):
    """Evaluation of the model as it is."""
    return {**values, "do_train": False, "adapter": {"kind": "none"}, "baselines": []}


def text_log_p(model, tokenizer, prompt: str, answer: str) -> float:
    """log p of an answer and its end after a prompt, one token at a time in float64."""
    before = tokenizer(prompt)["input_ids"]
    ids = [*before, *tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(log_p[k - 1, ids[k]].item() for k in range(len(before), len(ids)))


def test_a_label_is_chosen_by_its_likelihood_after_the_prompt(task_values):
    """Labels of several tokens each; the mean over their tokens would choose others."""
    labels = {"red": "ww", "blue": "eeeeeeeee", "green": "rrrrrrrrr"}
    task_values["tasks"]["colours"]["labels"] = labels
    task_values["max_target_length"] = 20
    result = run_experiment(read_experiment(untrained(task_values)))
    workload = read_experiment(task_values).workload
    tokenizer = load_decoder_tokenizer(workload)
    model = AutoModelForCausalLM.from_pretrained(task_values["model_name_or_path"]).double()
    rows = records(folder_of(task_values), "test")
    assert len(rows) == 13
    differs = 0
    for row in rows:
        scores = [text_log_p(model, tokenizer, f"{row['source']}\nAnswer:", f" {label}") for label in labels.values()]
        means = [score / (len(label) + 2) for score, label in zip(scores, labels.values(), strict=True)]
        assert row["prediction"] == [*labels.values()][int(np.argmax(scores))]
        differs += np.argmax(scores) != np.argmax(means)
    assert differs
    right = sum(row["prediction"] == row["target"] for row in rows)
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(right / len(rows))
    assert result["metrics"]["test"]["invalid"] == 0


def test_equal_likelihoods_give_the_first_label(task_values, tmp_path):
    """All weights are zero, and so all tokens equally likely: labels of the same length tie."""
    folder = save_model(tmp_path / "zeros")
    model = AutoModelForCausalLM.from_pretrained(folder)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.save_pretrained(folder)
    task_values["tasks"]["colours"]["labels"] = {"green": "green", "blue": "black", "red": "white"}
    run_experiment(read_experiment({**untrained(task_values), "model_name_or_path": str(folder)}))
    assert {row["prediction"] for row in records(folder_of(task_values), "test")} == {"green"}


def test_a_task_is_learned_and_beats_its_baselines(task_values):
    task_values |= {"num_train_epochs": 12, "baselines": ["majority", "frozen_backbone"], "packing": True}
    result = run_experiment(read_experiment(task_values))
    assert result["metrics"]["test"]["accuracy"] > 0.9
    assert result["baselines"]["majority"]["accuracy"] < 0.6
    assert result["costs"]["unit"] == "tokens"
    history = json.loads((folder_of(task_values) / "history.json").read_text())
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_accumulation_gives_the_curve_of_one_batch(packing, task_values):
    """48 rows with targets of 4 to 6 tokens: batches of 16, or two micro-batches of 8."""
    task_values |= {"packing": packing, "max_grad_norm": 0, "do_predict": False, "do_eval": False}
    task_values |= {"eval_strategy": "no", "optim": "sgd", "num_train_epochs": 1}
    run_experiment(read_experiment(task_values))
    micro = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "experiment_name": "micro"}
    run_experiment(read_experiment({**task_values, **micro}))
    curves = []
    for name in ("run", "micro"):
        path = Path(task_values["output_root"]) / name / "history.json"
        curves.append([entry["loss"] for entry in json.loads(path.read_text()) if "loss" in entry])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_free_text_is_generated_and_its_loss_is_the_targets(values, rows, text):
    files = {f"{split}_file": str(rows / f"{split}.tsv") for split in ("train", "validation", "test")}
    forgotten = {"forgetting_file": str(text / "test.txt"), "window": 64}
    learned = {"num_train_epochs": 15, "max_target_length": 8}
    result = run_experiment(read_experiment({**values, **files, **forgotten, **learned}))
    assert result["metrics"]["test"]["exact_match"] > 0.9
    assert {row["prediction"] for row in records(folder_of(values), "test")} <= {*COLOURS}
    before, after = result["forgetting"]["before"], result["forgetting"]["after"]
    assert before["perplexity"] != after["perplexity"]
    page = (folder_of(values) / "README.md").read_text()
    assert f"| perplexity of a general text | {before['perplexity']:.4f} before" in page


def test_the_forgotten_text_is_scored_as_a_corpus_is(task_values, corpus_values, text):
    forgotten = {"forgetting_file": str(text / "test.txt"), "window": 32}
    result = run_experiment(read_experiment({**untrained(task_values), **forgotten}))
    other = run_experiment(read_experiment({**untrained(corpus_values), "experiment_name": "other"}))
    for moment in ("before", "after"):
        assert result["forgetting"][moment] == {
            name: pytest.approx(other["metrics"]["test"][name]) for name in result["forgetting"][moment]
        }


def test_a_text_is_learned_and_the_run_shows_how(corpus_values):
    result = run_experiment(read_experiment({**corpus_values, "num_train_epochs": 6, "baselines": ["unigram"]}))
    metrics = result["metrics"]["test"]
    assert metrics["perplexity"] < result["baselines"]["unigram"]["perplexity"]
    assert metrics["average_metrics"] == metrics["log_likelihood"] == pytest.approx(-math.log(metrics["perplexity"]))
    folder = folder_of(corpus_values)
    windows = records(folder, "test_windows")
    assert sum(row["log_likelihood"] for row in windows) / sum(row["tokens"] for row in windows) == pytest.approx(
        metrics["log_likelihood"]
    )
    samples = records(folder, "test_continuations")
    whole = (Path(corpus_values["corpus"]["test"])).read_text()
    assert len(samples) == 3
    assert all(row["prompt"] + row["text"] in whole for row in samples)
    page = (folder / "README.md").read_text()
    assert samples[0]["prediction"] in page
    assert "| test perplexity |" in page
    assert "| test bits per byte |" in page


def test_the_unigram_baseline_is_counted(corpus_values, monkeypatch):
    monkeypatch.setattr(baselines, "PART", 7)
    result = run_experiment(read_experiment({**corpus_values, "num_train_epochs": 1, "baselines": ["unigram"]}))
    train = Path(corpus_values["corpus"]["train"]).read_bytes()
    test = Path(corpus_values["corpus"]["test"]).read_bytes()
    log_p = sum(math.log((train.count(bytes([byte])) + 1) / (len(train) + 257)) for byte in test)
    assert result["baselines"]["unigram"]["log_likelihood"] == pytest.approx(log_p / len(test))


def test_last_words_are_predicted_from_what_comes_before(corpus_values, decoder, tmp_path):
    """Against one forward pass of each text in float64; accuracy by the most likely tokens, of which all must be it."""
    file, texts = tmp_path / "last.jsonl", ["the door is red", "a blue house , a b", "red red red red"]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = run_experiment(read_experiment({**untrained(corpus_values), "last_words": str(file)}))
    tokenizer = load_decoder_tokenizer(read_experiment(corpus_values).workload)
    model = AutoModelForCausalLM.from_pretrained(decoder).double()
    log_p, right = [], []
    for text in texts:
        ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
        count = len(text.split()[-1]) + 1  # a token for each byte of the word and for the space before it
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        log_p.append(sum(scores[k - 1, ids[k]].item() for k in range(len(ids) - count, len(ids))))
        right.append(scores[-count - 1 : -1].argmax(-1).tolist() == ids[-count:])
    metrics = result["metrics"]["test"]
    assert metrics["last_word_perplexity"] == pytest.approx(math.exp(-sum(log_p) / 3), rel=1e-4)
    assert metrics["last_word_accuracy"] == pytest.approx(sum(right) / 3)
    assert "last_word_accuracy" not in result["metrics"]["validation"]


@pytest.mark.parametrize("has_target", [True, False])
def test_rows_of_a_file_are_predicted(has_target, task_values, tmp_path):
    run_experiment(read_experiment({**task_values, "num_train_epochs": 1}))
    table = tmp_path / "new.tsv"
    table.write_text("source\ttarget\nred 1\tred\nblue 2\tblue\n" if has_target else "source\nred 1\nblue 2\n")
    evaluation = predict(folder_of(task_values), table).evaluation
    (found,) = evaluation.rows.values()
    assert [row["source"] for row in found] == ["red 1", "blue 2"]
    assert all(row["prediction"] in COLOURS for row in found)
    assert ("accuracy" in evaluation.metrics) == has_target


def test_a_text_is_scored_by_a_finished_run(corpus_values, text, tmp_path):
    result = run_experiment(read_experiment({**corpus_values, "num_train_epochs": 1}))
    evaluation = predict(folder_of(corpus_values), text / "test.txt").evaluation
    assert evaluation.metrics["perplexity"] == pytest.approx(result["metrics"]["test"]["perplexity"])
    assert [*evaluation.rows] == ["windows"]


def test_a_sweep_ends_in_a_report_of_its_own(corpus_values, tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**corpus_values, "num_train_epochs": 1, "sweep": {"seed": [0, 1]}}))
    assert main([str(path)]) == 0
    own = tmp_path / "outputs" / "run" / "report"
    assert str(own / "report.md") in capsys.readouterr().out
    assert (own / "learning_curves.png").is_file()
    assert report([str(tmp_path / "outputs")]) == 0
    for folder in (own, tmp_path / "outputs" / "report"):
        page = (folder / "report.md").read_text()
        assert "colours" in page
        assert "log-likelihood per token" in page


LORA = {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"}


def test_an_adapter_is_trained_and_merged_for_scores(corpus_values):
    """Its teacher is the base model: the loss in the log is the mixture, that of the validation is not."""
    values = {**corpus_values, "adapter": LORA, "distill": {"weight": 0.1, "temperature": 2.0}, "num_train_epochs": 4}
    result = run_experiment(read_experiment({**values, "baselines": ["frozen_backbone", "random_backbone"]}))
    assert result["metrics"]["test"]["perplexity"] < result["baselines"]["frozen_backbone"]["perplexity"]
    assert result["merge_difference"] < 1e-5
    assert 0 < result["parameters"]["trainable_parameters"] < 3000
    history = json.loads((folder_of(values) / "history.json").read_text())
    evaluated = [entry for entry in history if "eval_loss" in entry][-1]
    assert evaluated["eval_loss"] == pytest.approx(-evaluated["eval_log_likelihood"])


@pytest.mark.parametrize(
    "options",
    [
        {CHECKPOINTING: True, "bf16": True},
        {"dtype": "bfloat16", "label_smoothing_factor": 0.1},
        {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
            "warmup_steps": 0.1,
            "window": 16,
            "stride": 5,
            "bos": "window",
        },
    ],
    ids=lambda options: "-".join(options),
)
def test_options_train_and_measure_something_finite(options, corpus_values):
    values = {**corpus_values, "adapter": LORA, "num_train_epochs": 1, "continuations": 1}
    values["corpus"] = {**values["corpus"], "max_tokens": {"train": 900, "validation": 100, "test": 100}}
    result = run_experiment(read_experiment({**values, **options}))
    assert math.isfinite(result["metrics"]["test"]["perplexity"])
    assert result["metrics"]["test"]["log_likelihood"] > -7


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_each_task_of_a_mixture_has_its_own_adapter(packing, task_values, tmp_path):
    task = task_values["tasks"]["colours"]
    free = {**task, "labels": None, "metrics": ["exact_match"]}
    mixture = {"tasks": ["colours", "free"], "batches": "one_task", "adapters": "per_task"}
    values = {**task_values, "tasks": {"colours": task, "free": free}, "task_name": None, "mixture": mixture}
    values |= {"adapter": LORA, "packing": packing, "max_target_length": 8, "per_device_train_batch_size": 8}
    result = run_experiment(read_experiment(values))
    metrics = result["metrics"]["test"]
    mean = (metrics["colours/accuracy"] + metrics["free/exact_match"]) / 2
    assert metrics["average_metrics"] == pytest.approx(mean)
    table = tmp_path / "new.tsv"
    table.write_text("source\nred 1\n")
    assert [*predict(folder_of(values), table, task="free").evaluation.rows] == ["free"]


@pytest.mark.parametrize("kind", ["task", "corpus"])
def test_a_stopped_run_resumes_to_the_same_curve(kind, task_values, corpus_values, tmp_path):
    values = task_values if kind == "task" else corpus_values
    values |= {"num_train_epochs": 3, "save_total_limit": 9, "eval_strategy": "steps", "eval_steps": 4}
    values |= {"save_strategy": "steps", "save_steps": 4}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with stopping_at(7, CausalWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    assert not (tmp_path / "outputs" / "run" / "metrics.json").exists()
    assert main([str(path)]) == 0
    assert main([str(path), "experiment_name=whole"]) == 0
    assert_same_run(tmp_path / "outputs" / "whole", tmp_path / "outputs" / "run")


@pytest.mark.slow
def test_two_processes_measure_what_one_does(task_values, corpus_values, tmp_path):
    """13 rows, or windows that do not divide by two: a row that pads the last batch is not counted."""
    kinds = {"task": untrained(task_values), "corpus": untrained(corpus_values)}
    files = [tmp_path / f"{kind}.json" for kind in kinds]
    for (kind, values), path in zip(kinds.items(), files, strict=True):
        path.write_text(json.dumps({**values, "experiment_name": kind, "per_device_eval_batch_size": 2}))
    assert torchrun(main, [*map(str, files)]) == [0, 0]
    for kind, values in kinds.items():
        shared = json.loads((tmp_path / "outputs" / kind / "metrics.json").read_text())["metrics"]
        alone = run_experiment(read_experiment({**values, "experiment_name": f"{kind}_alone"}))["metrics"]
        for split, metrics in alone.items():
            assert shared[split] == {name: pytest.approx(value) for name, value in metrics.items()}


def test_a_text_is_scored_from_the_terminal(corpus_values, text, decoder, capsys):
    result = run_experiment(read_experiment({**corpus_values, "num_train_epochs": 1}))
    folder, path = str(folder_of(corpus_values)), str(text / "test.txt")
    assert perplexity([folder, path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity"] == pytest.approx(result["metrics"]["test"]["perplexity"])
    assert perplexity([str(decoder), path, "--window", "32", "--stride", "8", "--max-tokens", "50"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    for arguments, reason in (
        (["--stride", "32", "--window", "32"], "--stride"),
        (["--max-tokens", "1"], "at least 2"),
    ):
        assert perplexity([str(decoder), path, *arguments]) == 2
        assert reason in capsys.readouterr().err
    assert perplexity([str(decoder), "nowhere.txt"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err
