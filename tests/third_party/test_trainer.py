"""The trainer: its loss against hand-written algebra, evaluation merged, checkpoints small, runs that resume."""

import json
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import adapters
from seq2seq.training import decode
from tests.third_party import tiny
from third_party.trainers import last_complete_checkpoint

NOT_LINEAR = {"kind": "tt_adapter", "reduction_factor": 2, "rank": 2}
CHECKPOINT_FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
}


NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="inductor needs a C++ compiler"
)


class At(TrainerCallback):
    """Calls a function of the trainer's state at one kind of event."""

    def __init__(self, event, function):
        def call(args, state, control, **kwargs):
            function(state, kwargs["model"])

        setattr(self, event, call)


def oracle(model, rows, label_smoothing=0.0):
    """Loss and gradient norm of all rows as one float64 batch: -sum of smoothed log p(target) / number of targets."""
    model = model.double().train()
    batch = tiny.collator(model)(rows)
    targets = batch["labels"]
    log_p = model(**batch).logits.log_softmax(-1)  # (rows, length, vocabulary)
    truth = torch.full_like(log_p, label_smoothing / log_p.shape[-1])
    there = targets != -100
    truth.scatter_add_(2, targets.clamp(min=0).unsqueeze(-1), torch.full_like(log_p[..., :1], 1 - label_smoothing))
    loss = -(truth * log_p).sum(-1)[there].sum() / there.sum()
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    return loss.item(), norm


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
        loss, norm = oracle(tiny.adapted_model(bases["relu"]), tiny.rows(8), label_smoothing)
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
            oracle(tiny.adapted_model(bases["relu"]), part)[0] for part in (tiny.rows(10)[:8], tiny.rows(10)[8:])
        ]
        assert list(tiny.losses(trainer).values()) == pytest.approx(expected, rel=1e-5)

    def test_evaluation_loss_is_the_mean_over_tokens_of_each_batch(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, per_device_eval_batch_size=6)
        expected = oracle(tiny.adapted_model(bases["relu"]), tiny.rows(6, seed=1))[0]
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

    def test_loss_function_of_another_is_refused(self, bases, tmp_path):
        with pytest.raises(ValueError, match="compute_loss_func"):
            tiny.make_trainer(bases["relu"], tmp_path, compute_loss_func=lambda outputs, labels, **kwargs: 0)


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
        trainer = tiny.make_trainer(bases["relu"], tmp_path, NOT_LINEAR)
        tiny.randomize(trainer.model)
        expected = oracle(tiny.adapted_model(bases["relu"], NOT_LINEAR), tiny.rows(6, seed=1))[0]
        changed = trainer.evaluate()["eval_loss"]
        assert changed != pytest.approx(expected, rel=1e-3)
        assert changed == pytest.approx(oracle(trainer.model, tiny.rows(6, seed=1))[0], rel=1e-5)

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


class TestCheckpoint:
    @pytest.mark.parametrize(
        "adapter",
        [tiny.LORA, [tiny.LORA, {"kind": "layer_norm"}], {"kind": "tt_layer_norm"}, NOT_LINEAR],
        ids=["tt_lora", "with layer norms", "tt_layer_norm", "not linear"],
    )
    def test_holds_the_unmerged_adapter_only(self, bases, tmp_path, adapter):
        at_step, in_evaluation = {}, []
        callbacks = [
            At("on_save", lambda state, model: at_step.setdefault(state.global_step, tiny.tensors(model))),
            At("on_save", lambda state, model: in_evaluation.append(not model.training)),
        ]
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            adapter,
            save_strategy="steps",
            save_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            callbacks=callbacks,
        )
        trainer.train()
        assert in_evaluation == [True, True]
        assert sorted(at_step) == [2, 4]
        for step, expected in at_step.items():
            folder = tmp_path / f"checkpoint-{step}"
            assert {path.name for path in folder.iterdir()} == CHECKPOINT_FILES
            tiny.assert_same_tensors(load_file(folder / "adapter_model.safetensors"), expected)
            trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
            assert expected.keys() == trained

    def test_saved_inside_a_merged_evaluation_is_unmerged(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, [tiny.LORA, {"kind": "tt_layer_norm", "rank": 2}])
        tiny.randomize(trainer.model)
        expected = tiny.tensors(trainer.model)
        with trainer.merged_for_evaluation():
            assert adapters.is_merged(trainer.model)
            trainer.save_model()
        assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        tiny.assert_same_tensors(load_file(tmp_path / "adapter_model.safetensors"), expected)

    def test_loads_into_a_base_model_by_name(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, save_strategy="steps", save_steps=4)
        trainer.train()
        fresh = tiny.adapted_model(bases["relu"], None)
        adapters.load(fresh, tmp_path / "checkpoint-4")
        batch = tiny.collator(fresh)(tiny.rows(4))
        with torch.no_grad():
            logits = [model.eval()(**batch).logits for model in (fresh, trainer.model)]
        assert torch.equal(*logits)

    @pytest.mark.parametrize("scores", [[0.1, 0.9, 0.3], [0.5, 0.2, 0.1], [0.1, 0.2, 0.3]])
    def test_best_model_by_average_metrics_is_loaded_at_the_end(self, bases, tmp_path, scores):
        at_step, to_come = {}, iter(scores)
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            max_steps=3,
            save_strategy="steps",
            save_steps=1,
            eval_strategy="steps",
            eval_steps=1,
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="average_metrics",
            greater_is_better=True,
            predict_with_generate=True,
            generation_max_length=4,
            compute_metrics=lambda prediction: {"average_metrics": next(to_come)},
            callbacks=[
                At("on_step_end", lambda state, model: at_step.update({state.global_step: tiny.tensors(model)}))
            ],
        )
        trainer.train()
        best = 1 + scores.index(max(scores))
        assert trainer.state.best_metric == max(scores)
        assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
        tiny.assert_same_tensors(tiny.tensors(trainer.model), at_step[best])
        assert not any(torch.equal(at_step[best][name], at_step[best % 3 + 1][name]) for name in at_step[best])
        assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{best}"]


class TestLastCompleteCheckpoint:
    STATE = json.dumps({"global_step": 1})

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            ({}, None),
            ({"checkpoint-2": STATE}, "checkpoint-2"),
            ({"checkpoint-9": STATE, "checkpoint-10": STATE}, "checkpoint-10"),
            ({"checkpoint-2": STATE, "checkpoint-4": None}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": ""}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": STATE[:-3]}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": "[]"}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-best": STATE, "checkpoint-": STATE}, "checkpoint-2"),
            ({"checkpoint-2": None, "checkpoint-4": None}, None),
        ],
    )
    def test_is_the_newest_whole_one(self, tmp_path, found, expected):
        for name, state in found.items():
            (tmp_path / name).mkdir()
            if state is not None:
                (tmp_path / name / "trainer_state.json").write_text(state)
        assert last_complete_checkpoint(tmp_path) == (None if expected is None else tmp_path / expected)

    def test_of_a_folder_that_is_not_there_is_none(self, tmp_path):
        assert last_complete_checkpoint(tmp_path / "nowhere") is None


RESUMABLE = {
    "adapter": {"kind": "tt_lora", "rank": 2, "dropout": 0.1},
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "count": 10,  # an epoch is two steps and a half one, so that runs break off inside epochs too
    "weight_decay": 0.1,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
}


@pytest.fixture(scope="module")
def uninterrupted(bases, tmp_path_factory):
    """The run that nobody kills; the base has dropout, so its curve depends on the state of the generators."""
    trainer = tiny.make_trainer(bases["dropout"], tmp_path_factory.mktemp("uninterrupted"), **RESUMABLE)
    trainer.train()
    return trainer


def resume(base, folder):
    """The same run in what would be a new process."""
    trainer = tiny.make_trainer(base, folder, **RESUMABLE)
    checkpoint = last_complete_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def assert_same_run(trainer, uninterrupted):
    def curve(of):
        keys = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")
        return [{key: entry[key] for key in keys if key in entry} for entry in of.state.log_history[:-1]]

    assert curve(trainer) == curve(uninterrupted)
    tiny.assert_same_tensors(tiny.tensors(trainer.model), tiny.tensors(uninterrupted.model))
    assert trainer.state.best_metric == uninterrupted.state.best_metric
    assert Path(trainer.state.best_model_checkpoint).name == Path(uninterrupted.state.best_model_checkpoint).name


class TestResume:
    @pytest.mark.parametrize(
        ("event", "step", "kept"),
        [
            ("on_step_begin", 0, None),
            ("on_step_end", 1, None),
            ("on_evaluate", 2, None),
            ("on_save", 2, 2),
            ("on_substep_end", 3, 2),
            ("on_step_end", 4, 2),
            ("on_log", 5, 4),
            ("on_save", 6, 6),
        ],
    )
    def test_run_killed_at_any_moment_goes_on_as_if_nothing_had_been(
        self, bases, tmp_path, uninterrupted, event, step, kept
    ):
        def kill(state, model):
            if state.global_step == step:
                raise KeyboardInterrupt

        trainer = tiny.make_trainer(bases["dropout"], tmp_path, callbacks=[At(event, kill)], **RESUMABLE)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        last = last_complete_checkpoint(tmp_path)
        assert last == (None if kept is None else tmp_path / f"checkpoint-{kept}")
        assert_same_run(resume(bases["dropout"], tmp_path), uninterrupted)

    @pytest.mark.parametrize("lost", sorted(CHECKPOINT_FILES - {"trainer_state.json"}))
    def test_partial_newest_checkpoint_is_passed_over(self, bases, tmp_path, uninterrupted, lost):
        """Killed while it wrote checkpoint 4: one file is missing, and so is the state, which is written last."""
        for step in (2, 4):
            shutil.copytree(Path(uninterrupted.args.output_dir) / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
        (tmp_path / "checkpoint-4" / lost).unlink()
        (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        resumed = resume(bases["dropout"], tmp_path)
        assert tiny.losses(resumed) == tiny.losses(uninterrupted)
        assert {path.name for path in (tmp_path / "checkpoint-4").iterdir()} == CHECKPOINT_FILES

    def test_checkpoint_of_other_adapters_is_refused(self, bases, tmp_path, uninterrupted):
        other = tiny.make_trainer(bases["dropout"], tmp_path, **{**RESUMABLE, "adapter": NOT_LINEAR})
        before = tiny.tensors(other.model)
        with pytest.raises(adapters.CheckpointError, match="tt_lora"):
            other.train(resume_from_checkpoint=str(Path(uninterrupted.args.output_dir) / "checkpoint-2"))
        tiny.assert_same_tensors(tiny.tensors(other.model), before)

    @pytest.mark.slow
    @pytest.mark.parametrize(("kill", "kept"), [("process 0 during step 4", 2), ("process 0 after step 4", 4)])
    def test_run_killed_by_the_system_goes_on_as_if_nothing_had_been(
        self, bases, tmp_path, uninterrupted, run_tiny, kill, kept
    ):
        ended = run_tiny(base=str(bases["dropout"]), output_dir=str(tmp_path), kill=kill, **RESUMABLE)
        assert ended.returncode == -signal.SIGKILL
        assert (tmp_path / "checkpoint-4" / "adapter_model.safetensors").is_file()
        assert last_complete_checkpoint(tmp_path) == tmp_path / f"checkpoint-{kept}"
        assert_same_run(resume(bases["dropout"], tmp_path), uninterrupted)


class TestWaysOfTraining:
    @pytest.mark.parametrize("reentrant", [False, True])
    @pytest.mark.parametrize("adapter", [tiny.LORA, NOT_LINEAR, {"kind": "tt_layer_norm"}])
    def test_checkpointed_activations_change_nothing(self, bases, tmp_path, adapter, reentrant):
        """Under either of its names: transformers calls gradient_checkpointing activation_checkpointing by now."""
        plain = tiny.make_trainer(bases["relu"], tmp_path, adapter, max_steps=2)
        checkpointed = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            adapter,
            max_steps=2,
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": reentrant},
        )
        assert checkpointed.args.gradient_checkpointing
        forwards = []
        for trainer in (plain, checkpointed):
            attention = trainer.model.encoder.block[1].layer[0]
            attention.register_forward_hook(lambda *args, trainer=trainer: forwards.append(trainer))
            trainer.train()
        assert forwards.count(plain) == 2  # one for each step
        assert forwards.count(checkpointed) == 4  # and once more in backward
        losses = [list(tiny.losses(trainer).values()) for trainer in (checkpointed, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        norms = [[e["grad_norm"] for e in t.state.log_history if "grad_norm" in e] for t in (checkpointed, plain)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)

    def test_gradient_checkpointing_is_the_older_name(self, bases, tmp_path):
        with pytest.warns(FutureWarning, match="activation_checkpointing"):
            trainer = tiny.make_trainer(bases["relu"], tmp_path, max_steps=1, gradient_checkpointing=True)
        forwards = []
        trainer.model.encoder.block[1].layer[0].register_forward_hook(lambda *args: forwards.append(1))
        trainer.train()
        assert len(forwards) == 2

    @pytest.mark.parametrize("adapter", [tiny.LORA, NOT_LINEAR, {"kind": "tt_layer_norm"}, {"kind": "layer_norm"}])
    def test_bf16_trains_float32_adapters_near_the_float32_curve(self, bases, tmp_path, adapter):
        plain = tiny.make_trainer(bases["relu"], tmp_path, adapter)
        mixed = tiny.make_trainer(bases["relu"], tmp_path, adapter, bf16=True)
        for trainer in (plain, mixed):
            trainer.train()
        state = tiny.tensors(mixed.model)
        assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in state.values())
        assert list(tiny.losses(mixed).values()) == pytest.approx(list(tiny.losses(plain).values()), rel=0.02)
        assert tiny.losses(mixed) != tiny.losses(plain)
        assert math.isfinite(mixed.evaluate()["eval_loss"])

    def test_bfloat16_base_trains(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, bf16=True)
        base = {name: p for name, p in trainer.model.named_parameters() if not p.requires_grad}
        for parameter in base.values():
            parameter.data = parameter.data.bfloat16()
        before = {name: parameter.clone() for name, parameter in base.items()}
        started = tiny.tensors(trainer.model)
        trainer.train()
        trainer.evaluate()
        tiny.assert_same_tensors(base, before)
        changed = tiny.tensors(trainer.model)
        assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in changed.values())
        assert not any(torch.equal(changed[name], started[name]) for name in started)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:.torch.*is deprecated")  # inductor's own two, about torch.jit and its checks
    @pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=NEEDS_COMPILER)])
    def test_compiled_training_and_evaluation_are_the_plain_ones(self, bases, tmp_path, backend):
        torch.compiler.reset()
        once = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
        adapter = {**tiny.LORA, "stacks": ["encoder"]}
        plain = tiny.make_trainer(bases["relu"], tmp_path / "plain", adapter, count=4, **once)
        compiled = tiny.make_trainer(
            bases["relu"],
            tmp_path / "compiled",
            adapter,
            count=4,
            torch_compile=True,
            torch_compile_backend=backend,
            **once,
        )
        for trainer in (plain, compiled):
            trainer.train()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        torch.compiler.reset()
        for key in ("loss", "grad_norm", "eval_loss"):
            values = [[e[key] for e in t.state.log_history if key in e] for t in (compiled, plain)]
            assert values[0] == pytest.approx(values[1], rel=1e-4)
        saved = load_file(tmp_path / "compiled" / "checkpoint-2" / "adapter_model.safetensors")
        tiny.assert_same_tensors(saved, tiny.tensors(compiled.model))

    def test_warmup_below_one_is_a_share_of_the_steps(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, warmup_steps=0.5, lr_scheduler_type="constant_with_warmup")
        trainer.train()
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
        assert rates == pytest.approx([0.0, 0.005, 0.01, 0.01])

    def test_only_what_trains_is_in_the_optimizer(self, bases, tmp_path):
        shared = {"kind": "tt_lora", "rank": 2, "shared_cores": [0], "frozen_cores": [1]}
        trainer = tiny.make_trainer(bases["relu"], tmp_path, shared)
        before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
        trainer.train()
        held = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
        trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert sorted(held) == sorted(map(id, trained.values()))
        changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
        assert changed == trained.keys()

    def test_several_gpus_in_one_process_are_refused(self, bases, tmp_path, monkeypatch):
        monkeypatch.setattr("transformers.training_args.TrainingArguments.n_gpu", property(lambda self: 2))
        with pytest.raises(ValueError, match="sees 2: start the run with `torchrun"):
            tiny.make_trainer(bases["relu"], tmp_path)


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
        with pytest.raises(ValueError, match=r"of one task .* given was one of (\['a', 'b'\]|none)"):
            trainer.act_on_task(batch)

    @pytest.mark.parametrize("adapter", [tiny.LORA, NOT_LINEAR])
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
