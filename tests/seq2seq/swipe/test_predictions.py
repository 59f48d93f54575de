"""Files of predictions: what is written is read, parts merge in any order, and what contradicts itself is refused."""

import json
import random

import pytest

from adapters import ConfigurationError
from seq2seq.swipe.predictions import read_predictions, write_predictions

ROWS = [
    {"index": 3, "word": "äh", "layout": "qwertz", "candidates": [("äh", -0.5), ("ah", -1.0)]},
    {"index": 8, "word": "a", "layout": "qwerty", "candidates": []},
    {"index": 9, "word": "to", "layout": "qwerty", "candidates": [("to", -0.1)]},
]
CONFIGURATION = {"experiment_name": "a", "seed": 0, "output_root": "outputs", "do_train": True}


def test_what_is_written_is_read(tmp_path):
    file = write_predictions(tmp_path / "a", "test", CONFIGURATION, ROWS[::-1])
    (found,) = read_predictions([tmp_path / "a"])
    assert (found.name, found.split, found.configuration, found.paths) == ("a", "test", CONFIGURATION, (file,))
    assert found.rows == ROWS
    assert read_predictions([file, tmp_path / "a"]) == [found]


@pytest.mark.parametrize("separator", list("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), ids=ascii)
def test_only_a_line_feed_ends_a_row(tmp_path, separator):
    rows = [{**ROWS[0], "word": f"a{separator}b", "candidates": [(f"a{separator}c", -0.5)]}]
    write_predictions(tmp_path / "a", "test", CONFIGURATION, rows)
    (found,) = read_predictions([tmp_path / "a"])
    assert found.rows == rows


def test_a_file_of_the_predict_command_belongs_to_its_run(tmp_path):
    file = write_predictions(tmp_path / "a", "test", CONFIGURATION, ROWS)
    moved = tmp_path / "a" / "predictions" / "new_rows.jsonl"
    moved.parent.mkdir()
    file.rename(moved)
    (found,) = read_predictions([moved])
    assert (found.name, found.split) == ("a", "new_rows")


@pytest.mark.parametrize(
    ("change", "same"), [({}, True), ({"output_root": "b", "do_train": False}, True), ({"seed": 1}, False)]
)
def test_the_key_is_that_of_what_results_depend_on(tmp_path, change, same):
    for name, configuration in {"a": CONFIGURATION, "b": CONFIGURATION | change}.items():
        write_predictions(tmp_path / name, "test", configuration, ROWS)
    assert len(read_predictions([tmp_path / "a", tmp_path / "b"])) == (1 if same else 2)


def test_parts_of_machines_merge_in_any_order(tmp_path):
    folders = [tmp_path / machine / "a" for machine in "xyz"]
    for folder, rows in zip(folders, (ROWS[:1], ROWS[1:], ROWS[:2]), strict=True):
        write_predictions(folder, "test", CONFIGURATION, rows)
    (found,) = read_predictions(folders)
    assert found.rows == ROWS
    random.Random(0).shuffle(folders)
    assert read_predictions(folders) == [found]


@pytest.mark.parametrize("change", [{"word": "x"}, {"layout": "x"}, {"candidates": [("a", -0.2)]}])
def test_a_conflict_is_an_error(tmp_path, change):
    write_predictions(tmp_path / "x" / "a", "test", CONFIGURATION, ROWS)
    write_predictions(tmp_path / "y" / "a", "test", CONFIGURATION, [ROWS[1] | change])
    with pytest.raises(ConfigurationError, match=r"got two of row 8, in .*x/a.*y/a"):
        read_predictions([tmp_path / "x" / "a", tmp_path / "y" / "a"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "line 2 of"),
        ("{", "line 2 of"),
        ("[]", "line 2 of"),
        (json.dumps(ROWS[0] | {"index": -1}), "index: Input should be greater"),
        (json.dumps(ROWS[0] | {"index": "4"}), "index: Input should be a valid integer"),
        (json.dumps(ROWS[0] | {"candidates": [["a"]]}), "line 2 of"),
        (json.dumps(ROWS[0] | {"candidates": [["a", float("nan")]]}), "finite"),
        (json.dumps({"index": 5, "word": "a", "layout": "b"}), "candidates: Field required"),
        (json.dumps(ROWS[0]), "the same index twice"),
        (json.dumps(ROWS[0] | {"index": 4, "candidates": [["a", -1], ["a", -1]]}), "distinct candidates"),
    ],
)
def test_a_malformed_line_is_refused(tmp_path, line, problem):
    file = write_predictions(tmp_path / "a", "test", CONFIGURATION, ROWS[:1])
    file.write_text(file.read_text() + line + "\n" + json.dumps(ROWS[1]))
    with pytest.raises(ConfigurationError, match=problem):
        read_predictions([file])


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        read_predictions([tmp_path / "a"])
    with pytest.raises(ConfigurationError, match=r"no predictions_\*\.jsonl in it"):
        read_predictions([tmp_path])
    file = write_predictions(tmp_path / "a", "test", CONFIGURATION, ROWS)
    (tmp_path / "a" / "config.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="not an object"):
        read_predictions([file])
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"config\.json .* without one"):
        read_predictions([file])


def test_another_configuration_is_not_overwritten(tmp_path):
    write_predictions(tmp_path / "a", "test", CONFIGURATION, ROWS)
    write_predictions(tmp_path / "a", "test", CONFIGURATION, ROWS[:1])
    with pytest.raises(ConfigurationError, match="has another one"):
        write_predictions(tmp_path / "a", "test", CONFIGURATION | {"seed": 1}, ROWS)
