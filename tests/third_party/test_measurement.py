"""What the callback counts, against hand counts and closed forms; what the progress line says."""

import contextlib
import json
import re
import time

import pytest
import torch

from tests.third_party import tiny
from tests.versions import CHECKPOINTING
from third_party.trainers import AdapterTrainerMixin, MeasurementCallback, ProgressLineCallback, Seq2SeqTrainer
from third_party.trainers.activations import saved_activations
from third_party.trainers.measurement import memory_by_layer, peak_memory_bytes, tensor_bytes


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.zeros(3, 5), 60),
        (torch.zeros(3, 5, dtype=torch.bfloat16), 30),
        (torch.zeros((), dtype=torch.int64), 8),
        (torch.zeros(4, 4)[::2], 32),
        (None, 0),
        (7, 0),
    ],
)
def test_tensor_bytes(tensor, expected):
    assert tensor_bytes(tensor) == expected


@pytest.fixture(scope="module")
def trainer(bases, tmp_path_factory):
    """One that has done three steps of two micro-batches of two rows, with evaluations in between."""
    trainer = tiny.make_trainer(
        bases["relu"],
        tmp_path_factory.mktemp("run"),
        count=12,
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer.train()
    return trainer


class TestRun:
    def test_steps_are_counted(self, trainer):
        costs = trainer.measurement.to_dict()
        assert costs["steps_measured"] == 3
        assert costs["step_seconds_median"] > 0
        assert costs["peak_memory_bytes"] > 10 * 2**20

    def test_tokens_are_the_source_tokens_without_padding_and_without_evaluation(self, trainer):
        """The run is one epoch, so it has seen each row once."""
        assert trainer.measurement.total_counted == sum(len(row["input_ids"]) for row in tiny.rows(12))
        rate = trainer.measurement.total_counted / sum(trainer.measurement.step_seconds)
        assert trainer.measurement.inputs_per_second() == rate
        assert trainer.measurement.to_dict()["tokens_per_second"] == rate

    def test_memory_by_layer_is_the_closed_form_of_adamw(self, trainer):
        """4 bytes a number, as much again for a gradient, twice for AdamW's moments, and 4 for each tensor's step."""
        numbers, trained, tensors = {}, {}, {}
        for name, parameter in trainer.model.named_parameters():
            parts = name.split(".")
            layer = {"shared": "shared"}.get(parts[0], f"{parts[0]} {parts[2]}" if "block" in name else parts[0])
            numbers[layer] = numbers.get(layer, 0) + parameter.numel()
            trained[layer] = trained.get(layer, 0) + parameter.numel() * parameter.requires_grad
            tensors[layer] = tensors.get(layer, 0) + parameter.requires_grad
        assert sorted(numbers) == ["decoder", "decoder 0", "decoder 1", "encoder", "encoder 0", "encoder 1", "shared"]
        assert min(trained["encoder 0"], trained["decoder 1"]) > 0
        assert trainer.measurement.layers == {
            layer: {
                "parameters": 4 * numbers[layer],
                "gradients": 4 * trained[layer],
                "optimizer": 8 * trained[layer] + 4 * tensors[layer],
            }
            for layer in numbers
        }

    def test_layers_hold_the_whole_model(self, trainer):
        layers = memory_by_layer(trainer.model, None)
        assert sum(row["parameters"] for row in layers.values()) == 4 * sum(
            parameter.numel() for parameter in trainer.model.parameters()
        )
        assert {row["optimizer"] for row in layers.values()} == {0}


class Recording(Seq2SeqTrainer):
    """Keeps the micro-batches of its training."""

    def training_step(self, model, inputs, *args):
        self.seen = [*getattr(self, "seen", []), {name: tensor.clone() for name, tensor in inputs.items()}]
        return super().training_step(model, inputs, *args)


class TestActivations:
    def test_they_are_those_of_the_second_micro_batch(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, per_device_train_batch_size=2, max_steps=4)
        trainer.__class__ = Recording
        trainer.train()
        rows = trainer.measurement.to_dict()["memory_by_layer"]
        del rows["loss"]  # divided by other tokens below
        expected = []
        for batch in trainer.seen:
            with saved_activations(trainer.model) as layers:
                trainer.compute_loss(trainer.model, batch)
            expected.append({layer: layers.get(layer, 0) for layer in rows})
        assert {layer: row["activations"] for layer, row in rows.items()} == expected[1]
        assert expected[1] not in (expected[0], *expected[2:])
        assert trainer.measurement.to_dict()["activations_not_measured"] is None

    def test_what_has_no_parameters_is_a_row_too(self, trainer):
        loss = trainer.measurement.to_dict()["memory_by_layer"]["loss"]
        assert {name for name, size in loss.items() if size} == {"activations"}

    def test_losses_and_norms_are_the_same_bit_for_bit_without(self, bases, tmp_path, monkeypatch):
        def history():
            trainer = tiny.make_trainer(bases["dropout"], tmp_path, gradient_accumulation_steps=2)
            trainer.train()
            return trainer.measurement.activations is None, [
                (entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry
            ]

        with_it = history()
        monkeypatch.setattr(MeasurementCallback, "forward_pass", lambda self, model: contextlib.nullcontext())
        assert with_it == (False, history()[1])

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({"max_steps": 1}, "there was no second micro-batch"),
            ({"torch_compile": True, "torch_compile_backend": "eager"}, "torch.compile decides what is saved"),
        ],
        ids=["one micro-batch", "compiled"],
    )
    def test_what_was_not_measured_is_null_and_says_why(self, bases, tmp_path, given, reason):
        measurement = tiny.make_trainer(bases["relu"], tmp_path, **given).measurement
        measurement.layers = {"shared": {"parameters": 4, "gradients": 0, "optimizer": 0}}
        for _ in range(given.get("max_steps", 2)):
            measurement.count(1)
            with measurement.forward_pass(model := torch.nn.Linear(2, 2)):
                model(torch.ones(1, 2)).sum()
        costs = json.loads(json.dumps(measurement.to_dict(), allow_nan=False))
        assert costs["activations_not_measured"] == reason
        assert {row["activations"] for row in costs["memory_by_layer"].values()} == {None}

    def test_evaluation_is_not_measured(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, max_steps=1, per_device_train_batch_size=2)
        trainer.measurement.micro_batches = 1
        trainer.measurement.count(1)
        trainer.evaluate()
        assert trainer.measurement.activations is None

    def test_checkpointed_activations_take_less_and_change_no_loss(self, bases, tmp_path):
        plain, checkpointed = (
            tiny.make_trainer(bases["relu"], tmp_path, max_steps=2, **{CHECKPOINTING: on}) for on in (False, True)
        )
        for trainer in (plain, checkpointed):
            trainer.train()
        # A block that is computed twice rounds its gradients otherwise, by some 1e-8.
        assert tiny.losses(plain) == pytest.approx(tiny.losses(checkpointed), rel=1e-6)
        blocks = [layer for layer in plain.measurement.activations if " " in layer]
        assert len(blocks) == 4
        less = checkpointed.measurement.activations
        assert [layer for layer in blocks if less.get(layer, 0) >= plain.measurement.activations[layer]] == []


def test_bfloat16_parameters_take_half(bases):
    model = tiny.adapted_model(bases["relu"], None)
    whole = memory_by_layer(model, None)
    half = memory_by_layer(model.bfloat16(), None)
    assert {name: row["parameters"] * 2 for name, row in half.items()} == {
        name: row["parameters"] for name, row in whole.items()
    }


def steps(durations, monkeypatch, tokens=6):
    """A callback that has seen steps of these seconds."""
    clock = iter([moment for seconds in durations for moment in (100.0, 100.0 + seconds)])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    measurement = MeasurementCallback()
    for _ in durations:
        measurement.on_step_begin(None, None, None)
        mask = torch.tensor([[1] * (tokens - 2) + [0], [1, 1] + [0] * (tokens - 3)])
        batch = {"input_ids": torch.zeros_like(mask), "attention_mask": mask}
        measurement.count(Seq2SeqTrainer.count_inputs(None, batch))
        measurement.on_step_end(None, None, None)
    return measurement


@pytest.mark.parametrize(
    ("durations", "median"),
    [([9.0, 1.0, 3.0, 2.0], 2.0), ([9.0, 1.0], 1.0), ([9.0], 9.0)],
    ids=["the first is left out", "of two", "of one"],
)
def test_median_leaves_out_the_first_step(monkeypatch, durations, median):
    measurement = steps(durations, monkeypatch)
    assert measurement.median_step_seconds() == pytest.approx(median)
    assert measurement.total_counted == 6 * len(durations)
    assert measurement.inputs_per_second() == pytest.approx(6 * len(durations) / sum(durations))


def test_a_batch_without_a_mask_counts_every_token():
    assert Seq2SeqTrainer.count_inputs(None, {"input_ids": torch.zeros(3, 4)}) == 12


def test_a_trainer_of_no_tokens_counts_rows():
    assert AdapterTrainerMixin.count_inputs(None, {"x": torch.zeros(3, 4), "labels": torch.zeros(3)}) == 3


def test_nothing_measured_is_null_and_not_shown():
    measurement = MeasurementCallback()
    costs = json.loads(json.dumps(measurement.to_dict(), allow_nan=False))
    assert costs["step_seconds_median"] is None
    assert costs["tokens_per_second"] is None
    assert costs["steps_measured"] == 0
    assert re.fullmatch(r"[\d,]+ MiB", measurement.progress())


def test_peak_memory_does_not_fall():
    before = peak_memory_bytes()
    held = torch.ones(2**25)  # 128 MiB, more than what the process had free
    del held
    assert peak_memory_bytes() >= max(before, 2**27)


class TestProgressLine:
    def test_says_the_numbers_a_person_looks_for(self, bases, tmp_path, capsys):
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            max_steps=2,
            disable_tqdm=False,
            eval_strategy="steps",
            eval_steps=2,
            predict_with_generate=True,
            generation_max_length=4,
            compute_metrics=lambda prediction: {"average_metrics": 0.625},
        )
        capsys.readouterr()
        trainer.train()
        trainer.predict(tiny.rows(3))
        shown = capsys.readouterr()
        last = shown.err.replace("\r", "\n").split("train:")[-1]
        loss = tiny.losses(trainer)[2]
        assert "2/2" in last
        assert f"loss {loss:.3f}, lr 5.0e-03, " in last
        for unit in (" ms/step", " tokens/s", " MiB"):
            number = last.split(unit)[0].split()[-1].replace(",", "")
            assert float(number) > 0
        assert "evaluate:" in shown.err
        evaluated = next(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
        assert f"step 2: eval_loss {evaluated:.3f}, average_metrics 0.625" in shown.out
        assert "{'loss'" not in shown.out  # transformers' own lines are off

    @pytest.mark.parametrize(
        ("metrics", "flags", "shown"),
        [
            ({"average_metrics": 0.5, "spearman": 0.5}, ("average_metrics",), {"spearman": 0.5}),
            ({"average_metrics": 0.5, "f1": 0.4, "accuracy": 0.6}, ("average_metrics",), {"f1": 0.4, "accuracy": 0.6}),
            ({"average_metrics": 0.5, "spearman": 0.5}, (), {"average_metrics": 0.5}),
            ({"average_metrics": 0.5, "a/f1": 0.4, "b/f1": 0.6}, ("average_metrics",), {"average_metrics": 0.5}),
            ({}, ("average_metrics",), {}),
        ],
    )
    def test_shows_the_metrics_of_a_task_or_the_mean_over_tasks(self, metrics, flags, shown):
        line = ProgressLineCallback(MeasurementCallback(), flags)
        logs = {"eval_loss": 1.0, "epoch": 2.0, **{f"eval_{name}": value for name, value in metrics.items()}}
        assert line.scores(logs) == shown

    def test_says_which_training_it_is(self, bases, tmp_path, capsys):
        trainer = tiny.make_trainer(
            bases["relu"], tmp_path, max_steps=2, disable_tqdm=False, eval_strategy="steps", eval_steps=2
        )
        trainer.label_progress("baseline, random backbone")
        capsys.readouterr()
        trainer.train()
        shown = capsys.readouterr()
        assert "baseline, random backbone, step 2: eval_loss" in shown.out
        assert "baseline, random backbone, train:" in shown.err
        assert "baseline, random backbone, evaluate:" in shown.err

    def test_is_off_when_asked(self, bases, tmp_path, capsys):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, max_steps=1, disable_tqdm=True)
        assert not [c for c in trainer.callback_handler.callbacks if isinstance(c, ProgressLineCallback)]
        capsys.readouterr()
        trainer.train()
        shown = capsys.readouterr()
        assert "train:" not in shown.err
        assert shown.out == ""
