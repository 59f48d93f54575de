"""A model sharded over two processes by FSDP2, on CPU with gloo, against one process with the same global batch.

The tuner trains under transformers' own Trainer, whose gathering for checkpoints ends in a deadlock on gloo (with LoRA
too), so its adapter is gathered and saved here.
"""

import os
import shutil
from functools import partial

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

import adapters
from adapters.peft import TensorTrainConfig
from adapters.sharded import is_sharded, whole
from tests.adapters.peft import tiny as peft_models
from tests.processes import torchrun
from tests.sharding import together
from tests.third_party import tiny
from third_party.trainers import last_complete_checkpoint

pytestmark = pytest.mark.slow

SETTINGS = {
    "adapter": {"kind": "tt_lora", "rank": 2, "shared_cores": [0], "frozen_cores": [1]},
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
FSDP1 = {"version": 1, "sync_module_states": False}
TUNED = ("gpt2", "llama")


def trained(base, folder, **values):
    """What a process says of a run, which resumes if it can: the losses, and why a merge is refused afterwards."""
    trainer = tiny.make_trainer(base, folder, **values)
    checkpoint = last_complete_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    adapters.save(trainer.model, folder / "adapter")
    history = trainer.state.log_history
    said = {
        key: [entry[key] for entry in history if key in entry] for key in ("loss", "grad_norm", "eval_loss")
    }
    said["parameters"] = adapters.summary(trainer.model).total
    said["layers"] = trainer.measurement.memory_by_layer()
    try:
        adapters.merge(trainer.model)
    except adapters.MergeError as error:
        said["refusal"] = str(error)
    return said


def resumed(base, source, folder, **values):
    """The same run once more, from its checkpoint 2."""
    if int(os.environ["RANK"]) == 0:
        shutil.copytree(source / "checkpoint-2", folder / "checkpoint-2")
    torch.distributed.barrier()
    return trained(base, folder, **values)


def refused(base, folder, **values):
    try:
        tiny.make_trainer(base, folder, **values)
    except ValueError as error:
        return str(error)


def tuned(which, folder, rows=8, dtype="float32", **values):
    """The losses of a run of transformers' own Trainer on a PeftModel; its adapter is saved whole."""
    base = getattr(peft_models, which)()
    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.manual_seed(1)
    model = get_peft_model(base.to(getattr(torch, dtype)), TensorTrainConfig(rank=2, shared_cores=[0]))
    tokens = torch.randint(1, 20, (16, 6), generator=torch.Generator().manual_seed(0))
    arguments = TrainingArguments(
        str(folder),
        max_steps=4,
        learning_rate=0.01,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=rows,
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        report_to="none",
        **values,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=[{"input_ids": x, "labels": x} for x in tokens])
    trainer.train()
    assert is_sharded(trainer.model) == ("fsdp" in values)
    tensors = {name: whole(tensor) for name, tensor in trainer.model.state_dict().items()}
    if arguments.should_save:
        trainer.model.save_pretrained(folder, state_dict=tensors)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def one(bases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return trained(bases["relu"], folder, **ONE), folder


@pytest.fixture(scope="module")
def two(bases, tmp_path_factory):
    """What two processes said of every sharded run, and their folder."""
    folder, base = tmp_path_factory.mktemp("two"), bases["relu"]
    functions = [
        partial(trained, base, folder / "t5", **TWO),
        partial(resumed, base, folder / "t5", folder / "resumed", **TWO),
        partial(refused, base, folder / "fsdp1", **TWO, fsdp_config=FSDP1),
        *(partial(tuned, which, folder / which, rows=4, fsdp=True) for which in TUNED),
        partial(tuned, "gpt2", folder / "bfloat16", rows=4, dtype="bfloat16", fsdp=True),
    ]
    return torchrun(together, functions), folder


def test_x(one, two):
    for which in TUNED:
        print("ONE", tuned(which, two[1] / f"one-{which}"))
    for rank in (0, 1):
        for x in two[0][rank]:
            print("TWO", rank, x)
    print("ONE", one)
    for p in sorted(two[1].rglob("*")):
        print(p)
