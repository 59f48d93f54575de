"""Defaults of training arguments that depend on what the run has."""

import pytest

from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment

NO_FILE = {"train_file": None, "validation_file": None, "test_file": None}

# (what is given besides the training file, what the training arguments are)
CASES = {
    "all splits": (
        {},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "do_predict": True},
    ),
    "no validation": (
        {"validation_file": None},
        {"eval_strategy": "no", "save_strategy": "epoch", "load_best_model_at_end": False, "do_eval": False},
    ),
    "no validation, though the file wants it": (
        {"validation_file": None, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3},
        {"eval_strategy": "no", "save_strategy": "steps", "load_best_model_at_end": False, "do_eval": False},
    ),
    "no test": ({"test_file": None}, {"do_predict": False, "do_eval": True}),
    "training only": (
        {"validation_file": None, "test_file": None},
        {"do_train": True, "do_eval": False, "do_predict": False, "load_best_model_at_end": False},
    ),
    "no evaluation while training": (
        {"eval_strategy": "no"},
        {"save_strategy": "epoch", "load_best_model_at_end": False, "do_eval": True},
    ),
    "by steps": (
        {"eval_strategy": "steps", "eval_steps": 3},
        {"save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": True},
    ),
    "what is given stays": (
        {"eval_strategy": "steps", "eval_steps": 3, "save_steps": 6, "do_predict": False},
        {"save_strategy": "steps", "save_steps": 6, "do_predict": False},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_defaults_follow_what_is_there(case, values):
    given, expected = CASES[case]
    training = read_experiment({**values, **given}).training
    assert {key: training[key] for key in expected} == expected


def test_training_without_validation_works_and_says_that_no_checkpoint_is_chosen(values, tmp_path, caplog):
    result = run_experiment(read_experiment({**values, "validation_file": None, "test_file": None}))
    assert result["metrics"] == {}
    assert "No checkpoint is chosen" in caplog.text
    assert (tmp_path / "outputs" / "colours" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_saved_adapter_and_rows_to_test_are_enough(values, tmp_path):
    trained = run_experiment(read_experiment(values))
    alone = {key: values[key] for key in ("output_root", "model_name_or_path", "test_file", "max_target_length")}
    path = str(tmp_path / "outputs" / "colours" / "adapter")
    experiment = read_experiment({"experiment_name": "again", "adapter_path": path, **alone})
    (adapter,) = (config.to_dict() for config in experiment.adapters)
    numbers = {key: adapter[key] for key in ("scaling", "scaling_pattern")}  # which "auto" became
    assert adapter == {**trained["adapter"][0], **numbers}
    assert adapter["scaling"] != "auto"
    assert run_experiment(experiment)["metrics"] == {"test": trained["metrics"]["test"]}


def test_evaluation_alone_needs_no_validation_rows_whatever_the_file_says(values, tmp_path):
    run_experiment(read_experiment(values))
    values |= {"experiment_name": "again", "train_file": None, "validation_file": None, "do_train": False}
    values |= {
        "adapter_path": str(tmp_path / "outputs" / "colours" / "adapter"),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
    }
    assert set(run_experiment(read_experiment(values))["metrics"]) == {"test"}


def test_the_adapter_of_a_run_folder_is_named(values, tmp_path):
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"'adapter_path' .* names the folder of an adapter; got .*/run'.*: write .*/run/adapter"
    ):
        read_experiment({**values, "adapter_path": str(tmp_path / "run")})


def test_a_folder_of_peft_is_recognised(values, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "TT_LORA"}')
    with pytest.raises(ValueError, match=r"'adapter_path' .* our PEFT tuner .*from_peft"):
        read_experiment(
            {key: value for key, value in values.items() if key != "adapter"} | {"adapter_path": str(tmp_path)}
        )
