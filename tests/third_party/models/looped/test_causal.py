"""Looped language models: greedy generation, the loss under a Trainer, other vocabularies, recomputation with PEFT."""

import peft
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from adapters import ConfigurationError
from third_party.models.looped import LoopedConfig, LoopedForCausalLM, LoopedModel

SIZES = {"hidden_size": 16, "num_heads": 2, "vocab_size": 11, "positions": {"number": 16}}
CHECKPOINTING = "activation_checkpointing_enable"


def language_model(**options):
    torch.manual_seed(0)
    return LoopedForCausalLM(LoopedConfig(**{**SIZES, "loops": {"num_loops": 3}, **options}))


def token_ids(batch=2, length=4):
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(1))


def test_token_models_generate(tmp_path):
    """Greedily what the logits say, also with other loops; without a cache, whatever is asked for."""
    model = language_model().eval()
    with torch.no_grad():
        for parameter in model.stack.h.parameters():
            parameter.mul_(20)
    ids = torch.randint(11, (2, 4))
    generated = [model.generate(ids, max_new_tokens=5, do_sample=False, num_loops=loops) for loops in (3, 6)]
    assert not torch.equal(*generated)
    for options in ({}, {"use_cache": True}, {"num_loops": 6}):
        expected = ids
        for _ in range(5):
            found = model(expected, num_loops=options.get("num_loops")).logits[:, -1].argmax(-1)
            expected = torch.cat([expected, found[:, None]], 1)
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False, **options), expected)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, LoopedForCausalLM)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    labels = torch.where(torch.rand(2, 4) < 0.3, -100, ids)
    expected = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(model(ids, labels=labels).loss, expected)
    with pytest.raises(ConfigurationError, match=r"'num_loop'.*read_last"):
        model(ids, num_loop=3)
    with pytest.raises(ConfigurationError, match=r"'attention_mask'.*padding"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1, 1]] * 2))
    with pytest.raises(ConfigurationError, match=r"'input_size'.*vectors"):
        LoopedForCausalLM(LoopedConfig(input_size=3, output_size=1))


def test_generate_refuses_what_it_cannot_give():
    model, ids = language_model().eval(), token_ids()
    for key in ("output_hidden_states", "output_attentions"):
        with pytest.raises(ConfigurationError, match=f"'{key}'.*output_states=True"):
            model.generate(ids, max_new_tokens=2, return_dict_in_generate=True, **{key: True})
        with pytest.raises(ConfigurationError, match=f"'{key}'.*output_states=True"):
            model(ids, **{key: True})
        assert model(ids, **{key: False}).logits.shape == (2, 4, 11)
    with pytest.raises(ConfigurationError, match=r"'number'.*length of the input; got 16 for 17"):
        model.generate(ids, max_new_tokens=14, do_sample=False)


def test_a_trainer_divides_by_the_labels_of_all_accumulated_batches(tmp_path):
    """Two steps of two batches with other numbers of labels, against SGD on both batches at once."""
    ids = token_ids(8, 6)
    labels = ids.clone()
    labels[::2, 3:] = -100
    data = [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 2, "max_grad_norm": 0.0}
    quiet = {"report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "logging_strategy": "no"}
    plain = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
    }
    model, reference = language_model(), language_model()
    trainer = Trainer(model, TrainingArguments(str(tmp_path), **options, **quiet, **plain), train_dataset=data)
    trainer.train()
    for rows in (slice(0, 4), slice(4, 8)):
        reference.zero_grad()
        logits = reference(ids[rows]).logits[:, :-1]
        cross_entropy(logits.flatten(0, 1), labels[rows, 1:].flatten()).backward()
        with torch.no_grad():
            for parameter in reference.parameters():
                if parameter.grad is not None:
                    parameter -= 0.5 * parameter.grad
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, reference.get_parameter(name), rtol=1e-4, atol=1e-6, msg=name)
    found = trainer.predict(data)
    assert found.predictions.shape == (8, 6, 11)
    assert found.metrics["test_loss"] > 0


@pytest.mark.parametrize("size", [13, 9])
def test_a_vocabulary_is_resized(size, tmp_path):
    model, ids = language_model().eval(), token_ids().clamp(max=8)
    before = model(ids).logits
    model.resize_token_embeddings(size)
    assert (model.config.vocab_size, model.read_in.num_embeddings, model.read_out.out_features) == (size, size, size)
    torch.testing.assert_close(model(ids).logits[..., : min(size, 11)], before[..., :size])
    assert model(torch.full_like(ids, size - 1), labels=ids).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_read_out_of_numbers_keeps_its_size():
    model = LoopedModel(LoopedConfig(**SIZES, output_size=2))
    model.resize_token_embeddings(13)
    assert model(torch.full((1, 4), 12)).logits.shape == (1, 4, 2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.parametrize("reentrant", [True, False])
def test_lora_trains_with_recomputation(reentrant):
    ids, found = token_ids(), []
    for recomputed in (False, True):
        config = peft.LoraConfig(target_modules=["c_fc"], fan_in_fan_out=True, init_lora_weights=False)
        model = language_model()
        torch.manual_seed(3)
        model = peft.get_peft_model(model, config)
        if recomputed:
            model.enable_input_require_grads()
            getattr(model, CHECKPOINTING, model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
        model.train()(input_ids=ids, labels=ids).loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in found[0].items():
        assert gradient.any()
        torch.testing.assert_close(found[1][name], gradient)
