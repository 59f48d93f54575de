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
from tests.adapters.peft.tiny import TOKENS, called, dense_delta, layers, scrambled

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
    state = {}
    for name, tensor in module.state_dict().items():
        parts = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
        state |= {f"{name}.{part}": getattr(tensor, part).clone() for part in parts} or {name: tensor.clone()}
    return state


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
        _, layer = one_linear(method, delta_bias="dense")
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

    @pytest.mark.parametrize("delta_bias", ["none", "dense"])
    def test_merged_weight_is_the_sum_quantised_and_unmerging_is_bit_exact(self, method, delta_bias):
        model, layer = one_linear(method, delta_bias=delta_bias)
        x, before, base = torch.randn(5, 64), bits(layer.base_layer), layer.base_layer
        y, total = model(x), dense(layer) + delta(layer)
        plain = nn.Linear(64, 128)
        plain.weight.data = total.float()
        expected = layer.quantization_backend.get_base_weight(quantised(plain, method)).double()
        for _ in range(2):
            model.merge_adapter(safe_merge=True)
            assert type(layer.base_layer) is type(base)
            assert close(dense(layer), expected, 1e-3)  # a tie may be rounded to the other side
            assert close(dense(layer), total, ROUNDING[method])
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


class TestForwardOnly:
    """EETQ's class with a dense product, as PEFT recognises these methods by their classes."""

    @pytest.fixture
    def base(self, monkeypatch):
        class EetqLinear(nn.Module):
            def __init__(self):
                super().__init__()
                self.in_features, self.out_features = 64, 128
                self.register_buffer("qweight", torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))

            def forward(self, x):
                return x @ self.qweight

        eetq = ModuleType("eetq")
        eetq.EetqLinear = EetqLinear
        monkeypatch.setitem(sys.modules, "eetq", eetq)
        monkeypatch.setattr("peft.utils.quantization_utils.is_eetq_available", lambda: True)
        return nn.Sequential(EetqLinear(), nn.Tanh(), nn.Linear(128, 8))

    def adapted(self, base):
        return scrambled(get_peft_model(base, TensorTrainConfig(rank=3, d=3, target_modules=["0", "2"])).eval())

    def test_delta_acts_beside_it_and_trains(self, base):
        model = self.adapted(base)
        layer = layers(model)["base_model.model.0"]
        x = torch.randn(5, 64, requires_grad=True)
        y = layer.train()(x)
        exact = x.detach().double() @ (layer.base_layer.qweight.double() + delta(layer).T)
        assert close(y, exact, 1e-6)
        y.sum().backward()
        assert close(x.grad, (layer.base_layer.qweight.double().sum(1) + delta(layer).sum(0)).expand(5, 64), 1e-6)
        assert all(core.grad.norm() > 0 for core in layer.tt_lora_delta["default"].linear.cores)

    @pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
    def test_merging_is_refused_by_name_before_anything_changes(self, base, merge):
        model = self.adapted(base)
        before, dense_weight = bits(model), base[2].base_layer.weight
        with pytest.raises(MergeError, match=r"'default' at 0, beside a weight of eetq, .* without quantisation"):
            getattr(model, merge)()
        assert same(bits(model), before)
        assert base[2].base_layer.weight is dense_weight
        with pytest.raises(MergeError, match="eetq"):
            base[0].merge()
        assert type(model.unload()[0]).__name__ == "EetqLinear"

    def test_a_start_from_the_weight_is_refused(self, base):
        with pytest.raises(ConfigurationError, match=r"'principal' beside 0: a weight of eetq cannot be dequantised"):
            get_peft_model(base, TensorTrainConfig(rank=3, init="principal", target_modules=["0"]))


class TestTorchao:
    def test_merging_needs_the_configuration(self):
        model = get_peft_model(
            nn.Sequential(quantised(nn.Linear(64, 128), "torchao")), TensorTrainConfig(rank=3, target_modules=["0"])
        )
        with pytest.raises(MergeError, match=r"'default' at 0, beside a weight of torchao without .*TorchAoConfig"):
            model.merge_adapter()

    def test_kernel_without_a_gradient_is_refused_in_training(self):
        torchao = pytest.importorskip("torchao.quantization")
        base = nn.Sequential(nn.Linear(64, 128).requires_grad_(False))
        torchao.quantize_(base, torchao.Int8DynamicActivationInt8WeightConfig())
        model = get_peft_model(base, TensorTrainConfig(rank=3, target_modules=["0"]))
        x = torch.randn(5, 64, requires_grad=True)
        assert model.eval()(x).shape == (5, 128)
        assert model.train()(x.detach()).requires_grad
        with pytest.raises(ConfigurationError, match=r"got a kernel of torchao \(.*Int8Tensor\).*the weights only"):
            model(x)

    def test_quantised_after_attach(self):
        torch.manual_seed(0)
        model = adapters.attach(nn.Sequential(nn.Linear(64, 128)), {"kind": "tt_lora", "target_modules": ["0"]})
        (adapter,) = model[0].beside["tt_lora"].tasks.values()
        nn.init.normal_(adapter.linear.cores[0])
        weight = model[0].weight.detach().clone()
        pytest.importorskip("torchao.quantization").quantize_(
            model, configuration("torchao").get_apply_tensor_subclass()
        )
        x = torch.randn(5, 64, requires_grad=True)
        y = model(x)
        y.sum().backward()
        total = (weight + adapter.delta_weight()).detach().double()
        assert close(y, x.detach().double() @ total.T + model[0].bias.double(), 0.01)
        assert close(x.grad, total.sum(0).expand(5, 64), 0.01)
        with pytest.raises(MergeError, match=r"dense; got a Int8Tensor.* merge first"):
            adapters.merge(model)


class TestBitsandbytes:
    def test_weight_packed_for_inference_is_refused(self):
        base = nn.Sequential(quantised(nn.Linear(64, 128), "4-bit"))
        base[0].weight.quant_state.packing_format_for_cpu = True  # as after inference on a CPU with AVX512-BF16
        with pytest.raises(ConfigurationError, match=r"got a packed one at 0: load the model again"):
            get_peft_model(base, TensorTrainConfig(rank=3, target_modules=["0"]))

    def test_inference_does_not_pack_it(self):
        model, layer = one_linear("4-bit")
        x, before = torch.randn(5, 64), bits(layer.base_layer)
        y = model(x.requires_grad_())
        with torch.no_grad():
            assert torch.equal(model(x.detach()), y)
        assert same(bits(layer.base_layer), before)

    def test_principal_start_reads_the_dequantised_weight(self):
        _, layer = one_linear("8-bit")
        plain = nn.Linear(64, 128)
        plain.weight.data = dense(layer).float()
        config = TensorTrainConfig(rank=3, d=2, init="principal", target_modules=["0"])
        layer.update_layer("principal", config)
        (expected,) = layers(get_peft_model(nn.Sequential(plain), config)).values()
        start = layer.tt_lora_delta["principal"].delta_weight(), expected.tt_lora_delta["default"].delta_weight()
        torch.testing.assert_close(*start)


class TestNarrowDeltas:
    """What TRL's SFTTrainer does after get_peft_model with a base in 4 or 8 bits."""

    @staticmethod
    def cast(model: nn.Module) -> nn.Module:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        return model

    @staticmethod
    def dtypes(model: nn.Module) -> set[torch.dtype]:
        return {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}

    @pytest.mark.parametrize("shared_cores", [(), (1,)])
    def test_train_makes_them_float32_again(self, shared_cores):
        model = nn.Sequential(*(quantised(nn.Linear(64, 64), "4-bit") for _ in range(2)))
        config = TensorTrainConfig(rank=3, target_modules=["0", "1"], shared_cores=shared_cores)
        model = self.cast(get_peft_model(model, config))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
        x = torch.randn(5, 64)
        assert model.eval()(x).dtype == torch.float32
        assert self.dtypes(model) == {torch.bfloat16}
        assert self.dtypes(model.train()) == {torch.float32}
        model(x).square().sum().backward()
        optimizer.step()
        assert self.dtypes(model) == {torch.float32}
        assert {state["exp_avg"].dtype for state in optimizer.state.values()} == {torch.float32}

    def test_those_that_have_the_dtype_of_the_base_stay_so(self):
        base = nn.Sequential(nn.Embedding(9, 64), quantised(nn.Linear(64, 64), "4-bit")).bfloat16()
        config = TensorTrainConfig(rank=3, target_modules=["1"], delta_dtype="base")
        assert self.dtypes(get_peft_model(base, config).train()) == {torch.bfloat16}

    def test_saved_ones_are_loaded_without_rounding(self, tmp_path):
        model, layer = one_linear("4-bit")
        model.save_pretrained(tmp_path)
        before = layer.get_delta_weight("default").clone()
        self.cast(model).load_adapter(tmp_path, "default")  # as a trainer that resumes
        assert torch.equal(layer.get_delta_weight("default"), before)

    def test_several_processes_are_told_to_widen_them_first(self, monkeypatch):
        model, _ = one_linear("4-bit")
        self.cast(model)
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
        with pytest.raises(ConfigurationError, match=r"got torch.bfloat16, .*trainer\.model\.base_model\.widen_deltas"):
            model.train()
        model.base_model.widen_deltas()
        assert self.dtypes(model.train()) == {torch.float32}


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
        assert bits(plain).keys() == state.keys()
        assert torch.equal(called(plain), merged)

    def test_gradient_checkpointing_gives_the_same_gradients(self, folder, method):
        def gradients(checkpointing: bool) -> list[Tensor]:
            model = get_peft_model(llama(folder, method), TensorTrainConfig(rank=3, target_modules=TARGETS))
            scrambled(model).train()
            if checkpointing:
                model.enable_input_require_grads()
                name = "activation_checkpointing_enable"  # of newer transformers
                getattr(model.base_model.model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
            model(TOKENS, labels=TOKENS).loss.backward()
            return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

        for one, other in zip(gradients(False), gradients(True), strict=True):
            torch.testing.assert_close(one, other)
