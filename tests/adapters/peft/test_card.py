"""The README.md of a saved folder, and what is pushed to the hub."""

import re
from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers.utils.hub
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from adapters import CheckpointError
from adapters.peft import export_lora
from adapters.saved.model_card import remove_model_card
from tests.adapters.peft.tiny import adapted, llama, logits

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FIELDS = {"target_modules": ["v_proj", "q_proj"], "modes": ["in", "layer", "matrix", "out"], "rank": 2}


def test_a_new_card_is_short_and_has_the_loading_lines_first(tmp_path):
    adapted(llama(), **FIELDS).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    count = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
    front, body = text.removeprefix("---\n").split("---\n", 1)
    assert "library_name: peft" in front
    assert body.lstrip("\n").startswith("## Tensor-train adapter\n\n```python\nimport adapters.peft")
    assert len(body.splitlines()) < 32
    assert "More Information Needed" not in body
    assert "### Framework versions" in body
    for part in (f"{count:,} parameters", "- rank: `2`", "- modes: `['in', 'layer', 'matrix', 'out']`", "q_proj"):
        assert part in body
    assert "KeyError: 'TT_LORA'`: install it" in body
    assert "dropout" not in body


@pytest.mark.parametrize(
    ("fields", "exports"),
    [({}, True), ({"core_activation": "gelu"}, False), ({"delta_bias": "dense"}, False)],
    ids=str,
)
def test_the_card_names_the_export_where_it_works(fields, exports, tmp_path):
    adapted(llama(), rank=2, **fields).save_pretrained(tmp_path / "tuner")
    assert ("adapters.peft.to_lora" in (tmp_path / "tuner" / "README.md").read_text()) == exports
    if not exports:
        with pytest.raises(CheckpointError):
            export_lora(tmp_path / "tuner", tmp_path / "lora")


def test_the_lines_of_the_card_load_the_adapter(tmp_path):
    llama().save_pretrained(tmp_path / "base")
    model = adapted(LlamaForCausalLM.from_pretrained(tmp_path / "base"), task_type="CAUSAL_LM")
    model.save_pretrained(tmp_path / "tuner")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "tuner" / "README.md").read_text(), re.DOTALL)[1]
    assert f'AutoModelForCausalLM.from_pretrained("{tmp_path}/base")' in code
    names = {"folder": tmp_path / "tuner"}
    exec(code, names)
    assert torch.equal(logits(names["model"].eval()), logits(model))


def test_what_peft_says_without_the_package(tmp_path, monkeypatch):
    adapted(llama()).save_pretrained(tmp_path)
    monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType("TT_LORA"))  # which is the key that comes back
    with pytest.raises(KeyError, match=r"^'TT_LORA'$"):
        PeftConfig.from_pretrained(tmp_path)


def test_a_card_that_somebody_wrote_keeps_its_text_below_the_section(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n\n# Mine\n\nWhat it is for.\n")
    adapted(llama(), **FIELDS).save_pretrained(tmp_path)
    text = card.read_text()
    assert text.index("license: mit") < text.index("## Tensor-train adapter") < text.index("# Mine\n\nWhat it is for.")


@pytest.mark.parametrize("theirs", ["\n## Notes\n\nMine.\n", "\nMine, without a heading.\n"])
def test_saving_again_replaces_the_section_and_nothing_else(theirs, tmp_path):
    card = tmp_path / "README.md"
    adapted(llama(), **FIELDS).save_pretrained(tmp_path)
    card.write_text(card.read_text().replace("### Framework versions", "# My model\n\n### Framework versions") + theirs)
    before = card.read_text()
    adapted(llama(), **{**FIELDS, "rank": 3}).save_pretrained(tmp_path)
    again = card.read_text()
    assert again.count("## Tensor-train adapter") == again.count("- rank: `3`") == 1
    assert "My model" in again
    assert again.endswith(theirs.rstrip("\n"))
    remove_model_card(tmp_path)
    start = before.index("## Tensor-train adapter")
    end = before.index("# My model")
    assert card.read_text() == before[:start] + before[end:]


def test_a_section_without_its_mark_is_not_changed(tmp_path):
    model, card = adapted(llama(), **FIELDS), tmp_path / "README.md"
    model.save_pretrained(tmp_path)
    edited = re.sub("<!-- Written by adapters.peft.*?-->", "Mine.", card.read_text())
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
