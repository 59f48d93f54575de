"""The causal trainer's loss, likelihoods and continuations against plain loops in float64, padded and packed."""

from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import GenerationConfig, TrainingArguments

from tests.seq2seq.causal_models import tiny_model
from third_party.trainers import CausalTrainer, left_padded, packed
from third_party.trainers import causal_trainer as module

OF_THE_TRAINER = ("packing", "generation", "teacher", "teacher_weight", "temperature")

LENGTHS = ((3, 2), (6, 1), (2, 4), (5, 3))
"""Tokens of each row's prompt and answer."""


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for prompt, answer in LENGTHS:
        ids = torch.randint(1, 257, (prompt + answer,), generator=generator).tolist()
        found.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return found


def make_trainer(model, tmp_path, data=None, **values):
    own = {key: values.pop(key) for key in OF_THE_TRAINER if key in values}
    defaults = {"per_device_train_batch_size": 4, "max_steps": 1, "optim": "sgd", "learning_rate": 1.0}
    defaults |= {"lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": "none", "save_strategy": "no"}
    defaults |= {"use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False}
    return CausalTrainer(
        model=model,
        args=TrainingArguments(str(tmp_path), **{**defaults, **values}),
        train_dataset=Dataset.from_list(rows() if data is None else data),
        data_collator=partial(left_padded, pad_token_id=0),
        **own,
    )


def log_likelihoods(model, row):
    """log p of each label by one forward pass of the row alone, in float64."""
    ids = torch.tensor([row["input_ids"]])
    log_p = model(input_ids=ids).logits[0].log_softmax(-1)  # (length, vocabulary)
    return [log_p[k - 1, label] for k, label in enumerate(row["labels"]) if label != -100]


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "opt", "bloom"])
def test_likelihoods_do_not_depend_on_padding_or_on_the_rows_computed_at_once(model_type, tmp_path, monkeypatch):
    model = tiny_model(model_type)
    expected = [sum(log_likelihoods(model, row)).item() for row in rows()]
    for at_once in (1, 2**26):
        monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
        found = make_trainer(model, tmp_path).predict(Dataset.from_list(rows())).predictions
        assert np.allclose(found[:, 0], expected, atol=1e-4)
        assert found[:, 1].tolist() == [answer for _, answer in LENGTHS]


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_one_step_follows_the_gradient_of_the_mean_over_all_target_tokens(model_type, accumulation, packing, tmp_path):
    """SGD at rate 1: the change of a weight is the gradient of the mean in float64."""
    oracle = tiny_model(model_type).double()
    terms = [term for row in rows() for term in log_likelihoods(oracle, row)]
    (-torch.stack(terms).mean()).backward()
    model = tiny_model(model_type)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    values = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer = make_trainer(model, tmp_path, packing=packing, **values)
    trainer.train()
    for name, parameter in oracle.named_parameters():
        change = before[name] - dict(model.named_parameters())[name]
        assert torch.allclose(change.double(), parameter.grad, atol=1e-5), name


def test_only_positions_before_a_label_have_logits(tmp_path):
    trainer = make_trainer(tiny_model("llama"), tmp_path)
    batch = left_padded(rows(), 0)
    logits, targets, outputs = trainer.target_logits(trainer.model, batch)
    longest = max(answer for _, answer in LENGTHS)
    assert logits.shape == outputs.logits.shape == (4, longest, 257)
    assert targets.shape == (4, longest)


def test_a_continuation_is_the_most_likely_token_again_and_again(tmp_path):
    model = tiny_model("gpt2")
    prompts = [{"input_ids": row["input_ids"]} for row in rows()]
    config = GenerationConfig(max_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=0)
    found = make_trainer(model, tmp_path, generation=config).predict(Dataset.from_list(prompts)).predictions
    for prompt, new in zip(prompts, found, strict=True):
        ids = list(prompt["input_ids"])
        for _ in range(5):
            ids.append(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
            if ids[-1] == 0:
                break
        expected = ids[len(prompt["input_ids"]) :]
        assert new[: len(expected)].tolist() == expected


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_teacher_is_followed_by_the_gradient_of_the_mean_divergence(accumulation, tmp_path):
    """Against sums over the whole vocabulary in float64."""
    weight, temperature, teacher = 0.7, 2.0, tiny_model("gpt2")
    oracle, taught = tiny_model("llama").double(), tiny_model("gpt2").double()
    terms = []
    for row in rows():
        ids = torch.tensor([row["input_ids"]])
        logits, other = oracle(input_ids=ids).logits[0], taught(input_ids=ids).logits[0].detach()
        for k, label in enumerate(row["labels"]):
            if label != -100:
                p, q = (other[k - 1] / temperature).softmax(-1), (logits[k - 1] / temperature).softmax(-1)
                divergence = (p * (p.log() - q.log())).sum()
                target = -logits[k - 1].log_softmax(-1)[label]
                terms.append((1 - weight) * target + weight * temperature**2 * divergence)
    torch.stack(terms).mean().backward()
    model = tiny_model("llama")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    values = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    own = {"teacher": teacher, "teacher_weight": weight, "temperature": temperature}
    trainer = make_trainer(model, tmp_path, **own, **values)
    trainer.train()
    for name, parameter in oracle.named_parameters():
        change = before[name] - dict(model.named_parameters())[name]
        assert torch.allclose(change.double(), parameter.grad, atol=1e-5), name
    row = rows()[0]
    (found,) = trainer.predict(Dataset.from_list([row])).predictions
    assert found[0] == pytest.approx(sum(log_likelihoods(model.eval(), row)).item(), abs=1e-4)


def test_vectors_do_not_decay(tmp_path):
    model = tiny_model("llama")
    model.scalars = torch.nn.Parameter(torch.ones(3))
    optimizer = make_trainer(model, tmp_path, weight_decay=0.1, optim="adamw_torch").create_optimizer()
    decayed = {parameter for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]}
    assert {name for name, parameter in model.named_parameters() if parameter in decayed} == {
        name for name, parameter in model.named_parameters() if parameter.ndim == 2
    }


def test_a_packed_batch_restarts_positions_and_predicts_no_row_from_another():
    batch = packed([{**row, "task": 1} for row in rows()[:2]])
    assert batch["input_ids"].shape == (1, 12)
    assert batch["position_ids"][0].tolist() == [*range(5), *range(7)]
    assert (batch["labels"] != -100).sum() == 3
    assert batch["task"].tolist() == [1, 1]
    assert "attention_mask" not in batch
