"""An exported model computes what torch does at any length, loads alone, and finds the same words."""

import builtins
import json

import numpy as np
import pytest
import torch

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from seq2seq.swipe.decoding.ctc import beam_ctc
from seq2seq.swipe.export import __main__ as command
from seq2seq.swipe.export import checks
from seq2seq.swipe.export.folder import Exported, write_folder
from seq2seq.swipe.export.graphs import graphs_of, write_graph
from seq2seq.swipe.finished import FinishedRun
from seq2seq.swipe.rows import load_rows
from seq2seq.swipe.traces.trace import padded
from third_party.models.swipe import FEATURES, SwipeConfig, SwipeForConditionalGeneration, SwipeForCTC

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZES = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 16, "num_decoder_layers": 1}
LENGTHS = ([1], [2], [7, 3], [40, 40, 1], [150])
ARCHITECTURES = {"ctc": SwipeForCTC, "encoder_decoder": SwipeForConditionalGeneration}


def made(values: dict, architecture: str, **options) -> FinishedRun:
    """A random model as if a run had made it; its keys have two layouts."""
    values = {**values, "decoding": {**values["decoding"], "language_weight": 0.3}, "layout": ["qwerty", "dvorak"]}
    keys = read_experiment({**values, "architecture": architecture}).workload
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture](SwipeConfig(**{**SIZES, "rate": 10.0, **options})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return FinishedRun(keys, model)


def walks(exported: Exported, layout: str, lengths: list[int], seed: int) -> dict[str, np.ndarray]:
    """Random traces on a layout."""
    steps = np.random.default_rng(seed).normal(size=(len(lengths), 150, 2)).astype(np.float32)
    points, mask = padded([4 + 0.4 * np.cumsum(row[:n], 0) for row, n in zip(steps, lengths, strict=True)])
    boxes = np.stack([exported.boxes(layout)] * len(lengths))
    return {"points": points, "attention_mask": mask, "boxes": boxes}


@pytest.mark.parametrize(("encoder", "features"), [("transformer", "key_weights"), ("conformer", "google2015")])
def test_a_graph_is_the_model_at_any_length_and_on_any_layout(values, tmp_path, encoder, features):
    run = made(values, "ctc", encoder=encoder, features=features)
    write_folder(run, tmp_path / "out")
    exported = Exported.open(tmp_path / "out")
    for seed, lengths in enumerate(LENGTHS):
        for layout in exported.layouts:
            inputs = walks(exported, layout, lengths, seed)
            with torch.no_grad():
                expected = run.model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
            found = exported.run("model", **inputs)
            assert np.abs(found - expected.numpy()).max() < 1e-4 * expected.abs().max(), (lengths, layout)


@pytest.mark.parametrize("features", FEATURES)
def test_every_feature_set_can_be_exported(features, tmp_path):
    torch.manual_seed(0)
    model = SwipeForCTC(SwipeConfig(features=features, **{**SIZES, "num_layers": 1})).eval()
    boxes = torch.rand(26, 4) + torch.arange(26)[:, None] % 7
    (graph,) = graphs_of(model).values()
    write_graph(graph, boxes, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = checks.example(graph, boxes, batch=5, time=31, seed=4)
    with torch.no_grad():
        expected = graph.module(*inputs.values()).numpy()
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_encoder_and_decoder_are_two_graphs(values, tmp_path):
    """Words that ``generate`` finds with the graphs have the same scores; the decoder reads prefixes of any length."""
    run = made(values, "encoder_decoder")
    write_folder(run, tmp_path / "out")
    exported = Exported.open(tmp_path / "out")
    assert checks.largest_difference(run.model, exported) < 1e-4
    inputs = walks(exported, "dvorak", [12, 5], 0)
    states = exported.run("encoder", **inputs)
    for length in (1, 9):
        tokens = np.full((2, length), 3)
        tokens[:, 0] = 0
        mask = inputs["attention_mask"]
        found = exported.run("decoder", states=states, attention_mask=mask, tokens=tokens)
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        with torch.no_grad():
            expected = run.model(**tensors, decoder_input_ids=torch.from_numpy(tokens)).logits
        np.testing.assert_allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    rows = load_rows(run.keys)["test"]
    options = (rows, exported, 4, 0.3, 12)
    first = checks.predictions(run.model, *options)
    second = checks.predictions(checks.on_graphs(run.model, exported), *options)
    for row, other in zip(first, second, strict=True):
        assert [word for word, _ in row["candidates"]] == [word for word, _ in other["candidates"]]
        scores = [[score for _, score in each["candidates"]] for each in (row, other)]
        np.testing.assert_allclose(*scores, rtol=1e-3)


def test_the_command_exports_a_run_that_loads_alone(values, tmp_path, capsys):
    """The predictions of the run follow from the folder and its traces."""
    values |= {"decoding": {"beam": 4, "language_weight": 0.4}, "layout": ["qwerty", "dvorak"]}
    run_experiment(read_experiment(values))
    assert command.main([str(tmp_path / "run"), str(tmp_path / "out"), "--rows", "5"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "5 test traces" in " ".join(lines["Model"])
    assert float(lines["float32"][2]) < 1e-4
    assert lines["float32"][3:5] == lines["torch"][2:4]
    header = json.loads((tmp_path / "out" / "export.json").read_text())
    assert header["graphs"]["model"]["inputs"]["points"] == {"shape": ["batch", "time", 2], "dtype": "float32"}
    assert header["graphs"]["model"]["inputs"]["attention_mask"]["dtype"] == "int64"
    exported = Exported.open(tmp_path / "out")
    points = load_rows(read_experiment(values).workload)["test"].points
    saved = [json.loads(line) for line in (tmp_path / "run" / "predictions_test.jsonl").read_text().splitlines()]
    assert {row["layout"] for row in saved} == {"qwerty", "dvorak"}
    for row, trace in zip(saved, points, strict=True):
        batch, mask = padded([trace])
        logits = exported.run("model", points=batch, attention_mask=mask, boxes=exported.boxes(row["layout"])[None])
        log_probs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
        trie = exported.tries[row["layout"]]
        options = header["beam"], 4, trie, header["language_weight"]
        (found,) = beam_ctc(log_probs, mask.sum(1), header["alphabet"], *options)
        assert [word for word, _ in found] == [word for word, _ in row["candidates"]]


def test_what_int8_loses_is_seen(values, tmp_path):
    """Predictions by other graphs differ from those of the model, and the table says by how much."""
    run = made(values, "ctc", d_model=128, d_ff=512)
    write_folder(run, tmp_path / "out")
    sizes = [(tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model_int8.onnx")]
    assert sizes[1] < 0.5 * sizes[0]
    int8 = Exported.open(tmp_path / "out", "int8")
    assert 1e-4 < checks.largest_difference(run.model, int8) < 1
    right, wrong = (
        [{"index": n, "word": "a", "layout": "qwerty", "candidates": [[word, 0.0]]} for n in range(100)]
        for word in "ab"
    )
    text = command.results_table({"torch": right, "int8": wrong}, {"torch": 2**20, "int8": 2**19}, {"int8": 0.5}, 0)
    assert "+1.0000 (+1.0000 to +1.0000)" in text


def test_a_graph_that_differs_is_refused(values, tmp_path, monkeypatch, capsys):
    run_experiment(read_experiment({**values, "max_steps": 1}))
    monkeypatch.setattr(command, "largest_difference", lambda *_: 2e-4)
    assert command.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "got a difference of 0.0002" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_refused_by_its_extra(values, tmp_path, monkeypatch, missing):
    def importing(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(name=missing)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    run = made(values, "ctc")
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ConfigurationError, match=rf"without {missing}: pip install 'tensorized-adapters\[onnx\]'"):
        write_folder(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_exports_are_refused(values, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigurationError, match="DEST is a new or empty folder"):
        write_folder(made(values, "ctc"), tmp_path / "full")
    with pytest.raises(ConfigurationError, match=r"folder with export\.json"):
        Exported.open(tmp_path / "full")
    (tmp_path / "full" / "export.json").write_text('{"format": 0}')
    with pytest.raises(ConfigurationError, match="format"):
        Exported.open(tmp_path / "full")
    with pytest.raises(ConfigurationError, match="precision"):
        Exported.open(tmp_path / "full", "int4")
    assert command.main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert command.main([str(tmp_path / "nowhere"), str(tmp_path / "out"), "--rows", "0"]) == 2
    assert "'--rows'" not in capsys.readouterr().out
