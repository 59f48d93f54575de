"""attach: the places of adapters, step 0 equal to the base, and errors that leave the model unchanged."""

import copy
import statistics
from dataclasses import replace

import pytest
import torch
from torch import nn

import adapters
from adapters import AdaptedLayerNorm, AdaptedLinear, ConfigurationError
from tests.versions import checkpoint_activations


def places(model, cls=AdaptedLinear):
    return {path for path, module in model.named_modules() if isinstance(module, cls)}


def block(stack, index, layer, inner, *names):
    return {f"{stack}.block.{index}.layer.{layer}.{inner}.{name}" for name in names}


FF = [("encoder", 0, 1), ("encoder", 1, 1), ("decoder", 0, 2), ("decoder", 1, 2)]
SELF = [("encoder", 0, 0), ("encoder", 1, 0), ("decoder", 0, 0), ("decoder", 1, 0)]
CROSS = [("decoder", 0, 1), ("decoder", 1, 1)]


def ff(*names, where=FF):
    return set().union(*(block(*place, "DenseReluDense", *names) for place in where))


def attention(*names, where=SELF, inner="SelfAttention"):
    return set().union(*(block(*place, inner, *names) for place in where))


def cross(*names):
    return attention(*names, where=CROSS, inner="EncDecAttention")


def in_order(value):
    """The id of a test parameter, in which a set is the same in every process."""
    return str(sorted(value) if isinstance(value, set) else value)


LORA_PLACES = [
    ({}, ff("wi", "wo")),
    ({"target_modules": ["wi"]}, ff("wi")),
    ({"target_modules": ["wo"], "stacks": ["decoder"]}, ff("wo", where=FF[2:])),
    ({"target_modules": ["wi", "wo"], "layers": [1]}, ff("wi", "wo", where=[FF[1], FF[3]])),
    ({"target_modules": ["q", "v"]}, attention("q", "v") | cross("q", "v")),
    ({"target_modules": ["k", "o"], "sublayers": ["cross_attention"]}, cross("k", "o")),
    (
        {"target_modules": ["q", "wo"], "sublayers": ["self_attention", "feed_forward"], "layers": [0]},
        attention("q", where=[SELF[0], SELF[2]]) | ff("wo", where=[FF[0], FF[2]]),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), LORA_PLACES, ids=in_order)
def test_tt_lora_sits_beside_the_named_linears(tiny_t5, fields, expected):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, **fields})
    assert places(model) == expected
    assert all(list(model.get_submodule(path).beside) == ["tt_lora"] for path in expected)


@pytest.mark.parametrize(
    ("target_modules", "expected"),
    [(None, ("wi_0", "wi_1", "wo")), (["wi_0"], ("wi_0",)), (["wi_1", "wo"], ("wi_1", "wo"))],
)
def test_gated_feed_forward_has_two_input_linears(tiny_t5, target_modules, expected):
    model = adapters.attach(tiny_t5("gated-gelu"), {"kind": "tt_lora", "rank": 2, "target_modules": target_modules})
    assert places(model) == ff(*expected)


AFTER_PLACES = [
    ({}, attention("o") | ff("wo")),
    ({"sublayers": ["feed_forward"]}, ff("wo")),
    ({"sublayers": ["self_attention"], "stacks": ["encoder"]}, attention("o", where=SELF[:2])),
    ({"sublayers": ["cross_attention"]}, cross("o")),
    (
        {"sublayers": ["cross_attention", "feed_forward"], "layers": [1]},
        cross("o") & attention("o", where=CROSS[1:], inner="EncDecAttention") | ff("wo", where=[FF[1], FF[3]]),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), AFTER_PLACES, ids=in_order)
@pytest.mark.parametrize("kind", ["bottleneck", "tt_adapter", "tt_single"])
def test_other_kinds_sit_after_the_last_linear_of_a_sublayer(tiny_t5, kind, fields, expected):
    narrow = {} if kind == "tt_single" else {"reduction_factor": 4}
    model = adapters.attach(tiny_t5(), {"kind": kind, **narrow, **fields})
    assert places(model) == expected
    assert all(list(model.get_submodule(path).after) == [kind] for path in expected)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 12),
        ({"sublayers": ["final"]}, 2),
        ({"sublayers": ["cross_attention"]}, 2),
        ({"stacks": ["encoder"]}, 5),
        ({"layers": [0]}, 5),
        ({"layers": [1], "stacks": ["decoder"], "sublayers": ["feed_forward"]}, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["scale_norm", "tt_layer_norm"])
def test_norm_kinds_replace_the_chosen_norms(tiny_t5, kind, fields, count):
    model = adapters.attach(tiny_t5(), {"kind": kind, **fields})
    assert len(places(model, AdaptedLayerNorm)) == count


@pytest.mark.parametrize(("ours", "feed_forward_proj"), [(True, "relu"), (False, "gated-gelu")])
@pytest.mark.parametrize("kind", ["tt_lora", "tt_single", "tt_adapter", "bottleneck"])
def test_step_zero_equals_the_base_bit_for_bit(tiny_t5, logits, ours, feed_forward_proj, kind):
    base = tiny_t5(feed_forward_proj, ours)
    description = {"kind": kind, "sublayers": ["self_attention", "cross_attention", "feed_forward"]}
    if kind in ("tt_adapter", "bottleneck"):
        description["reduction_factor"] = 4
    if kind != "bottleneck":
        description["delta_bias"] = "tt"
    model = adapters.attach(copy.deepcopy(base), description)
    assert torch.equal(logits(model), logits(base))


def test_step_zero_of_a_full_rank_tt_layer_norm_is_close_to_the_base(tiny_t5, logits):
    base = tiny_t5()
    model = adapters.attach(copy.deepcopy(base), {"kind": "tt_layer_norm", "rank": 100})
    torch.testing.assert_close(logits(model), logits(base), rtol=1e-5, atol=1e-5)


def test_attach_returns_the_same_model_with_its_base_weights_and_names(tiny_t5, any_adapter):
    model = tiny_t5()
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    assert adapters.attach(model, any_adapter) is model
    after = dict(model.named_parameters())
    for name, (parameter, value) in before.items():
        assert after[name] is parameter
        assert torch.equal(parameter, value)


def test_attach_accepts_each_description(tiny_t5, any_adapter, logits):
    model = adapters.attach(tiny_t5(), any_adapter)
    attached = [a.config for a in adapters.attachments(model)]
    for config, given in zip(attached, adapters.as_configs(any_adapter), strict=True):
        numbers = {key: getattr(config, key) for key in ("scaling", "scaling_pattern") if hasattr(config, key)}
        assert config == replace(given, **numbers)
        assert numbers.get("scaling") != "auto"
    assert logits(model).isfinite().all()
    assert not any(module.training for module in model.modules())


def test_adapters_take_the_mode_of_the_model(tiny_t5, any_adapter):
    model = adapters.attach(tiny_t5().train(), any_adapter)
    assert all(module.training for module in model.modules())


def test_a_second_attach_adds_to_the_first(tiny_t5, logits, trained):
    model = trained(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2}))
    before = logits(model)
    adapters.attach(model, {"kind": "tt_lora", "rank": 3})
    adapters.attach(model, {"kind": "tt_single", "rank": 2})
    assert [attachment.name for attachment in adapters.attachments(model)] == ["tt_lora", "tt_lora_2", "tt_single"]
    assert torch.equal(logits(model), before)


def test_attaching_to_a_merged_model_unmerges_it_and_starts_from_the_base_norms(tiny_t5, logits, trained):
    model = trained(adapters.attach(tiny_t5(), {"kind": "scale_norm"}, task="a"))
    adapters.set_active_task(model, "a")
    adapters.merge(model)
    adapters.attach(model, {"kind": "scale_norm"}, task="b")
    assert not adapters.is_merged(model)
    adapters.set_active_task(model, "b")
    fresh = adapters.attach(tiny_t5(), {"kind": "scale_norm"})
    assert torch.equal(logits(model), logits(fresh))


def test_a_meta_model_takes_adapters_without_memory(tiny_t5, any_adapter):
    with torch.device("meta"):
        model = tiny_t5()
    adapters.attach(model, any_adapter)
    assert all(parameter.is_meta for parameter in model.parameters())


REFUSED = [
    ({"kind": "tt_lora", "target_modules": ["wi_0"]}, None, ["'target_modules'", "'wi_0'", "wi"]),
    ({"kind": "tt_lora", "target_modules": ["wi", "wi_2"]}, None, ["'target_modules'", "'wi_2'", "'wi'"]),
    ({"kind": "tt_lora", "target_modules": ["q"], "sublayers": ["feed_forward"]}, None, ["'target_modules'", "'q'"]),
    ({"kind": "tt_lora", "sublayers": ["self_attention"]}, None, ["'target_modules'", "null", "self_attention"]),
    ({"kind": "tt_lora", "layers": [0, 2]}, None, ["'layers'", "[0, 2]", "from 0 to 1"]),
    ({"kind": "layer_norm", "layers": [2]}, None, ["'layers'", "[2]"]),
    ({"kind": "tt_single", "sublayers": ["cross_attention"], "stacks": ["encoder"]}, None, ["'sublayers'", "encoder"]),
    ({"kind": "tt_lora", "raw_shape": [[6, 8], [4, 7]]}, None, ["'raw_shape'", "28", "24"]),
    ({"kind": "tt_lora", "raw_shape": [[6, 8], [4, 6]], "target_modules": ["q"]}, None, ["'raw_shape'", "48", "24"]),
    ({"kind": "tt_adapter", "raw_shape": [[2, 2], [4, 6]], "reduction_factor": 4}, None, ["'raw_shape'", "[2, 2]"]),
    ({"kind": "tt_lora", "rank": [9, 2]}, None, ["'rank'", "[9, 2]"]),
    ({"kind": "tt_layer_norm", "rank": [3, 2]}, None, ["'rank'", "[3, 2]"]),
    ({"kind": "tt_layer_norm", "raw_shape": [5, 5]}, None, ["'raw_shape'", "[5, 5]"]),
    ({"kind": "bottleneck"}, None, ["'reduction_factor'", "32", "24"]),
    ({"kind": "tt_lorra"}, None, ["'tt_lorra'", "'tt_lora'"]),
    ([{"kind": "tt_lora"}, {"kind": "bottleneck"}], None, ["'reduction_factor'"]),
    ([{"kind": "tt_lora"}, {"kind": "tt_lora"}], None, ["'tt_lora'", "once"]),
    ([{"kind": "scale_norm"}, {"kind": "tt_layer_norm"}], None, ["'sublayers'", "'scale_norm'"]),
    ([{"kind": "layer_norm"}, {"kind": "scale_norm"}], None, ["'layer_norm'", "'scale_norm'"]),
    ([{"kind": "none"}, {"kind": "tt_layer_norm"}], None, ["'none'", "'tt_layer_norm'"]),
    (
        {"kind": "tt_lora", "shared_cores": [0], "target_modules": ["q"], "d": 1},
        "mixed sizes",
        ["'shared_cores'", "(1, 24, 24, 1)", "(1, 24, 36, 1)"],
    ),
    ({"kind": "layer_norm"}, "rte", ["'layer_norm'", "'rte'"]),
    ({"kind": "tt_lora"}, "", ["''"]),
    ({"kind": "tt_lora"}, "a.b", ["'a.b'"]),
    ({"kind": "tt_lora"}, "all_tasks", ["'all_tasks'"]),
    ({"kind": "tt_lora"}, "keys", ["'keys'"]),
    ({"kind": "tt_lora"}, "training", ["'training'"]),
    ({"kind": "tt_lora"}, 3, ["3"]),
]


@pytest.mark.parametrize(("description", "task", "named"), REFUSED, ids=str)
def test_invalid_configuration_raises_with_its_key_and_leaves_the_model_unchanged(
    tiny_t5, snapshot, description, task, named
):
    model = tiny_t5()
    if task == "mixed sizes":
        model.decoder.block[1].layer[0].SelfAttention.q = nn.Linear(36, 24, bias=False)
        task = None
    before = snapshot(model)
    with pytest.raises(ConfigurationError) as refusal:
        adapters.attach(model, description, task)
    assert all(name in str(refusal.value) for name in named), str(refusal.value)
    assert str(refusal.value).endswith(".")
    assert snapshot(model) == before


@pytest.mark.parametrize(
    "description", [{"kind": "tt_lora", "rank": 2}, {"kind": "scale_norm"}, {"kind": "tt_layer_norm"}], ids=str
)
def test_failed_second_attach_leaves_the_first(tiny_t5, snapshot, description):
    first = [{"kind": "tt_lora", "rank": 2}, {"kind": "scale_norm"}]
    model = adapters.attach(tiny_t5(), first)
    before = snapshot(model)
    with pytest.raises(ConfigurationError):
        adapters.attach(model, description)
    assert snapshot(model) == before


def test_module_of_an_unsupported_class_raises(tiny_t5, snapshot):
    class QuantisedLinear(nn.Linear):
        pass

    model = tiny_t5()
    model.encoder.block[0].layer[1].DenseReluDense.wo = QuantisedLinear(48, 24)
    before = snapshot(model)
    for kind in ("tt_lora", "tt_single", "peft:LORA"):
        with pytest.raises(ConfigurationError, match=r"QuantisedLinear at encoder\.block\.0\.layer\.1"):
            adapters.attach(model, {"kind": kind})
    assert snapshot(model) == before
    model.decoder.final_layer_norm = nn.Identity()
    before = snapshot(model)
    with pytest.raises(ConfigurationError, match=r"with a weight; got a Identity at decoder\.final_layer_norm"):
        adapters.attach(model, {"kind": "scale_norm"})
    assert snapshot(model) == before


@pytest.mark.parametrize("shared", [[0], [1, 2], [0, 1, 2], [-1]], ids=str)
def test_shared_core_has_one_owner_and_the_summed_gradient(tiny_t5, batch, trained, shared):
    fields = {"scaling": 1.0, "target_modules": ["wi"], "shape_mode": "ascending"}
    description = {"kind": "tt_lora", "rank": 2, **fields}
    single = trained(adapters.attach(tiny_t5(), description))
    model = adapters.attach(tiny_t5(), {**description, "shared_cores": shared})
    shared = [core % 3 for core in shared]
    layers = [model.get_submodule(path).beside.tt_lora.active.linear for path in sorted(ff("wi"))]
    doubles = [single.get_submodule(path).beside.tt_lora.active.linear for path in sorted(ff("wi"))]
    with torch.no_grad():
        for layer, double in zip(layers, doubles, strict=True):
            for k, (core, other) in enumerate(zip(layer.live_cores(), double.cores, strict=True)):
                other.copy_(doubles[0].cores[k] if k in shared else other)
                core.copy_(other)
    for m in (model, single):
        m(**batch).loss.backward()
    for k in range(3):
        gradients = [double.cores[k].grad for double in doubles]
        for layer, gradient in zip(layers, gradients, strict=True):
            core = layer.live_cores()[k]
            expected = sum(gradients) if k in shared else gradient
            torch.testing.assert_close(core.grad, expected, rtol=1e-4, atol=1e-7)
    names = [name for name, _ in model.named_parameters() if name.startswith("shared_parameters.")]
    assert len(names) == len(shared)
    sizes = [6 * 2, 2 * 12 * 2, 2 * 16]  # (1, 3, 2, 2), (2, 4, 3, 2), (2, 4, 4, 1) of 24 -> 48
    assert adapters.summary(model).total.trainable == sum(
        size if k in shared else 4 * size for k, size in enumerate(sizes)
    )


def test_cores_are_shared_within_the_same_role_only(tiny_t5):
    model = adapters.attach(tiny_t5(), {"kind": "tt_adapter", "reduction_factor": 4, "shared_cores": [0]})
    assert len(model.shared_parameters) == 4  # down and up, after self-attention and after feed-forward
    model = adapters.attach(tiny_t5(), {"kind": "tt_layer_norm", "init": "ones", "shared_cores": [1]})
    assert len(model.shared_parameters) == 4  # self-attention, cross-attention, feed-forward, final


def test_a_frozen_shared_core_is_frozen_at_its_owner(tiny_t5):
    for kind, init in (("tt_lora", "he"), ("tt_layer_norm", "ones")):
        description = {"kind": kind, "init": init, "shared_cores": [0], "frozen_cores": [0]}
        model = adapters.attach(tiny_t5(), description)
        assert not any(parameter.requires_grad for parameter in model.shared_parameters.values())


def test_adapters_stay_float32_on_a_half_precision_base(tiny_t5, logits, any_adapter):
    dtype = torch.bfloat16
    model = adapters.attach(tiny_t5().to(dtype), any_adapter)
    kinds = [config.kind for config in adapters.as_configs(any_adapter)]
    for row in adapters.freeze(model).rows:
        expected = torch.float32 if row.reason.endswith("an adapter") else dtype
        assert model.get_parameter(row.name).dtype == expected, (kinds, row.name)
    assert logits(model).dtype == dtype
    assert logits(model).isfinite().all()


def trainable_gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_bf16_autocast_gives_gradients_to_the_same_parameters(tiny_t5, batch, trained, adapter_per_mechanism):
    """The median of five draws: with 24 features a rounding may flip a ReLU in a single one."""
    model = trained(adapters.attach(tiny_t5(), adapter_per_mechanism), std=0.05)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    errors = []
    for _ in range(5):
        exact = trainable_gradients(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            lowered = trainable_gradients(model, batch)
        assert lowered.keys() == exact.keys() == names
        assert {gradient.dtype for gradient in lowered.values()} == {torch.float32}
        whole, difference = (
            torch.cat([gradient.flatten() for gradient in gradients])
            for gradients in (exact.values(), [lowered[name] - gradient for name, gradient in exact.items()])
        )
        errors.append(float(difference.norm() / whole.norm()))
        with torch.no_grad():
            for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
                parameter.add_(0.02 * torch.randn_like(parameter))
    assert min(errors) > 0
    assert statistics.median(errors) < 0.1  # some 25 products of relative precision 2^-8 in a row


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_t5, batch, trained, adapter_per_mechanism, use_reentrant):
    model = trained(adapters.attach(tiny_t5().train(), adapter_per_mechanism))
    exact = trainable_gradients(model, batch)
    checkpoint_activations(model, {"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    model.config.use_cache = False
    repeated = trainable_gradients(model, batch)
    assert repeated.keys() == exact.keys()
    for name, gradient in exact.items():
        torch.testing.assert_close(repeated[name], gradient, rtol=1e-5, atol=1e-7)


def test_torch_compile_gives_the_same_outputs_and_gradients(tiny_t5, trained, adapter_per_mechanism):
    model = trained(adapters.attach(tiny_t5(), adapter_per_mechanism))
    sublayer = model.encoder.block[0].layer[1]
    x = torch.randn(2, 3, 24, requires_grad=True)
    torch._dynamo.reset()
    results = []
    for function in (sublayer, torch.compile(sublayer, backend="eager", fullgraph=True)):
        model.zero_grad()
        y = function(x)
        x.grad = None
        y.square().sum().backward()
        results.append([y.detach(), x.grad] + [p.grad for p in model.parameters() if p.grad is not None])
    elsewhere = {"prompt", "lm_head"}  # nothing of theirs is in a sublayer
    kinds = {config.kind for config in adapters.as_configs(adapter_per_mechanism)}
    assert len(results[0]) > 2 or elsewhere.issuperset(kinds)
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
