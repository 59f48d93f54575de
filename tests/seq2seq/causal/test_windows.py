"""Windows by hand, and perplexity against a loop that gives each token its context by the definition."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from seq2seq.causal.perplexity import main
from seq2seq.causal.windows import Reading, ScoredWindows, TokenStream, TrainedWindows, WindowSampler, text_metrics
from tests.seq2seq.causal_models import tiny_model
from third_party.trainers import CausalTrainer, left_padded

BOS = 0


def stream(count, seed=0):
    return TokenStream(np.random.default_rng(seed).integers(1, 257, count).astype(np.uint16), 2 * count)


@pytest.mark.parametrize(
    ("tokens", "window", "stride", "bos", "spans"),
    [
        # first token, end, first scored token; with "text", index 0 is the begin-of-sequence token
        (5, 3, None, "none", [(0, 3, 1), (2, 5, 3)]),
        (6, 3, None, "none", [(0, 3, 1), (2, 5, 3), (4, 6, 5)]),
        (5, 3, None, "text", [(0, 3, 1), (2, 5, 3), (4, 6, 5)]),
        (5, 3, None, "window", [(0, 2, 0), (2, 4, 2), (4, 5, 4)]),
        (8, 4, 2, "none", [(0, 4, 1), (2, 6, 4), (4, 8, 6)]),
        (8, 4, 1, "none", [(0, 4, 1), (1, 5, 4), (2, 6, 5), (3, 7, 6), (4, 8, 7)]),
        (3, 8, 4, "none", [(0, 3, 1)]),
        (3, 8, None, "text", [(0, 4, 1)]),
    ],
)
def test_windows_by_hand(tokens, window, stride, bos, spans):
    assert Reading(window, stride, bos, BOS).spans(tokens) == spans


@given(st.integers(2, 40), st.integers(3, 12), st.sampled_from(["none", "text", "window"]), st.data())
def test_each_token_is_scored_once_with_enough_context(tokens, window, bos, data):
    stride = data.draw(st.none() | st.integers(1, window - 1))
    reading, text = Reading(window, stride, bos, BOS), stream(tokens)
    windows = ScoredWindows(text, reading)
    scored = [label for k in range(len(windows)) for label in windows[k]["labels"] if label != -100]
    assert scored == text.ids.tolist()[1 if bos == "none" else 0 :]
    for k in range(len(windows)):
        row = windows[k]
        context = row["labels"].count(-100)
        assert len(row["input_ids"]) <= window
        assert context >= 1
        if k and stride:
            assert context >= window - stride
        assert row["labels"][context:] == row["input_ids"][context:]


@given(st.integers(2, 60), st.integers(3, 12), st.sampled_from(["none", "window"]), st.integers(0, 3))
def test_an_epoch_trains_on_disjoint_targets_and_depends_on_its_number_alone(tokens, window, bos, epoch):
    text = stream(tokens)
    windows = TrainedWindows(TokenStream(np.arange(1, tokens + 1), tokens), Reading(window, None, bos, BOS))
    sampler = WindowSampler(windows, seed=7)
    sampler.set_epoch(epoch)
    starts = list(sampler)
    assert starts == list(sampler)
    assert len(starts) == len(sampler) == len(windows)
    targets = [label for start in starts for label in windows[start]["labels"] if label != -100]
    assert len(targets) == len({*targets})
    assert len(targets) >= min(tokens - window, tokens - 1) - window
    assert all(windows[start]["labels"][0] == -100 for start in starts)
    assert text.ids.shape == (tokens,)


def test_epochs_have_other_offsets():
    windows = TrainedWindows(stream(200), Reading(16, None, "text", BOS))
    sampler = WindowSampler(windows, seed=0)
    offsets = set()
    for epoch in range(8):
        sampler.set_epoch(epoch)
        offsets.add(min(sampler) % 15)
    assert len(offsets) > 2


@pytest.mark.parametrize("bos", ["none", "text", "window"])
@pytest.mark.parametrize("stride", [None, 3])
def test_perplexity_is_that_of_a_loop_over_tokens(bos, stride, tmp_path):
    """Each token's context is what its window has before it; the loop knows windows by arithmetic, not by spans."""
    model, text, window = tiny_model("llama").double(), stream(23), 8
    ids = ([BOS] if bos == "text" else []) + text.ids.tolist()
    content, step = window - (bos == "window"), stride or window - 1
    log_p, count = 0.0, 0
    for k in range(0 if bos == "window" else 1, len(ids)):
        begin = max(0, -(-(k + 1 - content) // step)) * step  # of the first window that reaches token k
        context = ([BOS] if bos == "window" else []) + ids[begin:k]
        with torch.no_grad():
            log_p += model(input_ids=torch.tensor([context])).logits[0, -1].log_softmax(-1)[ids[k]].item()
        count += 1
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=3)
    collator = partial(left_padded, pad_token_id=0)
    trainer = CausalTrainer(model=tiny_model("llama"), args=arguments, data_collator=collator)
    sums = trainer.predict(ScoredWindows(text, Reading(window, stride, bos, BOS))).predictions
    metrics = text_metrics(sums, text)
    assert sums[:, 1].sum() == count
    assert metrics["perplexity"] == pytest.approx(math.exp(-log_p / count), rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(-log_p / count * 23 / 46 / math.log(2), rel=1e-5)


def test_metrics_by_hand():
    """Two windows of 1 and 3 tokens; the mean of window means, 2.5, would be wrong."""
    sums = np.array([[-1.0, 1.0], [-12.0, 3.0]])
    metrics = text_metrics(sums, TokenStream(np.zeros(4, np.uint16), 8))
    assert metrics["log_likelihood"] == pytest.approx(-13 / 4)
    assert metrics["perplexity"] == pytest.approx(math.exp(13 / 4))
    assert metrics["bits_per_byte"] == pytest.approx(13 / 4 * 4 / 8 / math.log(2))
    assert metrics["standard_error"] == pytest.approx(math.sqrt(2 * ((1 - 3.25) ** 2 + (12 - 9.75) ** 2)) / 4)
    assert "standard_error" not in text_metrics(sums[:1], TokenStream(np.zeros(1, np.uint16), 2))


def test_the_standard_error_is_the_spread_over_samples():
    """Windows of random lengths and losses: the error is the standard deviation of the mean over repetitions."""
    generator = np.random.default_rng(0)
    losses, errors = [], []
    for _ in range(2000):
        counts = generator.integers(1, 10, 40).astype(float)
        sums = np.stack([-counts * generator.normal(3, 1, 40), counts], axis=1)  # one loss for all tokens of a window
        metrics = text_metrics(sums, TokenStream(np.zeros(9, np.uint16), 9))
        losses.append(-metrics["log_likelihood"])
        errors.append(metrics["standard_error"])
    assert np.mean(errors) == pytest.approx(np.std(losses), rel=0.05)


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("--window", "0", 3), ("--window", "2", 3), ("--stride", "0", 1), ("--stride", "-3", 1), ("--max-tokens", "0", 1)],
)
def test_options_of_the_command_are_in_the_ranges_of_their_keys(option, value, least, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["assets/small_decoder", "text.txt", option, value])
    assert f"{option}: must be an integer of at least {least}; got '{value}'" in capsys.readouterr().err
