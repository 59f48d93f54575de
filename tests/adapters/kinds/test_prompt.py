"""Prompts against the base model on the extended input, for all calls of a T5; initialization and errors."""

import pytest
import torch
import transformers

import adapters
from adapters import AdapterConfig, ConfigurationError, MergeError

N, D = 4, 24
PROMPT = {"kind": "prompt", "num_tokens": N}
NAME = "encoder.adapted_input.before.prompt.tasks.all_tasks.embeddings"


@pytest.fixture
def padded():
    """Two sequences of unequal lengths with their mask, and labels."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(2, 50, (2, 7), generator=generator)
    ids[1, 4:] = 0
    labels = torch.randint(2, 50, (2, 5), generator=generator)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


@pytest.fixture
def pair(tiny_t5, trained):
    """A function that builds a T5 with a trained prompt, and the base model without one."""

    def make(description=PROMPT, dtype=torch.float32):
        return trained(adapters.attach(tiny_t5().to(dtype), description)), tiny_t5().to(dtype)

    return make


def longer(base, prompt, batch):
    """The batch as the base model gets it where the prompt is part of the text."""
    embedded = base.shared(batch["input_ids"])
    rows = prompt.to(embedded.dtype)[None].expand(len(embedded), -1, -1)
    ones = torch.ones(len(embedded), len(prompt), dtype=torch.long)
    inputs = {"inputs_embeds": torch.cat([rows, embedded], dim=1)}
    if "attention_mask" in batch:
        inputs["attention_mask"] = torch.cat([ones, batch["attention_mask"]], dim=1)
    return inputs | {name: batch[name] for name in ("labels",) if name in batch}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [True, False])
@torch.no_grad()
def test_the_model_equals_the_base_model_on_the_extended_input(pair, padded, mask, dtype):
    model, base = pair(dtype=dtype)
    if not mask:
        padded.pop("attention_mask")
    prompt = model.get_parameter(NAME)
    assert prompt.shape == (N, D)
    assert prompt.dtype == torch.float32
    results, expected = model(**padded), base(**longer(base, prompt, padded))
    assert torch.equal(results.logits, expected.logits)
    assert torch.equal(results.loss, expected.loss)
    assert results.encoder_last_hidden_state.shape == (2, N + 7, D)
    assert results.logits.dtype == dtype
    assert not torch.allclose(results.logits, base(**padded).logits, rtol=1e-2)


@torch.no_grad()
def test_tokens_embeddings_and_encoder_outputs_are_equivalent_inputs(pair, padded):
    model, _ = pair()
    expected = model(**padded).logits
    rest = {name: padded[name] for name in ("attention_mask", "labels")}
    embedded = model.shared(padded["input_ids"])
    assert torch.equal(model(inputs_embeds=embedded, **rest).logits, expected)
    encoded = model.encoder(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
    by_position = model.encoder(padded["input_ids"], padded["attention_mask"])
    assert torch.equal(by_position.last_hidden_state, encoded.last_hidden_state)
    assert torch.equal(model(encoder_outputs=encoded, **rest).logits, expected)
    states = model.encoder(input_ids=padded["input_ids"], output_hidden_states=True).hidden_states
    assert {tuple(state.shape) for state in states} == {(2, N + 7, D)}


@torch.no_grad()
def test_padding_does_not_change_the_output(pair, padded):
    model, _ = pair()
    together = model(**padded).logits[1]
    alone = model(input_ids=padded["input_ids"][1:, :4], labels=padded["labels"][1:]).logits[0]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_equals_that_of_the_base_model_on_the_extended_input(pair, padded, beams, use_cache):
    model, base = pair()
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams, "use_cache": use_cache}
    inputs = longer(base, model.get_parameter(NAME).detach(), padded)
    del padded["labels"], inputs["labels"]
    tokens = model.generate(**padded, **options)
    assert torch.equal(tokens, base.generate(**inputs, **options))
    assert torch.equal(tokens[:1], model.generate(padded["input_ids"][:1], **options))
    embedded = model.shared(padded["input_ids"])
    from_embeddings = model.generate(inputs_embeds=embedded, attention_mask=padded["attention_mask"], **options)
    assert torch.equal(tokens, from_embeddings)


def test_the_gradient_is_that_of_the_extended_input(pair, padded):
    model, base = pair()
    model(**padded).loss.backward()
    prompt = model.get_parameter(NAME).detach().clone().requires_grad_()
    base(**longer(base, prompt, padded)).loss.backward()
    torch.testing.assert_close(model.get_parameter(NAME).grad, prompt.grad)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == [NAME]


def test_the_stack_keeps_its_parameter_names(pair):
    model, base = pair()
    assert set(model.state_dict()) - set(base.state_dict()) == {NAME}
    assert adapters.summary(model).layers["encoder"].trainable == N * D


@torch.no_grad()
def test_a_task_without_a_prompt_equals_the_base_model(tiny_t5, trained, padded):
    model, base = tiny_t5(), tiny_t5()
    adapters.attach(model, PROMPT, "a")
    adapters.attach(model, {"kind": "prompt", "num_tokens": 2}, "b")
    trained(model)
    for task, length in ((None, 0), ("a", N), ("b", 2)):
        adapters.set_active_task(model, task)
        results = model(**padded)
        assert results.encoder_last_hidden_state.shape[1] == length + 7
        assert torch.equal(results.logits, base(**padded).logits) == (task is None)
        tokens = model.generate(padded["input_ids"], attention_mask=padded["attention_mask"], max_new_tokens=3)
        assert len(tokens) == 2


@torch.no_grad()
def test_two_prompts_are_concatenated(tiny_t5, padded):
    model = adapters.attach(tiny_t5(), [PROMPT, {"kind": "prompt", "num_tokens": 2}])
    inner, outer = (
        model.get_parameter(NAME.replace(".prompt.", f".{name}.")).detach() for name in ("prompt", "prompt_2")
    )
    base = tiny_t5()
    expected = base(**longer(base, torch.cat([outer, inner]), padded)).logits
    assert torch.equal(model(**padded).logits, expected)


def test_init_vocabulary_copies_distinct_pieces(tiny_t5):
    model = adapters.attach(tiny_t5(), {"kind": "prompt", "num_tokens": 40})
    prompt, embedding = model.get_parameter(NAME), model.shared.weight
    pieces = [(embedding == row).all(dim=1).nonzero().item() for row in prompt]
    assert len(set(pieces)) == 40
    assert min(pieces) >= 3  # padding, end and unknown are no words
    with torch.no_grad():
        before = embedding.clone()
        prompt.add_(1)
    assert torch.equal(embedding, before)


def test_more_tokens_than_pieces_are_drawn_with_replacement(tiny_t5):
    model = adapters.attach(tiny_t5(), {"kind": "prompt", "num_tokens": 60})
    prompt, embedding = model.get_parameter(NAME), model.shared.weight
    assert all((embedding[3:] == row).all(dim=1).any() for row in prompt)


def test_only_common_pieces_are_drawn():
    embedding = torch.arange(20_000.0)[:, None].expand(-1, 2)
    rows = AdapterConfig.from_dict({"kind": "prompt", "num_tokens": 4_900}).build(embedding).embeddings[:, 0]
    assert 3 <= rows.min() < rows.max() < 5_003
    assert len(rows.unique()) == 4_900


def test_init_random_is_uniform_in_minus_and_plus_one_half():
    config = AdapterConfig.from_dict({"kind": "prompt", "num_tokens": 400, "init": "random"})
    values = config.build(torch.full((5, 50), 9.0)).embeddings.detach()
    assert -0.5 <= values.min() < -0.499 < 0.499 < values.max() <= 0.5
    assert abs(values.mean()) < 4 * (1 / 12 / values.numel()) ** 0.5
    assert abs(values.std() - (1 / 12) ** 0.5) < 0.005


@pytest.mark.parametrize("init", ["vocabulary", "random"])
def test_the_initial_prompt_depends_on_torch_s_seed(tiny_t5, init):
    def start(seed):
        model = tiny_t5()
        torch.manual_seed(seed)
        return adapters.attach(model, {**PROMPT, "init": init}).get_parameter(NAME)

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_a_prompt_cannot_be_merged_and_other_adapters_stay_unmerged(pair, padded):
    model, _ = pair([{"kind": "tt_lora", "rank": 2}, PROMPT])
    place = "encoder.adapted_input.before.prompt"
    assert adapters.unmergeable(model) == place
    assert adapters.summary(model).cannot_be_merged == ["prompt"]
    with pytest.raises(MergeError, match=rf"{place}, which lengthens the input and does not change a weight: evaluate"):
        adapters.merge(model)
    assert not adapters.is_merged(model)


def test_a_task_without_a_prompt_can_be_merged(tiny_t5, trained, logits):
    model = tiny_t5()
    adapters.attach(model, {"kind": "tt_lora", "rank": 2})
    adapters.attach(model, PROMPT, "a")
    trained(model)
    unmerged = logits(model)
    adapters.merge(model)
    torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)
    merged = logits(model)
    with pytest.raises(MergeError, match="lengthens the input"):
        adapters.set_active_task(model, "a")
    assert torch.equal(logits(model), merged)


def test_a_mask_of_another_shape_raises_an_error(pair, padded):
    model, _ = pair()
    square = torch.ones(2, 1, 7, 7)
    with pytest.raises(ConfigurationError, match=r"got one of shape \(2, 1, 7, 7\): pass the padding mask"):
        model.encoder(padded["input_ids"], square)


@pytest.mark.parametrize("both", [True, False])
def test_the_stack_needs_exactly_one_of_tokens_and_embeddings(pair, padded, both):
    model, _ = pair()
    inputs = {"input_ids": padded["input_ids"], "inputs_embeds": torch.zeros(2, 7, D)} if both else {}
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model.encoder(**inputs)


def test_an_encoder_only_model_supports_prompts(padded):
    config = transformers.T5Config(vocab_size=50, d_model=D, d_kv=6, d_ff=48, num_heads=4, num_layers=1)
    model = adapters.attach(transformers.T5EncoderModel(config).eval(), PROMPT)
    outputs = model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])
    assert outputs.last_hidden_state.shape == (2, N + 7, D)


@pytest.mark.slow
def test_torch_compile_is_supported(tiny_t5, padded):
    model = adapters.attach(tiny_t5(num_layers=1, num_decoder_layers=1), PROMPT)
    with torch.no_grad():
        inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
        expected = model.encoder(**inputs).last_hidden_state
        torch._dynamo.reset()
        compiled = torch.compile(model.encoder, backend="eager")
        torch.testing.assert_close(compiled(**inputs).last_hidden_state, expected)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_tokens": 0}, ["'num_tokens'", "got 0"]),
        ({"num_tokens": 2.5}, ["'num_tokens'", "2.5"]),
        ({"init": "glorot"}, ["'init'", "'glorot'", "'vocabulary'"]),
        ({"stacks": ["decoder"]}, ["'stacks'", "'encoder'"]),
        ({"layers": [0]}, ["'layers'", "[0]"]),
        ({"num_token": 3}, ["'num_token'", "'num_tokens'"]),
    ],
    ids=str,
)
def test_invalid_fields_raise_an_error(fields, named):
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict({**PROMPT, **fields})
    assert all(name in str(error.value) for name in named), str(error.value)


def test_the_parameter_count_of_t5_base():
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(d_model=768, num_layers=12))
    adapters.attach(model, {"kind": "prompt"})
    assert adapters.summary(model).total.trainable == 100 * 768
