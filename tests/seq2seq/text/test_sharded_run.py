"""A run whose model is sharded over two processes, from its JSON file to its result, against one process."""

import json
import shutil
from functools import partial

import pytest
from safetensors.torch import load_file

import adapters
from run_seq2seq import main
from tests.processes import torchrun
from tests.sharding import together

pytestmark = pytest.mark.slow
CONFIG = {"reshard_after_forward": True}


def test_sharded_run_gives_the_result_of_one_process(values, tmp_path):
    base = shutil.copytree(values["model_name_or_path"], tmp_path / "base")
    (base / "config.json").write_text(
        (base / "config.json").read_text().replace('"dropout_rate": 0.1', '"dropout_rate": 0')
    )
    values |= {"model_name_or_path": str(base), "logging_steps": 1, "use_cpu": True, "num_train_epochs": 1}
    values |= {"baselines": ["frozen_backbone"]}  # evaluated without a training
    one = {**values, "experiment_name": "one", "per_device_eval_batch_size": 24}
    sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 12}
    two = {**values, **sizes, "experiment_name": "two", "fsdp": True, "fsdp_config": CONFIG}
    for keys in (one, two):
        (tmp_path / f"{keys['experiment_name']}.json").write_text(json.dumps(keys))
    assert main([str(tmp_path / "one.json")]) == 0
    assert torchrun(together, [partial(main, [str(tmp_path / "two.json")])]) == [[0], [0]]

    folders = [tmp_path / "outputs" / name for name in ("one", "two")]
    histories = [json.loads((folder / "history.json").read_text()) for folder in folders]
    for key in ("loss", "eval_loss"):
        expected, found = ([entry[key] for entry in history if key in entry] for history in histories)
        assert len(expected) >= 1
        assert found == pytest.approx(expected, rel=1e-5)
    expected, found = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    assert found["metrics"]["test"] == pytest.approx(expected["metrics"]["test"])
    assert found["baselines"]["frozen_backbone"] == pytest.approx(expected["baselines"]["frozen_backbone"])
    assert (found["parameters"], found["merge_difference"]) == (expected["parameters"], None)
    expected, found = (load_file(folder / "adapter" / adapters.WEIGHTS_NAME) for folder in folders)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: tensor.shape for n, tensor in expected.items()}
    config = json.loads((folders[1] / "config.json").read_text())
    assert (config["fsdp"], config["fsdp_config"]) == (True, CONFIG)
    log = (folders[1] / "log.txt").read_text()
    assert "Evaluating unmerged because of shards" in log
