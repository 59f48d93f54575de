"""save and load: the folder as other tools see it, the model given back, and refusals that touch nothing."""

import hashlib
import json
import shutil

import pytest
import safetensors.torch
import torch

import adapters
from adapters import CheckpointError
from adapters.saved.files import replace_file

LORA = {"kind": "tt_lora", "rank": 2, "bias": "dense"}
FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.fixture
def saved(tiny_t5, trained, tmp_path):
    """A function from a description to a trained model and the folder it was saved to."""

    def make(description=LORA, task=None):
        model = trained(adapters.attach(tiny_t5(), description, task))
        adapters.save(model, tmp_path / "adapter")
        return model, tmp_path / "adapter"

    return make


def base_of(model, tiny_t5):
    """A fresh T5 with the base weights of an adapted one."""
    base = tiny_t5()
    base.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in base.state_dict()})
    return base


def test_a_folder_gives_the_model_back(saved, tiny_t5, logits, any_adapter):
    model, folder = saved(any_adapter)
    loaded = tiny_t5()
    assert adapters.load(loaded, folder) is loaded
    assert torch.equal(logits(loaded), logits(model))
    assert adapters.attachments(loaded) == adapters.attachments(model)
    trains = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (loaded, model)]
    assert trains[0] == trains[1]


def test_it_loads_into_a_model_that_has_the_same_adapters(saved, tiny_t5, logits, any_adapter):
    model, folder = saved(any_adapter)
    loaded = adapters.attach(tiny_t5(), any_adapter)
    parameters = {name: id(parameter) for name, parameter in loaded.named_parameters()}
    adapters.load(loaded, folder)
    assert {name: id(parameter) for name, parameter in loaded.named_parameters()} == parameters
    assert torch.equal(logits(loaded), logits(model))


def test_the_folder_holds_adapter_tensors_only_under_their_names_in_the_model(tiny_t5, saved, any_adapter):
    model, folder = saved(any_adapter)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    parameters = dict(model.named_parameters())
    base = dict(tiny_t5().named_parameters())
    assert set(tensors) == {
        name for name, parameter in parameters.items() if parameter.requires_grad or name not in base
    }
    for name, tensor in tensors.items():
        assert torch.equal(tensor, parameters[name])
    description = json.loads((folder / "adapter_config.json").read_text())
    configs = adapters.as_configs(any_adapter)
    assert [adapters.AdapterConfig.from_dict(entry["config"]) for entry in description["adapters"]] == configs
    assert description["architecture"]["d_model"] == 24


def test_frozen_and_disabled_cores_are_saved_too(saved, tiny_t5, logits):
    model, folder = saved({"kind": "tt_lora", "rank": 2, "frozen_cores": [0], "disabled_cores": [1]})
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 8 * 3
    assert torch.equal(logits(adapters.load(tiny_t5(), folder)), logits(model))


def test_the_bytes_are_those_of_the_numbers_alone(saved, tmp_path, any_adapter):
    model, folder = saved(any_adapter)
    adapters.save(model, tmp_path / "again")
    adapters.merge(model) if adapters.unmergeable(model) is None else None
    adapters.save(model, tmp_path / "merged")
    for name in FILES:
        expected = (folder / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == expected
        assert (tmp_path / "merged" / name).read_bytes() == expected


def test_a_save_killed_between_its_files_is_noticed(saved, tiny_t5, snapshot, monkeypatch):
    """Same names and shapes, another scaling: without the fingerprint it would load and be wrong."""
    _, folder = saved()
    other = adapters.attach(tiny_t5(), {**LORA, "scaling": 4.0})
    replaced = []

    def killed_after_the_first(path, write):
        if replaced:
            raise KeyboardInterrupt
        replace_file(path, write)
        replaced.append(path.name)

    monkeypatch.setattr(adapters.saved.checkpoint, "replace_file", killed_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        adapters.save(other, folder)
    assert replaced == ["adapter_model.safetensors"]
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(CheckpointError, match="two files are saved together"):
        adapters.load(model, folder)
    assert snapshot(model) == before


def test_saving_again_replaces_what_was_there_and_leaves_no_partial_file(saved, trained, tiny_t5, logits):
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


def test_a_bfloat16_model_gets_the_float32_numbers_of_its_adapters(saved, tiny_t5):
    model, folder = saved()
    loaded = adapters.load(tiny_t5().to(torch.bfloat16), folder)
    state = adapters.adapter_state_dict(loaded)
    for name, tensor in adapters.adapter_state_dict(model).items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == torch.float32


def test_tasks_come_back_with_their_adapters(tiny_t5, trained, tmp_path, logits):
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
    """Write the tensors as if they had been saved with the configuration that is there now."""
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


def edit_description(change, signed=True):
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
    "no folder": (shutil.rmtree, "adapter_config.json"),
    "no description": (lambda folder: (folder / "adapter_config.json").unlink(), "is not there"),
    "no tensors": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "is not there"),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "holds JSON"),
    "no text": (lambda folder: (folder / "adapter_config.json").write_bytes(b"\xff\xfe\x00"), "holds JSON"),
    "no object": (edit_description(lambda d: [d]), "keys"),
    "no architecture": (edit_description(lambda d: {k: d[k] for k in d if k != "architecture"}), "keys"),
    "architecture no object": (edit_description(lambda d: {**d, "architecture": 3}), "architecture"),
    "adapters no list": (edit_description(lambda d: {**d, "adapters": 3}), "lists valid adapters"),
    "an adapter without a task": (edit_description(lambda d: d["adapters"][0].pop("task") and None), "'task'"),
    "a future format": (edit_description(lambda d: {**d, "format_version": 99}), "99"),
    "an unknown kind": (edit_description(lambda d: d["adapters"][0]["config"].update(kind="tt_lorra")), "tt_lorra"),
    "an unknown field": (edit_description(lambda d: d["adapters"][0]["config"].update(rnak=2)), "'rnak'"),
    "a field that does not fit": (edit_description(lambda d: d["adapters"][0]["config"].update(layers=[9])), "layers"),
    "another width": (edit_description(lambda d: d["architecture"].update(d_model=32)), "d_model=32"),
    "another feed-forward": (
        edit_description(lambda d: d["architecture"].update(feed_forward_proj="gated-gelu")),
        "feed_forward_proj='gated-gelu'",
    ),
    "another depth": (edit_description(lambda d: d["architecture"].update(num_layers=3)), "num_layers=3"),
    "another rank": (edit_description(lambda d: d["adapters"][0]["config"].update(rank=3)), "has shape"),
    "a tensor too few": (edit_tensors(lambda tensors: tensors.pop(CORE)), CORE),
    "a tensor too many": (edit_tensors(lambda tensors: tensors.update({CORE + "0": torch.zeros(1)})), CORE + "0"),
    "a tensor of another shape": (edit_tensors(lambda tensors: tensors.update({CORE: torch.zeros(2)})), CORE),
    "a base weight": (edit_tensors(lambda t: t.update({"shared.weight": torch.zeros(50, 24)})), "shared.weight"),
    "tensors of another configuration": (
        edit_description(lambda d: d["adapters"][0]["config"].update(scaling=2.0), signed=False),
        "saved together",
    ),
    "tensors without a fingerprint": (drop_metadata, "saved together"),
    "half a file": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(
            (folder / "adapter_model.safetensors").read_bytes()[:-100]
        ),
        "cannot be read",
    ),
    "an empty file": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""), "cannot be read"),
    "a pickle": (
        lambda folder: torch.save({CORE: torch.zeros(2)}, folder / "adapter_model.safetensors"),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_refused_and_the_model_untouched(saved, tiny_t5, snapshot, damage):
    _, folder = saved()
    edit, named = DAMAGE[damage]
    edit(folder)
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(CheckpointError) as refusal:
        adapters.load(model, folder)
    assert named in str(refusal.value)
    assert snapshot(model) == before


@pytest.mark.parametrize("damage", ["another rank", "a tensor too few", "a tensor of another shape", "half a file"])
def test_a_model_with_adapters_is_left_untouched_too(saved, tiny_t5, snapshot, damage):
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
def test_a_model_with_other_adapters_is_refused(saved, tiny_t5, snapshot, description, task):
    _, folder = saved()
    model = tiny_t5()
    for entry in description if isinstance(description, list) else [description]:
        adapters.attach(model, entry, task)
    before = snapshot(model)
    with pytest.raises(CheckpointError, match="takes the tensors of the adapters that it has"):
        adapters.load(model, folder)
    assert snapshot(model) == before


def test_the_architecture_of_the_model_is_compared(saved, tiny_t5):
    _, folder = saved()
    with pytest.raises(CheckpointError, match=r"d_ff=48 and the model 96"):
        adapters.load(tiny_t5(d_ff=96), folder)


def test_a_whole_model_with_shared_cores_is_saved_by_transformers(tiny_t5, trained, tmp_path, logits):
    model = tiny_t5()
    for description in (
        {"kind": "tt_lora", "rank": 2, "shared_cores": [0, 2]},
        {"kind": "tt_layer_norm", "init": "ones", "shared_cores": [0]},
    ):
        adapters.attach(model, description)
    trained(model).save_pretrained(tmp_path)
    assert torch.equal(logits(type(model).from_pretrained(tmp_path).eval()), logits(model))
