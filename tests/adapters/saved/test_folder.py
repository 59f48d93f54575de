"""The files of a saved adapter: every function that reads a folder reports a damaged one in the same words."""

import json
import re
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import adapters
import t3nsor as t3
from adapters import CheckpointError, Deltas
from adapters.peft import TensorTrainConfig, from_peft, to_peft
from adapters.saved.folder import FolderKind, folder_kind, parameter_count, read_config, read_tensors, write_files
from tests.adapters.peft.tiny import t5

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PATH = "encoder.block.0.layer.1.DenseReluDense.wi"
NATIVE, TUNER, LORA = FolderKind
ENTRIES = {
    "load": ([NATIVE], lambda folder, out: adapters.load(nn.Identity(), folder)),
    "fit_ranks": ([NATIVE], lambda folder, out: adapters.fit_ranks(nn.Identity(), folder)),
    "to_peft": ([NATIVE], to_peft),
    "from_peft": ([TUNER], from_peft),
    "Deltas.read": (FolderKind, lambda folder, out: Deltas.read(folder)),
    "combine": (FolderKind, lambda folder, out: adapters.combine([folder], output=out)),
    "compare": (FolderKind, lambda folder, out: adapters.compare([folder])),
    "write": (FolderKind, lambda folder, out: deltas().write(out, like=folder)),
    "write_lora": ([TUNER, LORA], lambda folder, out: deltas().write_lora(out, like=folder)),
}


def deltas():
    return Deltas({PATH: t3.from_low_rank(torch.ones(24, 2), torch.ones(2, 16))})


def without(*keys):
    def edit(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if key not in keys}))

    return edit


def with_values(**values):
    return lambda folder: (folder / CONFIG).write_text(
        json.dumps({**json.loads((folder / CONFIG).read_text()), **values})
    )


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])


DAMAGE = {
    "no folder": (FolderKind, shutil.rmtree, "must have a file adapter_config.json; got no "),
    "no configuration": (FolderKind, lambda f: (f / CONFIG).unlink(), "must have a file adapter_config.json; got no "),
    "no JSON": (FolderKind, lambda f: (f / CONFIG).write_text("{"), "must hold JSON; got "),
    "no text": (FolderKind, lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"), "must hold JSON; got "),
    "nested too deeply": (FolderKind, lambda f: (f / CONFIG).write_text("[" * 100_000), "must hold JSON; got "),
    "not an object": (FolderKind, lambda f: (f / CONFIG).write_text("[]"), "JSON object; got a list"),
    "no keys": (FolderKind, lambda f: (f / CONFIG).write_text("{}"), "without adapters, architecture, format_version"),
    "no architecture": ([NATIVE], without("architecture"), "without architecture in"),
    "no format version": ([NATIVE], without("format_version"), "without format_version in"),
    "a future format": ([NATIVE], with_values(format_version=99), "reads only format_version 1; got 99"),
    "no method": ([TUNER, LORA], without("peft_type"), "or peft_type if PEFT wrote it; got "),
    "another method": ([TUNER, LORA], with_values(peft_type="LOHA"), "got peft_type 'LOHA'"),
    "no weights": (FolderKind, lambda f: (f / WEIGHTS).unlink(), "must have a file adapter_model.safetensors; got no "),
    "half of the weights": (FolderKind, truncate, "must be a safetensors file; got "),
    "empty weights": (FolderKind, lambda f: (f / WEIGHTS).write_bytes(b""), "must be a safetensors file; got "),
    "a pickle": (FolderKind, lambda f: torch.save({}, f / WEIGHTS), "must be a safetensors file; got "),
}
ROWS = [
    pytest.param(kind, entry, damage, id=f"{entry}, {kind.name}, {damage}")
    for entry, (entry_kinds, _) in ENTRIES.items()
    for damage, (damage_kinds, _, _) in DAMAGE.items()
    for kind in FolderKind
    if kind in entry_kinds and kind in damage_kinds
]


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """An intact folder of each kind."""
    root = tmp_path_factory.mktemp("templates")
    adapters.save(adapters.attach(t5(), {"kind": "tt_lora", "rank": 2}), root / NATIVE.name)
    for kind, config in ((TUNER, TensorTrainConfig(rank=2)), (LORA, LoraConfig(r=2, target_modules=["wi"]))):
        get_peft_model(t5(), config).save_pretrained(root / kind.name)
    return root


def assert_has_the_form(error, folder):
    """One sentence: the rule; got what was given: how to fix it."""
    text = str(error.value)
    assert re.fullmatch(r"\w.*; got .*: .*\.", text), text
    assert not re.search(r"[.:;] ([A-Z]|$)|\n|\.\.|\bTraceback\b", text.replace(str(folder), "")), text
    assert str(folder) in text


@pytest.mark.parametrize(("kind", "entry", "damage"), ROWS)
def test_a_damaged_folder_is_reported(kind, entry, damage, templates, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(templates / kind.name, folder)
    _, edit, message = DAMAGE[damage]
    edit(folder)
    with pytest.raises(CheckpointError) as error:
        ENTRIES[entry][1](folder, tmp_path / "out")
    assert_has_the_form(error, folder)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        ("load", TUNER, "folder of adapters.save is expected here; got one of our PEFT tuner"),
        ("load", LORA, "got one of PEFT's LoRA"),
        ("fit_ranks", LORA, "got one of PEFT's LoRA"),
        ("to_peft", TUNER, "convert it with adapters.peft.from_peft"),
        ("from_peft", NATIVE, "convert it with adapters.peft.to_peft"),
        ("from_peft", LORA, "load it with PeftModel.from_pretrained"),
    ],
)
def test_a_folder_of_another_kind_is_reported(entry, kind, message, templates, tmp_path):
    with pytest.raises(CheckpointError) as error:
        ENTRIES[entry][1](templates / kind.name, tmp_path / "out")
    assert_has_the_form(error, templates / kind.name)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", FolderKind)
def test_an_intact_folder_is_of_its_kind(kind, templates):
    assert folder_kind(read_config(templates / kind.name, kind), templates) is kind
    assert Deltas.read(templates / kind.name)


def test_files_are_read_as_they_were_written(tmp_path):
    tensors = {"b": torch.randn(2, 3).mT, "a": torch.arange(4.0).bfloat16()}
    config = {"peft_type": "LORA", "r": 2}
    write_files(tmp_path / "new", config, tensors, {"format": "pt"})
    assert read_config(tmp_path / "new") == config
    read, metadata = read_tensors(tmp_path / "new")
    assert metadata == {"format": "pt"}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in read)
    assert parameter_count(tmp_path / "new") == 6 + 4
