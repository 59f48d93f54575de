"""A new user's walk: own files, training, Ctrl-C, resuming, predicting, exporting, loading in plain transformers."""

import json
import signal
import subprocess
import sys
import time

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from run_seq2seq import main
from seq2seq import PROJECT, export


@pytest.mark.slow
def test_from_own_files_to_plain_transformers(backbone, colours, tmp_path, capsys):
    run_folder = tmp_path / "outputs" / "colours"
    keys = {
        "experiment_name": "colours",
        "output_root": str(tmp_path / "outputs"),
        "model_name_or_path": str(backbone),
        "train_file": str(colours / "train.tsv"),
        "validation_file": str(colours / "validation.tsv"),
        "adapter": {"kind": "tt_lora", "rank": 4, "scaling": 4.0},
        "max_target_length": 4,
        "learning_rate": 0.02,
        "num_train_epochs": 8,
        "per_device_train_batch_size": 16,
    }
    config = tmp_path / "colours.json"
    config.write_text(json.dumps(keys))

    command = [sys.executable, "run_seq2seq.py", str(config)]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as first:
        while not list(run_folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        assert first.wait() == 130
        assert "Run the same command again to continue from the last checkpoints." in first.stderr.read()

    assert main([str(config)]) == 0
    assert "trainable parameters" in capsys.readouterr().out
    assert "Resuming from" in (run_folder / "log.txt").read_text()

    sources = [line.split("\t")[0] for line in (colours / "test.tsv").read_text().splitlines()[1:]]
    (tmp_path / "new.tsv").write_text("\n".join(["source", *sources]) + "\n")
    assert main(["predict", str(run_folder), str(tmp_path / "new.tsv")]) == 0
    assert "24 rows" in capsys.readouterr().out
    predicted = [json.loads(line) for line in (run_folder / "predictions" / "new.jsonl").read_text().splitlines()]
    assert [row["source"] for row in predicted] == sources

    assert export.main([str(run_folder), str(tmp_path / "exported")]) == 0
    model, tokenizer = (cls.from_pretrained(tmp_path / "exported") for cls in (AutoModelForSeq2SeqLM, AutoTokenizer))
    batch = tokenizer(sources, return_tensors="pt", padding=True)
    texts = tokenizer.batch_decode(model.generate(**batch, max_length=4), skip_special_tokens=True)
    assert texts == [row["prediction"] for row in predicted]
    assert len(set(texts)) > 1
