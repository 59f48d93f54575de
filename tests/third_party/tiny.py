"""A T5 and data small enough for a test, the run of a trainer on them, and the runs of a process of its own."""

import math
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    DataCollatorForSeq2Seq,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
)

import adapters
from third_party.models.t5 import T5ForConditionalGeneration as AdaptedT5
from third_party.trainers import RankScheduleCallback, Seq2SeqTrainer, last_complete_checkpoint

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
FORMS = {
    "relu": (T5ForConditionalGeneration, T5Config, {}),
    "gated": (T5ForConditionalGeneration, T5Config, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": (MT5ForConditionalGeneration, MT5Config, {"feed_forward_proj": "gated-gelu"}),
}
LORA = {"kind": "tt_lora", "rank": 2}
OF_THE_TRAINER = ("compute_metrics", "callbacks", "compute_loss_func", "task_names", "train_sampler")
BOTTLENECK = {"kind": "bottleneck", "reduction_factor": 4}
NOT_LINEAR = {"kind": "tt_adapter", "reduction_factor": 2, "rank": 2}
CHECKPOINT_FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
}


def base_model(form: str, dropout: float = 0.0, **sizes: int) -> Any:
    """A random T5 of transformers' own; T5 v1.1 and mT5 have an lm_head of their own, no norm is all ones."""
    model_class, config_class, fields = FORMS[form]
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES | sizes, **fields, dropout_rate=dropout))
    if form != "relu":
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, SIZES["d_model"]))
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def adapted_model(base: str | Path, adapter: Any = LORA) -> AdaptedT5:
    """The base of a folder with adapters, which start the same each time, or with None."""
    torch.manual_seed(1)
    return AdaptedT5.from_pretrained(base, adapters=adapter)


def randomize(model: torch.nn.Module, scale: float = 0.3) -> None:
    """Move every adapter away from its start, so that it does something."""
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if name in adapters.freezing.adapter_parameters(model) and parameter.requires_grad:
            parameter.data += scale * torch.randn_like(parameter)


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w2, w3, ... with T5's special ids: padding 0, end 1."""
    words = {"<pad>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    core = Tokenizer(WordLevel(words, unk_token="w2"))
    core.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="w2")


def rows(count: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Token ids with sources and targets of unequal lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return [*torch.randint(2, VOCABULARY, (length,), generator=generator).tolist(), 1]

    return [{"input_ids": ids(2, 8), "labels": ids(1, 6)} for _ in range(count)]


def collator(model: Any = None) -> DataCollatorForSeq2Seq:
    return DataCollatorForSeq2Seq(tokenizer(), model=model)


def arguments(output_dir: str | Path, **values: Any) -> Seq2SeqTrainingArguments:
    defaults = {
        "max_steps": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return Seq2SeqTrainingArguments(str(output_dir), **{**defaults, **values})


def make_trainer(
    base: str | Path, output_dir: str | Path, adapter: Any = LORA, count: int = 16, **values: Any
) -> Seq2SeqTrainer:
    """A trainer of a fresh adapted model; what is no argument of training goes to the trainer itself."""
    own = {key: values.pop(key) for key in OF_THE_TRAINER if key in values}
    model = adapted_model(base, adapter)
    return Seq2SeqTrainer(
        model=model,
        args=arguments(output_dir, **values),
        train_dataset=rows(count),
        eval_dataset=rows(6, seed=1),
        data_collator=collator(model),
        processing_class=tokenizer(),
        **own,
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
    batch = collator(model)(rows)
    targets = batch["labels"]
    log_p = model(**batch).logits.log_softmax(-1)  # (rows, length, vocabulary)
    truth = torch.full_like(log_p, label_smoothing / log_p.shape[-1])
    there = targets != -100
    truth.scatter_add_(2, targets.clamp(min=0).unsqueeze(-1), torch.full_like(log_p[..., :1], 1 - label_smoothing))
    loss = -(truth * log_p).sum(-1)[there].sum() / there.sum()
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    return loss.item(), norm


def losses(trainer: Seq2SeqTrainer) -> dict[int, float]:
    """The logged training loss by step."""
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of what a checkpoint holds."""
    return {name: tensor.clone() for name, tensor in adapters.adapter_state_dict(model).items()}


def assert_same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Same names, and the same numbers bit for bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


class Killed(Seq2SeqTrainer):
    """Kills its own process, as the system would, while it writes the checkpoint of a step or right after."""

    kill = ""

    def _save_rng_state(self, output_dir: str) -> None:
        self.die_if("during")
        super()._save_rng_state(output_dir)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        self.die_if("after")

    def die_if(self, moment: str) -> None:
        if self.kill == f"process {self.args.process_index} {moment} step {self.state.global_step}":
            os.kill(os.getpid(), signal.SIGKILL)


def runs(*all_values: dict[str, Any]) -> list[dict[str, Any]]:
    """What a process says of runs, one after the other: how each went, or what was refused."""
    said = [run(dict(values)) for values in all_values]
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return said


def run(values: dict[str, Any]) -> dict[str, Any]:
    """A run, or what is left of it; with "kill": "process 0 during step 4" among its values it does not return."""
    Killed.kill = values.pop("kill", "")
    base, output_dir = values.pop("base"), values.pop("output_dir")
    if "rank_schedule" in values:
        schedule = adapters.RankSchedule.from_dict(values.pop("rank_schedule"))
        values["callbacks"] = [RankScheduleCallback(schedule, Path(output_dir) / "ranks.json")]
    try:
        trainer = make_trainer(base, output_dir, **values)
    except ValueError as error:
        return {"refused": str(error)}
    trainer.__class__ = Killed
    checkpoint = last_complete_checkpoint(output_dir)
    with mock.patch.object(adapters, "save", wraps=adapters.save) as save:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return {
        "saves": save.call_count,
        "losses": losses(trainer),
        "norms": [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry],
        "tensors": {name: tensor.flatten().tolist() for name, tensor in tensors(trainer.model).items()},
    }
