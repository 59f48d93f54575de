"""What a T5 with adapters says: by the active task, merged and unmerged, step by step and by generate."""

import pytest
import torch

import adapters
from adapters import ConfigurationError
from tests.third_party import t5_models, tiny
from third_party.models.t5 import T5ForConditionalGeneration


def test_active_task_decides_which_adapters_act(bases, tmp_path):
    model = t5_models.two_tasks(bases["relu"])
    expected = {}
    for task in ("rte", "cola", None):
        model.set_active_task(task)
        expected[task] = t5_models.logits(model)
    assert not torch.equal(expected["rte"], expected["cola"])
    assert not torch.equal(expected["rte"], expected[None])

    model.save_pretrained(tmp_path)
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path)
    for task, before in expected.items():
        reloaded.set_active_task(task)
        assert torch.equal(t5_models.logits(reloaded), before)


def test_unknown_task_is_refused_and_the_active_one_stays(bases):
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"])
    adapters.attach(model, tiny.LORA, task="rte")
    tiny.randomize(model)
    model.set_active_task("rte")
    before = t5_models.logits(model)
    with pytest.raises(ConfigurationError, match="got 'rtee': did you mean 'rte'"):
        model.set_active_task("rtee")
    assert torch.equal(t5_models.logits(model), before)


def greedy(model, length):
    """Greedy decoding by whole forwards, without generate and without its cache."""
    ids = torch.zeros(len(t5_models.BATCH["input_ids"]), 1, dtype=torch.long)
    for _ in range(length):
        with torch.no_grad():
            step = model(input_ids=t5_models.BATCH["input_ids"], decoder_input_ids=ids).logits[:, -1]
        ids = torch.cat([ids, step.argmax(-1, keepdim=True)], dim=1)
    return ids


def until_end(ids):
    """Rows cut behind the first end-of-text, without padding."""
    return [row[: row.index(1) + 1] if 1 in row else row for row in ids.tolist()]


@pytest.mark.parametrize("task", ["rte", "cola", None])
def test_generate_follows_the_active_task(bases, task):
    model = t5_models.two_tasks(bases["relu"]).eval()
    model.set_active_task(task)
    generated = model.generate(input_ids=t5_models.BATCH["input_ids"], max_new_tokens=8, do_sample=False)
    assert until_end(generated) == until_end(greedy(model, 8))
    with pytest.raises(ValueError, match="task"):
        model.generate(input_ids=t5_models.BATCH["input_ids"], max_new_tokens=2, task=task or "rte")


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_merged_and_unmerged(bases, beams):
    model = t5_models.two_tasks(bases["relu"]).eval()
    texts = {}
    for task in ("rte", "cola"):
        model.set_active_task(task)
        ask = {"input_ids": t5_models.BATCH["input_ids"], "max_new_tokens": 8, "num_beams": beams, "do_sample": False}
        texts[task] = model.generate(**ask)
        with adapters.merged(model):
            assert torch.equal(model.generate(**ask), texts[task])
    assert texts["rte"].tolist() != texts["cola"].tolist()


@pytest.mark.parametrize("kind", t5_models.MERGEABLE)
def test_merged_logits_are_the_unmerged(bases, kind):
    model = tiny.adapted_model(bases["gated"], t5_models.EVERY_KIND[kind])
    tiny.randomize(model, 0.1)
    unmerged = t5_models.logits(model)
    with adapters.merged(model):
        merged = t5_models.logits(model)
    assert float((merged - unmerged).abs().max() / unmerged.abs().max()) < 1e-5
    assert torch.equal(t5_models.logits(model), unmerged)
