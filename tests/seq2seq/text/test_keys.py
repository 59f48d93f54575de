"""What results call the task of a text run."""

import pytest

from seq2seq.text.workload import TextWorkload

FILES = {"train_file": "x/reviews/train.tsv", "test_file": "y/questions/test.tsv"}


@pytest.mark.parametrize(
    ("keys", "label"),
    [
        ({"task_name": "rte"}, "rte"),
        (FILES, "questions"),
        ({"train_file": FILES["train_file"]}, "reviews"),
        ({**FILES, "data_name": "tickets"}, "tickets"),
    ],
)
def test_own_files_are_called_as_the_run_says_or_after_the_measured_file(keys, label):
    assert TextWorkload(**keys).task_label == label
