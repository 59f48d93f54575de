"""Suggestions of a model: against torch's own CTC loss, with a lexicon and without; where letters are read."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from seq2seq.swipe import predictor as module
from seq2seq.swipe.data import load_swipes
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.keyboards.boxes import boxes_of
from seq2seq.swipe.keyboards.layout import layout_from_rows
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.swipe.predictor import Predictor, joined
from seq2seq.swipe.traces.trace import Trace, resampled
from third_party.models.swipe import SwipeConfig, SwipeForConditionalGeneration, SwipeForCTC

ROWS = layout_from_rows("rows", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])
TURNED = layout_from_rows("turned", "en", ["zxcvbnm", "asdfghjkl", "qwertyuiop"])
WORDS = Lexicon.from_counts({"hello": 50, "don't": 30, "help": 15, "a": 100, "zoo": 5}.items(), ROWS)
TRAINED = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "with",
    "this",
    "have",
    "from",
    "we",
]
SIZES = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "num_decoder_layers": 1}
WEIGHT = 0.5
X, Y, T = [200, 90, 330, 320], [90, 30, 90, 30], [0, 200, 450, 600]


def trace(points: int = 4, layout: str = "rows") -> Trace:
    x, y = np.array(X[:points], np.float32), np.array(Y[:points], np.float32)
    return Trace("", x, y, np.array(T[:points], np.int32), layout)


def predictor(kind: type) -> Predictor:
    torch.manual_seed(0)
    model = kind(SwipeConfig(alphabet=ROWS.alphabet, **SIZES))
    tries = {"en": PackedTrie.build(WORDS, ROWS.alphabet)}
    return Predictor(model, tries, {"rows": ROWS, "turned": TURNED}, beam=64, language_weight=WEIGHT)


@pytest.fixture(scope="module")
def ctc() -> Predictor:
    return predictor(SwipeForCTC)


@pytest.mark.parametrize("layout", [ROWS, TURNED], ids=["rows", "turned"])
def test_probabilities_are_shares_of_the_lexicon(ctc, layout):
    """With a beam as wide as the lexicon, each word has its score by torch's CTC loss."""
    given = trace(layout=layout.name)
    points = torch.from_numpy(resampled(given, layout, 30))[None]
    boxes = torch.from_numpy(boxes_of(layout, layout.alphabet))[None]
    with torch.no_grad():
        logits = ctc.model(points, torch.ones(points.shape[:2], dtype=torch.int64), boxes).logits
    log_probs = logits.double().log_softmax(-1).transpose(0, 1)
    scores = []
    for word, log_frequency in zip(WORDS.words, WORDS.log_frequencies, strict=True):
        letters = torch.tensor([[1 + layout.alphabet.index(letter) for letter in word]])
        lengths = torch.tensor([len(log_probs)]), torch.tensor([len(word)])
        loss = functional.ctc_loss(log_probs, letters, *lengths, reduction="sum")
        scores.append(-loss.item() + WEIGHT * log_frequency)
    shares = np.exp(scores) / np.exp(scores).sum()
    found = ctc.predict(given, "en", candidates=5)
    assert {suggestion.word: suggestion.probability for suggestion in found.suggestions} == pytest.approx(
        dict(zip(WORDS.words, shares.tolist(), strict=True)), rel=1e-4
    )
    assert found.suggestions == sorted(found.suggestions, key=lambda each: -each.probability)
    np.testing.assert_allclose(found.posterior, log_probs[:, 0].exp(), rtol=1e-4)
    np.testing.assert_array_equal(found.points, points[0])


def test_words_are_displayed_as_the_lexicon_has_them(ctc):
    shown = {suggestion.word: suggestion.displayed for suggestion in ctc.predict(trace(), "en", 5).suggestions}
    assert shown == {"a": "a", "dont": "don't", "hello": "hello", "help": "help", "zoo": "zoo"}


def test_without_a_lexicon_any_letters_are_suggested(ctc):
    found = ctc.predict(trace(), None, candidates=3).suggestions
    assert len(found) == 3
    assert all(suggestion.word == suggestion.displayed for suggestion in found)
    assert not {suggestion.word for suggestion in found} & {*WORDS.words} - {"a"}
    assert 0 < sum(suggestion.probability for suggestion in found) <= 1


def test_a_touch_is_a_trace(ctc):
    found = ctc.predict(trace(points=1), "en")
    assert len(found.points) == len(found.posterior) == 2
    assert "a" in {suggestion.word for suggestion in found.suggestions}


@pytest.mark.parametrize(
    ("layout", "lexicon", "said"),
    [("row", "en", "'layout'.*did you mean 'rows'"), ("rows", "eng", "'lexicon'.*did you mean 'en'")],
)
def test_unknown_names_are_refused(ctc, layout, lexicon, said):
    with pytest.raises(ConfigurationError, match=said):
        ctc.predict(trace(layout=layout), lexicon)


def test_attention_is_that_of_the_best_word(monkeypatch):
    """Each letter of the word, and its end, has a largest attention, which is 1."""
    reader = predictor(SwipeForConditionalGeneration)
    monkeypatch.setattr(module, "beam_generate", lambda *_: [[Candidate("hello", -1.0), Candidate("help", -2.0)]])
    found = reader.predict(trace(), "en")
    largest = found.posterior.max(0)
    read = {0, *(1 + ROWS.alphabet.index(letter) for letter in "helo")}
    assert {*np.flatnonzero(largest).tolist()} == read
    np.testing.assert_allclose(largest[sorted(read)], 1)
    assert found.suggestions[0].probability == pytest.approx(1 / (1 + np.exp(-1)))


def test_a_file_of_words_is_a_lexicon(ctc, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("jello\t3\nqi\t1\n")
    ctc.add_lexicon(path)
    assert {each.word for each in ctc.predict(trace(), "mine.txt").suggestions} == {"jello", "qi"}
    path.write_text("привет\t3\n")
    with pytest.raises(ConfigurationError, match="can be typed"):
        ctc.add_lexicon(path)


def test_lexicons_of_several_layouts_are_joined():
    other = Lexicon.from_counts({"hello": 1, "été": 3}.items(), layout_from_rows("accents", "fr", ["hélot"]))
    both = joined([WORDS, other])
    assert both.words == sorted({*WORDS.words, *other.words})
    assert both.log_frequencies[both.words.index("hello")] == WORDS.log_frequencies[WORDS.words.index("hello")]
    assert both.displayed[both.words.index("dont")] == "don't"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="folder of a finished run"):
        Predictor.from_run(tmp_path)


@pytest.mark.slow
def test_a_run_is_served_as_it_was_evaluated(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("".join(f"{word}\t{count}\n" for count, word in enumerate(TRAINED, 1)))
    values = {
        "experiment_name": "tiny",
        "output_root": str(tmp_path),
        "workload": "swipe",
        "model": {key: size for key, size in SIZES.items() if key != "num_decoder_layers"},
        "lexicon": {"file": str(tmp_path / "words.txt")},
        "synthetic_traces": 8,
        "evaluation_traces": 6,
        "decoding": {"beam": 128, "language_weight": 0.3},
        "max_steps": 2,
        "per_device_train_batch_size": 4,
    }
    experiment = read_experiment(values)
    run_experiment(experiment)
    served = Predictor.from_run(tmp_path / "tiny")
    assert served.language_weight == 0.3
    points = load_swipes(experiment.workload, experiment.training_arguments().seed).fixed["test"].points
    rows = [json.loads(line) for line in (tmp_path / "tiny" / "predictions_test.jsonl").read_text().splitlines()]
    assert len(rows) == len(points) == 6
    for row, given in zip(rows, points, strict=True):
        monkeypatch.setattr(module, "resampled", lambda *_, given=given: given)
        found = served.predict(trace(layout="qwerty"), "words.txt").suggestions
        assert [suggestion.word for suggestion in found] == [word for word, _ in row["candidates"]]
        ratios = np.diff(np.log([suggestion.probability for suggestion in found]))
        np.testing.assert_allclose(ratios, np.diff([score for _, score in row["candidates"]]), atol=1e-3)


@pytest.mark.slow
def test_layouts_with_adapters_of_their_own_are_served_by_one_model(values, tmp_path):
    """In any order, each trace gets the candidates that the run found with the adapters of its layout."""
    folder = tmp_path / "base"
    torch.manual_seed(0)
    SwipeForCTC(SwipeConfig(**values.pop("model"))).save_pretrained(folder)
    values |= {"layout": ["qwerty", "dvorak"], "adapters_per_layout": True, "model_name_or_path": str(folder)}
    values |= {"adapter": {"kind": "tt_lora", "rank": 2, "target_modules": ["q", "v"]}, "learning_rate": 0.05}
    experiment = read_experiment(values)
    run_experiment(experiment)
    served = Predictor.from_run(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions_test.jsonl").read_text().splitlines()]
    points = load_swipes(experiment.workload, 42).fixed["test"].points
    for number in (0, 11, 1, 10):
        row, size = rows[number], experiment.workload.layouts[rows[number]["layout"]].key_width
        x, y = points[number].T * size
        times = np.arange(len(x), dtype=np.int32) * 100  # of 10 points per second
        found = served.predict(Trace("", x, y, times, row["layout"]), "words.tsv").suggestions
        assert [suggestion.word for suggestion in found] == [word for word, _ in row["candidates"]]
        ratios = np.diff(np.log([suggestion.probability for suggestion in found]))
        np.testing.assert_allclose(ratios, np.diff([score for _, score in row["candidates"]]), atol=1e-3)
