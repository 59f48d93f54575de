"""merge_and_unload: a plain model that computes the same, also after transformers has saved and loaded it."""

import copy
import pickle

import pytest
import torch
import transformers
from torch import nn

import adapters
from adapters.base.places import Place
from adapters.freezing import adapter_parameters
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from tests.adapters.conftest import LINEAR, NON_LINEAR

PLACE = {"rank": 2, "target_modules": ["q", "v", "wi", "wo"]}
PLAIN = {
    "tt_lora": {"kind": "tt_lora", "scaling": 0.5, **PLACE},
    "tt_single": {"kind": "tt_single", "rank": 2, "scaling": 2.0},
    "zero_bias": {"kind": "tt_lora", "delta_bias": "dense", **PLACE},
    "peft lora": {"kind": "peft:LORA", "r": 2, "init_lora_weights": "gaussian"},
    "peft dora": {"kind": "peft:LORA", "r": 2, "use_dora": True},
    "peft ia3": {"kind": "peft:IA3"},
    "peft vera": {"kind": "peft:VERA", "r": 4},
    "peft norms": {"kind": "peft:LN_TUNING"},
    "everything": [
        {"kind": "tt_lora", **PLACE},
        {"kind": "tt_single", "rank": 2},
        {"kind": "peft:LORA", "r": 2},
        {"kind": "tt_layer_norm", "sublayers": ["self_attention", "final"]},
        {"kind": "lm_head"},
    ],
}
WITHOUT_BIAS = ["scale_norm", "tt_layer_norm", "layer_norm", "lm_head", "intrinsic_said", "shared", "patterns"]
WITHOUT_BIAS += ["principal", "composed", "tensor_basis", "cp", "one_tensor"]
PLAIN |= {name: LINEAR[name] for name in WITHOUT_BIAS}
WITH_BIAS = {name: LINEAR[name] for name in ("tt_lora", "tt_lora_attention", "bitfit", "tensor_ring")} | {
    "after": {"kind": "tt_single", "rank": 2, "delta_bias": "dense"},
    "norms alone": {"kind": "bitfit", "lm_head": False, "layers": [0], "stacks": ["decoder"]},
}


def close(one, other, share=1e-5):
    return (one - other).abs().max() <= share * other.abs().max()


def reloaded(model, folder):
    """The model that transformers alone makes of the folder that the model saves."""
    model.save_pretrained(folder)
    plain, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert {name: values for name, values in info.items() if values} == {}
    return plain.eval()


def check_plain(model, like):
    """No class, module, hook or attribute of this package is left, and everything trains as in a fresh model."""
    mine = [(name, type(module).__name__) for name, module in model.named_modules()]
    assert mine == [(name, type(module).__name__) for name, module in like.named_modules()]
    for module in model.modules():
        assert not type(module).__module__.startswith("adapters")
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._state_dict_hooks, module._backward_hooks)
        assert not any((*hooks, module._forward_pre_hooks_with_kwargs))
        assert not {"adapter_attachments", "freezing_report", "save_pretrained"} & set(vars(module))
    assert list(model.state_dict()) == list(like.state_dict())
    trains = {name: parameter.requires_grad for name, parameter in like.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trains


@pytest.fixture
def adapted(tiny_t5, trained):
    def make(description, ours=True, bias=False, **fields):
        model = trained(adapters.attach(tiny_t5(ours=ours, **fields), description))
        with torch.no_grad():
            for name, parameter in adapter_parameters(model).items():
                if name.endswith("bias") and not bias:
                    parameter.zero_()
        return model

    return make


@pytest.mark.parametrize("ours", [False, True], ids=["transformers", "ours"])
@pytest.mark.parametrize("name", PLAIN)
def test_merged_and_unloaded_model_is_plain_and_reloads_to_the_same_logits(
    adapted, tiny_t5, logits, tmp_path, name, ours
):
    model = adapted(PLAIN[name], ours)
    expected = logits(model)
    assert not close(logits(tiny_t5()), expected, 1e-3)
    assert adapters.merge_and_unload(model) is model
    check_plain(model, tiny_t5(ours=ours))
    merged = logits(model)
    assert close(merged, expected)
    assert close(logits(reloaded(model, tmp_path)), merged)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_reloaded_with_the_same_weights(adapted, logits, tmp_path, dtype):
    model = adapted([{"kind": "tt_lora", **PLACE}, {"kind": "scale_norm"}]).to(dtype)
    state = adapters.merge_and_unload(model).state_dict()
    plain = reloaded(model, tmp_path)
    assert plain.dtype == dtype
    assert all(tensor.to(dtype).equal(state[name]) for name, tensor in plain.state_dict().items())
    if dtype == torch.bfloat16:  # T5 keeps wo in float32 when it loads float16
        assert torch.equal(logits(plain), logits(model))


@pytest.mark.parametrize("form", ["gated with a head of its own", "tied"])
def test_head_and_embedding_stay_tied_or_apart(adapted, logits, tmp_path, form):
    fields = {} if form == "tied" else {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    model = adapted([{"kind": "tt_lora", "rank": 2}, {"kind": "lm_head"}], ours=False, **fields)
    if form != "tied":
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    expected = logits(adapters.merge_and_unload(model))
    plain = reloaded(model, tmp_path)
    assert (plain.lm_head.weight is plain.shared.weight) == (form == "tied")
    assert close(logits(plain), expected)


@pytest.mark.parametrize("was_merged", [False, True], ids=["unmerged", "merged"])
@pytest.mark.parametrize("name", ["bottleneck", "prompt", "core_activation", *WITH_BIAS, "nan", "tied"])
def test_what_no_plain_t5_can_hold_is_refused_by_name(adapted, snapshot, name, was_merged):
    model = adapted((NON_LINEAR | WITH_BIAS).get(name, {"kind": "tt_lora", "rank": 2}), bias=True)
    if was_merged and name in WITH_BIAS:
        adapters.merge(model)
    if name == "nan":
        next(iter(adapter_parameters(model).values())).data.fill_(float("nan"))
    if name == "tied":
        model.encoder.block[0].layer[1].DenseReluDense.wi.weight = (
            model.decoder.block[0].layer[2].DenseReluDense.wi.weight
        )
    kinds = {"core_activation": "tt_lora", "tensor_ring": "tt_lora", "tt_lora_attention": "tt_lora"}
    kinds |= {"after": "tt_single", "norms alone": "bitfit"}
    words = {"nan": "infinities or NaN at encoder", "tied": r"wi, which is tied to decoder.*wi\.weight"}
    before, merged = snapshot(model), adapters.is_merged(model)
    with pytest.raises(adapters.MergeError, match=words.get(name, kinds.get(name, name))):
        adapters.merge_and_unload(model)
    assert snapshot(model) == before
    assert adapters.is_merged(model) == merged


def test_biases_of_a_base_that_has_them_are_merged(adapted, logits):
    model = adapted({"kind": "tt_lora", "rank": 2})
    linear = nn.Linear(24, 48).requires_grad_(False)
    model.encoder.block[0].layer[1].DenseReluDense.wi = linear
    bitfit = adapters.BitFitConfig(stacks=("encoder",), layers=(0,), sublayers=("feed_forward",), lm_head=False)
    adapters.attach(model, bitfit)
    bias = model.encoder.block[0].layer[1].DenseReluDense.wi.beside.bitfit.active.bias
    bias.data.normal_()
    expected, before = logits(model), linear.bias.clone()
    adapters.merge_and_unload(model)
    assert close(logits(model), expected)
    assert torch.equal(model.encoder.block[0].layer[1].DenseReluDense.wi.bias, before + bias)


class TestTasks:
    @pytest.fixture
    def model(self, tiny_t5, trained):
        model = adapters.attach(tiny_t5(), {"kind": "scale_norm"})
        for task in ("rte", "cola"):
            adapters.attach(model, {"kind": "tt_lora", "rank": 2}, task)
        adapters.attach(model, {"kind": "prompt", "num_tokens": 2}, "prompted")
        return trained(model)

    @pytest.mark.parametrize("by", ["argument", "active task", "argument against the active task"])
    def test_one_task_is_merged(self, model, tiny_t5, logits, by):
        adapters.set_active_task(model, "cola")
        expected = logits(model)
        if by != "active task":
            adapters.set_active_task(model, None if by == "argument" else "rte")
        adapters.merge_and_unload(model, None if by == "active task" else "cola")
        assert close(logits(model), expected)
        check_plain(model, tiny_t5())

    @pytest.mark.parametrize(("task", "words"), [(None, "name one of rte, cola, prompted"), ("col", "mean 'cola'")])
    def test_a_task_must_be_named(self, model, snapshot, task, words):
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=words):
            adapters.merge_and_unload(model, task)
        assert snapshot(model) == before

    @pytest.mark.parametrize("active", [None, "rte"])
    def test_a_refusal_keeps_the_active_task(self, model, logits, active):
        adapters.set_active_task(model, active)
        if active:
            adapters.merge(model)
        before = logits(model)
        with pytest.raises(adapters.MergeError, match="prompt"):
            adapters.merge_and_unload(model, "prompted")
        assert torch.equal(logits(model), before)
        assert adapters.is_merged(model) == (active is not None)


def test_a_compiled_model_is_unwrapped(adapted, tiny_t5):
    model = adapted({"kind": "tt_lora", "rank": 2})
    plain = adapters.merge_and_unload(torch.compile(model, backend="eager"))
    assert plain is model
    check_plain(plain, tiny_t5())


def test_a_model_without_adapters_is_refused(tiny_t5):
    with pytest.raises(adapters.ConfigurationError, match=r"without any: call adapters\.attach"):
        adapters.merge_and_unload(tiny_t5())


def test_adapters_can_be_attached_to_the_plain_model(adapted, logits):
    model = adapters.merge_and_unload(adapted({"kind": "tt_lora", "rank": 2}, ours=False))
    before = logits(model)
    adapters.attach(model, {"kind": "tt_lora", "rank": 2})
    assert torch.equal(logits(model), before)


def test_a_delta_of_a_tied_head_is_not_merged_into_the_embedding(tiny_t5, trained):
    class OnHead(TensorTrainLoRAConfig):
        def places(self, sublayers):
            return [Place("lm_head", "beside", sublayers[-1], "lm_head")]

    model = trained(adapters.attach(tiny_t5(), OnHead(rank=2)))
    with pytest.raises(adapters.MergeError, match=r"lm_head, which is tied to shared\.weight"):
        adapters.merge(model)


class TestSavePretrained:
    @pytest.mark.parametrize("state", ["unmerged", "merged", "deepcopy", "pickle", "compiled", "inner"])
    def test_of_a_model_with_adapters_is_refused(self, adapted, tmp_path, state):
        model = adapted({"kind": "tt_lora", "rank": 2}, ours=False)
        if state == "merged":
            adapters.merge(model)
        copies = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}
        model = copies.get(state, lambda m: m)(model)
        model = torch.compile(model, backend="eager") if state == "compiled" else model
        save = model.encoder.save_pretrained if state == "inner" else model.save_pretrained
        with pytest.raises(adapters.ConfigurationError, match=r"adapters\.save\(.* adapters\.merge_and_unload\("):
            save(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_of_a_copy_saves_the_copy(self, adapted, tmp_path, clone):
        model = adapted({"kind": "tt_lora", "rank": 2}, ours=False)
        twin = clone(model)
        assert twin.save_pretrained.model is twin
        adapters.merge_and_unload(twin).save_pretrained(tmp_path)
        with pytest.raises(adapters.ConfigurationError, match="cannot be saved"):
            model.save_pretrained(tmp_path)

    @pytest.mark.parametrize("kind", ["tt_lora", "bottleneck", "bitfit"])
    def test_by_the_plain_trainer_writes_what_it_resumes_from_and_no_model(self, adapted, batch, tmp_path, kind):
        rows = [{name: tensor[0] for name, tensor in batch.items()}] * 4
        description = (LINEAR | NON_LINEAR)[kind]

        def train(steps, resume=None):
            arguments = transformers.TrainingArguments(
                str(tmp_path / "run"), max_steps=steps, save_steps=2, use_cpu=True, disable_tqdm=True, report_to="none",
                lr_scheduler_type="constant", dataloader_pin_memory=False, learning_rate=0.1,
            )  # fmt: skip
            trainer = transformers.Trainer(adapted(description, ours=False), arguments, train_dataset=rows)
            trainer.train(resume_from_checkpoint=resume)
            return trainer

        straight = train(4)
        folder = tmp_path / "run" / "checkpoint-2"
        resumed = train(4, str(folder)).model
        states = [adapters.adapter_state_dict(model) for model in (straight.model, resumed)]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
        with pytest.raises((OSError, ValueError), match=r"config\.json"):
            transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
        with pytest.raises(adapters.ConfigurationError, match=r"adapters\.save"):
            straight.save_model(str(tmp_path / "final"))

    @pytest.mark.parametrize("kind", ["lm_head", "layer_norm", "none"])
    def test_of_a_model_whose_own_weights_train_is_right(self, adapted, logits, tmp_path, kind):
        model = adapted({"kind": kind}, ours=False)
        assert torch.equal(logits(reloaded(model, tmp_path)), logits(model))

    def test_of_our_class_is_refused_only_while_merged(self, adapted, tmp_path):
        model = adapted({"kind": "tt_lora", "rank": 2})
        with adapters.merged(model), pytest.raises(adapters.ConfigurationError, match=r"adapters\.merge_and_unload\("):
            model.save_pretrained(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        model.save_pretrained(tmp_path / "out")
