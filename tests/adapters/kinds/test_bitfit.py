"""bitfit: the places of its biases, against a T5 with dense biases, and merging."""

import copy

import pytest
import torch
import transformers
from torch import nn

import adapters
from adapters import AdaptedLayerNorm, AdaptedLinear, ConfigurationError

D, F, VOCABULARY = 24, 48, 50
BITFIT = {"kind": "bitfit"}


def biases(model):
    """The trained vectors by the path of their module."""
    found = {}
    for path, module in adapters.adapted_modules(model):
        for _, controller in module.named_controllers():
            found[path] = controller.active.bias
    return found


def with_biases(base, vectors):
    """A T5 without adapters, in which each linear has the vector as its bias and each norm adds it."""
    for path, vector in vectors.items():
        module = base.get_submodule(path)
        if isinstance(module, nn.Linear):
            module.bias = nn.Parameter(vector.detach().clone())
        else:
            module.register_forward_hook(lambda _, __, y, vector=vector: y + vector.detach())
    return base


@pytest.mark.parametrize("feed_forward_proj", ["relu", "gated-gelu"])
def test_linears_sublayer_norms_and_the_output_projection_get_a_zero_bias(tiny_t5, feed_forward_proj):
    model = adapters.attach(tiny_t5(feed_forward_proj), BITFIT)
    base = tiny_t5(feed_forward_proj)
    expected = {
        path
        for path, module in base.named_modules()
        if isinstance(module, nn.Linear) or (path.endswith("layer_norm") and "final" not in path)
    }
    assert set(biases(model)) == expected
    for path, vector in biases(model).items():
        weight = base.get_submodule(path).weight
        assert torch.equal(vector, torch.zeros(weight.shape[0]))


@pytest.mark.parametrize(
    ("fields", "trainable"),
    [
        ({}, 2 * (5 * D + F) + 2 * (9 * D + F) + 10 * D + VOCABULARY),
        ({"lm_head": False}, 2 * (5 * D + F) + 2 * (9 * D + F) + 10 * D),
        ({"stacks": ["encoder"]}, 2 * (5 * D + F) + 4 * D + VOCABULARY),
        ({"stacks": ["decoder"], "layers": [1], "lm_head": False}, 9 * D + F + 3 * D),
        ({"sublayers": ["feed_forward"], "layers": [0], "lm_head": False}, 2 * (D + F) + 2 * D),
        ({"sublayers": ["cross_attention"]}, 2 * 4 * D + 2 * D + VOCABULARY),
    ],
    ids=str,
)
def test_stacks_layers_and_sublayers_select_places_and_lm_head_is_independent(tiny_t5, fields, trainable):
    model = adapters.attach(tiny_t5(), {**BITFIT, **fields})
    assert adapters.summary(model).total.trainable == trainable


@pytest.mark.parametrize(
    ("dtype", "ours"), [(torch.float32, True), (torch.bfloat16, False), (torch.float16, True)], ids=str
)
def test_step_0_equals_the_base_model(tiny_t5, logits, dtype, ours):
    base = tiny_t5("gated-gelu", ours).to(dtype)
    model = adapters.attach(copy.deepcopy(base), BITFIT)
    assert torch.equal(logits(model), logits(base))


@pytest.mark.parametrize("feed_forward_proj", ["relu", "gated-gelu"])
def test_the_model_equals_a_t5_with_dense_biases_merged_and_unmerged(tiny_t5, trained, logits, feed_forward_proj):
    model = trained(adapters.attach(tiny_t5(feed_forward_proj), BITFIT)).double()
    expected = logits(with_biases(tiny_t5(feed_forward_proj).double(), biases(model)))
    assert not torch.allclose(logits(model), logits(tiny_t5(feed_forward_proj).double()), rtol=1e-2)
    torch.testing.assert_close(logits(model), expected, rtol=1e-12, atol=1e-12)
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_an_existing_bias_is_added_to(bias):
    linear = nn.Linear(D, F, bias=bias)
    module = AdaptedLinear(linear)
    module.beside["bitfit"] = adapters.AdapterController()
    module.beside["bitfit"].add(None, adapters.Bias(F))
    with torch.no_grad():
        module.beside["bitfit"].active.bias.normal_()
    expected = module.beside["bitfit"].active.bias + (linear.bias if bias else 0)
    x = torch.randn(3, D)
    torch.testing.assert_close(module(x), x @ linear.weight.T + expected)
    assert set(module.merged_weights()) == {"bias"}
    assert torch.equal(module.merged_weights()["bias"], expected)


def test_a_merge_writes_biases_only_and_keeps_weights_tied(tiny_t5, trained):
    model = trained(adapters.attach(tiny_t5(), BITFIT))
    assert model.lm_head.weight is model.shared.weight
    before = {n: (p.data_ptr(), p._version) for n, p in model.named_parameters()}
    names = set(before)
    adapters.merge(model)
    after = {n: (p.data_ptr(), p._version) for n, p in model.named_parameters() if n in names}
    assert after == before
    assert set(dict(model.named_parameters())) - names == {f"{path}.bias" for path in biases(model)}
    model.to(torch.bfloat16)
    assert model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr()
    adapters.unmerge(model)
    assert model.lm_head.weight is model.shared.weight
    assert set(dict(model.named_parameters())) == names


@pytest.mark.parametrize("norm", [{"kind": "scale_norm"}, {"kind": "tt_layer_norm", "rank": 2}])
@pytest.mark.parametrize("order", [1, -1])
def test_a_replaced_norm_can_have_a_bias(tiny_t5, trained, logits, norm, order):
    model = trained(adapters.attach(tiny_t5(), [norm, BITFIT][::order]))
    replaced = model.encoder.block[1].layer[0].layer_norm
    x = torch.randn(2, D)
    expected = replaced.active_adapter()(x) + replaced.shift.bitfit.active.bias
    torch.testing.assert_close(replaced(x), expected, rtol=0, atol=0)
    unmerged = logits(model)
    adapters.merge(model)
    torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)


def test_two_biases_of_a_norm_add_up(tiny_t5, trained):
    model = adapters.attach(tiny_t5(), [BITFIT, {**BITFIT, "sublayers": ["feed_forward"]}])
    norm = trained(model).decoder.block[0].layer[2].layer_norm
    x = torch.randn(2, D)
    unmerged = norm(x)
    adapters.merge(model)
    torch.testing.assert_close(norm(x), unmerged)
    assert isinstance(norm, AdaptedLayerNorm)
    assert torch.equal(norm.bias, norm.shift.bitfit.active.bias + norm.shift.bitfit_2.active.bias)


def test_a_norm_with_a_bias_can_train_its_own_weight_too(tiny_t5):
    model = adapters.attach(tiny_t5(), [BITFIT, {"kind": "layer_norm"}])
    assert model.encoder.block[0].layer[0].layer_norm.weight.requires_grad


def test_each_task_has_its_own_biases(tiny_t5, trained, logits):
    model = tiny_t5()
    base = logits(model)
    for task in ("a", "b"):
        adapters.attach(model, BITFIT, task)
    trained(model)
    results = {}
    for task in ("a", "b", None):
        adapters.set_active_task(model, task)
        results[task] = logits(model)
    assert torch.equal(results[None], base)
    assert not torch.allclose(results["a"], results["b"])
    adapters.merge(model)
    assert torch.equal(logits(model), base)
    for task in ("a", "b"):
        adapters.set_active_task(model, task)
        torch.testing.assert_close(logits(model), results[task], rtol=1e-5, atol=1e-5)


def test_switching_tasks_while_merged_restores_tensors_of_the_previous_task(tiny_t5, trained, logits):
    model = tiny_t5()
    kinds = {"weights": {"kind": "tt_lora", "rank": 2}, "biases": BITFIT, "norms": {"kind": "scale_norm"}}
    for task, description in kinds.items():
        adapters.attach(model, description, task)
    trained(model)
    expected = {}
    for task in kinds:
        adapters.set_active_task(model, task)
        expected[task] = logits(model)
    adapters.merge(model)
    for task in ("weights", "biases", "norms", "biases", "weights", "norms"):
        adapters.set_active_task(model, task)
        assert adapters.is_merged(model)
        torch.testing.assert_close(logits(model), expected[task], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", [transformers.T5EncoderModel, transformers.T5Model])
def test_a_model_without_output_projection_has_no_bias_there(architecture):
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=D, d_kv=6, d_ff=F, num_heads=4, num_layers=1, num_decoder_layers=1
    )
    model = architecture(config)
    with pytest.raises(ConfigurationError, match=r"'lm_head' .* needs an output projection.*: write false\."):
        adapters.attach(model, {**BITFIT, "lm_head": True})
    assert adapters.attachments(model) == []
    counts = adapters.summary(adapters.attach(model, BITFIT))
    decoder = 0 if architecture is transformers.T5EncoderModel else 9 * D + F + 3 * D
    assert counts.total.trainable == 5 * D + F + 2 * D + decoder


@pytest.mark.parametrize(
    ("sizes", "trainable"),
    [
        ({"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, 280_960),
        (  # v1.1: two linears in
            {
                "d_model": 768,
                "d_ff": 2048,
                "num_layers": 12,
                "num_heads": 12,
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": False,
            },
            12 * (7_936 + 11_008) + 60 * 768 + 32_128,
        ),
    ],
    ids=["t5-base", "v1.1-base"],
)
def test_parameter_counts_of_real_architectures(sizes, trainable):
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=32_128, **sizes))
    assert adapters.summary(adapters.attach(model, BITFIT)).total.trainable == trainable
