"""The committed backbone and its skills; pretraining reproduces the tokenizer and is deterministic."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from transformers import T5ForConditionalGeneration, T5Tokenizer

from seq2seq.small_world import pretrain
from seq2seq.small_world.events import World
from seq2seq.small_world.pretrain import BACKBONE, batches, encode, loss_of, new_model, rate_at, skill_accuracy
from seq2seq.small_world.skills import BROAD, LESSONS, SKILLS, mixture


@pytest.fixture(scope="module")
def tokenizer():
    return T5Tokenizer.from_pretrained(BACKBONE)


@pytest.fixture(scope="module")
def model():
    return T5ForConditionalGeneration.from_pretrained(BACKBONE)


def test_the_checkpoint_is_small_and_complete(model):
    assert sum(path.stat().st_size for path in BACKBONE.iterdir()) < 8 * 2**20
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert [(n, p.shape) for n, p in model.named_parameters()] == [
        (n, p.shape) for n, p in new_model(model.config.vocab_size).named_parameters()
    ]


def test_every_word_of_the_mixture_is_one_piece(tokenizer, model):
    words = sorted({word for pair in mixture(World(7), 3000) for text in pair for word in text.split()})
    assert [word for word in words if len(tokenizer(word).input_ids) != 2] == []
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer("a zebra's 17 %").input_ids.count(tokenizer.unk_token_id) == 1


def test_the_reported_accuracies_are_those_of_the_checkpoint(model, tokenizer, monkeypatch):
    """All skills on the 100 items of the log's last line, and the skills that are not learned well on all 500 items."""
    logged = json.loads((BACKBONE / "training_log.jsonl").read_text().splitlines()[-1])["accuracy"]
    reported = json.loads((BACKBONE / "skills.json").read_text())
    assert list(reported) == list(logged) == [skill.__name__ for skill in SKILLS]
    assert skill_accuracy(model, tokenizer, 100) == pytest.approx(logged, abs=0.01)
    weak = [skill for skill in SKILLS if reported[skill.__name__] < 0.7]
    learned = {skill.__name__ for skill in SKILLS if skill not in weak}
    assert all(reported[name] == pytest.approx(logged[name], abs=0.03) for name in learned)
    assert [skill.__name__ for skill in weak] == ["how_many", "measure", "fill"]
    monkeypatch.setattr(pretrain, "SKILLS", weak)
    measured = skill_accuracy(model, tokenizer, 500)
    assert measured == pytest.approx({skill: reported[skill] for skill in measured}, abs=0.01)


def test_greedy_decoding_agrees_with_the_accuracy_under_teacher_forcing(model, tokenizer):
    items = mixture(World(pretrain.HELD_OUT_SEED, held_out=True), 60)
    model.eval()
    batch = encode(tokenizer, items)
    with torch.no_grad():
        labels = batch.pop("labels")
        logits = model(**batch, labels=labels).logits
        generated = model.generate(**batch, max_new_tokens=labels.shape[1])
    teacher_forced = ((logits.argmax(-1) == labels) | (labels == -100)).all(-1)
    texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
    expected = tokenizer.batch_decode(labels.masked_fill(labels == -100, 0), skip_special_tokens=True)
    without_spans = ["<extra_id_0>" not in target for _, target in items]
    assert [a == b for a, b, plain in zip(texts, expected, without_spans, strict=True) if plain] == [
        right for right, plain in zip(teacher_forced.tolist(), without_spans, strict=True) if plain
    ]


def test_the_loss_weights_examples_equally(tokenizer):
    torch.manual_seed(0)
    model = new_model(len(tokenizer)).double()
    items = [("turn round : tom saw anna .", "anna was seen by tom ."), ("the opposite of big ?", "small")]
    alone = [loss_of(model, encode(tokenizer, [item])).item() for item in items]
    assert loss_of(model, encode(tokenizer, items)).item() == pytest.approx(sum(alone) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.01), (49, 0.5), (99, 1.0), (600, 1.0), (800, 0.5), (900, 0.25), (1000, 0.02)]
)
def test_the_learning_rate_warms_up_and_decays(step, share):
    assert rate_at(step, steps=1000, falls=True) == pytest.approx(share)
    assert rate_at(step, steps=1000, falls=False) == pytest.approx(share if step < 100 else 1.0)


def test_batches_have_similar_lengths_and_are_reproducible(tokenizer):
    streams = [batches(World(3), tokenizer, BROAD) for _ in range(2)]
    for _ in range(3):
        first, second = (next(stream) for stream in streams)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert first["input_ids"].shape[0] == pretrain.BATCH_SIZE
        lengths = first["attention_mask"].sum(-1)
        assert lengths.min() > lengths.max() / 3


def test_the_pretraining_data_are_those_of_the_committed_backbone():
    """The first 2,000 items of each lesson, by a digest; the backbone itself takes 40 minutes to reproduce."""
    digests = [
        hashlib.sha256("\n".join(map("\t".join, mixture(World(number), 2000, lesson))).encode()).hexdigest()
        for number, lesson in enumerate(LESSONS, start=1)
    ]
    assert digests == [
        "7db4b90d5802b992e4fc6bbf83f4b0eb27f26104ea9b9ffa31e012e39f936f23",
        "cb055dfbbb670258f0acd1d6143e2c23bab9d897dde023556753669c104a3465",
    ]


@pytest.mark.slow
def test_pretraining_reproduces_the_committed_tokenizer_and_is_deterministic(tmp_path, monkeypatch):
    """Two steps per lesson, accuracies on two items; the second time, the tokenizer of the first is used."""
    monkeypatch.setattr(pretrain, "LESSONS", tuple(replace(lesson, steps=2) for lesson in LESSONS))
    monkeypatch.setattr(pretrain, "skill_accuracy", lambda model, tokenizer, _: skill_accuracy(model, tokenizer, 2))
    pretrain.pretrain(tmp_path / "first", seed=0)
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert set(first) == {path.name for path in BACKBONE.iterdir()}
    assert first["spiece.model"] == (BACKBONE / "spiece.model").read_bytes()
    assert first["tokenizer_config.json"] == (BACKBONE / "tokenizer_config.json").read_bytes()
    log = [json.loads(line) for line in first["training_log.jsonl"].decode().splitlines()]
    assert [(entry["lesson"], entry["step"]) for entry in log] == [(1, 2), (2, 2)]
    assert set(log[0]["accuracy"]) == {skill.__name__ for skill in SKILLS}

    torch.rand(1)  # the seed, and not the state of the generator, decides
    monkeypatch.setattr(pretrain, "train_tokenizer", lambda out, seed: T5Tokenizer.from_pretrained(tmp_path / "first"))
    pretrain.pretrain(tmp_path / "second", seed=0)
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == first["model.safetensors"]
