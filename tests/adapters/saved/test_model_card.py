"""The README.md of a saved adapter: its statements are true, and text of the user is never lost."""

import re

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import adapters
from tests.adapters.models import tiny

LORA = {"kind": "tt_lora", "rank": 2}


@pytest.fixture
def card_of(tmp_path):
    """A function from a model to the text of the card that is saved with it."""

    def save(model):
        adapters.save(model, tmp_path)
        return (tmp_path / "README.md").read_text()

    return save


def test_the_card_lists_kinds_tasks_and_parameter_counts(tiny_t5, card_of):
    model = tiny_t5()
    adapters.attach(model, [LORA, {"kind": "scale_norm"}])
    adapters.attach(model, LORA, task="rte")
    text = card_of(model)
    assert "\n- tt_lora\n- scale_norm\n- tt_lora, for the task rte\n" in text
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"\nParameters: {trained:,}, " in text
    assert f"{sum(parameter.numel() for parameter in tiny_t5().parameters()):,}" in text


@pytest.mark.parametrize("act", [adapters.merge, lambda model: model.requires_grad_(False)], ids=["merged", "frozen"])
def test_the_parameter_count_is_that_of_the_folder_whatever_is_trainable(tiny_t5, card_of, tmp_path, act):
    model = adapters.attach(tiny_t5(), LORA)
    act(model)
    text = card_of(model)
    count = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
    assert count
    assert f"\nParameters: {count:,}, " in text


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A function that puts a model's configuration where a download from the hub puts it."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def download(name):
        folder = cache / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
        (folder / "snapshots" / ("0" * 40) / "config.json").write_text("{}")

    return download


@pytest.mark.parametrize("name", ["google/flan-t5-base", "t5-base"])
def test_a_base_from_the_hub_is_in_the_front_matter(tiny_t5, card_of, hub_cache, name):
    hub_cache(name)
    model = adapters.attach(tiny_t5(), LORA)
    model.config._name_or_path = name
    text = card_of(model)
    data = ModelCard(text).data
    assert (data.library_name, data.base_model, data.tags) == ("tensorized-adapters", name, ["tensorized-adapters"])
    assert f'adapters.load(AutoModelForSeq2SeqLM.from_pretrained("{name}"), directory)' in text


@pytest.mark.parametrize(
    ("name", "values", "adapter", "loading"),
    [
        ("bert", {"num_labels": 3}, [LORA, {"kind": "head"}], "ForSequenceClassification:hub/base, num_labels=3"),
        ("bert", {}, LORA, "ForSequenceClassification:hub/base"),
        ("gpt2", {}, LORA, "ForCausalLM:hub/base"),
        ("vit", {}, LORA, "ForImageClassification:hub/base"),
    ],
    ids=["a trained head", "an encoder", "a decoder", "images"],
)
def test_the_loading_line_has_the_auto_class_of_the_base(name, values, adapter, loading, card_of, hub_cache):
    hub_cache("hub/base")
    model = adapters.attach(tiny(name, **values), adapter)
    model.config._name_or_path = "hub/base"
    text = card_of(model)
    cls, _, arguments = f"AutoModel{loading}".partition(":")
    base, *more = arguments.split(", ")
    call = ", ".join([f'{cls}.from_pretrained("{base}"', *more])
    assert f"from transformers import {cls}\n\nimport adapters\nmodel = adapters.load({call}), directory)\n" in text


@pytest.mark.parametrize("name", ["", "/models/t5-base", "small_world/backbone", "backbone", "folder", "../t5"])
def test_a_local_folder_is_not_in_the_front_matter(tiny_t5, card_of, hub_cache, tmp_path, monkeypatch, name):
    hub_cache("folder")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    model = adapters.attach(tiny_t5(), LORA)
    model.config._name_or_path = name
    text = card_of(model)
    assert ModelCard(text).data.base_model is None
    assert not name or name not in text


def test_the_code_in_the_card_loads_the_adapter(tiny_t5, trained, card_of, tmp_path, logits):
    model = trained(adapters.attach(tiny_t5(), LORA))
    (code,) = re.findall(r"```python\n(.*?)```", card_of(model), re.DOTALL)
    names = {"base": tiny_t5(), "directory": tmp_path}
    exec(code, names)
    assert logits(names["model"]).equal(logits(model))


def test_the_card_is_rewritten_with_the_adapter(tiny_t5, card_of):
    before = card_of(adapters.attach(tiny_t5(), LORA))
    assert card_of(adapters.attach(tiny_t5(), {**LORA, "rank": 3})) != before


@pytest.mark.parametrize("theirs", [b"# My project\n", b"", b"\xff\xfe no text"])
def test_a_readme_of_the_user_is_not_changed(tiny_t5, tmp_path, theirs):
    (tmp_path / "README.md").write_bytes(theirs)
    adapters.save(adapters.attach(tiny_t5(), LORA), tmp_path)
    assert (tmp_path / "README.md").read_bytes() == theirs


def test_a_card_without_its_mark_is_not_changed(tiny_t5, tmp_path, card_of):
    text = card_of(adapters.attach(tiny_t5(), LORA))
    edited = text[: text.index("<!--")] + "Trained on my own data.\n"
    (tmp_path / "README.md").write_text(edited)
    assert card_of(adapters.attach(tiny_t5(), {**LORA, "rank": 3})) == edited


def test_the_card_can_be_left_out(tiny_t5, tmp_path):
    adapters.save(adapters.attach(tiny_t5(), LORA), tmp_path, model_card=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
