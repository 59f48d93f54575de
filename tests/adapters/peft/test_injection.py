"""The forward and training of an adapted model, against dense algebra in float64."""

import numpy as np
import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from torch import nn

from adapters import ConfigurationError, TensorTrainDelta
from adapters.peft import TensorTrainConfig, TensorTrainPeftLinear
from tests.adapters.peft.tiny import MODELS, TOKENS, adapted, bert, dense_delta, layers, llama, logits, t5, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class TestInjection:
    @pytest.mark.parametrize(("build", "targets", "count"), MODELS)
    def test_logits_at_step_zero_equal_those_of_the_base(self, build, targets, count):
        model = get_peft_model(build(), TensorTrainConfig(rank=3, target_modules=targets)).eval()
        assert len(layers(model)) == count
        assert torch.equal(logits(model), logits(build()))

    @pytest.mark.parametrize(("build", "targets", "count"), MODELS)
    def test_only_cores_train(self, build, targets, count):
        model = get_peft_model(build(), TensorTrainConfig(rank=3, target_modules=targets))
        assert trainable(model) == {
            f"{path}.tt_lora_delta.default.linear.cores.{k}" for path in layers(model) for k in range(3)
        }

    @pytest.mark.parametrize("bias", ["none", "dense", "tt"])
    def test_delta_matches_dense_algebra(self, bias):
        model = adapted(
            bert(), target_modules=["query", "dense"], exclude_modules=["pooler.dense"], scaling=0.5, delta_bias=bias
        )
        dense = bert()
        for path, layer in layers(model).items():
            linear = dense.get_submodule(path.removeprefix("base_model.model."))
            linear.weight.data += torch.from_numpy(dense_delta(layer)).float()
            shift = layer.tt_lora_delta["default"].linear.bias
            if bias == "dense":
                linear.bias.data += 0.5 * shift.data
            if bias == "tt":
                cores = [core.detach().numpy() for core in shift.cores]
                linear.bias.data += 0.5 * torch.from_numpy(np.einsum("amnb,bpqc,crsd->mpr", *cores).reshape(-1))
        torch.testing.assert_close(logits(model), logits(dense), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(logits(model), logits(bert()), atol=1e-2)

    def test_training_changes_trainable_cores_only(self):
        model = get_peft_model(t5(), TensorTrainConfig(rank=3, frozen_cores=[0])).train()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(2):  # in the first step only the core at zero has a gradient
            optimizer.zero_grad()
            model(input_ids=TOKENS, labels=TOKENS).loss.backward()
            optimizer.step()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert moved == trainable(model)
        assert moved == {f"{path}.tt_lora_delta.default.linear.cores.{k}" for path in layers(model) for k in (1, 2)}

    @pytest.mark.parametrize(
        "event",
        [
            lambda model: None,
            lambda model: model.set_adapter("default"),
            lambda model: model.set_requires_grad("default"),
            lambda model: (model.disable_adapter_layers(), model.enable_adapter_layers()),
            lambda model: (model.merge_adapter(), model.unmerge_adapter()),
            lambda model: model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["wo"])),
        ],
        ids=["start", "set_adapter", "set_requires_grad", "disable and enable", "merge and unmerge", "add_adapter"],
    )
    def test_frozen_and_disabled_cores_stay_frozen(self, event):
        model = adapted(frozen_cores=[0], disabled_cores=[1], target_modules=["wo"])
        event(model)
        assert trainable(model) == {f"{path}.tt_lora_delta.default.linear.cores.2" for path in layers(model)}

    @pytest.mark.parametrize("training", [True, False])
    def test_deltas_have_the_mode_of_their_base(self, training):
        model = get_peft_model(t5().train(training), TensorTrainConfig(rank=3, dropout=0.5))
        for layer in layers(model).values():
            assert {module.training for module in layer.modules()} == {training}
        model.train(training).add_adapter("second", TensorTrainConfig(rank=2, dropout=0.5))
        for layer in layers(model).values():
            assert {module.training for module in layer.modules()} == {training}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_deltas_are_float32_on_a_half_precision_base(self, dtype):
        model = adapted(llama().to(dtype), delta_bias="dense")
        assert {p.dtype for layer in layers(model).values() for p in layer.tt_lora_delta.parameters()} == {
            torch.float32
        }
        assert logits(model).dtype == dtype

    def test_modules_to_save_train_and_are_saved(self, tmp_path):
        model = adapted(bert(), task_type=TaskType.SEQ_CLS)
        heads = {name for name in trainable(model) if ".tt_lora_delta." not in name}
        assert heads == {f"base_model.model.classifier.modules_to_save.default.{name}" for name in ("weight", "bias")}
        model.base_model.model.classifier.modules_to_save["default"].weight.data.normal_()
        model.save_pretrained(tmp_path)
        assert torch.equal(logits(PeftModel.from_pretrained(bert(), tmp_path).eval()), logits(model))

    @pytest.mark.parametrize(
        ("fields", "error", "sentence"),
        [
            ({"target_modules": ["nowhere"]}, ConfigurationError, "got 'nowhere': known are k, lm_head, o"),
            ({"target_modules": ["wi", "layer_norm"]}, TypeError, "got a T5LayerNorm at encoder"),
            (
                {"raw_shape": [[2, 3, 4], [2, 2, 4]], "target_modules": ["wi", "q"]},
                ConfigurationError,
                "Key 'raw_shape'.*the out size 16",
            ),
            ({"rank": [2, 500]}, ConfigurationError, "must fit a layer 16 -> 24"),
        ],
        ids=["unknown target", "no linear", "shape of wi, not of q", "rank that no bond can use"],
    )
    def test_unfitting_configuration_raises_and_leaves_the_base_unchanged(self, fields, error, sentence):
        base = t5()
        with pytest.raises(error, match=sentence):
            get_peft_model(base, TensorTrainConfig(**fields))
        assert [name for name, _ in base.named_parameters()] == [name for name, _ in t5().named_parameters()]
        assert all(parameter.requires_grad for parameter in base.parameters())

    def test_unknown_architecture_needs_target_modules(self):
        with pytest.raises(ValueError, match="target_modules"):
            get_peft_model(nn.Sequential(nn.Linear(8, 8)), TensorTrainConfig())


def test_base_and_delta_are_one_contraction_unless_the_base_has_hooks(monkeypatch):
    layer = TensorTrainPeftLinear(nn.Linear(12, 8), "default", TensorTrainConfig(rank=2))
    nn.init.normal_(layer.tt_lora_delta["default"].linear.cores[-1])
    x, fused, seen = torch.randn(5, 12, requires_grad=True), [], []
    onto = TensorTrainDelta.onto
    monkeypatch.setattr(TensorTrainDelta, "onto", lambda self, *given: fused.append(self) or onto(self, *given))
    together = layer(x)
    assert len(fused) == 1
    layer.base_layer.register_full_backward_hook(lambda *_: seen.append(True))
    apart = layer(x)
    assert len(fused) == 1
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(together, layer.base_layer(x) + layer.tt_lora_delta["default"](x))
    apart.sum().backward()
    assert seen == [True]


@pytest.mark.parametrize("watched", ["", "linear"])
def test_hooks_on_a_delta_are_called(watched):
    layer = TensorTrainPeftLinear(nn.Linear(12, 8), "default", TensorTrainConfig(rank=2))
    delta, seen = layer.tt_lora_delta["default"], []
    assert delta.fuses
    handle = delta.get_submodule(watched).register_forward_hook(lambda *_: seen.append(True))
    assert not delta.fuses
    layer(torch.randn(5, 12))
    assert seen == [True]
    handle.remove()
    assert delta.fuses
