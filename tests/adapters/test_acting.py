"""Deltas that no forward calls are found in one pass, refused by name, and what is rightly unused gives no alarm."""

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import MambaConfig, MambaModel, WavLMConfig, WavLMModel

import adapters
from adapters.base.kept_base import KeptBase
from adapters.base.weight_readers import TRANSFORMERS_READERS
from adapters.peft import TensorTrainConfig

D = 8


def linear():
    return nn.Linear(D, D)


class Model(nn.Module):
    """A model of one parent, so that its linears have a path of two parts."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent

    def forward(self, *args, **kwargs):
        return self.parent(*args, **kwargs)


class Parent(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj, self.other = linear(), linear()

    def forward(self, x):
        return self.other(self.proj(x))


class ReadsInEvaluation(Parent):
    def forward(self, x):
        return super().forward(x) if self.training else F.linear(x, self.proj.weight, self.proj.bias)


class CallsForward(Parent):
    def forward(self, x):
        return self.other(self.proj.forward(x))


class ReadsTransposed(Parent):
    def forward(self, x):
        return self.other(x) @ self.proj.weight.T


class ReadsCopy(Parent):
    def forward(self, x):
        return self.other(x) @ self.proj.weight.to(torch.float64).to(x.dtype)


class ReadsInList(nn.Module):
    def __init__(self):
        super().__init__()
        self.projs = nn.ModuleList([linear(), linear()])

    def forward(self, x):
        return self.projs[0](F.linear(x, self.projs[1].weight))


class Experts(nn.Module):
    """Two linears in a list and two modules, of which a batch uses the first; the dtype of the others is looked at."""

    def __init__(self):
        super().__init__()
        self.linears = nn.ModuleList([linear(), linear()])
        self.modules_ = nn.ModuleDict({"a": Parent(), "b": Parent()})

    def forward(self, x):
        return self.modules_["a"](self.linears[0](x.to(self.linears[1].weight.dtype)))


class Branch(Parent):
    def forward(self, x):
        return self.proj(x)


class Tied(Parent):
    """A head with the weight of the embedding, which this pass does not call."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(D, D), nn.Linear(D, D, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return super().forward(x + self.embedding(torch.tensor([1])))


def adapted(parent, targets=("proj", "other"), **options):
    torch.manual_seed(0)
    config = TensorTrainConfig(target_modules=list(targets), rank=2, **options)
    model = peft.get_peft_model(Model(parent), config)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) if parameter.requires_grad else 0
    return model


def batch():
    return torch.randn(2, 3, D)


def hooks(model):
    everywhere = torch.nn.modules.module._global_forward_pre_hooks
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()], len(everywhere)


READERS = {
    "in evaluation": (ReadsInEvaluation, "parent.proj", False),
    "transposed": (ReadsTransposed, "parent.proj", True),
    "a cast copy": (ReadsCopy, "parent.proj", True),
    "in a list": (ReadsInList, "parent.projs.1", True),
}


@pytest.mark.parametrize("form", ["plain", "compiled", "wrapped"])
@pytest.mark.parametrize("name", READERS)
def test_a_weight_that_is_read_is_refused_by_name(name, form):
    parent, path, training = READERS[name]
    model = adapted(parent(), ["projs.1", "projs.0"] if parent is ReadsInList else ["proj", "other"])
    given = {"plain": lambda m: m, "compiled": lambda m: torch.compile(m, backend="eager"), "wrapped": nn.DataParallel}
    model.train(training)
    before = hooks(model)
    with pytest.raises(adapters.ConfigurationError, match=rf"weights of base_model\.model\.{path} \(default\)"):
        adapters.check_acts(given[form](model), batch())
    assert hooks(model) == before
    if not training:
        assert adapters.check_acts(model.train(), batch()) == []


def test_a_weight_that_the_base_itself_reads_is_refused():
    model = peft.get_peft_model(ReadsInEvaluation(), TensorTrainConfig(target_modules=["proj"], rank=2))
    assert adapters.check_acts(model, batch()) == []
    with pytest.raises(adapters.ConfigurationError, match=r"weights of base_model\.model\.proj \(default\)"):
        adapters.check_acts(model.eval(), batch())


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_fast_path_of_an_encoder_layer_is_found_although_hooks_would_switch_it_off(batch_first):
    layer = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=batch_first)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model = adapted(layer, ["linear1", "linear2"])
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    x = batch()
    assert adapters.check_acts(model.train(), x) == []
    moved = {}
    for mode in (True, False):
        with model.disable_adapter(), torch.no_grad():
            base = model.train(mode)(x)
        with torch.no_grad():
            moved[mode] = (model.train(mode)(x) - base).abs().max() > 0.1
    assert moved == {True: True, False: not batch_first}
    if batch_first:
        with pytest.raises(
            adapters.ConfigurationError, match=r"parent\.linear1 \(default\), .*parent\.linear2 \(default"
        ):
            adapters.check_acts(model.eval(), x)
    else:
        assert adapters.check_acts(model.eval(), x) == []


UNUSED = {
    "experts": (Experts, ["linears.0", "linears.1", "proj"], []),
    "a branch": (Branch, ["proj", "other"], ["base_model.model.parent.other"]),
    "tied": (Tied, ["proj", "head"], ["base_model.model.parent.head"]),
    "a direct call of forward": (CallsForward, ["proj"], []),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_a_batch_does_not_use_is_no_alarm(name):
    parent, targets, left_out = UNUSED[name]
    assert adapters.check_acts(adapted(parent(), targets), batch()) == left_out


@pytest.mark.parametrize("state", ["merged", "disabled", "inactive"])
def test_adapters_that_do_not_act_are_not_expected_to(state):
    model = adapted(ReadsTransposed())
    if state == "merged":
        model.merge_adapter()
    if state == "inactive":
        model.add_adapter("second", TensorTrainConfig(target_modules=["other"], rank=2))
        model.set_adapter("second")
    with model.disable_adapter() if state == "disabled" else torch.no_grad():
        assert adapters.check_acts(model, batch()) == []


@pytest.mark.parametrize("form", ["positional", "several", "keywords"])
def test_forms_of_a_batch(form):
    x = batch()
    assert adapters.check_acts(adapted(Parent()), {"positional": x, "several": (x,), "keywords": {"x": x}}[form]) == []


def test_random_numbers_and_weights_are_as_before(tiny_t5, batch):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, "dropout": 0.5}).train()
    state, numbers = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    assert adapters.check_acts(model, batch) == []
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class TestT5:
    @pytest.mark.parametrize("kind", ["every kind", "checkpointed", "compiled", "merged"])
    def test_gives_no_alarm(self, tiny_t5, batch, any_adapter, kind):
        model = adapters.attach(tiny_t5(), any_adapter)
        if kind == "checkpointed":
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        if kind == "merged" and adapters.unmergeable(model) is None:
            adapters.merge(model)
        model.train(kind == "checkpointed")
        given = torch.compile(model, backend="eager") if kind == "compiled" else model
        assert adapters.check_acts(given, batch) == []

    def test_of_other_tasks_and_of_the_decoder_may_rest(self, tiny_t5, batch):
        model = tiny_t5()
        for task in ("a", "b"):
            adapters.attach(model, [{"kind": "tt_lora", "rank": 2}, {"kind": "bitfit"}], task)
        adapters.set_active_task(model, "a")
        assert adapters.check_acts(model, batch) == []
        assert adapters.check_acts(model.encoder, {"input_ids": batch["input_ids"]}) == []

    @pytest.mark.parametrize("kind", ["tt_lora", "tt_adapter", "tt_single", "peft:LORA"])
    def test_a_bypassed_linear_is_refused(self, tiny_t5, batch, kind):
        reduction = {"reduction_factor": 4} if kind == "tt_adapter" else {}
        model = adapters.attach(tiny_t5(), {"kind": kind, **reduction})
        block = model.encoder.block[1].layer[1].DenseReluDense
        block.forward = lambda x: F.linear(block.act(block.wi(x)), block.wo.weight)
        with pytest.raises(adapters.ConfigurationError, match=rf"encoder.*1\.DenseReluDense\.wo \({kind}\)"):
            adapters.check_acts(model, batch)
        if adapters.unmergeable(model) is None:
            with adapters.merged(model):
                assert adapters.check_acts(model, batch) == []


def layer(**options):
    return nn.TransformerEncoderLayer(D, 2, 16, **{"batch_first": True, **options})


MAMBA = MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9, state_size=2, time_step_rank=2)
WAVLM = WavLMConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,), conv_stride=(2,),
    conv_kernel=(2,), num_feat_extract_layers=1, num_conv_pos_embeddings=2, num_conv_pos_embedding_groups=2,
)  # fmt: skip
KNOWN = {
    "encoder layer": (layer, "linear1", "fast path"),
    "encoder layer, gelu": (lambda: layer(activation=F.gelu), "linear2", "set_fastpath_enabled"),
    "encoder": (lambda: nn.TransformerEncoder(layer(), 2), "linear2", "fast path"),
    "attention": (lambda: nn.MultiheadAttention(D, 2), "out_proj", "MultiheadAttention reads itself"),
    "attention of a decoder": (lambda: nn.TransformerDecoderLayer(D, 2, 16), "out_proj", "MultiheadAttention"),
    "mamba": (lambda: MambaModel(MAMBA), "x_proj", "MambaMixer reads itself"),
    "wavlm": (lambda: WavLMModel(WAVLM), "q_proj", "WavLMAttention reads itself"),
}
CALLED = {
    "batch second": lambda: layer(batch_first=False),
    "no bias": lambda: layer(bias=False),
    "silu": lambda: layer(activation=F.silu),
    "an odd number of heads": lambda: nn.TransformerEncoderLayer(9, 3, 18, batch_first=True),
    "decoder layer": lambda: nn.TransformerDecoderLayer(D, 2, 16, batch_first=True),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_tuner_refuses_parents_that_are_known_to_read_weights(name):
    parent, target, words = KNOWN[name]
    model = Model(parent())
    before = list(model.state_dict())
    with pytest.raises(adapters.ConfigurationError, match=rf"call; got parent.*{target}, whose weight .*{words}"):
        peft.get_peft_model(model, TensorTrainConfig(target_modules=[target], rank=1))
    assert list(model.state_dict()) == before
    assert not any(isinstance(module, KeptBase) for module in model.modules())


@pytest.mark.parametrize("name", CALLED)
def test_the_tuner_takes_layers_that_call_their_linears(name):
    parent = CALLED[name]()
    x = torch.randn(2, 3, parent.linear1.in_features)
    model = adapted(parent, ["linear1", "linear2"]).eval()
    assert adapters.check_acts(model, (x, x) if name == "decoder layer" else x) == []
    with model.disable_adapter(), torch.no_grad():
        base = model(x, x) if name == "decoder layer" else model(x)
    assert not torch.allclose(model(x, x) if name == "decoder layer" else model(x), base, atol=0.1)


@pytest.mark.parametrize("kind", ["tt_lora", "tt_single", "bitfit", "peft:LORA"])
def test_attach_refuses_parents_that_are_known_to_read_weights(tiny_t5, snapshot, monkeypatch, kind):
    monkeypatch.setitem(TRANSFORMERS_READERS, "T5DenseActDense", ("wo",))
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(
        adapters.ConfigurationError, match=r"call; got encoder.*wo, whose weight a T5DenseActDense reads"
    ):
        adapters.attach(model, {"kind": kind})
    assert snapshot(model) == before
    adapters.attach(model, {"kind": "scale_norm"})
