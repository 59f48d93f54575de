"""A run of swipe typing from JSON to its page: what it measures, where it resumes, what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import T5Config

from adapters import ConfigurationError, load, set_active_task
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.predicting import predict
from seq2seq.running.runner import run_experiment
from seq2seq.swipe.baselines import rows_of as rows_of_matcher
from seq2seq.swipe.data import load_swipes
from seq2seq.swipe.decoding.ctc import beam_ctc
from seq2seq.swipe.decoding.templates import Templates
from seq2seq.swipe.keyboards.boxes import boxes_of
from seq2seq.swipe.keyboards.layout import load_layout, save_layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.metrics import scores
from seq2seq.swipe.rows import load_rows, split_of
from seq2seq.swipe.traces.reading import read_traces
from seq2seq.swipe.traces.store import write_store
from seq2seq.swipe.traces.trace import padded
from seq2seq.swipe.trainer import SwipeTrainer, frames_needed, tuning_rows
from seq2seq.swipe.workload import SwipeWorkload
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run
from third_party.models.swipe import SwipeConfig, SwipeForConditionalGeneration, SwipeForCTC

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ADAPTER = {"kind": "tt_lora", "rank": 2, "target_modules": ["q", "v"]}


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_scores_its_predictions(values, tmp_path):
    """Metrics follow from the predictions on disk, and these from the saved weights, layout and lexicon alone."""
    result = run_experiment(read_experiment({**values, "baselines": ["template", "nearest_keys"], "do_export": True}))
    metrics, rows = result["metrics"]["test"], rows_of(tmp_path / "run" / "predictions_test.jsonl")
    expected = scores(rows)
    assert {name: metrics[name] for name in expected} == expected
    workload = read_experiment(values).workload
    model = workload.model_class.from_pretrained(tmp_path / "run" / "exported").eval()
    data = load_swipes(workload, 42)
    points, mask = padded(data.fixed["test"].points)
    boxes = np.stack([boxes_of(workload.layouts["qwerty"], model.config.alphabet)] * len(points))
    with torch.no_grad():
        logits = model(*map(torch.from_numpy, (points, mask, boxes))).logits.log_softmax(-1).numpy()
    trie = workload.make_tries()["qwerty"]
    weight = metrics["language_weight"]
    found = beam_ctc(logits, mask.sum(1), model.config.alphabet, 4, trie=trie, language_weight=weight)
    assert [[w for w, _ in row["candidates"]] for row in rows] == [[c.word for c in each] for each in found]
    assert {row["word"] for row in rows} <= {
        word for word in workload.words["qwerty"].words if split_of(word) == "test"
    }
    assert result["baselines"]["template"]["accuracy_1"] > result["baselines"]["nearest_keys"]["accuracy_1"] > 0
    page = (tmp_path / "run" / "README.md").read_text()
    assert "![traces and their predictions](traces.png)" in page
    assert "| test beam, lexicon | top-1 " in page


def test_baselines_weigh_words_by_their_frequency(values):
    data = load_swipes(read_experiment(values).workload, 42)
    lexicon, layout = data.keys.words["qwerty"], data.keys.layouts["qwerty"]
    templates = Templates(lexicon.words, layout, lexicon.log_frequencies)
    rows, test = rows_of_matcher(data, "test", Templates), data.fixed["test"]
    assert [row["word"] for row in rows] == test.words
    expected = [[list(each) for each in templates.candidates(points)] for points in test.points]
    assert [row["candidates"] for row in rows] == expected


def test_a_stopped_run_resumes_to_the_same_curve(values):
    with stopping_at(6, SwipeWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    run_experiment(read_experiment(values))
    run_experiment(read_experiment({**values, "experiment_name": "whole"}))
    folder = Path(values["output_root"])
    assert_same_run(folder / "whole", folder / "run")


def test_an_adapter_of_another_layout_leaves_the_base_as_it_is(values, tmp_path):
    """A model of qwerty goes on to two other layouts with an adapter, with an encoder and a decoder."""
    base = {**values, "architecture": "encoder_decoder", "do_export": True, "experiment_name": "base", "max_steps": 2}
    run_experiment(read_experiment(base))
    weights = tmp_path / "base" / "exported" / "model.safetensors"
    before = weights.read_bytes()
    del values["model"]
    values |= {"model_name_or_path": str(weights.parent), "architecture": "encoder_decoder", "adapter": ADAPTER}
    result = run_experiment(read_experiment({**values, "layout": ["dvorak", "colemak"], "max_steps": 4}))
    assert weights.read_bytes() == before
    assert result["merge_difference"] < 1e-5
    assert {"accuracy_1/dvorak", "accuracy_1/colemak"} <= result["metrics"]["test"].keys()
    experiment = read_experiment({**values, "layout": ["dvorak", "colemak"]})
    model = experiment.attach(experiment.load_model())
    load(model, tmp_path / "run" / "adapter")


def test_one_model_serves_layouts_with_adapters_of_their_own(values, tmp_path):
    """Batches of each layout are decoded with its adapters: the run's own, and those of another process."""
    run_experiment(read_experiment({**values, "do_export": True, "experiment_name": "base", "max_steps": 2}))
    base = tmp_path / "base" / "exported"
    before = (base / "model.safetensors").read_bytes()
    values |= {"model_name_or_path": str(base), "layout": ["qwerty", "dvorak"], "adapters_per_layout": True}
    values |= {"adapter": ADAPTER, "model": {}, "learning_rate": 0.05}
    run_experiment(read_experiment(values))
    assert (base / "model.safetensors").read_bytes() == before
    workload = read_experiment(values).workload
    model, data = SwipeForCTC.from_pretrained(base).eval(), load_swipes(workload, 42)
    load(model, tmp_path / "run" / "adapter")
    found = {}
    for name in ("qwerty", "dvorak", "qwerty"):
        numbers = [n for n, layout in enumerate(data.fixed["test"].layouts) if layout == name]
        batch = data.collate([{"split": "test", "row": n} for n in numbers])
        del batch["task"], batch["labels"]
        set_active_task(model, name)
        with torch.no_grad():
            logits = model(**batch).logits.log_softmax(-1).numpy()
        lengths = batch["attention_mask"].sum(1).numpy()
        again = found.get(name)
        found[name] = beam_ctc(logits, lengths, data.alphabet, 4, trie=workload.make_tries()[name], language_weight=0.2)
        assert again is None or again == found[name]
    values |= {"decoding": {"beam": 4, "language_weight": 0.2}, "do_train": False, "experiment_name": "again"}
    run_experiment(read_experiment({**values, "adapter_path": str(tmp_path / "run" / "adapter")}))
    rows = rows_of(tmp_path / "again" / "predictions_test.jsonl")
    for name, candidates in found.items():
        own = [[word for word, _ in row["candidates"]] for row in rows if row["layout"] == name]
        assert own == [[each.word for each in row] for row in candidates]


def test_a_model_of_english_learns_russian_letters(values, tmp_path):
    """The base stays, new letters train with the adapter, and both are saved together."""
    run_experiment(read_experiment({**values, "do_export": True, "experiment_name": "base", "max_steps": 2}))
    words = tmp_path / "russian.tsv"
    words.write_text(
        "".join(f"{word}\t10\n" for word in ("мы", "ёж", "да", "нет", "они", "это", "как", "все", "что", "вы"))
    )
    del values["model"]
    values |= {"model_name_or_path": str(tmp_path / "base" / "exported"), "layout": "jcuken", "max_steps": 4}
    values |= {"lexicon": {"file": str(words)}, "adapter": ADAPTER}
    with pytest.raises(ConfigurationError, match=r"head\.weight"):
        run_experiment(read_experiment(values))
    rows = ["read_in.linear.weight", "head.weight", "head.bias"]
    values["adapter"] = [ADAPTER, {"kind": "weights", "target_parameters": rows}]
    result = run_experiment(read_experiment(values))
    assert set(rows) <= load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors").keys()
    found = rows_of(tmp_path / "run" / "predictions_test.jsonl")
    assert {word for row in found for word, _ in row["candidates"]} <= {
        "мы",
        "ёж",
        "да",
        "нет",
        "они",
        "это",
        "как",
        "все",
        "что",
        "вы",
    }
    assert result["metrics"]["test"]["swipe_mrr"] >= 0


def test_traces_of_a_file_are_divided_by_their_words(values, tmp_path):
    words = [word for word in read_experiment(values).workload.words["qwerty"].words if len(word) > 2]
    path = tmp_path / "traces.jsonl"
    layout = read_experiment(values).workload.layouts["qwerty"]
    rows = []
    for word in words:
        x, y = (layout.boxes[[layout.alphabet.index(letter) for letter in word], :2] * layout.key_width).T
        curve = {"x": x.tolist(), "y": y.tolist(), "t": [150 * k for k in range(len(word))]}
        rows.append({"word": word, "curve": curve, "layout": "qwerty"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_experiment(read_experiment({**values, "traces_file": str(path), "max_steps": 2}))
    for split in ("validation", "test"):
        found = rows_of(tmp_path / "run" / f"predictions_{split}.jsonl")
        assert [row["index"] for row in found] == [n for n, word in enumerate(words) if split_of(word) == split]
        assert [row["word"] for row in found] == [word for word in words if split_of(word) == split]


def test_training_traces_depend_on_the_seed_and_evaluation_does_not(values):
    workload = read_experiment(values).workload
    one, other = load_swipes(workload, 1), load_swipes(workload, 2)
    assert torch.equal(one.collate([3, 4])["points"], one.collate([3, 4])["points"])
    assert not torch.equal(one.collate([3, 4])["labels"], other.collate([3, 4])["labels"])
    assert one.fixed["test"].words == other.fixed["test"].words
    assert all(map(np.array_equal, one.fixed["test"].points, other.fixed["test"].points))


def test_random_layouts_move_keys_and_traces_together(values):
    """The nearest key of the first point is that of the first letter far more often than by chance."""
    data = load_swipes(read_experiment({**values, "random_layouts": True}).workload, 0)
    one, other = data.collate(list(range(8))), data.collate(list(range(8, 16)))
    assert not torch.equal(one["boxes"][0], other["boxes"][0])
    batch = [data.collate(list(range(8 * k, 8 * k + 8))) for k in range(6)]
    hits = [
        (each["points"][:, :1] - each["boxes"][..., :2]).square().sum(-1).argmin(1) == each["labels"][:, 0] - 1
        for each in batch
    ]
    assert torch.cat(hits).float().mean() > 0.5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layout": "qwrty"}, "'qwerty'"),
        ({"adapters_per_layout": True}, "which all tasks share"),
        ({"adapters_per_layout": True, "adapter": ADAPTER, "train_file": "a.jsonl"}, "batches of one layout"),
        ({"layout": ["qwerty", "qwerty"]}, "another 'qwerty'"),
        ({"model": {"featurs": "nearest"}}, "'features'"),
        ({"model": {"features": "nearst"}}, "'nearest'"),
        ({"lexicon": {"language": "en", "file": "words.tsv"}}, "leave one out"),
        ({"lexicon": {"words": 1}}, "at least 2"),
        ({"lexicon": {"file": "words.tsv", "words": 100}}, "leave it out"),
        ({"limits": {}}, "no train_file"),
        ({"lexicon": {"file": "nowhere.tsv"}}, "nowhere.tsv"),
        ({"lexicon": "en"}, '{"language": "en"'),
        ({"traces_file": "a.jsonl", "test_file": "b.jsonl"}, "leave one out"),
        ({"traces_file": "a.jsonl", "random_layouts": True}, "synthetic"),
        ({"augmentation": {"noise": -1}}, "must not be negative"),
        ({"augmentation": {"noize": 0.1}}, "'noise'"),
        ({"test_file": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"model_name_or_path": "nowhere", "model": {}}, "nowhere"),
        ({"layout": "jcuken"}, "lexicon"),
        ({"decoding": {"beam": 0}}, "beam"),
        ({"decoding": {"in_training": True}}, "'encoder_decoder'"),
        ({"decoding": {"exact": True}, "architecture": "encoder_decoder"}, "'ctc'"),
        ({"decoding": 16}, '{"beam": 16}'),
        ({"limits": {"ends": -1}}, "ends"),
        ({"limits": {"end": 1}}, "'ends'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(values, tmp_path, changed, said):
    with pytest.raises(ConfigurationError) as refused:
        run_experiment(read_experiment({**values, **changed}))
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_synthetic_evaluation_covers_the_lexicon(values, tmp_path):
    """With fewer traces than held-out words, those are drawn from all words and not only from the first letters."""
    words = tmp_path / "many.tsv"
    words.write_text(
        "".join(f"{first}{second}{third}\t1\n" for first in LETTERS for second in LETTERS for third in "ae")
    )
    workload = read_experiment({**values, "lexicon": {"file": str(words)}, "evaluation_traces": 60}).workload
    rows = load_rows(workload)
    for split in ("validation", "test"):
        assert len({word[0] for word in rows[split].words}) > 15
        assert len(set(rows[split].words)) == 60


def test_words_too_long_to_draw_stay_in_the_lexicon(values, tmp_path):
    words = Path(values["lexicon"]["file"])
    words.write_text(words.read_text() + "".join(f"{'ab' * 30}{letter}\t1\n" for letter in LETTERS))
    workload = read_experiment(values).workload
    data = load_swipes(workload, 0)
    drawn = {*data.training_words["qwerty"].tolist(), *(word for split in data.fixed.values() for word in split.words)}
    assert max(map(len, drawn)) < 10
    assert max(map(len, workload.words["qwerty"].words)) == 61


ROW = {"word": "the", "curve": {"x": [150, 200, 90], "y": [34, 96, 34], "t": [0, 300, 600]}}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "layout": "dvorak"}, "'dvorak'"),
        ({**ROW, "word": ""}, "has a word"),
        ({key: value for key, value in ROW.items() if key != "word"}, "has a word"),
    ],
    ids=["another layout", "empty word", "no word"],
)
def test_rows_that_do_not_fit_the_run_are_refused(values, tmp_path, row, said):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ConfigurationError, match=said):
        run_experiment(read_experiment({**values, "test_file": str(path)}))
    assert not (tmp_path / "run").exists()


def test_a_data_set_of_another_keyboard_is_refused(values, tmp_path):
    """Its points are pixels of the layout it was written with, whatever the name."""
    layout = load_layout("qwerty")
    wider = replace(layout, keys=tuple(replace(key, x=2 * key.x, width=2 * key.width) for key in layout.keys))
    write_store(tmp_path / "traces", read_traces([ROW], Layouts({"qwerty": wider}), "qwerty"), {"qwerty": wider})
    with pytest.raises(ConfigurationError, match=r"'layout'.*qwerty"):
        load_rows(read_experiment({**values, "test_file": str(tmp_path / "traces")}).workload)


def test_layouts_of_one_name_are_refused(values, tmp_path):
    save_layout(replace(load_layout("dvorak"), name="qwerty"), tmp_path / "mine.json")
    with pytest.raises(ConfigurationError, match="another 'qwerty'"):
        run_experiment(read_experiment({**values, "layout": ["qwerty", str(tmp_path / "mine.json")]}))


def test_one_file_for_training_and_test_is_warned_of(values, tmp_path, caplog):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    load_rows(read_experiment({**values, "train_file": str(path), "test_file": str(path)}).workload)
    assert "1 traces are in several splits, first 'the' (train 0, test 0)" in caplog.text


@pytest.mark.parametrize("architecture", ["ctc", "encoder_decoder"])
def test_a_finished_run_predicts_a_file_as_it_was_tested(values, tmp_path, architecture):
    """With the language weight that it chose on validation; rows without words have predictions and no metrics."""
    path, unknown = tmp_path / "traces.jsonl", tmp_path / "unknown.jsonl"
    rows = [{**ROW, "word": word} for word in ("the", "tie", "two")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unknown.write_text("".join(json.dumps({"curve": row["curve"]}) + "\n" for row in rows))
    values |= {"test_file": str(path), "architecture": architecture, "learning_rate": 0.02, "max_steps": 20}
    with patch.object(SwipeTrainer, "tuned_weight", lambda self: self.data.keys.options.language_weight or 0.75):
        result = run_experiment(read_experiment(values))
    found = predict(tmp_path / "run", path)
    assert result["metrics"]["test"]["language_weight"] == found.evaluation.metrics["language_weight"] == 0.75
    assert rows_of(found.output) == rows_of(tmp_path / "run" / "predictions_test.jsonl")
    assert found.evaluation.metrics["swipe_mrr"] == result["metrics"]["test"]["swipe_mrr"]
    found = predict(tmp_path / "run", unknown)
    assert found.evaluation.metrics == {}
    assert [row["candidates"] for row in rows_of(found.output)] == [
        row["candidates"] for row in rows_of(tmp_path / "run" / "predictions_test.jsonl")
    ]


@pytest.mark.parametrize(("saved", "wanted"), [("ctc", "encoder_decoder"), ("encoder_decoder", "ctc")])
def test_a_saved_model_of_the_other_architecture_is_refused(values, tmp_path, saved, wanted):
    """Its decoder, or its head, would be random."""
    folder = tmp_path / "saved"
    kinds = {"ctc": SwipeForCTC, "encoder_decoder": SwipeForConditionalGeneration}
    kinds[saved](SwipeConfig(**{**values["model"], "num_decoder_layers": 1})).save_pretrained(folder)
    del values["model"]
    with pytest.raises(ConfigurationError, match=f"'architecture'.*{saved}"):
        run_experiment(read_experiment({**values, "model_name_or_path": str(folder), "architecture": wanted}))


def test_a_saved_model_of_another_type_is_refused(values, tmp_path):
    T5Config().save_pretrained(tmp_path / "t5")
    del values["model"]
    with pytest.raises(ConfigurationError, match="of type 't5'"):
        run_experiment(read_experiment({**values, "model_name_or_path": str(tmp_path / "t5")}))


def test_the_language_weight_is_chosen_on_all_layouts(values):
    """Rows of validation are in order of layouts, and the first ones are of one."""
    workload = read_experiment({**values, "layout": ["qwerty", "dvorak"], "evaluation_traces": 300}).workload
    data = load_swipes(workload, 0)
    chosen = [data.fixed["validation"].layouts[n] for n in tuning_rows(data.fixed["validation"].layouts, 200)]
    assert {name: chosen.count(name) for name in workload.layouts} == {"qwerty": 100, "dvorak": 100}
    assert tuning_rows(["qwerty"] * 5, 3) == [0, 1, 2]
    assert tuning_rows(["qwerty"] * 5 + ["dvorak"], 4) == [0, 1, 5]


def test_traces_too_short_for_their_words_are_warned_of(values, caplog):
    """CTC cannot align them, and the loss does not count them."""
    values["model"]["rate"] = 3.0
    run_experiment(read_experiment({**values, "max_steps": 2}))
    for traces in ("training", "validation", "test"):
        assert f"traces of {traces} have fewer points than their words need" in caplog.text


@pytest.mark.parametrize(("word", "frames"), [("a", 1), ("hello", 6), ("aaa", 5), ("", 0)])
def test_points_that_a_word_needs(word, frames):
    assert frames_needed(word) == frames


def test_a_lexicon_without_words_to_train_on_is_refused(values, tmp_path):
    words = tmp_path / "few.tsv"
    held_out = [one + other for one in LETTERS for other in LETTERS if split_of(one + other) != "train"]
    words.write_text("".join(f"{word}\t1\n" for word in held_out))
    with pytest.raises(ConfigurationError, match=r"'lexicon'.*none for train"):
        run_experiment(read_experiment({**values, "lexicon": {"file": str(words)}}))
    assert not (tmp_path / "run").exists()
