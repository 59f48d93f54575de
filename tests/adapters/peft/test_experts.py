"""Deltas of expert weights: Mixtral, Qwen3-MoE and gpt-oss against dense weights per expert, in float64."""

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import adapters
from adapters.peft import TensorTrainConfig
from adapters.peft.experts import TensorTrainPeftExperts
from adapters.peft.mergeable import check_mergeable
from adapters.validation import ConfigurationError
from tests.adapters.peft.tiny import scrambled

SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "initializer_range": 0.3, "num_experts_per_tok": 2}  # fmt: skip
E, LAYERS = 4, 2
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
MODELS = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, intermediate_size=24, num_local_experts=E)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, intermediate_size=32, moe_intermediate_size=24, num_experts=E, head_dim=8)
    ),
    "gpt_oss": lambda: GptOssForCausalLM(GptOssConfig(**SIZES, intermediate_size=24, num_local_experts=E, head_dim=8)),
}
BOTH = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "rank": 3}
DOWN = {"target_parameters": ["experts.down_proj"], "rank": 3}  # 24 -> 16
TENSORS = {
    "one delta per expert": (BOTH, None),
    "mode expert": ({**DOWN, "modes": ["in", "expert", "out"]}, 24 * 3 + E * 9 + 3 * 16),
    "modes layer and expert": ({**DOWN, "modes": ["in", "layer", "expert", "out"]}, 72 + LAYERS * 9 + E * 9 + 48),
    "mode layer": ({**DOWN, "modes": ["in", "layer", "out"]}, E * (72 + LAYERS * 9 + 48)),
}
"""Fields, and the parameter count in closed form."""
IMPLEMENTATIONS = ["eager", "grouped_mm", "batched_mm"]
TOKENS = torch.arange(1, 17).reshape(2, 8)

ONE_EACH, *WITH_SITES = TENSORS

every_model = pytest.mark.parametrize("name", MODELS)
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
every_case = pytest.mark.parametrize(
    ("name", "implementation", "tensor"),
    [(name, implementation, ONE_EACH) for name in MODELS for implementation in IMPLEMENTATIONS]
    + [("qwen3_moe", "grouped_mm", tensor) for tensor in WITH_SITES],
)


def base(name="mixtral", implementation="grouped_mm", dtype=torch.float32):
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(dtype)
    model.set_experts_implementation(implementation)
    return model


def adapted(model, tensor="one delta per expert", **fields):
    return get_peft_model(model, TensorTrainConfig(**TENSORS[tensor][0] | fields)).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=TOKENS).logits


def stacks(model, adapter="default"):
    """{path in the base: (experts module, deltas of each expert)}."""
    return {
        f"{path.removeprefix('base_model.model.')}.{stack}": (layer.base_layer, deltas.experts)
        for path, layer in model.named_modules()
        if isinstance(layer, TensorTrainPeftExperts)
        for stack, deltas in layer.tt_lora_delta[adapter].items()
    }


def dense(delta, leaves):
    """s T (out, in) by definition from cores (r, m, n, s); ``leaves`` has what stands for each Parameter."""
    cores, operands = [leaves[core] for core in delta.linear.live_cores()], []
    for k, core in enumerate(cores):
        operands += [core, [k, 10 + k, 20 + k, k + 1]]
    d = len(cores)
    full = torch.einsum(*operands, [0, *range(10, 10 + d), *range(20, 20 + d), d])
    return delta.scaling * full.reshape(delta.linear.out_features, delta.linear.in_features)


def dense_weights(model, plain, leaves):
    """The stacks of a plain base with the deltas of the model added, expert by expert."""
    changed = {}
    for path, (module, deltas) in stacks(model).items():
        change = torch.stack([dense(delta, leaves) for delta in deltas])  # (experts, out, in)
        changed[path] = plain.get_parameter(path).detach() + (change.mT if module.is_transposed else change)
    return changed


@every_case
def test_step_0_equals_the_base_bit_for_bit(name, implementation, tensor):
    expected = logits(base(name, implementation))
    model = adapted(base(name, implementation), tensor)
    assert torch.equal(logits(model), expected)
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert any(gradient.any() for gradient in gradients)


@every_case
def test_outputs_and_gradients_are_those_of_dense_weights(name, implementation, tensor):
    dtype = torch.float32 if implementation == "grouped_mm" else torch.float64  # all that torch's kernel has
    model = scrambled(adapted(base(name, implementation, dtype), tensor).to(dtype))
    plain = base(name, "eager").double()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    leaves = {parameter: parameter.detach().double().requires_grad_() for parameter in parameters}
    oracle = torch.func.functional_call(plain, dense_weights(model, plain, leaves), (TOKENS,), {"labels": TOKENS})
    output = model(input_ids=TOKENS, labels=TOKENS)
    digits = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(output.logits.double(), oracle.logits, **digits)
    assert (output.logits - logits(plain)).abs().max() > 0.1
    output.loss.backward()
    oracle.loss.backward()
    for parameter, leaf in leaves.items():
        torch.testing.assert_close(parameter.grad.double(), leaf.grad, **digits)


@pytest.mark.parametrize("tensor", TENSORS)
def test_the_parameter_count_is_the_closed_form(tensor):
    model, (_, expected) = adapted(base(), tensor), TENSORS[tensor]
    if expected is None:
        expected = sum(c.numel() for _, ds in stacks(model).values() for d in ds for c in d.linear.live_cores())
        assert len(stacks(model)) == 2 * LAYERS
    assert model.get_nb_trainable_parameters()[0] == expected


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merge_writes_the_stacks_and_an_unmerge_restores_every_bit(name, dtype, tmp_path):
    model = scrambled(adapted(base(name, dtype=dtype)))
    untouched, before = base(name, dtype=dtype), logits(model)
    leaves = {parameter: parameter.detach().double() for parameter in model.parameters()}
    expected = dense_weights(model, base(name, dtype=dtype).double(), leaves)
    model.merge_adapter(safe_merge=True)
    for path, weight in expected.items():
        merged = stacks(model)[path][0].get_parameter(path.rpartition(".")[2])
        assert merged.dtype == dtype
        torch.testing.assert_close(merged.double(), weight, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=1e-6)
    model.unmerge_adapter()
    for path, (module, _) in stacks(model).items():
        assert torch.equal(module.get_parameter(path.rpartition(".")[2]), untouched.get_parameter(path))
    assert torch.equal(logits(model), before)
    plain = model.merge_and_unload()
    plain.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()
    assert type(loaded) is type(untouched)
    assert all(torch.equal(loaded.get_parameter(path), parameter) for path, parameter in plain.named_parameters())
    if dtype == torch.float32:
        assert torch.equal(logits(loaded), logits(plain))
        torch.testing.assert_close(logits(loaded), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tensor"), [*((name, ONE_EACH) for name in MODELS), *(("mixtral", tensor) for tensor in WITH_SITES)]
)
def test_a_saved_adapter_is_only_its_tensors_and_loads_to_the_same_bits(name, tensor, tmp_path):
    model = scrambled(adapted(base(name), tensor))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(value.numel() for value in saved.values()) == model.get_nb_trainable_parameters()[0]
    assert all(".tt_lora_delta." in key for key in saved)
    for low_cpu_mem_usage in (False, True):
        again = PeftModel.from_pretrained(base(name), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
        assert torch.equal(logits(again), logits(model))
    assert not again.peft_config["default"].target_modules
    inject_adapter_in_model(
        again.peft_config["default"], injected := base(name), state_dict=saved
    )  # only keys are read
    assert stacks(injected).keys() == stacks(model).keys()


def test_linears_and_experts_have_deltas_of_one_adapter(tmp_path):
    model = adapted(base(), target_modules=["q_proj"])
    assert torch.equal(logits(model), logits(base()))
    before = logits(scrambled(model))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base(), tmp_path).eval()
    assert torch.equal(logits(again), before)
    torch.testing.assert_close(logits(again.merge_and_unload()), before, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    found = []
    for checkpoints in (False, True):
        model = scrambled(adapted(base(), "mode expert"))
        if checkpoints:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.train()(input_ids=TOKENS, labels=TOKENS).loss.backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for one, other in zip(*found, strict=True):
        assert one.any()
        torch.testing.assert_close(other, one)


@every_model
def test_a_bf16_base_has_float32_deltas(name):
    model = scrambled(adapted(base(name, dtype=torch.bfloat16)))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    output = model(input_ids=TOKENS, labels=TOKENS)
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    exact = logits(scrambled(adapted(base(name))))
    assert (output.logits.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_several_adapters_add_up_switch_and_merge_beside_each_other():
    plain, model = base(), scrambled(adapted(base()))
    one = logits(model)
    model.add_adapter("second", TensorTrainConfig(**TENSORS["mode expert"][0], target_modules=[]))
    scrambled(model, "second", seed=2)
    assert torch.equal(logits(model), one)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    assert not torch.allclose(both, one, atol=0.1)
    model.merge_adapter(["default"])
    torch.testing.assert_close(logits(model), both, rtol=1e-4, atol=1e-4)
    with pytest.warns(UserWarning, match="additionally merging second"):
        model.merge_adapter(["second"])
    torch.testing.assert_close(logits(model), both, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert torch.equal(logits(model), both)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(plain))
    model.delete_adapter("second")
    assert torch.equal(logits(model), one)
    assert torch.equal(logits(model.unload()), logits(plain))


def test_a_mixed_batch_is_refused():
    """Experts get the tokens of all rows together, so that a row's adapter would act on none of them."""
    model = adapted(base())
    with pytest.raises(ConfigurationError, match="deltas of experts"):
        model(TOKENS, adapter_names=["default", "__base__"])


@every_implementation
def test_training_creates_no_dense_delta(implementation):
    seen = set()

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in [result] if isinstance(result, torch.Tensor) else []:
                if tensor.untyped_storage().data_ptr() not in frozen:
                    seen.add(tuple(tensor.shape))
            return result

    model = scrambled(adapted(base(implementation=implementation)))
    frozen = {p.untyped_storage().data_ptr() for p in model.parameters() if not p.requires_grad}
    with Shapes():
        model.train()(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert not seen & {(E, 48, 16), (E, 16, 48), (E, 16, 24), (E, 24, 16)}
    assert len(seen) > 20


@pytest.mark.parametrize("init", ["principal", "orthogonal"])
def test_other_starts_equal_the_base(init):
    model = adapted(base(), init=init, scaling=1.0)
    torch.testing.assert_close(logits(model), logits(base()), rtol=1e-5, atol=1e-5)


def test_patterns_and_calibration_reach_experts():
    model = adapted(base(), rank=2, rank_pattern={"layers.1.mlp.experts.down_proj": 1})
    assert {path: deltas[0].linear.ranks[1] for path, (_, deltas) in stacks(model).items() if "down" in path} == {
        "model.layers.0.mlp.experts.down_proj": 2,
        "model.layers.1.mlp.experts.down_proj": 1,
    }
    before = model.peft_config["default"].scaling
    adapters.calibrate_scaling(model, {"input_ids": TOKENS, "labels": TOKENS})
    assert model.peft_config["default"].scaling != before


def test_an_error_inside_the_experts_leaves_the_parameters_in_place():
    model = scrambled(adapted(base()))
    experts = model.base_model.model.model.layers[0].mlp.experts.base_layer
    before = logits(model)
    with pytest.raises(TypeError), torch.no_grad():
        model.base_model.model.model.layers[0].mlp.experts(None)
    assert isinstance(experts.gate_up_proj, nn.Parameter)
    assert torch.equal(logits(model), before)


def test_an_activation_between_cores_acts_but_cannot_be_merged():
    model = scrambled(adapted(base(), core_activation="gelu"))
    assert not torch.allclose(logits(model), logits(base()), atol=0.1)
    with pytest.raises(RuntimeError, match=r"experts\.down_proj"):
        check_mergeable(model, None, False)


def test_without_init_weights_every_expert_is_random():
    model = adapted(base(), init_weights=False)
    (layer, *_) = (module for module in model.modules() if isinstance(module, TensorTrainPeftExperts))
    deltas = [delta.delta_weight() for delta in layer.tt_lora_delta["default"]["down_proj"].experts]
    assert all(delta.abs().max() > 1e-3 for delta in deltas)
    assert not torch.allclose(deltas[0], deltas[1])
