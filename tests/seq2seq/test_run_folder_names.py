"""Run folders of earlier versions, whose config.json has other names of fields."""

import json

from adapters import AdapterConfig
from seq2seq.configuration.reading import read_experiment
from seq2seq.report.collect import read_run
from seq2seq.run_folder import RunFolder


def test_a_run_of_an_earlier_version_goes_on_and_is_reported_with_the_present_names(values, tmp_path):
    adapter = {"kind": "tt_lora", "rank": 2, "delta_bias": "dense"}
    experiment = read_experiment({**values, "adapter": adapter})
    folder = RunFolder(tmp_path / "outputs" / "colours")
    folder.open(experiment)
    config = json.loads(folder.config.read_text())
    now = config["adapter"]
    assert now == [AdapterConfig.from_dict(adapter).to_dict()]
    then = [{"bias" if key == "delta_bias" else key: value for key, value in entry.items()} for entry in now]
    folder.config.write_text(json.dumps({**config, "adapter": then}))
    (folder.adapter).mkdir()  # progress, which another configuration must not continue
    folder.check(experiment)
    assert read_run(folder.directory, tmp_path).config["adapter"] == now


def test_a_config_that_no_version_wrote_is_reported_as_it_is(tmp_path):
    strange = [{"kind": "unknown", "bias": "dense"}, "tt_lora", {"bias": "tt"}, {"kind": ["tt_lora"]}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"adapter": strange}))
    assert read_run(tmp_path / "run", tmp_path).config == {"adapter": strange}
