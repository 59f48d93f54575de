"""Tracking: wandb where asked for, nothing otherwise, the same two methods."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from adapters import ConfigurationError
from seq2seq import PROJECT
from seq2seq.configuration.reading import read_experiment
from seq2seq.extras import EXTRAS
from seq2seq.extras.memory import draw_memory
from seq2seq.run_folder import RunFolder
from seq2seq.running.tracking import (
    NullTracker,
    TrackingCallback,
    check_tracking,
    log_report,
    main_settings,
    make_tracker,
)


class Recorder:
    """Remembers what it is told."""

    def __init__(self):
        self.logged = []

    def log(self, values, step=None):
        self.logged.append((step, values))

    def log_image(self, name, path):
        self.logged.append((name, path.name))

    def log_table(self, name, header, rows):
        self.logged.append((name, header, rows))

    def finish(self):
        pass


def test_without_wandb_nothing_is_tracked_and_nothing_fails(values, tmp_path):
    tracker = make_tracker(read_experiment(values), tmp_path, main_process=True)
    assert isinstance(tracker, NullTracker)
    assert tracker.log({"loss": 1.0}, step=3) is None
    assert tracker.log_image("curve", tmp_path / "curve.png") is None
    assert tracker.log_table("memory_by_layer", ["layer"], [["encoder 0"]]) is None
    assert tracker.finish() is None
    assert list(tmp_path.glob("wandb*")) == []


def test_only_the_main_process_tracks(values, tmp_path):
    experiment = read_experiment({**values, "log_to_wandb": True})
    assert isinstance(make_tracker(experiment, tmp_path, main_process=False), NullTracker)


def test_wandb_asked_for_and_not_installed_is_a_sentence(values, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigurationError, match=r"'log_to_wandb' needs wandb.*pip install wandb"):
        check_tracking(read_experiment({**values, "log_to_wandb": True}))


def test_tensorboard_asked_for_and_not_installed_is_a_sentence(values, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"'report_to' needs tensorboard.*pip install tensorboard"):
        check_tracking(read_experiment({**values, "report_to": "tensorboard"}))


def test_the_record_has_the_main_settings_only(values):
    settings = main_settings(read_experiment({**values, "seed": 5}))
    assert settings["seed"] == 5
    assert settings["adapter"][0]["kind"] == "tt_lora"
    assert set(settings) == {
        "task",
        "model",
        "adapter",
        "learning_rate",
        "per_device_train_batch_size",
        "num_train_epochs",
        "seed",
    }


def test_the_trainers_numbers_are_passed_on_with_their_step():
    recorder = Recorder()
    state = SimpleNamespace(global_step=20)
    logs = {"loss": 0.5, "eval_loss": 0.4, "note": "a string"}
    TrackingCallback(recorder).on_log(None, state, None, logs=logs)
    assert recorder.logged == [(20, {"train/loss": 0.5, "validation/loss": 0.4})]


LAYERS = {"encoder 0": {"parameters": 8, "gradients": 4, "optimizer": 2, "activations": None}}


@pytest.mark.parametrize("pictures", [[], ["curve.png", "memory.png"], ["expressivity.png"]])
def test_what_a_run_has_drawn_is_passed_on(tmp_path, pictures):
    for name in pictures:
        (tmp_path / name).touch()
    recorder = Recorder()
    log_report(recorder, RunFolder(tmp_path), {"costs": None}, [extra() for extra in EXTRAS])
    assert recorder.logged == [(name.removesuffix(".png"), name) for name in pictures]


def test_memory_by_layer_is_passed_on_as_a_table(tmp_path):
    recorder = Recorder()
    log_report(recorder, RunFolder(tmp_path), {"costs": {"memory_by_layer": LAYERS}}, [extra() for extra in EXTRAS])
    header = ["layer", "parameters", "gradients", "optimizer", "activations"]
    assert recorder.logged == [("memory_by_layer", header, [["encoder 0", 8, 4, 2, None]])]


def test_wandb_takes_pictures_and_tables(values, tmp_path, monkeypatch):
    """wandb itself makes the picture and the table; what it would send is kept instead."""
    kept = []
    run = SimpleNamespace(log=lambda values, step=None: kept.append(values))
    monkeypatch.setattr("wandb.init", lambda **settings: run)
    tracker = make_tracker(read_experiment({**values, "log_to_wandb": True}), tmp_path, main_process=True)
    draw_memory(tmp_path / "memory.png", LAYERS)
    tracker.log_image("memory", tmp_path / "memory.png")
    tracker.log_table("memory_by_layer", ["layer", "parameters", "activations"], [("encoder 0", 8, None)])
    (picture,), (table,) = (list(values.items()) for values in kept)
    assert picture[0] == "memory"
    assert picture[1].image.size[0] > 500
    assert table[0] == "memory_by_layer"
    assert table[1].columns == ["layer", "parameters", "activations"]
    assert table[1].data == [["encoder 0", 8, None]]


@pytest.mark.slow
def test_wandb_offline_needs_no_account(config_file, tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline", "HOME": str(tmp_path)}
    command = [
        sys.executable,
        str(PROJECT / "run_seq2seq.py"),
        str(config_file),
        "log_to_wandb=true",
        "measure_expressivity=true",
        "num_train_epochs=1",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    records = list((tmp_path / "outputs" / "colours" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(records) == 1
    assert records[0].stat().st_size > 0
    media = records[0].parent / "files" / "media"
    assert {path.name.split("_")[0] for path in (media / "images").iterdir()} == {"curve", "memory", "expressivity"}
    assert len(list((media / "table").glob("memory_by_layer*.table.json"))) == 1


@pytest.mark.slow
def test_tensorboard_follows_through_the_trainer(config_file, tmp_path):
    command = [
        sys.executable,
        str(PROJECT / "run_seq2seq.py"),
        str(config_file),
        "report_to=tensorboard",
        "num_train_epochs=1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "outputs" / "colours").rglob("events.out.tfevents.*"))
