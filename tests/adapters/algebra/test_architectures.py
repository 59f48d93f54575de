"""Sums of adapters of any architecture, in folders of each kind, compute the sum of their dense deltas."""

import pytest
import torch
from peft import PeftModel

import adapters
from adapters import Deltas
from adapters.base.linear_layers import as_out_in
from tests.adapters.models import logits, tiny
from tests.adapters.test_architectures import close, disturbed

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ALL = {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"}
ONE_TENSOR = {"kind": "tt_lora", "rank": 2, "modes": ["in", "layer", "out"], "target_modules": ["o", "out"]}
CASES = {
    "bert with its pooler": ("bert", ALL),
    "roberta, whose head has linears of the same names": ("roberta", ALL),
    "deberta-v2 with linears outside of sublayers": ("deberta-v2", {**ALL, "exclude_modules": ["o", "in"]}),
    "gpt2, whose weights are transposed": ("gpt2", {**ALL, "delta_bias": "dense"}),
    "one tensor with excluded linears": ("llama", {**ONE_TENSOR, "exclude_modules": ["out"]}),
    "two stacks of one name": ("encoder-decoder", {**ALL, "layers": [1]}),
    "an unknown architecture": ("mixtral", ALL),
}


def with_dense(name, deltas):
    model = tiny(name)
    with torch.no_grad():
        for path, train in deltas.per_linear().items():
            linear = model.get_submodule(path)
            linear.weight += as_out_in(linear, train.full().float())
            if path in deltas.biases:
                linear.bias += deltas.biases[path].float()
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_written_sum_computes_the_dense_sum(case, tmp_path):
    name, config = CASES[case]
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders, 3):
        adapters.save(disturbed(adapters.attach(tiny(name), config), seed), folder)
    a, b = map(Deltas.read, folders)
    total = 2 * a - b
    expected = logits(with_dense(name, total), name)
    assert not close(logits(tiny(name), name), expected)
    adapters.combine(folders, weights=[2, -1], rel_tol=1e-9, output=tmp_path / "sum")
    assert close(logits(adapters.load(tiny(name), tmp_path / "sum"), name), expected)
    adapters.combine(folders, weights=[2, -1], shape="low_rank", output=tmp_path / "low_rank")
    assert close(logits(adapters.load(tiny(name), tmp_path / "low_rank"), name), expected)
    assert adapters.compare([tmp_path / "sum", tmp_path / "low_rank"]).distances[0][1] < 1e-4 * total.norm()


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`")
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_lora_of_peft_computes_what_the_adapter_does(name, tmp_path):
    model = disturbed(adapters.attach(tiny(name), {**ALL, "delta_bias": "dense"}))
    Deltas.of(model).write_lora(tmp_path)
    assert close(logits(PeftModel.from_pretrained(tiny(name), tmp_path).eval(), name), logits(model, name))
