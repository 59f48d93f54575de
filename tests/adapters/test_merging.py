"""Merging: the same map as a dense model, the base restored bit for bit, and errors that change nothing."""

import copy
import pickle

import pytest
import torch

import adapters
from adapters import MergeError
from adapters.base.kept_base import is_finite

CLONES = [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]


def storages(model):
    return {name: (parameter.data_ptr(), parameter.dtype) for name, parameter in model.named_parameters()}


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(before, after):
    return before.keys() == after.keys() and all(
        before[name].dtype == after[name].dtype
        and before[name].reshape(-1).view(torch.uint8).equal(after[name].reshape(-1).view(torch.uint8))
        for name in before
    )


@pytest.fixture
def adapted(tiny_t5, trained):
    """A function from a description to a tiny T5 with that adapter, trained."""

    def make(description, dtype=torch.float32, feed_forward_proj="relu"):
        return trained(adapters.attach(tiny_t5(feed_forward_proj).to(dtype), description))

    return make


def test_merged_logits_equal_the_unmerged_ones(adapted, logits, linear_adapter, tiny_t5):
    model = adapted(linear_adapter)
    assert adapters.unmergeable(model) is None
    unmerged = logits(model)
    assert not torch.allclose(unmerged, logits(tiny_t5()), rtol=1e-2)
    adapters.merge(model)
    difference = logits(model) - unmerged
    assert difference.abs().max() <= 1e-5 * unmerged.abs().max()


def test_merged_logits_of_the_gated_form_equal_the_unmerged_ones(adapted, logits):
    model = adapted([{"kind": "tt_lora", "rank": 2}, {"kind": "tt_single", "rank": 2}], feed_forward_proj="gated-gelu")
    unmerged = logits(model)
    adapters.merge(model)
    assert (logits(model) - unmerged).abs().max() <= 1e-5 * unmerged.abs().max()


def test_in_float64_merged_logits_agree_to_its_precision(adapted, logits):
    model = adapted([{"kind": "tt_lora", "rank": 2, "delta_bias": "tt"}, {"kind": "tt_single", "rank": 2}]).double()
    unmerged = logits(model)
    adapters.merge(model)
    torch.testing.assert_close(logits(model), unmerged, rtol=1e-12, atol=1e-12)


def test_a_merged_tt_lora_is_a_plain_t5_with_W_plus_s_T(adapted, logits, tiny_t5, dense_of):  # noqa: N802
    model = adapted({"kind": "tt_lora", "rank": 2, "scaling": 0.5}).double()
    adapters.merge(model)
    dense = tiny_t5(ours=False).double()
    dense.load_state_dict(tiny_t5().state_dict())
    for path, module in adapters.adapted_modules(model):
        weight = dense.get_submodule(path).weight
        weight.data += 0.5 * dense_of(module.beside.tt_lora.active.linear.cores)
        torch.testing.assert_close(module.weight, weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits(model), logits(dense), rtol=1e-11, atol=1e-11)


def test_merged_layers_compute_no_adapter(adapted, logits, linear_adapter_per_host):
    model = adapted(linear_adapter_per_host)
    adapters.merge(model)
    expected = logits(model)
    with torch.no_grad():
        for name, parameter in adapters.freezing.adapter_parameters(model).items():
            assert name in dict(model.named_parameters())
            parameter.fill_(float("nan"))
    assert torch.equal(logits(model), expected)


def test_unmerging_restores_the_base_bit_for_bit_in_the_same_storage(adapted, linear_adapter):
    model = adapted(linear_adapter, torch.bfloat16)
    before, where = bits(model), storages(model)
    for _ in range(3):
        adapters.merge(model)
        adapters.unmerge(model)
    assert same_bits(bits(model), before)
    assert storages(model) == where


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_thousand_cycles_change_no_bit(adapted, dtype):
    place = {"stacks": ["encoder"], "layers": [0], "sublayers": ["feed_forward"], "delta_bias": "dense", "rank": 2}
    description = [{"kind": "tt_lora", "target_modules": ["wo"], **place}, {"kind": "tt_single", **place}]
    layer = adapted(description, dtype).encoder.block[0].layer[1]
    before = bits(layer)
    adapters.merge(layer)
    merged = {name: parameter.clone() for name, parameter in layer.named_parameters()}
    for _ in range(1000):
        adapters.unmerge(layer)
        adapters.merge(layer)
    assert same_bits({n: p.detach() for n, p in layer.named_parameters()}, {n: p.detach() for n, p in merged.items()})
    adapters.unmerge(layer)
    assert same_bits(bits(layer), before)


def test_merging_twice_changes_nothing_and_is_deterministic(adapted, linear_adapter_per_host):
    model = adapted(linear_adapter_per_host)
    twin = copy.deepcopy(model)
    before = bits(model)
    adapters.merge(model)
    once = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adapters.merge(model)
    adapters.merge(twin)
    for other in (model, twin):
        assert same_bits({name: parameter.detach() for name, parameter in other.named_parameters()}, once)
    adapters.unmerge(model)
    adapters.unmerge(model)
    assert same_bits(bits(model), before)


def test_merging_again_uses_changed_adapters(adapted, logits, trained):
    model = adapted({"kind": "tt_lora", "rank": 2})
    adapters.merge(model)
    trained(model)
    adapters.merge(model)
    merged = logits(model)
    adapters.unmerge(model)
    torch.testing.assert_close(merged, logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "value", "was_merged"),
    [
        ("tt_lora", float("nan"), False),
        ("tt_lora", float("inf"), True),
        ("tt_single", float("inf"), False),
        ("tt_layer_norm", float("nan"), True),
    ],
)
def test_merge_with_nan_or_infinity_raises_and_changes_nothing(adapted, kind, value, was_merged, logits):
    model = adapted({"kind": kind})
    if was_merged:
        adapters.merge(model)
    last = list(adapters.freezing.adapter_parameters(model).values())[-1]
    with torch.no_grad():
        last.view(-1)[0] = value
    expected, before, where = logits(model), bits(model), storages(model)
    with pytest.raises(MergeError, match=r"A merged weight is finite; got infinities or NaN at "):
        adapters.merge(model)
    assert adapters.is_merged(model) == was_merged
    assert storages(model) == where
    assert same_bits(bits(model), before)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("entries", "finite"), [("largest", True), ("inf", False), ("nan", False), ("both", False)])
def test_finite_entries_whose_sum_overflows_are_finite(dtype, entries, finite):
    tensor = torch.full((2, 50), torch.finfo(dtype).max, dtype=dtype)
    assert not tensor.sum().isfinite()
    specials = {"inf": [float("inf")], "nan": [float("nan")], "both": [float("inf"), -float("inf")]}.get(entries, [])
    tensor.view(-1)[: len(specials)] = torch.tensor(specials, dtype=dtype)
    assert is_finite(tensor) == finite


def test_delta_that_overflows_the_dtype_of_the_base_raises(adapted):
    model = adapted({"kind": "tt_lora", "rank": 2}, torch.float16)
    with torch.no_grad():
        for _, module in adapters.adapted_modules(model):
            for core in module.beside.tt_lora.active.linear.cores:
                core.fill_(100.0)
    before = bits(model)
    with pytest.raises(MergeError, match="overflows"):
        adapters.merge(model)
    assert same_bits(bits(model), before)


def test_merging_a_nonlinear_kind_raises_with_its_name(adapted, non_linear_adapter):
    model = adapted([{"kind": "tt_lora", "rank": 3}, non_linear_adapter])
    before = storages(model)
    name = adapters.attachments(model)[-1].name
    assert name in adapters.unmergeable(model)
    with pytest.raises(MergeError, match=rf"Only linear adapters .*\.{name}, which (has an activation|lengthens)"):
        adapters.merge(model)
    assert not adapters.is_merged(model)
    assert storages(model) == before


class TestMerged:
    def test_model_is_merged_inside_the_context(self, adapted, linear_adapter_per_host, logits):
        model = adapted(linear_adapter_per_host)
        before = logits(model)
        with adapters.merged(model) as same:
            assert same is model
            assert adapters.is_merged(model) == bool(adapters.adapted_modules(model))
        assert not adapters.is_merged(model)
        assert torch.equal(logits(model), before)

    def test_context_restores_after_an_error(self, adapted):
        model = adapted({"kind": "tt_lora", "rank": 2})
        before, where = bits(model), storages(model)
        inside = []

        def evaluate():
            with adapters.merged(model):
                inside.append(storages(model))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            evaluate()
        assert inside != [where]
        assert storages(model) == where
        assert same_bits(bits(model), before)

    def test_a_merged_model_stays_merged(self, adapted):
        model = adapted({"kind": "tt_lora", "rank": 2})
        adapters.merge(model)
        with adapters.merged(model):
            pass
        assert adapters.is_merged(model)

    def test_failed_merge_leaves_the_model_unmerged(self, adapted):
        model = adapted({"kind": "bottleneck", "reduction_factor": 4})
        with pytest.raises(MergeError), adapters.merged(model):
            pytest.fail("the body ran")
        assert not adapters.is_merged(model)


class TestAMergedModel:
    """A model must keep working while merged weights take the place of the base's."""

    @pytest.fixture
    def model(self, adapted, linear_adapter_per_host):
        model = adapted(linear_adapter_per_host)
        self.unmerged = bits(model)
        self.where = storages(model)
        adapters.merge(model)
        return model

    def test_state_dict_is_that_of_the_unmerged_model(self, model):
        assert same_bits(model.state_dict(), self.unmerged)

    def test_loading_a_state_dict_unmerges(self, model):
        other = {name: tensor + 1 for name, tensor in self.unmerged.items()}
        model.load_state_dict(other)
        assert not adapters.is_merged(model)
        assert same_bits(bits(model), other)
        adapters.merge(model)
        model.load_state_dict(self.unmerged, assign=True)
        assert not adapters.is_merged(model)
        assert same_bits(bits(model), self.unmerged)

    def test_train_unmerges_and_eval_does_not(self, model):
        was_merged = adapters.is_merged(model)
        model.eval()
        assert adapters.is_merged(model) == was_merged
        model.train()
        assert not adapters.is_merged(model)
        assert storages(model) == self.where

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_change_of_dtype_applies_to_base_and_merged_weights(self, model, dtype, logits):
        merged = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        model.to(dtype)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, merged[name].to(dtype))
        assert logits(model).dtype == dtype
        adapters.unmerge(model)
        assert same_bits(bits(model), {name: tensor.to(dtype) for name, tensor in self.unmerged.items()})

    @pytest.mark.parametrize("clone", CLONES)
    def test_copy_is_merged_too_and_independent(self, model, logits, clone):
        expected = logits(model)
        other = clone(model)
        assert adapters.is_merged(other) == adapters.is_merged(model)
        assert adapters.attachments(other) == adapters.attachments(model)
        assert torch.equal(logits(other), expected)
        adapters.unmerge(other)
        assert same_bits(bits(other), self.unmerged)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert torch.equal(logits(model), expected)
        adapters.unmerge(model)
        assert same_bits(bits(model), self.unmerged)

    def test_merged_model_generates_the_same_tokens(self, model, batch):
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        merged = model.generate(batch["input_ids"], **options)
        adapters.unmerge(model)
        assert torch.equal(model.generate(batch["input_ids"], **options), merged)


@pytest.mark.parametrize("clone", CLONES)
def test_copy_of_an_adapted_model_is_independent(adapted, adapter_per_mechanism, logits, clone, batch):
    model = adapted(adapter_per_mechanism)
    other = clone(model)
    assert torch.equal(logits(other), logits(model))
    assert same_bits(bits(other), bits(model))
    expected = logits(model)
    other(**batch).loss.backward()
    for parameter in other.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(logits(model), expected)
