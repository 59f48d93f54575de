"""Compiled models: their original paths, and parts that stay compiled without wrappers."""

import copy

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

import adapters
from adapters.compiled import compiled_in_place, original_path, uncompiled


@pytest.fixture
def counted():
    """A backend that computes as the model does, and the list of graphs that it was given."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    yield backend, graphs
    torch._dynamo.reset()


class Block(nn.Module):
    """x -> W tanh(x)."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, wide)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.tanh(x))


class Blocks(Block):
    """Two blocks after a linear."""

    def __init__(self, wide: int) -> None:
        super().__init__(wide)
        self.blocks = nn.ModuleList([Block(wide), Block(wide)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](super().forward(x)))


def model() -> Blocks:
    torch.manual_seed(0)
    return Blocks(3)


@pytest.mark.parametrize(
    ("path", "original"),
    [
        ("_orig_mod.encoder.block.0.weight", "encoder.block.0.weight"),
        ("encoder._orig_mod.block.0._orig_mod.weight", "encoder.block.0.weight"),
        ("encoder.my_orig_mod.weight", "encoder.my_orig_mod.weight"),
        ("_orig_mod", ""),
    ],
)
def test_original_path_is_without_wrappers(path, original):
    assert original_path(path) == original


@torch.no_grad()
@pytest.mark.parametrize("parts", [[""], ["blocks.1"], ["blocks.0", "blocks.1"], ["", "blocks.0"]], ids=str)
def test_parts_stay_compiled_under_their_original_paths(parts, counted):
    backend, graphs = counted
    plain, compiled = model(), model()
    for part in reversed(parts):
        wrapped = torch.compile(compiled.get_submodule(part), backend=backend)
        if part:
            parent, _, name = part.rpartition(".")
            setattr(compiled.get_submodule(parent), name, wrapped)
        else:
            compiled = wrapped
    assert compiled.state_dict().keys() != plain.state_dict().keys()
    result = compiled_in_place(compiled)
    assert result is uncompiled(compiled)
    assert result.state_dict().keys() == plain.state_dict().keys()
    x = torch.ones(5, 3)
    torch.testing.assert_close(result(x), plain(x))
    assert len(graphs) >= 1
    torch.testing.assert_close(copy.deepcopy(result)(x), plain(x))


def test_a_model_that_is_not_compiled_is_unchanged():
    plain = model()
    assert compiled_in_place(plain) is plain
    assert all(module._compiled_call_impl is None for module in plain.modules())


SIZES = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}


def t5():
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(**SIZES, decoder_start_token_id=0)).eval()


def compile_encoder(model):
    model.encoder = torch.compile(model.encoder, backend="eager")
    return model


def compile_blocks(model):
    for index, block in enumerate(model.encoder.block):
        model.encoder.block[index] = torch.compile(block, backend="eager")
    return model


def compile_all(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("compiled", [compile_encoder, compile_blocks, compile_all])
def test_adapters_of_a_model_with_compiled_parts_are_those_of_the_model(compiled, tmp_path):
    plain = adapters.attach(t5(), {"kind": "tt_lora", "rank": 2})
    model = adapters.attach(compiled(t5()), {"kind": "tt_lora", "rank": 2})
    assert adapters.adapter_state_dict(model).keys() == adapters.adapter_state_dict(plain).keys()
    later = compiled(plain)
    adapters.save(later, tmp_path / "saved")
    loaded = adapters.load(compiled(t5()), tmp_path / "saved")
    for name, tensor in adapters.adapter_state_dict(loaded).items():
        assert torch.equal(tensor, adapters.adapter_state_dict(later)[name])
    adapters.merge_and_unload(loaded).save_pretrained(tmp_path / "plain")
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path / "plain")
    assert reloaded.state_dict().keys() == t5().state_dict().keys()
