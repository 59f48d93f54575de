"""The PEFT tuner sharded over two processes by DeepSpeed's ZeRO-3 and ZeRO-2, on CPU with gloo, against one process.

transformers' own Trainer drives DeepSpeed's engine; PEFT's LoRA is held to the same. The lock file lacks the package:

    DS_BUILD_OPS=0 pip install --no-build-isolation --target FOLDER deepspeed      and FOLDER in PYTHONPATH
"""

import importlib.util
import warnings
from functools import partial

import pytest
import torch
from accelerate.state import PartialState
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import adapters
from adapters.peft import TensorTrainConfig
from tests.adapters.peft import tiny
from tests.processes import torchrun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs the package deepspeed"),
]

METHODS = {
    "tt": partial(TensorTrainConfig, rank=2),
    "shared": partial(TensorTrainConfig, rank=2, shared_cores=[0]),
    "lora": partial(LoraConfig, r=2),
}
TUNED = (("gpt2", "tt"), ("gpt2", "shared"), ("llama", "tt"), ("llama", "shared"), ("llama", "lora"))
RUNS = [(*tuned, stage) for tuned in TUNED for stage in (3, 2)]


def on_cpu():
    """Let accelerate 1.15 start DeepSpeed's gloo, and DeepSpeed 0.19 compile no kernel; in a process of its own."""
    import deepspeed.comm.torch

    prepare = PartialState._prepare_backend
    PartialState._prepare_backend = lambda self, cpu=False, *others: prepare(self, True, *others)
    deepspeed.comm.torch.build_shm_op = lambda: None


def tuned(base, method, folder, rows=8, stage=None):
    """What a process says of a run on the base in a folder, which it reads into shards where the stage is 3."""
    settings = {
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
    }
    arguments = TrainingArguments(
        str(folder),
        max_steps=4,
        learning_rate=0.01,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=rows,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        report_to="none",
        **({"use_cpu": True} if stage is None else {"deepspeed": settings}),
    )
    model = AutoModelForCausalLM.from_pretrained(base)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    torch.manual_seed(1)
    model = get_peft_model(model, METHODS[method]())
    tokens = torch.randint(1, 20, (16, 6), generator=torch.Generator().manual_seed(0))
    trainer = Trainer(model=model, args=arguments, train_dataset=[{"input_ids": x, "labels": x} for x in tokens])
    trainer.train()
    trainer.save_model(str(folder))
    history = trainer.state.log_history
    said = {key: [entry[key] for entry in history if key in entry] for key in ("loss", "grad_norm")}
    if stage == 3:
        said["held"] = [(p.ds_tensor.numel(), p.numel(), p.ds_numel) for p in model.parameters()]
        if method != "lora":  # whose merge PEFT does not refuse
            with pytest.raises(adapters.MergeError, match="ZeRO-3"):
                model.merge_adapter()
            with pytest.raises(adapters.CheckpointError, match="ZeRO-3"):
                model.save_pretrained(str(folder / "alone"))
    return said


def all_runs(bases, folder):
    on_cpu()
    return {run: tuned(bases[run[0]], run[1], folder / "-".join(map(str, run)), 4, run[2]) for run in RUNS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process said of each run, what two did, and the folder of all adapters."""
    folder = tmp_path_factory.mktemp("runs")
    bases = {which: folder / which for which in ("gpt2", "llama")}
    for which, base in bases.items():
        getattr(tiny, which)().save_pretrained(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        two = torchrun(all_runs, bases, folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # of PEFT's own
        one = {(which, method): tuned(bases[which], method, folder / f"{which}-{method}") for which, method in TUNED}
    return one, two, folder


@pytest.mark.parametrize(("which", "method", "stage"), RUNS)
def test_trains_as_in_one_process(runs, which, method, stage):
    one, two, _ = runs
    for said in two:
        for key, tolerance in {"loss": 1e-5, "grad_norm": 1e-4}.items():
            assert len(one[which, method][key]) == 4
            assert said[which, method, stage][key] == pytest.approx(one[which, method][key], rel=tolerance)


@pytest.mark.parametrize(("which", "method", "stage"), RUNS)
def test_saved_adapter_is_whole_and_that_of_one_process(runs, which, method, stage):
    *_, folder = runs
    expected = load_file(folder / f"{which}-{method}" / adapters.WEIGHTS_NAME)
    found = load_file(folder / f"{which}-{method}-{stage}" / adapters.WEIGHTS_NAME)
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("which", "method"), TUNED)
def test_every_parameter_is_shared_out(runs, which, method):
    for said in runs[1]:
        for shard, here, whole in said[which, method, 3]["held"]:
            assert (shard, here) == ((whole + 1) // 2, 0)
