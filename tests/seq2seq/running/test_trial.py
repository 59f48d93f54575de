"""Training arguments that a library cannot use are refused before anything is written."""

import json
from dataclasses import fields

import pytest
import torch
from transformers import TrainingArguments

from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment

NAMES = {field.name for field in fields(TrainingArguments)}
CHECKPOINTING = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in NAMES)
"""The name that this version of transformers has for it."""

# (training arguments, words that the sentence must have)
CASES = {
    "schedule without its argument": (
        {"lr_scheduler_type": "cosine_with_min_lr"},
        ["lr_scheduler_type", "cosine_with_min_lr", "min_lr"],
    ),
    "unknown argument of a schedule": ({"lr_scheduler_kwargs": {"min_lrr": 0.1}}, ["lr_scheduler_kwargs", "min_lrr"]),
    "schedule that needs its steps": ({"lr_scheduler_type": "warmup_stable_decay"}, ["warmup_stable_decay"]),
    "epsilon below zero": ({"adam_epsilon": -1.0}, ["adam_epsilon", "-1", "at least 0"]),
    "arguments of the optimizer": ({"optim_args": "momentum"}, ["optim_args", "momentum"]),
    "optimizer without what it needs": ({"optim": "lomo"}, ["optim", "lomo"]),
    "target modules of another optimizer": ({"optim_target_modules": ["q"], "optim": "galore_adamw"}, ["galore"]),
    "no accumulation in evaluation": ({"eval_accumulation_steps": 0}, ["eval_accumulation_steps", "at least 1"]),
    "cache never emptied": ({"torch_empty_cache_steps": 0}, ["torch_empty_cache_steps", "at least 1"]),
    "unknown compiler": (
        {"torch_compile": True, "torch_compile_backend": "inducto"},
        ["torch_compile_backend", "inducto"],
    ),
    "compiler that is not installed": ({"torch_compile": True, "torch_compile_backend": "onnxrt"}, ["onnxrt"]),
    "unknown mode of the compiler": ({"torch_compile": True, "torch_compile_mode": "fastest"}, ["fastest"]),
    "prefetching without workers": ({"dataloader_prefetch_factor": 2}, ["dataloader_prefetch_factor", "num_workers"]),
    "prefetching nothing": (
        {"dataloader_prefetch_factor": 0, "dataloader_num_workers": 1},
        ["dataloader_prefetch_factor", "at least 1"],
    ),
    "persistent workers without workers": (
        {"dataloader_persistent_workers": True},
        ["dataloader_persistent_workers", "num_workers"],
    ),
    "unknown start of workers": (
        {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "thread"},
        ["dataloader_multiprocessing_context", "thread"],
    ),
    "arguments of activation checkpointing": (
        {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrantt": False}},
        [f"{CHECKPOINTING}_kwargs", "use_reentrantt"],
    ),
    "no layer to checkpoint": ({f"{CHECKPOINTING}_kwargs": {"every_n_layers": 0}}, ["every_n_layers"]),
    "no full batch": (
        {"dataloader_drop_last": True, "per_device_train_batch_size": 97},
        ["dataloader_drop_last", "96 rows", "97"],
    ),
    "noise below zero": ({"neftune_noise_alpha": -1.0}, ["neftune_noise_alpha", "at least 0"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_training_argument_that_cannot_be_used_is_refused_in_one_sentence(case, values, tmp_path, capsys):
    arguments, words = CASES[case]
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**values, **arguments}))
    assert main([str(path)]) == 2
    *_, sentence = capsys.readouterr().err.strip().splitlines()
    assert sentence.startswith("Refused: ")
    assert sentence.endswith(".")
    assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "outputs").exists()


def test_a_trial_changes_neither_weights_nor_the_curve(values, tmp_path, monkeypatch):
    values |= {"max_steps": 4, "logging_steps": 1}
    with_trial = run_experiment(read_experiment(values))
    curve = losses(tmp_path)
    weights = prepare(read_experiment(values), None).model.state_dict()
    monkeypatch.setattr("seq2seq.running.preparation.check_by_trial", lambda *_: None)
    untried = prepare(read_experiment(values), None).model.state_dict()
    assert all(torch.equal(untried[name], tensor) for name, tensor in weights.items())
    without = run_experiment(read_experiment({**values, "overwrite": True}))
    assert without["metrics"] == with_trial["metrics"]
    assert losses(tmp_path) == curve


def losses(tmp_path):
    entries = json.loads((tmp_path / "outputs/colours/history.json").read_text())
    return [entry["loss"] for entry in entries if "loss" in entry]
