"""Pretrain the small decoder: a byte-level BPE tokenizer and a Llama of half a million parameters.

    python -m seq2seq.causal.pretrain                     into assets/small_decoder, about 8 minutes on a quiet core
    python -m seq2seq.causal.pretrain --out /tmp/decoder

Its text comes with Python: the documentation strings of the standard library and the help topics of ``pydoc``. One
text in twenty is held out for validation, one for testing. Besides the checkpoint in bfloat16, it writes
``corpus/*.txt``, a part of the texts by split, and ``training_log.jsonl``.
"""

import argparse
import ast
import json
import platform
import pydoc_data.topics
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from tqdm import trange
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adapters.saved.files import set_default_mode
from seq2seq import PROJECT, SPLITS

DECODER = PROJECT / "assets" / "small_decoder"
END = "<|endoftext|>"

VOCABULARY = 768
WINDOW = 128
BATCH_SIZE = 32
STEPS = 1800
SHORTEST = 40  # characters of a text that is kept
HELD_OUT = 20  # one text in so many is for validation, the next for testing
WRITTEN = {"train": 900_000, "validation": 90_000, "test": 90_000}  # characters in corpus/
# Muon on the weight matrices, AdamW on embeddings and norms, as in seq2seq.small_world.pretrain.
MUON_RATE = 1e-2
ADAMW_RATE = 1e-2
WARMUP_STEPS = 50
DECAY_SHARE = 0.5  # share of the steps over which the learning rate decays to 2 %
LOG_EVERY = 200


def python_texts() -> dict[str, list[str]]:
    """The distinct texts by split: documentation strings in the order of the library's files, then help topics."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, None] = {}
    for path in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idle_test"} & {*path.parts}:
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):  # of lib2to3's samples
                continue
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
            found |= dict.fromkeys(text for text in texts if text and len(text) >= SHORTEST)
    found |= dict.fromkeys(text.strip() for text in pydoc_data.topics.topics.values())
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, text in enumerate(found):
        splits[{0: "validation", 1: "test"}.get(number % HELD_OUT, "train")].append(text)
    return splits


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; every text can be written with it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END, pad_token=END)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Create a Llama with 553,824 parameters, of which the feed-forward weights are 60 %."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=288,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def as_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """The token ids of all texts, each ended by END, (tokens,)."""
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return torch.tensor([token for text in ids for token in (*text, tokenizer.eos_token_id)])


def batches(stream: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield batches (batch, window) without end: windows of a stream at random offsets."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(0, len(stream) - WINDOW, (BATCH_SIZE, 1), generator=generator)
        yield stream[starts + torch.arange(WINDOW)]


def loss_of(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """The mean negative log-likelihood of the next token; ids are (batch, window)."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (batch, window - 1, vocabulary)
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: Tensor, windows: int = 64) -> float:
    """The mean loss of the first windows of a stream."""
    ids = stream[: windows * WINDOW][: len(stream) // WINDOW * WINDOW].view(-1, WINDOW)
    return loss_of(model, ids).item()


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Create Muon (Jordan et al. 2024) for the weight matrices and AdamW for embeddings and norms."""
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    rest = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=ADAMW_RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate_at(step: int) -> float:
    """Return the learning rate relative to its peak: warm-up, constant, and a final decay."""
    return min(1.0, (step + 1) / WARMUP_STEPS, max(0.02, (STEPS - step) / (DECAY_SHARE * STEPS)))


def train(model: LlamaForCausalLM, stream: Tensor, held_out: Tensor, seed: int, log: TextIO) -> None:
    """Train, writing a line to the log every `LOG_EVERY` steps."""
    pair = optimizers(model)
    schedules = [LambdaLR(each, rate_at) for each in pair]
    windows, losses, begun = batches(stream, seed), [], time.perf_counter()
    for step in (progress := trange(1, STEPS + 1)):
        loss = loss_of(model, next(windows))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*pair, *schedules):
            each.step()
        model.zero_grad()
        losses.append(loss.item())
        if step % LOG_EVERY == 0 or step == STEPS:
            entry = {
                "step": step,
                "loss": round(float(np.mean(losses)), 4),
                "validation_loss": round(held_out_loss(model, held_out), 4),
                "seconds": round(time.perf_counter() - begun),
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            progress.set_postfix(loss=f"{entry['loss']:.3f}")
            losses.clear()


def write_corpus(out: Path, texts: dict[str, list[str]]) -> None:
    """Write texts of each split, spread over all, as far as WRITTEN allows."""
    out.mkdir(exist_ok=True)
    for split, documents in texts.items():
        order = np.random.default_rng(0).permutation(len(documents))
        ends = np.cumsum([len(documents[index]) for index in order])
        chosen = sorted(order[: np.searchsorted(ends, WRITTEN[split])])
        (out / f"{split}.txt").write_text("\n\n".join(documents[index] for index in chosen) + "\n", encoding="utf-8")


def pretrain(out: Path, seed: int) -> None:
    """Train tokenizer and model from scratch and write them to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    texts = python_texts()
    tokenizer = train_tokenizer(texts["train"])
    tokenizer.save_pretrained(out)
    write_corpus(out / "corpus", texts)
    model = new_model(tokenizer)
    stream = as_stream(tokenizer, texts["train"])
    with (out / "training_log.jsonl").open("w") as log:
        setting = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "parameters": model.num_parameters(),
            "tokens": len(stream),
            "characters": sum(map(len, texts["train"])),
            "threads": torch.get_num_threads(),
        }
        log.write(json.dumps(setting) + "\n")
        train(model, stream, as_stream(tokenizer, texts["validation"]), seed + 1, log)
    model.to(torch.bfloat16).save_pretrained(out)
    set_default_mode(*out.glob("*.safetensors"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DECODER)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pretrain(arguments.out, arguments.seed)
