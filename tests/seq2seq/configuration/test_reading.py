"""Configurations that are right: defaults, overrides, types, and the way back to JSON."""

import json

import pytest

from adapters import AdapterConfig, ConfigurationError
from seq2seq import PROJECT
from seq2seq.configuration.defaults import TRAINING_DEFAULTS
from seq2seq.configuration.reading import find_file, load_experiment, override, read_experiment
from seq2seq.extras.baselines import Baselines


def test_a_configuration_is_read_into_its_three_parts(values):
    experiment = read_experiment(values)
    assert experiment.run.experiment_name == "colours"
    assert experiment.adapters == (AdapterConfig.from_dict({"kind": "tt_lora", "rank": 2}),)
    assert experiment.training["learning_rate"] == 0.01
    assert experiment.training["save_strategy"] == TRAINING_DEFAULTS["save_strategy"]


def test_no_adapter_means_full_fine_tuning(values):
    del values["adapter"]
    assert [config.kind for config in read_experiment(values).adapters] == ["none"]


def test_a_list_of_adapters_composes(values):
    values["adapter"] = [{"kind": "tt_lora"}, {"kind": "layer_norm"}]
    assert [config.kind for config in read_experiment(values).adapters] == ["tt_lora", "layer_norm"]


def test_the_resolved_configuration_reads_back_to_itself(values):
    experiment = read_experiment(values)
    assert read_experiment(json.loads(json.dumps(experiment.to_dict()))) == experiment


def baselines_of(experiment):
    return next(extra for extra in experiment.extras if isinstance(extra, Baselines)).baselines


OVERRIDES = {
    "number": ("learning_rate=0.5", lambda e: e.training["learning_rate"], 0.5),
    "exponent": ("learning_rate=1e-4", lambda e: e.training["learning_rate"], 1e-4),
    "whole number for a float": ("num_train_epochs=4", lambda e: e.training["num_train_epochs"], 4.0),
    "truth value": ("do_train=false", lambda e: e.training["do_train"], False),
    "null": ("max_train_samples=null", lambda e: e.workload.max_train_samples, None),
    "string": ("experiment_name=other", lambda e: e.run.experiment_name, "other"),
    "name that begins with a digit": ("experiment_name=3rd", lambda e: e.run.experiment_name, "3rd"),
    "string with an equals sign": ("output_root=/tmp/a=b", lambda e: e.run.output_root, "/tmp/a=b"),
    "list": ('baselines=["majority"]', baselines_of, ("majority",)),
    "inside the adapter": ("adapter.rank=4", lambda e: e.adapters[0].rank, 4),
    "list inside the adapter": ("adapter.rank=[2,3]", lambda e: e.adapters[0].rank, (2, 3)),
    "whole adapter": ('adapter={"kind":"bottleneck"}', lambda e: e.adapters[0].kind, "bottleneck"),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_an_override_is_typed(case, config_file):
    text, read, expected = OVERRIDES[case]
    value = read(load_experiment(config_file, [text]))
    assert value == expected
    assert type(value) is type(expected)


def test_an_override_reaches_into_a_list():
    values = {"adapter": [{"kind": "tt_lora"}, {"kind": "layer_norm"}]}
    assert override(values, ["adapter[0].rank=4"])["adapter"][0] == {"kind": "tt_lora", "rank": 4}


def test_the_last_override_wins(config_file):
    assert load_experiment(config_file, ["seed=1", "seed=2"]).training["seed"] == 2


def test_a_run_lies_in_its_own_folder(values, tmp_path):
    experiment = read_experiment(values)
    assert experiment.run.directory == tmp_path / "outputs" / "colours"
    assert experiment.training_arguments().output_dir == str(tmp_path / "outputs" / "colours" / "checkpoints")


def test_a_model_directory_is_found_here_or_in_the_project(values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values["model_name_or_path"] = "configs"
    assert read_experiment(values).workload.model_location == str(PROJECT / "configs")
    (tmp_path / "configs").mkdir()
    assert read_experiment(values).workload.model_location == str(tmp_path / "configs")


def test_the_seed_orders_the_rows_that_the_seed_of_the_data_takes(values):
    experiment = read_experiment({**values, "data_seed": 7, "seed": 3})
    arguments = experiment.training_arguments()
    assert (experiment.workload.data_seed, arguments.data_seed, arguments.seed) == (7, 3, 3)


SHIPPED = ["configs/quickstart.json", "quickstart", "configs/demo/bitfit.json", "demo/bitfit"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_of_the_project_is_found_from_any_directory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_file(name) == PROJECT / "configs" / f"{name.removeprefix('configs/').removesuffix('.json')}.json"


def test_a_file_here_is_preferred_to_one_of_the_project(config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    config_file.rename(tmp_path / "configs/quickstart.json")
    assert load_experiment("configs/quickstart.json").run.experiment_name == "colours"


def test_a_file_that_does_not_exist_is_refused_with_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"got 'quickstrat', which is not a file: .*did you mean 'quickstart'"):
        find_file("quickstrat")
