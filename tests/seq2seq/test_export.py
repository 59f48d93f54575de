"""Exporting: the folder is a plain model of transformers that computes what the run's adapted model does."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

import adapters
from seq2seq import export
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from tests.adapters.models import logits as tiny_logits
from tests.adapters.models import tiny
from tests.adapters.test_architectures import close, disturbed

BATCH = {"input_ids": torch.tensor([[5, 9, 7, 1], [8, 6, 1, 0]]), "decoder_input_ids": torch.tensor([[0, 7], [0, 9]])}
ELSEWHERE = """
import sys
import safetensors.torch as st, transformers
batch = st.load_file(sys.argv[2])
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1]).eval()
st.save_file({"logits": model(**batch).logits.detach()}, sys.argv[3])
assert "adapters" not in sys.modules
"""


@torch.no_grad()
def logits(model):
    return model.eval()(**BATCH).logits


def files(folder):
    return {path.name for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def run(tmp_path_factory, backbone, colours):
    """The folder of a short run, whose data no longer exist."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(colours, root / "data")
    values = {
        "experiment_name": "colours",
        "output_root": str(root),
        "model_name_or_path": str(backbone),
        "train_file": str(root / "data" / "train.tsv"),
        "validation_file": str(root / "data" / "validation.tsv"),
        "max_target_length": 4,
        "adapter": [{"kind": "tt_lora", "rank": 2}, {"kind": "tt_layer_norm"}],
        "max_steps": 3,
        "learning_rate": 0.1,
        "do_eval": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "disable_tqdm": True,
    }
    run_experiment(read_experiment(values))
    shutil.rmtree(root / "data")
    return root / "colours"


@pytest.fixture
def by_task(tmp_path, backbone):
    """A folder of adapters by task."""
    model = AutoModelForSeq2SeqLM.from_pretrained(backbone)
    for task in ("rte", "cola"):
        adapters.attach(model, {"kind": "tt_lora", "rank": 2}, task)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) if parameter.requires_grad else 0
    adapters.save(model, tmp_path / "by_task")
    return tmp_path / "by_task"


def test_a_run_is_exported_for_plain_transformers_in_a_process_without_adapters(run, backbone, tmp_path, capsys):
    assert export.main([str(run), str(tmp_path / "plain")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'plain'}\n"
    base = AutoModelForSeq2SeqLM.from_pretrained(backbone)
    before = logits(base)
    with adapters.merged(adapters.load(base, run / "adapter")):
        expected = logits(base)
    assert (expected - before).abs().max() > 1e-2 * before.abs().max()
    save_file(BATCH, tmp_path / "batch")
    command = [sys.executable, "-c", ELSEWHERE, tmp_path / "plain", tmp_path / "batch", tmp_path / "logits"]
    subprocess.run(command, check=True, cwd=tmp_path)
    got = load_file(tmp_path / "logits")["logits"]
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert "adapters" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert files(tmp_path / "plain") >= {"model.safetensors", "config.json", "tokenizer_config.json"}
    text = "the red house"
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")(text) == AutoTokenizer.from_pretrained(backbone)(text)


def test_the_adapters_of_a_task_are_exported_in_the_dtype_of_the_base(by_task, backbone, tmp_path):
    AutoModelForSeq2SeqLM.from_pretrained(backbone, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    export.export(by_task, tmp_path / "plain", base=str(tmp_path / "base"), task="cola")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "plain")
    assert plain.dtype == torch.bfloat16
    expected = adapters.load(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"), by_task)
    adapters.set_active_task(expected, "cola")
    with adapters.merged(expected):
        assert torch.equal(logits(plain), logits(expected))
    assert not {name for name in files(tmp_path / "plain") if "token" in name or "spiece" in name}


def test_a_classifier_is_exported_with_its_trained_head(tmp_path):
    tiny("bert").bert.save_pretrained(tmp_path / "base")  # the body alone, as on the hub
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    model = disturbed(adapters.attach(model, [{"kind": "tt_lora", "rank": 2}, {"kind": "head"}])).eval()
    adapters.save(model, tmp_path / "adapter")
    export.export(tmp_path / "adapter", tmp_path / "plain", base=str(tmp_path / "base"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    assert close(tiny_logits(plain, "bert"), tiny_logits(model, "bert"))


REFUSED = {
    "destination is not empty": ("{run}", "{here}", [], "new or empty folder"),
    "destination is a file": ("{run}", "{here}/file", [], "new or empty folder"),
    "destination cannot be written": ("{run}", "{here}/file/new", [], "writable destination"),
    "source is missing": ("{here}/nothing", "{new}", [], "neither config.json nor adapter_config.json"),
    "source is a base": ("{backbone}", "{new}", [], "no folder 'adapter'"),
    "run is not finished": ("{unfinished}", "{new}", [], "no folder 'adapter'"),
    "adapter without its base": ("{run}/adapter", "{new}", [], "give --base"),
    "base is missing": ("{run}/adapter", "{new}", ["--base", "{here}/nothing"], "Key 'base'"),
    "other task": ("{by_task}", "{new}", ["--base", "{backbone}", "--task", "col"], "mean 'cola'"),
    "no task": ("{by_task}", "{new}", ["--base", "{backbone}"], "name one of rte, cola"),
    "not mergeable": ("{bottleneck}", "{new}", ["--base", "{backbone}"], "bottleneck"),
    "folder of PEFT": ("{peft}", "{new}", ["--base", "{backbone}"], "PeftModel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_nothing_is_written(case, run, by_task, backbone, tmp_path, capsys):
    source, destination, more, words = REFUSED[case]
    bottleneck = adapters.attach(AutoModelForSeq2SeqLM.from_pretrained(backbone), {"kind": "bottleneck"})
    adapters.save(bottleneck, tmp_path / "bottleneck")
    (tmp_path / "unfinished").mkdir()
    shutil.copy(run / "config.json", tmp_path / "unfinished")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "file").write_text("")
    names = {name: tmp_path / name for name in ("unfinished", "by_task", "bottleneck", "peft")}
    names |= {"run": run, "here": tmp_path, "new": tmp_path / "new" / "plain", "backbone": backbone}
    before = files(tmp_path)
    capsys.readouterr()
    given = [text.format(**names) for text in (source, destination, *more)]
    assert export.main(given) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith("Refused: ")
    assert refusal.count("\n") == 1
    assert words in refusal
    assert files(tmp_path) == before


@pytest.mark.parametrize("case", ["destination is not empty", "destination is a file", "folder of PEFT"])
def test_what_needs_no_model_is_refused_before_one_is_loaded(case, run, backbone, tmp_path, monkeypatch, capsys):
    def load(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(export, "_load_base", load)
    monkeypatch.setattr(export, "read_keys", load)
    test_refused_and_nothing_is_written(case, run, None, backbone, tmp_path, capsys)


def test_a_failure_leaves_nothing_behind(run, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full)
    assert export.main([str(run), str(tmp_path / "plain")]) == 2
    assert "No space left" in capsys.readouterr().err
    assert files(tmp_path) == set()
