"""Teach the small decoder to name the conjunction of a sentence, with TRL's SFTTrainer.

    python -m examples.sft

    clara expected this lesson to be dismal but it was far from dull .    ->  but
    although the trip was amusing , the movie was not exciting .          ->  although

Base, tokenizer and sentences come with the project (assets/). SFTTrainer takes the configuration as ``peft_config``,
adds the deltas itself and trains on the completions alone; a delta stays float32 on a base of any dtype.
"""

import csv
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from adapters.peft import TensorTrainConfig
from examples._loop import Batch, measure, report, trainable_parameters

ASSETS = Path(__file__).resolve().parents[1] / "assets"
DECODER, SENTENCES = ASSETS / "small_decoder", ASSETS / "small_world" / "tasks" / "sentiment"
TOKENIZER = AutoTokenizer.from_pretrained(DECODER)
CONJUNCTIONS = ("but", "although")
SETTING = {"rank": 8, "target_modules": "all-linear"}


def base() -> LlamaForCausalLM:
    """Load the pretrained decoder."""
    return AutoModelForCausalLM.from_pretrained(DECODER, dtype=torch.float32)


def rows(split: str, count: int) -> list[dict[str, str]]:
    """Read the first sentences of a split with one of the conjunctions, as prompts and completions."""
    with (SENTENCES / f"{split}.tsv").open() as file:
        sentences = [row["sentence"] for row in csv.DictReader(file, delimiter="\t")]
    found = [(sentence, [word for word in CONJUNCTIONS if word in sentence.split()]) for sentence in sentences]
    pairs = [{"prompt": sentence, "completion": f" {words[0]}"} for sentence, words in found if len(words) == 1]
    return pairs[:count]


def held_out(count: int = 128) -> Batch:
    """Sentences of the test split; the loss is that of the first token of the completion."""
    found = rows("test", count)
    ids = [TOKENIZER(row["prompt"] + row["completion"]).input_ids for row in found]
    starts = [len(TOKENIZER(row["prompt"]).input_ids) for row in found]
    width = max(map(len, ids))
    tokens = torch.tensor([row + [TOKENIZER.pad_token_id] * (width - len(row)) for row in ids])  # (count, width)
    labels = torch.full_like(tokens, -100)
    for row, start in enumerate(starts):
        labels[row, start] = tokens[row, start]
    return {"input_ids": tokens, "labels": labels}


def main() -> dict[str, Any]:
    torch.manual_seed(0)
    disable_progress_bar()
    test = held_out()
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            base(),
            args=SFTConfig(
                folder,
                max_steps=24,
                per_device_train_batch_size=16,
                learning_rate=1e-2,
                bf16=False,
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                logging_steps=6,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows("train", 384)),
            processing_class=TOKENIZER,
            peft_config=TensorTrainConfig(**SETTING),
        )
        model = trainer.model
        trained, before = trainable_parameters(model), measure(model, test, causal=True)
        trainer.train()
        after = measure(model, test, causal=True)
        trainer.save_model(folder)
        reloaded = measure(PeftModel.from_pretrained(base(), folder), test, causal=True)
    merged = measure(model.merge_and_unload(), test, causal=True)
    return report(trained, base(), before, after, reloaded, merged)


if __name__ == "__main__":
    main()
