"""What may be wrong with a run folder, and what is done about it."""

import json

import pytest

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.run_folder import RunFolder, read_earlier
from seq2seq.running.outcomes import write_failure
from seq2seq.running.runner import run_experiment


@pytest.fixture
def started(values, tmp_path, stop_at, monkeypatch):
    """The folder of a run that was stopped before its first checkpoint, and its configuration."""
    stop_at(2)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    monkeypatch.undo()
    return tmp_path / "outputs" / "colours"


@pytest.mark.parametrize("changed", [{"learning_rate": 0.02}, {"max_source_length": 9}])
def test_a_run_without_a_checkpoint_may_be_restarted_with_other_settings(changed, values, started):
    run_experiment(read_experiment({**values, **changed}))
    written = json.loads((started / "config.json").read_text())
    assert {key: written[key] for key in changed} == changed


def test_a_run_with_a_checkpoint_may_not(values, tmp_path, stop_at, monkeypatch):
    stop_at(7)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match=r"'learning_rate' must equal that of the run"):
        run_experiment(read_experiment({**values, "learning_rate": 0.02}))


def test_opening_and_noting_a_failure_leave_another_run_alone(values, tmp_path):
    """As for a worker whose folder another command has filled since the runs of a sweep were checked."""
    run_experiment(read_experiment({**values, "num_train_epochs": 1, "learning_rate": 0.02}))
    folder = RunFolder(tmp_path / "outputs" / "colours")
    before = folder.config.read_bytes()
    experiment = read_experiment({**values, "num_train_epochs": 1})
    with pytest.raises(ConfigurationError, match="'learning_rate' must equal that of the run"):
        folder.open(experiment)
    write_failure(experiment, "a sentence")
    assert folder.config.read_bytes() == before
    assert not folder.failure.exists()


@pytest.mark.parametrize("name", ["README.md", "metrics.json", "curve.png", "log.txt", "predictions_test.jsonl"])
def test_a_directory_in_place_of_a_file_is_refused(name, values, started):
    (started / name).unlink(missing_ok=True)
    (started / name).mkdir()
    with pytest.raises(ConfigurationError, match=rf"writes a file {name} .* got a directory .*: move it away"):
        run_experiment(read_experiment(values))


def test_a_file_in_place_of_a_checkpoint_is_refused(values, started):
    (started / "checkpoints" / "checkpoint-3").write_text("")
    with pytest.raises(ConfigurationError, match=r"writes a directory checkpoint-3 .* got a file"):
        run_experiment(read_experiment(values))


@pytest.mark.parametrize("name", ["adapter", "checkpoints"])
def test_a_file_in_place_of_a_directory_is_refused(name, values, started):
    if (started / name).is_dir():
        (started / name).rmdir()
    (started / name).write_text("")
    with pytest.raises(ConfigurationError, match=rf"writes a directory {name} .* got a file"):
        run_experiment(read_experiment(values))


@pytest.mark.parametrize("text", ["", '{"majority": {', "[]", "[" * 5000, '{"majority": 3}'])
def test_a_damaged_baselines_json_is_measured_again(text, values, tmp_path, caplog):
    result = run_experiment(read_experiment({**values, "num_train_epochs": 1}))
    path = tmp_path / "outputs" / "colours" / "baselines.json"
    path.write_text(text)
    again = run_experiment(read_experiment({**values, "num_train_epochs": 1, "baselines": ["majority"]}))
    assert json.loads(path.read_text()) == again["baselines"]
    assert again["metrics"] == result["metrics"]
    assert "baselines.json cannot be read" in caplog.text or text == '{"majority": 3}'


@pytest.mark.parametrize(
    "text", ['{"metrics": "x"}', '{"metrics": {"validation": {}, "test": {}}}', "[]", "{", "[" * 5000]
)
def test_a_damaged_metrics_json_is_refused(text, values, started):
    (started / "metrics.json").write_text(text)
    with pytest.raises(ConfigurationError, match="delete it to let the run go on"):
        run_experiment(read_experiment(values))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (None, dict, {}),
        ("{}", dict, {}),
        ('{"a": 1}', dict, {"a": 1}),
        ("{", dict, {}),
        ("[1]", list, [1]),
        ("{}", list, []),
    ],
)
def test_what_an_earlier_start_wrote_is_read_if_it_can_be(text, kind, value, tmp_path):
    if text is not None:
        (tmp_path / "file.json").write_text(text)
    assert read_earlier(tmp_path / "file.json", kind) == value
