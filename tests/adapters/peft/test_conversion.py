"""Folders of adapters.save and of PEFT: the same logits on both sides, and refusals that write nothing."""

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
from adapters.saved.checkpoint import read_folder
from tests.adapters.peft.tiny import scrambled

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QV = {"target_modules": ["q", "v"]}
SETTINGS = {
    "feed-forward": {"bias": "dense", "scaling": 0.5},
    "attention": {"target_modules": ["q", "o"], "bias": "tt", "rank": [2, 3], "shape_mode": "ascending"},
    "layers": {"target_modules": ["q"], "layers": [1], "stacks": ["decoder"], "sublayers": ["cross_attention"]},
    "ring": {"format": "tensor_ring"},
    "basis": {"format": "tensor_basis", "basis_size": 2},
    "cp": {"format": "cp"},
    "tucker": {"format": "tucker"},
    "shared cores": {"shared_cores": [0, 2], **QV},
    "shared across all": {"shared_cores": [0], "share_across": ["layers", "sublayers", "projections"], **QV},
    "frozen and disabled": {"frozen_cores": [0], "disabled_cores": [1]},
    "activation": {"core_activation": "gelu"},
    "metatt": {"modes": ["in", "layer", "matrix", "out"], **QV},
    "lotr": {"modes": ["in", "linear", "out"], **QV},
    "lorta": {"modes": ["in", "out", "out", "layer", "matrix"], "format": "cp", **QV},
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
def test_there_and_back_the_logits_are_identical_and_the_bytes_too(setting, native, tiny_t5, logits, tmp_path):
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


def test_a_base_that_the_folder_names_need_not_be_said(native, tiny_t5, logits, tmp_path):
    model, folder = native({"kind": "tt_lora", "rank": 2})
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    to_peft(folder, tmp_path / "peft", base=str(tmp_path / "base"))
    assert f"base_model: {tmp_path / 'base'}\n" in (tmp_path / "peft" / "README.md").read_text()
    from_peft(tmp_path / "peft", tmp_path / "back")
    assert torch.equal(logits(adapters.load(tiny_t5(ours=False), tmp_path / "back").eval()), logits(model))


@pytest.mark.parametrize("fields", [{}, QV, SETTINGS["layers"]], ids=["feed-forward", "attentions", "some"])
def test_places_that_were_not_said_are_not_said_afterwards(fields, native, tiny_t5, tmp_path):
    _, folder = native({"kind": "tt_lora", "rank": 2, **fields})
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    to_peft(folder, tmp_path / "peft", base=str(tmp_path / "base"))
    from_peft(tmp_path / "peft", tmp_path / "back")
    before, after = (read_folder(path)[1][0][1] for path in (folder, tmp_path / "back"))
    for name in ("target_modules", "sublayers", "stacks", "layers"):
        assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize(
    ("descriptions", "task", "sentence"),
    [
        ([{"kind": "tt_single", "rank": 2}], None, r"one adapter of the kind tt_lora.*tt_single.*: save that one"),
        ([{"kind": "tt_lora", "rank": 2}], "mrpc", r"for all tasks; .*mrpc"),
        ([{"kind": "tt_lora", "rank": 2}, {"kind": "scale_norm"}], None, r"holds .*scale_norm"),
        (
            [{"kind": "tt_lora", "rank": 2, "modes": ["in", "layer", "task", "out"], **QV}],
            None,
            r"takes no 'task' in PEFT",
        ),
        (
            [{"kind": "tt_lora", "rank": 2, "shared_cores": [0], "share_across": ["tasks"]}],
            None,
            r"no tasks to share across",
        ),
    ],
    ids=["another kind", "a task", "two of them", "a core of tasks", "shared by tasks"],
)
def test_what_peft_cannot_hold_is_refused_and_nothing_is_written(descriptions, task, sentence, native, tmp_path):
    _, folder = native(*descriptions, task=task)
    with pytest.raises(CheckpointError, match=sentence):
        to_peft(folder, tmp_path / "peft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["native"]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LoraConfig(target_modules=["q"]), "method TT_LORA.*holds .*LORA"),
        (TensorTrainConfig(rank=2, modules_to_save=["lm_head"]), "modules_to_save=.*lm_head"),
        (
            TensorTrainConfig(rank=2, target_modules=["encoder.block.0.layer.0.SelfAttention.q", "wi"]),
            "no choice of these",
        ),
    ],
    ids=["another method", "a head", "uneven places"],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_what_adapters_load_cannot_hold_is_refused_and_nothing_is_written(config, sentence, tiny_t5, tmp_path):
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    get_peft_model(tiny_t5(ours=False), config).save_pretrained(tmp_path / "peft")
    with pytest.raises(CheckpointError, match=sentence):
        from_peft(tmp_path / "peft", tmp_path / "native", base=str(tmp_path / "base"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "peft"]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"peft_type": "OFTV9"}, r"holds peft_type='OFTV9', which PEFT does not know: import the package"),
        ({"target_modules": ["nowhere"]}, r"do not fit '.*base': use the base that it was trained on \(.*nowhere"),
        ({"target_modules": ["shared"]}, r"do not fit '.*base': use the base that it was trained on \(.*Embedding"),
        ({"rank": 0}, r"holds adapter_config.json; .*rank"),
        ({"rank_pattern": {"nowhere": 2}}, r"do not fit .*nowhere"),
    ],
    ids=["an unknown method", "linears that are not there", "no linear", "no rank", "a pattern for nothing"],
)
def test_a_configuration_that_fits_nothing_is_refused_by_a_sentence(edit, sentence, tiny_t5, tmp_path):
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    get_peft_model(tiny_t5(ours=False), TensorTrainConfig(rank=2)).save_pretrained(tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    with pytest.raises(CheckpointError, match=sentence):
        from_peft(tmp_path / "peft", tmp_path / "native", base=str(tmp_path / "base"))
    assert main([str(tmp_path / "peft"), str(tmp_path / "native"), "--base", str(tmp_path / "base")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "peft"]


def test_the_folder_that_one_stands_in_is_a_destination_and_a_file_is_none(native, tmp_path, monkeypatch):
    _, folder = native({"kind": "tt_lora", "rank": 2})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    to_peft(folder, ".")
    assert (tmp_path / "here" / "adapter_config.json").exists()
    (tmp_path / "file").write_text("mine")
    assert "is not: " in main([str(folder), str(tmp_path / "file" / "below")])
    (tmp_path / "here" / "adapter_config.json").write_text("3")
    assert "has none that can be read" in main([str(tmp_path / "here"), str(tmp_path / "x")])


def test_a_base_that_is_not_there_is_asked_for(tiny_t5, tmp_path):
    model = scrambled(get_peft_model(tiny_t5(ours=False), TensorTrainConfig(rank=2)))
    model.save_pretrained(tmp_path / "peft")
    with pytest.raises(CheckpointError, match="say where it is by base"):
        from_peft(tmp_path / "peft", tmp_path / "native")


def test_a_folder_with_something_in_it_is_left_alone(native, tmp_path):
    _, folder = native({"kind": "tt_lora", "rank": 2})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="new or empty"):
        to_peft(folder, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_the_command_tells_the_direction_from_the_source(native, tiny_t5, tmp_path):
    _, folder = native({"kind": "tt_lora", "rank": 2})
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    base = ["--base", str(tmp_path / "base")]
    assert main([str(folder), str(tmp_path / "peft"), *base]) is None
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["peft_type"] == "TT_LORA"
    assert main([str(tmp_path / "peft"), str(tmp_path / "back"), *base]) is None
    ours, back = (load_file(path / "adapter_model.safetensors") for path in (folder, tmp_path / "back"))
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[key], back[key]) for key in ours)
    assert "has none that can be read" in main([str(tmp_path / "nowhere"), str(tmp_path / "x")])


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
    assert run.stderr.startswith("A folder with an adapter has adapter_config.json")
