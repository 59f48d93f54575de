"""The benchmark of learning rates on a tiny BERT: each run is written once, with what the table needs."""

import json

import pandas as pd
import pytest
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from benchmarks import learning_rates

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def folders(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "model")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    rows = [{"sentence1": "a b c d"[: 2 * (k % 4) + 1], "sentence2": "b a", "label": k % 2} for k in range(360)]
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet")
    return ["--model", str(tmp_path / "model"), "--data", str(tmp_path), "--results", str(tmp_path / "runs.jsonl")]


def test_each_run_is_written_once(folders, tmp_path, capsys):
    for scaling in ("one", "auto", "auto"):
        learning_rates.main(
            [
                *folders,
                "--scaling",
                scaling,
                "--ranks",
                "2",
                "--rates",
                "1e-3",
                "--threads",
                "1",
                "--kinds",
                "LoRA",
                "tt_lora",
            ]
        )
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(runs) == 4
    assert all(run["parameters"] > 0 and 0 <= run["accuracy"] <= 1 and len(run["curve"]) == 10 for run in runs)
    of_tt_lora = {run["scaling"]: run["deltas_scaling"] for run in runs if run["kind"] == "tt_lora"}
    assert of_tt_lora["one"] == [1.0]
    assert of_tt_lora["auto"] != [1.0]
    learning_rates.main([*folders, "--table"])
    assert "0.001" in capsys.readouterr().out
