"""The grid of a sweep, the names of its cells, and the sweeps that are refused."""

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.configuration.sweep import LONGEST_NAME, canonical, cell_names, expand, grid, load_cells

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)
AXES = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True),
    st.lists(VALUES, min_size=1, max_size=4, unique_by=canonical),
    min_size=1,
    max_size=3,
)


@given(AXES)
def test_the_grid_is_the_product_of_the_axes(axes):
    cells = grid(axes)
    assert [tuple(cell.values()) for cell in cells] == list(itertools.product(*axes.values()))
    assert all(list(cell) == list(axes) for cell in cells)


@given(AXES)
def test_the_names_of_cells_are_different_and_names_of_folders(axes):
    names = cell_names(axes)
    assert len(names) == len(grid(axes))
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and len(name) <= LONGEST_NAME for name in names)
    assert cell_names(json.loads(json.dumps(axes))) == names


NAMES = {
    "numbers": ({"seed": [0, 1]}, ["seed-0", "seed-1"]),
    "two axes": (
        {"adapter.rank": [2, 4], "seed": [0, 1]},
        ["rank-2__seed-0", "rank-2__seed-1", "rank-4__seed-0", "rank-4__seed-1"],
    ),
    "lists": ({"adapter.rank": [[2, 4], 8]}, ["rank-2-4", "rank-8"]),
    "small numbers": ({"learning_rate": [0.001, 1e-05]}, ["learning_rate-0.001", "learning_rate-1e-05"]),
    "null and truth": ({"max_train_samples": [None, 100]}, ["max_train_samples-none", "max_train_samples-100"]),
    "large numbers": ({"max_grad_norm": [1e16]}, ["max_grad_norm-1e16"]),
    "negative": ({"max_steps": [-1, 1]}, ["max_steps--1", "max_steps-1"]),
    "paths": ({"data_dir": ["/data/a", "/data/b"]}, ["data_dir-data-a", "data_dir-data-b"]),
    "objects": ({"adapter": [{"kind": "tt_lora", "rank": 4}]}, ["adapter-tt_lora-rank-4"]),
    "several keys together": (
        {"settings": [{"adapter.rank": 2, "learning_rate": 0.01}, {"adapter.rank": 4, "learning_rate": 0.001}]},
        ["adapter.rank-2-learning_rate-0.01", "adapter.rank-4-learning_rate-0.001"],
    ),
    "keys with one end": ({"a.rank": [1], "b.rank": [2]}, ["a.rank-1__b.rank-2"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_cell_is_called_by_what_varies(case):
    axes, names = NAMES[case]
    assert cell_names(axes) == names


def test_values_that_look_alike_are_told_apart():
    names = cell_names({"task_name": ["a/b", "A-b", "c"]})
    assert names[2] == "task_name-c"
    assert all(re.fullmatch(r"task_name-[aA]-b-[0-9a-f]{8}", name) for name in names[:2])
    assert names[0].casefold() != names[1].casefold()


def test_each_cell_is_an_ordinary_run_in_the_folder_of_the_sweep(values, tmp_path):
    values["sweep"] = {"adapter.rank": [2, [2, 4]], "seed": [0, 1]}
    (tmp_path / "sweep.json").write_text(json.dumps(values))
    cells = load_cells([tmp_path / "sweep.json"])
    assert [(cell.adapters[0].rank, cell.training["seed"]) for cell in cells] == [
        (2, 0),
        (2, 1),
        ((2, 4), 0),
        ((2, 4), 1),
    ]
    assert cells[3].run.directory == tmp_path / "outputs" / "colours" / "rank-2-4__seed-1"
    assert read_experiment(json.loads(json.dumps(cells[3].to_dict()))) == cells[3]


def test_an_axis_inside_another_varies_what_that_one_sets(values):
    values["sweep"] = {
        "adapter.stacks": [["encoder"], ["decoder"]],
        "adapter": [{"kind": "tt_lora"}, {"kind": "bottleneck"}],
    }
    cells = [read_experiment(cell) for cell in expand(values)]
    assert [(cell.adapters[0].kind, cell.adapters[0].stacks) for cell in cells] == [
        ("tt_lora", ("encoder",)),
        ("tt_lora", ("decoder",)),
        ("bottleneck", ("encoder",)),
        ("bottleneck", ("decoder",)),
    ]


def test_settings_vary_several_keys_together(values):
    alternatives = [{"adapter.rank": 2, "learning_rate": 0.01}, {"adapter.rank": 4, "learning_rate": 0.001}]
    values["sweep"] = {"settings": alternatives, "seed": [0, 1]}
    cells = [read_experiment(cell) for cell in expand(values)]
    assert [(c.adapters[0].rank, c.training["learning_rate"], c.training["seed"]) for c in cells] == [
        (2, 0.01, 0),
        (4, 0.001, 0),
        (2, 0.01, 1),
        (4, 0.001, 1),
    ]


def test_a_file_without_a_sweep_is_one_run(config_file, values):
    assert load_cells([config_file]) == [read_experiment(values)]


def test_a_sweep_can_be_given_and_taken_out_on_the_command_line(config_file):
    cells = load_cells([config_file], ["sweep.seed=[3,4]", "sweep.adapter.rank=[1,[2,3]]", "num_train_epochs=1"])
    assert [cell.run.experiment_name for cell in cells] == [
        "rank-1__seed-3",
        "rank-1__seed-4",
        "rank-2-3__seed-3",
        "rank-2-3__seed-4",
    ]
    assert (
        load_cells([config_file], ["sweep.adapter.rank=[1,[2,3]]", "sweep.seed=[3,4]", "num_train_epochs=1"]) == cells
    )
    assert {cell.training["num_train_epochs"] for cell in cells} == {1.0}
    assert len(load_cells([config_file], ["sweep.seed=[3,4]", "sweep=null"])) == 1


def test_several_files_are_one_list_of_runs(values, config_file, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({**values, "experiment_name": "other", "sweep": {"seed": [0, 1]}}))
    cells = load_cells([config_file, tmp_path / "other.json"], ["max_steps=3"])
    assert [cell.run.experiment_name for cell in cells] == ["colours", "seed-0", "seed-1"]
    assert {cell.training["max_steps"] for cell in cells} == {3}


# (the sweep, overrides, words that the sentence must have)
REFUSED = {
    "no object": ([1, 2], [], ["sweep", "object", "[1, 2]"]),
    "no axis": ({}, [], ["sweep", "object", "{}"]),
    "no list": ({"seed": 3}, [], ["seed", "list of alternatives", "[3]"]),
    "empty list": ({"seed": []}, [], ["seed", "list of alternatives"]),
    "a value twice": ({"seed": [1, 2, 1]}, [], ["seed", "1", "twice"]),
    "a number in two ways": ({"learning_rate": [1, 1.0]}, [], ["learning_rate", "twice"]),
    "sweep over sweep": ({"sweep.seed": [[1], [2]]}, [], ["sweep", "'sweep.seed'"]),
    "sweep over the folder": ({"output_root": ["a", "b"]}, [], ["sweep", "'output_root'", "names its folder"]),
    "sweep over the name": ({"experiment_name": ["a", "b"]}, [], ["sweep", "'experiment_name'", "names its folder"]),
    "unknown key": ({"learning_rat": [0.1, 0.2]}, [], ["learning_rat", "learning_rate"]),
    "unknown field": ({"adapter.rnk": [1, 2]}, [], ["rnk", "rank"]),
    "a place that is not there": ({"adapter[3].rank": [1, 2]}, [], ["'3'", "tt_lora"]),
    "one value of a wrong type": ({"seed": [0, "one"]}, [], ["seed", "'one'", "integer"]),
    "one value out of range": ({"adapter.rank": [4, 0]}, [], ["rank", "0", "positive integer"]),
    "settings that are no objects": ({"settings": [1, 2]}, [], ["settings", "objects of the same keys", "1"]),
    "settings of other keys": ({"settings": [{"seed": 1}, {"max_steps": 2}]}, [], ["same keys", "max_steps"]),
    "settings without keys": ({"settings": [{}]}, [], ["settings", "objects", "{}"]),
    "settings beside their key": ({"settings": [{"seed": 1}], "seed": [2]}, [], ["settings", "'seed'", "both"]),
    "settings around an axis": (
        {"settings": [{"adapter": {"kind": "tt_lora"}}], "adapter.rank": [2]},
        [],
        ["'adapter.rank'", "both"],
    ),
    "settings of the folder": ({"settings": [{"output_root": "a"}]}, [], ["'output_root'", "names its folder"]),
    "an override of settings": (
        {"settings": [{"seed": 1}]},
        ["seed=5"],
        ["'seed' is varied", "alternatives of 'settings'"],
    ),
    "an override of what varies": ({"seed": [0, 1]}, ["seed=5"], ["seed", "seed=5", "sweep.seed=[5]"]),
    "an override inside what varies": (
        {"adapter": [{"kind": "tt_lora"}, {"kind": "bitfit"}]},
        ["adapter.rank=4"],
        ["'adapter' is varied", "adapter.rank=4", "alternatives of 'adapter'"],
    ),
    "an override in a list that varies": (
        {"adapter": [[{"kind": "tt_lora"}], [{"kind": "bitfit"}]]},
        ["adapter[0].rank=4"],
        ["'adapter' is varied", "adapter[0].rank=4"],
    ),
    "an expressivity without a curve": (
        {"seed": [0, 1]},
        ["measure_expressivity=true", "max_validation_samples=1"],
        ["measure_expressivity", "two different"],
    ),
    "a name with a slash": ({"seed": [0]}, ["experiment_name=a/b"], ["experiment_name", "'a/b'"]),
    "what does not fit the backbone": ({"adapter.layers": [[0], [2]]}, [], ["layers", "2", "0 to 1"]),
    "more rows than there are": ({"max_train_samples": [10, 1000]}, [], ["max_train_samples", "1000", "96"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_sweep_is_refused_before_anything_runs(case, values, tmp_path, capsys):
    sweep, overrides, words = REFUSED[case]
    (tmp_path / "sweep.json").write_text(json.dumps({**values, "sweep": sweep}))
    assert_refused([str(tmp_path / "sweep.json"), *overrides], words, tmp_path, capsys)


def test_two_files_of_one_name_are_refused(config_file, values, tmp_path, capsys):
    (tmp_path / "again.json").write_text(json.dumps({**values, "seed": 3}))
    words = ["experiment_name", "2 runs", "colours"]
    assert_refused([str(config_file), str(tmp_path / "again.json")], words, tmp_path, capsys)


@pytest.mark.parametrize("first", ["sweep", "run"])
def test_a_run_in_the_folder_of_a_sweep_beside_it_is_refused(first, config_file, values, tmp_path, capsys):
    (tmp_path / "sweep.json").write_text(json.dumps({**values, "sweep": {"seed": [0, 1]}}))
    files = [str(tmp_path / "sweep.json"), str(config_file)]
    words = ["experiment_name", "colours, which would be a run itself"]
    assert_refused(files if first == "sweep" else files[::-1], words, tmp_path, capsys)


def test_an_override_of_what_begins_alike_is_none_of_what_varies(config_file):
    cells = load_cells([config_file], ["sweep.seed=[0,1]", "adapter.rank=4", "data_seed=3"])
    assert {(cell.workload.data_seed, cell.adapters[0].rank) for cell in cells} == {(3, 4)}


def test_a_sweep_into_the_folder_of_a_run_is_refused(config_file, values, tmp_path, capsys):
    folder = tmp_path / "outputs" / "colours"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"experiment_name": "colours"}))
    assert_refused([str(config_file), "sweep.seed=[0,1]"], ["experiment_name", "is a run itself"], tmp_path, capsys)


@pytest.mark.parametrize(("jobs", "world", "words"), [("0", "1", ["--jobs", "0"]), ("2", "2", ["--jobs", "torchrun"])])
def test_a_number_of_jobs_that_cannot_be_is_refused(jobs, world, words, config_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", world)
    assert_refused([str(config_file), "--jobs", jobs, "sweep.seed=[0,1]"], words, tmp_path, capsys)


def test_one_run_is_not_read_from_a_file_with_a_sweep(values):
    with pytest.raises(ConfigurationError, match=r"'sweep' belongs at the top level"):
        read_experiment({**values, "sweep": {"seed": [0, 1]}})


def assert_refused(arguments: list[str], words: list[str], directory: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(directory.rglob("*"))
    assert main(arguments) == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Refused: " in sentence
    assert sentence.endswith(".")
    assert [word for word in words if word not in sentence] == []
    assert sorted(directory.rglob("*")) == before
