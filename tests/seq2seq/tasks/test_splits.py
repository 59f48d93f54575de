"""Split policies and row limits."""

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.tasks import splits
from seq2seq.tasks.splits import SPLIT_POLICIES, limit_rows


def rows_of(name, count, groups=None):
    columns = {"source": [f"{name} {i}" for i in range(count)], "target": ["x"] * count}
    return Dataset.from_dict(columns if groups is None else {**columns, "group": groups})


def make(policy, parts, data_seed=42):
    _, make_splits = SPLIT_POLICIES[policy]
    return {name: split["source"][:] for name, split in make_splits(parts, data_seed).items()}


def sources(name, count):
    return {f"{name} {i}" for i in range(count)}


def test_small_halves_the_validation_set():
    made = make("small", {"train": rows_of("train", 5), "validation": rows_of("validation", 21)})
    assert set(made["train"]) == sources("train", 5)
    assert (len(made["validation"]), len(made["test"])) == (10, 11)
    assert {*made["validation"], *made["test"]} == sources("validation", 21)


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcdefg"), max_size=38), st.integers(0, 2**32))
def test_no_group_is_in_both_halves(more, data_seed):
    groups = ["b", *more, "a"]
    parts = {"train": rows_of("train", 1), "validation": rows_of("validation", len(groups), groups)}
    made = make("small", parts, data_seed)
    group_of = {f"validation {i}": group for i, group in enumerate(groups)}
    validation, test = ({group_of[source] for source in made[name]} for name in ("validation", "test"))
    assert not validation & test
    assert len(validation) == len(set(groups)) // 2
    assert sorted([*made["validation"], *made["test"]]) == sorted(group_of)


@pytest.mark.parametrize(("groups", "unit"), [(None, "rows"), (["a"] * 3, "questions")])
def test_a_validation_set_that_cannot_be_halved_raises_an_error(groups, unit):
    labelled = rows_of("validation", 3, groups) if groups else rows_of("validation", 1)
    with pytest.raises(ValueError, match=f"two or more labelled {unit} for validation.*got 1: add some"):
        make("small", {"train": rows_of("train", 1), "validation": labelled})


def test_large_takes_validation_rows_from_the_training_set(monkeypatch):
    monkeypatch.setattr(splits, "HELD_OUT_ROWS", 4)
    made = make("large", {"train": rows_of("train", 10), "validation": rows_of("validation", 3)})
    assert (len(made["train"]), len(made["validation"])) == (6, 4)
    assert {*made["train"], *made["validation"]} == sources("train", 10)
    assert set(made["test"]) == sources("validation", 3)


def test_large_holds_out_1000_rows_and_needs_more_than_that():
    assert len(make("large", {"train": rows_of("t", 1001), "validation": rows_of("v", 1)})["validation"]) == 1000
    with pytest.raises(ValueError, match=r"more than 1000 training rows.*got 1000"):
        make("large", {"train": rows_of("t", 1000), "validation": rows_of("v", 1)})


def test_tenth_holds_out_a_tenth_and_measures_on_the_whole_validation_set():
    made = make("tenth", {"train": rows_of("train", 29), "validation": rows_of("validation", 3)})
    assert {split: len(rows) for split, rows in made.items()} == {"train": 27, "validation": 2, "test": 3}
    assert {*made["train"], *made["validation"]} == sources("train", 29)
    assert made["test"] == [f"validation {i}" for i in range(3)]
    with pytest.raises(ValueError, match=r"10 or more training rows.* got 9: "):
        make("tenth", {"train": rows_of("t", 9), "validation": rows_of("v", 1)})


def test_mnli_validates_on_the_mismatched_set_and_tests_on_the_matched_one():
    parts = {name: rows_of(name, 2) for name in ("train", "validation_mismatched", "validation_matched")}
    made = make("mnli", parts)
    assert set(made["validation"]) == sources("validation_mismatched", 2)
    assert set(made["test"]) == sources("validation_matched", 2)


def test_given_splits_are_unchanged():
    parts = {name: rows_of(name, 3) for name in ("train", "validation", "test")}
    assert make("given", parts) == {name: part["source"][:] for name, part in parts.items()}


@pytest.mark.parametrize("policy", ["small", "large", "tenth"])
def test_the_split_depends_on_the_seed(policy, monkeypatch):
    monkeypatch.setattr(splits, "HELD_OUT_ROWS", 20)
    parts = {"train": rows_of("train", 40), "validation": rows_of("validation", 40)}
    assert make(policy, parts, 1) == make(policy, parts, 1)
    assert set(make(policy, parts, 1)["validation"]) != set(make(policy, parts, 2)["validation"])


@settings(max_examples=50)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32))
def test_a_smaller_sample_is_a_subset_of_a_larger_one(one, other, data_seed):
    whole = DatasetDict(train=rows_of("train", 50))
    samples = [limit_rows(whole, {"train": size}, data_seed)["train"]["source"][:] for size in sorted((one, other))]
    assert [len(set(sample)) for sample in samples] == sorted((one, other))
    assert set(samples[0]) <= set(samples[1]) <= sources("train", 50)


def test_a_sample_is_drawn_at_random_by_the_seed():
    whole = DatasetDict(train=rows_of("train", 50), test=rows_of("test", 5))
    samples = [set(limit_rows(whole, {"train": 10, "test": None}, seed)["train"]["source"]) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert samples[0] != sources("train", 10)
    assert limit_rows(whole, {"train": 10, "test": None})["test"]["source"][:] == whole["test"]["source"][:]


@pytest.mark.parametrize("limit", [0, -1, 51])
def test_a_limit_outside_the_range_raises_an_error(limit):
    with pytest.raises(ValueError, match=rf"between 1 and 50.*got {limit}"):
        limit_rows(DatasetDict(train=rows_of("train", 50)), {"train": limit})
