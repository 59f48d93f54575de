"""A tiny T5 with its own sentencepiece tokenizer and a task that it can learn in seconds, all made here."""

import contextlib
import json
import random
from collections.abc import Callable, Generator
from pathlib import Path

import datasets
import pytest
import sentencepiece
import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer, TrainerCallback

from seq2seq.configuration.reading import read_experiment
from seq2seq.experiment import Experiment
from seq2seq.text.workload import TextWorkload
from seq2seq.workload import Workload

PNG = b"\x89PNG\r\n\x1a\n"
WORDS = ["red", "blue", "house", "door", "the", "a", "is", "not", "old", "new"]


@pytest.fixture(autouse=True)
def blank_pictures():
    """What is drawn is laid out and rendered, 0.4 s of each run, only where a fixture of this name lets it be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.draw_without_rendering", lambda figure: None)
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **settings: path.write_bytes(PNG))
        yield


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random T5 of d_model 32 and a tokenizer for WORDS."""
    directory = tmp_path_factory.mktemp("backbone")
    text = directory / "text.txt"
    generator = random.Random(0)
    text.write_text("\n".join(" ".join(generator.choices(WORDS, k=6)) for _ in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(directory / "spiece"),
        vocab_size=48,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = T5Tokenizer.from_pretrained(directory, extra_ids=4)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with train, validation and test.tsv: which colour does the sentence name?"""
    directory = tmp_path_factory.mktemp("colours")
    generator = random.Random(1)
    for split, rows in (("train", 96), ("validation", 24), ("test", 24)):
        lines = ["source\ttarget"]
        for _ in range(rows):
            colour = generator.choice(["red", "blue"])
            lines.append(f"the {generator.choice(WORDS)} {generator.choice(['house', 'door'])} is {colour}\t{colour}")
        (directory / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def values(backbone: Path, colours: Path, tmp_path: Path) -> dict:
    """A configuration that is right, small and complete."""
    return {
        "experiment_name": "colours",
        "output_root": str(tmp_path / "outputs"),
        "model_name_or_path": str(backbone),
        "train_file": str(colours / "train.tsv"),
        "validation_file": str(colours / "validation.tsv"),
        "test_file": str(colours / "test.tsv"),
        "max_target_length": 4,
        "adapter": {"kind": "tt_lora", "rank": 2},
        "per_device_train_batch_size": 16,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "disable_tqdm": True,
    }


@pytest.fixture
def config_file(values: dict, tmp_path: Path) -> Path:
    """``values`` as a file."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache and no hub, as on a machine without network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def interrupt() -> None:
    raise KeyboardInterrupt


class StopAt(TrainerCallback):
    """Fails after a step, as a machine would."""

    def __init__(self, step: int, stop: Callable[[], None] = interrupt) -> None:
        self.step, self.stop = step, stop

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.stop()


@contextlib.contextmanager
def stopping_at(step: int, workload: type[Workload], stop: Callable[[], None] = interrupt) -> Generator[None]:
    """In the body, trainers of a workload fail after a step."""
    make_trainer = workload.make_trainer

    def stopping(self, prepared, callbacks=()):
        return make_trainer(self, prepared, [*callbacks, StopAt(step, stop)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "make_trainer", stopping)
        yield


@pytest.fixture
def stop_at(monkeypatch):
    """A function of a step: from then on, trainers of text runs fail after it, until ``monkeypatch.undo()``."""
    make_trainer = TextWorkload.make_trainer

    def stop(step: int) -> None:
        def stopping(self, prepared, callbacks=()):
            return make_trainer(self, prepared, [*callbacks, StopAt(step)])

        monkeypatch.setattr(TextWorkload, "make_trainer", stopping)

    return stop


@pytest.fixture
def experiment(values) -> Experiment:
    """An experiment whose result is reported."""
    return read_experiment(values)
