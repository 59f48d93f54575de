"""add_weighted_adapter: the logits of dense sums, the reported error, and refusals that change nothing."""

import math

import pytest
import torch
from peft import PeftModel
from torch import nn

from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import adapted, gpt2, layers, llama, logits, scrambled, t5, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QV = ["q_proj", "v_proj"]
RAW_SHAPE = [[2, 2, 4], [4, 2, 2]]


def two(base, first, second):
    """A base with the adapters "default" and "second", both of random values."""
    model = adapted(base(), **first)
    model.add_adapter("second", TensorTrainConfig(**second))
    return scrambled(model, "second", seed=2).eval()


def dense(model, name):
    """s T and s c of an adapter, by the path of the linear in the base."""
    found = {}
    for path, layer in layers(model).items():
        if name in layer.tt_lora_delta:
            delta = layer.tt_lora_delta[name]
            found[path.removeprefix("base_model.model.")] = layer.get_delta_weight(name).detach(), delta.delta_bias()
    return found


def with_dense(base, model, weights):
    """The logits of the base with a weighted sum of adapters in its weights."""
    plain = base()
    with torch.no_grad():
        for name, weight in weights.items():
            for path, (matrix, bias) in dense(model, name).items():
                linear = plain.get_submodule(path)
                linear.weight += weight * matrix
                if bias is not None:
                    linear.bias = nn.Parameter(weight * bias if linear.bias is None else linear.bias + weight * bias)
    return logits(plain)


PAIRS = {
    "partly other linears": (
        t5,
        {"rank": 3, "target_modules": ["wi", "q"]},
        {"rank": 3, "target_modules": ["wi"]},
        None,
    ),
    "a bias": (llama, {"rank": 2, "d": 2}, {"rank": 2, "d": 2, "delta_bias": "dense"}, None),
    "formats, scales": (
        llama,
        {"rank": 2, "raw_shape": RAW_SHAPE, "target_modules": QV, "format": "cp"},
        {"rank": 2, "raw_shape": RAW_SHAPE, "target_modules": QV, "scaling": 0.3},
        None,
    ),
    "shared cores, principal": (
        llama,
        {"rank": 2, "d": 3, "shared_cores": [0], "target_modules": QV, "raw_shape": RAW_SHAPE},
        {"rank": 3, "d": 3, "init": "principal", "target_modules": QV, "raw_shape": RAW_SHAPE},
        None,
    ),
    "other raw shapes, as low rank": (gpt2, {"rank": 1}, {"rank": 6, "d": 2}, "low_rank"),
    "other raw shapes, in the first one": (llama, {"rank": 1}, {"rank": 6, "d": 2}, "first"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_the_sum_computes_the_dense_one_and_is_saved(case, tmp_path):
    base, first, second, shape = PAIRS[case]
    model = two(base, first, second)
    before, trains = logits(model), trainable(model)
    report = model.add_weighted_adapter(["default", "second"], [0.75, -0.5], "sum", shape=shape)
    assert report.relative_error < 1e-10
    assert torch.equal(logits(model), before)
    assert trainable(model) == trains
    model.set_adapter("sum")
    expected = with_dense(base, model, {"default": 0.75, "second": -0.5})
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert trainable(model)
    assert all(".sum." in name for name in trainable(model))

    computed = logits(model)
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    assert torch.equal(logits(PeftModel.from_pretrained(base(), tmp_path / "sum").eval()), computed)


def test_ranks_add_and_max_rank_rounds_with_the_reported_error():
    fields = {"rank": 2, "raw_shape": RAW_SHAPE, "target_modules": ["q_proj"]}
    model = two(llama, fields, fields)
    model.add_weighted_adapter(["default", "second"], [1, 1], "exact")
    report = model.add_weighted_adapter(["default", "second"], [1, 1], "rounded", max_rank=3)
    parts = {name: dense(model, name) for name in model.peft_config}
    assert {name: model.peft_config[name].rank for name in ("exact", "rounded")} == {"exact": 4, "rounded": 3}
    error = math.hypot(
        *(torch.dist(parts["exact"][path][0], parts["rounded"][path][0]).item() for path in parts["exact"])
    )
    assert 0.01 * report.norm < report.error == pytest.approx(error, rel=1e-4)


def test_a_merged_adapter_is_added_too():
    model = two(llama, {"rank": 2, "d": 2}, {"rank": 2, "d": 2})
    expected = with_dense(llama, model, {"default": 2.0, "second": 1.0})
    model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="Unmerging the model first"):  # as PEFT does for any new adapter
        model.add_weighted_adapter(["default", "second"], [2, 1], "sum")
    model.set_adapter("sum")
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


REFUSED = {
    "an unknown adapter": (
        (["default", "other"], [1, 1], "sum"),
        ConfigurationError,
        "chosen by its name; got 'other'",
    ),
    "a name that exists": ((["default"], [1], "second"), ConfigurationError, "'second', which exists: choose another"),
    "an empty name": ((["default"], [1], ""), ConfigurationError, "must be a text without a dot"),
    "a number as name": ((["default"], [1], 3), ConfigurationError, "must be a text without a dot"),
    "a weight as text": ((["default"], ["1"], "sum"), ValueError, "A weight must be a number; got '1'"),
    "a tensor of weights": (
        (["default"], torch.ones(1), "sum"),
        ValueError,
        "A weight must be a number; got tensor",
    ),
    "a name with a dot": ((["default"], [1], "a.b"), ConfigurationError, "must be a text without a dot"),
    "a weight too few": ((["default", "second"], [1], "sum"), ValueError, "one weight for each; got 2 adapters and 1"),
    "no adapter": (([], [], "sum"), ValueError, "needs at least one adapter"),
    "other raw shapes": ((["default", "third"], [1, 1], "sum"), ValueError, 'the same raw shape .* shape="low_rank"'),
    "an activation": (
        (["default", "curved"], [1, 1], "sum"),
        ConfigurationError,
        "linear adapters; got core_activation",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_sum_changes_nothing(case):
    arguments, error, sentence = REFUSED[case]
    model = two(llama, {"rank": 2, "d": 2}, {"rank": 2, "d": 2})
    model.add_adapter("third", TensorTrainConfig(rank=2, d=3))
    model.add_adapter("curved", TensorTrainConfig(rank=2, d=2, core_activation="gelu"))
    names, before, trains = list(model.peft_config), logits(model), trainable(model)
    with pytest.raises(error, match=sentence):
        model.add_weighted_adapter(*arguments)
    assert list(model.peft_config) == names
    assert all("sum" not in layer.tt_lora_delta for layer in layers(model).values())
    assert torch.equal(logits(model), before)
    assert trainable(model) == trains


@pytest.mark.parametrize("fields", [{"modules_to_save": ["lm_head"]}, {"bias": "all"}], ids=str)
def test_what_else_trains_is_refused(fields):
    model = adapted(llama(), rank=2, **fields)
    with pytest.raises(ConfigurationError, match=r"nothing else that trains; got .* of 'default'"):
        model.add_weighted_adapter(["default"], [1], "sum")


class Nested(nn.Module):
    """A linear whose path is the end of that of another one."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.block = nn.ModuleDict({"linear": nn.Linear(8, 8)})


def test_the_sum_has_deltas_of_its_linears_only():
    model = adapted(Nested(), rank=2, target_modules="linear")
    model.add_weighted_adapter(["default"], [2.0], "sum")
    assert dense(model, "sum").keys() == dense(model, "default").keys() == {"linear"}
