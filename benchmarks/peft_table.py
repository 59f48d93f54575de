"""The table of docs/peft.md: what each format of the PEFT tuner can do, tried on tiny models.

    python -m benchmarks.peft_table            print the table
    python -m benchmarks.peft_table --write    put it into docs/peft.md, between its two marks

    train          two steps of Adam decrease the loss
    merge          merged and unloaded, the logits are the adapted model's
    quantised      two steps beside bitsandbytes' 8-bit weights decrease the loss
    sharded        FSDP2's fully_shard on every layer, in one process: the losses of the plain model
    LoRA export    python -m adapters.peft.to_lora: the logits are the adapted model's
    mixed batch    adapter_names, with rows of an adapter and of none: each has the logits that it has alone
    MoE            two steps beside the expert weights of a Mixtral decrease the loss

An entry is "yes" if the attempt succeeds and its result is right, and "no" if it raises an error of the library's.
"""

import argparse
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from bitsandbytes.nn import Linear8bitLt
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from adapters.peft import TensorTrainConfig
from adapters.peft.lora_export import export_lora
from adapters.saved.files import replace_file

PAGE = Path(__file__).resolve().parents[1] / "docs" / "peft.md"
BEGIN, END = "<!-- begin: python -m benchmarks.peft_table --write -->", "<!-- end -->"
FORMATS = {
    "`tensor_train`": {},
    "`tensor_train`, `modes` in, out (LoRA)": {"modes": ["in", "out"]},
    "`tensor_train`, `modes` in, layer, matrix, out": {"modes": ["in", "layer", "matrix", "out"]},
    "`tensor_train`, `shared_cores` [0]": {"shared_cores": [0], "share_across": ["layers"]},
    "`tensor_train`, `core_activation` gelu": {"core_activation": "gelu"},
    "`tensor_ring`": {"format": "tensor_ring"},
    "`cp`": {"format": "cp"},
    "`tucker`": {"format": "tucker"},
    "`tensor_basis`": {"format": "tensor_basis"},
}
SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "initializer_range": 0.3}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
TOKENS = torch.arange(1, 9).reshape(2, 4)
REFUSALS = (ValueError, TypeError, NotImplementedError, RuntimeError)
"""The errors of the library, and of PEFT and torch, that count as "no"; any other ends the script."""


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS)).eval()


def mixtral() -> MixtralForCausalLM:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**SIZES, **HEADS, num_local_experts=3, num_experts_per_tok=2)).eval()


def adapted(fields: dict, base: nn.Module | None = None, **targets: list[str]) -> PeftModel:
    """A model with an adapter far from zero."""
    targets = targets or {"target_modules": ["q_proj", "o_proj"]}  # 16 -> 16
    model = get_peft_model(llama() if base is None else base, TensorTrainConfig(rank=2, **fields, **targets)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=generator)
    return model


@torch.no_grad()
def logits(model: nn.Module, **names: list[str]) -> Tensor:
    return model(input_ids=TOKENS, **names).logits


def losses(model: nn.Module, steps: int = 2) -> list[float]:
    """The loss before each step of Adam, and after the last one."""
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], 1e-2)
    found = []
    for _ in range(steps + 1):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        found.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return found


def train(fields: dict, base: nn.Module | None = None, **targets: list[str]) -> bool:
    before, *_, after = losses(adapted(fields, base, **targets))
    return after < before


def merge(fields: dict) -> bool:
    model = adapted(fields)
    before = logits(model)
    return torch.allclose(logits(model.merge_and_unload()), before, atol=1e-4)


def quantised(fields: dict) -> bool:
    base = llama()
    for path, module in list(base.named_modules()):
        if isinstance(module, nn.Linear) and path != "lm_head":
            linear = Linear8bitLt(module.in_features, module.out_features, bias=False, has_fp16_weights=False)
            linear.load_state_dict(module.state_dict())
            base.set_submodule(path, linear.to("cpu"))
    base.is_loaded_in_8bit = True
    return train(fields, base)


def sharded(fields: dict) -> bool:
    alone = losses(adapted(fields))
    with tempfile.TemporaryDirectory() as folder:
        init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            model = adapted(fields)
            for layer in model.base_model.model.model.layers:
                fully_shard(layer)
            fully_shard(model)
            return torch.allclose(torch.tensor(losses(model)), torch.tensor(alone), atol=1e-5)
        finally:
            destroy_process_group()


def lora_export(fields: dict) -> bool:
    model = adapted(fields)
    with tempfile.TemporaryDirectory() as folder:
        llama().save_pretrained(f"{folder}/base")
        model.save_pretrained(f"{folder}/tuner")
        export_lora(f"{folder}/tuner", f"{folder}/lora", base=f"{folder}/base")
        exported = PeftModel.from_pretrained(llama(), f"{folder}/lora").eval()
    return exported.peft_config["default"].peft_type == "LORA" and torch.allclose(
        logits(exported), logits(model), atol=1e-4
    )


def mixed_batch(fields: dict) -> bool:
    model = adapted(fields)
    mixed = logits(model, adapter_names=["default", "__base__"])
    with model.disable_adapter():
        plain = logits(model)
    return torch.allclose(mixed, torch.stack([logits(model)[0], plain[1]]), atol=1e-5)


def experts(fields: dict) -> bool:
    return train(fields, mixtral(), target_parameters=["experts.down_proj"])


PROBES: dict[str, Callable[[dict], bool]] = {
    "train": train,
    "merge": merge,
    "quantised": quantised,
    "sharded": sharded,
    "LoRA export": lora_export,
    "mixed batch": mixed_batch,
    "MoE": experts,
}


def entry(probe: Callable[[dict], bool], fields: dict) -> str:
    """ "yes" or "no"; see above.

    Raises:
        AssertionError: the attempt gave a wrong result without a word.
    """
    try:
        right = probe(fields)
    except REFUSALS as error:
        print(f"{probe.__name__} {fields}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
        return "no"
    assert right, f"{probe.__name__} of {fields} gives a wrong result"
    return "yes"


def table(columns: Sequence[str] = tuple(PROBES)) -> str:
    """The table with these columns, in Markdown."""
    lines = ["| format | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, fields in FORMATS.items():
        lines.append(f"| {name} | " + " | ".join(entry(PROBES[column], fields) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def written(text: str, new: str) -> str:
    """The page with a new table between its marks."""
    return re.sub(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", lambda m: m[1] + new + m[2], text, flags=re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/peft.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    new = table()
    if given.write:
        text = written(PAGE.read_text(), new)
        replace_file(PAGE, lambda partial: partial.write_text(text))
    print(new)


if __name__ == "__main__":
    main()
