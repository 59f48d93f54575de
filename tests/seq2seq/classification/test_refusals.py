"""What a classification run refuses: one sentence, and nothing is written."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, BertForMaskedLM, BertForSequenceClassification

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment

NO_FILES = {"train_file": None, "validation_file": None, "test_file": None}


def mixture(*tasks):
    return {**NO_FILES, "mixture": {"tasks": list(tasks)}}


REFUSED = {
    "a task of three texts": ({**NO_FILES, "task_name": "copa"}, ["'copa'", "not a text or a pair", "mrpc"]),
    "a word in two texts": ({**NO_FILES, "task_name": "wic"}, ["'wic'"]),
    "free text": ({**NO_FILES, "task_name": "squad"}, ["'squad'", '"workload": "text"']),
    "numbers and labels": (mixture("stsb", "mrpc"), ["'mixture'", "'stsb', whose answers are numbers", "'mrpc'"]),
    "smoothed numbers": (
        {**NO_FILES, "task_name": "stsb", "label_smoothing_factor": 0.1},
        ["'label_smoothing_factor'", "numbers"],
    ),
    "a frozen head in a trained model": (
        {"head": "frozen", "adapter": {"kind": "none"}},
        ["'head'", "'frozen' with the adapter kind 'none'"],
    ),
    "a frozen head that trains": (
        {"head": "frozen", "adapter": {"kind": "head"}},
        ["'head'", "'frozen' with the adapter kind 'head'"],
    ),
    "labels of a task": ({**NO_FILES, "task_name": "rte", "labels": ["a", "b"]}, ["'labels'", "'rte'", "its own"]),
    "one label": ({"labels": ["a"]}, ["'labels'", "two or more"]),
    "a label twice": ({"labels": ["a", "b", "a"]}, ["'labels'", "each once"]),
    "a label that is missing": ({"labels": ["red", "blue"]}, ["'green'", "row", "add it to the labels"]),
    "more tokens than positions": ({"max_length": 33}, ["'max_length'", "at most 32", "got 33"]),
    "a head of another name": ({"head": "trainable"}, ["'head'", "'trainable'"]),
    "a key of the text workload": ({"max_target_length": 4}, ["'max_target_length' belongs to the workload 'text'"]),
    "its other name": ({"max_seq_length": 4}, ["'max_seq_length'", "max_length"]),
    "a split of your own files": ({"split_policy": "tenth"}, ["'split_policy'", "your own files", "leave it out"]),
    "a split of given splits": (
        {**NO_FILES, "task_name": "world_entailment", "split_policy": "tenth"},
        ["'split_policy'", "'world_entailment'", "are given"],
    ),
    "free text as a baseline's metric": ({"metric_for_best_model": "f1"}, ["'metric_for_best_model'", "accuracy"]),
}


@pytest.mark.parametrize(("changes", "parts"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_written(changes, parts, values, tmp_path):
    with pytest.raises(ConfigurationError) as refusal:
        run_experiment(read_experiment({**values, **changes}))
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert not (tmp_path / "outputs").exists()


LABELS = {
    "numbers with a fraction": (["1.5", "2.5", "3.0"], ["the number 1.5", "pearson"]),
    "one label": (["a", "a"], ["two to 1000 different labels", "got 1"]),
    "as many as rows": ([f"text {k}" for k in range(1200)], ["two to 1000 different labels", "got 1200"]),
}


@pytest.mark.parametrize(("labels", "parts"), LABELS.values(), ids=LABELS)
def test_a_column_that_is_no_label_is_refused(labels, parts, values, tmp_path):
    lines = ["text\tlabel", *(f"the cat is {k}\t{label}" for k, label in enumerate(labels))]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigurationError) as refusal:
        run_experiment(read_experiment({**values, "train_file": str(tmp_path / "train.tsv")}))
    assert all(part in str(refusal.value) for part in parts), refusal.value


@pytest.mark.parametrize("cells", [(["a"], ["b"]), ({"x": 1}, {"x": 2}), ([None], [1]), (float("inf"), "a")], ids=str)
def test_a_label_that_is_no_text_is_refused_by_row(cells, values, tmp_path):
    rows = [{"text": "the cat", "label": cell} for cell in cells]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {key: str(tmp_path / "train.jsonl") for key in ("train_file", "validation_file", "test_file")}
    with pytest.raises(ConfigurationError, match=r"A cell holds text.*got (\[|\{|inf).* in row 1 of "):
        run_experiment(read_experiment({**values, **files}))


def test_a_label_that_the_train_file_lacks_is_refused_by_row(values, tmp_path):
    """Also if it spells an index of another label."""
    (tmp_path / "train.tsv").write_text("text\tlabel\nthe cat\t1\nthe dog\t2\nthe door\t10\n")
    (tmp_path / "test.tsv").write_text("text\tlabel\nthe cat\t1\nthe dog\t0\n")
    files = {key: str(tmp_path / "train.tsv") for key in ("train_file", "validation_file")}
    with pytest.raises(ConfigurationError, match=r"cells '1', '2', '10'; got '0' in row 2"):
        run_experiment(read_experiment({**values, **files, "test_file": str(tmp_path / "test.tsv")}))


def test_a_model_without_a_tokenizer_is_refused(values, models, tmp_path):
    shutil.copytree(models["bert"], tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "*vocab*"))
    with pytest.raises(ConfigurationError, match=r"'model_name_or_path' names a model with a tokenizer; .*bare"):
        run_experiment(read_experiment({**values, "model_name_or_path": str(tmp_path / "bare")}))


def test_positions_of_roberta_begin_after_its_padding(values, models):
    with pytest.raises(ConfigurationError, match=r"'max_length' must be at most 31, .* got 32"):
        run_experiment(read_experiment({**values, "model_name_or_path": str(models["roberta"]), "max_length": 32}))


def test_a_row_without_a_token_is_refused(values, models, tmp_path):
    """A decoder's tokenizer adds no special tokens, so that nothing of an empty text is left."""
    (tmp_path / "empty.tsv").write_text("text\tlabel\nthe cat\tred\n\tblue\n")
    files = dict.fromkeys(("train_file", "validation_file", "test_file"), str(tmp_path / "empty.tsv"))
    with pytest.raises(ConfigurationError, match=r"at least one token; got 1 rows of own_files, split train.*row 2"):
        run_experiment(read_experiment({**values, **files, "model_name_or_path": str(models["gpt2"])}))


def test_a_body_that_is_new_in_part_is_reported(values, models, tmp_path, caplog):
    """BertForMaskedLM has no pooler, on which a classifier stands."""
    model = BertForMaskedLM.from_pretrained(models["bert"])
    model.save_pretrained(tmp_path / "masked")
    AutoTokenizer.from_pretrained(models["bert"]).save_pretrained(tmp_path / "masked")
    read_experiment({**values, "model_name_or_path": str(tmp_path / "masked")}).load_model()
    assert "random unless a kind trains them: bert.pooler.dense.bias, bert.pooler.dense.weight." in caplog.text


def test_labels_without_a_train_file_have_to_be_given(values, tmp_path):
    values |= {"train_file": None, "do_train": False, "eval_strategy": "no"}
    with pytest.raises(ConfigurationError, match=r"'labels' lists the classes .* no train_file"):
        run_experiment(read_experiment(values))


def test_single_texts_and_pairs_are_not_mixed_in_a_task(values, tmp_path):
    (tmp_path / "single.tsv").write_text("text\tlabel\nthe cat is red\tred\nthe dog is blue\tblue\n")
    with pytest.raises(
        ConfigurationError, match=r"'text_pair', or none has; got it in the train split and not in the val"
    ):
        run_experiment(read_experiment({**values, "validation_file": str(tmp_path / "single.tsv")}))


def test_an_encoder_decoder_needs_rows_of_one_form(values):
    values |= {**mixture("world_sentiment", "world_entailment"), "model_name_or_path": "assets/small_world/backbone"}
    limits = {f"max_{split}_samples": 8 for split in ("train", "validation", "test")}
    with pytest.raises(ConfigurationError, match=r"got 1 in world_sentiment, split train and 2 in world_entailment"):
        run_experiment(read_experiment({**values, **limits, "max_length": 64}))


@pytest.fixture
def with_head(models, tmp_path):
    """A function from labels to the folder of a classifier with a head for them."""

    def make(*labels):
        model = BertForSequenceClassification.from_pretrained(models["bert"], id2label=dict(enumerate(labels)))
        model.save_pretrained(tmp_path / "classifier")
        AutoTokenizer.from_pretrained(models["bert"]).save_pretrained(tmp_path / "classifier")
        return str(tmp_path / "classifier"), model

    return make


def test_a_head_for_other_labels_does_not_get_those_of_the_run(values, with_head, caplog):
    """Not even the same ones in another order, unless it trains."""
    location, _ = with_head("red", "green", "blue")
    values |= {"model_name_or_path": location}
    with pytest.raises(
        ConfigurationError, match=r"got \['red', 'green', 'blue'\] .* and \['blue', 'green', 'red'\] in"
    ):
        read_experiment({**values, "head": "frozen"}).load_model()
    read_experiment({**values, "head": "frozen", "labels": ["red", "green", "blue"]}).load_model()
    assert "was trained for" not in caplog.text
    read_experiment(values).load_model()
    assert "was trained for ['red', 'green', 'blue']; it starts from there" in caplog.text


def test_a_head_for_another_number_of_labels_is_new(values, with_head):
    location, model = with_head("yes", "no")
    loaded = read_experiment({**values, "model_name_or_path": location}).load_model()
    assert loaded.classifier.weight.shape == (3, 16)
    assert torch.equal(loaded.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
