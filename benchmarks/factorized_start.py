"""Measure what factorizations leave of a language model before any training: perplexity by method and budget.

    python -m benchmarks.factorized_start --model MODEL --calibration A.txt B.txt --text C.txt     what is missing
    python -m benchmarks.factorized_start --table                                                  what is there

MODEL is a folder of a decoder-only model of which the feed-forward weights are replaced, Llama's (gate, up, down). The
second moments of their inputs come from equal parts of the calibration texts; the second half of C.txt is scored, in
windows of 1,024 tokens that share one, so that its first half may calibrate. A budget is the share of the parameters of
the replaced weights. Each finished row is a line of ``docs/results/kronecker/before_training.jsonl``, and one that is
there is skipped. ``--moments FILE`` keeps the moments. Alternating least squares gains from a GPU, SVDs do not:
``--factorize-on cpu`` leaves these to the CPU.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import adapters
from adapters.tables import render_table
from benchmarks.learning_rates import append, read
from seq2seq.causal.windows import Reading, ScoredWindows, TokenStream, text_metrics
from third_party.trainers import IGNORED_LABEL

RESULTS = Path("docs/results/kronecker/before_training.jsonl")
BUDGETS = (0.8, 0.6, 0.5)
WINDOW = 1024
KRONECKER = {"format": "kronecker", "first_shape": [192, 72]}
PAIR = {"stack": [["gate_proj", "up_proj"]]}
METHODS: dict[str, dict[str, Any]] = {
    "dense": {},
    "SVD": {"format": "low_rank"},
    "whitened SVD": {"format": "low_rank", "whiten": "full"},
    "whitened SVD, gate and up share their input core": {"format": "low_rank", "whiten": "full", **PAIR},
    "Van Loan": KRONECKER,
    "Van Loan, norm-corrected": {**KRONECKER, "start": "norm_corrected"},
    "Kronecker, Kronecker-whitened": {**KRONECKER, "whiten": "kronecker"},
    "Kronecker, whitened (ALS)": {**KRONECKER, "whiten": "full"},
    "pruned": {"format": "kronecker", "first_shape": [768, 576], "start": "pruned"},
    "tensor train of 3 cores, whitened": {"format": "tensor_train", "d": 3, "whiten": "full"},
    "searched shape, gate and up share their input core": {"format": "searched", "whiten": "full", **PAIR},
    "one basis for two layers, whitened": {"format": "shared_basis", "layers_per_basis": 2, "whiten": "full"},
}
WITHOUT_BUDGET = {"dense": 1.0, "pruned": 0.5}
"""Rows that have one size only, as a share."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calibration", type=Path, nargs="+")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=32768, help="of the calibration, in all")
    parser.add_argument("--scored", type=int, default=16384, help="tokens")
    parser.add_argument("--window", type=int, default=WINDOW)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--factorize-on", metavar="DEVICE", help="by default the same device")
    parser.add_argument("--moments", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if not options.table:
        if None in (options.model, options.calibration, options.text):
            parser.error("--model, --calibration and --text are required to measure")
        torch.set_num_threads(options.threads)
        measure(options)
    print(table(read(options.results)))
    return 0


def measure(options: argparse.Namespace) -> None:
    """Append a row for each method and budget that the results do not have."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    text = ids_of(options.text, tokenizer)
    scored = text[len(text) // 2 :][: options.scored]
    moments = None
    for budget, method in product(options.budgets, options.methods):
        budget = WITHOUT_BUDGET.get(method, budget)
        setting = {"method": method, "budget": budget}
        if any(setting.items() <= row.items() for row in read(options.results)):
            continue
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval().to(options.device)
        row = {}
        if METHODS[method]:
            moments = moments or moments_for(model, options, tokenizer)
        start = time.perf_counter()
        if METHODS[method]:
            model.to(options.factorize_on or options.device)
            row = factorized(model, METHODS[method] | ({} if method in WITHOUT_BUDGET else {"budget": budget}), moments)
        row["seconds_of_factorization"] = round(time.perf_counter() - start)
        append(options.results, setting | row | score(model.to(options.device), scored, tokenizer, options.window))


def factorized(model: PreTrainedModel, config: dict[str, Any], moments: Any) -> dict[str, Any]:
    """Factorize in place; return the parameters of the replaced weights, the energy kept, and the Gaussian floor."""
    plan = adapters.plan_factorization(model, config, moments)
    weights = plan.report().weights
    plan.apply()
    dense, kept = (sum(getattr(w, name) for w in weights) for name in ("dense_parameters", "parameters"))
    energy, floor = (sum(getattr(w, name) * w.dense_parameters for w in weights) / dense for name in ("kept", "floor"))
    return {"dense_parameters": dense, "parameters": kept, "kept": round(energy, 4), "floor": round(floor, 4)}


def ids_of(file: Path, tokenizer: Any) -> Tensor:
    """The token ids of a text, (tokens,)."""
    return tokenizer(file.read_text(encoding="utf-8"), return_tensors="pt", verbose=False)["input_ids"][0]


def moments_for(model: PreTrainedModel, options: argparse.Namespace, tokenizer: Any) -> dict[str, Any]:
    """The second moments of the inputs of the feed-forward weights, from the file that keeps them if it is there."""
    device = options.factorize_on or options.device
    if options.moments is not None and options.moments.exists():
        kept = torch.load(options.moments, weights_only=True)
        return {path: adapters.Moments(total.to(device), tokens) for path, (total, tokens) in kept.items()}
    share = options.tokens // len(options.calibration)
    batches: Iterable[Tensor] = [
        window[None] for file in options.calibration for window in ids_of(file, tokenizer)[:share].split(options.window)
    ]
    moments = adapters.input_moments(model, {"format": "low_rank", "rank": 1}, batches)
    if options.moments is not None:
        torch.save({path: (found.total.cpu(), found.tokens) for path, found in moments.items()}, options.moments)
    return {path: adapters.Moments(found.total.to(device), found.tokens) for path, found in moments.items()}


@torch.no_grad()
def score(model: PreTrainedModel, ids: Tensor, tokenizer: Any, window: int) -> dict[str, float]:
    """The metrics of token ids (tokens,) as a text, see ``seq2seq.causal.windows``; the first token is not scored."""
    stream = TokenStream(ids.numpy(), len(tokenizer.decode(ids).encode()))
    sums = []
    for row in ScoredWindows(stream, Reading(window, None, "none", 0)):
        part, labels = (torch.tensor(row[key], device=model.device) for key in ("input_ids", "labels"))
        labels = labels[1:]
        log_p = model(input_ids=part[None], use_cache=False).logits[0, :-1].log_softmax(-1)  # (tokens - 1, vocabulary)
        scored = labels != IGNORED_LABEL
        sums.append((log_p[scored].gather(-1, labels[scored, None]).double().sum().item(), int(scored.sum())))
    return text_metrics(np.array(sums), stream)


def table(rows: list[dict[str, Any]]) -> str:
    """Perplexity by method, a column for each budget, with the share of the parameters that was used."""
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    cells = {(row["method"], row["budget"]): row for row in rows}
    lines = [
        [method, *(_cell(cells.get((method, budget))) for budget in budgets)]
        for method in METHODS
        if any((method, budget) in cells for budget in budgets)
    ]
    return render_table("Perplexity before training", ["method", *(f"{budget:g}" for budget in budgets)], lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    share = row["parameters"] / row["dense_parameters"] if "parameters" in row else 1
    return f"{row['perplexity']:.2f} ({share:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
