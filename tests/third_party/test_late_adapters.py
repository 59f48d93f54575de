"""Whole checkpoints of models whose adapters PEFT makes from the base's weights."""

import pytest
import torch

import adapters
from tests.third_party import tiny
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

BATCH = {"input_ids": torch.tensor([[5, 6, 7, 1]]), "labels": torch.tensor([[8, 9, 1]])}
LORA = {"kind": "peft:LORA", "r": 2}
ADAPTERS = {
    "LORA": LORA,
    "VERA": {"kind": "peft:VERA", "r": 8},
    "VBLORA": {"kind": "peft:VBLORA", "vector_length": 8, "num_vectors": 8},
    "OSF": {"kind": "peft:OSF"},
    "PSOFT": {"kind": "peft:PSOFT", "r": 2},
    "LN_TUNING": {"kind": "peft:LN_TUNING"},
    "composed": [LORA, {"kind": "tt_lora", "rank": 2, "shared_cores": [0]}, {"kind": "layer_norm"}],
}


@pytest.fixture
def folder(tmp_path):
    tiny.base_model("relu").save_pretrained(tmp_path / "base")
    return tmp_path


@torch.no_grad()
def logits(model):
    return model.eval()(**BATCH).logits


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_a_whole_model_carries_them(folder, adapter, caplog):
    model = tiny.adapted_model(folder / "base", adapter)
    tiny.randomize(model, 0.1)
    expected = logits(model)
    model.save_pretrained(folder / "whole")
    torch.manual_seed(9)
    caplog.clear()
    loaded, info = T5ForConditionalGeneration.from_pretrained(folder / "whole", output_loading_info=True)
    assert torch.equal(logits(loaded), expected)
    assert adapters.attachments(loaded) == adapters.attachments(model)
    trains = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (loaded, model)]
    assert trains[0] == trains[1]
    assert not info["unexpected_keys"]
    assert "UNEXPECTED" not in caplog.text


def test_a_configuration_by_hand_starts_them_on_the_loaded_base(folder):
    config = T5Config.from_pretrained(folder / "base", adapters=ADAPTERS["composed"])
    model = T5ForConditionalGeneration.from_pretrained(folder / "base", config=config)
    assert [attachment.name for attachment in adapters.attachments(model)] == ["peft:LORA", "tt_lora", "layer_norm"]
    assert torch.equal(logits(model), logits(tiny.base_model("relu")))


def test_a_model_that_is_not_loaded_has_them_at_once():
    model = T5ForConditionalGeneration(T5Config(**tiny.SIZES, adapters=LORA))
    assert [attachment.name for attachment in adapters.attachments(model)] == ["peft:LORA"]


def test_a_checkpoint_with_some_of_their_tensors_is_refused(folder):
    tiny.adapted_model(folder / "base", LORA).save_pretrained(folder / "whole")
    config = T5Config.from_pretrained(folder / "whole", adapters=[LORA, {"kind": "tt_lora", "rank": 2}])
    with pytest.raises(adapters.CheckpointError, match=r"must hold every adapter tensor; got none for '.*tt_lora"):
        T5ForConditionalGeneration.from_pretrained(folder / "whole", config=config)


def test_plain_transformers_reads_the_base_out_of_a_whole_model(folder):
    model = tiny.adapted_model(folder / "base", LORA)
    tiny.randomize(model)
    model.save_pretrained(folder / "whole")
    plain = tiny.T5ForConditionalGeneration.from_pretrained(folder / "whole")
    assert torch.equal(logits(plain), logits(tiny.base_model("relu")))


def test_training_stopped_and_resumed_is_training_in_one_go(folder):
    vera = ADAPTERS["VERA"]
    whole = tiny.make_trainer(folder / "base", folder / "one", vera, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = tiny.make_trainer(folder / "base", folder / "two", vera)
    resumed.train(resume_from_checkpoint=str(folder / "one" / "checkpoint-2"))
    tiny.assert_same_tensors(tiny.tensors(resumed.model), tiny.tensors(whole.model))
    assert whole.evaluate()["eval_loss"] > 0
    assert not adapters.is_merged(whole.model)
