"""Checkpointed activations, bf16, torch.compile and warm-up, with every kind of adapter."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.third_party import tiny
from tests.versions import CHECKPOINTING

BACKEND = "inductor" if shutil.which("g++") or shutil.which("clang++") else "eager"
"""The first needs a C++ compiler and does all that the second does."""


class TestWaysOfTraining:
    @pytest.mark.parametrize("reentrant", [False, True])
    @pytest.mark.parametrize("adapter", [tiny.LORA, tiny.NOT_LINEAR, {"kind": "tt_layer_norm"}])
    def test_checkpointed_activations_change_nothing(self, bases, tmp_path, adapter, reentrant):
        plain = tiny.make_trainer(bases["relu"], tmp_path, adapter, max_steps=2)
        checkpointed = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            adapter,
            max_steps=2,
            **{CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}},
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

    @pytest.mark.skipif(CHECKPOINTING == "gradient_checkpointing", reason="the only name before transformers 5.23")
    def test_gradient_checkpointing_is_the_older_name(self, bases, tmp_path):
        with pytest.warns(FutureWarning, match="activation_checkpointing"):
            trainer = tiny.make_trainer(bases["relu"], tmp_path, max_steps=1, gradient_checkpointing=True)
        forwards = []
        trainer.model.encoder.block[1].layer[0].register_forward_hook(lambda *args: forwards.append(1))
        trainer.train()
        assert len(forwards) == 2

    @pytest.mark.parametrize("adapter", [tiny.LORA, tiny.NOT_LINEAR, {"kind": "tt_layer_norm"}, {"kind": "layer_norm"}])
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
    def test_compiled_training_and_evaluation_are_the_plain_ones(self, tmp_path):
        torch.compiler.reset()
        tiny.base_model("relu", num_layers=1).save_pretrained(tmp_path / "base")
        once = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
        adapter = {**tiny.LORA, "stacks": ["encoder"]}
        plain = tiny.make_trainer(tmp_path / "base", tmp_path / "plain", adapter, count=4, **once)
        compiled = tiny.make_trainer(
            tmp_path / "base",
            tmp_path / "compiled",
            adapter,
            count=4,
            torch_compile=True,
            torch_compile_backend=BACKEND,
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
        with pytest.raises(ValueError, match="got 2 visible GPUs: start the run with `torchrun"):
            tiny.make_trainer(bases["relu"], tmp_path)
