"""Merging some of several adapters: what is active acts, beside the weight if it is not merged into it."""

import pytest
import torch
from peft import PeftModel
from torch import nn

from adapters import Deltas, MergeError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import adapted, bert, called, dense_delta, layers, llama, logits, scrambled, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already following adapters were merged"),
]

A, B, C = "first", "second", "third"


def model_with(active: list[str], **fields) -> PeftModel:
    """Three adapters on a Llama, on partly different linears."""
    targets = {A: ["q_proj", "v_proj"], B: ["q_proj", "up_proj"], C: ["q_proj", "v_proj"]}
    model = adapted(llama(), target_modules=["k_proj"])
    for seed, (name, linears) in enumerate(targets.items(), 2):
        model.add_adapter(name, TensorTrainConfig(rank=2, d=3, target_modules=linears, **fields))
        scrambled(model, name, seed)
    model.delete_adapter("default")
    model.base_model.set_adapter(active)
    return model.eval()


def with_dense(model: PeftModel, names: set[str]) -> nn.Module:
    """The base with the dense deltas of these adapters in its weights, summed in float64."""
    base = llama()
    with torch.no_grad():
        for path, layer in layers(model).items():
            weight = base.get_submodule(path.removeprefix("base_model.model.")).weight
            deltas = [dense_delta(layer, name) for name in sorted(names) if name in layer.tt_lora_delta]
            weight.copy_(weight.double() + sum(map(torch.from_numpy, deltas), torch.zeros(())))
    return base


pytestmark.append(pytest.mark.filterwarnings("ignore:Adapter default was active which is now deleted"))
CASES = [
    ([A, B], [A]),
    ([A, B], [B]),
    ([A, B], [A, B]),
    ([A, B], None),
    ([A, B, C], [B]),
    ([A, B, C], [C, A]),
    ([A], [B]),  # one that is not active acts once it is in the weights
    ([A, B], [C]),
]


@pytest.mark.parametrize(("active", "merged"), CASES, ids=str)
class TestMerging:
    def test_merged_and_active_adapters_act_and_unmerging_is_bit_exact(self, active, merged):
        model = model_with(active)
        before, weights = logits(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for _ in range(2):
            model.merge_adapter(merged)
            acting = {*active, *(merged or ())}
            torch.testing.assert_close(logits(model), logits(with_dense(model, acting)), rtol=1e-4, atol=1e-4)
            model.unmerge_adapter()
            assert torch.equal(logits(model), before)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())

    def test_deltas_of_the_model_are_those_that_act(self, active, merged):
        model = model_with(active)
        model.merge_adapter(merged)
        for path, train in Deltas.of(model).items():
            layer = layers(model)[f"base_model.model.{path}"]
            names = {*active, *(merged or ())} & set(layer.tt_lora_delta)
            expected = sum(torch.from_numpy(dense_delta(layer, name)) for name in sorted(names))
            torch.testing.assert_close(train.full(), expected)


@pytest.mark.parametrize("bias", ["dense", "tt"])
def test_biases_act_merged_and_beside(bias):
    model = model_with([A, B], delta_bias=bias)
    before = logits(model)
    model.merge_adapter([A])
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert torch.equal(logits(model), before)


def test_active_adapter_trains_beside_a_merged_one():
    gradients = []
    for merged in ([], [A]):
        model = model_with([A, B])
        model.merge_adapter(merged)
        called(model).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if ".second." in name})
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4)


def test_adapters_merged_one_after_the_other_act_all_the_time():
    model = model_with([A, B, C])
    before = logits(model)
    for name in (A, C, B):
        model.merge_adapter([name])
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    assert trainable(model) == trainable(model_with([A, B, C]))


class TestUnloading:
    @pytest.mark.parametrize(("names", "lost"), [([A], [B]), ([C], [A, B])], ids=str)
    def test_lost_adapters_are_named_in_a_warning(self, names, lost):
        model = model_with([A, B])
        expected = with_dense(model, set(names))
        with pytest.warns(UserWarning, match=rf"with the active adapters \['{lost[0]}'.* besides, which are lost"):
            plain = model.merge_and_unload(adapter_names=names)
        torch.testing.assert_close(logits(plain), logits(expected), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("names", [None, [A, B], [A, B, C]], ids=str)
    def test_nothing_is_lost_without_a_warning(self, names):
        model = model_with([A, B])
        expected = with_dense(model, {A, B} if names is None else set(names))
        torch.testing.assert_close(
            logits(model.merge_and_unload(adapter_names=names)), logits(expected), rtol=1e-4, atol=1e-4
        )

    def test_adapters_merged_before_are_kept(self):
        model = model_with([A, B])
        expected = with_dense(model, {A, B})
        model.merge_adapter([B])
        torch.testing.assert_close(
            logits(model.merge_and_unload(adapter_names=[A])), logits(expected), rtol=1e-4, atol=1e-4
        )


class TestWholeModules:
    """A classifier of its own for each of two adapters."""

    @staticmethod
    def model() -> PeftModel:
        fields = {"rank": 2, "target_modules": ["query"], "modules_to_save": ["classifier"]}
        model = adapted(bert(), **fields)
        model.add_adapter(B, TensorTrainConfig(**fields))
        model.add_adapter(C, TensorTrainConfig(rank=2, target_modules=["query"]))
        for seed, name in enumerate(("default", B)):
            torch.manual_seed(seed)
            nn.init.normal_(model.base_model.model.classifier.modules_to_save[name].weight)
        return scrambled(scrambled(model, B, 2), C, 3).eval()

    @pytest.mark.parametrize("names", [[B], ["default", B], [C]], ids=str)
    def test_classifier_of_another_adapter_is_refused(self, names):
        model = self.model()
        before = logits(model)
        with pytest.raises(
            MergeError, match=r"while classifier is that of 'default', with other values: call set_adapter"
        ):
            model.merge_and_unload(adapter_names=names)
        assert torch.equal(logits(model), before)

    @pytest.mark.parametrize("names", [["default"], ["default", C]], ids=str)
    def test_classifier_of_a_merged_adapter_is_kept(self, names):
        model = self.model()
        classifier = model.base_model.model.classifier.modules_to_save["default"].weight.clone()
        assert torch.equal(model.merge_and_unload(adapter_names=names).classifier.weight, classifier)

    def test_classifier_changes_with_the_active_adapter(self):
        model = self.model()
        model.set_adapter(B)
        active = logits(model)
        torch.testing.assert_close(logits(model.merge_and_unload(adapter_names=[B])), active, rtol=1e-4, atol=1e-4)


def test_adapter_that_cannot_be_merged_acts_beside_a_merged_one_on_the_same_linear():
    model = model_with([A])
    model.add_adapter("curved", TensorTrainConfig(rank=2, target_modules=["q_proj"], core_activation="gelu"))
    model.base_model.set_adapter([A, "curved"])
    before = logits(scrambled(model, "curved", seed=9).eval())
    model.merge_adapter([A])
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    with pytest.raises(MergeError, match="'curved'"):
        model.merge_adapter(["curved"])
