"""What adapters promise beside the life cycle, on an encoder, a decoder of transposed weights and one of RMS norms."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import adapters
from adapters import ConfigurationError, MergeError
from adapters.base.sublayers import find_sublayers
from tests.adapters.models import MODELS, batch_for, logits, tiny
from tests.adapters.test_architectures import close, disturbed

NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0
)
THREE = ("bert", "gpt2", "llama")
ALL = {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"}
RANKS = {**ALL, "rank": 4, "d": 2, "exclude_modules": ["o"]}
BOTH = [ALL, {"kind": "tt_layer_norm", "rank": 2}]


@pytest.mark.parametrize("name", [*THREE, "bart"])
def test_adapters_by_task(name, tmp_path):
    model = tiny(name)
    base = logits(model, name)
    for task in ("a", "b"):
        adapters.attach(model, {"kind": "tt_lora", "rank": 2, "target_modules": ["o"]}, task)
    disturbed(model)
    assert torch.equal(logits(model, name), base)
    of_task = {}
    for task in ("a", "b"):
        adapters.set_active_task(model, task)
        of_task[task] = logits(model, name)
    assert not close(of_task["a"], of_task["b"])
    with adapters.merged(model):
        assert close(logits(model, name), of_task["b"])
        adapters.set_active_task(model, "a")
        assert close(logits(model, name), of_task["a"])
    adapters.save(model, tmp_path)
    again = adapters.load(tiny(name), tmp_path)
    adapters.set_active_task(again, "b")
    assert torch.equal(logits(again, name), of_task["b"])
    assert close(logits(adapters.merge_and_unload(model, "b"), name), of_task["b"])


@pytest.mark.parametrize("name", THREE)
def test_adaptive_ranks(name, tmp_path):
    model = disturbed(adapters.attach(tiny(name), RANKS))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    model(**batch_for(name)).logits.sum().backward()
    optimizer.step()
    before = logits(model, name)
    grown = adapters.adapt_ranks(model, optimizer, grow=1)
    assert grown.parameters_after > grown.parameters_before
    assert close(logits(model, name), before)
    schedule = adapters.RankSchedule(start=1, every=1, end=1, budget=grown.parameters_before // 2)
    assert schedule.step(model, optimizer, 1).parameters_after <= grown.parameters_before // 2
    model(**batch_for(name)).logits.sum().backward()
    optimizer.step()
    expected = logits(model, name)
    adapters.save(model, tmp_path)
    assert torch.equal(logits(adapters.load(tiny(name), tmp_path), name), expected)
    fitted = adapters.attach(tiny(name), RANKS)
    adapters.fit_ranks(fitted, tmp_path)
    assert torch.equal(logits(adapters.load(fitted, tmp_path), name), expected)
    adapters.orthogonalize(model)
    assert close(logits(model, name), expected)


@pytest.mark.parametrize("name", MODELS)
def test_every_adapted_module_is_called(name):
    model = adapters.attach(tiny(name), [*BOTH, {"kind": "bottleneck", "reduction_factor": 4}])
    for training in (True, False):
        assert adapters.check_acts(model.train(training), batch_for(name)) == []


@pytest.mark.slow
def test_a_compiled_model_is_the_same(tmp_path):
    torch._dynamo.reset()
    name, config = "gpt2", [{**ALL, "target_modules": ["o"]}, {"kind": "scale_norm"}]
    compiled = disturbed(adapters.attach(torch.compile(tiny(name, n_layer=1), backend="eager"), config))
    expected = logits(compiled, name)
    adapters.save(compiled, tmp_path)
    assert close(logits(adapters.load(tiny(name, n_layer=1), tmp_path), name), expected)
    with adapters.merged(compiled._orig_mod):
        assert close(logits(compiled, name), expected)
    assert torch.equal(logits(compiled, name), expected)


@pytest.mark.parametrize("name", [*THREE, "gemma3_text"])
def test_copies_and_pickles_of_a_half_precision_model_merge_alike(name):
    model = disturbed(adapters.attach(tiny(name).bfloat16(), BOTH))
    expected = logits(model, name)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(again, name), expected)
        with adapters.merged(again):
            merged = logits(again, name)
            assert (merged - expected).abs().max() < 0.1 * expected.abs().max()
        assert torch.equal(logits(again, name), expected)
        assert type(again) is type(model)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", THREE)
def test_gradients_are_those_without_checkpointing(name):
    gradients = []
    for reentrant in (None, False, True):
        torch.manual_seed(0)
        model = disturbed(adapters.attach(tiny(name, **NO_DROPOUT), BOTH))
        if reentrant is not None:
            model.train().gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(**batch_for(name)).logits.square().sum().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0]
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        assert all(close(other[key], gradients[0][key]) for key in other)


@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides:UserWarning")
def test_every_parameter_has_a_gradient_under_ddp(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for name in THREE:
            model = DistributedDataParallel(adapters.attach(tiny(name), BOTH))
            model(**batch_for(name)).logits.sum().backward()
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
            assert adapters.check_acts(model, batch_for(name)) == []
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", THREE)
def test_equal_adapters_are_attached_once_and_norms_replaced_once(name):
    model = adapters.attach(tiny(name), BOTH)
    for again, message in ((ALL, "attached once for a task"), ({"kind": "scale_norm"}, "one replacement")):
        with pytest.raises(ConfigurationError, match=message):
            adapters.attach(model, again)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_output_projection_has_no_delta_and_trains_whole(name, tmp_path):
    with pytest.raises(ConfigurationError, match="got 'lm_head'"):
        adapters.attach(tiny(name), {**ALL, "target_modules": ["lm_head"]})
    model = disturbed(adapters.attach(tiny(name), [ALL, {"kind": "lm_head"}]))  # GPT-2's is tied to the embedding
    expected = logits(model, name)
    adapters.save(model, tmp_path)
    assert torch.equal(logits(adapters.load(tiny(name), tmp_path), name), expected)
    assert close(logits(adapters.merge_and_unload(model), name), expected)


class Twice(nn.Module):
    """One linear under two names, and an output tied to the embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.first, self.out = nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 10, bias=False)
        self.second = self.first
        self.out.weight = self.embedding.weight

    def forward(self, ids):
        return self.out(self.second(self.first(self.embedding(ids)).relu()))


def test_a_linear_with_two_names_is_adapted_under_both_and_a_tied_weight_is_not_merged():
    ids = torch.arange(5)
    model = disturbed(adapters.attach(Twice(), {**ALL, "target_modules": ["first"]}))
    assert model.second is model.first
    expected = model(ids)
    with adapters.merged(model):
        assert close(model(ids), expected)
    plain = adapters.merge_and_unload(model)
    assert plain.second is plain.first
    assert type(plain.first) is nn.Linear
    assert close(plain(ids), expected)
    tied = adapters.attach(Twice(), {**ALL, "target_modules": ["out"]})
    with pytest.raises(MergeError, match=r"out, which is tied to embedding\.weight"):
        adapters.merge(tied)


def test_a_model_of_no_transformers_class_is_saved_and_loaded(tmp_path):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    x = torch.randn(2, 6)
    model = disturbed(adapters.attach(make(), {**ALL, "target_modules": ["0", "2"]}))
    adapters.save(model, tmp_path)
    assert torch.equal(adapters.load(make(), tmp_path)(x), model(x))
    with pytest.raises(adapters.CheckpointError, match="model_type=None"):
        adapters.load(tiny("bert"), tmp_path)
    with pytest.raises(adapters.CheckpointError, match="not one of transformers"):
        adapters.Deltas.read(tmp_path)


def test_a_bert_that_is_a_decoder_is_found_as_one_with_its_cross_attention():
    with torch.device("meta"):
        found = {(sublayer.stack, sublayer.kind) for sublayer in find_sublayers(tiny("encoder-decoder"))}
    kinds = {"embedding", "self_attention", "feed_forward", "final"}
    assert {kind for stack, kind in found if stack == "encoder"} == kinds
    assert {kind for stack, kind in found if stack == "decoder"} == {*kinds, "cross_attention"}


def test_layers_of_two_equal_stacks_have_their_own_slices():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = tiny("bert").bert, tiny("bert").bert

    config = {"kind": "tt_lora", "rank": 2, "modes": ["in", "layer", "matrix", "out"], "target_modules": ["q", "v"]}
    slices = adapters.attach(Pair(), config).shared_parameters
    assert sum(parameter.shape == (2, 1, 1, 2) for parameter in slices.values()) == 2 * 2 + 2  # layers, and q and v


def test_a_norm_that_computes_something_else_is_refused():
    class OneMoreLayerNorm(nn.LayerNorm):
        def forward(self, x):
            return nn.functional.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)

    model = tiny("bert")
    model.bert.encoder.layer[1].output.LayerNorm.__class__ = OneMoreLayerNorm
    with pytest.raises(ConfigurationError, match=r"a OneMoreLayerNorm at bert\.encoder\.layer\.1.*something else"):
        adapters.attach(model, {"kind": "scale_norm"})


def test_quantised_linears_are_refused_where_they_are_named():
    class Linear4bit(nn.Linear):
        pass

    model = tiny("llama")
    model.model.layers[0].self_attn.q_proj.__class__ = Linear4bit
    for config in (ALL, {"kind": "bitfit"}):
        with pytest.raises(ConfigurationError, match=r"a Linear4bit at model\.layers\.0\.self_attn\.q_proj"):
            adapters.attach(model, config)
    adapters.attach(model, {**ALL, "target_modules": ["v"]})
