"""The key rank_schedule of a run: what is refused, what a run leaves behind, how it resumes and is asked for more."""

import json

import pytest

import adapters
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment

SCHEDULE = {"start": 3, "every": 3, "end": 9, "budget": 2000}
LORA = {"kind": "tt_lora", "rank": 4, "shape_mode": "ascending", "dropout": 0.1}


@pytest.fixture
def values(values):
    return {**values, "adapter": LORA, "rank_schedule": SCHEDULE}


def read(path):
    return json.loads(path.read_text())


def ranks_of(directory):
    config = read(directory / "adapter_config.json")["adapters"][0]["config"]
    return config["rank_pattern"]


def test_a_run_leaves_its_ranks_behind(values, tmp_path):
    result = run_experiment(read_experiment(values))
    folder = tmp_path / "outputs" / "colours"
    history = read(folder / "ranks.json")
    assert [entry["step"] for entry in history] == [0, 3, 6, 9]
    numbers = [entry["numbers"] for entry in history]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] <= 2000 < numbers[-2]
    assert result["ranks"] == history[-1] == read(folder / "metrics.json")["ranks"]
    assert result["parameters"]["trainable_parameters"] == numbers[-1]
    assert read(folder / "parameters.json")["trainable_parameters"] == numbers[-1]
    assert sum(row["count"] for row in read(folder / "parameters.json")["freezing"] if row["trainable"]) == numbers[-1]
    assert ranks_of(folder / "adapter") == history[-1]["ranks"]["tt_lora"]
    assert read(folder / "config.json")["rank_schedule"] == {
        **{"rel_tol": None, "min_rank": 1, "max_rank": None, "grow": 0},
        **SCHEDULE,
    }
    page = (folder / "README.md").read_text()
    assert "![ranks by step](ranks.png)" in page
    assert f"{numbers[-1]:,} parameters |" in page
    assert (folder / "ranks.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_without_a_schedule_has_none(values, tmp_path):
    result = run_experiment(read_experiment({**values, "rank_schedule": None}))
    assert result["ranks"] is None
    assert not (tmp_path / "outputs" / "colours" / "ranks.json").exists()


@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_stopped_run_resumes_to_the_same_ranks_and_curve(step, values, tmp_path, stop_at, monkeypatch):
    values |= {"logging_steps": 1}
    whole = run_experiment(read_experiment({**values, "experiment_name": "whole"}))

    stop_at(step)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    monkeypatch.undo()
    resumed = run_experiment(read_experiment(values))
    first, second = tmp_path / "outputs" / "whole", tmp_path / "outputs" / "colours"
    for name in ("ranks.json", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    keys = ("step", "loss", "grad_norm", "learning_rate", "eval_loss")
    curves = [[{k: e[k] for k in keys if k in e} for e in read(folder / "history.json")] for folder in (first, second)]
    assert curves[0] == curves[1]
    assert resumed["metrics"] == whole["metrics"]


def test_a_finished_run_is_asked_for_more(values, tmp_path):
    before = run_experiment(read_experiment({**values, "do_predict": False}))
    more = run_experiment(read_experiment({**values, "do_train": False}))
    assert set(more["metrics"]) == {"validation", "test"}
    assert more["metrics"]["validation"] == before["metrics"]["validation"]
    assert more["ranks"] == before["ranks"]
    assert more["parameters"] == before["parameters"]


def test_an_adapter_of_adapted_ranks_is_evaluated_without_a_schedule(values, tmp_path):
    trained = run_experiment(read_experiment({**values, "do_predict": False}))
    alone = {"rank_schedule": None, "do_train": False, "experiment_name": "evaluated"}
    folder = tmp_path / "outputs" / "colours" / "adapter"
    result = run_experiment(read_experiment({**values, **alone, "adapter_path": str(folder)}))
    assert result["metrics"]["validation"] == trained["metrics"]["validation"]
    assert result["parameters"]["trainable_parameters"] == trained["ranks"]["numbers"]


def test_the_random_backbone_has_the_same_schedule_and_writes_nothing(values, tmp_path):
    result = run_experiment(read_experiment({**values, "baselines": ["random_backbone"]}))
    history = read(tmp_path / "outputs" / "colours" / "ranks.json")
    assert "random_backbone" in result["baselines"]
    assert [entry["step"] for entry in history] == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank_schedule": [1, 2]}, ["'rank_schedule'", "object"]),
        ({"rank_schedule": {**SCHEDULE, "budgte": 1}}, ["'budgte'", "did you mean 'budget'"]),
        ({"rank_schedule": {**SCHEDULE, "rel_tol": 0.1}}, ["'rel_tol'", "budget"]),
        ({"rank_schedule": {"start": 1, "every": 1, "rel_tol": 0.1}}, ["'end'"]),
        ({"rank_schedule": {**SCHEDULE, "start": 99, "end": 99}, "max_steps": 10}, ["rank_schedule", "max_steps"]),
        ({"max_steps": 8}, ["rank_schedule", "max_steps", "after 9 of 8 steps"]),
        ({"rank_schedule": {**SCHEDULE, "budget": 2}}, ["budget", "got 2"]),
        ({"adapter": {"kind": "bottleneck"}}, ["'rank_schedule'", "bottleneck"]),
        ({"adapter": {**LORA, "format": "tensor_ring"}}, ["'rank_schedule'", "tensor_ring"]),
        ({"adapter": {**LORA, "shared_cores": [0]}}, ["'rank_schedule'", "shared"]),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(changes, said, values, tmp_path):
    with pytest.raises(adapters.ConfigurationError) as refusal:
        run_experiment(read_experiment({**values, **changes}))
    assert all(part in str(refusal.value) for part in said), refusal.value
    assert not (tmp_path / "outputs").exists()


def test_one_adapter_with_adaptable_ranks_among_others_of_its_kind_is_enough(values):
    other = {**LORA, "target_modules": ["q"], "shared_cores": [0]}
    assert len(read_experiment({**values, "adapter": [LORA, other]}).adapters) == 2


def test_several_processes_are_refused(values, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(adapters.ConfigurationError, match=r"rank_schedule.*torchrun"):
        read_experiment(values)


def test_a_rate_by_the_sizes_of_cores_is_refused(values):
    """The smallest core of the ranks at a resume may be another one than that of the ranks at the start."""
    read_experiment({**values, "learning_rate_multipliers": {"zero_core": 16.0}})
    with pytest.raises(adapters.ConfigurationError, match=r"'rank_schedule'.*smallest_core 2: leave it out"):
        read_experiment({**values, "learning_rate_multipliers": {"smallest_core": 2.0}})
