"""A whole run on a tiny task: what it writes, what it keeps, how it resumes, and that each part works alone."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import adapters
from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from seq2seq.tasks.metrics import compute_metrics
from seq2seq.tasks.registry import CUSTOM_FILES
from seq2seq.text.workload import TextWorkload
from tests.processes import forked
from tests.seq2seq.conftest import stopping_at
from third_party.models.t5 import T5ForConditionalGeneration

FILES = [
    "README.md",
    "adapter/README.md",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "baselines.json",
    "config.json",
    "curve.png",
    "history.json",
    "log.txt",
    "memory.png",
    "metrics.json",
    "parameters.json",
    "predictions_test.jsonl",
    "predictions_validation.jsonl",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """A finished run: its folder, its result and its configuration."""
    root = tmp_path_factory.mktemp("finished")
    backbone, colours = request.getfixturevalue("backbone"), request.getfixturevalue("colours")
    values = {
        "experiment_name": "colours",
        "output_root": str(root),
        "model_name_or_path": str(backbone),
        "train_file": str(colours / "train.tsv"),
        "validation_file": str(colours / "validation.tsv"),
        "test_file": str(colours / "test.tsv"),
        "max_target_length": 4,
        "adapter": [{"kind": "tt_lora", "rank": 4, "target_modules": ["q", "v", "wi", "wo"]}, {"kind": "layer_norm"}],
        "baselines": ["majority", "frozen_backbone", "random_backbone"],
        "per_device_train_batch_size": 16,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "disable_tqdm": True,
    }
    return root / "colours", run_experiment(read_experiment(values)), values


def test_a_run_writes_its_folder(finished):
    folder, _, _ = finished
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in written if not name.startswith("checkpoints/")} == set(FILES)


def test_the_result_is_what_metrics_json_holds(finished):
    folder, result, _ = finished
    assert json.loads((folder / "metrics.json").read_text()) == result
    assert set(result["metrics"]) == {"validation", "test"}
    assert set(result["baselines"]) == {"majority", "frozen_backbone", "random_backbone"}


def test_the_predictions_give_the_reported_metric(finished):
    folder, result, _ = finished
    rows = [json.loads(line) for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    measured = compute_metrics(CUSTOM_FILES, [row["prediction"] for row in rows], [row["target"] for row in rows])
    assert len(rows) == 24
    assert measured["exact_match"] == result["metrics"]["test"]["exact_match"]


def test_the_counts_are_those_of_the_adapter_on_disk(finished):
    folder, result, _ = finished
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == result["parameters"]["trainable_parameters"]
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size == result["adapter_bytes"]
    assert result["merge_difference"] < 1e-5


def test_the_saved_adapter_gives_the_saved_predictions(finished, backbone):
    folder, _, _ = finished
    model = adapters.load(T5ForConditionalGeneration.from_pretrained(backbone), folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    rows = [json.loads(line) for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    batch = tokenizer([row["source"] for row in rows], return_tensors="pt", padding=True)
    texts = tokenizer.batch_decode(model.generate(**batch, max_length=4), skip_special_tokens=True)
    assert texts == [row["prediction"] for row in rows]


def test_a_finished_run_is_kept(finished, caplog):
    folder, result, values = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run_experiment(read_experiment(values)) == result
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "finished and kept" in caplog.text


def test_a_run_folder_without_the_key_workload_is_one_of_text(values, tmp_path, caplog):
    result = run_experiment(read_experiment({**values, "num_train_epochs": 1, "max_train_samples": 16}))
    config = tmp_path / "outputs" / "colours" / "config.json"
    older = {key: value for key, value in json.loads(config.read_text()).items() if key != "workload"}
    config.write_text(json.dumps(older))
    again = run_experiment(read_experiment({**values, "num_train_epochs": 1, "max_train_samples": 16}))
    assert again == result
    assert "is finished and kept" in caplog.text


def test_another_configuration_under_the_same_name_is_refused(finished):
    folder, _, values = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ConfigurationError, match=r"'learning_rate' must equal that of .*, 0.01; got 0.5: .* overwrite"):
        run_experiment(read_experiment({**values, "learning_rate": 0.5}))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_overwrite_does_the_run_again(values, tmp_path):
    run_experiment(read_experiment({**values, "num_train_epochs": 1}))
    result = run_experiment(read_experiment({**values, "num_train_epochs": 2, "overwrite": True}))
    assert result["costs"]["steps_measured"] == 12
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["colours"]
    assert json.loads((tmp_path / "outputs" / "colours" / "config.json").read_text())["num_train_epochs"] == 2


@pytest.mark.parametrize("name", ["thesis.tex", "config.json"])
def test_overwrite_deletes_no_folder_that_is_no_run(name, values, tmp_path):
    (tmp_path / "outputs" / "colours").mkdir(parents=True)
    (tmp_path / "outputs" / "colours" / name).write_text('{"model_type": "t5"}')
    with pytest.raises(ConfigurationError, match="experiment_name"):
        run_experiment(read_experiment({**values, "overwrite": True}))
    assert (tmp_path / "outputs" / "colours" / name).read_text() == '{"model_type": "t5"}'


def test_a_run_that_fails_loses_no_run_that_it_replaces(values, tmp_path, stop_at, monkeypatch):
    first = run_experiment(read_experiment({**values, "num_train_epochs": 1}))
    stop_at(7)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment({**values, "overwrite": True}))
    monkeypatch.undo()
    assert json.loads((tmp_path / "outputs" / "colours.replaced" / "metrics.json").read_text()) == first

    resumed = run_experiment(read_experiment({**values, "overwrite": True}))
    assert resumed["costs"]["steps_measured"] == 6  # of 12: it went on from the first epoch's checkpoint
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["colours"]


def test_a_trained_run_can_be_asked_for_more_in_its_own_folder(values, tmp_path):
    run_experiment(read_experiment({**values, "do_eval": False, "do_predict": False}))
    before = json.loads((tmp_path / "outputs" / "colours" / "metrics.json").read_text())
    more = run_experiment(read_experiment({**values, "do_train": False, "baselines": ["majority"]}))
    assert before["metrics"] == {}
    assert set(more["metrics"]) == {"validation", "test"}
    assert set(more["baselines"]) == {"majority"}
    assert more["costs"] == before["costs"]
    assert more["adapter_bytes"] == before["adapter_bytes"]


def test_a_model_without_its_vocabulary_is_refused(values, backbone, tmp_path):
    shutil.copytree(backbone, tmp_path / "model")
    for name in ("spiece.model", "tokenizer.json"):
        (tmp_path / "model" / name).unlink(missing_ok=True)
    with pytest.raises(ConfigurationError, match="model_name_or_path"):
        run_experiment(read_experiment({**values, "model_name_or_path": str(tmp_path / "model")}))
    assert not (tmp_path / "outputs").exists()


def test_the_log_holds_what_happened(finished):
    log = (finished[0] / "log.txt").read_text()
    assert "Measuring the baseline random_backbone" in log
    assert '"train/loss"' in log
    assert '"validation/average_metrics"' in log


def test_a_run_that_diverges_ends_in_a_sentence(config_file, capsys):
    assert main([str(config_file), "learning_rate=1000", "max_grad_norm=0", "optim=sgd", "adapter.scaling=1e18"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("Failed: A merged weight is finite")
    assert torch.tensor(1e-40) * 1 > 0, "denormal numbers are still flushed after the run"


def test_training_alone_works(values):
    result = run_experiment(read_experiment({**values, "do_eval": False, "do_predict": False}))
    assert result["metrics"] == {}
    assert result["costs"]["steps_measured"] == 12


@pytest.mark.parametrize(("asked", "split"), [("do_eval", "validation"), ("do_predict", "test")])
def test_evaluation_alone_works_with_a_trained_adapter(asked, split, finished, values):
    folder, result, trained = finished
    alone = {"do_train": False, "do_eval": False, "do_predict": False, asked: True}
    evaluated = run_experiment(
        read_experiment({**values, **alone, "adapter": trained["adapter"], "adapter_path": str(folder / "adapter")})
    )
    assert evaluated["metrics"] == {split: result["metrics"][split]}
    assert evaluated["costs"] is None


def test_evaluation_alone_without_training_says_what_it_measures(values, caplog):
    values |= {"do_train": False, "train_file": None, "do_predict": False}
    assert set(run_experiment(read_experiment(values))["metrics"]) == {"validation"}
    assert "as initialised" in caplog.text


LONGER = {"num_train_epochs": 3, "logging_steps": 1, "adapter": {"kind": "tt_lora", "rank": 2, "dropout": 0.1}}


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    """The folder of the longer run, which nobody stops."""
    values = {**finished[2], **LONGER, "output_root": str(tmp_path_factory.mktemp("whole")), "baselines": []}
    run_experiment(read_experiment(values))
    return Path(values["output_root"]) / "colours"


@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_stopped_run_resumes_to_the_same_curve(step, whole, values, tmp_path, stop_at, monkeypatch):
    values |= LONGER
    stop_at(step)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    monkeypatch.undo()
    assert not (tmp_path / "outputs" / "colours" / "metrics.json").exists()
    run_experiment(read_experiment(values))
    assert_same_run(whole, tmp_path / "outputs" / "colours")


def test_a_run_stopped_after_its_last_checkpoint_takes_no_further_step(values, tmp_path):
    values |= {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "no", "save_total_limit": 9}
    values |= {"lr_scheduler_type": "constant"}
    folder = tmp_path / "outputs" / "colours"
    result = run_experiment(read_experiment(values))
    trained = load_file(folder / "adapter" / "adapter_model.safetensors")
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "adapter")
    again = run_experiment(read_experiment(values))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [f"checkpoint-{k}" for k in (1, 2, 3)]
    resumed = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in trained.items())
    assert again["metrics"] == result["metrics"]


def test_dropping_the_last_batch_of_training_drops_no_row_of_evaluation(values):
    values |= {"num_train_epochs": 1, "per_device_eval_batch_size": 7}
    whole = run_experiment(read_experiment({**values, "experiment_name": "whole"}))
    assert run_experiment(read_experiment({**values, "dataloader_drop_last": True}))["metrics"] == whole["metrics"]


def killed_after_a_step(arguments):
    with stopping_at(8, TextWorkload, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        main(arguments)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_curve(whole, values, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**values, **LONGER}))
    assert forked(killed_after_a_step, [str(tmp_path / "config.json")]) == -signal.SIGKILL
    assert not (tmp_path / "outputs" / "colours" / "metrics.json").exists()

    assert main([str(tmp_path / "config.json")]) == 0
    assert_same_run(whole, tmp_path / "outputs" / "colours")


def assert_same_run(first: Path, second: Path) -> None:
    """The same losses at the same steps, and the same adapter bit for bit."""
    histories = []
    for folder in (first, second):
        newest = max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
        kept = ("step", "loss", "grad_norm", "learning_rate", "eval_loss", "eval_average_metrics")
        histories.append([{key: entry[key] for key in kept if key in entry} for entry in history])
    assert histories[0] == histories[1]
    tensors = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (first, second)]
    assert tensors[0].keys() == tensors[1].keys()
    for name in tensors[0]:
        assert torch.equal(tensors[0][name], tensors[1][name]), name


def test_an_invalid_data_row_leaves_no_folder(values, tmp_path):
    (tmp_path / "train.tsv").write_text("source\ttarget\n")
    with pytest.raises(ConfigurationError, match="train_file"):
        run_experiment(read_experiment({**values, "train_file": str(tmp_path / "train.tsv")}))
    assert not (tmp_path / "outputs").exists()
