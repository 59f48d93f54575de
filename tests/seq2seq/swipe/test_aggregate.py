"""Ensembles: by hand, against a grid of weights, whatever the order of files; and what cannot be combined."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ConfigurationError
from seq2seq.swipe.aggregate import aggregate, appended, main, mixture, mixture_weights, probabilities
from seq2seq.swipe.metrics import check_rows
from seq2seq.swipe.predictions import read_predictions, write_predictions


def row_of(index: int, word: str, **candidates: float) -> dict:
    """A row whose candidates have these probabilities."""
    pairs = [(name, float(np.log(value))) for name, value in candidates.items()]
    return {"index": index, "word": word, "layout": "qwerty", "candidates": pairs}


FIRST, SECOND = row_of(0, "a", a=0.6, b=0.4), row_of(0, "a", c=0.9, a=0.1)


def test_a_mixture_by_hand():
    found = dict(mixture([FIRST, SECOND], np.array([0.25, 0.75])))
    assert [*found] == ["c", "a", "b"]
    assert np.exp([*found.values()]) == pytest.approx([0.675, 0.225, 0.1])


def test_members_are_normalised_over_their_candidates():
    found = mixture([row_of(0, "a", a=3.0, b=2.0), SECOND], np.array([0.25, 0.75]))
    assert np.exp([value for _, value in found]) == pytest.approx([0.675, 0.225, 0.1])


def test_the_best_run_comes_first_and_the_list_stays_a_ranking():
    found = appended([FIRST, SECOND], np.array([0.5, 0.7]))
    assert [word for word, _ in found] == ["c", "a", "b"]
    assert np.exp([value for _, value in found]) == pytest.approx([0.9, 0.1, 0.1])
    assert [word for word, _ in appended([FIRST, SECOND], np.array([0.7, 0.5]))] == ["a", "b", "c"]


def test_the_weights_are_the_likeliest_on_a_grid():
    random = np.random.default_rng(0)
    shares = random.beta(4, 2, (2, 50)) * np.array([[1.0], [0.8]])
    tables = [[row_of(i, "a", b=1 - p, a=p) for i, p in enumerate(row)] for row in shares]
    weights = mixture_weights(tables)
    grid = np.linspace(0, 1, 1001)
    likelihoods = np.log(grid[:, None] * shares[0] + (1 - grid[:, None]) * shares[1]).sum(1)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(grid[likelihoods.argmax()], abs=0.01)


def test_rows_that_no_run_has_right_say_nothing():
    wrong = row_of(1, "z", a=1.0)
    assert mixture_weights([[FIRST, wrong], [SECOND, wrong]]) == pytest.approx(mixture_weights([[FIRST], [SECOND]]))
    assert mixture_weights([[wrong], [wrong]]).tolist() == [0.5, 0.5]


lists = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), max_size=5)


@settings(deadline=None)
@given(st.lists(st.tuples(lists, st.floats(0.01, 1)), min_size=2, max_size=4))
def test_ensembles_are_rankings_whatever_the_order_of_runs(members):
    rows = [row_of(0, "a", **dict(sorted(found.items(), key=lambda item: -item[1]))) for found, _ in members]
    weights = np.array([weight for _, weight in members])
    for combine in (mixture, appended):
        check_rows([rows[0] | {"candidates": combine(rows, weights)}])
    if any(row["candidates"] for row in rows):
        first, last = (dict(mixture(rows[::step], weights[::step])) for step in (1, -1))
        assert first == pytest.approx(last)
    assert all(np.isclose(sum(value for _, value in probabilities(row)), 1) for row in rows if row["candidates"])


@pytest.fixture
def runs(tmp_path):
    """Three runs, with validation and test: of each row, one of them is right."""
    random = np.random.default_rng(0)
    for member, name in enumerate("xyz"):
        for split, count in (("validation", 30), ("test", 20)):
            right = random.random(count) < 0.5 + 0.1 * member
            rows = [
                row_of(i, "a", a=0.8, **{name: 0.2}) if hit else row_of(i, "a", **{name: 1.0})
                for i, hit in enumerate(right)
            ]
            write_predictions(tmp_path / name, split, {"experiment_name": name}, rows)
    return [tmp_path / name for name in "xyz"]


@pytest.mark.parametrize("kind", ["append", "weighted"])
def test_an_ensemble_is_the_same_whatever_the_order_of_files(runs, kind, tmp_path):
    written = {}
    for order in itertools.permutations(runs):
        output = tmp_path / "ensemble"
        aggregate(read_predictions(order), kind, output)
        written.setdefault(tuple(file.read_text() for file in sorted(output.iterdir())), order)
    assert len(written) == 1
    tables = read_predictions([output])
    assert [(table.split, len(table.rows)) for table in tables] == [("test", 20), ("validation", 30)]


def test_the_command_writes_what_evaluate_reads(runs, tmp_path, capsys):
    output = tmp_path / "ensemble"
    assert main(["weighted", *map(str, runs), "--output", str(output), "--candidates", "2"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines() if " test " in line] == ["x", "y", "z", "ensemble"]
    configuration = json.loads((output / "config.json").read_text())
    assert [member["name"] for member in configuration["members"]] != []
    assert sum(member["weight"] for member in configuration["members"]) == pytest.approx(1, abs=1e-5)
    (table,) = read_predictions([output / "predictions_test.jsonl"])
    assert max(len(row["candidates"]) for row in table.rows) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["x"], "at least two runs; got 1"),
        (["x", "y", "--apply", "dev"], "predictions of validation and dev; got"),
        (["x", "y", "--candidates", "0"], "at least 1; got 0"),
        (["x", "y/predictions_test.jsonl"], "got y with test: let it predict validation"),
    ],
)
def test_refusals(runs, tmp_path, capsys, monkeypatch, change, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["append", *change, "--output", "ensemble"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "ensemble").exists()


def test_runs_of_other_rows_and_folders_of_something_else_are_refused(runs, tmp_path):
    tables = read_predictions(runs)
    with pytest.raises(ConfigurationError, match="has another one"):
        aggregate(tables, "append", runs[0])
    write_predictions(tmp_path / "w", "validation", {"experiment_name": "w"}, [row_of(0, "b", a=1.0)])
    write_predictions(tmp_path / "w", "test", {"experiment_name": "w"}, [row_of(0, "b", a=1.0)])
    with pytest.raises(ConfigurationError, match="same rows"):
        aggregate(read_predictions([runs[0], tmp_path / "w"]), "append", tmp_path / "ensemble")
