"""A tiny BERT with a tokenizer of words, and data that it can learn in seconds, all made here."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

NOUNS = ["house", "door", "cat", "dog"]
COLOURS = ["red", "blue", "green"]
WORDS = ["the", "a", "is", "not", "old", "new", *NOUNS, *COLOURS]
SPECIAL = {"bert": ("[CLS]", "[SEP]"), "roberta": ("<s>", "</s>"), "t5": (None, "</s>")}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
MODELS = {
    "bert": (BertModel, BertConfig, {**SIZES, "max_position_embeddings": 32, "initializer_range": 0.3}),
    "roberta": (RobertaModel, RobertaConfig, {**SIZES, "max_position_embeddings": 32, "pad_token_id": 0}),
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": (LlamaForCausalLM, LlamaConfig, {**SIZES, "max_position_embeddings": 32}),
    "t5": (
        T5ForConditionalGeneration,
        T5Config,
        {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    ),
}
"""Classes and sizes; the folders have no head, which is new in each run."""


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """Words; decoders have an end of sequence and no padding token."""
    first, last = SPECIAL.get(name, (None, None))
    special = ["<pad>", "<unk>", "<end>", *filter(None, (first, last))]
    core = Tokenizer(WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    if last is not None:
        start = f"{first} " if first else ""
        ids = [(token, core.token_to_id(token)) for token in (first, last) if token]
        core.post_processor = TemplateProcessing(
            single=f"{start}$A {last}", pair=f"{start}$A {last} $B:1 {last}:1", special_tokens=ids
        )
    padding = {"pad_token": "<pad>"} if last is not None else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token=last or "<end>", **padding, padding_side="right"
    )


def make_model(name: str, directory: Path) -> Path:
    """Save a random model and its tokenizer."""
    model_class, config_class, sizes = MODELS[name]
    tokenizer = tokenizer_of(name)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model_class(config_class(vocab_size=len(tokenizer), **ends, **sizes)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of all tiny models by name."""
    return {name: make_model(name, tmp_path_factory.mktemp(name)) for name in MODELS}


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with train, validation and test.tsv: is the second thing as red, blue or green as the first?"""
    directory = tmp_path_factory.mktemp("pairs")
    generator = random.Random(1)
    for split, rows in (("train", 96), ("validation", 24), ("test", 24)):
        lines = ["text\ttext_pair\tlabel"]
        for _ in range(rows):
            colour = generator.choice(COLOURS)
            noun, other = generator.sample(NOUNS, 2)
            lines.append(f"the {noun} is {colour}\tthe {other} is {generator.choice(['old', 'new'])}\t{colour}")
        (directory / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def values(models, colours: Path, tmp_path: Path) -> dict:
    """A configuration that is right, small and complete."""
    return {
        "experiment_name": "pairs",
        "workload": "classification",
        "output_root": str(tmp_path / "outputs"),
        "model_name_or_path": str(models["bert"]),
        "train_file": str(colours / "train.tsv"),
        "validation_file": str(colours / "validation.tsv"),
        "test_file": str(colours / "test.tsv"),
        "max_length": 16,
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
