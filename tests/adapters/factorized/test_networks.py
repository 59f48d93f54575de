"""The networks of a factorized model in one file: written without the rest, put into a dense model again."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import adapters
from adapters import CheckpointError
from adapters.factorized.networks import load_networks, network_parameters, read_note, save_networks
from tests.adapters.models import logits, tiny

CONFIGS = {
    "scalars": {"first_shape": [12, 6], "factors": 3, "scalars": True},
    "frozen": {"format": "tensor_train", "rank": 4, "frozen_cores": [0]},
    "stack": {"format": "low_rank", "rank": 5, "stack": [["gate_proj", "up_proj"]]},
    "basis": {"format": "shared_basis", "rank": 5},
    "embedding": {"format": "low_rank", "rank": 4, "target_modules": "embedding"},
}


WITHOUT_STACK = {key: config for key, config in CONFIGS.items() if key != "stack"}
"""For GPT-2, whose feed-forward sublayers have no two linears of one input."""


@pytest.mark.parametrize(
    ("name", "config"),
    [
        pytest.param(name, config, id=f"{name}-{key}")
        for name, configs in (("llama", CONFIGS), ("gpt2", WITHOUT_STACK))
        for key, config in configs.items()
    ],
)
def test_networks_come_back_bit_for_bit(name, config, tmp_path):
    model = adapters.factorize(tiny(name), config)
    file = tmp_path / "start.safetensors"
    save_networks(model, file, {"seed": 1})
    loaded = load_networks(tiny(name), file)
    assert torch.equal(logits(loaded, name), logits(model, name))
    assert read_note(file) == {"seed": 1}
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    with safe_open(file, framework="pt") as written:
        names = set(written.keys())
    assert names == network_parameters(model).keys()
    dense = {n for n, _ in tiny(name).named_parameters()}
    assert not names & dense


def test_a_damaged_file_has_no_note_and_is_refused(tmp_path):
    file = tmp_path / "start.safetensors"
    assert read_note(file) is None
    file.write_bytes(b"no tensors")
    assert read_note(file) is None
    with pytest.raises(CheckpointError, match="A file of networks is one that a run wrote"):
        load_networks(tiny("llama"), file)


def test_a_file_without_one_core_is_refused(tmp_path):
    model = adapters.factorize(tiny("llama"), CONFIGS["scalars"])
    file = tmp_path / "start.safetensors"
    save_networks(model, file, None)
    with safe_open(file, framework="pt") as written:
        names, metadata = sorted(written.keys()), written.metadata()
        tensors = {name: written.get_tensor(name) for name in names[1:]}
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=names[0]):
        load_networks(tiny("llama"), file)
