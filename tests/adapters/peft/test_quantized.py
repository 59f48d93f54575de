"""Deltas beside quantised linears, against the dequantised weight plus the delta in float64."""

import copy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

import adapters
from adapters import MergeError
from adapters.peft import TensorTrainConfig
from adapters.peft.quantised import TensorTrainPeftQuantisedLinear
from adapters.validation import ConfigurationError
from tests.adapters.peft.tiny import TOKENS, called, dense_delta, layers, scrambled, trainable

pytestmark = [
    # PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Deltas are rounded when they are merged into quantised weights:UserWarning"),
]

TARGETS = ["up_proj", "q_proj"]
SIZES = {
    **{"vocab_size": 20, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.1},
}
"""Multiples of 64, the size of the blocks of bitsandbytes' 4-bit codes."""
KERNEL = {"4-bit": 1e-6, "8-bit": 2e-2, "torchao": 1e-6}
"""Relative errors of a product: the 8-bit kernel rounds its input, too."""
ROUNDING = {"4-bit": 0.12, "8-bit": 0.01, "torchao": 0.01}
"""Relative errors of normal entries that are quantised."""
METHODS = list(KERNEL)


def configuration(method: str) -> BitsAndBytesConfig | TorchAoConfig:
    if method == "torchao":
        return TorchAoConfig(pytest.importorskip("torchao.quantization").Int8WeightOnlyConfig())
    pytest.importorskip("bitsandbytes")
    if method == "8-bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def quantised(linear: nn.Linear, method: str) -> nn.Linear:
    """A quantised copy of a linear."""
    if method == "torchao":
        linear = copy.deepcopy(linear).requires_grad_(False)
        pytest.importorskip("torchao.quantization").quantize_(linear, configuration(method).get_apply_tensor_subclass())
        return linear
    modules = pytest.importorskip("bitsandbytes").nn
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    if method == "8-bit":
        empty = modules.Linear8bitLt(*sizes, has_fp16_weights=False)
    else:
        empty = modules.Linear4bit(*sizes, quant_type="nf4", compute_dtype=linear.weight.dtype)
    empty.load_state_dict(linear.state_dict())
    return empty.requires_grad_(False).to("cpu")


def one_linear(method: str, **fields) -> tuple[nn.Module, TensorTrainPeftQuantisedLinear]:
    """A model of one quantised linear 64 -> 128 with a delta far from zero, and its layer."""
    torch.manual_seed(0)
    base = nn.Sequential(quantised(nn.Linear(64, 128), method))
    if method == "torchao":
        base.hf_quantizer = SimpleNamespace(quantization_config=configuration(method))
    model = get_peft_model(base, TensorTrainConfig(**{"rank": 3, "d": 3, "target_modules": ["0"], **fields})).eval()
    (layer,) = layers(scrambled(model)).values()
    return model, layer


def dense(layer: TensorTrainPeftQuantisedLinear) -> Tensor:
    """The weight (out, in) that the base layer computes with, in float64."""
    return layer.quantization_backend.get_base_weight(layer.base_layer).detach().double()


def delta(layer: TensorTrainPeftQuantisedLinear, name: str = "default") -> Tensor:
    """s T (out, in) in float64."""
    return torch.from_numpy(dense_delta(layer, name, (128, 64)))


def bits(module: nn.Module) -> dict[str, Tensor]:
    """Everything that a base layer holds, codes and scales included."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def close(ours: Tensor, exact: Tensor, relative: float) -> bool:
    return ((ours.double() - exact).norm() <= relative * exact.norm()).item()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(path)
    return path


def llama(folder, method: str | None) -> LlamaForCausalLM:
    config = None if method is None else configuration(method)
    return LlamaForCausalLM.from_pretrained(
        folder, quantization_config=config, dtype=torch.float32, device_map="cpu"
    ).eval()


@pytest.mark.parametrize("method", METHODS)
class TestOneLinear:
    def test_forward_and_gradients_are_those_of_the_dense_sum(self, method):
        _, layer = one_linear(method, bias="dense")
        x, toward = torch.randn(5, 64, requires_grad=True), torch.randn(5, 128)
        wide = x.detach().double().requires_grad_()
        cores = [core.detach().double().requires_grad_() for core in layer.tt_lora_delta["default"].linear.cores]
        change = torch.einsum("amnb,bpqc,crsd->mprnqs", *cores).reshape(128, 64)
        scaling, shift = layer.tt_lora_delta["default"].scaling, layer.tt_lora_delta["default"].delta_bias()
        exact = wide @ (dense(layer) + scaling * change).T + (layer.base_layer.bias + shift).double()
        exact.backward(toward.double())
        y = layer.train()(x)
        y.backward(toward)
        assert close(y, exact, KERNEL[method])
        assert close(x.grad, wide.grad, KERNEL[method])
        for core, other in zip(layer.tt_lora_delta["default"].linear.cores, cores, strict=True):
            assert close(core.grad, other.grad, 1e-5)
        alone = y.detach() - layer.base_layer(x.detach())
        assert close(alone, x.detach().double() @ (scaling * change).T + shift.double(), 1e-5)

    @pytest.mark.parametrize("bias", ["none", "dense"])
    def test_merged_weight_is_the_sum_quantised_and_unmerging_is_bit_exact(self, method, bias):
        model, layer = one_linear(method, bias=bias)
        x, before, base = torch.randn(5, 64), bits(layer.base_layer), layer.base_layer
        y, total = model(x), dense(layer) + delta(layer)
        quantised_sum = quantised(nn.Linear(64, 128), method)
        for _ in range(2):
            model.merge_adapter(safe_merge=True)
            assert type(layer.base_layer) is type(base)
            assert close(dense(layer), total, ROUNDING[method])
            plain = nn.Linear(64, 128)
            plain.weight.data, plain.bias.data = total.float(), layer.base_layer.bias.detach()
            quantised_sum = quantised(plain, method)
            assert torch.equal(model(x), quantised_sum(x))
            assert close(model(x), y.detach().double(), 2 * ROUNDING[method] + KERNEL[method])
            model.unmerge_adapter()
            assert layer.base_layer is base
            assert same(bits(base), before)
            assert torch.equal(model(x), y)

    def test_adapters_beside_a_merged_one(self, method):
        model, layer = one_linear(method)
        model.add_adapter("second", TensorTrainConfig(rank=2, d=3, target_modules=["0"]))
        scrambled(model, "second", seed=2)
        model.base_model.set_adapter(["default", "second"])
        x = torch.randn(5, 64)
        model.merge_adapter(["default"])
        merged = layer.base_layer(x)
        assert close(model(x) - merged, x.double() @ delta(layer, "second").T, 1e-4)
        with pytest.warns(UserWarning, match="additionally merging second"):
            model.merge_adapter(["second"])
        model.unmerge_adapter()
        total = dense(layer) + delta(layer) + delta(layer, "second")
        model.merge_adapter(["default", "second"])
        assert close(dense(layer), total, ROUNDING[method])
        with model.disable_adapter():
            assert torch.equal(model(x), layer.base_layer(x))
            assert not layer.merged

    def test_attach_refuses_it_by_name(self, method):
        base = quantised(nn.Linear(64, 128), method)
        model = nn.Sequential(base)
        with pytest.raises(ConfigurationError, match=r"got a Linear.* at 0.*use the PEFT tuner"):
            adapters.attach(model, {"kind": "tt_lora", "target_modules": ["0"]})
        assert model[0] is base


@pytest.mark.parametrize("method", METHODS)
class TestModel:
    def test_life_cycle(self, folder, tmp_path, method, caplog):
        base = llama(folder, method)
        before = called(base)
        state = bits(base)
        model = get_peft_model(base, TensorTrainConfig(rank=3, target_modules=TARGETS)).eval()
        assert torch.equal(called(model), before)
        assert len(layers(model)) == 4
        assert all(isinstance(layer, TensorTrainPeftQuantisedLinear) for layer in layers(model).values())

        model.train()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        losses = []
        for _ in range(8):
            loss = model(TOKENS, labels=TOKENS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        model.eval()
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        trained = called(model)

        model.save_pretrained(tmp_path)
        assert not (tmp_path / "base_weights.json").exists()
        again = PeftModel.from_pretrained(llama(folder, method), tmp_path).eval()
        assert torch.equal(called(again), trained)
        PeftModel.from_pretrained(llama(folder, None), tmp_path)
        assert "base model it was trained on" not in caplog.text

        model.merge_adapter()
        merged = called(model)
        assert not torch.equal(merged, trained)
        model.unmerge_adapter()
        assert torch.equal(called(model), trained)
        assert same(bits(model.unload()), state)
        plain = again.merge_and_unload(safe_merge=True)
        assert type(plain) is LlamaForCausalLM
        assert plain.state_dict().keys() == state.keys()
        assert torch.equal(called(plain), merged)

    def test_gradient_checkpointing_gives_the_same_gradients(self, folder, method):
        def gradients(checkpointing: bool) -> list[Tensor]:
            model = get_peft_model(llama(folder, method), TensorTrainConfig(rank=3, target_modules=TARGETS))
            scrambled(model).train()
            if checkpointing:
                model.enable_input_require_grads()
                model.gradient_checkpointing_enable({"use_reentrant": False})
            model(TOKENS, labels=TOKENS).loss.backward()
            return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

        for one, other in zip(gradients(False), gradients(True), strict=True):
            torch.testing.assert_close(one, other)
