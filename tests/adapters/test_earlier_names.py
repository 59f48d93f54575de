"""Fields that earlier versions called otherwise, in JSON and in folders."""

import json

import pytest
import safetensors.torch
import torch

import adapters
from adapters import AdapterConfig, ConfigurationError
from adapters.saved.checkpoint import METADATA_KEY, fingerprint

KINDS = ("tt_lora", "tt_single", "tt_adapter")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["none", "dense", "tt"])
def test_json_with_the_earlier_name_is_read_with_a_word(kind, form):
    with pytest.warns(FutureWarning, match=f"'bias' of adapter kind '{kind}' is called 'delta_bias' now; got '{form}'"):
        config = AdapterConfig.from_dict({"kind": kind, "bias": form})
    assert config == AdapterConfig.from_dict({"kind": kind, "delta_bias": form})
    assert "bias" not in config.to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_both_names_at_once_are_refused(kind):
    with pytest.raises(ConfigurationError, match=r"'bias' .* is the earlier name of 'delta_bias'; got bias='tt' and"):
        AdapterConfig.from_dict({"kind": kind, "bias": "tt", "delta_bias": "dense"})


def test_a_folder_with_the_earlier_name_is_loaded_exactly(tiny_t5, trained, logits, tmp_path):
    model = trained(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, "delta_bias": "dense"}))
    adapters.save(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    saved = config["adapters"][0]["config"]
    saved["bias"] = saved.pop("delta_bias")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tensors = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    metadata = {METADATA_KEY: fingerprint(config)}
    safetensors.torch.save_file(tensors, tmp_path / "adapter_model.safetensors", metadata)
    loaded = tiny_t5()
    with pytest.warns(FutureWarning, match="save the adapter again"):
        adapters.load(loaded, tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert adapters.attachments(loaded) == adapters.attachments(model)
