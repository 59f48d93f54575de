"""Pretrain the embedded backbone: a sentencepiece tokenizer and a small T5 trained on the mixture of skills.

    python -m seq2seq.small_world.pretrain                     into assets/small_world/backbone, about 35 minutes
    python -m seq2seq.small_world.pretrain --out /tmp/backbone

Besides the checkpoint, it writes `training_log.jsonl` (one line per 500 steps) and `skills.json` / `skills.md`: for
each skill, the share of held-out items that greedy decoding answers exactly right.
"""

import argparse
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import sentencepiece
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from tqdm import trange
from transformers import PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration, T5Tokenizer

from adapters.saved.files import set_default_mode
from seq2seq import PROJECT
from seq2seq.small_world.datasets import DATA_SETS, rows
from seq2seq.small_world.events import World
from seq2seq.small_world.skills import BROAD, LESSONS, SKILLS, Lesson, Pair, mixture

BACKBONE = PROJECT / "assets" / "small_world" / "backbone"
Batch = dict[str, torch.Tensor]

BATCH_SIZE = 64
# Muon on the weight matrices reaches in 600 steps what AdamW (2e-3) reaches in 1,500. It is not meant for embeddings,
# norms and position biases, which use AdamW.
MUON_RATE = 2e-3
ADAMW_RATE = 8e-3
WARMUP_STEPS = 100
DECAY_SHARE = 0.4  # share of the last lesson's steps over which the learning rate decays to 2 %
SENTINELS = 8  # at most four occur in an example
BATCHES_SORTED_TOGETHER = 16  # by length, to reduce padding
LOG_EVERY = 500
HELD_OUT_SEED = 10**6


def vocabulary(world: World) -> list[str]:
    """Return every word of the world, its decimal numbers, and the words of the downstream tasks."""
    pretraining = " ".join(" ".join(pair) for pair in mixture(world, 50_000, BROAD))
    tasks = " ".join(f"world_{name} {' '.join(' '.join(row) for row in rows(name)['train'])}" for name in DATA_SETS)
    return sorted(word for word in set(f"{pretraining} {tasks}".split()) if word not in ("0", "1") and word[0] != "<")


def train_tokenizer(out: Path, seed: int) -> T5Tokenizer:
    """Train a unigram tokenizer in which every word of the world is one piece; other words are spelled out."""
    world = World(seed)
    words = vocabulary(world)
    # Pairs of words: a word is a candidate piece only if it occurs with and without a successor.
    pairs = (pair for _ in range(200) for pair in zip(words, world.rng.sample(words, len(words)), strict=True))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=map(" ".join, pairs),
        model_writer=model,
        vocab_size=1000,
        hard_vocab_limit=False,
        split_by_number=False,
        split_by_unicode_script=False,
        required_chars="abcdefghijklmnopqrstuvwxyz0123456789.,:?'",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        max_sentencepiece_length=24,
    )
    (out / "spiece.model").write_bytes(model.getvalue())
    tokenizer = T5Tokenizer.from_pretrained(out, extra_ids=SENTINELS)
    tokenizer.save_pretrained(out)
    (out / "tokenizer.json").unlink()  # rebuilt from spiece.model on loading
    return tokenizer


def new_model(vocabulary_size: int) -> T5ForConditionalGeneration:
    """Create a T5 with about one million parameters: three blocks in each stack, width 128."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary_size,
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_max_distance=64,
            decoder_start_token_id=0,
        )
    )


def encode(tokenizer: PreTrainedTokenizerBase, pairs: list[Pair]) -> Batch:
    """Tokenize pairs of texts.

    Returns:
        `input_ids`, `attention_mask` (batch, source length); `labels` (batch, target length), -100 for padding.
    """
    sources, targets = zip(*pairs, strict=True)
    batch = tokenizer(list(sources), return_tensors="pt", padding=True)
    labels = tokenizer(list(targets), return_tensors="pt", padding=True).input_ids
    return {**batch, "labels": labels.masked_fill(labels == tokenizer.pad_token_id, -100)}


def batches(world: World, tokenizer: PreTrainedTokenizerBase, lesson: Lesson) -> Iterator[Batch]:
    """Yield training batches without end."""
    while True:
        pairs = mixture(world, BATCHES_SORTED_TOGETHER * BATCH_SIZE, lesson)
        pairs.sort(key=lambda pair: len(pair[0].split()))
        groups = [pairs[start : start + BATCH_SIZE] for start in range(0, len(pairs), BATCH_SIZE)]
        world.rng.shuffle(groups)
        for group in groups:
            yield encode(tokenizer, group)


def loss_of(model: T5ForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy averaged per example, so that a one-word answer counts as much as a sentence."""
    labels = batch["labels"]
    logits = model(**batch).logits  # (batch, target length, vocabulary)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return (losses.sum(-1) / (labels != -100).sum(-1)).mean()


def optimizers(model: T5ForConditionalGeneration) -> list[torch.optim.Optimizer]:
    """Create Muon (Jordan et al. 2024) for the weight matrices and AdamW for the rest."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "shared" not in name and "relative_attention_bias" not in name
        (matrices if is_matrix else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=ADAMW_RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate_at(step: int, steps: int, falls: bool) -> float:
    """Return the learning rate relative to its peak: warm-up, constant, and a final decay if it `falls`."""
    down = max(0.02, (steps - step) / (DECAY_SHARE * steps)) if falls else 1.0
    return min(1.0, (step + 1) / WARMUP_STEPS, down)


@torch.no_grad()
def skill_accuracy(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, count: int
) -> dict[str, float]:
    """Return skill -> share of `count` held-out items answered exactly right.

    Greedy decoding gives the target if and only if, under teacher forcing, each target token is the most likely one.
    """
    model.eval()
    accuracy = {}
    for skill in SKILLS:
        world = World(HELD_OUT_SEED, held_out=True)
        batch = encode(tokenizer, [skill(world) for _ in range(count)])
        right = (model(**batch).logits.argmax(-1) == batch["labels"]) | (batch["labels"] == -100)
        accuracy[skill.__name__] = right.all(-1).double().mean().item()
    model.train()
    return accuracy


def write_report(out: Path, accuracy: dict[str, float]) -> None:
    (out / "skills.json").write_text(json.dumps(accuracy, indent=1) + "\n")
    lines = ["| skill | right | an item | its answer |", "|---|---|---|---|"]
    for skill in SKILLS:
        source, target = skill(World(HELD_OUT_SEED, held_out=True))
        lines.append(f"| {skill.__name__} | {accuracy[skill.__name__]:.2f} | {source} | {target} |")
    (out / "skills.md").write_text("\n".join(["# What the backbone can do", "", *lines]) + "\n")


def train(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, lesson: Lesson, seed: int, log: TextIO
) -> None:
    """Train one lesson with new optimizers, writing a line to the log every `LOG_EVERY` steps."""
    pair = optimizers(model)
    falls = lesson is LESSONS[-1]
    schedules = [LambdaLR(each, lambda step: rate_at(step, lesson.steps, falls)) for each in pair]
    stream = batches(World(seed), tokenizer, lesson)
    begun, losses = time.perf_counter(), []
    for step in (progress := trange(1, lesson.steps + 1)):
        loss = loss_of(model, next(stream))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*pair, *schedules):
            each.step()
        model.zero_grad()
        losses.append(loss.item())
        if step % LOG_EVERY == 0 or step == lesson.steps:
            entry = {
                "lesson": LESSONS.index(lesson) + 1,
                "step": step,
                "loss": sum(losses) / len(losses),
                "seconds": round(time.perf_counter() - begun),
                "accuracy": skill_accuracy(model, tokenizer, 100),
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            progress.set_postfix(loss=f"{entry['loss']:.3f}")
            losses.clear()


def pretrain(out: Path, seed: int) -> None:
    """Train tokenizer and model from scratch and write them to `out`, with a checkpoint after each lesson."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(out, seed)
    model = new_model(len(tokenizer))
    with (out / "training_log.jsonl").open("w") as log:
        for number, lesson in enumerate(LESSONS, start=1):
            train(model, tokenizer, lesson, seed + number, log)
            model.save_pretrained(out)
            set_default_mode(*out.glob("*.safetensors"))
    write_report(out, skill_accuracy(model, tokenizer, 500))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=BACKBONE)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pretrain(arguments.out, arguments.seed)
