"""``adapter_names``: each row of a batch gets what it gets alone, with its own adapter active."""

import pytest
import torch
from peft import TaskType
from torch import nn

from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import adapted, bert, gpt2, layers, llama, primes, scrambled, t5

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BATCH = torch.arange(1, 21).reshape(5, 4) % 19
NAMES = ["second", "__base__", "default", "second", "third"]
TARGETS = {t5: ["wi", "q", "v"], llama: ["q_proj", "up_proj"], gpt2: ["c_attn", "c_fc"], bert: ["query", "value"]}


def three_adapters(base=llama, **fields):
    """Adapters of different formats; the second one is in some of the linears only, with a bias."""
    model, targets = adapted(base(), target_modules=TARGETS[base], **fields), TARGETS[base]
    others = {
        "second": {
            "modes": ["in", "out"],
            "rank": 3,
            "dropout": 0.5,
            "delta_bias": "dense",
            "target_modules": targets[:1],
        },
        "third": {"format": "cp", "rank": 2, "target_modules": targets},
    }
    for seed, (name, values) in enumerate(others.items(), 2):
        model.add_adapter(name, TensorTrainConfig(**values, **fields))
        scrambled(model, name, seed)
    return model.eval()


def alone(model, name, call):
    """The result of one row with one adapter active, or none."""
    if name == "__base__":
        with model.disable_adapter():
            return call()
    active = model.active_adapter
    model.set_adapter(name)
    result = call()
    model.set_adapter(active)
    return result


def logits(model, rows, **names):
    decoder = {"decoder_input_ids": rows} if model.config.is_encoder_decoder else {}
    return model(input_ids=rows, **decoder, **names).logits


def check_rows(model, names=NAMES):
    mixed = logits(model, BATCH[: len(names)], adapter_names=names)
    for row, name in enumerate(names):
        expected = alone(model, name, lambda row=row: logits(model, BATCH[row : row + 1]))
        torch.testing.assert_close(mixed[row : row + 1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("base", [t5, llama, gpt2, bert], ids=lambda base: base.__name__)
@torch.no_grad()
def test_each_row_goes_through_its_adapter(base):
    model = three_adapters(base)
    plain = logits(model, BATCH)
    check_rows(model)
    assert torch.equal(logits(model, BATCH), plain)


@torch.no_grad()
def test_the_base_product_is_computed_once():
    model, calls = three_adapters(), []
    for layer in layers(model).values():
        layer.base_layer.register_forward_hook(lambda *_: calls.append(1))
    logits(model, BATCH, adapter_names=NAMES)
    assert len(calls) == len(layers(model))


def test_gradients_reach_the_adapters_of_the_batch():
    model = three_adapters()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    logits(model, BATCH[:2], adapter_names=["second", "__base__"]).sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any(".second." in name for name in with_gradient)
    assert not any(".default." in name or ".third." in name for name in with_gradient)


@pytest.mark.parametrize(("base", "task"), [(llama, TaskType.CAUSAL_LM), (t5, TaskType.SEQ_2_SEQ_LM), (gpt2, None)])
@pytest.mark.parametrize("beams", [{}, {"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}], ids=str)
@torch.no_grad()
def test_generation_repeats_names_with_rows(base, task, beams):
    model = three_adapters(base, task_type=task)
    given = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0, **beams}

    def generate(rows, **names):
        return model.generate(input_ids=rows, attention_mask=torch.ones_like(rows), **given, **names)

    mixed, returned = generate(BATCH, adapter_names=NAMES), beams.get("num_return_sequences", 1)
    for row, name in enumerate(NAMES):
        expected = alone(model, name, lambda row=row: generate(BATCH[row : row + 1]))
        assert torch.equal(mixed[row * returned : (row + 1) * returned], expected)


@torch.no_grad()
def test_modules_to_save_follow_the_rows():
    model = adapted(bert(), target_modules=["query"], modules_to_save=["classifier"])
    model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["value"], modules_to_save=["classifier"]))
    model.add_adapter("third", TensorTrainConfig(rank=2, target_modules=["value"]))
    for seed, name in enumerate(("second", "third"), 2):
        scrambled(model, name, seed)
    head = model.base_model.model.classifier
    for k, name in enumerate(("default", "second"), 1):
        nn.init.constant_(head.modules_to_save[name].bias, float(k))
    check_rows(model, ["second", "default", "__base__"])
    mixed = logits(model, BATCH[:1], adapter_names=["third"])
    torch.testing.assert_close(mixed, alone(model, "third", lambda: logits(model, BATCH[:1])))
    model.base_model.model.compile(backend="eager")
    with pytest.raises(ConfigurationError, match=r"does not reach modules_to_save of a compiled model"):
        logits(model, BATCH[:1], adapter_names=["third"])


@torch.no_grad()
def test_compiled_model_takes_names_after_calls_without():
    model, x = adapted(primes(), target_modules=["0"]), torch.linspace(-1, 1, 62).reshape(2, 31)
    both = torch.cat([model(x[:1]), primes()(x[1:])])
    model.base_model.model[0].compile(backend="eager")
    model(x)
    torch.testing.assert_close(model(x, adapter_names=["default", "__base__"]), both)


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        (["default"], None, r"one name for each row.*got 1 names for 2 rows: name the adapter of each"),
        (["default"] * 4, None, r"got 4 names for 2 rows"),
        ([], None, r"got 0 names for 2 rows"),
        (["default", "secnd"], None, r"chosen by its name; got 'secnd': did you mean 'second'\? Known are default, se"),
        (
            ["default", "second"],
            lambda model: model.train(),
            r"is for evaluation; got .* in training mode.*model\.eval",
        ),
        (
            ["default", "second"],
            lambda model: model.merge_adapter(["third"]),
            r"while \['third'\] are merged: call unme",
        ),
    ],
)
@torch.no_grad()
def test_what_a_mixed_batch_cannot_be_is_refused_and_nothing_stays(names, change, message):
    model = three_adapters()
    if change is not None:
        change(model)
    with pytest.raises(ConfigurationError, match=message):
        logits(model, BATCH[:2], adapter_names=names)
    assert all(layer.row_adapters is None and not layer._forward_pre_hooks for layer in layers(model).values())
    logits(model, BATCH)


@pytest.mark.parametrize("names", ["default", [None, "default"]])
def test_names_are_a_list_of_strings(names):
    with pytest.raises(TypeError, match="adapter_names should be a list of strings, one for each row"):
        logits(three_adapters(), BATCH[:2], adapter_names=names)


def test_alora_is_refused():
    with pytest.raises(ValueError, match=r"act on all tokens; got alora_offsets=\[1, 1\]"):
        logits(three_adapters(), BATCH[:2], alora_offsets=[1, 1])
