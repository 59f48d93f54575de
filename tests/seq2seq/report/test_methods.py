"""Aggregating runs into groups and methods, and naming methods."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import Score, methods_of


@pytest.fixture
def methods(tmp_path):
    """The methods of all runs written so far."""
    return lambda: methods_of(collect_runs(tmp_path / "outputs"))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_a_score_is_mean_and_standard_deviation(values):
    score = Score.of(values)
    np.testing.assert_allclose([score.mean, score.std], [np.mean(values), np.std(values, ddof=1)], atol=1e-12)
    assert score.runs == len(values)


def test_one_run_has_no_deviation():
    assert Score.of([0.5]).text() == "0.5000"
    assert Score.of([0.4, 0.6]).text() == "0.5000 ± 0.1414"
    assert Score.of([0.64949]).text(3) == "0.649"  # rounded once


def test_runs_that_differ_only_in_the_seed_are_one_group(write_run, methods):
    for seed, value in enumerate((0.5, 0.7, 0.6)):
        write_run(f"a/seed-{seed}", value, seed=seed, baselines=["majority"] * (seed == 0))
    (method,) = methods()
    assert method.score("rte") == Score.of([0.5, 0.7, 0.6])


def test_a_method_averages_over_tasks_seed_by_seed(write_run, methods):
    values = {"rte": (0.2, 0.4), "cola": (0.6, 0.7)}
    for task, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            write_run(f"{task}-{seed}", value, task_name=task, seed=seed, max_target_length=4 + len(task))
    (method,) = methods()
    assert method.score("cola") == Score.of([0.6, 0.7])
    average = method.average()
    by_seed = np.mean(list(values.values()), axis=0)
    np.testing.assert_allclose([average.mean, average.std], [by_seed.mean(), by_seed.std(ddof=1)])


def test_a_mixture_has_one_group_entry_per_task(write_run, methods):
    metrics = {"rte/accuracy": 0.5, "rte/average_metrics": 0.5, "cola/average_metrics": 0.7, "average_metrics": 0.6}
    write_run("m", metrics=metrics, task_name=None, mixture={"tasks": ["rte", "cola"], "weights": "equal"})
    write_run("s", 0.4)
    mixed, single = sorted(methods(), key=lambda method: len(method.groups), reverse=True)
    assert {task: mixed.score(task).mean for task in mixed.groups} == {"rte": 0.5, "cola": 0.7}
    assert mixed.average().mean == pytest.approx(0.6)
    assert (mixed.label, single.label) == ("tt_lora r4 in a mixture", "tt_lora r4")


def test_a_run_from_before_workloads_is_in_the_group_of_the_workload_text(write_run, methods):
    write_run("old", 0.5, seed=0)
    write_run("new", 0.7, seed=1, workload="text")
    (method,) = methods()
    assert method.score("rte") == Score.of([0.5, 0.7])


def kind(name, **fields):
    return [{"kind": name, **fields}]


# (the changes of each run, their labels)
LABELS = {
    "rank": (
        [{"adapter": kind("tt_lora", rank=2)}, {"adapter": kind("tt_lora", rank=[2, 4])}],
        "tt_lora r2|tt_lora r2-4",
    ),
    "full": ([{"adapter": kind("none")}, {"adapter": kind("bottleneck")}], "full fine-tuning|bottleneck"),
    "two kinds": ([{"adapter": [*kind("tt_lora", rank=2), *kind("layer_norm")]}], "tt_lora r2 + layer_norm"),
    "a distinguishing field": (
        [{"adapter": kind("bottleneck", layers=[0, 1])}, {"adapter": kind("bottleneck", layers=[2])}],
        "bottleneck, layers 0-1|bottleneck, layers 2",
    ),
    "a distinguishing setting": (
        [{"learning_rate": 0.1}, {"learning_rate": 0.2}],
        "tt_lora r4, learning rate 0.1|tt_lora r4, learning rate 0.2",
    ),
    "a setting of the task": ([{"task_name": "rte", "learning_rate": 0.1}, {"task_name": "cola"}], "tt_lora r4"),
    "number of rows": ([{"max_train_samples": 100}, {}], "tt_lora r4|tt_lora r4"),
    "another backbone": ([{"model_name_or_path": "a"}, {"model_name_or_path": "b"}], "tt_lora r4|tt_lora r4"),
    "a setting of logging": ([{"log_to_wandb": True}, {"seed": 1}], "tt_lora r4"),
}


@pytest.mark.parametrize("case", LABELS)
def test_a_label_has_the_kind_and_the_distinguishing_settings(case, write_run, methods):
    changes, labels = LABELS[case]
    for number, change in enumerate(changes):
        write_run(f"run{number}", 0.5 - number / 10, **change)
    assert "|".join(method.label for method in methods()) == labels


def test_the_runs_of_one_sweep_have_its_name(write_run, methods):
    for number in range(2):
        write_run(f"pfeiffer/seed-{number}", 0.9, adapter=kind("bottleneck"), seed=number)
        write_run(f"ranks/rank-{number}", 0.5 - number / 10, adapter=kind("tt_lora", rank=number + 1))
    write_run("alone", 0.2, adapter=kind("prompt"))
    assert [method.label for method in methods()] == ["pfeiffer", "tt_lora r1", "tt_lora r2", "prompt"]


def test_methods_are_sorted_by_number_of_tasks_and_average(write_run, methods):
    write_run("one", 0.9, adapter=kind("prompt"))
    for task in ("rte", "cola"):
        write_run(f"worse-{task}", 0.3, adapter=kind("bitfit"), task_name=task)
        write_run(f"better-{task}", 0.5, adapter=kind("phm"), task_name=task)
    assert [method.label for method in methods()] == ["phm", "bitfit", "prompt"]


def test_validation_metrics_are_used_without_a_test_split(write_run, methods, tmp_path):
    path = write_run("run", 0.5) / "metrics.json"
    result = json.loads(path.read_text())
    del result["metrics"]["test"]
    path.write_text(json.dumps(result))
    (method,) = methods()
    assert (method.groups["rte"].split, method.score("rte").mean) == ("validation", 0.5)
