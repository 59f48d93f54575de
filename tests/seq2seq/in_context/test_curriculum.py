"""What is trained at each step, against a table written by hand; and that resuming does not change it."""

from pathlib import Path

import pytest
import torch

from seq2seq.configuration.reading import read_experiment
from seq2seq.in_context.curriculum import Curriculum, Ramp, Sizes
from seq2seq.in_context.data import load_prompts
from seq2seq.in_context.workload import InContextWorkload
from seq2seq.running.runner import run_experiment
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run
from third_party.models.looped import LoopedModel

CURRICULUM = {
    "dims": {"start": 1, "interval": 3},
    "points": {"start": 2, "increment": 5, "interval": 6},
    "loops": {"start": 1, "interval": 2},
}
BY_STEP = [
    (1, 2, 1), (1, 2, 1), (1, 2, 2), (2, 2, 2), (2, 2, 3), (2, 2, 3), (2, 4, 3), (2, 4, 3)
]  # fmt: skip
"""Dims, points and loops at the eight steps of a run of 2 dims, 4 points and 3 loops."""


@pytest.fixture
def growing(values):
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    return {**values, **sizes, "curriculum": CURRICULUM, "baselines": []}


@pytest.fixture
def forwards(monkeypatch):
    """Of each forward pass: whether it trains, its active dims, points, loops, and how many of these it reads out."""
    seen = []
    forward = LoopedModel.forward

    def watched(self, inputs, num_loops=None, **options):
        output = forward(self, inputs, num_loops=num_loops, **options)
        dims = int((inputs[:, ::2] != 0).any(0).any(0).sum())
        seen.append((self.training, dims, inputs.shape[1] // 2, num_loops, len(output.by_loop)))
        return output

    monkeypatch.setattr(LoopedModel, "forward", watched)
    return seen


@pytest.mark.parametrize(
    ("ramp", "end", "values"),
    [
        (Ramp(start=1, interval=2), 3, [1, 1, 2, 2, 3, 3, 3, 3]),
        (Ramp(start=2, increment=4, interval=3), 7, [2, 2, 2, 6, 6, 6, 7, 7]),
        (Ramp(start=3, interval=1), 3, [3] * 8),
        (Ramp(start=1, interval=100), 3, [1] * 8),
    ],
    ids=str,
)
def test_a_size_grows_after_each_interval_up_to_its_end(ramp, end, values):
    assert [ramp.at(step, end) for step in range(8)] == values


def test_what_is_not_in_a_curriculum_has_its_end():
    curriculum = Curriculum.from_dict({"points": {"start": 2, "interval": 5}})
    assert curriculum.at(0, Sizes(3, 8, 6)) == (3, 2, 6)
    assert Curriculum.from_dict(curriculum.to_dict()) == curriculum


def test_each_step_trains_its_sizes_and_evaluation_has_those_of_the_run(growing, forwards):
    run_experiment(read_experiment(growing))
    trained = [row[1:] for row in forwards if row[0]]
    assert trained[::2] == trained[1::2]  # both micro-batches of a step
    assert [row[:3] for row in trained[::2]] == BY_STEP
    assert [row[3] for row in trained[::2]] == [min(2, loops) for _, _, loops in BY_STEP]  # the window
    assert {row[1:4] for row in forwards if not row[0]} == {(2, 4, 9)}


def test_the_last_steps_are_those_of_a_run_without(growing):
    """The loss is the mean over the points that there are: a step at the ends is an ordinary one."""
    workload = read_experiment(growing).workload
    without = read_experiment({**growing, "curriculum": None}).workload
    one, other = (load_prompts(keys, 1).batch([5, 3], 7) for keys in (workload, without))
    assert torch.equal(one["inputs"], other["inputs"])
    assert torch.equal(one["labels"], other["labels"])


def test_a_batch_depends_on_seed_and_numbers(growing):
    data = load_prompts(read_experiment(growing).workload, 1)
    first, again = data.batch([4, 2], 3), data.batch([4, 2], 3)
    assert all(torch.equal(first[key], again[key]) for key in first)
    others = [data.batch([2, 4], 3), data.batch([4, 5], 3), load_prompts(data.keys, 2).batch([4, 2], 3)]
    assert all(not torch.isclose(first["labels"], other["labels"]).any() for other in others)


def test_labels_are_functions_of_the_dims_that_are_seen(growing):
    """With one active dim, y / x is the same at every point of a linear prompt."""
    batch = load_prompts(read_experiment(growing).workload, 1).batch(range(50), 0)
    w = batch["labels"] / batch["inputs"][:, ::2, 0]
    assert batch["inputs"].shape == (50, 4, 2)
    torch.testing.assert_close(w[:, 0], w[:, 1])


def test_a_run_stopped_in_the_middle_has_the_same_curve(growing, forwards):
    """Also with a process that loads ahead."""
    ahead = read_experiment({**growing, "dataloader_num_workers": 1})
    with stopping_at(6, InContextWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(ahead)
    forwards.clear()
    run_experiment(ahead)
    assert [row[1:4] for row in forwards if row[0]][::2] == BY_STEP[4:]  # from the checkpoint of step 4
    run_experiment(read_experiment({**growing, "experiment_name": "whole"}))
    folder = Path(growing["output_root"])
    assert_same_run(folder / "whole", folder / "run")


def test_truncated_dims_are_the_end_of_training_and_evaluation(values, forwards):
    result = run_experiment(read_experiment({**values, "n_dims_truncated": 1}))
    assert {row[1] for row in forwards} == {1}
    assert result["metrics"]["test"]["error"] == pytest.approx(1, abs=0.5)  # about that of 0 after 8 steps


@pytest.mark.parametrize(("steps", "said"), [(4, True), (5, False)])
def test_training_that_ends_within_a_curriculum_is_warned_of(steps, said, values, caplog):
    ramp = {"points": {"start": 2, "increment": 1, "interval": 2}}
    read_experiment({**values, "n_points": 4, "max_steps": steps, "curriculum": ramp})
    assert ("ends within the curriculum" in caplog.text) == said
