"""Runs that factorize: one JSON loads, factorizes, trains, evaluates and exports, together or one after the other."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import adapters
from adapters import ConfigurationError
from adapters.factorized.__main__ import main as factorize_command
from adapters.factorized.export import main as export_factorized
from seq2seq import PROJECT
from seq2seq.causal.data import windows_of
from seq2seq.causal.perplexity import perplexity
from seq2seq.causal.workload import CausalWorkload
from seq2seq.configuration.reading import load_experiment, read_experiment
from seq2seq.export import main as export
from seq2seq.running.runner import run_experiment
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run

STEPS = ("do_train", "do_eval", "do_predict")
HALF = {"format": "low_rank", "budget": 0.5, "whiten": "full"}


@pytest.fixture
def factorized(corpus_values):
    """A run on a text whose feed-forward weights keep half of their parameters."""
    return {**corpus_values, "factorize": HALF, "adapter": {"kind": "factors"}, "continuations": 0}


def folder_of(values) -> Path:
    return Path(values["output_root"]) / values["experiment_name"]


def run(values):
    return run_experiment(read_experiment(values))


def scores(values, model):
    """Log-likelihood per token of the test text, window by window, by a loop of its own."""
    text = Path(values["corpus"]["test"])
    total = count = 0
    for ids in windows_of(read_experiment(values).workload, text, 10**6):
        log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        total += log_p.gather(-1, ids[0, 1:, None]).sum().item()
        count += ids.shape[1] - 1
    return total / count


def test_one_json_does_all_and_its_folders_compute_the_same(factorized, tmp_path, monkeypatch):
    """The start is adapters.factorize's own, the report has it, and four ways lead to the trained model."""
    result = run({**factorized, "do_export": True, "baselines": ["dense", "frozen_backbone"]})
    folder = folder_of(factorized)
    base = AutoModelForCausalLM.from_pretrained(factorized["model_name_or_path"])
    keys = read_experiment(factorized).workload
    windows = windows_of(keys, None, 65536)
    calibration = windows[: len(windows) - len(windows) // 5]
    adapters.factorize(base, HALF, calibration)
    kept = sum(p.numel() for n, p in base.named_parameters() if ".cores." in n)
    assert result["parameters"]["trainable_parameters"] == kept
    report = result["factorization"]
    assert sum(weight["parameters"] for weight in report["weights"]) == kept
    assert (folder / "factorized" / "config.json").is_file()
    assert json.loads((folder / "exported" / "config.json").read_text())["use_cache"] is True
    assert report["calibration_tokens"] == sum(window.numel() for window in calibration)
    assert all(0 < weight["error"] < 1 for weight in report["weights"])

    measured = {name: metrics["log_likelihood"] for name, metrics in result["baselines"].items()}
    alone = run(
        {**factorized, "factorize": None, "adapter": {"kind": "none"}, "experiment_name": "dense", "do_train": False}
    )
    assert measured["dense"] == pytest.approx(alone["metrics"]["test"]["log_likelihood"])
    start = run({**factorized, "experiment_name": "start", "do_train": False})
    assert measured["frozen_backbone"] == pytest.approx(start["metrics"]["test"]["log_likelihood"])
    assert result["metrics"]["test"]["log_likelihood"] > measured["frozen_backbone"]

    assert result["export"]["difference"] < 1e-5
    trained = AutoModelForCausalLM.from_pretrained(folder / "factorized")
    dense = AutoModelForCausalLM.from_pretrained(folder / "exported")
    assert export([str(folder), str(tmp_path / "one")]) == 0
    assert export_factorized([str(folder), str(tmp_path / "two")]) == 0
    others = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "two")]
    assert not any("cores" in name for model in (dense, *others) for name, _ in model.named_parameters())
    expected = scores(factorized, trained)
    assert [scores(factorized, model) for model in (dense, *others)] == [pytest.approx(expected, abs=1e-6)] * 3
    moved = shutil.move(folder, tmp_path / "moved")
    monkeypatch.setattr(adapters, "plan_factorization", lambda *_: pytest.fail("the start is there"))
    test_text = Path(factorized["corpus"]["test"])
    again = perplexity(str(moved), test_text, {})
    assert again["log_likelihood"] == pytest.approx(result["metrics"]["test"]["log_likelihood"])
    page = (Path(moved) / "README.md").read_text()
    assert "Factorized weights" in page
    assert "exported against trained" in page


def test_each_step_alone_gives_what_all_together_give(factorized):
    together = run({**factorized, "do_export": True})
    alone = {**factorized, "experiment_name": "alone"}
    only = lambda *keys: dict.fromkeys(STEPS, False) | dict.fromkeys(keys, True)  # noqa: E731
    first = run({**alone, **only()})
    folder = folder_of(alone)
    assert first["metrics"] == {}
    assert first["factorization"] == together["factorization"]
    start = (folder / "start.safetensors").read_bytes()
    assert not (folder / "adapter").exists()
    run({**alone, **only("do_train"), "do_factorize": False})
    assert (folder / "start.safetensors").read_bytes() == start
    result = run({**alone, **only("do_eval", "do_predict"), "do_factorize": False})
    assert result["metrics"] == together["metrics"]
    result = run({**alone, **only(), "do_export": True})
    assert result["metrics"] == together["metrics"]
    config = json.loads((folder / "config.json").read_text())
    assert all(config[key] for key in STEPS)  # so that it runs all of them again
    assert (folder / "exported" / "model.safetensors").read_bytes() == (
        folder_of(factorized) / "exported" / "model.safetensors"
    ).read_bytes()


def test_a_run_starts_from_a_factorized_folder(factorized, tmp_path, text):
    """The first two commands of docs/factorized.md, the second with texts and sizes of its own."""
    start = tmp_path / "start_folder"
    options = ["--format", "low_rank", "--rank", "4", "--whiten", "full", "--calibration", str(text / "train.txt")]
    options += ["--tokens", "1024", "--window", "32"]
    assert factorize_command([factorized["model_name_or_path"], str(start), *options]) == 0
    small = {key: factorized[key] for key in ("output_root", "corpus", "window", "use_cpu", "disable_tqdm")}
    small |= {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "gradient_accumulation_steps": 1, "bf16": False}
    small |= {"last_words": None, "model_name_or_path": str(start), "factorize": None}
    file = PROJECT / "configs" / "kronecker" / "gpt2_81m.json"
    result = run_experiment(load_experiment(file, [f"{key}={json.dumps(value)}" for key, value in small.items()]))
    assert result["export"]["difference"] < 1e-5
    assert result["factorization"] is None
    trained = adapters.load(
        AutoModelForCausalLM.from_pretrained(start), Path(factorized["output_root"]) / "gpt2_81m" / "adapter"
    )
    assert len([name for name in trained.state_dict() if "cores" in name]) == 2 * 3 * 2


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"factorize": {**HALF, "budgets": 0.5}}, ("A factorization", "'budgets'", "'budget'")),
        ({"factorize": [HALF, HALF]}, ("a factorization", "gate_proj, which two of them name")),
        ({"factorize": {**HALF, "budget": 0.001}}, ("budget", "0.001")),
        ({"factorize": None, "calibration": {}}, ("'calibration'", "belongs to a factorization")),
        ({"calibration": {"file": "nowhere.txt"}}, ("calibration.file", "nowhere.txt")),
        ({"calibration": {"tokens": 1}}, ("'tokens'", "at least 2")),
        ({"calibration": {"file": ""}}, ("'file'", "an empty name", "training text")),
        ({"calibration": 3}, ("'calibration' is an object",)),
        ({"do_factorize": False}, ("'do_factorize'", "none in")),
        ({"factorize": None}, ("factors", "needs factorized weights")),
        ({"adapter": {"kind": "tt_lora", "rank": 2, "target_modules": ["up_proj"]}}, ("FactorizedLinear",)),
        ({"learning_rate_multipliers": {"zero_core": 16.0}}, ("'zero_core'", "needs a trainable core")),
        ({"learning_rate_multipliers": {"factor": 2.0}}, ("'factor'", "'factors'")),
        ({"learning_rate_multipliers": {"factors": 0.0}}, ("'factors'", "positive")),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_nothing_written(changes, parts, factorized):
    with pytest.raises(ConfigurationError) as caught:
        run({**factorized, **changes})
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not folder_of(factorized).exists()


def test_rows_need_a_text_to_calibrate_on(task_values, text):
    values = {**task_values, "factorize": HALF, "adapter": {"kind": "factors"}, "max_steps": 2}
    with pytest.raises(ConfigurationError, match=r"calibration\.file"):
        run(values)
    result = run({**values, "calibration": {"file": str(text / "train.txt"), "tokens": 400}, "max_source_length": 64})
    assert result["factorization"]["calibration_tokens"] + result["factorization"]["held_out_tokens"] == 400


def test_other_workloads_factorize_without_calibration(factorized):
    with pytest.raises(ConfigurationError, match="needs a workload that reads texts"):
        read_experiment({"experiment_name": "a", "task_name": "world_sentiment", "factorize": HALF})
    read_experiment({"experiment_name": "a", "task_name": "world_sentiment", "factorize": {**HALF, "whiten": "none"}})


def test_an_adapter_that_is_not_linear_is_not_exported(corpus_values):
    values = {**corpus_values, "adapter": {"kind": "bottleneck", "reduction_factor": 2}, "do_export": True}
    with pytest.raises(ConfigurationError, match=r"'do_export'.*must be linear; got"):
        run(values)
    assert not folder_of(values).exists()


def test_a_start_of_other_keys_is_made_again(factorized):
    only = dict.fromkeys(STEPS, False)
    run({**factorized, **only})
    before = (folder_of(factorized) / "start.safetensors").read_bytes()
    run({**factorized, **only, "factorize": {**HALF, "budget": 0.4}, "overwrite": True})
    assert (folder_of(factorized) / "start.safetensors").read_bytes() != before


def test_a_start_on_other_texts_is_made_again(factorized, tmp_path):
    """The file has the same name and other contents."""
    only, text = dict.fromkeys(STEPS, False), tmp_path / "train.txt"
    values = {**factorized, "corpus": {**factorized["corpus"], "train": str(text)}}
    kept = []
    for words, steps in (("red blue green ", only), ("one two ", {})):
        text.write_text(200 * words)
        run({**values, **steps})
        kept.append((folder_of(values) / "start.safetensors").read_bytes())
    assert kept[0] != kept[1]


def test_adapters_beside_start_alike_however_the_base_was_made(factorized):
    """The random start of the networks draws numbers, and reading them from the run folder does not."""
    lora = {"kind": "tt_lora", "rank": 2, "target_modules": ["q_proj"]}
    networks = {"format": "low_rank", "rank": 4, "start": "random"}
    values = {**factorized, "factorize": networks, "adapter": [{"kind": "factors"}, lora]}
    computed = read_experiment(values).attach(read_experiment(values).load_model())
    run({**values, **dict.fromkeys(STEPS, False)})
    read = read_experiment(values).attach(read_experiment(values).load_model())
    assert not hasattr(read, "factorization_note")
    for name, tensor in computed.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_trained_run_needs_its_start(content, factorized):
    run(factorized)
    path = folder_of(factorized) / "start.safetensors"
    path.unlink()
    if content:
        path.write_bytes(content)
    before = (folder_of(factorized) / "metrics.json").read_bytes()
    test_text = Path(factorized["corpus"]["test"])
    for use in (
        lambda: run({**factorized, "do_export": True}),
        lambda: perplexity(str(folder_of(factorized)), test_text, {}),
    ):
        with pytest.raises(ConfigurationError, match="needs the networks that a trained run started from"):
            use()
    assert path.exists() == bool(content)
    assert (folder_of(factorized) / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("tokens", [33, 64, 320])
def test_there_are_held_out_tokens_if_there_are_two_windows(tokens, factorized):
    result = run({**factorized, **dict.fromkeys(STEPS, False), "calibration": {"tokens": tokens}})["factorization"]
    assert result["calibration_tokens"] + result["held_out_tokens"] == (32 if tokens == 33 else tokens)
    assert result["held_out_tokens"] == {33: 0, 64: 32, 320: 64}[tokens]


def test_a_file_in_the_way_of_an_export_is_refused(corpus_values):
    run(corpus_values)
    (folder_of(corpus_values) / "exported").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"'do_export'.*a file 'exported'.*move it away"):
        run({**corpus_values, "do_export": True})
    assert (folder_of(corpus_values) / "exported").read_text() == "mine"


def test_a_run_that_is_replaced_has_its_start(factorized):
    for options in ({}, {"overwrite": True}):
        result = run({**factorized, **options})
        assert result["factorization"]
        assert (folder_of(factorized) / "start.safetensors").is_file()


def test_the_random_backbone_has_random_networks(factorized):
    result = run({**factorized, "baselines": ["random_backbone"]})
    assert math.isfinite(result["baselines"]["random_backbone"]["log_likelihood"])


def test_rates_of_factors_and_the_rest(factorized):
    """With factors at a rate of nearly nothing, only the rest moves; the optimizer's groups say so too."""
    values = {**factorized, "adapter": {"kind": "none"}, "learning_rate_multipliers": {"factors": 1e-9}}
    run(values)
    folder = folder_of(values)
    state = torch.load(next(folder.glob("checkpoints/checkpoint-*")) / "optimizer.pt", weights_only=True)
    rates = sorted({group["initial_lr"] for group in state["param_groups"] if group["params"]})
    assert rates == pytest.approx([1e-11, 1e-2])
    experiment = read_experiment(values)
    start, trained = experiment.load_model(), experiment.load_model()
    adapters.load(trained, folder / "adapter")
    for (name, before), after in zip(start.named_parameters(), trained.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-8) == (".cores." in name), name


def test_a_stopped_run_resumes_to_the_same_curve(factorized):
    """Its start is not computed again, and its curve is that of one run."""
    values = {**factorized, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 8}
    values |= {"factorize": {**HALF, "stack": [["gate_proj", "up_proj"]]}}
    folder = folder_of(values)
    with stopping_at(5, CausalWorkload), pytest.raises(KeyboardInterrupt):
        run(values)
    written = (folder / "start.safetensors").stat().st_mtime_ns
    run(values)
    assert (folder / "start.safetensors").stat().st_mtime_ns == written
    run({**values, "experiment_name": "whole"})
    assert_same_run(folder.with_name("whole"), folder)
