"""The README.md of a saved folder, and what is pushed to the hub."""

from pathlib import Path
from unittest import mock

import pytest
import transformers.utils.hub
from safetensors.torch import load_file

from adapters.saved.model_card import remove_model_card
from tests.adapters.peft.tiny import adapted, llama

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FIELDS = {"target_modules": ["v_proj", "q_proj"], "modes": ["in", "layer", "matrix", "out"], "rank": 2}


def test_the_section_has_method_fields_parameter_count_and_code(tmp_path):
    adapted(llama(), **FIELDS).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    count = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
    section = text[text.index("## Tensor-train adapter") :]
    assert f"{count:,} parameters" in section
    assert "import adapters.peft" in section
    assert "- rank: `2`" in section
    assert "- modes: `['in', 'layer', 'matrix', 'out']`" in section
    assert "q_proj" in section
    assert "dropout" not in section
    assert "TT_LORA" in section


@pytest.mark.parametrize("theirs", ["\n## Notes\n\nMine.\n", "\nMine, without a heading.\n", "Mine, at once.\n"])
def test_saving_again_replaces_the_section_and_nothing_else(theirs, tmp_path):
    card = tmp_path / "README.md"
    adapted(llama(), **FIELDS).save_pretrained(tmp_path)
    card.write_text(card.read_text().replace("Model Card for Model ID", "My model") + theirs)
    before = card.read_text()
    adapted(llama(), **{**FIELDS, "rank": 3}).save_pretrained(tmp_path)
    again = card.read_text()
    assert again.count("## Tensor-train adapter") == again.count("- rank: `3`") == 1
    assert "My model" in again
    assert again.endswith(theirs.rstrip("\n"))
    remove_model_card(tmp_path)
    start = before.index("## Tensor-train adapter")
    assert card.read_text() == before[:start] + theirs.lstrip("\n")


def test_a_section_without_its_mark_is_not_changed(tmp_path):
    model, card = adapted(llama(), **FIELDS), tmp_path / "README.md"
    model.save_pretrained(tmp_path)
    edited = card.read_text()[: card.read_text().index("<!-- Written by adapters.peft")] + "Mine.\n"
    card.write_text(edited)
    model.save_pretrained(tmp_path)
    assert card.read_text().rstrip("\n") == edited.rstrip("\n")
    remove_model_card(tmp_path)
    assert "Mine." in card.read_text()


def test_pushed_files_are_the_saved_ones_except_for_the_card_of_the_hub(tmp_path, monkeypatch):
    pushed, hub = {}, mock.Mock()

    def commit(operations, **_):
        pushed.update({each.path_in_repo: Path(each.path_or_fileobj).read_bytes() for each in operations})

    hub.create_commit.side_effect = commit
    monkeypatch.setattr(transformers.utils.hub, "hf_api", lambda: hub)
    card = mock.Mock(save=lambda path: Path(path).write_text("the hub's own card"))
    monkeypatch.setattr(transformers.utils.hub, "create_and_tag_model_card", lambda *_, **__: card)
    model = adapted(llama(), **FIELDS)
    model.save_pretrained(tmp_path / "saved")
    model.push_to_hub("someone/adapter", token="none")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert pushed.keys() == saved.keys()
    assert {name for name in saved if pushed[name] != saved[name]} == {"README.md"}
