"""The looped transformer against an unrolled model, masks by property, and what it saves."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel

import adapters
from adapters import ConfigurationError
from third_party.models.looped import LoopedConfig, LoopedModel
from third_party.models.looped.masks import attention_bias, kept_positions

SIZES = {"hidden_size": 16, "num_heads": 2, "input_size": 3, "output_size": 2, "positions": {"number": 16}}


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


@given(length=st.integers(1, 70), last=st.integers(0, 80))
def test_masks_by_index(length, last):
    """Also 60 positions of 62 with 58 others before: masks have the length of the sequence, whatever N is."""
    kept = kept_positions(length, last, torch.device("cpu"))
    expected = [i >= length - last for i in range(length)]
    assert expected == ([True] * length if kept is None else kept[:, 0].tolist())
    if last > 0:
        bias = attention_bias(length, last, torch.zeros(1))
        assert bias.shape == (1, 1, length, length)
        for i in range(length):
            assert [j for j in range(length) if bias[0, 0, i, j] == 0] == [*range(max(0, i - last + 1), i + 1)]


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


def test_a_state_that_is_not_kept_starts_again():
    """With none kept, every loop computes what the first one does; with all kept, the option changes nothing."""
    inputs = vectors(8)
    none = looped(loops={"num_loops": 4}, positions={"number": 16, "keep_last": 0}).eval()
    by_loop = none(inputs).by_loop
    assert all(torch.equal(by_loop[0], other) for other in by_loop)
    every = looped(loops={"num_loops": 4}).eval()
    kept = looped(loops={"num_loops": 4}, positions={"number": 16, "keep_last": 8}).eval()
    assert torch.equal(kept(inputs).logits, every(inputs).logits)


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
