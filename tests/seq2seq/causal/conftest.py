"""A tiny decoder, rows of a task that it can learn in seconds, and a text."""

import random

import datasets
import pytest

from tests.seq2seq.causal_models import save_model

COLOURS = ("red", "blue", "green")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    """A directory with a random Llama, and a tokenizer without padding and begin-of-sequence tokens."""
    return save_model(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """A directory with train, validation and test.tsv: which colour has the door?"""
    directory, generator = tmp_path_factory.mktemp("colours"), random.Random(1)
    for split, count in (("train", 48), ("validation", 12), ("test", 13)):
        lines = [f"{colour} {i}\t{colour}" for i, colour in enumerate(generator.choices(COLOURS, k=count))]
        (directory / f"{split}.tsv").write_text("\n".join(["source\ttarget", *lines]) + "\n")
    return directory


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A directory with train, validation and test.txt."""
    directory, generator = tmp_path_factory.mktemp("text"), random.Random(2)
    for split, count in (("train", 400), ("validation", 60), ("test", 60)):
        (directory / f"{split}.txt").write_text(" ".join(generator.choices(COLOURS, k=count)) + ".\n")
    return directory


@pytest.fixture
def values(decoder, tmp_path):
    """What the runs of these tests have in common."""
    return {
        "experiment_name": "run",
        "workload": "causal",
        "output_root": str(tmp_path / "outputs"),
        "model_name_or_path": str(decoder),
        "adapter": {"kind": "none"},
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "logging_steps": 1,
        "learning_rate": 0.01,
        "disable_tqdm": True,
        "use_cpu": True,
    }


@pytest.fixture
def task_values(values, rows):
    """A run on a task with labels."""
    files = {split: str(rows / f"{split}.tsv") for split in ("train", "validation", "test")}
    task = {"files": files, "source": "{source}", "target": "{target}", "labels": COLOURS, "metrics": ["accuracy"]}
    return {**values, "task_name": "colours", "tasks": {"colours": {**task, "labels": list(COLOURS)}}}


@pytest.fixture
def corpus_values(values, text):
    """A run on a text."""
    files = {split: str(text / f"{split}.txt") for split in ("train", "validation", "test")}
    return {**values, "corpus": files, "window": 32, "data_name": "colours"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of token ids of this test alone, also for the processes that it starts."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
