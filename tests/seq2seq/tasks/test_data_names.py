"""The names of data sets made of your own files."""

import pytest

from seq2seq.tasks.data_names import data_set_name, data_set_names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("reviews/test.tsv", "reviews"),
        ("/home/user/reviews/test.tsv", "reviews"),
        ("./reviews/dev.jsonl", "reviews"),
        ("reviews/Test.csv", "reviews"),
        ("data/reviews_test.tsv", "reviews"),
        ("data/test-reviews.tsv", "reviews"),
        ("data/latest.tsv", "latest"),
        ("spam.csv", "spam"),
        ("test.csv", "test"),
        ("/test.csv", "test"),
    ],
)
def test_a_data_set_is_called_after_its_file_or_the_folder_of_its_splits(path, name):
    assert data_set_name(path) == name


@pytest.mark.parametrize(
    "names",
    [
        {"a/reviews/test.tsv": "reviews", "a/questions/test.tsv": "questions"},
        {"a/reviews/test.tsv": "a/reviews", "b/reviews/test.tsv": "b/reviews", "c/spam.tsv": "spam"},
        {"x/a/reviews/test.tsv": "x/a/reviews", "y/a/reviews/test.tsv": "y/a/reviews"},
        {"reviews/test.tsv": "reviews/test.tsv", "reviews/dev.tsv": "reviews/dev.tsv"},
        {},
    ],
)
def test_several_data_sets_have_distinct_names(names):
    assert data_set_names(names) == names
