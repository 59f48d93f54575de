"""Files have the mode that the umask gives, while safetensors alone makes 600, which only the owner reads."""

import os
import stat
from pathlib import Path

import pytest
from transformers import AutoModelForSeq2SeqLM

import adapters
from adapters.factorized.folders import write_model
from adapters.peft import to_peft
from tests.adapters.peft.tiny import adapted

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def mode():
    """The mode of new files while the umask lets the group read, and others not."""
    before = os.umask(0o027)
    yield 0o640
    assert os.umask(before) == 0o027


def modes(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in files}


def test_every_folder_that_we_write_is_as_readable_as_the_umask_says(mode, tiny_t5, tmp_path):
    tiny_t5(ours=False).save_pretrained(tmp_path / "base")
    model = adapters.attach(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"), {"kind": "tt_lora", "rank": 2})
    adapters.save(model, tmp_path / "native")
    adapted().save_pretrained(tmp_path / "tuner")
    adapted().save_pretrained(tmp_path / "tuner")
    to_peft(tmp_path / "native", tmp_path / "converted", base=str(tmp_path / "base"))
    adapters.Deltas.read(tmp_path / "native").write(tmp_path / "rounded", like=tmp_path / "native")
    adapters.Deltas.read(tmp_path / "tuner").write_lora(tmp_path / "lora")
    adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2}).save_pretrained(tmp_path / "t5")
    write_model(adapters.merge_and_unload(model), None, tmp_path / "exported")
    (tmp_path / "base" / "model.safetensors").unlink()  # transformers' own
    written = modes(tmp_path)
    assert len([path for path in written if path.endswith(".safetensors")]) == 7
    assert {path: found for path, found in written.items() if found != mode} == {}
