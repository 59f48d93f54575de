"""Tracking: what wandb and tensorboard have written is read back; nothing is tracked by default."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.configuration.sweep import load_cells
from seq2seq.extras import EXTRAS
from seq2seq.extras.memory import draw_memory
from seq2seq.run_folder import RunFolder, read_json
from seq2seq.running.runner import run_experiment
from seq2seq.running.trackers import WandbRun
from seq2seq.running.tracking import TrackingCallback, check_tracking, log_report, make_tracker, settings_of
from tests.seq2seq.running import wandb_files
from third_party.trainers.measurement import MeasurementCallback


@pytest.fixture(autouse=True)
def blank_pictures():
    """None: trackers read the pictures."""


@pytest.fixture
def values(values):
    """Own files of a fixed name."""
    return {**values, "data_name": "own_files"}


@pytest.fixture
def model():
    """A module with three trainable and four frozen parameters."""
    linear = torch.nn.Linear(3, 1)
    linear.frozen = torch.nn.Parameter(torch.zeros(4), requires_grad=False)
    linear.bias.requires_grad_(False)
    return linear


class Recorder:
    """Remembers what it is told."""

    def __init__(self):
        self.logged = []

    def start(self, step):
        self.logged.append(("start", step))

    def log(self, values, step=None):
        self.logged.append((step, values))

    def log_image(self, name, path):
        self.logged.append((name, path.name))

    def log_table(self, name, header, rows):
        self.logged.append((name, header, rows))

    def finish(self):
        pass


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """wandb without network and account, and without a word on the screen."""
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


def test_nothing_is_tracked_by_default(values, tmp_path):
    tracker = make_tracker(read_experiment(values), RunFolder(tmp_path / "run"), main_process=True)
    assert tracker.trackers == ()
    assert tracker.log({"loss": 1.0}, step=3) is None
    assert tracker.finish() is None
    assert not (tmp_path / "run").exists()


def test_only_the_main_process_tracks(values, tmp_path):
    experiment = read_experiment({**values, "log_to_wandb": True, "report_to": "tensorboard"})
    assert make_tracker(experiment, RunFolder(tmp_path), main_process=False).trackers == ()


def test_wandb_asked_for_and_not_installed_is_a_sentence(values, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigurationError, match=r"'log_to_wandb' needs wandb.*pip install wandb"):
        check_tracking(read_experiment({**values, "log_to_wandb": True}))


def test_tensorboard_asked_for_and_not_installed_is_a_sentence(values, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"'report_to' needs tensorboard.*pip install tensorboard"):
        check_tracking(read_experiment({**values, "report_to": "tensorboard"}))


FILTERED = [
    ({"seed": 5}, ("seed",), 5),
    ({"data_seed": 3}, ("data_seed",), 3),
    ({"max_train_samples": 8}, ("max_train_samples",), 8),
    ({"dtype": "bfloat16"}, ("dtype",), "bfloat16"),
    ({"warmup_steps": 0.1}, ("warmup_steps",), 0.1),
    ({"adapter": {"kind": "tt_lora", "rank": 3}}, ("adapter", 0, "rank"), 3),
    ({"baselines": ["majority"]}, ("baselines", 0), "majority"),
    ({}, ("task",), "own_files"),
]


@pytest.mark.parametrize(("changed", "path", "value"), FILTERED)
def test_the_record_has_every_setting_that_a_sweep_can_vary(changed, path, value, values):
    settings = settings_of(read_experiment({**values, **changed}))
    assert json.loads(json.dumps(settings)) == settings
    for key in path:
        settings = settings[key]
    assert settings == value


def test_the_trainers_numbers_are_passed_on_with_their_step(model):
    recorder, measurement = Recorder(), MeasurementCallback()
    state = SimpleNamespace(global_step=20)
    callback = TrackingCallback(recorder, measurement)
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs={"eval_loss": 0.4, "note": "a string"}, model=model)
    callback.on_log(None, state, None, logs={"loss": 0.5}, model=model)
    measurement.step_seconds += [9.0, 1.0, 2.0, 3.0]
    measurement.total_counted = 30
    callback.on_log(None, state, None, logs={"loss": 0.3}, model=model)
    memory = recorder.logged[2][1]["costs/peak_memory_bytes"]
    assert memory > 2**20
    first = {"train/loss": 0.5, "parameters/trainable_parameters": 3, "costs/peak_memory_bytes": memory}
    assert recorder.logged[:3] == [("start", 20), (20, {"validation/loss": 0.4}), (20, first)]
    last = recorder.logged[3][1]
    assert last["costs/step_seconds_median"] == 2.0
    assert last["costs/tokens_per_second"] == 2.0


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
    started, run = {}, SimpleNamespace(log=kept.append, define_metric=lambda *names, **settings: None)
    monkeypatch.setattr("wandb.init", lambda **settings: started.update(settings) or run)
    experiment = read_experiment({**values, "log_to_wandb": True, "max_train_samples": 8})
    tracker = make_tracker(experiment, RunFolder(tmp_path), main_process=True)
    assert started["config"]["max_train_samples"] == 8
    draw_memory(tmp_path / "memory.png", LAYERS)
    tracker.log_image("memory", tmp_path / "memory.png")
    tracker.log_table("memory_by_layer", ["layer", "parameters", "activations"], [("encoder 0", 8, None)])
    (picture,), (table,) = (list(values.items()) for values in kept)
    assert picture[0] == "memory"
    assert picture[1].image.size[0] > 500
    assert table[0] == "memory_by_layer"
    assert table[1].columns == ["layer", "parameters", "activations"]
    assert table[1].data == [["encoder 0", 8, None]]


def test_tensorboard_takes_pictures_and_tables(values, tmp_path):
    folder = RunFolder(tmp_path)
    draw_memory(tmp_path / "memory.png", LAYERS)
    tracker = make_tracker(read_experiment({**values, "report_to": "tensorboard"}), folder, main_process=True)
    tracker.log({"train/loss": 1.0}, step=7)
    tracker.log_image("memory", tmp_path / "memory.png")
    tracker.log_table("memory_by_layer", ["layer", "parameters", "activations"], [("encoder 0", 8, None)])
    tracker.log({"test/accuracy": 0.5})
    tracker.finish()
    events = read_events(folder)
    (picture,) = events.Images("memory")
    assert (picture.step, picture.width > 500) == (7, True)
    (text,) = events.Tensors("memory_by_layer/text_summary")
    assert b"encoder 0" in text.tensor_proto.string_val[0]
    assert points(events, "test/accuracy") == [(7, 0.5)]


def read_events(folder: RunFolder) -> EventAccumulator:
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    return events


def points(events: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]


IDENTITIES = [
    ({}, "colours", None, ["colours", "tt_lora"]),
    ({"adapter": [{"kind": "tt_lora"}, {"kind": "bitfit"}]}, "colours", None, ["colours", "tt_lora", "bitfit"]),
    (
        {"sweep": {"adapter.rank": [4], "seed": [1]}},
        "colours/rank-4__seed-1",
        "colours",
        ["colours", "tt_lora", "rank-4", "seed-1"],
    ),
    (
        {"sweep": {"adapter": [{"kind": "tt_lora", "target_modules": [letter * 70]} for letter in "q"]}},
        None,
        "colours",
        ["colours", "tt_lora", ("adapter-tt_lora-target_modules-" + "q" * 70)[:64]],
    ),
]


@pytest.mark.parametrize(("changed", "name", "group", "tags"), IDENTITIES)
def test_wandb_knows_a_run_by_its_experiment_and_its_cell(changed, name, group, tags, values, config_file, tmp_path):
    config_file.write_text(json.dumps({**values, "data_name": "colours", **changed}))
    (cell,) = load_cells([config_file])
    run = WandbRun.of(cell, RunFolder(tmp_path))
    name = name or f"colours/{cell.run.experiment_name}"
    assert (run.name, run.group, list(run.tags)) == (name, group, tags)


def test_the_identity_is_that_of_the_folder(values, tmp_path, caplog):
    experiment = read_experiment(values)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    runs = [WandbRun.of(experiment, RunFolder(tmp_path / name)) for name in ("a", "b", "a")]
    assert runs[0] == runs[2]
    assert runs[0].id != runs[1].id
    RunFolder(tmp_path / "a").wandb.write_text("")
    assert WandbRun.of(experiment, RunFolder(tmp_path / "a")).id != runs[0].id
    assert "cannot be read" in caplog.text


def test_what_a_stopped_and_resumed_run_has_written_without_an_account(
    values, config_file, tmp_path, offline, stop_at, monkeypatch
):
    """One id and one curve for both parts; wandb and tensorboard have the same names and values."""
    changed = {"log_to_wandb": True, "report_to": "tensorboard", "logging_steps": 1, "sweep": {"seed": [3]}}
    changed["measure_expressivity"] = True
    config_file.write_text(json.dumps({**values, "data_name": "colours", **changed}))
    (cell,) = load_cells([config_file])
    folder = RunFolder(cell.run.directory)
    stop_at(9)  # after the checkpoint of step 6
    with pytest.raises(KeyboardInterrupt):
        run_experiment(cell)
    monkeypatch.undo()
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # its process has written everything when it has ended
    (folder.directory / "wandb").rename(tmp_path / "stopped")  # wandb names its folders by the second
    result = run_experiment(cell)
    wandb.teardown()

    (first,), (second,) = (
        [*parent.glob("offline-run-*/run-*.wandb")] for parent in (tmp_path / "stopped", folder.directory / "wandb")
    )
    runs = [wandb_files.run_of(path) for path in (first, second)]
    assert {run.run_id for run in runs} == {read_json(folder.wandb)["id"]}
    assert {(run.display_name, run.run_group) for run in runs} == {("colours/seed-3", "colours")}
    assert [*runs[0].tags] == ["colours", "tt_lora", "seed-3"]
    before, after = (wandb_files.history(path) for path in (first, second))
    assert [step for step, _ in wandb_files.curve(before, "train/loss")] == [*range(1, 9)]
    assert [step for step, _ in wandb_files.curve(after, "train/loss")] == [*range(7, 13)]

    events = read_events(folder)
    losses = wandb_files.curve(before, "train/loss")[:6] + wandb_files.curve(after, "train/loss")
    assert points(events, "train/loss") == losses
    names = {name for entry in before + after for name in entry if "/" in name}
    assert {*events.Tags()["scalars"]} == names
    trainable, metrics = result["parameters"]["trainable_parameters"], result["metrics"]
    expected = {
        "parameters/trainable_parameters": trainable,
        **{f"costs/{name}": result["costs"][name] for name in ("step_seconds_median", "tokens_per_second")},
        **{f"{split}/{name}": value for split in metrics for name, value in metrics[split].items()},
    }
    last = {name: value for entry in after for name, value in entry.items()}
    assert {name: last[name] for name in expected} == expected
    assert {name: points(events, name)[-1] for name in expected} == {name: (12, last[name]) for name in expected}
    assert last["costs/peak_memory_bytes"] > 2**20
    assert not list(folder.checkpoints.rglob("events.out.*"))
    media = second.parent / "files" / "media"
    assert {path.name.split("_")[0] for path in (media / "images").iterdir()} == {"curve", "memory", "expressivity"}
    assert len(list((media / "table").glob("memory_by_layer*.table.json"))) == 1


def test_an_extended_run_adds_its_test_metrics_at_the_last_step(values):
    changed = {**values, "report_to": "tensorboard"}
    trained = run_experiment(read_experiment({**changed, "do_predict": False}))
    experiment = read_experiment({**changed, "do_train": False, "do_eval": False})
    result = run_experiment(experiment)
    assert trained["metrics"].keys() == {"validation"}
    events = read_events(RunFolder(experiment.run.directory))
    assert points(events, "test/exact_match") == [(12, result["metrics"]["test"]["exact_match"])]


REFUSED = [
    ({"WANDB_MODE": "ofline"}, {}, "WANDB_MODE must be a mode of wandb's; got 'ofline'.*'offline'"),
    ({"WANDB_MODE": "offline"}, {"wandb_project": "a/b"}, "Key 'wandb_project'.*got 'a/b'"),
    ({"WANDB_MODE": "offline"}, {"wandb_project": "p" * 129}, "Key 'wandb_project'.*128"),
]


@pytest.mark.parametrize(("environment", "changed", "message"), REFUSED)
def test_what_wandb_would_refuse_later_is_refused_now(environment, changed, message, values, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        check_tracking(read_experiment({**values, "log_to_wandb": True, **changed}))
