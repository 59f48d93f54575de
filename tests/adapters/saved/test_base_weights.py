"""The sample of base weights: another base is noticed, the same one in any dtype is not."""

import itertools
import json
import logging

import pytest
import torch

import adapters
from adapters.saved.base_weights import KEY, SIZE, base_sample
from adapters.saved.checkpoint import METADATA_KEY, fingerprint
from adapters.saved.folder import read_tensors, write_files

KEYS = "encoder.block.1.layer.0.SelfAttention.k.weight"
LORA = {"kind": "tt_lora", "rank": 2}
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.fixture
def warnings_of(caplog):
    """A function that loads a folder into a model, and gives what was logged."""

    def load(model, folder):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "adapters"):
            adapters.load(model, folder)
        return [record.getMessage() for record in caplog.records]

    return load


def entry(folder):
    return json.loads((folder / "adapter_config.json").read_text()).get(KEY)


def other_base(model, change):
    """The same architecture with other weights in all tensors or in one."""
    names = [name for name, _ in model.named_parameters()] if change == "every weight" else [change]
    for name in names:
        parameter = model.get_parameter(name).data
        parameter += 1e-4 * parameter.abs().mean() * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize(("then", "now"), [*itertools.product(FLOATS, FLOATS)])
def test_the_same_base_in_any_dtype_is_no_warning(tiny_t5, warnings_of, tmp_path, then, now):
    base = tiny_t5()
    for parameter in base.parameters():  # sizes of trained weights, down to what float16 has with few digits only
        parameter.data *= 10 ** torch.empty_like(parameter).uniform_(-6, 1)
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapters.save(adapters.attach(base.to(then), LORA), tmp_path)
    again = tiny_t5()
    again.load_state_dict(state)
    assert warnings_of(again.to(now), tmp_path) == []


@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_a_base_with_other_weights_is_a_warning(tiny_t5, warnings_of, tmp_path, dtype):
    adapters.save(adapters.attach(tiny_t5(), LORA), tmp_path)
    base = tiny_t5()
    for parameter in base.parameters():
        parameter.data = torch.randn_like(parameter)
    (message,) = warnings_of(base.to(dtype), tmp_path)
    assert message.startswith("An adapter computes what it has learned only on the base that it was trained on; got")
    assert f"{tmp_path} (2" in message
    assert "load the base model it was trained on" in message


@pytest.mark.parametrize("change", ["every weight", "shared.weight", "decoder.final_layer_norm.weight", KEYS])
@pytest.mark.parametrize("present", [False, True], ids=["load attaches", "attached before"])
def test_a_slightly_trained_base_is_a_warning(tiny_t5, warnings_of, tmp_path, change, present):
    adapters.save(adapters.attach(tiny_t5(), LORA), tmp_path)
    base = other_base(tiny_t5(), change)
    assert len(warnings_of(adapters.attach(base, LORA) if present else base, tmp_path)) == 1


@pytest.mark.parametrize("state", ["unmerged", "merged"])
def test_trained_adapters_and_base_weights_that_kinds_train_are_no_warning(
    tiny_t5, trained, any_adapter, warnings_of, tmp_path, state
):
    model = trained(adapters.attach(tiny_t5(), any_adapter))
    adapters.save(model, tmp_path / "unmerged")
    if state == "merged" and adapters.unmergeable(model) is None:
        adapters.merge(model)
    adapters.save(model, tmp_path / "now")
    assert entry(tmp_path / "now") == entry(tmp_path / "unmerged")
    assert warnings_of(tiny_t5(), tmp_path / "now") == []
    assert warnings_of(model, tmp_path / "now") == []


@pytest.mark.parametrize("kind", ["layer_norm", "lm_head"])
def test_of_a_kind_that_trains_some_weights_the_others_are_compared(tiny_t5, warnings_of, tmp_path, kind):
    adapters.save(adapters.attach(tiny_t5(), {"kind": kind}), tmp_path)
    trained = "decoder.final_layer_norm.weight" if kind == "layer_norm" else "shared.weight"
    assert warnings_of(other_base(tiny_t5(), trained), tmp_path) == []
    assert len(warnings_of(other_base(tiny_t5(), "encoder.block.0.layer.0.SelfAttention.q.weight"), tmp_path)) == 1


def test_full_fine_tuning_has_no_sample(tiny_t5, warnings_of, tmp_path):
    adapters.save(adapters.attach(tiny_t5(), {"kind": "none"}), tmp_path)
    assert entry(tmp_path) is None
    assert warnings_of(other_base(tiny_t5(), "every weight"), tmp_path) == []


@pytest.mark.parametrize("values", [None, "nothing", {}, {"tensors": 3, "sample": "no base64"}], ids=str)
def test_a_folder_without_a_readable_sample(tiny_t5, warnings_of, tmp_path, values):
    adapters.save(adapters.attach(tiny_t5(), LORA), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config.pop(KEY)
    config |= {} if values is None else {KEY: values}
    write_files(tmp_path, config, read_tensors(tmp_path)[0], {METADATA_KEY: fingerprint(config)})
    assert len(warnings_of(tiny_t5(), tmp_path)) == isinstance(values, dict)


def test_the_sample_is_small_deterministic_and_of_every_tensor(tiny_t5, tmp_path):
    model = adapters.attach(tiny_t5(), LORA)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    sample = base_sample(model)
    plain = tiny_t5(ours=False)
    plain.load_state_dict(tiny_t5().state_dict())
    assert sample == base_sample(adapters.attach(plain, LORA))
    assert sample["tensors"] == len(frozen)
    assert len(sample["sample"]) <= SIZE * 4 * 4 / 3 + 4
    for name in frozen:
        assert base_sample(other_base(adapters.attach(tiny_t5(), LORA), name)) != sample


def test_a_base_without_weights_has_no_sample(tiny_t5):
    with torch.device("meta"):
        assert base_sample(adapters.attach(tiny_t5(), LORA)) is None


def test_more_tensors_than_values(tiny_t5):
    model = adapters.attach(tiny_t5(num_layers=20, num_decoder_layers=12), LORA)
    sample = base_sample(model)
    assert sample["tensors"] > SIZE
    assert len(sample["sample"]) == -(-SIZE * 4 // 3) * 4
