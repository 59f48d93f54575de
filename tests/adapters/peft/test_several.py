"""Several adapters in one model, and disabled ones."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

import adapters
from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import (
    NEEDS_NEWER_PEFT,
    adapted,
    dense_delta,
    layers,
    llama,
    logits,
    scrambled,
    t5,
    trainable,
    two_adapters,
)

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class TestSeveralAdapters:
    def test_added_adapter_changes_nothing_until_it_is_set(self):
        alone = adapted(target_modules=["wi", "q"])
        model = two_adapters()
        assert torch.equal(logits(model), logits(alone))
        assert trainable(model) == trainable(alone)

    def test_active_adapter_acts_and_trains(self):
        model = two_adapters()
        model.set_adapter("second")
        alone = get_peft_model(t5(), TensorTrainConfig(rank=2, target_modules=["wi", "wo"], delta_bias="dense")).eval()
        scrambled(alone, seed=2)
        assert torch.equal(logits(model), logits(alone))
        assert {name.replace(".second.", ".default.") for name in trainable(model)} == trainable(alone)

    def test_two_active_adapters_add_up(self):
        model = two_adapters()
        model.base_model.set_adapter(["default", "second"])
        both = logits(model)
        dense = t5()
        for path, layer in layers(model).items():
            linear = dense.get_submodule(path.removeprefix("base_model.model."))
            for name, delta in layer.tt_lora_delta.items():
                linear.weight.data += torch.from_numpy(dense_delta(layer, name)).float()
                if name == "second":
                    linear.bias = nn.Parameter(delta.scaling * delta.linear.bias.detach())
        torch.testing.assert_close(both, logits(dense), rtol=1e-5, atol=1e-5)

    @pytest.mark.filterwarnings(
        "ignore:Adapter default was active which is now deleted"
    )  # PEFT warns about what it switches to
    def test_deleting_the_active_adapter_leaves_the_other(self):
        model = two_adapters()
        model.set_adapter("second")
        second = logits(model)
        model.set_adapter("default")
        model.delete_adapter("default")
        assert list(model.peft_config) == ["second"]
        assert not any("default" in layer.tt_lora_delta for layer in layers(model).values())
        model.set_adapter("second")
        assert torch.equal(logits(model), second)

    def test_each_is_saved_in_its_own_folder(self, tmp_path):
        model = two_adapters()
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(t5(), tmp_path)
        loaded.load_adapter(tmp_path / "second", "second")
        for name in ("default", "second"):
            model.set_adapter(name)
            loaded.set_adapter(name)
            assert torch.equal(logits(loaded.eval()), logits(model))


class TestBesideLora:
    """A TT beside a trained LoRA: the LoRA as a TT, and both active."""

    def test_a_lora_written_as_a_tensor_train_acts_beside_another(self, tmp_path):
        fields = {"target_modules": ["q_proj", "up_proj"]}
        lora = get_peft_model(llama(), LoraConfig(r=3, lora_alpha=6, init_lora_weights=False, **fields)).eval()
        lora.save_pretrained(tmp_path / "lora")
        alone = logits(lora)
        like = get_peft_model(llama(), TensorTrainConfig(rank=3, modes=["in", "out"], **fields))
        like.save_pretrained(tmp_path / "like")
        adapters.Deltas.read(tmp_path / "lora").write(tmp_path / "lora_as_tt", like=tmp_path / "like")
        model = adapted(llama(), **fields)
        model.load_adapter(tmp_path / "lora_as_tt", "other")
        model.eval().set_adapter("other")
        torch.testing.assert_close(logits(model), alone, rtol=1e-5, atol=1e-5)
        model.base_model.set_adapter(["default", "other"])
        both = adapted(lora.merge_and_unload(), **fields)
        torch.testing.assert_close(logits(model), logits(both), rtol=1e-5, atol=1e-5)

    def test_mixed_model_is_refused_with_the_reason_and_the_model_is_unchanged(self):
        model = llama()
        before = logits(model)
        with pytest.raises(ConfigurationError, match=r"the methods of a closed list.*got TT_LORA: convert a"):
            get_peft_model(model, TensorTrainConfig(), mixed=True)
        mixed = get_peft_model(model, LoraConfig(target_modules=["q_proj"]), mixed=True)
        with pytest.raises(ConfigurationError, match="got TT_LORA"):
            mixed.add_adapter("second", TensorTrainConfig())
        assert torch.equal(logits(mixed.unload()), before)


class TestDisabling:
    @pytest.mark.parametrize("merge", [False, True], ids=["unmerged", "merged"])
    @pytest.mark.parametrize("bias", ["none", "dense", "tt"])
    def test_disabled_adapter_leaves_the_base(self, bias, merge):
        model = adapted(delta_bias=bias)
        active = logits(model)
        if merge:
            model.merge_adapter()
        with model.disable_adapter():
            assert torch.equal(logits(model), logits(t5()))
            assert trainable(model) == set()
        assert torch.equal(logits(model), active)

    @NEEDS_NEWER_PEFT
    def test_transformers_methods_switch_and_delete_it(self, tmp_path):
        adapted().save_pretrained(tmp_path)
        model = t5()
        model.load_adapter(tmp_path)
        active = logits(model.eval())
        model.disable_adapters()
        assert torch.equal(logits(model), logits(t5()))
        model.enable_adapters()
        assert torch.equal(logits(model), active)
        model.delete_adapter("default")
        assert torch.equal(logits(model), logits(t5()))

    @NEEDS_NEWER_PEFT
    def test_transformers_add_adapter_starts_at_the_base(self):
        model = t5()
        model.add_adapter(TensorTrainConfig(rank=2), "fresh")
        assert torch.equal(logits(model), logits(t5()))
        assert all(".tt_lora_delta.fresh." in name for name in trainable(model))
        assert len(trainable(model)) == 3 * len(layers(model))
