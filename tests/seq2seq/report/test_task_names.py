"""Which results are of one task."""

import pytest

from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.paired import paired_difference
from seq2seq.report.settings import IGNORED_KEYS, is_ignored
from seq2seq.report.tables import tasks_of

LORA, BITFIT = [{"kind": "tt_lora"}], [{"kind": "bitfit"}]


def own(file, **keys):
    return {"task_name": None, "task": keys.get("data_name", "own_files"), "test_file": file, **keys}


def described(file, name="opinion", **keys):
    folder = file.rpartition("/")[0]
    files = {"train": f"{folder}/train.tsv", "test": file}
    return {"task_name": name, "tasks": {name: {"files": files, "source": "{x}", "target": "{y}"}}, **keys}


# (changes of two runs, the tasks that the report has)
TASKS = {
    "own files": ((own("a/test.tsv"), own("b/test.tsv")), ["a", "b"]),
    "one own file": ((own("a/test.tsv"), own("a/test.tsv")), ["a"]),
    "another spelling": ((own("a/test.tsv"), own("./b/../a/test.tsv")), ["a"]),
    "relative and absolute": ((own("a/test.tsv"), own("/home/user/a/test.tsv")), ["a"]),
    "absolute and relative": ((own("/home/user/a/test.tsv"), own("./a/test.tsv")), ["a"]),
    "an end of a name only": ((own("a/test.tsv"), own("/home/data/test.tsv")), ["a", "data"]),
    "two absolute": ((own("/x/a/test.tsv"), own("/y/a/test.tsv")), ["x/a", "y/a"]),
    "a name": ((own("a/test.tsv", data_name="mine"), own("b/test.tsv", data_name="mine")), ["mine"]),
    "the name of a known task": ((own("rte/test.tsv"), {"task_name": "rte"}), ["rte", "rte (own files)"]),
    "described, one file": ((described("a/test.tsv"), described("a/test.tsv")), ["opinion"]),
    "described, relative and absolute": ((described("a/test.tsv"), described("/h/a/test.tsv")), ["opinion"]),
    "described, two files": ((described("a/test.tsv"), described("b/test.tsv")), ["opinion on a", "opinion on b"]),
    "described, two names": ((described("a/test.tsv"), described("a/test.tsv", "b")), ["b", "opinion"]),
}


@pytest.mark.parametrize("case", TASKS)
def test_results_are_compared_if_they_were_measured_on_one_file(case, write_run, tmp_path):
    (first, second), tasks = TASKS[case]
    write_run("one/seed-0", 0.5, adapter=LORA, **first)
    write_run("two/seed-0", 0.6, adapter=BITFIT, **second)
    methods = methods_of(collect_runs(tmp_path / "outputs"))
    assert len(methods) == 2
    assert tasks_of(methods) == tasks
    compared = [paired_difference(*methods, [task]) for task in tasks]
    assert [difference is not None for difference in compared] == [True] if len(tasks) == 1 else [False, False]


@pytest.mark.parametrize("case", TASKS)
def test_one_adapter_on_several_files_is_one_method(case, write_run, tmp_path):
    (first, second), tasks = TASKS[case]
    write_run("one/seed-0", 0.5, seed=0, **first)
    write_run("two/seed-1", 0.6, seed=1, **second)
    (method,) = methods_of(collect_runs(tmp_path / "outputs"))
    assert sorted(method.groups) == tasks


def test_a_mixture_names_its_described_tasks_by_their_files(write_run, tmp_path):
    for number, folder in enumerate("ab"):
        metrics = {"rte/average_metrics": 0.5, "opinion/average_metrics": 0.7, "average_metrics": 0.6}
        tasks = described(f"{folder}/test.tsv")["tasks"]
        mixture = {"tasks": ["rte", "opinion"]}
        write_run(f"m{number}", metrics=metrics, task_name=None, tasks=tasks, mixture=mixture, task="rte + opinion")
    (method,) = methods_of(collect_runs(tmp_path / "outputs"))
    assert sorted(method.groups) == ["opinion on a", "opinion on b", "rte"]


@pytest.mark.parametrize(
    ("key", "ignored"),
    [
        *((key, True) for key in sorted(IGNORED_KEYS)),
        *((key, True) for key in ("logging_steps", "logging_first_step", "save_steps", "save_strategy", "eval_steps")),
        *((key, True) for key in ("save_total_limit", "dataloader_num_workers", "wandb_tags", "eval_delay")),
        *((key, True) for key in ("push_to_hub", "hub_model_id", "per_device_eval_batch_size", "log_level")),
        *((key, False) for key in ("learning_rate", "max_steps", "dataloader_drop_last", "load_best_model_at_end")),
        *((key, False) for key in ("adapter.rank", "metric_for_best_model", "per_device_train_batch_size")),
    ],
)
def test_what_is_logged_and_saved_is_no_part_of_a_method(key, ignored):
    assert is_ignored(key) == ignored


def test_seeds_with_other_logging_are_one_group(write_run, tmp_path):
    for seed, steps in enumerate((1.0, 20.0)):
        write_run(f"seed-{seed}", 0.5, seed=seed, logging_steps=steps, save_steps=steps, eval_steps=steps)
    (method,) = methods_of(collect_runs(tmp_path / "outputs"))
    assert method.label == "tt_lora r4"
    assert method.score("rte").runs == 2
