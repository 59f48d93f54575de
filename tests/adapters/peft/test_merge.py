"""Merging and unmerging, against sums in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from torch import nn

from adapters import MergeError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import (
    adapted,
    bert,
    dense_delta,
    gpt2,
    layers,
    llama,
    logits,
    scrambled,
    t5,
    two_adapters,
)

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class TestMerge:
    @settings(max_examples=40)
    @given(
        out_features=st.sampled_from([6, 8, 12]),
        in_features=st.sampled_from([4, 10, 16]),
        rank=st.integers(1, 4),
        scaling=st.floats(-4, 4, width=16),
        base_bias=st.booleans(),
        bias=st.sampled_from(["none", "dense", "tt"]),
        dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
        seed=st.integers(0, 2**16),
    )
    def test_merged_weight_is_the_float64_sum_cast_once_and_unmerging_is_bit_exact(
        self, out_features, in_features, rank, scaling, base_bias, bias, dtype, seed
    ):
        torch.manual_seed(seed)
        linear = nn.Linear(in_features, out_features, bias=base_bias, dtype=dtype)
        before = {name: tensor.clone() for name, tensor in linear.state_dict().items()}
        config = TensorTrainConfig(rank=rank, scaling=scaling, delta_bias=bias, target_modules=["0"])
        model = scrambled(get_peft_model(nn.Sequential(linear), config), seed=seed)
        (layer,) = layers(model).values()
        total = before["weight"].double().numpy() + dense_delta(layer)
        for _ in range(3):
            model.merge_adapter(safe_merge=True)
            assert linear.weight.dtype == dtype
            steps = abs(linear.weight.double().detach().numpy() - total)
            assert (steps <= max(torch.finfo(dtype).eps, 1e-6) * (1 + abs(total))).all()
            assert (linear.bias is not None) == (base_bias or bias != "none")
            model.unmerge_adapter()
            assert linear.state_dict().keys() == before.keys()
            assert all(torch.equal(tensor, before[name]) for name, tensor in linear.state_dict().items())

    @pytest.mark.parametrize("bias", ["none", "dense", "tt"])
    @pytest.mark.parametrize("build", [t5, llama, bert])
    def test_merged_and_unmerged_logits_agree(self, build, bias):
        model = adapted(build(), delta_bias=bias)
        unmerged = logits(model)
        model.merge_adapter()
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)
        model.unmerge_adapter()
        assert torch.equal(logits(model), unmerged)

    @pytest.mark.parametrize(
        ("build", "bias"), [(t5, "none"), (llama, "none"), (bert, "none"), (bert, "dense"), (bert, "tt")]
    )
    def test_unloading_gives_a_plain_model(self, build, bias):
        model = adapted(build(), delta_bias=bias)
        unmerged = logits(model)
        plain = model.merge_and_unload(safe_merge=True)
        assert type(plain) is type(build())
        assert layers(plain) == {}
        assert plain.state_dict().keys() == build().state_dict().keys()
        torch.testing.assert_close(logits(plain), unmerged, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("first_merged", [False, True])
    @pytest.mark.parametrize("bias", ["dense", "tt"])
    def test_unloading_a_bias_beside_a_linear_without_one_raises(self, bias, first_merged):
        model = adapted(llama(), delta_bias=bias)
        if first_merged:
            model.merge_adapter()
        before, keys = logits(model), model.state_dict().keys()
        with pytest.raises(MergeError, match=r"'default', which has a bias at model\.layers\.0.*: keep the adapter"):
            model.merge_and_unload()
        assert torch.equal(logits(model), before)
        assert model.state_dict().keys() == keys

    def test_unloading_without_merging_gives_the_base(self):
        model = adapted()
        model.merge_adapter()
        model.unmerge_adapter()
        assert torch.equal(logits(model.unload()), logits(t5()))

    def test_unloading_a_merged_model_gives_the_base(self):
        model = adapted(llama(), delta_bias="dense")
        model.merge_adapter()
        plain = model.unload()
        before = llama().state_dict()
        assert plain.state_dict().keys() == before.keys()
        assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())

    @pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
    def test_merging_into_a_tied_head_is_refused(self, merge):
        with pytest.warns(UserWarning, match="tie_word_embeddings=True"):
            model = adapted(gpt2(), target_modules=["lm_head"])
        active = logits(model)
        with pytest.raises(MergeError, match=r"lm_head, which is tied to .*wte"):
            getattr(model, merge)()
        assert torch.equal(logits(model), active)

    def test_merging_again_warns_and_changes_nothing(self):
        model = adapted()
        model.merge_adapter()
        merged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.warns(UserWarning, match="already merged"):
            model.merge_adapter()
        assert all(torch.equal(tensor, merged[name]) for name, tensor in model.state_dict().items())

    def test_unmerging_an_unmerged_model_changes_nothing(self):
        model = adapted()
        model.unmerge_adapter()
        assert torch.equal(logits(model), logits(adapted()))

    def test_merging_adapters_one_by_one_equals_merging_them_together(self):
        model = scrambled(two_adapters(t5().to(torch.bfloat16)), "second", seed=2)
        model.merge_adapter(["default", "second"])
        at_once = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.unmerge_adapter()
        model.merge_adapter(["default"])
        with pytest.warns(UserWarning, match="additionally merging second"):
            model.merge_adapter(["second"])
        assert all(torch.equal(tensor, at_once[name]) for name, tensor in model.state_dict().items())

    def test_merged_model_that_is_cast_unmerges_in_the_new_dtype(self):
        model = adapted()
        model.merge_adapter()
        model.double()
        model.unmerge_adapter()
        assert torch.equal(logits(model.unload()), logits(t5().double()))

    def test_safe_merge_of_nan_raises(self):
        model = adapted(target_modules=["encoder.block.0.layer.1.DenseReluDense.wi"])
        (layer,) = layers(model).values()
        layer.tt_lora_delta["default"].linear.cores[1].data[0] = float("nan")
        before = layer.base_layer.weight.clone()
        with pytest.raises(MergeError, match=r"finite.*\['default'\]"):
            model.merge_adapter(safe_merge=True)
        assert torch.equal(layer.base_layer.weight, before)
        assert not layer.merged


class TestNonLinear:
    MERGES = pytest.mark.parametrize(
        "merge",
        [
            lambda model: model.merge_adapter(),
            lambda model: model.merge_and_unload(),
            lambda model: model.merge_adapter(["curved"]),
            lambda model: model.merge_adapter(["default", "curved"]),
        ],
        ids=["merge_adapter", "merge_and_unload", "by name", "both by name"],
    )

    @staticmethod
    def model() -> PeftModel:
        """A linear adapter on wi, which comes first, and a non-linear, active one on wo."""
        model = adapted(target_modules=["wi"])
        model.add_adapter("curved", TensorTrainConfig(rank=3, core_activation="gelu", target_modules=["wo"]))
        model.base_model.set_adapter(["default", "curved"])
        return scrambled(model, "curved", seed=2).eval()

    @MERGES
    def test_merging_raises_before_anything_is_changed(self, merge):
        model = self.model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(MergeError, match=r"'curved'.*at encoder\.block\.0.*\.wo, which .*core_activation=None"):
            merge(model)
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_linear_adapter_beside_it_can_be_merged(self):
        model = self.model()
        model.merge_adapter(["default"])
        assert {path.rpartition(".")[2]: layer.merged for path, layer in layers(model).items()} == {
            "wi": True,
            "wo": False,
        }

    def test_merging_a_single_layer_raises_too(self):
        layer = next(layer for layer in layers(self.model()).values() if "curved" in layer.tt_lora_delta)
        with pytest.raises(ValueError, match="core_activation='gelu'"):
            layer.merge()
        assert not layer.merged
