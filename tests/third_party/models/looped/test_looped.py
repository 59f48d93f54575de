"""The looped transformer against an unrolled model, masks by property, and what it saves."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel

import adapters
from adapters import ConfigurationError
from third_party.models.looped import Injection, LoopedConfig, LoopedModel
from third_party.models.looped.masks import attention_bias, kept_positions

SIZES = {"hidden_size": 16, "num_heads": 2, "input_size": 3, "output_size": 2, "positions": {"number": 16}}
CHECKPOINTING = "activation_checkpointing_enable"


def looped(block="gpt2", **options):
    torch.manual_seed(0)
    return LoopedModel(LoopedConfig(**{**SIZES, "block": block, **options})).double()


def vectors(length=6):
    return torch.randn(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(model, inputs):
    model.train()
    model.zero_grad()
    model(inputs).logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("block", ["gpt2", "llama"])
@pytest.mark.parametrize("n_layer", [1, 2])
def test_b_loops_equal_b_copies_of_the_stack(block, n_layer):
    """An unrolled model with a copy of the stack for each loop: outputs, and gradients summed over the copies."""
    model, inputs = looped(block, n_layer=n_layer, loops={"num_loops": 3}), vectors()
    found = gradients(model, inputs)
    copies = [copy.deepcopy(model.stack) for _ in range(3)]
    injected = model.read_in(inputs)
    state = torch.zeros_like(injected)
    for stack in copies:
        stack.zero_grad()
        state = stack(inputs_embeds=state + injected, use_cache=False).last_hidden_state
    logits = model.read_out(state)
    torch.testing.assert_close(model(inputs).logits, logits)
    logits.square().sum().backward()
    for name, _ in model.stack.named_parameters():
        summed = [stack.get_parameter(name).grad for stack in copies]
        if summed[0] is not None:
            torch.testing.assert_close(found[f"stack.{name}"], sum(summed))


def test_a_window_of_at_least_b_has_the_whole_gradient():
    inputs = vectors()
    whole = gradients(looped(loops={"num_loops": 4}), inputs)
    for window in (4, 9):
        found = gradients(looped(loops={"num_loops": 4, "window": window}), inputs)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], whole[name]) for name in whole)
    cut = gradients(looped(loops={"num_loops": 4, "window": 2}), inputs)
    assert not torch.allclose(cut["stack.h.0.mlp.c_fc.weight"], whole["stack.h.0.mlp.c_fc.weight"])


def test_a_window_gives_the_gradient_of_its_loops_from_a_constant_state():
    model, inputs = looped(loops={"num_loops": 5, "window": 2}), vectors()
    found = gradients(model, inputs)
    with torch.no_grad():
        injected = model.read_in(inputs)
        state = torch.zeros_like(injected)
        for _ in range(3):
            state = model.stack(inputs_embeds=state + injected, use_cache=False).last_hidden_state
    model.zero_grad()
    for _ in range(2):
        state = model.stack(inputs_embeds=state + model.read_in(inputs), use_cache=False).last_hidden_state
    model.read_out(state).square().sum().backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


def test_a_compiled_model_takes_any_number_of_loops():
    """Gradients of the window and outputs by loop where the compiler makes the number a symbol."""
    torch.compiler.reset()
    model, inputs = looped(loops={"num_loops": 4, "window": 2}), vectors()
    compiled = torch.compile(model, backend="eager", dynamic=True)
    for num_loops in (4, 1):
        gradients = []
        for forward in (model, compiled):
            model.zero_grad()
            forward(inputs, num_loops=num_loops).by_loop.square().sum().backward()
            gradients.append(model.stack.h[0].mlp.c_fc.weight.grad.clone())
        torch.testing.assert_close(*gradients)


@given(length=st.integers(1, 70), last=st.integers(0, 80))
def test_masks_by_index(length, last):
    """Masks have the length of the sequence, whatever N is."""
    kept = kept_positions(length, last, torch.device("cpu"))
    expected = [i >= length - last for i in range(length)]
    assert expected == ([True] * length if kept is None else kept[:, 0].tolist())
    if last > 0:
        bias = attention_bias(length, last, torch.zeros(1))
        assert bias.shape == (1, 1, length, length)
        seen = (bias[0, 0] == 0).tolist()
        for i in range(length):
            assert [j for j in range(length) if seen[i][j]] == [*range(max(0, i - last + 1), i + 1)]


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_62_positions_of_which_the_last_60_count(block):
    """Where a mask of 58 positions beside the last 60 would have 118 of them; against masks that are written out."""
    positions = {"number": 62, "attend_last": 60, "keep_last": 60}
    model, inputs = looped(block, loops={"num_loops": 3}, positions=positions).eval(), vectors(62)
    seen = torch.tensor([[i - 60 < j <= i for j in range(62)] for i in range(62)])
    bias = torch.zeros(62, 62, dtype=torch.float64).masked_fill(~seen, -1e30)[None, None]
    kept = torch.tensor([0.0, 0.0] + [1.0] * 60, dtype=torch.float64)[:, None]
    injected = model.read_in(inputs)
    state = torch.zeros_like(injected)
    for _ in range(3):
        arguments = {"inputs_embeds": state * kept + injected, "attention_mask": bias, "use_cache": False}
        state = model.stack(**arguments).last_hidden_state
    torch.testing.assert_close(model(inputs).logits, model.read_out(state))
    every = looped(block, loops={"num_loops": 3}, positions={"number": 62}).eval()(inputs).logits
    assert not torch.allclose(model(inputs).logits, every)


@pytest.mark.parametrize("block", ["gpt2", "llama"])
@pytest.mark.parametrize("last", [1, 3])
def test_a_position_sees_the_last_n_only(block, last):
    """With one loop; a second one would look further through the state."""
    model = looped(block, loops={"num_loops": 1}, positions={"number": 16, "attend_last": last}).eval()
    inputs = vectors(8)
    before = model(inputs).logits
    for changed in range(8):
        other = inputs.clone()
        other[:, changed] += 1
        moved = (model(other).logits - before).abs().amax((0, 2)) > 1e-12
        assert moved.tolist() == [changed <= i < changed + last for i in range(8)]


@pytest.mark.parametrize("kind", ["add", "multiply", "none"])
def test_a_state_that_is_not_kept_starts_again(kind):
    """With none kept, every loop computes what one loop does; with all kept, the option changes nothing."""
    inputs, options = vectors(8), {"loops": {"num_loops": 4}, "injection": {"kind": kind}}
    none = looped(**options, positions={"number": 16, "keep_last": 0}).eval()
    by_loop = none(inputs).by_loop
    assert all(torch.equal(by_loop[0], other) for other in by_loop)
    every = looped(**options).eval()
    assert torch.equal(by_loop[0], every(inputs, num_loops=1).logits)
    assert not torch.allclose(none(inputs + 1).logits, none(inputs).logits)
    kept = looped(**options, positions={"number": 16, "keep_last": 8}).eval()
    assert torch.equal(kept(inputs).logits, every(inputs).logits)


def test_keys_of_transformers_are_taken():
    """As from a config.json of another version."""
    config = LoopedConfig(
        **SIZES, num_labels=3, use_cache=False, architectures=["LoopedModel"], attn_implementation="sdpa"
    )
    assert config.num_labels == 3
    tied = LoopedConfig(
        **SIZES, injection={"kind": "none", "scale_per_loop": True}, loops={"num_loops": 4, "window": 4}
    )
    assert gradients(LoopedModel(tied).double(), vectors()).keys() >= {"read_in.weight", "loop_scale"}


def test_options_are_neutral_at_their_initial_values():
    inputs, plain = vectors(), looped().eval()
    scaled = looped(injection={"learnable_scale": True, "scale_per_loop": True}).eval()
    assert torch.equal(scaled(inputs).logits, plain(inputs).logits)
    assert torch.equal(scaled(inputs, num_loops=20).logits, plain(inputs, num_loops=20).logits)
    added, multiplied = looped(loops={"num_loops": 1}), looped(loops={"num_loops": 1}, injection={"kind": "multiply"})
    assert torch.equal(multiplied(inputs).logits, added(inputs).logits)
    tied = looped(injection={"kind": "none"}, loops={"num_loops": 1})
    assert torch.equal(tied(inputs).logits, added(inputs).logits)


def test_a_summary_names_the_scales():
    model = looped(loops={"num_loops": 4}, injection={"learnable_scale": True, "scale_per_loop": True})
    groups = adapters.summary(adapters.attach(model, {"kind": "none"})).groups
    size = model.config.hidden_size
    assert (groups["scale per loop"].trainable, groups["injection scale"].trainable) == (4 * size, 1)
    ends = sum(p.numel() for end in (model.read_in, model.read_out) for p in end.parameters())
    assert groups["head"].parameters == ends


def test_loops_beyond_the_trained_ones_use_the_last_scale():
    model, inputs = looped(loops={"num_loops": 2}, injection={"scale_per_loop": True}).eval(), vectors()
    with torch.no_grad():
        model.loop_scale[1] = 1.5
    longer = looped(loops={"num_loops": 4}, injection={"scale_per_loop": True}).eval()
    with torch.no_grad():
        longer.loop_scale[1:] = 1.5
    torch.testing.assert_close(model(inputs, num_loops=4).logits, longer(inputs).logits)


def test_a_scale_has_the_length_that_it_was_made_with(tmp_path):
    """Whatever num_loops becomes; folders from before ``trained_loops`` have as many scales as loops."""
    model, inputs = looped(loops={"num_loops": 3}, injection={"scale_per_loop": True}).eval(), vectors()
    with torch.no_grad():
        model.loop_scale.mul_(torch.tensor([1.1, 1.2, 1.3], dtype=torch.float64)[:, None])
    for loops in (6, 2, 3):
        model.config.loops["num_loops"] = loops
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
        assert torch.equal(loaded(inputs).by_loop, model(inputs).by_loop)
        assert loaded.stack.loops.number == 3
    config = json.loads((tmp_path / "config.json").read_text())
    del config["trained_loops"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert AutoModel.from_pretrained(tmp_path).loop_scale.shape == (3, 16)


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_a_loaded_model_trains_what_the_saved_one_did(block, tmp_path):
    model = looped(block)
    model.save_pretrained(tmp_path)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    plain, (informed, _) = (AutoModel.from_pretrained(tmp_path, output_loading_info=i) for i in (False, True))
    for loaded in (plain, informed):
        assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == trained


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_the_attention_can_be_chosen(block, tmp_path):
    model, inputs = looped(block, positions={"number": 16, "attend_last": 3}).eval(), vectors()
    before = model(inputs).logits
    model.save_pretrained(tmp_path)
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float64, attn_implementation=name).eval()
        for other in (model, loaded):
            assert other.stack.config._attn_implementation == name
            torch.testing.assert_close(other(inputs).logits, before)


def test_a_frozen_model_of_vectors_is_recomputed_from_its_inputs():
    model, inputs = looped().train(), vectors()
    model.requires_grad_(False)
    model.enable_input_require_grads()
    getattr(model, CHECKPOINTING, model.gradient_checkpointing_enable)({"use_reentrant": True})
    model.read_out.requires_grad_(True)
    model.stack.h[0].mlp.c_fc.weight.requires_grad_(True)
    model(inputs).logits.sum().backward()
    assert model.stack.h[0].mlp.c_fc.weight.grad.any()
    with pytest.raises(ConfigurationError, match=r"'vocab_size'.*vectors"):
        model.resize_token_embeddings(5)


@pytest.mark.parametrize("block", ["gpt2", "llama"])
def test_wrong_calls_are_refused(block):
    model, inputs = looped(block).eval(), vectors()
    for key in ("num_loops", "read_last"):
        for value in (0, -1, 1.5, "3", True):
            with pytest.raises(ConfigurationError, match=f"'{key}'.*positive integer.*{value}"):
                model(inputs, **{key: value})
    model(vectors(16))
    with pytest.raises(ConfigurationError, match=r"'number'.*length of the input; got 16 for 17: shorten"):
        model(vectors(17))


def test_what_is_read_out():
    model, inputs = looped(loops={"num_loops": 5, "window": 2}), vectors()
    assert model.eval()(inputs).by_loop.shape == (5, 2, 6, 2)
    assert model.train()(inputs).by_loop.shape == (2, 2, 6, 2)
    output = model.eval()(inputs, num_loops=9, read_last=3, output_states=True)
    assert (output.loops, output.by_loop.shape, output.states.shape) == (9, (3, 2, 6, 2), (3, 2, 6, 16))
    assert torch.equal(output.logits, output.by_loop[-1])


def test_it_stops_when_the_state_has_settled():
    inputs = vectors()
    model = looped(loops={"num_loops": 50, "stop_tolerance": 1e9}).eval()
    assert model(inputs).loops == 1
    assert model.train()(inputs).loops == 50


def test_tokens_have_logits_over_the_vocabulary():
    model = LoopedModel(LoopedConfig(hidden_size=16, num_heads=2, vocab_size=11, positions={"number": 8}))
    assert model(torch.randint(11, (2, 5))).logits.shape == (2, 5, 11)


def test_a_folder_gives_the_same_model(tmp_path):
    model, inputs = looped(loops={"num_loops": 3, "window": 2}, injection={"scale_per_loop": True}).eval(), vectors()
    with torch.no_grad():
        model.loop_scale.mul_(1.1)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert isinstance(loaded, LoopedModel)
    assert torch.equal(loaded(inputs).by_loop, model(inputs).by_loop)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"block": "bert"}, ("'block'", "gpt2, llama", "'bert'")),
        ({"hidden_size": 15}, ("'hidden_size'", "multiple of num_heads")),
        ({"hidden_size": "64"}, ("'hidden_size'", "integer", "'64'")),
        ({"hidden_size": 0}, ("'hidden_size'", "at least 1")),
        ({"num_heads": 0}, ("'num_heads'", "at least 1")),
        ({"num_heads": -2}, ("'num_heads'", "at least 1")),
        ({"num_heads": None}, ("'num_heads'", "integer")),
        ({"n_layer": 1.5}, ("'n_layer'", "integer")),
        ({"n_layer": True}, ("'n_layer'", "integer")),
        ({"block": "llama", "hidden_size": 6, "num_heads": 2}, ("'hidden_size'", "even", "3")),
        ({"output_size": None}, ("'output_size'", "required with vectors")),
        ({"output_size": 0}, ("'output_size'", "at least 1", "0")),
        ({"output_size": -2}, ("'output_size'", "at least 1", "-2")),
        ({"input_size": 0}, ("'input_size'", "at least 1", "0")),
        ({"input_size": -1}, ("'input_size'", "at least 1", "-1")),
        ({"input_size": "3"}, ("'input_size'", "integer", "'3'")),
        ({"vocab_size": -1}, ("'vocab_size'", "at least 1", "-1")),
        ({"trained_loops": 0}, ("'trained_loops'", "at least 1", "0")),
        ({"n_layers": 4}, ("'n_layers'", "did you mean 'n_layer'?")),
        ({"position": {}}, ("'position'", "did you mean 'positions'?")),
        ({"loops": 3}, ("'loops'", "object", "3", "Loops")),
        ({"loops": 0}, ("'loops'", "object", "0")),
        ({"injection": Injection(kind="concatenate")}, ("'kind'", "injection", "concatenate")),
        (
            {"injection": {"kind": "none", "learnable_scale": True}},
            ("'learnable_scale'", 'kind "none"', "leave it out"),
        ),
        (
            {"injection": {"kind": "none"}, "loops": {"num_loops": 4, "window": 3}},
            ("'window'", "at least num_loops", "3 of 4"),
        ),
        ({"loops": {"num_loops": 0}}, ("'num_loops'", "at least 1", "0")),
        ({"loops": {"loops": 3}}, ("'loops'", "num_loops")),
        ({"loops": {"stop_tolerance": 0.0}}, ("'stop_tolerance'", "positive")),
        ({"injection": {"kind": "concatenate"}}, ("'kind'", "injection", "concatenate")),
        ({"positions": {"attend_last": 0}}, ("'attend_last'", "at least 1")),
        ({"positions": {"keep_last": -1}}, ("'keep_last'", "at least 0")),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, parts):
    with pytest.raises(ConfigurationError) as caught:
        LoopedConfig(**{**SIZES, **options})
    assert all(part in str(caught.value) for part in parts), str(caught.value)
