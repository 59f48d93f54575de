"""Tiny T5s, one example of each adapter kind, and an oracle for tensor trains that does not use t3nsor."""

import numpy as np
import pytest
import torch
import transformers

import adapters
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

D_MODEL, D_FF = 24, 48
LINEAR = {
    "tt_lora": {"kind": "tt_lora", "rank": 2, "delta_bias": "dense", "scaling": 0.5},
    "tt_lora_attention": {
        "kind": "tt_lora",
        "scaling": 1.5,
        "rank": [3, 2],
        "target_modules": ["q", "o", "wo"],
        "delta_bias": "tt",
    },
    "tt_single": {"kind": "tt_single", "rank": 2, "delta_bias": "dense", "scaling": 2.0},
    "scale_norm": {"kind": "scale_norm"},
    "tt_layer_norm": {"kind": "tt_layer_norm", "rank": 2},
    "layer_norm": {"kind": "layer_norm"},
    "bitfit": {"kind": "bitfit"},
    "intrinsic_said": {"kind": "intrinsic_said", "dim": 200},
    "lm_head": {"kind": "lm_head"},
    "shared": {"kind": "tt_lora", "scaling": 1.0, "rank": 2, "shared_cores": [0, 2]},
    "tensor_ring": {"kind": "tt_lora", "scaling": 1.0, "rank": 2, "format": "tensor_ring", "delta_bias": "tt"},
    "tensor_basis": {"kind": "tt_lora", "scaling": 1.0, "rank": 2, "format": "tensor_basis", "frozen_cores": [0]},
    "cp": {"kind": "tt_lora", "rank": 3, "format": "cp", "scaling": 0.5},
    "tucker": {"kind": "tt_lora", "scaling": 1.0, "rank": 2, "format": "tucker", "delta_bias": "tt"},
    "one_tensor": {
        "kind": "tt_single",
        "scaling": 1.0,
        "rank": 3,
        "modes": ["in", "layer", "matrix", "out"],
        "init": "identity",
    },
    "patterns": {
        "kind": "tt_lora",
        "scaling": 1.0,
        "rank": 2,
        "rank_pattern": {"wi.*": [1, 3]},
        "modes": ["in", "in", "out"],
    },
    "principal": {"kind": "tt_lora", "rank": 2, "init": "principal"},
    "composed": [
        {"kind": "tt_lora", "scaling": 1.0, "rank": 2},
        {"kind": "tt_single", "scaling": 1.0, "rank": 2},
        {"kind": "scale_norm"},
    ],
}
NON_LINEAR = {
    "bottleneck": {"kind": "bottleneck", "reduction_factor": 4},
    "low_rank": {"kind": "low_rank", "reduction_factor": 4, "rank": 2},
    "phm": {"kind": "phm", "reduction_factor": 4, "n": 3},
    "compacter": {"kind": "compacter", "reduction_factor": 4, "n": 2},
    "compacter_shared": {
        "kind": "compacter",
        "reduction_factor": 4,
        "n": 3,
        "rank": 2,
        "factorized_rules": True,
        "shared_weights": True,
    },
    "tt_adapter": {"kind": "tt_adapter", "reduction_factor": 4, "rank": 2, "delta_bias": "dense"},
    "prompt": {"kind": "prompt", "num_tokens": 5},
    "core_activation": {"kind": "tt_lora", "scaling": 1.0, "rank": 2, "core_activation": "gelu"},
    "ring_activation": {
        "kind": "tt_single",
        "scaling": 1.0,
        "rank": 2,
        "format": "tensor_ring",
        "core_activation": "tanh",
    },
    "basis_adapter": {"kind": "tt_adapter", "reduction_factor": 4, "rank": 2, "format": "tensor_basis"},
}
HOSTS = ["tt_lora", "tt_layer_norm", "layer_norm", "bitfit", "tensor_basis", "composed"]
MECHANISMS = ["tt_lora", "layer_norm", "bitfit", "intrinsic_said", "shared", "tensor_basis", "principal", "composed"]
MECHANISMS += ["bottleneck", "compacter_shared", "prompt", "core_activation"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=[*LINEAR, *NON_LINEAR])
def any_adapter(request):
    """The description of one adapter, of every kind in turn."""
    return (LINEAR | NON_LINEAR)[request.param]


@pytest.fixture(params=LINEAR)
def linear_adapter(request):
    """The description of one adapter that can be merged, of every such kind in turn."""
    return LINEAR[request.param]


@pytest.fixture(params=NON_LINEAR)
def non_linear_adapter(request):
    """The description of one adapter that cannot be merged, of every such kind in turn."""
    return NON_LINEAR[request.param]


@pytest.fixture(params=HOSTS)
def linear_adapter_per_host(request):
    """One adapter that can be merged for each host and slot, for tests of what does not depend on the kind."""
    return LINEAR[request.param]


@pytest.fixture(params=MECHANISMS)
def adapter_per_mechanism(request):
    """One adapter for each way of computing and owning parameters, for tests that no single format can break."""
    return (LINEAR | NON_LINEAR)[request.param]


@pytest.fixture
def tiny_t5():
    """A function that builds a random T5 in evaluation mode, the same one for the same arguments."""

    def build(
        feed_forward_proj="relu", ours=True, d_model=D_MODEL, d_ff=D_FF, num_layers=2, num_decoder_layers=2, **fields
    ):
        torch.manual_seed(1)
        config_class = T5Config if ours else transformers.T5Config
        model_class = T5ForConditionalGeneration if ours else transformers.T5ForConditionalGeneration
        config = config_class(
            vocab_size=50,
            d_model=d_model,
            d_kv=6,
            d_ff=d_ff,
            num_heads=4,
            num_layers=num_layers,
            num_decoder_layers=num_decoder_layers,
            feed_forward_proj=feed_forward_proj,
            decoder_start_token_id=0,
            dropout_rate=0.0,
            **fields,
        )
        model = model_class(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "layer_norm" in name and not parameter.is_meta:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        return model.eval()

    return build


@pytest.fixture
def batch():
    """Inputs and labels of two short sequences."""
    generator = torch.Generator().manual_seed(2)
    return {
        "input_ids": torch.randint(2, 50, (2, 7), generator=generator),
        "labels": torch.randint(2, 50, (2, 5), generator=generator),
    }


@pytest.fixture
def logits(batch):
    """A function from a model to its logits (2, 5, vocabulary) for the batch."""

    @torch.no_grad()
    def compute(model):
        return model(**batch).logits

    return compute


@pytest.fixture
def trained():
    """A function that changes all trainable parameters as training might, and returns the model."""

    def move(model, std=0.2):
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(std * torch.randn(parameter.shape, generator=generator))
        return model

    return move


@pytest.fixture
def snapshot():
    """A function from a model to everything that an error must leave unchanged, comparable by ==."""

    def take(model):
        tensors = {name: (p.dtype, p.detach().clone().numpy().tobytes()) for name, p in model.named_parameters()}
        trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        classes = [(name, type(module)) for name, module in model.named_modules()]
        return tensors, list(model.state_dict()), trainable, classes, adapters.attachments(model)

    return take


@pytest.fixture
def dense_of():
    """The function from cores (r_{k-1}, m_k, n_k, r_k) to their matrix (out, in), by the definition, in float64."""

    def contract(cores):
        d = len(cores)
        operands = []
        for k, core in enumerate(cores):
            operands += [core.detach().double().numpy(), [k, d + k, 2 * d + k, (k + 1) % d]]
        tensor = np.einsum(*operands, list(range(d, 3 * d)), optimize=True)  # (m_1, ..., m_d, n_1, ..., n_d)
        return torch.from_numpy(tensor.reshape(int(np.prod(tensor.shape[:d])), -1))

    return contract
