"""The trainers refuse a delta that no forward calls in the first batch, and change nothing about a run."""

import logging
from dataclasses import fields
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

import adapters
from adapters.acting import WatchedPass
from tests.third_party import tiny
from third_party.trainers import Seq2SeqTrainer

NAMES = {field.name for field in fields(TrainingArguments)}
CHECKPOINTING = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in NAMES)
LOG = "third_party.trainers.acting_check"


def bypass(trainer, modes):
    """Let a feed-forward sublayer of the decoder read the weight of its last linear in these modes."""
    block = trainer.model.decoder.block[0].layer[2].DenseReluDense
    call = block.forward
    read = lambda x: F.linear(block.act(block.wi(x)), block.wo.weight)  # noqa: E731
    block.forward = lambda x: (read if block.training in modes else call)(x)


@pytest.mark.parametrize("adapter", [tiny.LORA, tiny.NOT_LINEAR], ids=["merged evaluation", "unmerged evaluation"])
@pytest.mark.parametrize("modes", [(True,), (False,)], ids=["training", "evaluation"])
@pytest.mark.parametrize("generate", [False, True])
def test_a_bypassed_delta_is_refused_in_the_first_batch(bases, tmp_path, adapter, modes, generate):
    trainer = tiny.make_trainer(bases["relu"], tmp_path, adapter, predict_with_generate=generate)
    bypass(trainer, modes)
    match = rf"decoder\.block\.0\.layer\.2\.DenseReluDense\.wo \({adapter['kind']}\)"
    if modes == (True,):
        with pytest.raises(adapters.ConfigurationError, match=match):
            trainer.train()
        assert trainer.state.global_step == 0
    elif adapter == tiny.LORA:
        trainer.train()
        trainer.evaluate()  # the weight that is read contains the delta
    else:
        trainer.train()
        with pytest.raises(adapters.ConfigurationError, match=match):
            trainer.evaluate()


def test_a_model_that_training_unmerges_is_no_alarm(bases, tmp_path):
    trainer = tiny.make_trainer(bases["relu"], tmp_path)
    adapters.merge(trainer.model)
    trainer.train()


def test_only_the_first_batch_of_each_phase_is_watched_and_no_hook_stays(bases, tmp_path):
    with mock.patch.object(WatchedPass, "__enter__", autospec=True, side_effect=WatchedPass.__enter__) as watched:
        trainer = tiny.make_trainer(
            bases["relu"], tmp_path, tiny.NOT_LINEAR, max_steps=3, gradient_accumulation_steps=2, eval_strategy="steps",
            eval_steps=1, per_device_eval_batch_size=2,
        )  # fmt: skip
        trainer.train()
    assert watched.call_count == 2
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trainer.model.modules())


@pytest.mark.parametrize("form", ["dropout", "checkpointed", "branch"])
def test_a_run_computes_the_same_as_without_the_check(bases, tmp_path, caplog, form):
    """A compiled run, of which the check leaves the first batch uncompiled, is the plain one: test_training_modes."""
    options = {CHECKPOINTING: True} if form == "checkpointed" else {}

    def tensors():
        trainer = tiny.make_trainer(bases["dropout"], tmp_path, tiny.NOT_LINEAR, **options)
        if form == "branch":
            block = trainer.model.decoder.block[0].layer[2].DenseReluDense
            block.forward = lambda x: x
        trainer.train()
        return adapters.adapter_state_dict(trainer.model)

    with caplog.at_level(logging.WARNING, LOG):
        checked = tensors()
    messages = [record.message for record in caplog.records if record.name == LOG]
    left_out = "calls no adapter of decoder.block.0.layer.2.DenseReluDense.wo"
    assert messages == ([f"The first training batch {left_out}."] if form == "branch" else [])
    with mock.patch.object(Seq2SeqTrainer, "phases_checked", {"training", "evaluation"}):
        assert all(torch.equal(tensor, checked[name]) for name, tensor in tensors().items())
