"""save and load: the folder as other tools see it, the loaded model, and errors that leave the model unchanged."""

import hashlib
import json

import pytest
import safetensors.torch
import torch
from transformers import BertConfig, BertModel

import adapters
from adapters import CheckpointError
from adapters.saved.files import replace_file
from tests.adapters.conftest import LINEAR, NON_LINEAR
from tests.adapters.models import ENCODER

LORA = {"kind": "tt_lora", "rank": 2, "delta_bias": "dense"}
FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
KINDS = ("tt_lora", "shared", "layer_norm", "intrinsic_said", "compacter_shared", "one_tensor", "composed")
STORED = {name: (LINEAR | NON_LINEAR)[name] for name in KINDS}
"""What is stored in different ways: plain and shared parameters, the base's own, buffers, several adapters."""


@pytest.fixture
def saved(tiny_t5, trained, tmp_path):
    """A function from a description to a trained model and the folder it was saved to."""

    def make(description=LORA, task=None):
        model = trained(adapters.attach(tiny_t5(), description, task))
        adapters.save(model, tmp_path / "adapter")
        return model, tmp_path / "adapter"

    return make


def test_a_saved_adapter_loads_into_a_model_without_adapters(saved, tiny_t5, logits, any_adapter):
    model, folder = saved(any_adapter)
    loaded = tiny_t5()
    assert adapters.load(loaded, folder) is loaded
    assert torch.equal(logits(loaded), logits(model))
    assert adapters.attachments(loaded) == adapters.attachments(model)
    trainable = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (loaded, model)]
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize("description", STORED.values(), ids=STORED)
def test_a_saved_adapter_loads_into_a_model_with_the_same_adapters(saved, tiny_t5, logits, description):
    model, folder = saved(description)
    loaded = adapters.attach(tiny_t5(), description)
    parameters = {name: id(parameter) for name, parameter in loaded.named_parameters()}
    adapters.load(loaded, folder)
    assert {name: id(parameter) for name, parameter in loaded.named_parameters()} == parameters
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("description", STORED.values(), ids=STORED)
def test_the_folder_holds_the_adapter_tensors_under_their_names_in_the_model(tiny_t5, saved, description):
    model, folder = saved(description)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    parameters = dict(model.named_parameters())
    base = dict(tiny_t5().named_parameters())
    assert set(tensors) == {
        name for name, parameter in parameters.items() if parameter.requires_grad or name not in base
    }
    for name, tensor in tensors.items():
        assert torch.equal(tensor, parameters[name])
    config = json.loads((folder / "adapter_config.json").read_text())
    configs = adapters.as_configs(description)
    assert [adapters.AdapterConfig.from_dict(entry["config"]) for entry in config["adapters"]] == configs
    assert config["architecture"]["d_model"] == 24


def test_frozen_and_disabled_cores_are_saved_too(saved, tiny_t5, logits):
    model, folder = saved({"kind": "tt_lora", "rank": 2, "frozen_cores": [0], "disabled_cores": [1]})
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 8 * 3
    assert torch.equal(logits(adapters.load(tiny_t5(), folder)), logits(model))


@pytest.mark.parametrize("description", STORED.values(), ids=STORED)
def test_equal_adapters_are_equal_bytes_merged_or_not(saved, tmp_path, description):
    model, folder = saved(description)
    adapters.save(model, tmp_path / "again")
    adapters.merge(model) if adapters.unmergeable(model) is None else None
    adapters.save(model, tmp_path / "merged")
    for name in FILES:
        expected = (folder / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == expected
        assert (tmp_path / "merged" / name).read_bytes() == expected


@pytest.mark.parametrize("description", STORED.values(), ids=STORED)
def test_a_compiled_model_saves_and_loads_as_its_original(saved, tiny_t5, tmp_path, logits, description):
    model, folder = saved(description)
    adapters.save(torch.compile(model, backend="eager"), tmp_path / "compiled")
    for name in FILES:
        assert (tmp_path / "compiled" / name).read_bytes() == (folder / name).read_bytes()
    compiled = torch.compile(tiny_t5(), backend="eager")
    assert adapters.load(compiled, folder) is compiled
    assert torch.equal(logits(compiled._orig_mod), logits(model))


def test_a_save_killed_between_the_two_files_is_detected(saved, tiny_t5, snapshot, monkeypatch):
    """Same names and shapes, another scaling: without the fingerprint it would load with wrong results."""
    _, folder = saved()
    other = adapters.attach(tiny_t5(), {**LORA, "scaling": 4.0})
    replaced = []

    def killed_after_the_first(path, write):
        if replaced:
            raise KeyboardInterrupt
        replace_file(path, write)
        replaced.append(path.name)

    monkeypatch.setattr(adapters.saved.folder, "replace_file", killed_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        adapters.save(other, folder)
    assert replaced == ["adapter_model.safetensors"]
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(CheckpointError, match="two files of an adapter must be saved together"):
        adapters.load(model, folder)
    assert snapshot(model) == before


def test_saving_again_replaces_the_files_and_leaves_no_partial_one(saved, trained, tiny_t5, logits):
    model, folder = saved()
    adapters.save(trained(model), folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert torch.equal(logits(adapters.load(tiny_t5(), folder)), logits(model))


def test_loading_into_a_merged_model_merges_the_new_adapters(saved, tiny_t5, trained, logits):
    model, folder = saved()
    other = trained(adapters.attach(tiny_t5(), LORA), std=0.5)
    base = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    adapters.merge(other)
    adapters.load(other, folder)
    assert adapters.is_merged(other)
    adapters.merge(model)
    assert torch.equal(logits(other), logits(model))
    adapters.unmerge(other)
    for name, parameter in tiny_t5().named_parameters():
        assert torch.equal(other.get_parameter(name), base[name]), (name, parameter.shape)


def test_a_bfloat16_model_loads_adapters_in_float32(saved, tiny_t5):
    model, folder = saved()
    loaded = adapters.load(tiny_t5().to(torch.bfloat16), folder)
    state = adapters.adapter_state_dict(loaded)
    for name, tensor in adapters.adapter_state_dict(model).items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == torch.float32


def test_adapters_of_several_tasks_are_restored(tiny_t5, trained, tmp_path, logits):
    model = tiny_t5()
    for task in ("a", "b", None):
        adapters.attach(model, {"kind": "tt_lora", "rank": 2, "shared_cores": [1]}, task)
    adapters.save(trained(model), tmp_path)
    loaded = adapters.load(tiny_t5(), tmp_path)
    for task in ("a", "b", None):
        adapters.set_active_task(loaded, task)
        adapters.set_active_task(model, task)
        assert torch.equal(logits(loaded), logits(model))


def test_full_fine_tuning_saves_the_whole_model(saved, tiny_t5, logits):
    model, folder = saved({"kind": "none"})
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert set(tensors) == set(dict(model.named_parameters()))
    assert torch.equal(logits(adapters.load(tiny_t5(), folder)), logits(model))


def sign(folder, tensors):
    """Write the tensors with the fingerprint of the present configuration."""
    description = json.loads((folder / "adapter_config.json").read_text())
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    values = {"configuration_sha256": hashlib.sha256(text.encode()).hexdigest(), "format_version": 1}
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", {"adapter": json.dumps(values)})


def edit_tensors(change):
    def edit(folder):
        tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
        change(tensors)
        sign(folder, tensors)

    return edit


def edit_config(change, signed=True):
    def edit(folder):
        path = folder / "adapter_config.json"
        description = json.loads(path.read_text())
        path.write_text(json.dumps(change(description) or description))
        if signed:
            sign(folder, safetensors.torch.load_file(folder / "adapter_model.safetensors"))

    return edit


def drop_metadata(folder):
    path = folder / "adapter_model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)


CORE = "decoder.block.0.layer.2.DenseReluDense.wi.beside.tt_lora.tasks.all_tasks.linear.cores.0"
DAMAGE = {
    "an architecture that is a number": (edit_config(lambda d: {**d, "architecture": 3}), "architecture"),
    "adapters that are a number": (edit_config(lambda d: {**d, "adapters": 3}), "lists valid adapters"),
    "an adapter without a task": (edit_config(lambda d: d["adapters"][0].pop("task") and None), "'task'"),
    "an unknown kind": (edit_config(lambda d: d["adapters"][0]["config"].update(kind="tt_lorra")), "tt_lorra"),
    "an unknown field": (edit_config(lambda d: d["adapters"][0]["config"].update(rnak=2)), "'rnak'"),
    "a field with an invalid value": (edit_config(lambda d: d["adapters"][0]["config"].update(layers=[9])), "layers"),
    "another width": (edit_config(lambda d: d["architecture"].update(d_model=32)), "got d_model=32"),
    "another feed-forward": (
        edit_config(lambda d: d["architecture"].update(feed_forward_proj="gated-gelu")),
        "feed_forward_proj='gated-gelu'",
    ),
    "another depth": (edit_config(lambda d: d["architecture"].update(num_layers=3)), "num_layers=3"),
    "another rank": (edit_config(lambda d: d["adapters"][0]["config"].update(rank=3)), "has shape"),
    "a missing tensor": (edit_tensors(lambda tensors: tensors.pop(CORE)), CORE),
    "an unknown tensor": (edit_tensors(lambda tensors: tensors.update({CORE + "0": torch.zeros(1)})), CORE + "0"),
    "a tensor of another shape": (edit_tensors(lambda tensors: tensors.update({CORE: torch.zeros(2)})), CORE),
    "a base weight": (edit_tensors(lambda t: t.update({"shared.weight": torch.zeros(50, 24)})), "shared.weight"),
    "tensors of another configuration": (
        edit_config(lambda d: d["adapters"][0]["config"].update(scaling=2.0), signed=False),
        "saved together",
    ),
    "tensors without a fingerprint": (drop_metadata, "saved together"),
    "half a file": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(
            (folder / "adapter_model.safetensors").read_bytes()[:-100]
        ),
        "must be a safetensors file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_does_not_fit_leaves_the_model_unchanged(saved, tiny_t5, snapshot, damage):
    _, folder = saved()
    edit, named = DAMAGE[damage]
    edit(folder)
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(CheckpointError) as error:
        adapters.load(model, folder)
    assert named in str(error.value)
    assert snapshot(model) == before


@pytest.mark.parametrize("damage", ["another rank", "a missing tensor", "a tensor of another shape", "half a file"])
def test_a_model_with_adapters_is_left_unchanged_too(saved, tiny_t5, snapshot, damage):
    _, folder = saved()
    DAMAGE[damage][0](folder)
    model = adapters.attach(tiny_t5(), LORA)
    adapters.merge(model)
    before = snapshot(model)
    with pytest.raises(CheckpointError):
        adapters.load(model, folder)
    assert adapters.is_merged(model)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("description", "task"),
    [
        ({**LORA, "rank": 3}, None),
        ({**LORA, "scaling": 2.0}, None),
        (LORA, "a"),
        ([LORA, {"kind": "layer_norm"}], None),
    ],
    ids=str,
)
def test_a_model_with_other_adapters_is_left_unchanged(saved, tiny_t5, snapshot, description, task):
    _, folder = saved()
    model = tiny_t5()
    for entry in description if isinstance(description, list) else [description]:
        adapters.attach(model, entry, task)
    before = snapshot(model)
    with pytest.raises(CheckpointError, match="with the same adapters or with none"):
        adapters.load(model, folder)
    assert snapshot(model) == before


def test_a_model_of_another_architecture_is_reported(saved, tiny_t5):
    _, folder = saved()
    with pytest.raises(CheckpointError, match=r"got d_ff=48 in .* and 96 in the model"):
        adapters.load(tiny_t5(d_ff=96), folder)


def test_transformers_saves_a_whole_model_with_shared_cores(tiny_t5, trained, tmp_path, logits):
    model = tiny_t5()
    for description in (
        {"kind": "tt_lora", "rank": 2, "shared_cores": [0, 2]},
        {"kind": "tt_layer_norm", "init": "ones", "shared_cores": [0]},
    ):
        adapters.attach(model, description)
    trained(model).save_pretrained(tmp_path)
    assert torch.equal(logits(type(model).from_pretrained(tmp_path).eval()), logits(model))


class OtherConstructor(BertModel):
    """A class of a user, whose constructor has another signature."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(BertConfig(**{**ENCODER, "hidden_size": hidden_size}), add_pooling_layer=False)


@pytest.mark.parametrize(
    "make",
    [lambda: BertModel(BertConfig(**ENCODER), add_pooling_layer=False), lambda: OtherConstructor(24)],
    ids=["an argument of the constructor", "another constructor"],
)
def test_a_model_that_its_configuration_does_not_describe(make, tmp_path):
    """What has to fit is the model itself, not the one that its configuration gives."""
    config = {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"}
    model = adapters.attach(make(), config)
    adapters.save(model, tmp_path)
    loaded = adapters.load(make(), tmp_path)
    assert [(name, p.shape, p.device.type) for name, p in loaded.named_parameters()] == [
        (name, p.shape, "cpu") for name, p in model.named_parameters()
    ]
