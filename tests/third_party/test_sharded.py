"""A model sharded over two processes by FSDP2, on CPU with gloo, against one process with the same global batch."""

from functools import partial

import pytest
import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

import adapters
from adapters.peft import TensorTrainConfig
from adapters.saved.checkpoint import read_checkpoint
from tests.adapters.peft import tiny as peft_models
from tests.processes import torchrun
from tests.sharding import together
from tests.third_party import tiny
from third_party.trainers import last_complete_checkpoint

pytestmark = pytest.mark.slow

SHARED = {"kind": "tt_lora", "rank": 2, "shared_cores": [0], "frozen_cores": [1]}
SETTINGS = {
    "adapter": SHARED,
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "predict_with_generate": True,
    "load_best_model_at_end": True,
}
ONE = {**SETTINGS, "per_device_train_batch_size": 8}
TWO = {**SETTINGS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "fsdp": True}


def trained(base, folder, **values):
    """What a process says of a run: losses in training and evaluation, and whether a merge is refused."""
    trainer = tiny.make_trainer(base, folder, **values)
    checkpoint = last_complete_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    adapters.save(trainer.model, folder / "best")
    try:
        adapters.merge(trainer.model)
    except adapters.MergeError as error:
        refusal = str(error)
    else:
        refusal = ""
    history = trainer.state.log_history
    return {
        "losses": [entry["loss"] for entry in history if "loss" in entry],
        "norms": [entry["grad_norm"] for entry in history if "grad_norm" in entry],
        "evaluations": [entry["eval_loss"] for entry in history if "eval_loss" in entry],
        "classes": sorted({type(module).__name__ for module in trainer.model.modules() if "FSDP" in type(module).__name__}),
        "refusal": refusal,
    }


def refused(base, folder, **values):
    try:
        tiny.make_trainer(base, folder, **values)
    except ValueError as error:
        return str(error)


def tuned(which, folder, fields=(), dtype="float32", rows=8, **values):
    """What a process says of a run of transformers' own Trainer on a PeftModel."""
    base = getattr(peft_models, which)().to(getattr(torch, dtype))
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.manual_seed(1)
    model = get_peft_model(base, TensorTrainConfig(rank=2, **dict(fields)))
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(1, 20, (6,), generator=generator) for _ in range(16)]
    arguments = TrainingArguments(
        str(folder), max_steps=4, learning_rate=0.01, logging_steps=1, **{"save_strategy":"steps", "save_steps":2, **values},
        per_device_train_batch_size=rows, use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, report_to="none",
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=[{"input_ids": x, "labels": x} for x in tokens])
    checkpoint = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=checkpoint)
    if arguments.save_strategy != "no":
        trainer.save_model()
    return {"losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]}


def last_checkpoint(folder):
    found = sorted(folder.glob("checkpoint-*"))
    return str(found[-1]) if found else None


@pytest.fixture(scope="module")
def one(bases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return trained(bases["relu"], folder, **ONE), folder


@pytest.fixture(scope="module")
def said(bases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run = partial(trained, bases["relu"], folder, **TWO)
    refuse = partial(refused, bases["relu"], folder, **TWO, fsdp_config={"version": 1, "sync_module_states": False})
    peft = [partial(tuned, which, folder / which, rows=4, fsdp=True) for which in ("gpt2", "llama")]
    peft.append(partial(tuned, "gpt2", folder / "fsdp1", rows=4, fsdp=True, save_strategy="no", fsdp_config={"version": 1, "sync_module_states": False}))
    return torchrun(together, [run, refuse, *peft]), folder


def test_x(one, said):
    print(one)
    for which in ("gpt2", "llama"):
        print(tuned(which, said[1] / f"one-{which}"))
    for x in said[0][0]: print(x if isinstance(x, dict) else str(x)[-1500:])
    for x in said[0][1]: print(x if isinstance(x, dict) else str(x)[-100:])
    for p in sorted(said[1].rglob("*")): print(p)
    assert 0
