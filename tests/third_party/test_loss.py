"""The trainer's loss against hand-written algebra in float64."""

import pytest
import torch

from tests.third_party import tiny


def first_entry(trainer):
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


class TestLoss:
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("micro_steps", [1, 4, 8])
    def test_accumulation_is_exact(self, bases, tmp_path, micro_steps, label_smoothing):
        assert len({len(row["labels"]) for row in tiny.rows(8)}) > 3
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            count=8,
            max_steps=1,
            per_device_train_batch_size=8 // micro_steps,
            gradient_accumulation_steps=micro_steps,
            label_smoothing_factor=label_smoothing,
        )
        trainer.train()
        loss, norm = tiny.oracle(tiny.adapted_model(bases["relu"]), tiny.rows(8), label_smoothing)
        entry = first_entry(trainer)
        assert entry["loss"] == pytest.approx(loss, rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(norm, rel=1e-4)

    def test_incomplete_accumulation_is_exact(self, bases, tmp_path):
        """Ten rows in steps of 4 x 2: the second step has a single micro-batch."""
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            count=10,
            max_steps=2,
            learning_rate=0.0,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            train_sampling_strategy="sequential",
        )
        trainer.train()
        expected = [
            tiny.oracle(tiny.adapted_model(bases["relu"]), part)[0] for part in (tiny.rows(10)[:8], tiny.rows(10)[8:])
        ]
        assert list(tiny.losses(trainer).values()) == pytest.approx(expected, rel=1e-5)

    def test_evaluation_loss_is_the_mean_over_tokens_of_each_batch(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, per_device_eval_batch_size=6)
        expected = tiny.oracle(tiny.adapted_model(bases["relu"]), tiny.rows(6, seed=1))[0]
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)

    def test_micro_batch_without_targets_costs_nothing(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path)
        batch = tiny.collator(trainer.model)(tiny.rows(2))
        batch["labels"] = torch.full_like(batch["labels"], -100)
        batch["decoder_input_ids"] = torch.zeros_like(batch["labels"])
        assert trainer.compute_loss(trainer.model, batch).item() == 0.0

    def test_collator_without_decoder_inputs_gives_the_same_loss(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path)
        without, with_inputs = (tiny.collator(model)(tiny.rows(4)) for model in (None, trainer.model))
        assert "decoder_input_ids" in with_inputs
        assert "decoder_input_ids" not in without
        losses = [trainer.compute_loss(trainer.model, batch).item() for batch in (without, with_inputs)]
        assert losses[0] == losses[1]

    def test_a_custom_loss_function_is_refused(self, bases, tmp_path):
        with pytest.raises(ValueError, match="compute_loss_func"):
            tiny.make_trainer(bases["relu"], tmp_path, compute_loss_func=lambda outputs, labels, **kwargs: 0)
