"""Prompts of tokens against plain loops and Python's integers, baselines, and a run of each."""

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from adapters import ConfigurationError, load
from seq2seq.configuration.reading import read_experiment
from seq2seq.in_context.classification import Classification
from seq2seq.in_context.data import load_prompts
from seq2seq.in_context.rows import read_rows
from seq2seq.in_context.token_tasks import EQUALS, PLUS, Addition, PHop, one_hop
from seq2seq.in_context.workload import InContextWorkload
from seq2seq.running.runner import run_experiment
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hop(tokens, hops):
    """The definition by a plain loop; None if a hop does not exist."""
    place = len(tokens) - 1
    for _ in range(hops):
        earlier = [k for k in range(place) if tokens[k] == tokens[place]]
        if not earlier:
            return None
        place = earlier[-1] + 1
    return tokens[place]


def number(digits):
    return int("".join(map(str, reversed(digits))))


@pytest.mark.parametrize(("hops", "alphabet", "points"), [(1, 3, 3), (1, 4, 12), (2, 5, 16), (5, 3, 7), (4, 8, 40)])
def test_answers_are_those_of_a_plain_loop(hops, alphabet, points):
    prompts = PHop(hops, alphabet).draw(300, points, generator())
    assert prompts.tokens.shape == (300, points)
    assert [hop(row, hops) for row in prompts.tokens.tolist()] == prompts.answers[:, 0].tolist()
    assert (prompts.tokens[:, 1:] != prompts.tokens[:, :-1]).all()
    assert prompts.tokens.unique().tolist() == [*range(alphabet)]


def test_sequences_are_uniform_among_those_in_which_all_hops_exist():
    rows = [
        row for row in product(range(3), repeat=6) if all(a != b for a, b in pairwise(row)) and hop(row, 2) is not None
    ]
    found = Counter(map(tuple, PHop(2, 3).draw(40_000, 6, generator()).tokens.tolist()))
    assert set(found) == set(rows)
    expected = 40_000 / len(rows)
    assert sum((found[row] - expected) ** 2 / expected for row in rows) < len(rows) + 4 * (2 * len(rows)) ** 0.5


@pytest.mark.parametrize(("points", "digits"), [(2, 1), (3, 2), (12, 1), (112, 1), (5, 3)])
def test_sums_are_those_of_integers(points, digits):
    task = Addition(digits)
    prompts = task.draw(50, points, generator())
    assert prompts.tokens.shape == (50, task.length(points))
    for row, answer in zip(prompts.tokens.tolist(), prompts.answers.tolist(), strict=True):
        end = row.index(EQUALS)
        terms = row[:end]
        assert terms[digits :: digits + 1] == [PLUS] * (points - 1)
        numbers = [number(terms[k : k + digits]) for k in range(0, end, digits + 1)]
        assert len(numbers) == points
        assert number(answer) == sum(numbers)
        assert row[end + 1 :] == answer[:-1]
        assert len(answer) == task.width(points) == len(str(sum([10**digits - 1] * points)))


@pytest.mark.parametrize("task", [PHop(2, 4), Addition(2)], ids=str)
def test_a_seed_gives_the_same_tokens(task):
    one, other, third = (task.draw(20, 9, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.answers, other.answers)
    assert not torch.equal(one.tokens, third.tokens)


def test_the_rule_of_one_hop_is_exact_and_has_a_default():
    prompts = PHop(1, 4).draw(200, 12, generator())
    assert torch.equal(one_hop(prompts.tokens), prompts.answers[:, 0])
    assert one_hop(torch.tensor([[1, 2, 3]])).tolist() == [0]


TASKS = {"p_hop": {"hops": 2, "n_points": 8}, "addition": {"digits": 1, "n_points": 3}}


@pytest.fixture
def on_tokens(values):
    del values["n_dims"]
    return lambda name, **changes: {
        **values,
        "function_class": name,
        "baselines": ["uniform"],
        **TASKS[name],
        **changes,
    }


@pytest.mark.parametrize("name", TASKS)
def test_a_run_reports_exact_matches(name, on_tokens, tmp_path):
    curriculum = {"points": {"start": TASKS[name]["n_points"] - 1, "interval": 4}, "loops": {"start": 1, "interval": 2}}
    result = run_experiment(read_experiment(on_tokens(name, curriculum=curriculum)))
    experiment = read_experiment(on_tokens(name))
    model = experiment.attach(experiment.load_model())
    load(model, tmp_path / "run" / "adapter")
    prompts = load_prompts(experiment.workload, 42).fixed["test"]
    width = prompts.answers.shape[1]
    with torch.no_grad():
        logits = model.eval()(prompts.tokens, num_loops=3).logits[:, -width:]
    whole = (logits.argmax(-1) == prompts.answers).all(1).double()
    metrics = result["metrics"]["test"]
    assert metrics["accuracy"] == metrics["average_metrics"] == pytest.approx(whole.mean().item())
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), prompts.answers.flatten())
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-4)
    rows = read_rows(tmp_path / "run", "test", "by_loop")
    assert [row["trained"] for row in rows] == 3 * [True] + 6 * [False]
    assert rows[2]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert rows[-1]["accuracy"] == pytest.approx(metrics["accuracy_at_3b"])
    page = (tmp_path / "run" / "README.md").read_text()
    assert "standard error of the accuracy" in page
    assert "](scores.png)" in page
    assert "largest error" not in page


def test_a_stopped_run_resumes_to_the_same_curve(on_tokens, tmp_path):
    values = on_tokens("p_hop", curriculum={"points": {"start": 5, "interval": 3}})
    with stopping_at(6, InContextWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    run_experiment(read_experiment(values))
    run_experiment(read_experiment({**values, "experiment_name": "whole"}))
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_metrics_are_of_the_trained_loop_and_the_last_one():
    labels = np.array([[0], [1], [2], [3]])
    right = np.eye(4)[labels]  # (prompts, 1, alphabet)
    wrong = np.roll(right, 1, axis=-1)
    some = np.where(np.arange(4)[:, None, None] < 2, right, wrong)
    predictions = np.stack([right, some, wrong], axis=1)  # (prompts, 3 loops, 1, alphabet)
    metrics = Classification(PHop(1, 4)).metrics(predictions, labels, 2)
    assert (metrics["accuracy"], metrics["accuracy_at_3b"]) == (0.5, 0.0)
    assert metrics["loss"] == pytest.approx(np.log(np.e + 3) - 0.5)


def test_baselines_have_their_chances():
    of_hops, of_sums = Classification(PHop(1, 4)), Classification(Addition(1))
    hops, sums = of_hops.tokens.draw(300, 12, generator(3)), of_sums.tokens.draw(4000, 2, generator(3))
    assert of_hops.matches("one_hop", hops).mean() == 1
    assert of_hops.matches("uniform", hops).prod(-1).mean() == pytest.approx(1 / 4)
    assert of_sums.matches("uniform", sums).prod(-1).mean() == pytest.approx(1 / 100)
    assert of_sums.matches("majority", sums).prod(-1).mean() == pytest.approx(0.1, abs=0.02)  # 9, of ten pairs in 100
    assert of_hops.matches("last_token", hops).mean() == 0  # no token repeats its neighbour
    twice = Classification(PHop(2, 4))
    found = twice.matches("last_token", twice.tokens.draw(4000, 16, generator(3)))
    assert found.mean() == pytest.approx(0.51, abs=0.03)
    assert of_sums.baselines()["one_hop"].unsupported
    assert of_sums.baselines()["last_token"].unsupported


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("p_hop", {"n_dims": 2}, ("'n_dims'", "'linear'", "'p_hop'")),
        ("p_hop", {"n_dims_truncated": 1}, ("'n_dims_truncated'", "'linear'")),
        ("addition", {"noise": 0.1}, ("'noise'", "'noisy'", "'addition'")),
        ("addition", {"probe": True}, ("'probe'", "'linear'")),
        ("addition", {"hops": 2}, ("'hops'", "'p_hop'")),
        ("p_hop", {"digits": 2}, ("'digits'", "'addition'")),
        ("p_hop", {"function_class": "linear"}, ("'hops'", "'p_hop'", "'linear'")),
        ("p_hop", {"alphabet": 2}, ("'alphabet'", "at least 3")),
        ("p_hop", {"hops": 7}, ("'n_points'", "at least 9", "got 8")),
        ("addition", {"n_points": 1}, ("'n_points'", "at least 2")),
        ("addition", {"digits": 10}, ("'digits'",)),
        ("p_hop", {"curriculum": {"dims": {"start": 1, "interval": 2}}}, ("'dims'", "vectors")),
        ("p_hop", {"curriculum": {"points": {"start": 3, "interval": 2}}}, ("'start'", "at least 4", "got 3")),
        ("addition", {"baselines": ["one_hop"]}, ("'baselines'", "one_hop", "p_hop")),
        ("p_hop", {"baselines": ["least_squares"]}, ("'baselines'", "least_squares")),
        ("p_hop", {"metric_for_best_model": "last_point_error"}, ("last_point_error", "accuracy")),
        ("p_hop", {"label_smoothing_factor": 0.1}, ("'label_smoothing_factor'",)),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(name, changes, parts, on_tokens, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        run_experiment(read_experiment(on_tokens(name, **changes)))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (tmp_path / "run").exists()
