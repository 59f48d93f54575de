"""The PEFT tuner on every known architecture and on unknown ones: roles, and folders that convert both ways."""

import json

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file

import adapters
from adapters import CheckpointError, ConfigurationError
from adapters.peft import TensorTrainConfig, from_peft, to_peft
from tests.adapters.models import MODELS, UNKNOWN, logits, tiny
from tests.adapters.peft.tiny import layers, scrambled
from tests.adapters.test_architectures import disturbed

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ALL = {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"}
OUTPUTS = {"kind": "tt_lora", "rank": 3, "target_modules": ["o"]}
KINDS = {
    "all linears": ALL,
    "feed-forward": {"kind": "tt_lora", "rank": 2, "delta_bias": "dense"},
    "MetaTT": {**OUTPUTS, "modes": ["in", "layer", "matrix", "out"]},
    "LoTR": {**OUTPUTS, "modes": ["in", "layer", "out"]},
    "basis": {**OUTPUTS, "format": "tensor_basis"},
    "shared cores": {**ALL, "shared_cores": [0]},
    "rank pattern": {**ALL, "rank_pattern": {"1.*": 3}},
    "excluded": {**ALL, "exclude_modules": ["o"]},
    "one layer": {**OUTPUTS, "layers": [1]},
    "expression": {**ALL, "target_modules": r".*\.0\..*"},
    "principal": {**ALL, "init": "principal"},
}
WITH_HEAD = {name for name, (cls, _) in (MODELS | UNKNOWN).items() if "Classification" in cls}
CASES = [(name, "all linears") for name in (*MODELS, *UNKNOWN)]
CASES += [(name, kind) for name in ("bert", "gpt2", "llama") for kind in KINDS if kind != "all linears"]
CASES += [(name, kind) for name in ("encoder-decoder",) for kind in ("MetaTT", "one layer")]


def converted(name, config, folder):
    """A native folder, that folder converted, and converted back; the logits of all three are compared."""
    model = disturbed(adapters.attach(tiny(name), config))
    expected = logits(model, name)
    adapters.save(model, folder / "native")
    tiny(name).save_pretrained(folder / "base")
    to_peft(folder / "native", folder / "peft", base=str(folder / "base"))
    loaded = PeftModel.from_pretrained(tiny(name), folder / "peft").eval()
    assert torch.equal(logits(loaded, name), expected)
    loaded.save_pretrained(folder / "again")
    from_peft(folder / "again", folder / "back", base=str(folder / "base"))
    assert torch.equal(logits(adapters.load(tiny(name), folder / "back"), name), expected)
    ours, back = (load_file(folder / path / "adapter_model.safetensors") for path in ("native", "back"))
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[key], back[key]) for key in ours)
    return json.loads((folder / "peft" / "adapter_config.json").read_text())


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{kind} in {name}" for name, kind in CASES])
def test_a_round_trip_keeps_logits_and_tensors(name, kind, tmp_path):
    config = converted(name, KINDS[kind], tmp_path)
    cls = (MODELS | UNKNOWN)[name][0]
    task = "CAUSAL_LM" if "CausalLM" in cls or "LMHead" in cls else None
    task = "SEQ_2_SEQ_LM" if name in ("bart", "encoder-decoder") else task
    assert config["task_type"] == task  # PEFT would train the head of a classifier, which has not been trained
    assert task or config["auto_mapping"]["base_model_class"] == cls
    assert config["modules_to_save"] is None


@pytest.mark.parametrize("name", sorted(WITH_HEAD))
def test_a_trained_head_is_converted(name, tmp_path):
    config = converted(
        name, [{"kind": "tt_lora", "rank": 2, "target_modules": r".*\.0\..*"}, {"kind": "head"}], tmp_path
    )
    heads = {
        "deberta-v2": {"classifier", "pooler"},
        "distilbert": {"classifier", "pre_classifier"},
        "xlnet": {"logits_proj", "sequence_summary"},
    }
    added = set() if name == "vit" else {"classifier", "score"}  # by PEFT, for the task type
    assert set(config["modules_to_save"]) == heads.get(name, {"classifier"}) | added
    assert config["task_type"] == (None if name == "vit" else "SEQ_CLS")


def test_the_head_of_a_peft_folder_has_its_own_size_and_must_be_whole(tmp_path):
    tiny("bert").save_pretrained(tmp_path / "base")
    config = TensorTrainConfig(rank=2, target_modules=["q"], task_type=TaskType.SEQ_CLS)
    model = scrambled(get_peft_model(tiny("bert", num_labels=3), config)).eval()
    model.save_pretrained(tmp_path / "peft")
    from_peft(tmp_path / "peft", tmp_path / "native", base=str(tmp_path / "base"))
    card = (tmp_path / "peft" / "README.md").read_text()
    assert f"{3 * 24 + 3:,} more in whole modules (modules_to_save)." in card
    native = adapters.load(tiny("bert", num_labels=3), tmp_path / "native")
    assert torch.equal(logits(native, "bert"), logits(model, "bert"))
    with pytest.raises(CheckpointError, match="num_labels=3"):
        adapters.load(tiny("bert"), tmp_path / "native")

    tiny("deberta-v2").save_pretrained(tmp_path / "deberta")
    get_peft_model(tiny("deberta-v2"), config).save_pretrained(tmp_path / "part")
    with pytest.raises(CheckpointError, match=r"only a part of the head, without pooler\.dense\.bias"):
        from_peft(tmp_path / "part", tmp_path / "refused", base=str(tmp_path / "deberta"))
    assert not (tmp_path / "refused").exists()


ROLES = {
    "bert": (["q", "v"], {"query", "value"}),
    "gpt2": (["qkv"], {"c_attn"}),
    "llama": (["q", "gate"], {"q_proj", "gate_proj"}),
    "phi3": (["gate_in"], {"gate_up_proj"}),
    "mpnet": (["o"], {"o"}),
    "distilbert": (["in", "out"], {"lin1", "lin2"}),
}


@pytest.mark.parametrize("name", ROLES)
def test_roles_name_the_same_linears_as_in_attach(name, tmp_path):
    roles, ends = ROLES[name]
    model = scrambled(get_peft_model(tiny(name), TensorTrainConfig(rank=2, target_modules=roles))).eval()
    paths = {path.removeprefix("base_model.model.") for path in layers(model)}
    native = adapters.attach(tiny(name), {"kind": "tt_lora", "rank": 2, "target_modules": roles})
    assert paths == {path for path, _ in adapters.adapted_modules(native)}
    assert {path.rpartition(".")[2] for path in paths} == ends
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny(name), tmp_path).eval(), name), logits(model, name))


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("bert", ["querry"], "'querry': did you mean 'query'"),
        ("bert", ["q", "vv"], "'vv': known are"),
        ("gpt2", ["q"], "'q': this model computes it in 'c_attn', whose role is 'qkv'"),
        ("phi3", ["gate"], "'gate': this model computes it in 'gate_up_proj', whose role is 'gate_in'"),
    ],
)
def test_a_role_that_is_not_there_is_refused(name, targets, message):
    with pytest.raises(ConfigurationError, match=message):
        get_peft_model(tiny(name), TensorTrainConfig(rank=2, target_modules=targets))
