"""Target modules: patterns for the ends of paths, classes of linears, and the sites of shared cores."""

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from adapters.peft.shared import OWNER
from adapters.peft.sites import places_of
from tests.adapters.peft.tiny import adapted, dense_delta, gpt2, layers, llama, logits, t5

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class Linear4bit(nn.Linear):
    """A stand-in for a quantised linear, which stores its weight in another way."""


@pytest.mark.parametrize(
    ("path", "stack", "layer", "matrix"),
    [
        ("encoder.block.3.layer.0.SelfAttention.q", "encoder-block", 3, ("layer-SelfAttention", "q")),
        ("decoder.block.0.layer.2.DenseReluDense.wi", "decoder-block", 0, ("layer-DenseReluDense", "wi")),
        ("model.layers.1.mlp.up_proj", "model-layers", 1, ("mlp", "up_proj")),
        ("lm_head", "", None, ("", "lm_head")),
        ("2", "", 2, ("", "")),
    ],
)
def test_layer_and_matrix_are_read_from_the_path(path, stack, layer, matrix):
    (place,) = places_of([path])
    assert (place.sublayer.stack, place.sublayer.layer) == (stack, layer)
    assert (place.sublayer.kind, place.projection) == matrix


def test_experts_of_one_layer_keep_their_numbers():
    paths = [f"layers.{n}.experts.{k}.up" for n in range(2) for k in range(2)]
    sites = [(p.sublayer.layer, p.sublayer.kind, p.projection) for p in places_of(paths)]
    assert sites == [(0, "experts-0", "up"), (0, "experts-1", "up"), (1, "experts-0", "up"), (1, "experts-1", "up")]


def test_one_tensor_for_a_t5_has_the_slices_of_the_native_kind():
    modes = ["in", "layer", "matrix", "out"]
    model = get_peft_model(t5(), TensorTrainConfig(rank=2, modes=modes, target_modules=["q", "v"]))
    slices = [tuple(p.shape) for p in getattr(model.base_model.model, OWNER).parameters()]
    # 2 + 2 blocks; self-attention and cross-attention, q and v of each
    assert sorted(slices) == [(1, 1, 16, 2), *[(2, 1, 1, 2)] * 8, (2, 16, 1, 1)]


def test_patterns_set_rank_and_shape_of_single_linears():
    fields = {
        "rank": 2,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": [1, 3], "v_proj": 1},
        "shape_pattern": {r"layers\.1\..*q_proj": [[4, 4], [2, 8]]},
    }
    ranks = {
        path[-25:]: layer.tt_lora_delta["default"].linear.ranks
        for path, layer in layers(adapted(llama(), **fields)).items()
    }
    assert ranks == {
        "layers.0.self_attn.q_proj": (1, 1, 3, 1),
        "layers.0.self_attn.v_proj": (1, 1, 1, 1),
        "layers.1.self_attn.q_proj": (1, 2, 1),
        "layers.1.self_attn.v_proj": (1, 1, 1, 1),
    }


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ({"nowhere": 2}, "Key 'rank_pattern'.*'nowhere'"),
        ({"q_proj": 2, "self_attn.q_proj": 3}, "must have one value for each place"),
        ({"q_proj": [2, 500]}, "must fit a layer 16 -> 16"),
    ],
)
def test_invalid_pattern_raises_and_leaves_the_base_unchanged(pattern, sentence):
    base = llama()
    with pytest.raises(ConfigurationError, match=sentence):
        get_peft_model(base, TensorTrainConfig(rank=2, rank_pattern=pattern, target_modules=["q_proj"]))
    assert [type(module) for module in base.modules()] == [type(module) for module in llama().modules()]
    assert all(parameter.requires_grad for parameter in base.parameters())


def test_sharing_unequal_shapes_raises_and_leaves_the_base_unchanged():
    base = llama()
    with pytest.raises(ConfigurationError, match="shares parameters of one shape"):
        get_peft_model(base, TensorTrainConfig(modes=["in", "linear", "out"], target_modules=["q_proj", "up_proj"]))
    assert [type(module) for module in base.modules()] == [type(module) for module in llama().modules()]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: nn.Embedding(5, 8), "got a Embedding at 0: choose target_modules that are linears"),
        (lambda: Linear4bit(8, 8), "got a Linear4bit at 0: .*without quantisation"),
        (lambda: nn.Conv1d(8, 8, 1), "got a Conv1d at 0: leave it out"),
    ],
)
def test_unsupported_module_raises_with_its_class(make, sentence):
    model = nn.Sequential(make(), nn.Linear(8, 8))
    with pytest.raises(TypeError, match=sentence):
        get_peft_model(model, TensorTrainConfig(rank=2, target_modules=["1", "0"]))
    assert type(model[1]) is nn.Linear


@pytest.mark.parametrize(
    ("fields", "key"),
    [({"modes": ["in", "task", "out"]}, "modes"), ({"shared_cores": [0], "share_across": ["tasks"]}, "share_across")],
)
def test_tasks_raise(fields, key):
    with pytest.raises(ConfigurationError, match=f"Key '{key}'.*must not contain 'task.* add an adapter for each task"):
        TensorTrainConfig(**fields)


def test_conv1d_computes_and_merges_the_transposed_delta():
    model = adapted(gpt2(), target_modules=["c_attn"], rank=2, d=3, shape_mode="ascending")
    dense = gpt2()
    for path, layer in layers(model).items():
        conv = dense.get_submodule(path.removeprefix("base_model.model."))
        assert type(conv) is Conv1D
        delta = dense_delta(layer, shape=(48, 16))
        conv.weight.data += torch.from_numpy(delta.T).float()
    expected = logits(dense)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model.merge_and_unload()), expected, rtol=1e-5, atol=1e-5)
