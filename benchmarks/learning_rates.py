"""Measure which learning rate is best for which adapter, rank and scaling: MiniLM on MRPC, one epoch.

    python -m benchmarks.learning_rates --model MODEL --data MRPC --scaling one      every delta with scaling 1
    python -m benchmarks.learning_rates --model MODEL --data MRPC --scaling auto     the default
    python -m benchmarks.learning_rates --model MODEL --data MRPC --multiplier zero_core=16 \
        --kinds tt_lora MetaTT-4D LoTR                                                   with rates per core
    python -m benchmarks.learning_rates --table                                      what has been measured

MODEL is a folder of MiniLM (BERT, 6 x 384), MRPC one with train.parquet (sentence1, sentence2, label). Each finished
run is one line of ``docs/results/real_models/learning_rates.jsonl``, and a run that is there is skipped, so the command
can be stopped and started again. A tenth of the training rows, the same for all seeds, measures; the others train, 104
steps of 32 rows of similar length. Deltas are beside query and value; the classifier trains too, at the same rate.
AdamW without weight decay, linear decay to zero, no dropout.

The loss of the tenth chooses the rate: an accuracy on 367 rows has a standard error of .024.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

import adapters
from adapters.learning_rates import RateMultipliers
from adapters.peft import TensorTrainConfig
from adapters.tables import render_table

RESULTS = Path("docs/results/real_models/learning_rates.jsonl")
RANKS = (2, 16)
BATCH, LENGTH, HELD_OUT, SPLIT_SEED = 32, 128, 0.1, 0
RATES = {
    "one": (1e-3, 4e-3, 1.6e-2, 6.4e-2, 2.56e-1),  # the best ones are far apart
    "auto": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TARGETS = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}


def lora(rank: int, scaling: str) -> PeftConfig:
    return LoraConfig(r=rank, lora_alpha=16 if scaling == "auto" else rank, **TARGETS)


def tensor_train(**fields: Any) -> Callable[[int, str], PeftConfig]:
    return lambda rank, scaling: TensorTrainConfig(rank=rank, scaling=_scaling(scaling), **fields, **TARGETS)


def published(name: str) -> Callable[[int, str], PeftConfig]:
    def config(rank: int, scaling: str) -> PeftConfig:
        return TensorTrainConfig(**adapters.published(name, rank, scaling=_scaling(scaling)), **TARGETS)

    return config


def _scaling(scaling: str) -> float | str:
    return 1.0 if scaling == "one" else scaling


KINDS: dict[str, Callable[[int, str], PeftConfig]] = {
    "LoRA": lora,
    "tt_lora": tensor_train(),
    "MetaTT-4D": published("metatt_4d"),
    "LoTR": published("lotr"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--scaling", choices=RATES, default="auto")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--ranks", nargs="+", type=int, default=list(RANKS))
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--multiplier", type=multiplier, help="NAME=M: a multiple of the rate, see RateMultipliers")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if not options.table:
        if options.model is None or options.data is None:
            parser.error("--model and --data are required to measure")
        torch.set_num_threads(options.threads)
        rates = options.rates or RATES[options.scaling]
        for seed, rank, kind, rate in product(options.seeds, options.ranks, options.kinds, rates):
            setting = {
                "kind": kind, "rank": rank, "scaling": options.scaling, "multiplier": options.multiplier,
                "rate": rate, "epochs": options.epochs, "seed": seed,
            }  # fmt: skip
            if not any(setting.items() <= run.items() for run in read(options.results)):
                append(options.results, setting | measure(options.model, options.data, options.device, **setting))
    print(table(read(options.results)))
    return 0


def multiplier(text: str) -> str:
    """A value of ``--multiplier``, checked."""
    try:
        RateMultipliers(**multiples(text))
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in fields(RateMultipliers))
        raise argparse.ArgumentTypeError(f"is NAME=M, NAME one of {known}; got {text!r}") from error
    return text


def multiples(text: str | None) -> dict[str, float]:
    """Multiples by name, from ``--multiplier``."""
    name, _, multiple = (text or "").partition("=")
    return {name: float(multiple)} if text else {}


def measure(
    model: Path,
    data: Path,
    device: str,
    kind: str,
    rank: int,
    scaling: str,
    multiplier: str | None,
    rate: float,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """Train once; return parameters, the scalings of the deltas, loss and accuracy of the held-out rows, seconds."""
    train, held_out = rows(data, AutoTokenizer.from_pretrained(model))
    torch.manual_seed(seed)
    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, **NO_DROPOUT)
    adapted = get_peft_model(base, KINDS[kind](rank, scaling)).to(device)
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    groups = adapters.parameter_groups(adapted, rate, **multiples(multiplier))
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    steps = epochs * math.ceil(len(train) / BATCH)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    head = sum(p.numel() for n, p in adapted.named_parameters() if p.requires_grad and "classifier" in n)
    record = {
        "parameters": sum(parameter.numel() for parameter in trainable) - head,
        "deltas_scaling": sorted({m.scaling for m in adapted.modules() if isinstance(m, adapters.TensorTrainDelta)}),
    }
    curve, start = [], time.perf_counter()
    adapted.train()
    lengths = [len(row["input_ids"]) for row in train]
    order = LengthGroupedSampler(BATCH, lengths=lengths, generator=torch.Generator().manual_seed(seed))
    for _ in range(epochs):
        for batch in batches(train, list(order), device):
            loss = adapted(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            curve.append(loss.detach())
    curve = torch.stack(curve).tolist()
    seconds = time.perf_counter() - start
    tenths = [curve[k * len(curve) // 10 : (k + 1) * len(curve) // 10] for k in range(10)]
    record["curve"] = [_three(sum(tenth) / len(tenth)) for tenth in tenths]
    return record | evaluate(adapted, held_out, device) | {"seconds": round(seconds), "device": device_name(device)}


def rows(data: Path, tokenizer: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows that train and those that measure, tokenised; the validation split is not read."""
    frame = pd.read_parquet(data / "train.parquet")
    texts = (frame["sentence1"].tolist(), frame["sentence2"].tolist())
    encoded = tokenizer(*texts, truncation=True, max_length=LENGTH)
    tokens = [
        {"input_ids": ids, "labels": label} for ids, label in zip(encoded["input_ids"], frame["label"], strict=True)
    ]
    for row, types in zip(tokens, encoded["token_type_ids"], strict=True):
        row["token_type_ids"] = types
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    held_out = round(HELD_OUT * len(tokens))
    return [tokens[k] for k in order[held_out:]], [tokens[k] for k in order[:held_out]]


def batches(tokens: list[dict[str, Any]], order: Sequence[int], device: str) -> Iterator[dict[str, Tensor]]:
    """Yield batches padded to their longest row."""
    for start in range(0, len(order), BATCH):
        chosen = [tokens[k] for k in order[start : start + BATCH]]
        ids, types = (
            nn.utils.rnn.pad_sequence([torch.tensor(row[key]) for row in chosen], batch_first=True)
            for key in ("input_ids", "token_type_ids")
        )
        labels = torch.tensor([int(row["labels"]) for row in chosen])
        batch = {"input_ids": ids, "token_type_ids": types, "attention_mask": (ids != 0).long(), "labels": labels}
        yield {key: tensor.to(device) for key, tensor in batch.items()}


@torch.no_grad()
def evaluate(model: nn.Module, tokens: list[dict[str, Any]], device: str) -> dict[str, float]:
    """Return the mean loss and the accuracy; the loss of a diverged run is null."""
    model.eval()
    loss, correct = 0.0, 0
    for batch in batches(tokens, sorted(range(len(tokens)), key=lambda k: len(tokens[k]["input_ids"])), device):
        output = model(**batch)
        loss += output.loss.item() * len(batch["labels"])
        correct += int((output.logits.argmax(-1) == batch["labels"]).sum())
    return {"loss": _three(loss / len(tokens)), "accuracy": _three(correct / len(tokens))}


def device_name(device: str) -> str:
    """How results name a device: "cpu", or the name of the GPU."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


def _three(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def read(results: Path) -> list[dict[str, Any]]:
    """Return the runs that are finished."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def append(results: Path, run: dict[str, Any]) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(run) + "\n")


def table(runs: list[dict[str, Any]]) -> str:
    """Loss and accuracy of the held-out rows by rate, means over seeds; the rate of the smallest loss comes last."""
    settings = ("kind", "rank", "scaling", "multiplier", "epochs", "parameters")
    rates = sorted({run["rate"] for run in runs})
    groups: dict[tuple, dict[float, list[dict[str, Any]]]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in settings), {}).setdefault(run["rate"], []).append(run)
    rows = []
    for key, by_rate in sorted(groups.items(), key=lambda item: [str(value) for value in item[0]]):
        loss = {rate: _mean(same, "loss") for rate, same in by_rate.items()}
        best = min((rate for rate in loss if loss[rate] is not None), key=lambda rate: loss[rate], default=None)
        cells = [_cell(by_rate.get(rate, [])) for rate in rates]
        seeds = max(len(same) for same in by_rate.values())
        rows.append(["" if v is None else str(v) for v in key] + [str(seeds), *cells, f"{best:g}" if best else "none"])
    columns = [*settings, "seeds", *(f"{rate:g}" for rate in rates), "best rate"]
    return render_table("Held-out loss and accuracy by learning rate", columns, rows)


def _mean(runs: list[dict[str, Any]], key: str) -> float | None:
    """The mean over seeds; None if one of them diverged."""
    values = [run[key] for run in runs]
    return None if None in values else sum(values) / len(values)


def _cell(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return ""
    loss = _mean(runs, "loss")
    return "diverged" if loss is None else f"{loss:.3f} {_mean(runs, 'accuracy'):.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
