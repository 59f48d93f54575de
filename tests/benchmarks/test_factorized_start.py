"""The benchmark of starts on a tiny Llama: its perplexity is that of transformers, and each row is written once."""

import math
import random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from benchmarks import factorized_start
from benchmarks.learning_rates import read
from tests.seq2seq.causal_models import byte_tokenizer


def test_rows_are_written_once_and_scored_as_transformers_does(tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=257, **sizes))
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(random.Random(0).choices(("red", "blue", "green"), k=200)))
    command = ["--model", str(tmp_path / "model"), "--calibration", str(text), str(text), "--text", str(text)]
    command += ["--tokens", "512", "--window", "64", "--budgets", "0.5", "--results", str(tmp_path / "rows.jsonl")]
    command += ["--threads", "1", "--moments", str(tmp_path / "moments.pt")]
    methods = ["dense", "SVD", "whitened SVD", "whitened SVD, gate and up share their input core"]
    for _ in range(2):
        assert factorized_start.main([*command, "--methods", *methods]) == 0
    rows = read(tmp_path / "rows.jsonl")
    assert [row["method"] for row in rows] == methods
    ids = factorized_start.ids_of(text, AutoTokenizer.from_pretrained(tmp_path / "model"))
    ids = ids[len(ids) // 2 :][None]
    parts = [ids[:, begin : begin + 64] for begin in range(0, ids.shape[1] - 1, 63)]
    with torch.no_grad():
        losses = [model(input_ids=part, labels=part).loss.item() * (part.shape[1] - 1) for part in parts]
    assert math.isclose(-rows[0]["log_likelihood"], sum(losses) / (ids.shape[1] - 1), rel_tol=1e-5)
    assert all(row["parameters"] <= 0.5 * row["dense_parameters"] for row in rows[1:])
    assert rows[1]["kept"] >= rows[2]["kept"]  # the SVD keeps most of the weight, the whitened one of its outputs
    assert (tmp_path / "moments.pt").exists()
    shown = capsys.readouterr().out
    assert all(f"{row['perplexity']:.2f}" in shown for row in rows)
