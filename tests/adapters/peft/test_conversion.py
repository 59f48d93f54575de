"""Folders of adapters.save and of PEFT: the same logits on both sides, and errors that write nothing."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

import adapters
from adapters import CheckpointError
from adapters.peft import TensorTrainConfig, from_peft, to_peft
from adapters.peft.convert import main
from tests.adapters.peft.tiny import scrambled

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QV = {"target_modules": ["q", "v"]}
SETTINGS = {
    "feed-forward": {"delta_bias": "dense", "scaling": 0.5},
    "attention": {"target_modules": ["q", "o"], "delta_bias": "tt", "rank": [2, 3], "shape_mode": "ascending"},
    "layers": {"target_modules": ["q"], "layers": [1], "stacks": ["decoder"], "sublayers": ["cross_attention"]},
    "ring with frozen and disabled cores": {"format": "tensor_ring", "frozen_cores": [0], "disabled_cores": [1]},
    "basis with an activation": {"format": "tensor_basis", "basis_size": 2, "core_activation": "gelu"},
    "Tucker": {"format": "tucker"},
    "cores shared across all linears": {
        "shared_cores": [0],
        "share_across": ["layers", "sublayers", "projections"],
        **QV,
    },
    "MetaTT": {"modes": ["in", "layer", "matrix", "out"], **QV},
    "LoRTA": {"modes": ["in", "out", "out", "layer", "matrix"], "format": "cp", **QV},
    "principal": {"init": "principal"},
    "patterns": {"rank_pattern": {"wo": 1}, "shape_mode": "ascending"},
}


@pytest.fixture
def native(tiny_t5, trained, tmp_path):
    """A function from fields of tt_lora to an adapted T5 and the folder it was saved to."""

    def make(*descriptions, task=None):
        model = trained(adapters.attach(tiny_t5(ours=False), list(descriptions), task))
        adapters.save(model, tmp_path / "native")
        return model.eval(), tmp_path / "native"

    return make


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_round_trip_keeps_logits_and_tensors(setting, native, tiny_t5, logits, tmp_path):
    model, folder = native({"kind": "tt_lora", "rank": 2, **SETTINGS[setting]})
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    to_peft(folder, tmp_path / "peft", base=str(tmp_path / "base"))
    loaded = PeftModel.from_pretrained(tiny_t5(ours=False), tmp_path / "peft").eval()
    assert torch.equal(logits(loaded), logits(model))
    assert len(load_file(tmp_path / "peft" / "adapter_model.safetensors")) == len(
        load_file(folder / "adapter_model.safetensors")
    )

    loaded.save_pretrained(tmp_path / "again")
    from_peft(tmp_path / "again", tmp_path / "back", base=str(tmp_path / "base"))
    back = adapters.load(tiny_t5(ours=False), tmp_path / "back").eval()
    assert torch.equal(logits(back), logits(model))
    weights = "adapter_model.safetensors"
    ours, theirs = load_file(folder / weights), load_file(tmp_path / "back" / weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_by_default_the_base_is_the_one_named_in_the_folder(native, tiny_t5, logits, tmp_path):
    model, folder = native({"kind": "tt_lora", "rank": 2})
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    to_peft(folder, tmp_path / "peft", base=str(tmp_path / "base"))
    assert f"base_model: {tmp_path / 'base'}\n" in (tmp_path / "peft" / "README.md").read_text()
    from_peft(tmp_path / "peft", tmp_path / "back")
    assert torch.equal(logits(adapters.load(tiny_t5(ours=False), tmp_path / "back").eval()), logits(model))


@pytest.mark.parametrize(
    ("descriptions", "task", "sentence"),
    [
        ([{"kind": "tt_single", "rank": 2}], None, r"one adapter of the kind tt_lora.*tt_single.*: save that one"),
        ([{"kind": "tt_lora", "rank": 2}], "mrpc", r"for all tasks, and possibly the head; got .*mrpc"),
        ([{"kind": "tt_lora", "rank": 2}, {"kind": "scale_norm"}], None, r"got .*scale_norm"),
        (
            [{"kind": "tt_lora", "rank": 2, "modes": ["in", "layer", "task", "out"], **QV}],
            None,
            r"must not contain 'task' in PEFT",
        ),
        (
            [{"kind": "tt_lora", "rank": 2, "shared_cores": [0], "share_across": ["tasks"]}],
            None,
            r"no tasks to share across",
        ),
    ],
    ids=["another kind", "one task", "two adapters", "a core for tasks", "cores shared across tasks"],
)
def test_an_adapter_that_peft_does_not_support_is_reported_and_nothing_is_written(
    descriptions, task, sentence, native, tmp_path
):
    _, folder = native(*descriptions, task=task)
    with pytest.raises(CheckpointError, match=sentence):
        to_peft(folder, tmp_path / "peft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["native"]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LoraConfig(target_modules=["q"]), r"our PEFT tuner \(TT_LORA\) is expected here; got one of PEFT's LoRA"),
        (TensorTrainConfig(rank=2, modules_to_save=["lm_head"]), "got beside the head lm_head.weight in"),
        (
            TensorTrainConfig(rank=2, target_modules=["q", "lm_head"]),
            "but for its output projection and head; got lm_head",
        ),
    ],
    ids=["another method", "a head", "a delta beside the output projection"],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Setting `save_embedding_layers`")
def test_an_adapter_that_tt_lora_does_not_support_is_reported_and_nothing_is_written(
    config, sentence, tiny_t5, tmp_path
):
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    get_peft_model(tiny_t5(ours=False), config).save_pretrained(tmp_path / "peft")
    with pytest.raises(CheckpointError, match=sentence):
        from_peft(tmp_path / "peft", tmp_path / "native", base=str(tmp_path / "base"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "peft"]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"peft_type": "OFTV9"}, r"got peft_type 'OFTV9' in "),
        ({"target_modules": ["nowhere"]}, r"does not fit '.*base' \(.*nowhere.*: use the base model it was trained on"),
        (
            {"target_modules": ["shared"]},
            r"does not fit '.*base' \(.*Embedding.*: use the base model it was trained on",
        ),
        ({"rank": 0}, r"valid TensorTrainConfig; got .*rank"),
        ({"rank_pattern": {"nowhere": 2}}, r"does not fit .*nowhere"),
    ],
    ids=["an unknown method", "missing linears", "an embedding", "rank 0", "a pattern that matches nothing"],
)
def test_a_configuration_that_does_not_fit_is_reported_in_one_sentence(edit, sentence, tiny_t5, tmp_path):
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    get_peft_model(tiny_t5(ours=False), TensorTrainConfig(rank=2)).save_pretrained(tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    with pytest.raises(CheckpointError, match=sentence):
        from_peft(tmp_path / "peft", tmp_path / "native", base=str(tmp_path / "base"))
    assert main([str(tmp_path / "peft"), str(tmp_path / "native"), "--base", str(tmp_path / "base")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "peft"]


def test_the_current_folder_is_a_valid_destination_and_a_file_is_not(native, tmp_path, monkeypatch):
    _, folder = native({"kind": "tt_lora", "rank": 2})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    to_peft(folder, ".")
    assert (tmp_path / "here" / "adapter_config.json").exists()
    (tmp_path / "file").write_text("mine")
    assert "writable destination; got " in main([str(folder), str(tmp_path / "file" / "below")])


def test_a_missing_base_is_reported(tiny_t5, tmp_path):
    model = scrambled(get_peft_model(tiny_t5(ours=False), TensorTrainConfig(rank=2)))
    model.save_pretrained(tmp_path / "peft")
    with pytest.raises(CheckpointError, match="cannot be found: pass its path or name as base"):
        from_peft(tmp_path / "peft", tmp_path / "native")


def test_a_folder_that_is_not_empty_is_not_changed(native, tmp_path):
    _, folder = native({"kind": "tt_lora", "rank": 2})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="new or empty"):
        to_peft(folder, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_the_command_finds_the_direction_from_the_source(native, tiny_t5, tmp_path):
    _, folder = native({"kind": "tt_lora", "rank": 2})
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    base = ["--base", str(tmp_path / "base")]
    assert main([str(folder), str(tmp_path / "peft"), *base]) is None
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["peft_type"] == "TT_LORA"
    assert config["target_modules"] == ["wi", "wo"]
    assert main([str(tmp_path / "peft"), str(tmp_path / "back"), *base]) is None
    ours, back = (load_file(path / "adapter_model.safetensors") for path in (folder, tmp_path / "back"))
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[key], back[key]) for key in ours)
    assert "got no " in main([str(tmp_path / "nowhere"), str(tmp_path / "x")])


@pytest.mark.slow
def test_the_command_runs_without_a_warning(tmp_path):
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-m",
            "adapters.peft.convert",
            str(tmp_path),
            str(tmp_path / "x"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.splitlines()[-1].startswith("A saved adapter must have a file adapter_config.json; got no ")
