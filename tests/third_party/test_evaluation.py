"""Evaluation: merged where the adapters are linear, and the model is as before afterwards."""

import numpy as np
import pytest
import torch

import adapters
from seq2seq.text.trainer import decode
from tests.third_party import tiny


class TestEvaluation:
    @pytest.mark.parametrize("how", ["evaluate", "predict"])
    @pytest.mark.parametrize("generate", [False, True])
    def test_runs_merged_and_restores(self, bases, tmp_path, how, generate):
        seen = []
        trainer = tiny.make_trainer(bases["relu"], tmp_path, predict_with_generate=generate, generation_max_length=5)
        tiny.randomize(trainer.model)
        before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
        trainer.model.register_forward_pre_hook(lambda model, args: seen.append(adapters.is_merged(model)))
        ask = trainer.evaluate if how == "evaluate" else lambda: trainer.predict(tiny.rows(3))
        ask()
        assert seen
        assert all(seen)
        assert not adapters.is_merged(trainer.model)
        tiny.assert_same_tensors(dict(trainer.model.named_parameters()), before)

    @pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
    def test_predictions_are_in_the_order_of_the_rows_however_training_orders_them(self, bases, tmp_path, strategy):
        arguments = {"train_sampling_strategy": strategy, "per_device_eval_batch_size": 2}
        trainer = tiny.make_trainer(bases["relu"], tmp_path, **arguments)
        rows = [{**row, "input_ids": row["input_ids"][: 2 + k % 5]} for k, row in enumerate(tiny.rows(9))]
        rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
        found = trainer.predict(rows).label_ids
        assert [[label for label in labels if label != -100] for labels in found.tolist()] == [
            r["labels"] for r in rows
        ]
        assert trainer.args.train_sampling_strategy == strategy

    def test_restores_when_evaluation_raises(self, bases, tmp_path):
        def break_off(prediction):
            raise RuntimeError("no metric today")

        trainer = tiny.make_trainer(
            bases["relu"], tmp_path, predict_with_generate=True, generation_max_length=5, compute_metrics=break_off
        )
        before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
        tiny.randomize(trainer.model)
        for ask in (trainer.evaluate, lambda: trainer.predict(tiny.rows(3))):
            with pytest.raises(RuntimeError, match="no metric today"):
                ask()
            assert not adapters.is_merged(trainer.model)
        frozen = {name: p for name, p in trainer.model.named_parameters() if not p.requires_grad}
        tiny.assert_same_tensors(frozen, {name: before[name] for name in frozen})

    def test_kind_that_is_not_linear_is_evaluated_as_it_is(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, tiny.NOT_LINEAR)
        tiny.randomize(trainer.model)
        expected = tiny.oracle(tiny.adapted_model(bases["relu"], tiny.NOT_LINEAR), tiny.rows(6, seed=1))[0]
        changed = trainer.evaluate()["eval_loss"]
        assert changed != pytest.approx(expected, rel=1e-3)
        assert changed == pytest.approx(tiny.oracle(trainer.model, tiny.rows(6, seed=1))[0], rel=1e-5)

    def test_predictions_decode_to_the_generated_texts(self, bases, tmp_path):
        """The rows of all batches are padded to the longest that the model may generate, and -100 is padding too."""
        trainer = tiny.make_trainer(
            bases["relu"], tmp_path, predict_with_generate=True, generation_max_length=6, per_device_eval_batch_size=2
        )
        tiny.randomize(trainer.model)
        predictions = trainer.predict(tiny.rows(5)).predictions
        assert predictions.shape == (5, 20)  # GenerationConfig's own max_length, whatever generation_max_length says
        trainer.model.eval()
        texts = []
        for row in tiny.rows(5):
            ids = trainer.model.generate(input_ids=torch.tensor([row["input_ids"]]), max_length=6)
            texts.append(tiny.tokenizer().decode(ids[0], skip_special_tokens=True))
        assert decode(tiny.tokenizer(), predictions) == texts
        assert decode(tiny.tokenizer(), np.array([[0, 5, 6, 1, -100, -100]])) == ["w5 w6"]

    def test_training_continues_from_the_unmerged_model(self, bases, tmp_path):
        """The curve with an evaluation after each step is the curve without any."""
        plain = tiny.make_trainer(bases["relu"], tmp_path / "plain")
        evaluated = tiny.make_trainer(bases["relu"], tmp_path / "evaluated", eval_strategy="steps", eval_steps=1)
        for trainer in (plain, evaluated):
            trainer.train()
        assert len([entry for entry in evaluated.state.log_history if "eval_loss" in entry]) == 4
        assert tiny.losses(evaluated) == tiny.losses(plain)
        tiny.assert_same_tensors(tiny.tensors(evaluated.model), tiny.tensors(plain.model))
