"""The loss of a step and of an evaluation against their definitions, and the checkpoint that an error chooses."""

import json
from pathlib import Path

import pytest
import torch

from seq2seq.configuration.reading import read_experiment
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment


@pytest.fixture
def trainer(values):
    """Of a model with b = 3 and T = 2, whose loops differ."""
    experiment = read_experiment(values)
    trainer = experiment.workload.make_trainer(prepare(experiment, None))
    with torch.no_grad():
        for parameter in trainer.model.stack.h.parameters():
            parameter.mul_(20)
    return trainer


@pytest.fixture
def squares(trainer):
    """The squared errors (loops up to 3 b, prompts, points) of a batch, and the batch."""
    inputs = trainer.data.batch(range(6), 0)
    with torch.no_grad():
        by_loop = trainer.model.eval()(inputs["inputs"], num_loops=9).by_loop
    found = (by_loop[:, :, ::2, 0] - inputs["labels"]).square()
    assert found.sum((1, 2)).diff().abs().min() > 0.1
    return found, inputs


def test_training_averages_the_last_loops_and_sums_answers(trainer, squares):
    found, inputs = squares
    loss, output = trainer.summed_loss(trainer.model.train(), inputs)
    torch.testing.assert_close(loss, found[1:3].mean(0).sum())
    assert output.logits.shape == (6, 2, 4)


def test_evaluation_scores_the_trained_loop(trainer, squares):
    found, inputs = squares
    loss, output = trainer.summed_loss(trainer.model.eval(), inputs)
    torch.testing.assert_close(loss, found[2].sum())
    assert output.logits.shape == (6, 9, 4)


def test_a_step_has_the_mean_over_all_answers_of_its_micro_batches(trainer, squares):
    found, inputs = squares
    model = trainer.model.train()
    parts = [{key: tensor[rows] for key, tensor in inputs.items()} for rows in (slice(2), slice(2, 6))]
    items = sum(trainer.count_items(part) for part in parts)
    losses = [trainer.compute_loss(model, part, num_items_in_batch=items) for part in parts]
    torch.testing.assert_close(sum(losses), found[1:3].mean())


@pytest.mark.parametrize("name", ["error", "last_point_error", "average_metrics"])
def test_the_best_checkpoint_has_the_smallest_error(name, values, tmp_path):
    values |= {"metric_for_best_model": name, "learning_rate": 0.01, "eval_steps": 2, "save_steps": 2, "baselines": []}
    result = run_experiment(read_experiment(values))
    history = json.loads((Path(tmp_path) / "run" / "history.json").read_text())
    key = name if name == "error" else "last_point_error"
    errors = [entry[f"eval_{key}"] for entry in history if f"eval_{key}" in entry]
    assert len(set(errors)) == 4
    assert result["metrics"]["validation"][key] == pytest.approx(min(errors))
