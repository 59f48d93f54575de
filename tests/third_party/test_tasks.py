"""A model with adapters for several tasks: batches of one task each."""

import pytest
import torch

import adapters
from tests.third_party import tiny


def task_rows(*numbers):
    """A row of each task by its number."""
    return [{**row, "task": number} for row, number in zip(tiny.rows(len(numbers)), numbers, strict=True)]


def task_trainer(base, folder, adapter=tiny.LORA, **values):
    """A trainer of a model with adapters for the tasks a and b."""
    trainer = tiny.make_trainer(base, folder, None, **values)
    for task in ("a", "b"):
        torch.manual_seed(1)
        adapters.attach(trainer.model, adapter, task)
    trainer.task_names = ("a", "b")
    trainer._signature_columns = None
    return trainer


class TestTasks:
    @pytest.mark.parametrize(("number", "task", "other"), [(0, "a", "b"), (1, "b", "a")])
    def test_a_batch_trains_the_adapters_of_its_task_alone(self, bases, tmp_path, number, task, other):
        settings = {"max_steps": 2, "train_sampling_strategy": "sequential"}
        trainer = task_trainer(bases["relu"], tmp_path, **settings)
        trainer.train_dataset = task_rows(*[number] * 8)
        before = tiny.tensors(trainer.model)
        trainer.train()
        after = tiny.tensors(trainer.model)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert all(f".{task}." in name for name in changed)
        plain = tiny.make_trainer(bases["relu"], tmp_path, **settings)
        plain.train_dataset = tiny.rows(8)
        plain.train()
        expected = {name.replace("all_tasks", task): tensor for name, tensor in tiny.tensors(plain.model).items()}
        tiny.assert_same_tensors({name: after[name] for name in after if f".{other}." not in name}, expected)

    @pytest.mark.parametrize("numbers", [(0, 1), ()])
    def test_a_batch_of_several_tasks_or_of_none_is_refused(self, bases, tmp_path, numbers):
        trainer = task_trainer(bases["relu"], tmp_path)
        batch = tiny.collator()(task_rows(*numbers) or tiny.rows(2))
        with pytest.raises(ValueError, match=r"of one task .* got rows of (\['a', 'b'\]|no task)"):
            trainer.model_inputs(batch)

    @pytest.mark.parametrize("adapter", [tiny.LORA, tiny.NOT_LINEAR])
    def test_predictions_are_those_of_each_rows_task(self, bases, tmp_path, adapter):
        trainer = task_trainer(bases["relu"], tmp_path, adapter, per_device_eval_batch_size=1)
        tiny.randomize(trainer.model)
        rows = task_rows(0, 1, 1, 0)
        found = trainer.predict(rows).predictions[0]
        for index, row in enumerate(rows):
            adapters.set_active_task(trainer.model, "ab"[row["task"]])
            batch = tiny.collator(trainer.model)([{key: row[key] for key in ("input_ids", "labels")}])
            with torch.no_grad():
                expected = trainer.model.eval()(**batch).logits[0]
            assert found[index, : len(expected)] == pytest.approx(expected.numpy(), abs=1e-5)
        assert not adapters.is_merged(trainer.model)

    def test_a_sampler_of_ones_own_orders_the_rows_and_is_told_the_epoch(self, bases, tmp_path):
        sampler = Backwards(8)
        trainer = tiny.make_trainer(
            bases["relu"], tmp_path, count=8, max_steps=4, per_device_train_batch_size=4, train_sampler=sampler
        )
        seen = []
        collate = trainer.data_collator
        trainer.data_collator = lambda rows: seen.append([row["input_ids"] for row in rows]) or collate(rows)
        trainer.train()
        rows = [row["input_ids"] for row in tiny.rows(8)]
        assert seen == [rows[7:3:-1], rows[3::-1]] * 2
        assert sampler.epochs[-1] == 1
        assert set(sampler.epochs) == {0, 1}


class Backwards(torch.utils.data.Sampler):
    """The last row first."""

    def __init__(self, count):
        self.count, self.epochs = count, []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter(range(self.count - 1, -1, -1))
