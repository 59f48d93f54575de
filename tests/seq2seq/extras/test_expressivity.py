"""Expressivity of a run: recorded before and after training, by the command, and what is refused."""

import dataclasses
import json
import math
import re
import shutil

import pytest
import torch

import adapters
from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.expressivity import main
from seq2seq.extras.expressivity import (
    PAIRS,
    draw_expressivity,
    expressivity_table,
    growth,
    measure,
    record,
    summary,
)
from seq2seq.extras.trajectories import Pair, t5_trajectory
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment
from third_party.models.t5 import T5ForConditionalGeneration

ADAPTER = {"kind": "tt_lora", "rank": 4, "target_modules": ["q", "v", "wi", "wo"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """The folder of a finished run that measured, its result and its configuration."""
    root = tmp_path_factory.mktemp("finished")
    colours = request.getfixturevalue("colours")
    values = {
        "experiment_name": "stretched",
        "output_root": str(root),
        "model_name_or_path": str(request.getfixturevalue("backbone")),
        "train_file": str(colours / "train.tsv"),
        "validation_file": str(colours / "validation.tsv"),
        "max_target_length": 4,
        "adapter": ADAPTER,
        "measure_expressivity": True,
        "max_train_samples": 16,
        "max_validation_samples": 4,
        "per_device_train_batch_size": 16,
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "disable_tqdm": True,
    }
    return root / "stretched", run_experiment(read_experiment(values)), values


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be written to."""
    return shutil.copytree(finished[0], tmp_path / "stretched")


def read(folder):
    return json.loads((folder / "expressivity.json").read_text())


def pairs_by_hand(task) -> list[Pair]:
    """The first different validation sources two by two, and the first one's target behind the start token 0."""
    rows = []
    for row in task.encoded["validation"]:
        if row["input_ids"] not in [other["input_ids"] for other in rows]:
            rows.append(row)
    rows = rows[: 2 * PAIRS]
    return [
        Pair(one["input_ids"], other["input_ids"], [0, *one["labels"][:-1]])
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]


class TestRun:
    def test_before_is_the_base_and_after_the_saved_adapter(self, finished, backbone, tmp_path):
        folder, _, values = finished
        prepared = prepare(read_experiment(values), tmp_path / "none")
        pairs = pairs_by_hand(next(iter(prepared.data.tasks.values())))
        assert len(pairs) > 1
        base = T5ForConditionalGeneration.from_pretrained(backbone)
        assert read(folder)["before"] == pytest.approx(t5_trajectory(base, pairs, 0), rel=1e-12)
        trained = adapters.load(base, folder / "adapter")
        assert read(folder)["after"] == pytest.approx(t5_trajectory(trained, pairs, 0), rel=1e-12)
        assert read(folder)["after"]["encoder 1"] != read(folder)["before"]["encoder 1"]

    def test_the_result_and_the_page_have_the_growth_of_both_stacks(self, finished):
        folder, result, _ = finished
        before, after = read(folder)["before"], read(folder)["after"]
        assert result["expressivity"] == {
            stack: {
                "before": before[f"{stack} norm"] / before["input"],
                "after": after[f"{stack} norm"] / after["input"],
            }
            for stack in ("encoder", "decoder")
        }
        page = (folder / "README.md").read_text()
        shown = result["expressivity"]["decoder"]
        assert f"growth of a trajectory, decoder | {shown['before']:.3f} before, {shown['after']:.3f} after" in page
        assert "![trajectory lengths](expressivity.png)" in page
        assert (folder / "expressivity.png").read_bytes()[:4] == b"\x89PNG"

    def test_measuring_changes_nothing_else(self, finished, tmp_path):
        folder, result, values = finished
        plain = run_experiment(read_experiment({**values, "measure_expressivity": False, "output_root": str(tmp_path)}))
        assert plain["expressivity"] is None
        assert plain["metrics"] == result["metrics"]
        assert not (tmp_path / "stretched" / "expressivity.json").exists()
        name = "adapter/adapter_model.safetensors"
        assert (tmp_path / "stretched" / name).read_bytes() == (folder / name).read_bytes()

    def test_a_finished_run_is_asked_for_it_without_training_again(self, values, tmp_path):
        small = {**values, "num_train_epochs": 1, "max_train_samples": 16, "max_validation_samples": 4}
        run_experiment(read_experiment(small))
        asked = {**small, "measure_expressivity": True}
        result = run_experiment(read_experiment({**asked, "do_train": False}))
        measured = read(tmp_path / "outputs" / "colours")
        assert measured["before"] is None
        assert result["expressivity"]["encoder"] == {
            "before": None,
            "after": measured["after"]["encoder norm"] / measured["after"]["input"],
        }
        written = (tmp_path / "outputs" / "colours" / "expressivity.json").stat().st_mtime_ns
        assert run_experiment(read_experiment({**asked, "do_train": False}))["expressivity"] == result["expressivity"]
        assert (tmp_path / "outputs" / "colours" / "expressivity.json").stat().st_mtime_ns == written

    def test_an_evaluation_keeps_what_was_measured_before_training(self, finished, copied):
        _, result, values = finished
        before = read(copied)
        (copied / "metrics.json").unlink()
        again = run_experiment(read_experiment({**values, "output_root": str(copied.parent), "do_train": False}))
        assert read(copied) == before
        assert again["expressivity"] == result["expressivity"]

    def test_one_source_is_refused_before_anything_is_written(self, values, tmp_path):
        path = tmp_path / "one.tsv"
        path.write_text("source\ttarget\n" + "the house is red\tred\n" * 4)
        experiment = read_experiment({**values, "validation_file": str(path), "measure_expressivity": True})
        with pytest.raises(ConfigurationError, match=r"'measure_expressivity' .* two different sources; got 1"):
            run_experiment(experiment)
        assert not (tmp_path / "outputs").exists()

    def test_adapters_of_each_task_act_on_their_sources(self, values, tmp_path):
        """The mean over the pairs of both tasks, five sources of one and six of the other."""
        mixture = {"tasks": ["world_sentiment", "world_similarity"], "batches": "one_task", "adapters": "per_task"}
        given = {key: value for key, value in values.items() if not key.endswith("_file")}
        del given["model_name_or_path"]
        experiment = read_experiment(
            {**given, "mixture": mixture, "max_train_samples": 32, "max_validation_samples": 6}
        )
        prepared = prepare(experiment, tmp_path / "none")
        torch.manual_seed(0)
        for parameter in prepared.model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
        pairs = {name: pairs_by_hand(task) for name, task in prepared.data.tasks.items()}
        pairs["world_sentiment"].pop()
        prepared.data.tasks["world_sentiment"] = dataclasses.replace(
            prepared.data.tasks["world_sentiment"],
            encoded={"validation": prepared.data.tasks["world_sentiment"].encoded["validation"].select(range(5))},
        )
        expected = {}
        for name, of_task in pairs.items():
            adapters.set_active_task(prepared.model, name)
            for layer, length in t5_trajectory(prepared.model, of_task, 0, chords=4).items():
                expected[layer] = expected.get(layer, 0.0) + length * len(of_task) / 5
        assert [len(of_task) for of_task in pairs.values()] == [2, 3]
        assert measure(experiment, prepared, chords=4) == pytest.approx(expected, rel=1e-12)


LENGTHS = {"input": 2.0, "encoder 0": 3.0, "encoder 0 alone": 3.0, "encoder norm": 1.0, "decoder norm": 8.0}


class TestRecord:
    def test_growth_is_relative_to_the_curve(self):
        assert growth(LENGTHS, "decoder norm") == 4.0
        assert growth(None, "decoder norm") is None
        assert growth({"input": 0.0, "encoder 0": 0.0}, "encoder 0") is None

    def test_a_diverged_model_is_null_in_every_place(self, tmp_path):
        measured = record(tmp_path, LENGTHS, {**LENGTHS, "decoder norm": None})
        assert read(tmp_path) == measured
        assert summary(measured) == {
            "encoder": {"before": 0.5, "after": 0.5},
            "decoder": {"before": 4.0, "after": None},
        }
        assert "decoder norm" in expressivity_table("x", measured)

    @pytest.mark.parametrize(("curve", "kept"), [("arc", True), ("circle", False)])
    def test_only_a_record_of_the_same_curve_is_carried_on(self, tmp_path, curve, kept):
        record(tmp_path, LENGTHS, LENGTHS, "arc")
        measured = record(tmp_path, None, LENGTHS, curve)
        assert (measured["before"] == LENGTHS) is kept

    def test_lengths_that_are_not_finite_are_null(self, finished, tmp_path):
        experiment = read_experiment(finished[2])
        prepared = prepare(experiment, tmp_path / "none")
        prepared.model.encoder.block[1].layer[0].layer_norm.weight.data.fill_(math.inf)
        measured = measure(experiment, prepared, chords=2)
        assert measured["encoder 0"] > 0
        assert measured["encoder norm"] is None
        record(tmp_path, None, measured, chords=2)

    def test_several_runs_are_drawn_with_a_line_for_each_moment(self, tmp_path, monkeypatch):
        drawn = {}
        monkeypatch.setattr("seq2seq.extras.expressivity.legend_below", lambda figure, lines: drawn.update(lines))
        one = {"before": LENGTHS, "after": {**LENGTHS, "decoder norm": 6.0}}
        draw_expressivity(tmp_path / "plot.png", {"one": one, "two": {**one, "before": None}})
        assert set(drawn) == {"one before", "one after", "two after"}
        assert len({line.get_color() for line in drawn.values()}) == 2
        assert list(drawn["one after"].get_ydata()) == [1.5]  # of the blocks alone, which are drawn last


class TestCommand:
    def test_it_measures_what_the_run_measured(self, finished, copied, capsys):
        before = read(copied)
        (copied / "expressivity.json").unlink()
        assert main([str(copied)]) == 0
        assert read(copied) == before
        shown = capsys.readouterr().out
        assert f"{growth(before['after'], 'decoder 1 alone'):.4f}" in shown
        assert f"{growth(before['before'], 'encoder norm'):.4f}" in shown

    def test_a_run_whose_ranks_have_changed_is_measured(self, finished, tmp_path):
        schedule = {"start": 1, "every": 1, "end": 1, "budget": 3000}
        values = finished[2] | {"measure_expressivity": False, "rank_schedule": schedule, "output_root": str(tmp_path)}
        run_experiment(read_experiment(values))
        assert main([str(tmp_path / "stretched"), "--chords", "2"]) == 0

    def test_several_runs_are_compared_in_one_plot(self, copied, tmp_path, capsys, monkeypatch):
        other = shutil.copytree(copied, tmp_path / "other")
        assert main([str(copied), str(other), "--curve", "line", "--chords", "4"]) == 0
        assert (tmp_path / "expressivity.png").is_file()
        assert read(other)["curve"] == "line"
        assert str(tmp_path / "expressivity.png") in capsys.readouterr().out
        monkeypatch.setattr("seq2seq.expressivity.measure_finished", lambda directory, *_: read(directory))
        assert main([str(copied), str(other), "--out", str(tmp_path / "two.png")]) == 0
        assert (tmp_path / "two.png").is_file()

    def test_what_is_no_finished_run_is_a_sentence(self, copied, tmp_path, capsys):
        assert main([str(tmp_path)]) == 2
        assert "lacks config.json: name the folder of a finished run" in capsys.readouterr().err
        shutil.rmtree(copied / "adapter")
        assert main([str(copied)]) == 2
        assert "lacks adapter: name" in capsys.readouterr().err
        (copied / "adapter").mkdir()
        (copied / "config.json").write_text("{")
        assert main([str(copied)]) == 2
        assert "config.json, which cannot be read" in capsys.readouterr().err

    def test_an_adapter_that_cannot_be_read_is_a_sentence(self, copied, capsys):
        (copied / "adapter" / "adapter_model.safetensors").write_bytes(b"\x00")
        assert main([str(copied)]) == 1
        assert re.search(
            r"^Failed: .*adapter_model.safetensors must be a safetensors file", capsys.readouterr().err, re.M
        )

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--curve", "arch"], "Option --curve must be a known name; got 'arch': .*arc"),
            (["--chords", "0"], "Option --chords must be at least 1; got 0"),
            (
                ["--out", "not/there/plot.png"],
                "Option --out must name a file in an existing directory; got 'not/there/plot.png'",
            ),
            (["--out", "/"], "Option --out must name a file in an existing directory; got '/'"),
        ],
    )
    def test_bad_options_are_sentences(self, finished, options, sentence, capsys):
        assert main([str(finished[0]), *options]) == 2
        err = capsys.readouterr().err
        assert re.match(f"Refused: {sentence}", err)
