"""Mixtures: shares, the rows of an epoch, complete runs on several tasks, and two processes against one."""

import json
import math
import shutil
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils.data import BatchSampler

import adapters
from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq import PROJECT
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment
from seq2seq.tasks.metrics import average_over_tasks, compute_metrics
from seq2seq.tasks.mixing import Mixture, apportion
from seq2seq.tasks.registry import TASKS
from seq2seq.text.trainer import make_trainer
from tests.processes import torchrun
from tests.seq2seq.running.test_runner import assert_same_run

PAIR = ("world_sentiment", "world_similarity")  # classes and scores

sizes = st.lists(st.integers(1, 60), min_size=2, max_size=5)


def mixture(**values):
    return Mixture.from_dict({"tasks": PAIR, **values})


def mix(counts, block=1, seed=0, **values):
    """The sampler of a mixture with one task per count; equal shares by default."""
    names = list(TASKS)[: len(counts)]
    values = {"weights": "equal", "batches": "mixed" if block == 1 else "one_task", **values}
    return Mixture.from_dict({"tasks": names, **values}).sampler(dict(zip(names, counts, strict=True)), block, seed)


def epoch_of(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


def task_of(row, counts):
    """The task of a row, given as an index into the concatenated rows."""
    return next(task for task in range(len(counts)) if row < sum(counts[: task + 1]))


# Shares


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (100, 400)),
        ({"weights": "proportional"}, (100, 400)),
        ({"weights": "equal"}, (1, 1)),
        ({"weights": "temperature", "temperature": 2}, (10, 20)),
        ({"weights": "temperature", "temperature": 1}, (100, 400)),
        ({"weights": {"world_similarity": 3, "world_sentiment": 1.5}}, (1.5, 3)),
    ],
)
def test_shares_follow_their_rule(values, expected):
    shares = mixture(**values).shares({"world_sentiment": 100, "world_similarity": 400})
    assert shares == pytest.approx(dict(zip(PAIR, (part / sum(expected) for part in expected), strict=True)))


@settings(max_examples=100)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.integers(0, 10**5))
def test_apportioned_counts_sum_to_the_total_and_are_within_one_of_their_share(weights, total):
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    counts = apportion([float(share) for share in shares], total)
    assert sum(counts) == total
    assert all(abs(count - share * total) < 1 for count, share in zip(counts, shares, strict=True))


# The rows of an epoch


@settings(max_examples=60)
@given(sizes, st.integers(0, 2**32 - 1))
def test_a_proportional_epoch_is_every_row_once(counts, seed):
    sampler = mix(counts, seed=seed, weights="proportional")
    for number in (0, 1, 5):
        assert sorted(epoch_of(sampler, number)) == list(range(sum(counts)))


@settings(max_examples=60)
@given(sizes, st.integers(1, 8), st.data())
def test_an_epoch_has_each_task_in_its_share(counts, block, data):
    numbers = data.draw(st.lists(st.integers(10, 20), min_size=len(counts), max_size=len(counts)))
    blocks = math.ceil(sum(counts) / block)
    try:
        sampler = mix(counts, block, weights=dict(zip(TASKS, map(float, numbers), strict=False)))
    except ConfigurationError:
        assert min(Fraction(number, sum(numbers)) * blocks for number in numbers) < 1
        return
    rows = epoch_of(sampler, data.draw(st.integers(0, 9)))
    assert len(rows) == len(sampler) == blocks * block
    drawn = Counter(task_of(row, counts) for row in rows)
    for task, number in enumerate(numbers):
        assert abs(drawn[task] - Fraction(number, sum(numbers)) * blocks * block) < block


@settings(max_examples=60)
@given(st.lists(st.integers(5, 60), min_size=2, max_size=3), st.integers(1, 3), st.integers(1, 4))
def test_rows_of_a_task_are_drawn_equally_often_up_to_one(counts, block, epochs):
    sampler = mix(counts, block, weights="temperature", temperature=100.0)
    drawn = Counter(row for number in range(epochs) for row in epoch_of(sampler, number))
    for task in range(len(counts)):
        first = sum(counts[:task])
        times = [drawn[row] for row in range(first, first + counts[task])]
        assert max(times) - min(times) <= 1


@settings(max_examples=60)
@given(sizes, st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_an_epoch_depends_only_on_its_number_and_the_seed(counts, number, seed):
    visited = mix(counts, seed=seed)
    for earlier in range(number):
        epoch_of(visited, earlier)
    assert epoch_of(mix(counts, seed=seed), number) == epoch_of(visited, number)


def test_epochs_and_seeds_differ():
    epochs = [epoch_of(mix([40, 50], seed=seed), number) for seed in (0, 1) for number in (0, 1)]
    assert len({tuple(rows) for rows in epochs}) == 4


@settings(max_examples=60)
@given(st.lists(st.integers(20, 60), min_size=2, max_size=4), st.integers(1, 4), st.integers(1, 3))
def test_processes_of_a_step_train_on_one_task_and_divide_its_rows(counts, per_process, processes):
    sampler = mix(counts, per_process * processes, batches="one_task")
    sampler.set_epoch(3)
    alone = list(BatchSampler(sampler, per_process * processes, drop_last=False))
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, per_process, drop_last=False), processes, process))
        for process in range(processes)
    ]
    steps = [[row for batch in batches for row in batch] for batches in zip(*shards, strict=True)]
    assert steps == alone
    assert all(len({task_of(row, counts) for row in rows}) == 1 for rows in steps)


@pytest.mark.parametrize("scale", [1e308, 1e-300])
def test_shares_depend_on_the_ratio_of_the_weights_only(scale):
    weights = dict.fromkeys(PAIR, scale)
    assert mixture(weights=weights).shares(dict.fromkeys(PAIR, 10)) == dict.fromkeys(PAIR, 0.5)


def test_a_task_too_small_for_an_epoch_raises_an_error():
    with pytest.raises(
        ConfigurationError, match=r"'weights' of the mixture gives each task at least 8 rows .* 1.96% for 'cola'"
    ):
        mix([2, 100], 8, weights="proportional")


# Metrics


def test_metrics_of_several_tasks_are_prefixed_and_averaged():
    one, other = (
        {"accuracy": 0.5, "average_metrics": 0.5, "loss": 1.0},
        {"f1": 1.0, "average_metrics": 1.0, "loss": 4.0},
    )
    assert average_over_tasks({"a": one}) == one
    assert average_over_tasks({"a": one, "b": other}) == {
        "a/accuracy": 0.5,
        "a/average_metrics": 0.5,
        "a/loss": 1.0,
        "b/f1": 1.0,
        "b/average_metrics": 1.0,
        "b/loss": 4.0,
        "average_metrics": 0.75,
        "loss": 2.5,
    }


# Complete runs on the small world's tasks and backbone

QUIET = {"eval_strategy": "no", "load_best_model_at_end": False}
SETTINGS = {"shared": {}, "per_task": {"batches": "one_task", "adapters": "per_task"}}


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory):
    """The first 60 rows of each split of both tasks, in a folder for each."""
    root = tmp_path_factory.mktemp("tasks")
    for path in (PROJECT / "assets/small_world/tasks").glob("s*/*.tsv"):
        (root / path.parent.name).mkdir(exist_ok=True)
        (root / path.parent.name / path.name).write_text("".join(path.read_text().splitlines(keepends=True)[:61]))
    return root


@pytest.fixture
def values(tmp_path, few_rows):
    """A small run on two tasks: 48 rows, six steps an epoch."""
    return {
        "experiment_name": "mixed",
        "output_root": str(tmp_path),
        "data_dir": str(few_rows),
        "mixture": {"tasks": list(PAIR), "weights": {"world_sentiment": 2, "world_similarity": 1}},
        "max_train_samples": 24,
        "max_target_length": 4,
        "max_validation_samples": 6,
        "max_test_samples": 5,
        "adapter": {"kind": "tt_lora", "rank": 2, "scaling": 1.0},
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "disable_tqdm": True,
    }


def with_setting(values, setting):
    return {**values, "mixture": {**values["mixture"], **SETTINGS[setting]}}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_on_several_tasks(setting, values, tmp_path):
    result = run_experiment(
        read_experiment(with_setting({**values, "baselines": ["majority", "frozen_backbone"]}, setting))
    )
    assert result["task"] == "world_sentiment + world_similarity"
    assert result["costs"]["steps_measured"] == 12
    tensors = load_file(tmp_path / "mixed" / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == result["parameters"]["trainable_parameters"]
    assert result["merge_difference"] < 1e-5
    for split, count in (("validation", 6), ("test", 5)):
        by_task = {}
        for name in PAIR:
            path = tmp_path / "mixed" / f"predictions_{split}_{name}.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert len(rows) == count
            assert all(row["source"].startswith(f"{name} ") for row in rows)
            predictions, targets = [row["prediction"] for row in rows], [row["target"] for row in rows]
            by_task[name] = compute_metrics(TASKS[name], predictions, targets)
        assert result["metrics"][split] == average_over_tasks(by_task)
    page = (tmp_path / "mixed" / "README.md").read_text()
    assert f"| test mean | {result['metrics']['test']['average_metrics']:.4f} |" in page
    assert "constant_predictions" not in page
    assert set(result["baselines"]["majority"]) == set(result["metrics"]["test"])
    assert set(result["baselines"]["frozen_backbone"]) == set(result["metrics"]["test"])


def test_adapters_are_shared_or_separate_for_each_task(values):
    parameters = {}
    for setting in SETTINGS:
        model = prepare(read_experiment(with_setting(values, setting)), Path("nowhere")).model
        parameters[setting] = adapters.summary(model).to_dict()["trainable_parameters"]
        assert {attachment.task for attachment in adapters.attachments(model)} == (
            {None} if setting == "shared" else set(PAIR)
        )
    assert parameters["per_task"] == 2 * parameters["shared"]


def test_separate_adapters_learn_the_same_as_alone(values):
    """Plain gradient descent at a constant rate, so that a step of another task would change the parameters."""
    values = with_setting(values, "per_task") | {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0}
    values |= {"num_train_epochs": 1, "save_strategy": "no"} | QUIET
    prepared = prepare(read_experiment(values), Path("nowhere"))
    start = {name: tensor.clone() for name, tensor in adapters.adapter_state_dict(prepared.model).items()}
    trainer = make_trainer(prepared, tuple(prepared.data.tasks))
    trainer.train()
    trained = adapters.adapter_state_dict(prepared.model)

    again = prepare(read_experiment(values), Path("nowhere"))
    alone = make_trainer(again, tuple(prepared.data.tasks))
    rows = list(again.data.train_sampler)
    first_task = [row for row in rows if row < 24]
    assert 0 < len(first_task) < len(rows)
    alone.train_sampler = None
    alone.train_dataset = alone.train_dataset.select(first_task)
    alone.args.train_sampling_strategy = "sequential"
    alone.train()
    tensors = adapters.adapter_state_dict(again.model)
    trained_task = [name for name in tensors if "world_sentiment" in name]
    other = [name for name in tensors if "world_similarity" in name]
    assert len(trained_task) == len(other) == len(tensors) / 2
    assert all(torch.equal(tensors[name], trained[name]) for name in trained_task)
    assert any(not torch.equal(tensors[name], start[name]) for name in trained_task)
    assert all(torch.equal(tensors[name], start[name]) for name in other)


def test_a_run_stopped_within_an_epoch_resumes_to_the_same_result(values, tmp_path, stop_at, monkeypatch):
    """Checkpoints at 4 and 8, epochs of 6 steps; separate adapters are resumed by two processes below."""
    values = values | {"save_strategy": "steps", "save_steps": 4, "logging_steps": 1} | QUIET
    values |= {"do_eval": False, "do_predict": False}
    values["adapter"] = {**values["adapter"], "dropout": 0.1}
    run_experiment(read_experiment({**values, "experiment_name": "whole"}))
    stop_at(9)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    monkeypatch.undo()
    run_experiment(read_experiment(values))
    assert_same_run(tmp_path / "whole", tmp_path / "mixed")


# Row limits


def sources(values, task=PAIR[0]):
    return prepare(read_experiment(values), Path("nowhere")).data.tasks[task].splits["train"]["source"][:]


def test_a_limit_applies_to_each_task_and_its_rows_depend_only_on_data_seed(values):
    few, more = sources({**values, "max_train_samples": 4}), sources({**values, "max_train_samples": 9})
    assert (len(few), len(more)) == (4, 9)
    assert set(few) < set(more)
    assert sources({**values, "max_train_samples": 4, "seed": 7}) == few
    assert set(sources({**values, "max_train_samples": 4, "data_seed": 7})) != set(few)
    alone = {key: value for key, value in values.items() if key != "mixture"}
    alone |= {"task_name": PAIR[0], "data_dir": f"{values['data_dir']}/sentiment"}
    assert sources({**alone, "max_train_samples": 4}) == few


def test_a_limit_above_the_rows_of_a_task_raises_an_error_with_its_name(values, tmp_path):
    shutil.copytree(values["data_dir"], tmp_path / "tasks")
    small = tmp_path / "tasks" / "similarity" / "train.tsv"
    small.write_text("".join(small.read_text().splitlines(keepends=True)[:11]))
    values |= {"data_dir": str(tmp_path / "tasks")}
    assert len(sources({**values, "max_train_samples": 10}, "world_similarity")) == 10
    with pytest.raises(ConfigurationError, match=r"'max_train_samples' .*; got '11 of task world_similarity': .* 10"):
        sources({**values, "max_train_samples": 11})


# Two processes


def run_and_resume(root):
    """A run, and the same one as it was after step 4, under another name."""
    assert main([str(root / "two.json")]) == 0
    if torch.distributed.get_rank() == 0:
        shutil.copytree(root / "two", root / "again")
        for left in ("checkpoints/checkpoint-6", "adapter"):
            shutil.rmtree(root / "again" / left)
        (root / "again" / "metrics.json").unlink()
        config = json.loads((root / "two" / "config.json").read_text())
        (root / "again" / "config.json").write_text(json.dumps({**config, "experiment_name": "again"}))
    torch.distributed.barrier()
    assert main([str(root / "again.json")]) == 0


@pytest.mark.slow
def test_two_processes_equal_one_and_resume_within_an_epoch(values, tmp_path):
    """Checkpoint 4 of 6 lies within the second epoch of three steps."""
    values = with_setting(values, "per_task") | {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1} | QUIET
    values |= {"do_eval": False, "save_total_limit": 9}
    values |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 4}
    changes = {"one": {"per_device_train_batch_size": 8}, "two": {}, "again": {}}
    for name, change in changes.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**values, "experiment_name": name, **change}))
    torchrun(run_and_resume, tmp_path)
    assert main([str(tmp_path / "one.json")]) == 0
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert list(two) == list(one) == [1, 2, 3, 4, 5, 6]
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-4)
    assert_same_run(tmp_path / "two", tmp_path / "again")
    written = {
        step: [
            (tmp_path / name / f"checkpoints/checkpoint-{step}/trainer_state.json").stat().st_mtime_ns
            for name in ("two", "again")
        ]
        for step in (4, 6)
    }
    assert written[4][0] == written[4][1]  # copied, not trained again
    assert written[6][0] < written[6][1]
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text())["metrics"] for name in changes]
    assert metrics[0] == metrics[1] == metrics[2]


def losses(folder):
    """The training loss by step."""
    newest = max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
